"""Optimizers: 50 steps from fixed parameters with a fixed sequence of gradients, which the case "shared" holds: p0 [3][4] and p1
[5], g0 [50][3][4] and g1 [50][5] (step first). Each other case has the parameters after steps 1, 2, 10 and 50 as step<n>/p0 and
step<n>/p1, and may have lr [50], the learning rate of each step. Some gradients are near 1e-7, so that the place of eps shows.
"form" in the options names the equations where frameworks differ:
adam pytorch:   p -= lr * mhat / (sqrt(vhat) + eps);  adam keras: p -= lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps);
rmsprop eps_outside (PyTorch): p -= lr * g / (sqrt(v) + eps);  eps_inside (Keras): p -= lr * g / sqrt(v + eps);
clip_norm pytorch: g *= min(1, c / (norm + 1e-6));  clip_norm keras: g *= c / max(norm, c); norm is over all parameters
together.
weight_decay adds weight_decay * p to g, in adamw it takes lr * weight_decay * p off p first."""
import keras
import numpy as np
import torch

from .vectorfile import agree, rng_of

STEPS, SAVED = 50, (1, 2, 10, 50)

T, O = torch.optim, keras.optimizers
# name, op, options in our words, PyTorch's optimizer and its options, Keras' the same where it has equal equations
TABLE = [
    ("sgd", "sgd", {"lr": 0.1}, (T.SGD, {}), (O.SGD, {})),
    ("sgd_momentum", "sgd", {"lr": 0.05, "momentum": 0.9}, (T.SGD, {"momentum": 0.9}), (O.SGD, {"momentum": 0.9})),
    ("sgd_nesterov", "sgd", {"lr": 0.05, "momentum": 0.9, "nesterov": True}, (T.SGD, {"momentum": 0.9, "nesterov": True}),
     (O.SGD, {"momentum": 0.9, "nesterov": True})),
    ("sgd_dampening", "sgd", {"lr": 0.05, "momentum": 0.9, "dampening": 0.5}, (T.SGD, {"momentum": 0.9, "dampening": 0.5}), None),
    ("sgd_weight_decay", "sgd", {"lr": 0.1, "weight_decay": 0.1}, (T.SGD, {"weight_decay": 0.1}), None),
    ("sgd_all", "sgd", {"lr": 0.02, "momentum": 0.8, "weight_decay": 0.05, "nesterov": True},
     (T.SGD, {"momentum": 0.8, "weight_decay": 0.05, "nesterov": True}), None),
    ("adam", "adam", {"lr": 1e-2, "eps": 1e-8, "form": "pytorch"}, (T.Adam, {"eps": 1e-8}), None),
    ("adam_eps_1e-7", "adam", {"lr": 1e-2, "eps": 1e-7, "form": "pytorch"}, (T.Adam, {"eps": 1e-7}), None),
    ("adam_keras", "adam", {"lr": 1e-2, "eps": 1e-7, "form": "keras"}, None, (O.Adam, {"epsilon": 1e-7})),
    ("adam_betas", "adam", {"lr": 1e-2, "eps": 1e-8, "beta1": 0.8, "beta2": 0.95, "form": "pytorch"},
     (T.Adam, {"betas": (0.8, 0.95), "eps": 1e-8}), None),
    ("adam_amsgrad", "adam", {"lr": 1e-2, "eps": 1e-8, "amsgrad": True, "form": "pytorch"}, (T.Adam, {"eps": 1e-8, "amsgrad": True}), None),
    ("adam_weight_decay", "adam", {"lr": 1e-2, "eps": 1e-8, "weight_decay": 0.1, "form": "pytorch"},
     (T.Adam, {"eps": 1e-8, "weight_decay": 0.1}), None),
    ("adamw", "adamw", {"lr": 1e-2, "eps": 1e-8, "weight_decay": 0.01, "form": "pytorch"},
     (T.AdamW, {"eps": 1e-8, "weight_decay": 0.01}), None),
    ("adamw_amsgrad", "adamw", {"lr": 1e-2, "eps": 1e-8, "weight_decay": 0.2, "amsgrad": True, "form": "pytorch"},
     (T.AdamW, {"eps": 1e-8, "weight_decay": 0.2, "amsgrad": True}), None),
    ("adamw_keras", "adamw", {"lr": 1e-2, "eps": 1e-7, "weight_decay": 0.01, "form": "keras"}, None,
     (O.AdamW, {"epsilon": 1e-7, "weight_decay": 0.01})),
    ("rmsprop", "rmsprop", {"lr": 1e-3, "rho": 0.9, "eps": 1e-7, "form": "eps_outside"}, (T.RMSprop, {"alpha": 0.9, "eps": 1e-7}), None),
    ("rmsprop_keras", "rmsprop", {"lr": 1e-3, "rho": 0.9, "eps": 1e-7, "form": "eps_inside"}, None,
     (O.RMSprop, {"rho": 0.9, "epsilon": 1e-7})),
    ("rmsprop_centered", "rmsprop", {"lr": 1e-3, "rho": 0.99, "eps": 1e-8, "centered": True, "form": "eps_outside"},
     (T.RMSprop, {"alpha": 0.99, "eps": 1e-8, "centered": True}), None),
    ("rmsprop_momentum", "rmsprop", {"lr": 1e-3, "rho": 0.9, "eps": 1e-7, "momentum": 0.9, "form": "eps_outside"},
     (T.RMSprop, {"alpha": 0.9, "eps": 1e-7, "momentum": 0.9}), None),
    ("rmsprop_momentum_keras", "rmsprop", {"lr": 1e-3, "rho": 0.9, "eps": 1e-7, "momentum": 0.9, "form": "eps_inside"}, None,
     (O.RMSprop, {"rho": 0.9, "epsilon": 1e-7, "momentum": 0.9})),
    ("rmsprop_all", "rmsprop",
     {"lr": 1e-3, "rho": 0.95, "eps": 1e-6, "momentum": 0.5, "weight_decay": 0.1, "centered": True, "form": "eps_outside"},
     (T.RMSprop, {"alpha": 0.95, "eps": 1e-6, "momentum": 0.5, "weight_decay": 0.1, "centered": True}), None),
    ("clip_norm", "sgd", {"lr": 0.1, "clip_norm": 1.0, "form": "pytorch"}, (T.SGD, {}), None),
    ("clip_norm_keras", "sgd", {"lr": 0.1, "clip_norm": 1.0, "form": "keras"}, None, (O.SGD, {"global_clipnorm": 1.0})),
    ("clip_value", "sgd", {"lr": 0.1, "clip_value": 0.5}, (T.SGD, {}), (O.SGD, {"clipvalue": 0.5})),
    ("clip_norm_adam", "adam", {"lr": 1e-2, "eps": 1e-8, "clip_norm": 0.7, "form": "pytorch"}, (T.Adam, {"eps": 1e-8}), None),
    ("lr_of_each_step_sgd_momentum", "sgd", {"momentum": 0.9, "form": "pytorch"}, (T.SGD, {"momentum": 0.9}), None),
    ("lr_of_each_step_adamw", "adamw", {"eps": 1e-8, "weight_decay": 0.1, "form": "pytorch"},
     (T.AdamW, {"eps": 1e-8, "weight_decay": 0.1}), None),
]


def problem():
    """Parameters, and the gradients that descent on a noisy quadratic would meet, one coordinate of each in the 1e-7 range."""
    rng = rng_of("optimizers")
    params, grads = [rng.standard_normal((3, 4)), rng.standard_normal(5)], []
    for p in params:
        curvature, target, at, seen = rng.uniform(0.1, 3, p.shape), rng.standard_normal(p.shape), p.copy(), []
        scale = np.ones(p.shape)
        scale.flat[1], scale.flat[2] = 1e-7, 30
        for _ in range(STEPS):
            seen.append((curvature * (at - target) + 0.3 * rng.standard_normal(p.shape)) * scale)
            at = at - 0.05 * curvature * (at - target)
        grads.append(np.array(seen))
    return params, grads


def by_torch(cls, own, options, params, grads, lr):
    leaves = [torch.tensor(p, requires_grad=True) for p in params]
    optimizer = cls(leaves, lr=lr[0], **own)
    for step in range(STEPS):
        for leaf, g in zip(leaves, grads):
            leaf.grad = torch.tensor(g[step])
        if "clip_norm" in options:
            torch.nn.utils.clip_grad_norm_(leaves, options["clip_norm"])
        if "clip_value" in options:
            torch.nn.utils.clip_grad_value_(leaves, options["clip_value"])
        optimizer.param_groups[0]["lr"] = lr[step]
        optimizer.step()
        yield step + 1, [leaf.detach().numpy().copy() for leaf in leaves]


def by_keras(cls, own, options, params, grads, lr):
    own = {k: np.float64(v) if isinstance(v, float) else v for k, v in own.items()}  # Keras casts a plain float through f32
    leaves = [keras.Variable(p, dtype="float64") for p in params]
    optimizer = cls(learning_rate=lr[0], **own)
    for step in range(STEPS):
        optimizer.apply([keras.ops.array(g[step]) for g in grads], leaves)
        yield step + 1, [leaf.numpy().copy() for leaf in leaves]


def make(out):
    params, grads = problem()
    out.add("shared", {"steps": STEPS, "saved": SAVED}, {"p0": params[0], "p1": params[1], "g0": grads[0], "g1": grads[1]})
    falling = 0.05 * 0.9 ** np.arange(STEPS)
    for name, op, options, torch_side, keras_side in TABLE:
        lr = np.full(STEPS, options["lr"]) if "lr" in options else falling
        runs = [dict(run(*side, options, params, grads, lr)) for run, side in ((by_torch, torch_side), (by_keras, keras_side)) if side]
        for step in SAVED:
            for other in runs[1:]:
                for a, b in zip(runs[0][step], other[step]):
                    agree(f"{name} at step {step}", a, b)
        source = "both" if len(runs) == 2 else "pytorch" if torch_side else "keras"
        tensors = {f"step{n}/p{k}": runs[0][n][k] for n in SAVED for k in range(2)}
        out.add(name, {"op": op, "source": source, "options": options}, tensors if "lr" in options else {"lr": lr, **tensors})
