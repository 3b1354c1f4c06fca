"""Layers: y, and the gradients of everything that goes in (dx, dw, db, dgamma, dbeta) for an upstream gradient dy. Convolution and
pooling: x is NHWC; "same" pads as Keras does, with the odd pixel after. batch_norm: new_mean and new_var are the running
statistics after one training step; new_var_unbiased (PyTorch's rule) takes the batch variance over n - 1, new_var_biased
(Keras' rule) over n."""
import keras
import torch
import torch.nn.functional as F

from .gradients import add_case, normal
from .vectorfile import agree, rng_of

# name, shape of x, units, bias
DENSE = [
    ("dense", (5, 7), 3, True),
    ("dense_no_bias", (4, 9), 6, False),
    ("dense_one_to_one", (1, 1), 1, True),
    ("dense_3d", (2, 3, 5), 4, True),
    ("dense_wide", (6, 33), 17, True),
]

# name, shape of x, kernel, filters, options that differ from strides 1, padding valid, dilation 1, bias
CONV2D = [
    ("conv2d", (2, 7, 9, 3), (3, 3), 4, {}),
    ("conv2d_no_bias", (1, 5, 5, 2), (3, 3), 3, {"bias": False}),
    ("conv2d_1x1", (2, 4, 5, 3), (1, 1), 7, {}),
    ("conv2d_1x1_strides2", (1, 5, 6, 3), (1, 1), 2, {"strides": (2, 2)}),
    ("conv2d_5x5", (2, 9, 8, 2), (5, 5), 3, {}),
    ("conv2d_5x5_same", (1, 6, 7, 2), (5, 5), 3, {"padding": "same"}),
    ("conv2d_same", (2, 6, 7, 3), (3, 3), 5, {"padding": "same"}),
    ("conv2d_same_even_kernel", (1, 5, 6, 2), (2, 4), 3, {"padding": "same"}),
    ("conv2d_strides2", (2, 7, 8, 3), (3, 3), 4, {"strides": (2, 2)}),
    ("conv2d_same_strides2_even", (2, 8, 6, 3), (3, 3), 4, {"strides": (2, 2), "padding": "same"}),
    ("conv2d_same_strides2_odd", (2, 7, 9, 3), (3, 3), 4, {"strides": (2, 2), "padding": "same"}),
    ("conv2d_same_strides2_5x5", (1, 8, 7, 2), (5, 5), 3, {"strides": (2, 2), "padding": "same"}),
    ("conv2d_strides_1_3", (1, 6, 10, 2), (3, 2), 3, {"strides": (1, 3)}),
    ("conv2d_strides_over_kernel", (1, 8, 8, 2), (2, 2), 3, {"strides": (3, 3)}),
    ("conv2d_dilation2", (2, 9, 8, 2), (3, 3), 3, {"dilation": (2, 2)}),
    ("conv2d_same_dilation2", (1, 7, 8, 2), (3, 3), 3, {"padding": "same", "dilation": (2, 2)}),
    ("conv2d_dilation_1_3", (1, 5, 11, 2), (2, 3), 2, {"dilation": (1, 3)}),
    ("conv2d_kernel_is_image", (2, 4, 5, 3), (4, 5), 6, {}),
    ("conv2d_one_channel", (2, 6, 6, 1), (3, 3), 1, {}),
    ("conv2d_wide", (1, 5, 6, 17), (3, 3), 33, {"padding": "same"}),
]

# name, shape of x, size, strides, padding; for maximum and average
POOL2D = [
    ("2", (2, 6, 8, 3), (2, 2), (2, 2), "valid"),
    ("2_ragged", (1, 7, 5, 2), (2, 2), (2, 2), "valid"),
    ("overlapping", (2, 7, 8, 3), (3, 3), (2, 2), "valid"),
    ("gaps", (1, 9, 8, 2), (2, 2), (3, 3), "valid"),
    ("2_same_odd", (2, 7, 5, 3), (2, 2), (2, 2), "same"),
    ("3_same_strides1", (1, 5, 6, 2), (3, 3), (1, 1), "same"),
    ("3_same_strides2_even", (1, 6, 8, 2), (3, 3), (2, 2), "same"),
    ("3_same_strides2_odd", (1, 7, 9, 2), (3, 3), (2, 2), "same"),
    ("2x3_strides_1_2", (1, 5, 8, 2), (2, 3), (1, 2), "valid"),
    ("whole", (2, 4, 3, 2), (4, 3), (4, 3), "valid"),
]

# name, shape of x; the last dimension is the channel
BATCH_NORM = [("batch_norm_2d", (9, 4)), ("batch_norm_4d", (3, 4, 5, 3)), ("batch_norm_two_rows", (2, 3))]


def nchw(x):
    return x.permute(0, 3, 1, 2)


def nhwc(x):
    return x.permute(0, 2, 3, 1)


def same_padding(size, kernel, stride, dilation=1):
    """Pixels before and after that give ceil(size / stride) outputs."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def pad(x, padding, kernel, strides, dilation=(1, 1), value=0.0):
    """x is NCHW. F.pad takes the last dimension first."""
    if padding == "valid":
        return x
    height, width = (same_padding(n, k, s, d) for n, k, s, d in zip(x.shape[2:], kernel, strides, dilation))
    return F.pad(x, (*width, *height), value=value)


def dense(out):
    for name, shape, units, bias in DENSE:
        rng = rng_of(name)
        inputs = {"x": normal(rng, *shape), "w": normal(rng, shape[-1], units)}
        if bias:
            inputs["b"] = normal(rng, units)
        add_case(out, name, {"op": "dense", "options": {"bias": bias}}, inputs,
                 lambda x, w, b=None: F.linear(x, w.T, b),
                 lambda x, w, b=None: keras.ops.matmul(x, w) + (0 if b is None else b))


def conv2d(out):
    for name, shape, kernel, filters, changes in CONV2D:
        o = {"strides": (1, 1), "padding": "valid", "dilation": (1, 1), "bias": True, **changes}
        rng = rng_of(name)
        inputs = {"x": normal(rng, *shape), "w": normal(rng, *kernel, shape[3], filters)}
        if o["bias"]:
            inputs["b"] = normal(rng, filters)

        def by_torch(x, w, b=None, o=o, kernel=kernel):
            x = pad(nchw(x), o["padding"], kernel, o["strides"], o["dilation"])
            return nhwc(F.conv2d(x, w.permute(3, 2, 0, 1), b, stride=o["strides"], dilation=o["dilation"]))

        def by_keras(x, w, b=None, o=o):
            y = keras.ops.conv(x, w, strides=o["strides"], padding=o["padding"], data_format="channels_last", dilation_rate=o["dilation"])
            return y if b is None else y + b

        add_case(out, name, {"op": "conv2d", "options": {**o, "kernel": kernel, "filters": filters}}, inputs, by_torch, by_keras)


def pool2d(out):
    for name, shape, size, strides, padding in POOL2D:
        options = {"size": size, "strides": strides, "padding": padding}

        def torch_max(x, size=size, strides=strides, padding=padding):
            return nhwc(F.max_pool2d(pad(nchw(x), padding, size, strides, value=-torch.inf), size, strides))

        def torch_avg(x, size=size, strides=strides, padding=padding, real=True):
            """real: divide by the pixels inside the image, not by the window."""
            x = nchw(x)
            ones = pad(torch.ones_like(x), padding, size, strides)
            y = F.avg_pool2d(pad(x, padding, size, strides), size, strides)
            return nhwc(y / F.avg_pool2d(ones, size, strides) if real else y)

        def keras_pool(pool, size=size, strides=strides, padding=padding):
            return lambda x: pool(x, size, strides=strides, padding=padding, data_format="channels_last")

        x = {"x": normal(rng_of("pool_" + name), *shape)}
        add_case(out, "max_pool2d_" + name, {"op": "max_pool2d", "options": options}, x, torch_max, keras_pool(keras.ops.max_pool))
        add_case(out, "avg_pool2d_" + name, {"op": "avg_pool2d", "options": {**options, "count_padding": False}}, x, torch_avg,
                 keras_pool(keras.ops.average_pool))
        if padding == "same":
            add_case(out, f"avg_pool2d_{name}_count_padding", {"op": "avg_pool2d", "options": {**options, "count_padding": True}}, x,
                     lambda x, avg=torch_avg: avg(x, real=False))


def global_pool(out):
    for op, torch_fn, layer in (
            ("global_avg_pool2d", lambda x: x.mean((1, 2)), keras.layers.GlobalAveragePooling2D()),
            ("global_max_pool2d", lambda x: x.amax((1, 2)), keras.layers.GlobalMaxPooling2D())):
        add_case(out, op, {"op": op, "options": {}}, {"x": normal(rng_of(op), 3, 5, 4, 6)}, torch_fn, layer)


def batch_norm(out):
    decay, eps = 0.9, 1e-5
    for name, shape in BATCH_NORM:
        rng, c = rng_of(name), shape[-1]
        inputs = {"x": normal(rng, *shape) * 2 + 1, "gamma": normal(rng, c), "beta": normal(rng, c)}
        running = {"running_mean": normal(rng, c), "running_var": rng.uniform(0.5, 2, c)}
        for training in (True, False):
            stats = {}  # what the last call left as running statistics

            def by_torch(x, gamma, beta, training=training, running=running, stats=stats):
                mean, var = (torch.tensor(v) for v in running.values())
                y = F.batch_norm(x.movedim(-1, 1), mean, var, gamma, beta, training, 1 - decay, eps)
                stats["torch"] = mean.numpy(), var.numpy()
                return y.movedim(1, -1)

            layer = keras.layers.BatchNormalization(momentum=decay, epsilon=eps)
            layer.build(shape)

            def by_keras(x, gamma, beta, training=training, running=running, stats=stats, layer=layer):
                y, state = layer.stateless_call([gamma, beta], [keras.ops.array(v) for v in running.values()], x, training=training)
                stats["keras"] = state[0].numpy(), state[1].numpy()
                return y

            add_case(out, name + ("_training" if training else "_inference"),
                     {"op": "batch_norm", "options": {"decay": decay, "eps": eps, "training": training}},
                     inputs, by_torch, by_keras, extra=running)
            if training:
                agree(name + "/new_mean", stats["torch"][0], stats["keras"][0])
                out.extend(name + "_training", {"new_mean": stats["torch"][0], "new_var_unbiased": stats["torch"][1],
                                                "new_var_biased": stats["keras"][1]})


def make(out):
    dense(out)
    conv2d(out)
    pool2d(out)
    global_pool(out)
    batch_norm(out)
