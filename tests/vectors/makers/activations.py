"""Activations: y = f(x) and dx for an upstream gradient dy. x reaches from -30 to 30, where naive formulas overflow or cancel, and
avoids 0, where some have a kink."""
import keras
import numpy as np
import torch
import torch.nn.functional as F

from .gradients import add_case
from .vectorfile import rng_of

K = keras.activations

# name, options, PyTorch, Keras. PyTorch's own softplus turns linear above 20, which loses 1e-10: written out instead.
# TensorFlow passes the constants of leaky_relu and gelu through f32 whatever the tensor, so Keras has no f64 answer there.
TABLE = [
    ("relu", {}, F.relu, K.relu),
    ("leaky_relu", {"slope": 0.01}, lambda x: F.leaky_relu(x, 0.01), None),
    ("leaky_relu", {"slope": 0.3}, lambda x: F.leaky_relu(x, 0.3), None),
    ("elu", {"alpha": 1.0}, F.elu, K.elu),
    ("elu", {"alpha": 0.7}, lambda x: F.elu(x, alpha=0.7), lambda x: K.elu(x, alpha=0.7)),
    ("gelu", {}, F.gelu, None),
    ("gelu_tanh", {}, lambda x: F.gelu(x, approximate="tanh"), None),
    ("silu", {}, F.silu, K.silu),
    ("sigmoid", {}, torch.sigmoid, K.sigmoid),
    ("tanh", {}, torch.tanh, K.tanh),
    ("softplus", {}, lambda x: torch.logaddexp(x, torch.zeros_like(x)), K.softplus),
    ("relu6", {}, F.relu6, K.relu6),
    ("selu", {}, F.selu, None),
    ("mish", {}, F.mish, K.mish),
    ("hard_sigmoid", {}, None, K.hard_sigmoid),
    ("hard_tanh", {}, F.hardtanh, K.hard_tanh),
    ("softsign", {}, F.softsign, K.softsign),
    ("exponential", {}, torch.exp, K.exponential),
    ("linear", {}, lambda x: x * 1, K.linear),
    ("softmax", {"axis": -1}, lambda x: F.softmax(x, -1), K.softmax),
    ("log_softmax", {"axis": -1}, lambda x: F.log_softmax(x, -1), K.log_softmax),
]


def inputs(name):
    rng = rng_of(name)
    x = rng.standard_normal((5, 7)) * 2
    x[0] = [-30, -12, -5.5, 1e-9, 5.5, 12, 30]
    return x


def make(out):
    for op, options, torch_fn, keras_fn in TABLE:
        name = "_".join([op] + [str(v) for k, v in options.items() if k != "axis"])
        add_case(out, name, {"op": op, "options": options}, {"x": inputs(name)}, torch_fn, keras_fn)
    for op, fn in (("softmax", F.softmax), ("log_softmax", F.log_softmax)):
        x = np.asarray(rng_of(op + "_middle").standard_normal((2, 3, 4)))
        add_case(out, op + "_middle_axis", {"op": op, "options": {"axis": 1}}, {"x": x}, lambda x, fn=fn: fn(x, 1),
                 lambda x, op=op: getattr(K, op)(x, axis=1))
        wide = rng_of(op + "_wide").standard_normal((3, 33)) * 300  # exp overflows without subtracting the maximum
        add_case(out, op + "_large", {"op": op, "options": {"axis": -1}}, {"x": wide}, lambda x, fn=fn: fn(x, -1), getattr(K, op))
