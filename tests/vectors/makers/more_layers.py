"""More layers: convolutions over sequences, in groups, depthwise, separable and transposed; pooling of sequences and to a given size; zeros
around, cropping, growing; merging; slopes that are learnt. y, and the gradients of everything that goes in, for an upstream gradient
dy. Channels are last; the kernel of a transposed convolution is [kh][kw][out][in], that of a depthwise one [kh][kw][channels][multiplier]."""
import keras
import torch
import torch.nn.functional as F

from .gradients import add_case, normal
from .layers import nchw, nhwc, pad, same_padding
from .vectorfile import rng_of

# name, shape of x, kernel, filters, options that differ from strides 1, padding valid, dilation 1, groups 1
CONV1D = [
    ("conv1d", (2, 9, 3), 3, 4, {}),
    ("conv1d_same_even", (2, 8, 3), 4, 2, {"padding": "same"}),
    ("conv1d_same_strides2_odd", (2, 9, 3), 3, 2, {"padding": "same", "strides": 2}),
    ("conv1d_same_strides3_even", (1, 10, 2), 5, 3, {"padding": "same", "strides": 3}),
    ("conv1d_dilation3", (1, 12, 2), 3, 3, {"dilation": 3}),
    ("conv1d_causal", (2, 7, 3), 3, 2, {"padding": "causal"}),
    ("conv1d_causal_dilation2", (2, 7, 2), 3, 2, {"padding": "causal", "dilation": 2}),
    ("conv1d_groups2", (2, 8, 4), 3, 6, {"groups": 2}),
    ("conv1d_groups_all", (2, 8, 3), 3, 6, {"groups": 3, "padding": "same"}),
    ("conv1d_one_step", (3, 1, 2), 1, 2, {}),
]

GROUPED2D = [
    ("conv2d_groups2", (2, 6, 7, 4), (3, 3), 6, {"groups": 2}),
    ("conv2d_groups3_same_strides2", (1, 7, 6, 6), (3, 2), 3, {"groups": 3, "padding": "same", "strides": (2, 2)}),
    ("conv2d_groups_all", (2, 5, 6, 3), (3, 3), 6, {"groups": 3}),
    ("conv2d_groups_all_dilation2", (1, 7, 6, 4), (3, 3), 4, {"groups": 4, "padding": "same", "dilation": (2, 2)}),
]

# name, shape of x, kernel, multiplier, options
DEPTHWISE2D = [
    ("depthwise2d", (2, 6, 7, 3), (3, 3), 1, {}),
    ("depthwise2d_same", (2, 7, 5, 10), (3, 3), 1, {"padding": "same"}),
    ("depthwise2d_multiplier", (1, 6, 7, 3), (3, 2), 2, {"padding": "same"}),
    ("depthwise2d_strides2_even", (1, 8, 6, 5), (3, 3), 1, {"padding": "same", "strides": (2, 2)}),
    ("depthwise2d_strides2_odd", (1, 7, 9, 2), (4, 4), 1, {"padding": "same", "strides": (2, 2)}),
    ("depthwise2d_dilation2", (1, 9, 8, 2), (3, 3), 1, {"dilation": (2, 2)}),
    ("depthwise2d_wide", (1, 5, 12, 17), (5, 5), 1, {"padding": "same"}),
]

# name, shape of x, kernel, filters, options; output_padding only where it is given
TRANSPOSE2D = [
    ("transpose2d", (2, 4, 5, 3), (3, 3), 2, {}),
    ("transpose2d_strides2", (1, 4, 3, 2), (3, 3), 3, {"strides": (2, 2)}),
    ("transpose2d_kernel_below_strides", (1, 3, 4, 2), (2, 2), 3, {"strides": (3, 3)}),
    ("transpose2d_same", (1, 4, 5, 2), (3, 3), 2, {"padding": "same"}),
    ("transpose2d_same_strides2", (2, 4, 3, 2), (3, 3), 2, {"padding": "same", "strides": (2, 2)}),
    ("transpose2d_same_strides2_even_kernel", (1, 3, 4, 2), (4, 4), 2, {"padding": "same", "strides": (2, 2)}),
    ("transpose2d_same_strides3_5x2", (1, 3, 2, 2), (5, 2), 2, {"padding": "same", "strides": (3, 3)}),
    ("transpose2d_same_output_padding0", (1, 3, 4, 2), (3, 3), 2, {"padding": "same", "strides": (2, 2), "output_padding": (0, 0)}),
    ("transpose2d_same_output_padding1", (1, 3, 4, 2), (3, 3), 2, {"padding": "same", "strides": (2, 2), "output_padding": (1, 1)}),
    ("transpose2d_output_padding1", (1, 3, 4, 2), (3, 3), 2, {"strides": (2, 2), "output_padding": (1, 1)}),
]

TRANSPOSE1D = [
    ("transpose1d", (2, 5, 3), 3, 2, {}),
    ("transpose1d_strides2", (1, 4, 2), 4, 3, {"strides": 2}),
    ("transpose1d_same_strides3", (1, 4, 2), 5, 3, {"padding": "same", "strides": 3}),
    ("transpose1d_same_output_padding1", (1, 4, 2), 3, 3, {"padding": "same", "strides": 2, "output_padding": 1}),
]

POOL1D = [
    ("2", (2, 8, 3), 2, 2, "valid"),
    ("2_ragged", (1, 7, 2), 2, 2, "valid"),
    ("3_strides2_same", (2, 8, 3), 3, 2, "same"),
    ("3_strides2_same_odd", (2, 7, 3), 3, 2, "same"),
    ("3_strides1_same", (1, 6, 2), 3, 1, "same"),
]

ADAPTIVE2D = [("even", (2, 6, 8, 3), (3, 4)), ("uneven", (2, 7, 5, 2), (3, 2)), ("growing", (1, 3, 4, 2), (5, 4)), ("one", (2, 5, 6, 3), (1, 1))]


def row(x):
    """[n][t][c] -> [n][1][t][c]"""
    return x.unsqueeze(1)


def two(v):
    return v if isinstance(v, tuple) else (1, v)


def torch_conv(x, w, b, o, groups=1):
    """x [n][h][w][c], w [kh][kw][in/groups][out]"""
    strides, dilation, kernel = two(o["strides"]), two(o["dilation"]), tuple(w.shape[:2])
    x = nchw(x)
    if o["padding"] == "causal":
        x = F.pad(x, ((kernel[1] - 1) * dilation[1], 0))
    else:
        x = pad(x, o["padding"], kernel, strides, dilation)
    return nhwc(F.conv2d(x, w.permute(3, 2, 0, 1), b, stride=strides, dilation=dilation, groups=groups))


def conv1d(out):
    for name, shape, kernel, filters, changes in CONV1D:
        o = {"strides": 1, "padding": "valid", "dilation": 1, "groups": 1, **changes}
        rng = rng_of(name)
        inputs = {"x": normal(rng, *shape), "w": normal(rng, kernel, shape[2] // o["groups"], filters), "b": normal(rng, filters)}

        def by_torch(x, w, b, o=o):
            return torch_conv(row(x), w.unsqueeze(0), b, o, o["groups"]).squeeze(1)

        def by_keras(x, w, b, o=o, kernel=kernel):
            padding = o["padding"]
            if padding == "causal":
                x, padding = keras.ops.pad(x, ((0, 0), ((kernel - 1) * o["dilation"], 0), (0, 0))), "valid"
            return keras.ops.conv(x, w, strides=o["strides"], padding=padding, data_format="channels_last", dilation_rate=o["dilation"]) + b

        add_case(out, name, {"op": "conv1d", "options": {**o, "kernel": kernel, "filters": filters}}, inputs, by_torch,
                 by_keras if o["groups"] == 1 else None)


def conv2d_groups(out):
    for name, shape, kernel, filters, changes in GROUPED2D:
        o = {"strides": (1, 1), "padding": "valid", "dilation": (1, 1), **changes}
        rng = rng_of(name)
        inputs = {"x": normal(rng, *shape), "w": normal(rng, *kernel, shape[3] // o["groups"], filters), "b": normal(rng, filters)}
        add_case(out, name, {"op": "conv2d_groups", "options": {**o, "kernel": kernel, "filters": filters}}, inputs,
                 lambda x, w, b, o=o: torch_conv(x, w, b, o, o["groups"]))


def depthwise_torch(x, w, b, o):
    kh, kw, c, m = w.shape
    return torch_conv(x, w.reshape(kh, kw, 1, c * m), b, o, c)


def depthwise(out):
    for name, shape, kernel, multiplier, changes in DEPTHWISE2D:
        o = {"strides": (1, 1), "padding": "valid", "dilation": (1, 1), **changes}
        rng = rng_of(name)
        channels = shape[3] * multiplier
        inputs = {"x": normal(rng, *shape), "w": normal(rng, *kernel, shape[3], multiplier), "b": normal(rng, channels)}
        options = {**o, "kernel": kernel, "multiplier": multiplier}

        def by_keras(x, w, b, o=o):
            return keras.ops.depthwise_conv(x, w, strides=o["strides"], padding=o["padding"], data_format="channels_last",
                                            dilation_rate=o["dilation"]) + b

        add_case(out, name, {"op": "depthwise_conv2d", "options": options}, inputs, lambda x, w, b, o=o: depthwise_torch(x, w, b, o), by_keras)

        point = {"x": inputs["x"], "w": inputs["w"], "p": normal(rng, 1, 1, channels, 4), "b": normal(rng, 4)}

        def separable_torch(x, w, p, b, o=o):
            y = depthwise_torch(x, w, None, o)
            return nhwc(F.conv2d(nchw(y), p.permute(3, 2, 0, 1), b))

        def separable_keras(x, w, p, b, o=o):
            y = keras.ops.depthwise_conv(x, w, strides=o["strides"], padding=o["padding"], data_format="channels_last",
                                         dilation_rate=o["dilation"])
            return keras.ops.conv(y, p, data_format="channels_last") + b

        add_case(out, "separable" + name[9:], {"op": "separable_conv2d", "options": {**options, "filters": 4}}, point, separable_torch,
                 separable_keras)
    for name, o in (("valid", {"padding": "valid"}), ("same", {"padding": "same", "strides": 2}), ("causal", {"padding": "causal"})):
        o = {"strides": 1, "dilation": 1, **o}
        rng = rng_of("1d_" + name)
        x, w = normal(rng, 2, 8, 3), normal(rng, 3, 3, 1)
        add_case(out, "depthwise1d_" + name, {"op": "depthwise_conv1d", "options": {**o, "kernel": 3, "multiplier": 1}},
                 {"x": x, "w": w, "b": normal(rng, 3)},
                 lambda x, w, b, o=o: depthwise_torch(row(x), w.unsqueeze(0), b, o).squeeze(1))
        add_case(out, "separable1d_" + name, {"op": "separable_conv1d", "options": {**o, "kernel": 3, "multiplier": 1, "filters": 2}},
                 {"x": x, "w": w, "p": normal(rng, 1, 3, 2), "b": normal(rng, 2)},
                 lambda x, w, p, b, o=o: depthwise_torch(row(x), w.unsqueeze(0), None, o).squeeze(1) @ p[0] + b)


def transpose_size(size, kernel, stride, padding, more):
    """Keras' size, and the zeros before that a convolution of that size would have."""
    if more is None:
        length = size * stride + (0 if padding == "same" else max(kernel - stride, 0))
    else:
        length = (size - 1) * stride + kernel - (2 * (kernel // 2) if padding == "same" else 0) + more
    return length, same_padding(length, kernel, stride)[0] if padding == "same" else 0


def torch_transpose(x, w, b, o):
    """x [n][h][w][in], w [kh][kw][out][in]: all products, cut or filled to Keras' size."""
    strides, kernel, more = two(o["strides"]), tuple(w.shape[:2]), o.get("output_padding")
    more = (None, None) if more is None else more if isinstance(more, tuple) else (0, more)
    y = F.conv_transpose2d(nchw(x), w.permute(3, 2, 0, 1), stride=strides)
    for axis in (0, 1):
        length, before = transpose_size(x.shape[axis + 1], kernel[axis], strides[axis], o["padding"], more[axis])
        y = y.narrow(axis + 2, before, min(length, y.shape[axis + 2] - before))
        missing = length - y.shape[axis + 2]
        y = F.pad(y, (0, missing, 0, 0) if axis else (0, 0, 0, missing))
    return nhwc(y) + b


def transpose(out):
    for op, table in (("conv2d_transpose", TRANSPOSE2D), ("conv1d_transpose", TRANSPOSE1D)):
        for name, shape, kernel, filters, changes in table:
            one = op == "conv1d_transpose"
            o = {"strides": 1 if one else (1, 1), "padding": "valid", **changes}
            rng = rng_of(name)
            size = (kernel,) if one else kernel
            inputs = {"x": normal(rng, *shape), "w": normal(rng, *size, filters, shape[-1]), "b": normal(rng, filters)}

            def by_torch(x, w, b, o=o, one=one):
                if one:
                    return torch_transpose(row(x), w.unsqueeze(0), b, o).squeeze(1)
                return torch_transpose(x, w, b, o)

            def by_keras(x, w, b, o=o):
                return keras.ops.conv_transpose(x, w, strides=o["strides"], padding=o["padding"], output_padding=o.get("output_padding"),
                                                data_format="channels_last") + b

            add_case(out, name, {"op": op, "options": {**o, "kernel": kernel, "filters": filters}}, inputs, by_torch, by_keras)


def pooling(out):
    for name, shape, size, strides, padding in POOL1D:
        options = {"size": size, "strides": strides, "padding": padding}

        def torch_max(x, size=size, strides=strides, padding=padding):
            x = pad(nchw(row(x)), padding, (1, size), (1, strides), value=-torch.inf)
            return nhwc(F.max_pool2d(x, (1, size), (1, strides))).squeeze(1)

        def torch_avg(x, size=size, strides=strides, padding=padding):
            x = nchw(row(x))
            ones = pad(torch.ones_like(x), padding, (1, size), (1, strides))
            y = F.avg_pool2d(pad(x, padding, (1, size), (1, strides)), (1, size), (1, strides))
            return nhwc(y / F.avg_pool2d(ones, (1, size), (1, strides))).squeeze(1)

        def keras_pool(pool, size=size, strides=strides, padding=padding):
            return lambda x: pool(x, size, strides=strides, padding=padding, data_format="channels_last")

        x = {"x": normal(rng_of("pool1d_" + name), *shape)}
        add_case(out, "max_pool1d_" + name, {"op": "max_pool1d", "options": options}, x, torch_max, keras_pool(keras.ops.max_pool))
        add_case(out, "avg_pool1d_" + name, {"op": "avg_pool1d", "options": options}, x, torch_avg, keras_pool(keras.ops.average_pool))
    for op, by_torch, layer in (("global_avg_pool1d", lambda x: x.mean(1), keras.layers.GlobalAveragePooling1D()),
                                ("global_max_pool1d", lambda x: x.amax(1), keras.layers.GlobalMaxPooling1D())):
        add_case(out, op, {"op": op}, {"x": normal(rng_of(op), 3, 5, 4)}, by_torch, layer)
    for name, shape, size in ADAPTIVE2D:
        x = {"x": normal(rng_of("adaptive_" + name), *shape)}
        add_case(out, "adaptive_avg_" + name, {"op": "adaptive_avg_pool2d", "options": {"size": size}}, x,
                 lambda x, size=size: nhwc(F.adaptive_avg_pool2d(nchw(x), size)))
        add_case(out, "adaptive_max_" + name, {"op": "adaptive_max_pool2d", "options": {"size": size}}, x,
                 lambda x, size=size: nhwc(F.adaptive_max_pool2d(nchw(x), size)))
    for kind, fn in (("avg", F.adaptive_avg_pool1d), ("max", F.adaptive_max_pool1d)):
        add_case(out, f"adaptive_{kind}_1d", {"op": f"adaptive_{kind}_pool1d", "options": {"size": 3}},
                 {"x": normal(rng_of("adaptive_1d"), 2, 7, 3)}, lambda x, fn=fn: fn(x.transpose(1, 2), 3).transpose(1, 2))


def sizes(out):
    L = keras.layers
    image, series = normal(rng_of("image"), 2, 4, 5, 3), normal(rng_of("series"), 2, 6, 3)
    for name, op, options, x, by_torch, by_keras in (
            ("zero_pad1d", "zero_pad1d", {"padding": (1, 2)}, series, None, L.ZeroPadding1D((1, 2))),
            ("zero_pad2d", "zero_pad2d", {"padding": ((1, 0), (2, 3))}, image, lambda x: F.pad(x, (0, 0, 2, 3, 1, 0)),
             L.ZeroPadding2D(((1, 0), (2, 3)))),
            ("crop1d", "crop1d", {"cropping": (1, 2)}, series, None, L.Cropping1D((1, 2))),
            ("crop2d", "crop2d", {"cropping": ((1, 0), (2, 1))}, image, None, L.Cropping2D(((1, 0), (2, 1)))),
            ("upsample1d", "upsample1d", {"size": 3}, series, lambda x: x.repeat_interleave(3, 1), L.UpSampling1D(3)),
            ("upsample2d", "upsample2d", {"size": (2, 3), "interpolation": "nearest"}, image,
             lambda x: nhwc(F.interpolate(nchw(x), scale_factor=(2, 3))), L.UpSampling2D((2, 3))),
            ("upsample2d_bilinear", "upsample2d", {"size": (2, 3), "interpolation": "bilinear"}, image,
             lambda x: nhwc(F.interpolate(nchw(x), scale_factor=(2, 3), mode="bilinear")), None),
            ("permute", "permute", {"dims": (3, 1, 2)}, image, lambda x: x.permute(0, 3, 1, 2), L.Permute((3, 1, 2)))):
        add_case(out, name, {"op": op, "options": options}, {"x": x}, by_torch, by_keras)


def merging(out):
    L = keras.layers
    rng = rng_of("merge")
    a, b, c = normal(rng, 3, 4), normal(rng, 3, 4), normal(rng, 3, 4)
    for op, layer in (("add", L.Add()), ("multiply", L.Multiply()), ("average", L.Average()), ("maximum", L.Maximum()),
                      ("minimum", L.Minimum()), ("concat", L.Concatenate())):
        add_case(out, op, {"op": op}, {"x1": a, "x2": b, "x3": c}, None, lambda *x, layer=layer: layer(list(x)))
    add_case(out, "subtract", {"op": "subtract"}, {"x1": a, "x2": b}, None, lambda *x: L.Subtract()(list(x)))
    wide, tall = normal(rng, 2, 3, 4), normal(rng, 2, 4, 5)
    add_case(out, "dot", {"op": "dot", "options": {"axes": -1}}, {"x1": a, "x2": b}, None, lambda *x: L.Dot(-1)(list(x)))
    add_case(out, "dot_normalized", {"op": "dot", "options": {"axes": -1, "normalize": True}}, {"x1": a, "x2": b}, None,
             lambda *x: L.Dot(-1, normalize=True)(list(x)))
    add_case(out, "dot_matrices", {"op": "dot", "options": {"axes": (3, 2)}}, {"x1": wide, "x2": tall}, None,
             lambda *x: L.Dot((2, 1))(list(x)))


def gates(out):
    rng = rng_of("gates")
    x = normal(rng, 3, 4, 6)
    add_case(out, "prelu", {"op": "prelu"}, {"x": x, "w": normal(rng, 6)}, lambda x, w: F.prelu(x.movedim(-1, 1), w).movedim(1, -1),
             lambda x, w: keras.ops.relu(x) - w * keras.ops.relu(-x))
    add_case(out, "glu", {"op": "glu", "options": {"axis": -1}}, {"x": x}, F.glu, keras.activations.glu)
    add_case(out, "glu_middle", {"op": "glu", "options": {"axis": 2}}, {"x": x}, lambda x: F.glu(x, 1), lambda x: keras.activations.glu(x, 1))


def training(out):
    """What a layer's regularizers and constraints make of weights and results; statistics that a layer takes from data."""
    rng = rng_of("regularizers")
    x, w, b = normal(rng, 5, 4), normal(rng, 4, 3), normal(rng, 3)
    R = keras.regularizers
    layer = keras.layers.Dense(3, kernel_regularizer=R.L1L2(0.02, 0.03), bias_regularizer=R.L1L2(0.04, 0.05),
                               activity_regularizer=R.L1L2(0.06, 0.07))
    layer.build(x.shape)
    layer.set_weights([w, b])
    y = layer(x)
    losses = [float(v) for v in layer.losses]
    out.add("regularizers", {"op": "regularizers", "source": "keras", "options": {
        "l1": 0.02, "l2": 0.03, "bias_l1": 0.04, "bias_l2": 0.05, "activity_l1": 0.06, "activity_l2": 0.07}},
            {"x": x, "w": w, "b": b, "y": keras.ops.convert_to_numpy(y), "total": [sum(losses)]})
    kernel = normal(rng, 3, 3, 2, 4)
    out.add("max_norm", {"op": "max_norm", "source": "keras", "options": {"dense": 1.5, "conv": 3.0}},
            {"w": w, "dense": keras.ops.convert_to_numpy(keras.constraints.MaxNorm(1.5, axis=0)(w)),
             "k": kernel, "conv": keras.ops.convert_to_numpy(keras.constraints.MaxNorm(3.0, axis=(0, 1, 2))(kernel))})
    for name, shape, axis in (("last", (9, 4), -1), ("middle", (5, 3, 4), 1), ("none", (6, 3), None)):
        data = normal(rng_of("normalization_" + name), *shape) * 3 + 5
        layer = keras.layers.Normalization(axis=axis)
        layer.adapt(data)
        out.add("normalization_" + name, {"op": "normalization", "source": "keras", "options": {
            "axis": "none" if axis is None else axis if axis < 0 else axis + 1}},
                {"x": data, "y": keras.ops.convert_to_numpy(layer(data))})


def make(out):
    training(out)
    conv1d(out)
    conv2d_groups(out)
    depthwise(out)
    transpose(out)
    pooling(out)
    sizes(out)
    merging(out)
    gates(out)
