"""Learning-rate schedules: lr [n], the rate of step (or epoch) 0 .. n-1. The options say which equation: step: lr * gamma^floor(t
/ every); multi_step: lr * gamma^(milestones that t has reached); exponential: lr * gamma^t; cosine: min_lr + (lr - min_lr) * (1
+ cos(pi * t / steps)) / 2; cosine_warmup: linear from start to lr over warmup steps, then cosine over `steps` more down to
alpha * lr, and flat after; polynomial: (lr - end) * (1 - t / steps)^power + end, flat after."""
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
]


def by_torch(schedule):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler, rates = schedule(optimizer), []
    for _ in range(COUNT):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(rates, dtype=np.float64)


def make(out):
    for name, options, torch_schedule, keras_schedule in TABLE:
        rates = [by_torch(torch_schedule)] if torch_schedule else []
        if keras_schedule:  # Keras computes in f32
            rates.append(np.array([float(keras_schedule(t)) for t in range(COUNT)]))
            if not np.allclose(rates[0], rates[-1], rtol=1e-5, atol=1e-9):
                raise AssertionError(f"{name}: {rates}")
        source = "both" if len(rates) == 2 else "pytorch" if torch_schedule else "keras"
        out.add(name, {"op": name, "source": source, "options": options}, {"lr": rates[0]})
