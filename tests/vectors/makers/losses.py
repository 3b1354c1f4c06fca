"""Losses: x is the prediction (logits where the loss says so), target what it should be. For each reduction r: loss.<r>, and
dx.<r>, its gradient; for none, of sum(loss.none * dy). PyTorch and Keras reduce differently, and each case says whose rule it
follows:
pytorch: none keeps an element of mse, mae, huber and bce per element of x; sum adds all; mean divides by their number, in
sparse cross-entropy with class weights by the sum of the weights of the labels met.
keras: none is the mean over the last dimension, one element per sample, times sample_weight; sum adds the samples; mean divides
by the number of samples, whatever the weights (class weights included: they are sample weights looked up by label);
weighted_mean divides by the sum of the weights. Labels count from 0."""
import keras
import numpy as np
import tensorflow as tf
import torch
import torch.nn.functional as F

from .gradients import normal, run_keras, run_torch
from .vectorfile import agree, rng_of

KERAS_REDUCTIONS = {"mean": "sum_over_batch_size", "sum": "sum", "none": "none"}
REGRESSION = {
    # op, options: PyTorch's function, Keras' class
    ("mse", ()): (F.mse_loss, keras.losses.MeanSquaredError),
    ("mae", ()): (F.l1_loss, keras.losses.MeanAbsoluteError),
    ("huber", (("delta", 1.0),)): (F.huber_loss, keras.losses.Huber),
    ("huber", (("delta", 0.5),)): (F.huber_loss, keras.losses.Huber),
}


def add(out, name, op, options, x, tensors, torch_fn=None, keras_fn=None, reductions=("mean", "sum", "none")):
    """torch_fn(x, reduction) or keras_fn(x, reduction), for each reduction."""
    run, fn, source = (run_torch, torch_fn, "pytorch") if torch_fn else (run_keras, keras_fn, "keras")
    results = {}
    for reduction in reductions:
        def loss(x, reduction=reduction):
            return fn(x, reduction)

        dy = np.array(1.0)
        if reduction == "none":
            dy = results["dy"] = rng_of(name + "/dy").standard_normal(run(loss, {"x": x}).shape)
        results[f"loss.{reduction}"], grads = run(loss, {"x": x}, dy)
        results[f"dx.{reduction}"] = grads["dx"]
    out.add(name, {"op": op, "source": source, "options": options}, {"x": x, **tensors, **results})
    return results


def keras_loss(cls, target, weight=None, **options):
    """A Keras loss as a function of x and a reduction, "weighted_mean" included."""
    def fn(x, reduction):
        how = KERAS_REDUCTIONS.get(reduction, "mean_with_sample_weight")
        return cls(reduction=how, dtype="float64", **options)(target, x, sample_weight=weight)
    return fn


def keras_case(out, name, op, cls, x, target, weight=None, saved=None, **options):
    """weight is what Keras gets; saved names the tensors of the case besides x and target."""
    reductions = ("mean", "sum", "none") + (("weighted_mean",) if weight is not None else ())
    if saved is None:
        saved = {} if weight is None else {"sample_weight": weight}
    return add(out, name, op, options, x, {"target": target, **saved},
               keras_fn=keras_loss(cls, target, weight, **options), reductions=reductions)


def regression(out):
    for (op, options), (torch_loss, keras_class) in REGRESSION.items():
        options = dict(options)
        stem = "_".join([op, *map(str, options.values())])
        rng = rng_of(stem)
        x, target, weight = normal(rng, 6, 3), normal(rng, 6, 3), rng.uniform(0.2, 3, 6)
        by_torch = add(out, stem + "_pytorch", op, options, x, {"target": target},
                       lambda x, r, f=torch_loss, t=target, o=options: f(x, torch.tensor(t), reduction=r, **o))
        by_keras = keras_case(out, stem + "_keras", op, keras_class, x, target, **options)
        agree(stem, by_torch["dx.mean"], by_keras["dx.mean"])  # the means are the same thing
        keras_case(out, stem + "_sample_weight_keras", op, keras_class, x, target, weight, **options)


def binary(out):
    rng = rng_of("binary_crossentropy")
    x, target = normal(rng, 6, 4) * 3, rng.integers(0, 2, (6, 4)).astype(float)
    x[0, 0], x[1, 1] = 45.0, -45.0  # log(1 + exp(x)) has to hold there
    soft, weight, pos, sample = rng.uniform(0, 1, (6, 4)), rng.uniform(0.2, 3, (6, 4)), rng.uniform(0.5, 4, 4), rng.uniform(0.2, 3, 6)
    op, bce = "binary_crossentropy", F.binary_cross_entropy_with_logits
    for name, t, tensors in (("", target, {}), ("_soft", soft, {}), ("_weight", target, {"weight": weight}),
                             ("_pos_weight", target, {"pos_weight": pos}),
                             ("_pos_weight_weight_soft", soft, {"weight": weight, "pos_weight": pos})):
        def by_torch(x, reduction, t=t, tensors=tensors):
            return bce(x, torch.tensor(t), reduction=reduction, **{k: torch.tensor(v) for k, v in tensors.items()})

        add(out, f"{op}{name}_pytorch", op, {"from_logits": True}, x, {"target": t, **tensors}, by_torch)
    cls = keras.losses.BinaryCrossentropy
    plain = keras_case(out, op + "_keras", op, cls, x, target, from_logits=True)
    agree(op, plain["dx.mean"], out.tensors[op + "_pytorch/dx.mean"])
    keras_case(out, op + "_label_smoothing_keras", op, cls, x, target, from_logits=True, label_smoothing=0.1)
    keras_case(out, op + "_sample_weight_keras", op, cls, x, target, sample, from_logits=True)


def categorical(out):
    """Targets are distributions over the classes."""
    op, cls = "categorical_crossentropy", keras.losses.CategoricalCrossentropy
    rng = rng_of(op)
    x = normal(rng, 6, 5) * 3
    x[0] = [80, -80, 0, 3, 1]
    one_hot = np.eye(5)[rng.integers(0, 5, 6)]
    soft = rng.dirichlet(np.ones(5), 6)
    class_weight, sample = rng.uniform(0.2, 3, 5), rng.uniform(0.2, 3, 6)
    for name, target in (("one_hot", one_hot), ("soft", soft)):
        for suffix, smoothing in (("", 0.0), ("_label_smoothing", 0.1)):
            stem, options = f"{op}_{name}{suffix}", {"from_logits": True, "label_smoothing": smoothing}
            by_torch = add(out, stem + "_pytorch", op, options, x, {"target": target},
                           lambda x, r, t=target, s=smoothing: F.cross_entropy(x, torch.tensor(t), reduction=r, label_smoothing=s))
            by_keras = keras_case(out, stem + "_keras", op, cls, x, target, **options)
            for key in by_torch:
                if key != "dy" and key != "dx.none":  # whose dy depends on the case's name
                    agree(f"{stem}/{key}", by_torch[key], by_keras[key])
        add(out, f"{op}_{name}_class_weight_pytorch", op, {"from_logits": True}, x, {"target": target, "class_weight": class_weight},
            lambda x, r, t=target: F.cross_entropy(x, torch.tensor(t), torch.tensor(class_weight), reduction=r))
        keras_case(out, f"{op}_{name}_sample_weight_keras", op, cls, x, target, sample, from_logits=True)


def sparse(out):
    """Targets are labels."""
    op, cls = "sparse_categorical_crossentropy", keras.losses.SparseCategoricalCrossentropy
    rng = rng_of(op)
    x, target = normal(rng, 7, 5) * 3, rng.integers(0, 5, 7)
    x[0] = [80, -80, 0, 3, 1]
    class_weight, sample = rng.uniform(0.2, 3, 5), rng.uniform(0.2, 3, 7)
    logits = {"from_logits": True}

    def by_torch(target, smoothing=0.0, weight=None):
        weight = None if weight is None else torch.tensor(weight)
        return lambda x, r: F.cross_entropy(x, torch.tensor(target), weight, reduction=r, label_smoothing=smoothing)

    plain = add(out, op + "_pytorch", op, logits, x, {"target": target}, by_torch(target))
    agree(op, plain["dx.mean"], keras_case(out, op + "_keras", op, cls, x, target, **logits)["dx.mean"])
    add(out, op + "_label_smoothing_pytorch", op, {**logits, "label_smoothing": 0.1}, x, {"target": target}, by_torch(target, 0.1))
    add(out, op + "_class_weight_pytorch", op, logits, x, {"target": target, "class_weight": class_weight},
        by_torch(target, weight=class_weight))
    add(out, op + "_class_weight_label_smoothing_pytorch", op, {**logits, "label_smoothing": 0.1}, x,
        {"target": target, "class_weight": class_weight}, by_torch(target, 0.1, class_weight))
    keras_case(out, op + "_sample_weight_keras", op, cls, x, target, sample, **logits)
    looked_up = keras_case(out, op + "_class_weight_keras", op, cls, x, target, class_weight[target], {"class_weight": class_weight},
                           **logits)
    agree("class_weight of fit", looked_up["loss.mean"], loss_in_fit(x, target, class_weight))

    dense = normal(rng, 2, 3, 2, 4)  # a label per pixel
    labels = rng.integers(0, 4, (2, 3, 2))
    add(out, op + "_per_pixel_pytorch", op, logits, dense, {"target": labels},
        lambda x, r: F.cross_entropy(x.permute(0, 3, 1, 2), torch.tensor(labels), reduction=r))


def loss_in_fit(x, target, class_weight):
    """What Keras' own training reports for logits x, to be sure that class_weight means what the cases say."""
    layer = keras.layers.Dense(x.shape[1], use_bias=False)
    model = keras.Sequential([keras.Input((x.shape[1],)), layer])
    layer.set_weights([np.eye(x.shape[1])])
    model.compile(keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    return np.array(model.train_on_batch(tf.constant(x), tf.constant(target), class_weight=dict(enumerate(class_weight))))


def make(out):
    regression(out)
    binary(out)
    categorical(out)
    sparse(out)
