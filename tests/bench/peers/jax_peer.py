#!/usr/bin/env python3
"""JAX for the dense nets: one jitted step called from Python ("step"), or all steps inside one jitted call ("inside"), where no batch comes
from outside and nothing can be looked at in between. See protocol.py."""
import itertools
import os

import protocol

options = protocol.arguments(__doc__)
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:options.threads])  # XLA makes as many threads as it may use
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

import workloads as w  # noqa: E402

B1, B2, EPS = 0.9, 0.999, 1e-8


def init(sizes, seed):
    keys = jax.random.split(jax.random.key(seed), len(sizes))
    glorot = jax.nn.initializers.glorot_uniform()
    return [(glorot(k, (i, o)), jnp.zeros(o)) for k, i, o in zip(keys, sizes, sizes[1:])]


def forward(params, x, key, rate):
    for index, (weight, bias) in enumerate(params[:-1]):
        x = jax.nn.relu(x @ weight + bias)
        if rate:
            x = jnp.where(jax.random.bernoulli(jax.random.fold_in(key, index), 1 - rate, x.shape), x / (1 - rate), 0)
    weight, bias = params[-1]
    return x @ weight + bias


def mse(y, target):
    return jnp.mean((y - target) ** 2)


def cross_entropy(logits, label):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], 1))


def training(name, variant, seed, sizes, loss, lr, rate=0.0):
    params = init(sizes, seed)
    m, v = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
    state = (params, m, v, jnp.zeros((), jnp.int32), jax.random.key(seed + 1000))
    xs, ys = (jnp.stack(part) for part in w.data(name))

    def step(state, batch):
        params, m, v, t, key = state
        value, grads = jax.value_and_grad(lambda p: loss(forward(p, batch[0], jax.random.fold_in(key, t), rate), batch[1]))(params)
        t = t + 1
        m = jax.tree.map(lambda a, g: B1 * a + (1 - B1) * g, m, grads)
        v = jax.tree.map(lambda a, g: B2 * a + (1 - B2) * g * g, v, grads)
        rate1, root2 = lr / (1 - B1**t), jnp.sqrt(1 - B2**t)
        params = jax.tree.map(lambda p, a, b: p - rate1 * a / (jnp.sqrt(b) / root2 + EPS), params, m, v)
        return (params, m, v, t, key), value

    if variant == "step":
        jitted = jax.jit(step, donate_argnums=0)
        batches = itertools.cycle(list(zip(xs, ys)))

        def run(n):
            nonlocal state
            for batch in itertools.islice(batches, n):
                state, value = jitted(state, batch)
            jax.block_until_ready(state)
            return float(value)

        return run

    def loop(state, n):
        def body(i, carry):
            state, _ = carry
            return step(state, (xs[i % w.POOL], ys[i % w.POOL]))
        return jax.lax.fori_loop(0, n, body, (state, jnp.zeros(())))

    jitted = jax.jit(loop, donate_argnums=0)

    def run(n):
        nonlocal state
        state, value = jax.block_until_ready(jitted(state, n))
        return float(value)

    return run


def inference(seed):
    params, key = init((10, 32, 1), seed), jax.random.key(0)
    jitted = jax.jit(lambda x: forward(params, x, key, 0.0))
    samples = itertools.cycle(w.data("infer_mlp")[0])

    def run(n):
        for x in itertools.islice(samples, n):
            jitted(x).block_until_ready()

    return run


def build(name, variant, seed):
    if name == "mlp_tiny":
        return training(name, variant, seed, (10, 32, 1), mse, 0.01)
    if name == "mlp_784":
        return training(name, variant, seed, (784, 512, 512, 10), cross_entropy, 0.001, 0.2)
    if name == "infer_mlp":
        return inference(seed)
    raise ValueError(f"no workload called {name}")


if __name__ == "__main__":
    protocol.serve("jax", options, {"jax": jax.__version__},
                   {"mlp_tiny": ["step", "inside"], "mlp_784": ["step", "inside"], "infer_mlp": ["step"]}, build)
