"""What every peer computes: the nets in words, and the data, which bplua wrote (tests/bench/data.lua; $BP_BENCH_DATA is their folder).
Sizes and arithmetic of every workload are in tests/bench/workloads.lua. Weights start as Keras draws them (Glorot uniform, biases zero),
on every side.

mlp_tiny      10 -> dense 32 relu -> dense 1; mse; Adam 0.01; batch 32
mlp_784       784 -> dense 512 relu, dropout .2 -> the same again -> dense 10; cross-entropy of labels; Adam 0.001; batch 128
cnn_mnist     28x28x1 -> 3x3x32 relu -> 3x3x64 relu (both valid) -> max-pool 2 -> dropout .25 -> dense 128 relu -> dropout .5 -> dense 10;
              cross-entropy; Adam 0.001; batch 128
lenet5        28x28x1 -> 5x5x6 same, relu -> max-pool 2 -> 5x5x16 valid, relu -> max-pool 2 -> dense 120 relu -> dense 84 relu -> dense 10;
              cross-entropy; SGD 0.01 momentum 0.9; batch 32
resnet20      32x32x3; He's net for CIFAR: 3x3x16, then three stages of three blocks with 16, 32, 64 filters, batch norm, shortcuts without
              parameters (every second pixel, zeros for the new channels); cross-entropy; SGD 0.1 momentum 0.9 weight decay 1e-4; batch 128
lstm_text     80 words of 20,000 -> embedding 128 -> LSTM 128, its last output -> dense 1; binary cross-entropy; Adam 0.003; batch 32
gru_sequence  40 steps of 64 numbers -> GRU 64, its last output -> dense 1; binary cross-entropy; Adam 0.001; batch 32
batch_norm    16x16x16 -> 3x3x32 same without bias, batch norm, relu -> the same again -> mean of all pixels -> dense 10; SGD 0.05; batch 32
embedding     80 words of 20,000 -> embedding 128 -> mean of the words -> dense 1; binary cross-entropy; SGD 1; batch 32
attention     64 steps of 128 -> x + self-attention of 4 heads of 32 -> layer norm -> mean of the steps -> dense 10; Adam 0.001; batch 16
depthwise     28x28x32 -> depthwise 3x3 same, relu -> 1x1x64 relu -> the same again -> mean of all pixels -> dense 10; Adam 0.01; batch 32
infer_mlp, infer_cnn   one sample through the net of mlp_tiny and of cnn_mnist, from input in memory to output in memory
epoch_fashion the 60,000 images of Fashion-MNIST once in a new random order, from bytes in memory, through the net of mlp_784, batch 128
trials        10 -> dense 32 relu -> dense 1 over learning rate (1e-4 .. 1e-1) and weight decay (1e-6 .. 1e-2), both drawn at random in the
              logarithm; Adam; 1,000 samples, 10 shuffled epochs, batch 32. A step is a trial.
sweep:KIND,...   one layer, forward and all gradients: dense,B,IN,OUT  conv2d,N,H,W,C,TAPS,FILTERS,STRIDE,PADDING  depthwise,N,H,W,C,TAPS,
              STRIDE,PADDING  lstm,B,T,IN,UNITS  gru,B,T,IN,UNITS  batch_norm,N,H,W,C  max_pool2d,N,H,W,C,SIZE  softmax,B,N
"""
import gzip
import json
import os
import pathlib

import numpy as np

FOLDER = pathlib.Path(os.environ.get("BP_BENCH_DATA", "."))
FASHION = pathlib.Path(os.environ.get("BPLUA_DATA", "/usr/share/datasets/fashion-mnist"))
POOL = 24  # batches that training goes round in
BATCH = {"mlp_tiny": 32, "mlp_784": 128, "cnn_mnist": 128, "lenet5": 32, "resnet20": 128, "lstm_text": 32, "gru_sequence": 32,
         "batch_norm": 32, "embedding": 32, "attention": 16, "depthwise": 32, "infer_mlp": 1, "infer_cnn": 1}
RESNET_STAGES = ((16, 1), (32, 2), (64, 2))  # filters, stride of the first block
VOCABULARY, TOKENS, EMBEDDING, HIDDEN = 20_000, 80, 128, 128


def read(name):
    """The arrays of a safetensors file: eight bytes of length, a header in JSON, the numbers."""
    raw = (FOLDER / f"{name}.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    arrays = {}
    for key, entry in json.loads(raw[8:8 + size]).items():
        if key != "__metadata__":
            start, end = entry["data_offsets"]
            kind = {"F32": np.float32, "I64": np.int64}[entry["dtype"]]
            arrays[key] = np.frombuffer(raw[8 + size + start:8 + size + end], kind).reshape(entry["shape"]).copy()
    return arrays


def data(name):
    """Lists of POOL batches x and y; images NHWC, labels and words from 0."""
    arrays = read(name)
    return np.split(arrays["x"], POOL), np.split(arrays["y"], POOL)


def fashion():
    """All of Fashion-MNIST: u8 [60000][28][28][1] and labels from 0."""
    with gzip.open(FASHION / "train-images-idx3-ubyte.gz") as images, gzip.open(FASHION / "train-labels-idx1-ubyte.gz") as labels:
        x = np.frombuffer(images.read()[16:], np.uint8).reshape(60_000, 28, 28, 1).copy()
        y = np.frombuffer(labels.read()[8:], np.uint8).astype(np.int64)
    return x, y


def layer(name):
    """("conv2d", [8, 26, 26, 32, 3, 64, 1, "valid"]) of "sweep:conv2d,8,26,...", or None."""
    if not name.startswith("sweep:"):
        return None
    kind, *rest = name[6:].split(",")
    return kind, [int(r) if r.isdigit() else r for r in rest]
