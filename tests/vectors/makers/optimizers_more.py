"""The optimizers that optimizers.safetensors has not, over the same parameters and gradients (case "shared", see there), weights after steps 1, 2,
10 and 50. Options are in our words. lbfgs: "start" [n], and "after" [calls][n], where each call of step() brought it on Rosenbrock's function
sum 100 (x[i+1] - x[i]^2)^2 + (1 - x[i])^2. ema: step<n>/p<k> are Keras' averages; accumulate: Keras' gradient_accumulation_steps. onecycle: lr
and momentum (or beta1) of PyTorch's OneCycleLR, and the weights."""
import keras
import numpy as np
import torch

from .optimizers import SAVED, STEPS, by_keras, by_torch, problem
from .vectorfile import agree

T, O = torch.optim, keras.optimizers
TABLE = [
    ("adagrad", "adagrad", {"lr": 0.1}, (T.Adagrad, {}), None),
    ("adagrad_all", "adagrad", {"lr": 0.1, "lr_decay": 0.01, "weight_decay": 0.1, "initial_accumulator": 0.2, "eps": 1e-6},
     (T.Adagrad, {"lr_decay": 0.01, "weight_decay": 0.1, "initial_accumulator_value": 0.2, "eps": 1e-6}), None),
    ("adagrad_keras", "adagrad", {"lr": 0.1, "initial_accumulator": 0.1, "eps": 1e-7, "eps_inside": True}, None,
     (O.Adagrad, {"initial_accumulator_value": 0.1, "epsilon": 1e-7})),
    ("adadelta", "adadelta", {"lr": 1.0}, (T.Adadelta, {}), None),
    ("adadelta_weight_decay", "adadelta", {"lr": 0.5, "rho": 0.95, "eps": 1e-7, "weight_decay": 0.1},
     (T.Adadelta, {"rho": 0.95, "eps": 1e-7, "weight_decay": 0.1}), None),
    ("adadelta_keras", "adadelta", {"lr": 0.5, "rho": 0.95, "eps": 1e-7}, (T.Adadelta, {"rho": 0.95, "eps": 1e-7}), (O.Adadelta, {})),
    ("nadam", "nadam", {"lr": 2e-3}, (T.NAdam, {}), None),
    ("nadam_all", "nadam", {"lr": 1e-2, "beta1": 0.8, "beta2": 0.95, "eps": 1e-6, "momentum_decay": 0.1, "weight_decay": 0.1},
     (T.NAdam, {"betas": (0.8, 0.95), "eps": 1e-6, "momentum_decay": 0.1, "weight_decay": 0.1}), None),
    ("nadam_decoupled", "nadam", {"lr": 1e-2, "weight_decay": 0.1, "decoupled": True},
     (T.NAdam, {"weight_decay": 0.1, "decoupled_weight_decay": True}), None),
    ("nadam_keras", "nadam", {"lr": 1e-2, "eps": 1e-7, "momentum_decay": 1.0}, None,
     (O.Nadam, {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7})),
    ("adamax", "adamax", {"lr": 2e-3}, (T.Adamax, {}), None),
    ("adamax_all", "adamax", {"lr": 1e-2, "beta1": 0.8, "beta2": 0.95, "eps": 1e-6, "weight_decay": 0.1},
     (T.Adamax, {"betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}), None),
    ("radam", "radam", {"lr": 1e-2}, (T.RAdam, {}), None),
    ("radam_all", "radam", {"lr": 1e-2, "beta1": 0.8, "beta2": 0.9, "eps": 1e-6, "weight_decay": 0.1},
     (T.RAdam, {"betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.1}), None),
    ("radam_decoupled", "radam", {"lr": 1e-2, "weight_decay": 0.1, "decoupled": True},
     (T.RAdam, {"weight_decay": 0.1, "decoupled_weight_decay": True}), None),
    ("rprop", "rprop", {"lr": 1e-2}, (T.Rprop, {}), None),
    ("rprop_all", "rprop", {"lr": 0.1, "shrink": 0.3, "grow": 1.5, "least": 1e-3, "most": 0.2},
     (T.Rprop, {"etas": (0.3, 1.5), "step_sizes": (1e-3, 0.2)}), None),
    ("lion", "lion", {"lr": 1e-2}, None, (O.Lion, {})),
    ("lion_weight_decay", "lion", {"lr": 1e-2, "beta1": 0.8, "beta2": 0.95, "weight_decay": 0.1}, None,
     (O.Lion, {"beta_1": 0.8, "beta_2": 0.95, "weight_decay": 0.1})),
]


def averages(params, grads):
    leaves = [keras.Variable(p, dtype="float64") for p in params]
    optimizer = O.SGD(learning_rate=np.float64(0.1), momentum=np.float64(0.9), use_ema=True, ema_momentum=np.float64(0.9))
    for step in range(STEPS):
        optimizer.apply([keras.ops.array(g[step]) for g in grads], leaves)
        yield step + 1, [a.numpy().copy() for a in optimizer._model_variables_moving_average]


def rosenbrock(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def lbfgs(out):
    for name, own, calls in (
        ("lbfgs", {"lr": 1e-3, "max_iter": 5}, 6),
        ("lbfgs_history", {"lr": 0.5, "max_iter": 4, "history": 3, "line_search": "strong_wolfe"}, 8),
        ("lbfgs_strong_wolfe", {"lr": 1.0, "line_search": "strong_wolfe"}, 3),
    ):
        x = torch.tensor([-1.2, 1.0, 0.5, -0.3, 0.8], requires_grad=True)
        start = x.detach().numpy().copy()
        optimizer = T.LBFGS([x], lr=own["lr"], max_iter=own.get("max_iter", 20), history_size=own.get("history", 100),
                            line_search_fn=own.get("line_search"))

        def closure():
            optimizer.zero_grad()
            y = rosenbrock(x)
            y.backward()
            return y

        after = []
        for _ in range(calls):
            optimizer.step(closure)
            after.append(x.detach().numpy().copy())
        out.add(name, {"op": "lbfgs", "source": "pytorch", "options": own}, {"start": start, "after": np.array(after)})


def onecycle(out, params, grads):
    for name, cls, own in (("onecycle_sgd", T.SGD, {"momentum": 0.9}), ("onecycle_adam", T.Adam, {})):
        leaves = [torch.tensor(p, requires_grad=True) for p in params]
        optimizer = cls(leaves, lr=0.1, **own)
        cycle = T.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=STEPS)
        rates, momenta, saved = [], [], {}
        for step in range(STEPS):
            for leaf, g in zip(leaves, grads):
                leaf.grad = torch.tensor(g[step])
            group = optimizer.param_groups[0]
            rates.append(group["lr"])
            momenta.append(group["momentum"] if "momentum" in group else group["betas"][0])
            optimizer.step()
            if step + 1 < STEPS:
                cycle.step()
            if step + 1 in SAVED:
                saved.update({f"step{step + 1}/p{k}": leaf.detach().numpy().copy() for k, leaf in enumerate(leaves)})
        out.add(name, {"op": name, "source": "pytorch", "options": {"lr": 0.05, "steps": STEPS}},
                {"lr": np.array(rates, dtype=np.float64), "momentum": np.array(momenta, dtype=np.float64), **saved})


def make(out):
    params, grads = problem()
    out.add("shared", {"steps": STEPS, "saved": SAVED}, {"p0": params[0], "p1": params[1], "g0": grads[0], "g1": grads[1]})
    rows = [(name, op, options, [dict(run(*side, options, params, grads, np.full(STEPS, options["lr"])))
                                 for run, side in ((by_torch, torch_side), (by_keras, keras_side)) if side], bool(torch_side), bool(keras_side))
            for name, op, options, torch_side, keras_side in TABLE]
    rows.append(("ema", "ema", {"lr": 0.1, "momentum": 0.9, "ema": 0.9}, [dict(averages(params, grads))], False, True))
    gathered = {"lr": 0.05, "beta1": 0.9, "eps": 1e-8}
    third = [np.array([g[max(0, s - 2):s + 1].mean(0) if s % 3 == 2 else g[s] for s in range(STEPS)]) for g in grads]
    leaves = [torch.tensor(p, requires_grad=True) for p in params]
    optimizer, run = T.Adam(leaves, lr=0.05), {}
    for step in range(STEPS):
        if step % 3 == 2:
            for leaf, g in zip(leaves, third):
                leaf.grad = torch.tensor(g[step])
            optimizer.step()
        run[step + 1] = [leaf.detach().numpy().copy() for leaf in leaves]
    rows.append(("accumulate", "accumulate", {**gathered, "accumulate": 3}, [run], True, False))
    for name, op, options, runs, torch_too, keras_too in rows:
        for step in SAVED:
            for other in runs[1:]:
                for a, b in zip(runs[0][step], other[step]):
                    agree(f"{name} at step {step}", a, b)
        source = "both" if len(runs) == 2 else "pytorch" if torch_too else "keras"
        out.add(name, {"op": op, "source": source, "options": options}, {f"step{n}/p{k}": runs[0][n][k] for n in SAVED for k in range(2)})
    lbfgs(out)
    onecycle(out, params, grads)
