"""Keras' hello world, trained: x [320][10] -> dense 32 relu -> dense 1, adam lr 0.01, mse, batches of 32 in order, 10 epochs. Case
"data" has x, y and the first weights w1 [10][32], b1, w2 [32][1], b2. Each other case has loss [10], the mean of the batches'
losses of each epoch, and the weights after training as w1, b1, w2, b2. keras_f64 and keras_f32 are Keras' own fit, with its
form of adam (eps beside the uncorrected root: p -= lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)); pytorch_f64 is the
same training by PyTorch, with p -= lr * mhat / (sqrt(vhat) + eps)."""
import keras
import numpy as np
import torch

from .vectorfile import agree, rng_of

LR, EPS, BATCH, EPOCHS = 0.01, 1e-7, 32, 10
OPTIONS = {"lr": LR, "beta1": 0.9, "beta2": 0.999, "eps": EPS, "batch_size": BATCH, "epochs": EPOCHS, "shuffle": False}


def problem():
    """A smooth function of ten inputs with a little noise. Everything is rounded to f32, so that both precisions start equal."""
    rng = rng_of("keras_hello")
    x = rng.uniform(-1, 1, (320, 10))
    y = np.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:3] + 0.5 * x[:, 3:4] + 0.05 * rng.standard_normal((320, 1))
    w1, w2 = (rng.uniform(-1, 1, s) * np.sqrt(6 / sum(s)) for s in ((10, 32), (32, 1)))
    data = {"x": x, "y": y, "w1": w1, "b1": np.zeros(32), "w2": w2, "b2": np.zeros(1)}
    return {k: v.astype(np.float32).astype(np.float64) for k, v in data.items()}


def by_keras(data, dtype):
    model = keras.Sequential([keras.Input((10,), dtype=dtype), keras.layers.Dense(32, activation="relu", dtype=dtype),
                              keras.layers.Dense(1, dtype=dtype)])
    model.set_weights([data[k] for k in ("w1", "b1", "w2", "b2")])
    beta1, beta2 = np.float64(0.9), np.float64(0.999)  # Keras casts a plain float through f32
    model.compile(keras.optimizers.Adam(LR, beta1, beta2, epsilon=EPS), keras.losses.MeanSquaredError(dtype=dtype), jit_compile=False)
    history = model.fit(data["x"].astype(dtype), data["y"].astype(dtype), BATCH, EPOCHS, shuffle=False, verbose=0)
    weights = dict(zip(("w1", "b1", "w2", "b2"), (w.astype(dtype) for w in model.get_weights())))
    return {"loss": np.array(history.history["loss"], dtype=dtype), **weights}


def by_torch(data, form="pytorch"):
    """With form "keras", eps is divided by the root that Keras leaves out."""
    x, y = torch.tensor(data["x"]), torch.tensor(data["y"])
    w1, b1, w2, b2 = params = [torch.tensor(data[k], requires_grad=True) for k in ("w1", "b1", "w2", "b2")]
    optimizer, epochs, step = torch.optim.Adam(params, lr=LR, eps=EPS), [], 0
    for _ in range(EPOCHS):
        losses = []
        for at in range(0, len(x), BATCH):
            prediction = torch.relu(x[at:at + BATCH] @ w1 + b1) @ w2 + b2
            loss = torch.nn.functional.mse_loss(prediction, y[at:at + BATCH])
            step += 1
            if form == "keras":
                optimizer.param_groups[0]["eps"] = EPS / np.sqrt(1 - 0.999**step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        epochs.append(np.mean(losses))
    return {"loss": np.array(epochs), **dict(zip(("w1", "b1", "w2", "b2"), (p.detach().numpy() for p in params)))}


def make(out):
    data = problem()
    out.add("data", {"op": "keras_hello", "options": OPTIONS}, data)
    f64 = by_keras(data, "float64")
    for key, value in by_torch(data, "keras").items():
        agree(f"keras_f64/{key}", f64[key], value, 1e-9)
    keras.config.set_floatx("float32")  # the optimizer's state follows it
    f32 = by_keras(data, "float32")
    keras.config.set_floatx("float64")
    agree("keras_f32/loss", f64["loss"], f32["loss"], 1e-3)
    for name, source, tensors in (("keras_f64", "keras", f64), ("pytorch_f64", "pytorch", by_torch(data)), ("keras_f32", "keras", f32)):
        out.add(name, {"op": "keras_hello", "source": source, "options": OPTIONS}, tensors)
