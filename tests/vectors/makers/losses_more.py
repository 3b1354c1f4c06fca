"""Losses that losses.safetensors has not: x is the prediction, target what it should be. loss.<r> for the reductions that the source has, dx.<r>
its gradient (for none: of sum(loss.none * dy)). Sources reduce as described in losses.py. log_cosh, mape, msle, poisson, cosine_similarity,
hinges, kl_divergence and the focal losses are Keras' (sample_weight where a case has one); sparse labels count from 0, ignored ones are -1.
dice is Keras' with axis = every dimension but the first. triplet (PyTorch): x, positive, negative. ctc (PyTorch): x [batch][time][classes]
logits, target [batch][longest] labels from 0, blank 0, times, lengths; loss.none only, and ctc_brute the same by summing over all paths."""
import itertools

import keras
import numpy as np
import tensorflow as tf
import torch
import torch.nn.functional as F

from .gradients import run_keras, run_torch
from .losses import KERAS_REDUCTIONS, add
from .vectorfile import agree, rng_of

L = keras.losses


def keras_case(out, name, op, options, x, target, cls, weight=None, reductions=("mean", "sum", "none"), **own):
    def fn(x, reduction):
        loss = cls(reduction=KERAS_REDUCTIONS[reduction], **own)
        return loss(tf.constant(target), x, sample_weight=None if weight is None else tf.constant(weight))

    tensors = {"target": target} if weight is None else {"target": target, "sample_weight": weight}
    add(out, name, op, options, x, tensors, keras_fn=fn, reductions=reductions)


def elementwise(out):
    rng = rng_of("losses_more")
    x, t, w = rng.standard_normal((4, 3)), rng.standard_normal((4, 3)), rng.uniform(0.2, 2, 4)
    xp, tp = rng.uniform(0.05, 3, (4, 3)), rng.uniform(0.05, 3, (4, 3))
    t[1, 2] = 0  # mape divides by 1e-7 there
    for op, cls, a, b in (
        ("mape", L.MeanAbsolutePercentageError, x, np.where(t == 0, 0.5, t)), ("msle", L.MeanSquaredLogarithmicError, xp, tp),
        ("log_cosh", L.LogCosh, x * 5, t), ("poisson", L.Poisson, xp, np.floor(tp * 3)), ("cosine_similarity", L.CosineSimilarity, x, t),
    ):
        keras_case(out, op, op, {}, a, b, cls)
        keras_case(out, op + "_weight", op, {}, a, b, cls, w)
    keras_case(out, "msle_below_zero", "msle", {}, x, t, L.MeanSquaredLogarithmicError)
    keras_case(out, "mape_zero_target", "mape", {}, x, t, L.MeanAbsolutePercentageError)
    keras_case(out, "cosine_similarity_images", "cosine_similarity", {}, rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3, 4)),
               L.CosineSimilarity, reductions=("mean",))

    def poisson_log(x, reduction):
        return F.poisson_nll_loss(x, torch.tensor(np.floor(tp * 3)), log_input=True, reduction=reduction)

    add(out, "poisson_log_input", "poisson", {"log_input": True}, x, {"target": np.floor(tp * 3)}, torch_fn=poisson_log,
        reductions=("mean",))


def margins(out):
    rng = rng_of("losses_more/margins")
    x, w = rng.standard_normal((5, 3)), rng.uniform(0.2, 2, 5)
    zero_one = rng.integers(0, 2, (5, 3)).astype(float)
    hot = np.eye(3)[rng.integers(0, 3, 5)]
    for op, cls in (("hinge", L.Hinge), ("squared_hinge", L.SquaredHinge)):
        keras_case(out, op, op, {}, x, zero_one * 2 - 1, cls)
        keras_case(out, op + "_zero_one", op, {}, x, zero_one, cls, w)
    keras_case(out, "categorical_hinge", "categorical_hinge", {}, x, hot, L.CategoricalHinge)
    keras_case(out, "categorical_hinge_weight", "categorical_hinge", {}, x, hot, L.CategoricalHinge, w)


def distributions(out):
    rng = rng_of("losses_more/distributions")
    logits, w = rng.standard_normal((5, 4)), rng.uniform(0.2, 2, 5)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    t = rng.dirichlet(np.ones(4), 5)
    hot, yes = np.eye(4)[rng.integers(0, 4, 5)], rng.integers(0, 2, (5, 4)).astype(float)
    keras_case(out, "kl_divergence", "kl_divergence", {}, p, t, L.KLDivergence)
    keras_case(out, "kl_divergence_weight", "kl_divergence", {}, p, hot, L.KLDivergence, w)
    inside = rng.uniform(0.1, 0.9, (5, 4))
    for gamma, balance in ((2.0, False), (1.0, True), (0.0, False)):
        own = {"gamma": gamma, "apply_class_balancing": balance}
        for logits_too in (False, True):
            name = f"binary_focal_{gamma:g}{'_balanced' if balance else ''}{'_logits' if logits_too else ''}"
            keras_case(out, name, "binary_focal_crossentropy", {**own, "from_logits": logits_too}, logits if logits_too else inside, yes,
                       L.BinaryFocalCrossentropy, from_logits=logits_too, **own)
    for gamma, alpha, smoothing in ((2.0, 0.25, 0.0), (1.5, 0.5, 0.1)):
        own = {"gamma": gamma, "alpha": alpha, "label_smoothing": smoothing}
        for logits_too in (False, True):
            name = f"categorical_focal_{gamma:g}_{alpha:g}{'_logits' if logits_too else ''}"
            keras_case(out, name, "categorical_focal_crossentropy", {**own, "from_logits": logits_too}, logits if logits_too else p, hot,
                       L.CategoricalFocalCrossentropy, w, from_logits=logits_too, **own)
    images, masks = rng.uniform(0, 1, (3, 4, 4, 1)), rng.integers(0, 2, (3, 4, 4, 1)).astype(float)
    keras_case(out, "dice", "dice", {"from_logits": False}, images, masks, L.Dice, axis=(1, 2, 3))


def ignored(out):
    rng = rng_of("losses_more/ignored")
    x, label = rng.standard_normal((3, 4, 5)), rng.integers(0, 5, (3, 4))
    label[0, 1] = label[2, 0] = label[2, 3] = -1
    weight = rng.uniform(0.5, 2, 5)
    shape = {"target": label.astype(np.int64)}

    def fn(class_weight, smoothing):
        def run(x, reduction):
            return F.cross_entropy(x.permute(0, 2, 1), torch.tensor(label), ignore_index=-1, reduction=reduction, label_smoothing=smoothing,
                                   weight=None if class_weight is None else torch.tensor(class_weight))
        return run

    options = {"ignore_index": -1, "label_smoothing": 0.0}
    add(out, "ignore_index", "sparse_categorical_crossentropy", options, x, shape, torch_fn=fn(None, 0.0), reductions=("mean",))
    add(out, "ignore_index_smoothing", "sparse_categorical_crossentropy", {**options, "label_smoothing": 0.2}, x, shape,
        torch_fn=fn(None, 0.2), reductions=("mean",))
    add(out, "ignore_index_class_weight", "sparse_categorical_crossentropy", options, x, {**shape, "class_weight": weight},
        torch_fn=fn(weight, 0.0), reductions=("mean",))


def triplets(out):
    rng = rng_of("losses_more/triplet")
    x, positive, negative = (rng.standard_normal((6, 4)) for _ in range(3))
    for own in ({}, {"margin": 0.5, "p": 1.0}, {"margin": 2.0, "p": 3.0, "swap": True}):
        def fn(x, reduction, own=own):
            return F.triplet_margin_loss(x, torch.tensor(positive), torch.tensor(negative), reduction=reduction, **own)
        add(out, "triplet" + "".join(f"_{k}_{v}" for k, v in own.items()), "triplet", own, x, {"positive": positive, "negative": negative},
            torch_fn=fn)


def brute_ctc(logits, label):
    """-log of the sum over every path of frames that collapses to the label: blank is 0."""
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    total = -np.inf
    for path in itertools.product(range(logits.shape[1]), repeat=logits.shape[0]):
        collapsed = [c for i, c in enumerate(path) if c != 0 and (i == 0 or path[i - 1] != c)]
        if collapsed == list(label):
            total = np.logaddexp(total, sum(logs[t, c] for t, c in enumerate(path)))
    return -total


def ctc(out):
    rng = rng_of("losses_more/ctc")
    for name, batch, time, classes, longest in (("ctc_tiny", 4, 6, 4, 3), ("ctc_long", 3, 60, 12, 20)):
        x, label = rng.standard_normal((batch, time, classes)) * 2, rng.integers(1, classes, (batch, longest))
        lengths = rng.integers(0, longest + 1, batch)
        lengths[0] = longest
        label[1, 1:] = label[1, :1]  # repeats
        times = np.minimum(time, np.maximum(2 * lengths, rng.integers(1, time + 1, batch)))

        def fn(x, reduction):
            return F.ctc_loss(torch.log_softmax(x, -1).permute(1, 0, 2), torch.tensor(label), torch.tensor(times), torch.tensor(lengths),
                              reduction=reduction)

        tensors = {"target": label.astype(np.int64), "times": times.astype(np.int64), "lengths": lengths.astype(np.int64)}
        if name == "ctc_tiny":
            brute = np.array([brute_ctc(x[b, :times[b]], label[b, :lengths[b]]) for b in range(batch)])
            value, _ = run_torch(lambda x: fn(x, "none"), {"x": x}, np.ones(batch))
            agree("ctc by brute force", brute, value)
        add(out, name, "ctc", {}, x, tensors, torch_fn=fn, reductions=("none",))


def make(out):
    elementwise(out)
    margins(out)
    distributions(out)
    ignored(out)
    triplets(out)
    ctc(out)
