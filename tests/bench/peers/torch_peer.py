#!/usr/bin/env python3
"""PyTorch: eager or compiled, NCHW or channels last, with each of its optimizer implementations. See protocol.py."""
import itertools
import random

import protocol

options = protocol.arguments(__doc__)

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

import torch_nets as nets  # noqa: E402
import workloads as w  # noqa: E402

torch.set_num_threads(options.threads)
torch.set_num_interop_threads(1)
torch.set_flush_denormal(True)

# workload: net, optimizer and its numbers, loss
TRAINING = {
    "mlp_tiny": (nets.tiny, "adam", {"lr": 0.01}, F.mse_loss),
    "mlp_784": (nets.mlp, "adam", {"lr": 0.001}, F.cross_entropy),
    "cnn_mnist": (nets.cnn, "adam", {"lr": 0.001}, F.cross_entropy),
    "lenet5": (nets.lenet5, "sgd", {"lr": 0.01, "momentum": 0.9}, F.cross_entropy),
    "resnet20": (nets.resnet20, "sgd", {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}, F.cross_entropy),
    "lstm_text": (nets.Text, "adam", {"lr": 0.003}, F.binary_cross_entropy_with_logits),
    "gru_sequence": (nets.Sequence, "adam", {"lr": 0.001}, F.binary_cross_entropy_with_logits),
    "batch_norm": (nets.normalised, "sgd", {"lr": 0.05}, F.cross_entropy),
    "embedding": (nets.Bag, "sgd", {"lr": 1.0}, F.binary_cross_entropy_with_logits),
    "attention": (nets.Attention, "adam", {"lr": 0.001}, F.cross_entropy),
    "depthwise": (nets.depthwise, "adam", {"lr": 0.01}, F.cross_entropy),
}
INFERENCE = {"infer_mlp": nets.tiny, "infer_cnn": nets.cnn}
IMAGES = ("cnn_mnist", "lenet5", "resnet20", "batch_norm", "depthwise", "infer_cnn")
IMPLEMENTATION = {"fused": {"fused": True}, "foreach": {"foreach": True}, "default": {}}


def variants():
    """What is tried of each workload. compiled-step: the optimizer is compiled as well."""
    known = {}
    for name in TRAINING:
        known[name] = [f"eager {o}" for o in ("default", "foreach", "fused")] + ["compiled fused"]
        if name in IMAGES:
            known[name] = ["eager fused", "eager last default", "eager last foreach", "eager last fused", "compiled last fused"]
    known["mlp_tiny"].append("compiled compiled-step")
    known["embedding"].append("eager sparse default")
    for name in INFERENCE:
        known[name] = ["eager", "compiled"] if name not in IMAGES else ["eager", "eager last", "compiled last"]
    known["epoch_fashion"] = ["eager fused", "compiled fused"]
    known["trials"] = ["optuna fused", "optuna default", "optuna two-processes"]
    return known


def place(x, words):
    """A batch as PyTorch wants it. Permuted NHWC is what PyTorch calls channels last."""
    t = torch.from_numpy(x)
    return t.permute(0, 3, 1, 2).contiguous(memory_format=layout(words)) if t.dim() == 4 else t


def layout(words):
    return torch.channels_last if "last" in words else torch.contiguous_format


def optimizer_of(model, kind, numbers, words):
    how = next((IMPLEMENTATION[word] for word in words if word in IMPLEMENTATION), {})
    make = torch.optim.Adam if kind == "adam" else torch.optim.SGD
    return make(model.parameters(), **numbers, **how)


def stepper(model, optimizer, loss_fn, words):
    """step(x, y) -> loss: forward, backward, update."""
    compiled = "compiled" in words
    forward = torch.compile(lambda x, y: loss_fn(model(x), y)) if compiled else lambda x, y: loss_fn(model(x), y)
    update = torch.compile(optimizer.step) if "compiled-step" in words else optimizer.step

    def step(x, y):
        optimizer.zero_grad(set_to_none=True)
        loss = forward(x, y)
        loss.backward()
        update()
        return loss

    return step


def training(name, words):
    net, kind, numbers, loss_fn = TRAINING[name]
    model = nets.start(net(sparse=True) if "sparse" in words else net()).to(memory_format=layout(words)).train()
    step = stepper(model, optimizer_of(model, kind, numbers, words), loss_fn, words)
    batches = itertools.cycle([(place(x, words), torch.from_numpy(y)) for x, y in zip(*w.data(name))])

    def run(n):
        for x, y in itertools.islice(batches, n):
            loss = step(x, y)
        return loss.item()

    return run


def inference(name, words):
    model = nets.start(INFERENCE[name]()).to(memory_format=layout(words)).eval()
    samples = itertools.cycle([place(x, words) for x in w.data(name)[0]])
    forward = torch.compile(model) if "compiled" in words else model

    def run(n):
        with torch.inference_mode():
            for x in itertools.islice(samples, n):
                forward(x)

    return run


def epoch(words):
    """No DataLoader, which collates sample by sample and is several times slower: rows are gathered from one tensor."""
    images, labels = (torch.from_numpy(part) for part in w.fashion())
    images = images.reshape(60_000, 784)
    model = nets.start(nets.mlp()).train()
    step = stepper(model, optimizer_of(model, "adam", {"lr": 0.001}, words), F.cross_entropy, words)

    def run(n):
        for _ in range(n):
            total = torch.zeros(())
            for rows in torch.randperm(60_000).split(128):
                total += step(images[rows].float().mul_(1 / 255), labels[rows]).detach()
        return total.item() / 469

    return run


def objective(words):
    arrays = w.read("trials")
    x, y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])

    def run(trial):
        lr, decay = trial.suggest_float("lr", 1e-4, 1e-1, log=True), trial.suggest_float("l2", 1e-6, 1e-2, log=True)
        model = nets.start(nets.tiny()).train()
        step = stepper(model, optimizer_of(model, "adam", {"lr": lr, "weight_decay": decay}, words), F.mse_loss, words)
        for _ in range(10):
            total = 0.0
            for rows in torch.randperm(1000).split(32):
                total += step(x[rows], y[rows]).detach()
        return float(total) / 32

    return run


def study(n, words, seed):
    import optuna
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    made.optimize(objective(words), n_trials=n)
    return made.best_value


def worker(work):
    torch.set_num_threads(1)
    return study(*work)


def trials(words, seed):
    if "two-processes" not in words:
        return lambda n: study(n, words, seed)
    import multiprocessing
    pool = multiprocessing.get_context("spawn").Pool(2)
    pool.map(worker, [(1, ["fused"], seed)] * 2)
    return lambda n: min(pool.map(worker, [(max(1, n // 2), ["fused"], seed), (max(1, n - n // 2), ["fused"], seed + 1)], chunksize=1))


def alone(spec, words):
    kind, numbers = spec
    net, shape = nets.layer(kind, numbers)
    net = net.to(memory_format=layout(words)).train()
    x = torch.randn(shape)
    if len(shape) == 4:
        x = x.permute(0, 3, 1, 2).contiguous(memory_format=layout(words))
    x.requires_grad_(True)
    forward = torch.compile(net) if "compiled" in words else net
    wanted = [x, *net.parameters()]

    def result():
        y = forward(x)
        return y[0] if isinstance(y, tuple) else y

    grad = torch.randn_like(result())

    def run(n):
        for _ in range(n):
            torch.autograd.grad(result(), wanted, grad)

    return run


def build(name, variant, seed):
    torch.manual_seed(seed)
    random.seed(seed)
    words = variant.split()
    if name in TRAINING:
        return training(name, words)
    if name in INFERENCE:
        return inference(name, words)
    if name == "epoch_fashion":
        return epoch(words)
    if name == "trials":
        return trials(words, seed)
    spec = w.layer(name)
    if spec is None:
        raise ValueError(f"no workload called {name}")
    return alone(spec, words)


if __name__ == "__main__":
    protocol.serve("torch", options, {"torch": torch.__version__}, variants(), build)
