"""What every peer computes: the sizes, the data, and the nets in words. A number here is the same for all frameworks, bplua included.

mlp_tiny   10 -> dense 32 relu -> dense 1; mse; Adam 0.01; batch 32
mlp_784    784 -> dense 512 relu, dropout .2 -> the same again -> dense 10; cross-entropy of labels; Adam 0.001; batch 128
cnn_mnist  28x28x1 -> 3x3x32 relu -> 3x3x64 relu (both valid) -> max-pool 2 -> dropout .25 -> dense 128 relu -> dropout .5 -> dense 10;
           cross-entropy; Adam 0.001; batch 128
lenet5     28x28x1 -> 5x5x6 same, relu -> max-pool 2 -> 5x5x16 valid, relu -> max-pool 2 -> dense 120 relu -> dense 84 relu -> dense 10;
           cross-entropy; SGD 0.01 momentum 0.9; batch 32
resnet20   32x32x3; He's net for CIFAR: 3x3x16, then three stages of three blocks with 16, 32, 64 filters, batch norm, shortcuts without
           parameters (every second pixel, zeros for the new channels); cross-entropy; SGD 0.1 momentum 0.9 weight decay 1e-4; batch 128
lstm_text  80 tokens of 20,000 -> embedding 128 -> LSTM 128, its last output -> dense 1; binary cross-entropy; Adam 0.001; batch 32
infer_mlp, infer_cnn   one sample through the net of mlp_tiny and of cnn_mnist, from input in memory to output in memory
"""
import gzip
import os
import pathlib

import numpy as np

FASHION = pathlib.Path(os.environ.get("BP_FASHION", "/usr/share/datasets/fashion-mnist"))
POOL = 24  # batches that training goes round in

# name: samples per step
BATCH = {"mlp_tiny": 32, "mlp_784": 128, "cnn_mnist": 128, "lenet5": 32, "resnet20": 128, "lstm_text": 32, "infer_mlp": 1, "infer_cnn": 1}
RESNET_STAGES = ((16, 1), (32, 2), (64, 2))  # filters, stride of the first block
VOCABULARY, TOKENS, EMBEDDING, HIDDEN = 20_000, 80, 128, 128


def fashion(count):
    """Images [count][28][28][1] in 0..1 and labels from 0. The real ones where they are installed: a share of their pixels is always
    zero, and made-up noise is not."""
    path = FASHION / "train-images-idx3-ubyte.gz"
    if not path.exists():
        return classes(count, (28, 28, 1))
    with gzip.open(path) as images, gzip.open(FASHION / "train-labels-idx1-ubyte.gz") as labels:
        x = np.frombuffer(images.read(16 + count * 784)[16:], np.uint8).reshape(count, 28, 28, 1)
        y = np.frombuffer(labels.read(8 + count)[8:], np.uint8)
    return (x / 255).astype(np.float32), y.astype(np.int64)


def classes(count, shape):
    """Ten patterns under noise."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 10, count)
    x = rng.uniform(0, 1, (10, *shape))[y] + 0.3 * rng.standard_normal((count, *shape))
    return x.astype(np.float32), y


def data(name):
    """Lists of POOL batches x and y; images NHWC."""
    rng, batch = np.random.default_rng(2), BATCH[name]
    count = POOL * batch
    if name in ("mlp_tiny", "infer_mlp"):
        x = rng.uniform(-1, 1, (count, 10)).astype(np.float32)
        y = (np.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:3]).astype(np.float32)
    elif name == "lstm_text":
        y = rng.integers(0, 2, (count, 1)).astype(np.float32)
        x = rng.integers(0, VOCABULARY // 2, (count, TOKENS)) * 2 + (rng.random((count, TOKENS)) < 0.5 + 0.3 * y)  # odd words say yes
    elif name == "resnet20":
        x, y = classes(count, (32, 32, 3))
    else:
        x, y = fashion(count)
        if name == "mlp_784":
            x = x.reshape(count, 784)
    return np.split(x, POOL), np.split(y, POOL)
