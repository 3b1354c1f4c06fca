"""Metrics: x the prediction, target, and weight (one per sample) where the case has one; value is the number over all rows. Keras fed in batches of
sizes that differ; by "numpy" the definitions of sklearn: precision, recall and F by class for labels (target i64 from 0), their averages, roc_auc
and average_precision with ties. Options are in our words."""
import keras
import numpy as np
import tensorflow as tf

from .vectorfile import agree, rng_of

M = keras.metrics


def by_keras(metric, x, target, weight=None):
    first = 0
    for size in (7, 1, len(x)):
        rows = slice(first, first + size)
        if len(x[rows]):
            metric.update_state(tf.constant(target[rows]), tf.constant(x[rows]), None if weight is None else tf.constant(weight[rows]))
        first += size
    return np.atleast_1d(np.asarray(metric.result(), dtype=np.float64))


def add(out, name, op, options, x, target, metric, weight=None):
    tensors = {"x": x, "target": target} if weight is None else {"x": x, "target": target, "weight": weight}
    out.add(name, {"op": op, "source": "keras", "options": options}, {**tensors, "value": by_keras(metric, x, target, weight)})


def keras_cases(out):
    rng = rng_of("metrics")
    n = 20
    w = rng.uniform(0.1, 2, n)
    p, yes = rng.uniform(0, 1, n), rng.integers(0, 2, n).astype(float)
    p2, yes2 = rng.uniform(0, 1, (n, 3)), rng.integers(0, 2, (n, 3)).astype(float)
    logits, label = rng.standard_normal((n, 5)), rng.integers(0, 5, n)
    a, b = rng.standard_normal((n, 3)), rng.standard_normal((n, 3))
    add(out, "iou", "iou", {}, logits, label, M.MeanIoU(5, sparse_y_pred=False))  # with weights Keras rounds them to whole numbers
    for tag, weight in (("", None), ("_weight", w)):
        add(out, "precision" + tag, "precision", {}, p, yes, M.Precision(), weight)
        add(out, "recall" + tag, "recall", {"threshold": 0.3}, p, yes, M.Recall(thresholds=0.3), weight)
        add(out, "precision_columns" + tag, "precision", {}, p2, yes2, M.Precision(), weight)
        add(out, "recall_class" + tag, "recall", {"class": 2}, p2, yes2, M.Recall(class_id=1), weight)
        add(out, "f1_macro" + tag, "f1", {"average": "macro"}, p2, yes2, M.F1Score("macro", 0.5), weight)
        add(out, "fbeta_micro" + tag, "fbeta", {"average": "micro", "beta": 2.0}, p2, yes2, M.FBetaScore("micro", 2.0, 0.5), weight)
        add(out, "f1_none" + tag, "f1", {"average": "none"}, p2, yes2, M.F1Score(None, 0.5), weight)
        add(out, "f1_weighted" + tag, "f1", {"average": "weighted"}, p2, yes2, M.F1Score("weighted", 0.5), weight)
        add(out, "auc" + tag, "auc", {}, p, yes, M.AUC(), weight)
        add(out, "auc_pr" + tag, "auc", {"curve": "pr", "thresholds": 50}, p, yes, M.AUC(num_thresholds=50, curve="PR"), weight)
        add(out, "binary_accuracy" + tag, "binary_accuracy", {"threshold": 0.4}, p2, yes2, M.BinaryAccuracy(threshold=0.4), weight)
        add(out, "sparse_accuracy" + tag, "sparse_categorical_accuracy", {}, logits, label, M.SparseCategoricalAccuracy(), weight)
        add(out, "categorical_accuracy" + tag, "categorical_accuracy", {}, logits, np.eye(5)[label], M.CategoricalAccuracy(), weight)
        add(out, "r2" + tag, "r2", {}, a, b, M.R2Score(), weight)
        add(out, "cosine" + tag, "cosine_similarity", {}, a, b, M.CosineSimilarity(), weight)
        for op, metric in (("mse", M.MeanSquaredError()), ("mae", M.MeanAbsoluteError()), ("rmse", M.RootMeanSquaredError()),
                           ("mape", M.MeanAbsolutePercentageError()), ("msle", M.MeanSquaredLogarithmicError()), ("hinge", M.Hinge()),
                           ("log_cosh", M.LogCoshError()), ("kl_divergence", M.KLDivergence()), ("poisson", M.Poisson())):
            x, t = (a, b) if op in ("mse", "mae", "rmse", "mape", "log_cosh") else (p2, yes2) if op == "hinge" else (p2 + 0.1, yes2 + 0.2)
            add(out, op + tag, op, {}, x, t, metric, weight)


def divide(a, b):
    return np.where(b > 0, a / np.where(b > 0, b, 1), 0)


def numpy_cases(out):
    rng = rng_of("metrics/sklearn")
    n, classes = 24, 5
    x, label, w = rng.standard_normal((n, classes)), rng.integers(0, classes - 1, n), rng.uniform(0.1, 2, n)
    x[:, 4] -= 100  # a class that is neither true nor predicted
    guess = x.argmax(-1)
    for tag, weight in (("", np.ones(n)), ("_weight", w)):
        matrix = np.zeros((classes, classes))
        np.add.at(matrix, (label, guess), weight)
        right, predicted, actual = np.diag(matrix), matrix.sum(0), matrix.sum(1)
        seen = predicted + actual > 0
        tensors = {"x": x, "target": label.astype(np.int64)} if not tag else {"x": x, "target": label.astype(np.int64), "weight": w}
        by_class = {"precision": divide(right, predicted), "recall": divide(right, actual), "f1": divide(2 * right, predicted + actual),
                    "fbeta": divide(1.25 * right, 0.25 * actual + predicted), "iou": divide(right, predicted + actual - right)}
        for op, values in by_class.items():
            more = {"beta": 0.5} if op == "fbeta" else {}
            for average, value in (("auto", values[seen].mean()), ("macro", values[seen].mean()), ("none", values),
                                   ("weighted", (values * actual).sum() / actual.sum())):
                out.add(f"labels_{op}_{average}{tag}", {"op": op, "source": "numpy", "options": {"average": average, **more}},
                        {**tensors, "value": np.atleast_1d(value)})
        out.add("confusion_matrix" + tag, {"op": "confusion_matrix", "source": "numpy", "options": {}}, {**tensors, "value": matrix})
        among = (x.argsort(-1)[:, -2:] == label[:, None]).any(-1)
        out.add("top_k" + tag, {"op": "top_k_accuracy", "source": "numpy", "options": {"k": 2}},
                {**tensors, "value": np.atleast_1d((among * weight).sum() / weight.sum())})
        scores, yes = np.round(rng.uniform(0, 1, n), 1), rng.integers(0, 2, n).astype(float)
        positive, negative = yes == 1, yes == 0
        pairs = weight[positive][:, None] * weight[negative][None, :]
        above = (scores[positive][:, None] > scores[negative][None, :]) + 0.5 * (scores[positive][:, None] == scores[negative][None, :])
        roc = (pairs * above).sum() / pairs.sum()
        limits = np.unique(scores)[::-1]
        tp = np.array([weight[(scores >= t) & positive].sum() for t in limits])
        fp = np.array([weight[(scores >= t) & negative].sum() for t in limits])
        ap = (np.diff(tp, prepend=0) / tp[-1] * tp / (tp + fp)).sum()
        agree("trapezoids", roc, np.trapezoid(np.append(0, tp) / tp[-1], np.append(0, fp) / fp[-1]))
        tensors = {"x": scores, "target": yes} if not tag else {"x": scores, "target": yes, "weight": w}
        out.add("roc_auc" + tag, {"op": "roc_auc", "source": "numpy", "options": {}}, {**tensors, "value": np.atleast_1d(roc)})
        out.add("average_precision" + tag, {"op": "average_precision", "source": "numpy", "options": {}}, {**tensors, "value": np.atleast_1d(ap)})
        logs = x - np.log(np.exp(x).sum(-1, keepdims=True))
        entropy = -logs[np.arange(n), label]
        tensors = {"x": x, "target": label.astype(np.int64)} if not tag else {"x": x, "target": label.astype(np.int64), "weight": w}
        out.add("perplexity" + tag, {"op": "perplexity", "source": "numpy", "options": {}},
                {**tensors, "value": np.atleast_1d(np.exp((entropy * weight).sum() / weight.sum()))})


def make(out):
    keras_cases(out)
    numpy_cases(out)
