"""Initialisers. Each case has the scale that theory gives, in its JSON: "limit" of a uniform draw, "std" of a normal one;
"truncated" is the largest magnitude that a normal draw of Keras can have: it draws from a normal of deviation std / 0.8796, cut at
two of those deviations, so that std comes out.
Tensor stats is [mean, std, min, max] of one draw by Keras, for weights of the given shape (dense [in][out] or convolution
[kh][kw][in][out]).
orthogonal: the stats of q'q / gain^2 - I (columns, if there are not more of them than rows; else of qq'), w flattened to 2-d."""
import keras
import numpy as np

from .vectorfile import rng_of

SHAPES = {"dense": (256, 128), "conv": (3, 3, 16, 32)}
TRUNCATED_STD = 0.87962566103423978  # of a standard normal cut at two deviations
# variance = scale / fan
FAMILIES = {"glorot": (1.0, "fan_avg"), "he": (2.0, "fan_in"), "lecun": (1.0, "fan_in")}


def fans(shape):
    window = int(np.prod(shape[:-2]))
    fan_in, fan_out = window * shape[-2], window * shape[-1]
    return {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}


def stats(w):
    return np.array([w.mean(), w.std(), w.min(), w.max()])


def make(out):
    for family, (scale, mode) in FAMILIES.items():
        for kind in ("uniform", "normal"):
            for label, shape in SHAPES.items():
                name = f"{family}_{kind}_{label}"
                seed = int(rng_of(name).integers(1 << 30))
                w = keras.initializers.get({"class_name": f"{family}_{kind}", "config": {"seed": seed}})(shape, dtype="float64").numpy()
                std = float(np.sqrt(scale / fans(shape)[mode]))
                bound = {"limit": std * np.sqrt(3)} if kind == "uniform" else {"std": std, "truncated": 2 * std / TRUNCATED_STD}
                options = {"op": f"{family}_{kind}", "source": "keras", "shape": shape, **fans(shape), **bound}
                drawn = stats(w)
                reach = bound.get("limit", bound.get("truncated"))
                if abs(drawn[1] - std) > 5 * std / np.sqrt(w.size) or np.abs(w).max() > reach * (1 + 1e-6):
                    raise AssertionError(f"{name}: drawn {drawn}, expected std {std} within {reach}")
                out.add(name, options, {"stats": drawn})
    for label, shape, gain in (("tall", (64, 20), 1.0), ("wide", (20, 64), 1.0), ("conv", (3, 3, 16, 32), 1.0), ("gain", (32, 32), 1.5)):
        w = keras.initializers.Orthogonal(gain, seed=7)(shape, dtype="float64").numpy().reshape(-1, shape[-1]) / gain
        product = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
        out.add("orthogonal_" + label, {"op": "orthogonal", "source": "keras", "shape": shape, "gain": gain},
                {"stats": stats(product - np.eye(len(product)))})
