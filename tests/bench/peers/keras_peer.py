#!/usr/bin/env python3
"""Keras 3 on TensorFlow: its own fit, or a train step of one's own as a tf.function, each with or without XLA. See protocol.py."""
import itertools
import os

import protocol

options = protocol.arguments(__doc__)
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import layers as L  # noqa: E402

import workloads as w  # noqa: E402

tf.config.threading.set_intra_op_parallelism_threads(options.threads)
tf.config.threading.set_inter_op_parallelism_threads(1)


def by_fit(name, model, optimizer, loss, xla):
    """fit over a data set that lies in memory, 8 steps per call of the runtime, which is Keras' own means against overhead."""
    model.compile(optimizer, loss, jit_compile=xla, steps_per_execution=8)
    xs, ys = w.data(name)
    stream = tf.data.Dataset.from_tensor_slices((tf.stack(xs), tf.stack(ys))).cache().repeat().prefetch(2)

    def run(n):
        history = model.fit(stream, steps_per_epoch=n, epochs=1, shuffle=False, verbose=0)
        return float(history.history["loss"][-1])

    return run


def by_function(name, model, optimizer, loss, xla):
    xs, ys = (tf.stack(part) for part in w.data(name))
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=xla)
    def step(x, y):
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        optimizer.apply(tape.gradient(value, model.trainable_variables), model.trainable_variables)
        return value

    batches = itertools.cycle(list(zip(tf.unstack(xs), tf.unstack(ys))))

    def run(n):
        for x, y in itertools.islice(batches, n):
            value = step(x, y)
        return float(value)

    return run


def inference(name, model, xla):
    """A tf.function: predict is made for many samples, and slower."""
    samples = itertools.cycle([tf.constant(x) for x in w.data(name)[0]])
    forward = tf.function(lambda x: model(x, training=False), jit_compile=xla)

    def run(n):
        for x in itertools.islice(samples, n):
            forward(x).numpy()

    return run


def epoch(xla):
    """fit over arrays, shuffled, as a user runs it."""
    x, y = w.fashion()
    model = keras.Sequential([keras.Input((28, 28, 1)), L.Flatten(), L.Rescaling(1 / 255), *mlp().layers])
    model.compile(adam(0.001), labels(), jit_compile=xla, steps_per_execution=8)

    def run(n):
        return float(model.fit(x, y, batch_size=128, epochs=n, shuffle=True, verbose=0).history["loss"][-1])

    return run


# ---- nets ----

def tiny():
    return keras.Sequential([keras.Input((10,)), L.Dense(32, activation="relu"), L.Dense(1)])


def mlp():
    return keras.Sequential([keras.Input((784,)), L.Dense(512, activation="relu"), L.Dropout(0.2), L.Dense(512, activation="relu"),
                             L.Dropout(0.2), L.Dense(10)])


def cnn():
    return keras.Sequential([keras.Input((28, 28, 1)), L.Conv2D(32, 3, activation="relu"), L.Conv2D(64, 3, activation="relu"),
                             L.MaxPooling2D(2), L.Dropout(0.25), L.Flatten(), L.Dense(128, activation="relu"), L.Dropout(0.5), L.Dense(10)])


def lenet5():
    return keras.Sequential([keras.Input((28, 28, 1)), L.Conv2D(6, 5, padding="same", activation="relu"), L.MaxPooling2D(2),
                             L.Conv2D(16, 5, activation="relu"), L.MaxPooling2D(2), L.Flatten(), L.Dense(120, activation="relu"),
                             L.Dense(84, activation="relu"), L.Dense(10)])


def block(x, filters, stride):
    more = filters - x.shape[-1]
    y = L.Conv2D(filters, 3, stride, padding="same", use_bias=False)(x)
    y = L.ReLU()(L.BatchNormalization()(y))
    y = L.BatchNormalization()(L.Conv2D(filters, 3, padding="same", use_bias=False)(y))
    if more:
        x = keras.ops.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2)))
    return L.ReLU()(x + y)


def resnet20():
    x = start = keras.Input((32, 32, 3))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(16, 3, padding="same", use_bias=False)(x)))
    for filters, stride in w.RESNET_STAGES:
        for index in range(3):
            x = block(x, filters, stride if index == 0 else 1)
    return keras.Model(start, L.Dense(10)(L.GlobalAveragePooling2D()(x)))


def text():
    return keras.Sequential([keras.Input((w.TOKENS,), dtype="int64"), L.Embedding(w.VOCABULARY, w.EMBEDDING), L.LSTM(w.HIDDEN), L.Dense(1)])


def sequence():
    return keras.Sequential([keras.Input((40, 64)), L.GRU(64), L.Dense(1)])


def normalised():
    layers = [keras.Input((16, 16, 16))]
    for _ in range(2):
        layers += [L.Conv2D(32, 3, padding="same", use_bias=False), L.BatchNormalization(), L.ReLU()]
    return keras.Sequential([*layers, L.GlobalAveragePooling2D(), L.Dense(10)])


def bag():
    return keras.Sequential([keras.Input((w.TOKENS,), dtype="int64"), L.Embedding(w.VOCABULARY, w.EMBEDDING), L.GlobalAveragePooling1D(),
                             L.Dense(1)])


def attention():
    x = start = keras.Input((64, 128))
    x = L.LayerNormalization()(x + L.MultiHeadAttention(4, 32)(x, x))
    return keras.Model(start, L.Dense(10)(L.GlobalAveragePooling1D()(x)))


def depthwise():
    layers = [keras.Input((28, 28, 32))]
    for _ in range(2):
        layers += [L.DepthwiseConv2D(3, padding="same", activation="relu"), L.Conv2D(64, 1, activation="relu")]
    return keras.Sequential([*layers, L.GlobalAveragePooling2D(), L.Dense(10)])


# ---- workloads ----

def adam(lr):
    return keras.optimizers.Adam(lr)


def sgd(lr, **rest):
    return keras.optimizers.SGD(lr, **rest)


def labels():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def yes_or_no():
    return keras.losses.BinaryCrossentropy(from_logits=True)


TRAINING = {
    "mlp_tiny": (tiny, lambda: adam(0.01), keras.losses.MeanSquaredError),
    "mlp_784": (mlp, lambda: adam(0.001), labels),
    "cnn_mnist": (cnn, lambda: adam(0.001), labels),
    "lenet5": (lenet5, lambda: sgd(0.01, momentum=0.9), labels),
    "resnet20": (resnet20, lambda: sgd(0.1, momentum=0.9, weight_decay=1e-4), labels),
    "lstm_text": (text, lambda: adam(0.003), yes_or_no),
    "gru_sequence": (sequence, lambda: adam(0.001), yes_or_no),
    "batch_norm": (normalised, lambda: sgd(0.05), labels),
    "embedding": (bag, lambda: sgd(1.0), yes_or_no),
    "attention": (attention, lambda: adam(0.001), labels),
    "depthwise": (depthwise, lambda: adam(0.01), labels),
}
INFERENCE = {"infer_mlp": tiny, "infer_cnn": cnn}


def build(name, variant, seed):
    keras.utils.set_random_seed(seed)
    words = variant.split()
    xla = "xla" in words
    if name in INFERENCE:
        return inference(name, INFERENCE[name](), xla)
    if name == "epoch_fashion":
        return epoch(xla)
    if name not in TRAINING:
        raise ValueError(f"no workload called {name}")
    net, optimizer, loss = TRAINING[name]
    return (by_fit if "fit" in words else by_function)(name, net(), optimizer(), loss(), xla)


def variants():
    known = {name: ["function xla"] for name in TRAINING}
    known["mlp_tiny"].append("fit xla")
    for name in ("cnn_mnist", "resnet20", "depthwise", "lenet5", "batch_norm"):
        known[name] = ["function", "function xla"]
    known |= {name: ["function", "function xla"] for name in INFERENCE}
    known["epoch_fashion"] = ["fit xla"]
    return known


if __name__ == "__main__":
    protocol.serve("keras", options, {"keras": keras.__version__, "tensorflow": tf.__version__}, variants(), build)
