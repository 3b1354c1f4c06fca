"""Recurrent layers: y, the last states h_n (and c_n), and the gradients of the input and of all weights for upstream gradients dy and
dh_n (dc_n). Weights are in our layout, [in][gates * units] with the gates z, r, h of a GRU and i, f, c, o of an LSTM, for each part of the
layer: "1", "1r" (the backward direction), "2", ...: k1 and u1 kernels, b1 bias, bu1 the bias of the state's product (GRU with reset_after).
lengths: steps of each sample; PyTorch's packed sequences, Keras' mask."""
import keras
import numpy as np
import tensorflow as tf
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .gradients import normal
from .vectorfile import rng_of

GATES = {"simple_rnn": 1, "gru": 3, "lstm": 4}

# kind, batch, steps, inputs, units, options
TORCH = [
    ("simple_rnn", 3, 5, 4, 3, {}),
    ("simple_rnn", 3, 5, 4, 9, {"activation": "relu", "lengths": [5, 2, 3]}),
    ("gru", 2, 4, 3, 5, {}),
    ("gru", 4, 5, 3, 8, {"lengths": [2, 5, 1, 4], "state": True}),
    ("gru", 3, 4, 3, 2, {"num_layers": 2, "bidirectional": True, "lengths": [4, 1, 3]}),
    ("lstm", 2, 4, 3, 5, {}),
    ("lstm", 4, 5, 3, 9, {"lengths": [2, 5, 1, 4], "state": True}),
    ("lstm", 3, 4, 3, 2, {"num_layers": 2, "bidirectional": True, "lengths": [4, 1, 3]}),
    ("lstm", 2, 3, 2, 3, {"num_layers": 2, "use_bias": False}),
]
KERAS = [
    ("simple_rnn", 3, 5, 4, 3, {}),
    ("gru", 3, 4, 2, 5, {}),
    ("gru", 3, 4, 2, 5, {"reset_after": False}),
    ("gru", 3, 4, 2, 3, {"lengths": [3, 4, 1], "reset_after": False}),
    ("lstm", 3, 4, 2, 5, {}),
    ("lstm", 3, 4, 2, 5, {"go_backwards": True}),
    ("lstm", 4, 5, 3, 4, {"lengths": [2, 5, 1, 4]}),
    ("lstm", 2, 4, 3, 3, {"activation": "relu", "recurrent_activation": "tanh"}),
    ("gru", 2, 4, 3, 3, {"bidirectional": True}),
    ("lstm", 2, 4, 3, 3, {"bidirectional": True, "merge": "ave", "lengths": [4, 2]}),
]


def parts(o):
    return [f"{i + 1}{d}" for i in range(o.get("num_layers", 1)) for d in ("", "r")[: 2 if o.get("bidirectional") else 1]]


def weights(rng, kind, inputs, units, o):
    """Weights of every part, in our layout."""
    all, out = GATES[kind] * units, {}
    for part in parts(o):
        width = inputs if part[0] == "1" else units * (2 if o.get("bidirectional") else 1)
        out["k" + part], out["u" + part] = normal(rng, width, all) * 0.5, normal(rng, units, all) * 0.5
        if o.get("use_bias", True):
            out["b" + part] = normal(rng, all)
            if kind == "gru" and o.get("reset_after", True):
                out["bu" + part] = normal(rng, all)
    return out


def swap(kind, w):
    """Between our gates and PyTorch's, on the last dimension: z, r, h and r, z, n."""
    if kind != "gru":
        return w
    a, b, c = np.split(w, 3, axis=-1)
    return np.concatenate([b, a, c], axis=-1)


def by_torch(kind, inputs, units, o, given):
    layers, both = o.get("num_layers", 1), bool(o.get("bidirectional"))
    cls = {"simple_rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[kind]
    more = {"nonlinearity": o["activation"]} if "activation" in o else {}
    net = cls(inputs, units, num_layers=layers, bidirectional=both, batch_first=True, bias=o.get("use_bias", True), **more)
    names = {}
    for part in parts(o):
        at = f"l{int(part[0]) - 1}" + ("_reverse" if part.endswith("r") else "")
        names.update({"k" + part: "weight_ih_" + at, "u" + part: "weight_hh_" + at, "b" + part: "bias_ih_" + at, "bu" + part: "bias_hh_" + at})
    with torch.no_grad():
        for ours, theirs in names.items():
            if hasattr(net, theirs):
                value = given.get(ours)
                value = np.zeros(getattr(net, theirs).shape) if value is None else swap(kind, value).T
                getattr(net, theirs).copy_(torch.tensor(np.ascontiguousarray(value)))
    x = torch.tensor(given["x"], requires_grad=True)
    states = [torch.tensor(given[s], requires_grad=True) for s in ("h0", "c0") if s in given]
    state = None if not states else (states[0][None], states[1][None]) if kind == "lstm" else states[0][None]
    if "lengths" in o:
        packed = pack_padded_sequence(x, torch.tensor(o["lengths"]), batch_first=True, enforce_sorted=False)
        y, last = net(packed, state)
        y, _ = pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])
    else:
        y, last = net(x, state)
    last = list(last) if kind == "lstm" else [last]
    results = {"y": y, "h_n": last[0]} | ({"c_n": last[1]} if kind == "lstm" else {})
    upstream = {"d" + k: normal(given["rng"], *v.shape) for k, v in results.items()}
    sum((v * torch.tensor(upstream["d" + k])).sum() for k, v in results.items()).backward()
    grads = {"dx": x.grad.numpy()} | {"d" + s: t.grad.numpy() for s, t in zip(("h0", "c0"), states)}
    for ours, theirs in names.items():
        if ours in given:
            grads["d" + ours] = swap(kind, getattr(net, theirs).grad.numpy().T)
    return {k: v.detach().numpy() for k, v in results.items()} | upstream | grads


def by_keras(kind, inputs, units, o, given):
    cls = {"simple_rnn": keras.layers.SimpleRNN, "gru": keras.layers.GRU, "lstm": keras.layers.LSTM}[kind]
    sequences = "lengths" not in o  # Keras repeats the last output where the mask ends, we give zeros
    more = {k: o[k] for k in ("go_backwards", "reset_after", "activation", "recurrent_activation") if k in o}
    net = cls(units, return_sequences=sequences, **more)
    if o.get("bidirectional"):
        net = keras.layers.Bidirectional(net, merge_mode=o.get("merge", "concat"))
    x = tf.Variable(given["x"])
    net.build(x.shape)
    values, order = [], []
    for part in parts(o):
        bias = given["b" + part]
        values += [given["k" + part], given["u" + part], np.stack([bias, given["bu" + part]]) if "bu" + part in given else bias]
        order += ["k" + part, "u" + part, "b" + part]
    net.set_weights(values)
    mask = None if sequences else tf.constant(np.arange(x.shape[1])[None] < np.array(o["lengths"])[:, None])
    with tf.GradientTape() as tape:
        y = net(x, mask=mask)
        dy = normal(given["rng"], *y.shape)
        total = tf.reduce_sum(y * dy)
    variables = [v.value for v in net.trainable_variables]
    found = tape.gradient(total, [x] + variables)
    out = {"y": y.numpy(), "dy": dy, "dx": found[0].numpy()}
    for name, g in zip(order, found[1:]):
        g = g.numpy()
        if g.ndim == 2 and name[0] == "b":
            out["d" + name], out["dbu" + name[1:]] = g[0], g[1]
        else:
            out["d" + name] = g
    return out


def make(out):
    for source, cases, compute in (("pytorch", TORCH, by_torch), ("keras", KERAS, by_keras)):
        for kind, batch, steps, inputs, units, o in cases:
            name = "_".join([source, kind] + [k if v is True else f"no_{k}" if v is False else f"{k}_{v}" if isinstance(v, (int, str)) else k
                                              for k, v in o.items()])
            rng = rng_of(name)
            given = {"x": normal(rng, batch, steps, inputs), **weights(rng, kind, inputs, units, o)}
            if o.get("state"):
                given["h0"] = normal(rng, batch, units)
                if kind == "lstm":
                    given["c0"] = normal(rng, batch, units)
            results = compute(kind, inputs, units, o, {**given, "rng": rng})
            tensors = {**given, **results}
            if "lengths" in o:
                tensors["lengths"] = np.array(o["lengths"], dtype=np.int64)
            out.add(name, {"op": kind, "source": source, "units": units, "options": {k: v for k, v in o.items() if k not in ("lengths", "state")}},
                    tensors)
