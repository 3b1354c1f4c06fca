"""The nets of workloads.py in PyTorch, with Keras' initial weights."""
import torch
import torch.nn.functional as F
from torch import nn

import workloads as w


def start(model):
    """Glorot uniform, zero biases; in recurrent layers orthogonal recurrent weights and a forget bias of one, as in Keras."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.uniform_(module.weight, -0.05, 0.05)
        elif isinstance(module, (nn.LSTM, nn.GRU)):
            nn.init.xavier_uniform_(module.weight_ih_l0)
            nn.init.orthogonal_(module.weight_hh_l0)
            nn.init.zeros_(module.bias_ih_l0)
            nn.init.zeros_(module.bias_hh_l0)
            if isinstance(module, nn.LSTM):
                size = module.hidden_size
                with torch.no_grad():
                    module.bias_ih_l0[size:2 * size] = 1
        elif isinstance(module, nn.MultiheadAttention):
            for part in module.in_proj_weight.data.chunk(3):
                nn.init.xavier_uniform_(part)
            nn.init.zeros_(module.in_proj_bias)
    return model


def tiny():
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))


def mlp():
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Dropout(0.2), nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.2),
                         nn.Linear(512, 10))


def cnn():
    return nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25),
                         nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10))


def lenet5():
    return nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))


def batch_norm(filters):
    return nn.BatchNorm2d(filters, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    def __init__(self, before, filters, stride):
        super().__init__()
        self.first = nn.Conv2d(before, filters, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = batch_norm(filters), batch_norm(filters)
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
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), batch_norm(16), nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(64, 10))


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(w.VOCABULARY, w.EMBEDDING)
        self.lstm = nn.LSTM(w.EMBEDDING, w.HIDDEN, batch_first=True)
        self.out = nn.Linear(w.HIDDEN, 1)

    def forward(self, x):
        return self.out(self.lstm(self.embedding(x))[0][:, -1])


class Sequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.out = nn.GRU(64, 64, batch_first=True), nn.Linear(64, 1)

    def forward(self, x):
        return self.out(self.gru(x)[0][:, -1])


class Bag(nn.Module):
    def __init__(self, sparse=False):
        super().__init__()
        self.words, self.out = nn.Embedding(w.VOCABULARY, w.EMBEDDING, sparse=sparse), nn.Linear(w.EMBEDDING, 1)

    def forward(self, x):
        return self.out(self.words(x).mean(1))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.norm, self.out = nn.MultiheadAttention(128, 4, batch_first=True), nn.LayerNorm(128, eps=1e-3), nn.Linear(128, 10)

    def forward(self, x):
        return self.out(self.norm(x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


def normalised():
    return nn.Sequential(nn.Conv2d(16, 32, 3, 1, 1, bias=False), batch_norm(32), nn.ReLU(),
                         nn.Conv2d(32, 32, 3, 1, 1, bias=False), batch_norm(32), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def depthwise():
    return nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1, groups=32), nn.ReLU(), nn.Conv2d(32, 64, 1), nn.ReLU(),
                         nn.Conv2d(64, 64, 3, 1, 1, groups=64), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class Strided(nn.Module):
    """Keras' "same": the smaller half of the padding before, whatever the stride."""

    def __init__(self, side, channels, filters, taps, stride, same, groups=1):
        super().__init__()
        out = -(-side // stride)
        all_of_it = max(0, (out - 1) * stride + taps - side) if same else 0
        self.pad = (all_of_it // 2, all_of_it - all_of_it // 2)
        even = self.pad[0] == self.pad[1]
        self.conv = nn.Conv2d(channels, filters, taps, stride, self.pad[0] if even else 0, groups=groups)
        self.even = even

    def forward(self, x):
        return self.conv(x if self.even else F.pad(x, self.pad * 2))


def layer(kind, numbers):
    """The layer of a sweep line, and the shape of its input as NHWC."""
    if kind == "dense":
        batch, inputs, units = numbers
        return nn.Linear(inputs, units), (batch, inputs)
    if kind == "conv2d":
        n, h, width, channels, taps, filters, stride, padding = numbers
        return Strided(h, channels, filters, taps, stride, padding == "same"), (n, h, width, channels)
    if kind == "depthwise":
        n, h, width, channels, taps, stride, padding = numbers
        return Strided(h, channels, channels, taps, stride, padding == "same", groups=channels), (n, h, width, channels)
    if kind in ("lstm", "gru"):
        batch, steps, inputs, units = numbers
        return {"lstm": nn.LSTM, "gru": nn.GRU}[kind](inputs, units, batch_first=True), (batch, steps, inputs)
    if kind == "batch_norm":
        return batch_norm(numbers[3]), tuple(numbers)
    if kind == "max_pool2d":
        return nn.MaxPool2d(numbers[4]), tuple(numbers[:4])
    if kind == "softmax":
        return nn.Softmax(-1), tuple(numbers)
    raise ValueError(f"no layer called {kind}")
