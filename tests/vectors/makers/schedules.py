"""Learning-rate schedules: lr [n], the rate of step (or epoch) 0 .. n-1. The options say which equation: step: lr * gamma^floor(t
/ every); multi_step: lr * gamma^(milestones that t has reached); exponential: lr * gamma^t; cosine: min_lr + (lr - min_lr) * (1
+ cos(pi * t / steps)) / 2; cosine_warmup: linear from start to lr over warmup steps, then cosine over `steps` more down to
alpha * lr, and flat after; polynomial: (lr - end) * (1 - t / steps)^power + end, flat after; cosine_restarts: cosines of `steps`, each t_mul
times as long and m_mul times as high as the last; linear: a line of factors; inverse_time: lr / (1 + rate * t / every); piecewise: Keras', the
value holds up to and with its boundary; plateau: rates after reports of "values"; noam: step from 1."""
import keras
import numpy as np
import torch

COUNT = 40
S, K = torch.optim.lr_scheduler, keras.optimizers.schedules

TABLE = [
    ("step", {"lr": 0.1, "every": 7, "gamma": 0.5}, lambda o: S.StepLR(o, 7, 0.5), K.ExponentialDecay(0.1, 7, 0.5, staircase=True)),
    ("multi_step", {"lr": 0.1, "milestones": [5, 9, 30], "gamma": 0.1}, lambda o: S.MultiStepLR(o, [5, 9, 30], 0.1), None),
    ("exponential", {"lr": 0.1, "gamma": 0.93}, lambda o: S.ExponentialLR(o, 0.93), K.ExponentialDecay(0.1, 1, 0.93)),
    ("cosine", {"lr": 0.1, "steps": 39, "min_lr": 0.001}, lambda o: S.CosineAnnealingLR(o, 39, 0.001), K.CosineDecay(0.1, 39, alpha=0.01)),
    ("cosine_warmup", {"start": 0.0, "lr": 0.1, "warmup": 5, "steps": 25, "alpha": 0.05}, None,
     K.CosineDecay(0.0, 25, alpha=0.05, warmup_target=0.1, warmup_steps=5)),
    ("polynomial", {"lr": 0.1, "steps": 30, "end": 0.01, "power": 2.0}, None, K.PolynomialDecay(0.1, 30, 0.01, power=2.0)),
    ("cosine_restarts", {"lr": 0.1, "steps": 7, "t_mul": 1.0, "m_mul": 1.0, "min_lr": 0.01},
     lambda o: S.CosineAnnealingWarmRestarts(o, 7, 1, 0.01), None),
    ("cosine_restarts_longer", {"lr": 0.1, "steps": 5, "t_mul": 2.0, "m_mul": 1.0, "min_lr": 0.01},
     lambda o: S.CosineAnnealingWarmRestarts(o, 5, 2, 0.01), K.CosineDecayRestarts(0.1, 5, 2.0, 1.0, 0.1)),
    ("cosine_restarts_lower", {"lr": 0.1, "steps": 5, "t_mul": 1.5, "m_mul": 0.5, "min_lr": 0.0}, None,
     K.CosineDecayRestarts(0.1, 5, 1.5, 0.5, 0.0)),
    ("linear", {"lr": 0.1, "steps": 10, "start": 0.25, "last": 0.8}, lambda o: S.LinearLR(o, 0.25, 0.8, 10), None),
    ("inverse_time", {"lr": 0.1, "every": 4, "rate": 0.5}, None, K.InverseTimeDecay(0.1, 4, 0.5)),
    ("inverse_time_staircase", {"lr": 0.1, "every": 4, "rate": 0.5, "staircase": True}, None, K.InverseTimeDecay(0.1, 4, 0.5, True)),
    ("piecewise", {"boundaries": [4, 9, 20], "values": [0.1, 0.05, 0.2, 0.01]}, None, K.PiecewiseConstantDecay([4, 9, 20], [0.1, 0.05, 0.2, 0.01])),
]


def by_torch(schedule):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler, rates = schedule(optimizer), []
    for _ in range(COUNT):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(rates, dtype=np.float64)


def plateau(out):
    values = np.array([1, 0.9, 0.95, 0.91, 0.92, 0.93, 0.5, 0.6, 0.49996, 0.51, 0.52, 0.55, 0.5, 0.5, 0.5, 0.5, 0.3, 0.31, 0.32, 0.33, 0.34, 0.35])
    for name, own in (("plateau", {"patience": 2}), ("plateau_cooldown", {"patience": 1, "cooldown": 2, "factor": 0.5, "min_lr": 0.02}),
                      ("plateau_abs", {"patience": 1, "threshold_mode": "abs", "threshold": 0.1})):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        scheduler, rates = S.ReduceLROnPlateau(optimizer, **own), []
        for value in values:
            scheduler.step(value)
            rates.append(optimizer.param_groups[0]["lr"])
        options = {"lr": 0.1, **{"min_delta" if k == "threshold" else k: v for k, v in own.items()}}
        out.add(name, {"op": "plateau", "source": "pytorch", "options": options}, {"values": values, "lr": np.array(rates, dtype=np.float64)})


def noam(out):
    step = np.arange(1, COUNT + 1)
    rate = 2.0 * 64**-0.5 * np.minimum(step**-0.5, step * 10**-1.5)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = S.LambdaLR(optimizer, lambda t: 2.0 * 64**-0.5 * min((t + 1) ** -0.5, (t + 1) * 10**-1.5))
    for t in range(COUNT):
        assert abs(optimizer.param_groups[0]["lr"] - rate[t]) < 1e-12
        optimizer.step()
        scheduler.step()
    out.add("noam", {"op": "noam", "source": "pytorch", "options": {"width": 64, "warmup": 10, "factor": 2.0}}, {"lr": rate})


def make(out):
    plateau(out)
    noam(out)
    for name, options, torch_schedule, keras_schedule in TABLE:
        rates = [by_torch(torch_schedule)] if torch_schedule else []
        if keras_schedule:  # Keras computes in f32
            rates.append(np.array([float(keras_schedule(t)) for t in range(COUNT)]))
            if not np.allclose(rates[0], rates[-1], rtol=1e-5, atol=1e-9):
                raise AssertionError(f"{name}: {rates}")
        source = "both" if len(rates) == 2 else "pytorch" if torch_schedule else "keras"
        out.add(name, {"op": name, "source": source, "options": options}, {"lr": rates[0]})
