"""Forward and backward of one function in both frameworks. Functions take and give tensors in our layouts and permute inside, so
that the gradients come back in our layouts too."""
import numpy as np
import tensorflow as tf
import torch

from .vectorfile import agree, rng_of


def run_torch(fn, inputs, dy=None):
    """y, and {"d<input>": gradient of sum(y * dy)} unless dy is None."""
    leaves = {k: torch.tensor(v, requires_grad=True) for k, v in inputs.items()}
    y = fn(*leaves.values())
    if dy is None:
        return y.detach().numpy()
    y.backward(torch.tensor(dy))
    return y.detach().numpy(), {"d" + k: leaf.grad.numpy() for k, leaf in leaves.items()}


def run_keras(fn, inputs, dy=None):
    leaves = {k: tf.Variable(v) for k, v in inputs.items()}
    with tf.GradientTape() as tape:
        y = tf.convert_to_tensor(fn(*leaves.values()))
    if dy is None:
        return y.numpy()
    grads = tape.gradient(y, list(leaves.values()), output_gradients=tf.constant(dy))
    return y.numpy(), {"d" + k: tf.convert_to_tensor(g).numpy() for k, g in zip(leaves, grads)}


def add_case(out, name, options, inputs, torch_fn=None, keras_fn=None, extra=None):
    """Adds inputs, y, a random dy and every gradient. With both functions given, they must agree."""
    runs = [(run, fn) for run, fn in ((run_torch, torch_fn), (run_keras, keras_fn)) if fn]
    dy = rng_of(name + "/dy").standard_normal(runs[0][0](runs[0][1], inputs).shape)
    results = [run(fn, inputs, dy) for run, fn in runs]
    y, grads = results[0]
    for other_y, other_grads in results[1:]:
        agree(name + "/y", y, other_y)
        for key, grad in grads.items():
            agree(f"{name}/{key}", grad, other_grads[key])
    source = "both" if len(runs) == 2 else "pytorch" if torch_fn else "keras"
    out.add(name, {**options, "source": source}, {**inputs, **(extra or {}), "y": y, "dy": dy, **grads})


def normal(rng, *shape):
    return np.asarray(rng.standard_normal(shape))
