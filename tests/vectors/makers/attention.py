"""Multi-head attention. Keras' MultiHeadAttention and PyTorch's nn.MultiheadAttention with the same weights: query, key and value kernels
[in][heads * size], output kernel [heads * size][units], each with its bias. q, k, v are the inputs; k and v are q where they are not stored.
lengths: the steps of k and v that count in each row. Gradients of inputs and of every weight for an upstream dy,
but for the bias of the keys, whose gradient is zero: it moves all products of a query alike. transformer_block is PyTorch's TransformerEncoderLayer, norm_first."""
import keras
import numpy as np
import torch
import torch.nn.functional as F

from .gradients import add_case, normal
from .vectorfile import rng_of

# The size of a head is 4, because Keras rounds 1 / sqrt(size) to f32.
# name, batch, queries, keys (None: self), features, heads, causal, lengths
CASES = [
    ("self", 2, 5, None, 8, 2, False, None),
    ("causal", 2, 6, None, 12, 3, True, None),
    ("lengths", 3, 4, None, 16, 4, False, (4, 1, 3)),
    ("causal_lengths", 2, 5, None, 4, 1, True, (5, 2)),
    ("cross", 2, 3, 7, 8, 2, False, None),
    ("cross_lengths", 2, 4, 6, 8, 2, False, (2, 6)),
]
NAMES = ["query_kernel", "query_bias", "key_kernel", "value_kernel", "value_bias", "output_kernel", "output_bias"]


BLOCK = {"norm_1": (8,), "query": (8, 8), "value": (8, 8), "output": (8, 8), "norm_2": (8,), "dense_1": (8, 12), "dense_2": (12, 8)}


def block(out, name, causal):
    """A pre-norm block: a normalisation has gamma and beta, a dense layer kernel and bias."""
    rng, heads, features = rng_of(name), 2, 8
    inputs = {"x": normal(rng, 2, 5, features)}
    for part, shape in BLOCK.items():
        first, second = ("gamma", "beta") if part.startswith("norm") else ("kernel", "bias")
        inputs[f"{part}_{first}"], inputs[f"{part}_{second}"] = normal(rng, *shape) / 2, normal(rng, shape[-1])
    key = {"key_kernel": normal(rng, features, features) / 2, "key_bias": normal(rng, features)}

    def by_torch(x, *given):
        w = dict(zip(list(inputs)[1:], given))
        layer = torch.nn.TransformerEncoderLayer(features, heads, 12, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
        state = {"self_attn.in_proj_weight": torch.cat([w["query_kernel"].T, torch.tensor(key["key_kernel"]).T, w["value_kernel"].T]),
                 "self_attn.in_proj_bias": torch.cat([w["query_bias"], torch.tensor(key["key_bias"]), w["value_bias"]])}
        for ours, theirs in (("output", "self_attn.out_proj"), ("dense_1", "linear1"), ("dense_2", "linear2")):
            state[theirs + ".weight"], state[theirs + ".bias"] = w[ours + "_kernel"].T, w[ours + "_bias"]
        for ours, theirs in (("norm_1", "norm1"), ("norm_2", "norm2")):
            state[theirs + ".weight"], state[theirs + ".bias"] = w[ours + "_gamma"], w[ours + "_beta"]
        mask = torch.ones(5, 5, dtype=torch.bool).triu(1) if causal else None
        return torch.func.functional_call(layer, state, (x,), {"src_mask": mask, "is_causal": causal})

    add_case(out, name, {"op": "transformer_block", "options": {"heads": heads, "hidden": 12, "causal": causal}}, inputs, by_torch, None, key)


def make(out):
    block(out, "transformer_block", False)
    block(out, "transformer_block_causal", True)
    for name, batch, queries, keys, features, heads, causal, lengths in CASES:
        rng, size, cross = rng_of("attention_" + name), features // heads, keys is not None
        time = keys or queries
        inputs = {"q": normal(rng, batch, queries, features)}
        if cross:
            inputs.update(k=normal(rng, batch, time, features), v=normal(rng, batch, time, features))
        for key in NAMES:
            inputs[key] = normal(rng, *((features, features) if key.endswith("kernel") else (features,)))
        key_bias = normal(rng, features)
        inside = np.arange(time)[None, :] < np.array(lengths)[:, None] if lengths else None

        def split(given, bias, cross=cross):
            given = list(given)
            given.insert(6 if cross else 4, bias)
            return (given[:3], given[3:]) if cross else ([given[0]] * 3, given[1:])

        def by_torch(*given, heads=heads, features=features, causal=causal, inside=inside, queries=queries, time=time,
                     key_bias=key_bias):
            (q, k, v), w = split(given, torch.tensor(key_bias))
            mask = torch.ones(queries, time, dtype=torch.bool).triu(1) if causal else None
            padding = None if inside is None else torch.tensor(~inside)
            y, _ = F.multi_head_attention_forward(
                q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1), features, heads, None, torch.cat([w[1], w[3], w[5]]), None, None,
                False, 0.0, w[6].T, w[7], training=True, key_padding_mask=padding, need_weights=False, attn_mask=mask,
                use_separate_proj_weight=True, q_proj_weight=w[0].T, k_proj_weight=w[2].T, v_proj_weight=w[4].T)
            return y.transpose(0, 1)

        layer = keras.layers.MultiHeadAttention(heads, size)
        layer.build((batch, queries, features), (batch, time, features), (batch, time, features))

        def by_keras(*given, layer=layer, heads=heads, size=size, features=features, causal=causal, inside=inside,
                     key_bias=key_bias):
            (q, k, v), w = split(given, keras.ops.array(key_bias))
            shapes = [(features, heads, size), (heads, size)] * 3 + [(heads, size, features), (features,)]
            weights = [keras.ops.reshape(t, s) for t, s in zip(w, shapes)]
            mask = None if inside is None else keras.ops.array(inside[:, None, :])
            state = [v.value for v in layer.non_trainable_variables]
            return layer.stateless_call(weights, state, q, v, k, attention_mask=mask, use_causal_mask=causal, training=False)[0]

        extra = {"key_bias": key_bias, **({"lengths": np.array(lengths, dtype=np.int64)} if lengths else {})}
        add_case(out, name, {"op": "attention", "options": {"heads": heads, "causal": causal}}, inputs, by_torch, by_keras, extra)
