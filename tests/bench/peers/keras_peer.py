#!/usr/bin/env python3
"""Keras 3 on TensorFlow: its own fit, or a train step of one's own as a tf.function, each with or without XLA. See protocol.py."""
import itertools
import os

import protocol

options = protocol.arguments(__doc__, loop=["fit", "function"], xla=["plain", "xla"])
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import layers as L  # noqa: E402

import workloads as w  # noqa: E402

tf.config.threading.set_intra_op_parallelism_threads(options.threads)
tf.config.threading.set_inter_op_parallelism_threads(1)
keras.utils.set_random_seed(1)
XLA = options.xla == "xla"


def adam(lr):
    return keras.optimizers.Adam(lr)


def labels():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def by_fit(name, model, optimizer, loss):
    """fit over a data set that lies in memory, 8 steps per call of the runtime, which is Keras' own means against overhead."""
    model.compile(optimizer, loss, jit_compile=XLA, steps_per_execution=8)
    xs, ys = w.data(name)
    stream = tf.data.Dataset.from_tensor_slices((tf.stack(xs), tf.stack(ys))).cache().repeat().prefetch(2)

    def run(n):
        history = model.fit(stream, steps_per_epoch=n, epochs=1, shuffle=False, verbose=0)
        return float(history.history["loss"][-1])

    return run


def by_function(name, model, optimizer, loss):
    xs, ys = (tf.stack(part) for part in w.data(name))
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=XLA)
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


def training(name, model, optimizer, loss):
    return (by_fit if options.loop == "fit" else by_function)(name, model, optimizer, loss)


def inference(name, model):
    """A tf.function, whichever loop: predict is made for many samples, and slower."""
    samples = itertools.cycle([tf.constant(x) for x in w.data(name)[0]])
    forward = tf.function(lambda x: model(x, training=False), jit_compile=XLA)

    def run(n):
        for x in itertools.islice(samples, n):
            forward(x).numpy()

    return run


def tiny():
    return keras.Sequential([keras.Input((10,)), L.Dense(32, activation="relu"), L.Dense(1)])


def cnn():
    return keras.Sequential([keras.Input((28, 28, 1)), L.Conv2D(32, 3, activation="relu"), L.Conv2D(64, 3, activation="relu"),
                             L.MaxPooling2D(2), L.Dropout(0.25), L.Flatten(), L.Dense(128, activation="relu"), L.Dropout(0.5), L.Dense(10)])


def mlp_tiny():
    return training("mlp_tiny", tiny(), adam(0.01), keras.losses.MeanSquaredError())


def mlp_784():
    model = keras.Sequential([keras.Input((784,)), L.Dense(512, activation="relu"), L.Dropout(0.2), L.Dense(512, activation="relu"),
                              L.Dropout(0.2), L.Dense(10)])
    return training("mlp_784", model, adam(0.001), labels())


def cnn_mnist():
    return training("cnn_mnist", cnn(), adam(0.001), labels())


def lenet5():
    model = keras.Sequential([keras.Input((28, 28, 1)), L.Conv2D(6, 5, padding="same", activation="relu"), L.MaxPooling2D(2),
                              L.Conv2D(16, 5, activation="relu"), L.MaxPooling2D(2), L.Flatten(), L.Dense(120, activation="relu"),
                              L.Dense(84, activation="relu"), L.Dense(10)])
    return training("lenet5", model, keras.optimizers.SGD(0.01, momentum=0.9), labels())


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
    model = keras.Model(start, L.Dense(10)(L.GlobalAveragePooling2D()(x)))
    return training("resnet20", model, keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=1e-4), labels())


def lstm_text():
    model = keras.Sequential([keras.Input((w.TOKENS,), dtype="int64"), L.Embedding(w.VOCABULARY, w.EMBEDDING), L.LSTM(w.HIDDEN),
                              L.Dense(1)])
    return training("lstm_text", model, adam(0.001), keras.losses.BinaryCrossentropy(from_logits=True))


def infer_mlp():
    return inference("infer_mlp", tiny())


def infer_cnn():
    return inference("infer_cnn", cnn())


if __name__ == "__main__":
    builders = (mlp_tiny, mlp_784, cnn_mnist, lenet5, resnet20, lstm_text, infer_mlp, infer_cnn)
    protocol.serve("keras", options, {"keras": keras.__version__, "tensorflow": tf.__version__},
                   {b.__name__: (w.BATCH[b.__name__], b) for b in builders})
