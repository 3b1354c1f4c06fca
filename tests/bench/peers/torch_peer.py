#!/usr/bin/env python3
"""PyTorch: eager or compiled, NCHW or channels last, with each of its optimizer implementations. See protocol.py."""
import itertools

import protocol

options = protocol.arguments(__doc__, engine=["eager", "compile"], layout=["nchw", "channels_last"], optimizer=["fused", "foreach", "loop"])

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

import workloads as w  # noqa: E402

torch.set_num_threads(options.threads)
torch.set_num_interop_threads(1)
torch.set_flush_denormal(True)
torch.manual_seed(1)

IMPLEMENTATION = {"fused": {"fused": True}, "foreach": {"foreach": True}, "loop": {"foreach": False}}[options.optimizer]


def adam(model, lr):
    return torch.optim.Adam(model.parameters(), lr=lr, **IMPLEMENTATION)


def sgd(model, lr, **rest):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, **rest, **IMPLEMENTATION)


def place(x):
    """A batch of w.data as PyTorch wants it. Permuted NHWC is what PyTorch calls channels_last."""
    t = torch.from_numpy(x)
    if t.dim() != 4:
        return t
    return t.permute(0, 3, 1, 2).contiguous(memory_format=memory_format())


def memory_format():
    return torch.channels_last if options.layout == "channels_last" else torch.contiguous_format


def compiled(fn):
    return torch.compile(fn) if options.engine == "compile" else fn


def training(name, model, optimizer, loss_fn):
    model.to(memory_format=memory_format()).train()
    xs, ys = w.data(name)
    batches = itertools.cycle([(place(x), torch.from_numpy(y)) for x, y in zip(xs, ys)])
    forward = compiled(lambda x, y: loss_fn(model(x), y))
    update = compiled(optimizer.step) if options.optimizer != "fused" else optimizer.step

    def run(n):
        for x, y in itertools.islice(batches, n):
            optimizer.zero_grad(set_to_none=True)
            loss = forward(x, y)
            loss.backward()
            update()
        return loss.item()

    return run


def inference(name, model):
    model.to(memory_format=memory_format()).eval()
    samples = itertools.cycle([place(x) for x in w.data(name)[0]])
    forward = compiled(model)

    def run(n):
        with torch.inference_mode():
            for x in itertools.islice(samples, n):
                forward(x)

    return run


def tiny():
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))


def cnn():
    return nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25),
                         nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10))


def mlp_tiny():
    model = tiny()
    return training("mlp_tiny", model, adam(model, 0.01), F.mse_loss)


def mlp_784():
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Dropout(0.2), nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.2),
                          nn.Linear(512, 10))
    return training("mlp_784", model, adam(model, 0.001), F.cross_entropy)


def cnn_mnist():
    model = cnn()
    return training("cnn_mnist", model, adam(model, 0.001), F.cross_entropy)


def lenet5():
    model = nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
                          nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))
    return training("lenet5", model, sgd(model, 0.01), F.cross_entropy)


class Block(nn.Module):
    def __init__(self, before, filters, stride):
        super().__init__()
        self.first = nn.Conv2d(before, filters, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(filters), nn.BatchNorm2d(filters)
        self.stride, self.more = stride, filters - before

    def forward(self, x):
        y = self.norm2(self.second(F.relu(self.norm1(self.first(x)))))
        if self.more:
            x = F.pad(x[:, :, ::self.stride, ::self.stride], (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
        return F.relu(x + y)


def resnet20():
    blocks, before = [], 16
    for filters, stride in w.RESNET_STAGES:
        for index in range(3):
            blocks.append(Block(before, filters, stride if index == 0 else 1))
            before = filters
    model = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1),
                          nn.Flatten(), nn.Linear(64, 10))
    return training("resnet20", model, sgd(model, 0.1, weight_decay=1e-4), F.cross_entropy)


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(w.VOCABULARY, w.EMBEDDING)
        self.lstm = nn.LSTM(w.EMBEDDING, w.HIDDEN, batch_first=True)
        self.out = nn.Linear(w.HIDDEN, 1)

    def forward(self, x):
        return self.out(self.lstm(self.embedding(x))[0][:, -1])


def lstm_text():
    model = Text()
    return training("lstm_text", model, adam(model, 0.001), F.binary_cross_entropy_with_logits)


def infer_mlp():
    return inference("infer_mlp", tiny())


def infer_cnn():
    return inference("infer_cnn", cnn())


if __name__ == "__main__":
    builders = (mlp_tiny, mlp_784, cnn_mnist, lenet5, resnet20, lstm_text, infer_mlp, infer_cnn)
    protocol.serve("torch", options, {"torch": torch.__version__}, {b.__name__: (w.BATCH[b.__name__], b) for b in builders})
