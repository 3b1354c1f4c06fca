"""Normalisation of each sample by itself: y, dx, dgamma and dbeta for an upstream gradient dy. layer_norm and rms_norm work over the last
`dims` dimensions, group_norm over [batch]..[channels] with the channels last."""
import keras
import torch.nn.functional as F

from .gradients import add_case, normal
from .vectorfile import rng_of

# name, shape of x, dims, eps
LAYER = [("2d", (5, 7), 1, 1e-5), ("3d", (2, 3, 40), 1, 1e-5), ("two_dims", (3, 4, 6), 2, 1e-5), ("eps", (4, 5), 1, 1e-2)]
# name, shape of x, groups
GROUP = [("images", (2, 4, 3, 6), 3), ("one_group", (3, 5, 4), 1), ("instance", (2, 6, 4), 4), ("vectors", (4, 8), 2)]


def make(out):
    for name, shape, dims, eps in LAYER:
        size = shape[-dims:]
        axes = list(range(-dims, 0))
        for op in ("layer_norm", "rms_norm"):
            rng = rng_of(f"{op}_{name}")
            inputs = {"x": normal(rng, *shape) * 2 + 1, "gamma": normal(rng, *size)}
            if op == "layer_norm":
                inputs["beta"] = normal(rng, *size)
                layer = keras.layers.LayerNormalization(axis=axes, epsilon=eps)

                def by_torch(x, gamma, beta, size=size, eps=eps):
                    return F.layer_norm(x, size, gamma, beta, eps)
            else:
                layer = keras.layers.RMSNormalization(axis=axes, epsilon=eps)

                def by_torch(x, gamma, size=size, eps=eps):
                    return F.rms_norm(x, size, gamma, eps)
            layer.build(shape)

            def by_keras(x, *weights, layer=layer):
                return layer.stateless_call(list(weights), [], x)[0]

            add_case(out, f"{op}_{name}", {"op": op, "options": {"dims": dims, "eps": eps}}, inputs, by_torch, by_keras)
    for name, shape, groups in GROUP:
        rng, c, eps = rng_of("group_norm_" + name), shape[-1], 1e-5
        inputs = {"x": normal(rng, *shape) * 2 + 1, "gamma": normal(rng, c), "beta": normal(rng, c)}
        layer = keras.layers.GroupNormalization(groups=groups, epsilon=eps)
        layer.build(shape)
        add_case(out, "group_norm_" + name, {"op": "group_norm", "options": {"groups": groups, "eps": eps}}, inputs,
                 lambda x, gamma, beta: F.group_norm(x.movedim(-1, 1), groups, gamma, beta, eps).movedim(1, -1),
                 lambda x, gamma, beta: layer.stateless_call([gamma, beta], [], x)[0])
