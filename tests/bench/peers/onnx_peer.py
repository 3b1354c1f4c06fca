#!/usr/bin/env python3
"""ONNX Runtime: inference of one sample, through session.run or with buffers bound beforehand. See protocol.py."""
import itertools

import protocol

options = protocol.arguments(__doc__)

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

import workloads as w  # noqa: E402


def model_of(shape, outputs, nodes, weights):
    """nodes: (operator, its inputs after the running value, attributes) in a chain from x to y."""
    chain, value = [], "x"
    for index, (op, inputs, attributes) in enumerate(nodes):
        result = "y" if index == len(nodes) - 1 else f"v{index}"
        chain.append(helper.make_node(op, [value, *inputs], [result], **attributes))
        value = result
    graph = helper.make_graph(chain, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, outputs])],
                              [numpy_helper.from_array(a, k) for k, a in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def random(**shapes):
    """Weights of the scale that keeps activations near one."""
    rng = np.random.default_rng(1)
    return {k: (rng.standard_normal(s) * np.sqrt(2 / max(1, np.prod(s[1:])))).astype(np.float32) for k, s in shapes.items()}


def inference(name, variant, model):
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    xs = w.data(name)[0]
    samples = itertools.cycle([np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x for x in xs])
    if variant == "run":
        def run(n):
            for x in itertools.islice(samples, n):
                session.run(None, {"x": x})
        return run

    binding, held = session.io_binding(), next(samples).copy()
    binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(held))
    result = session.run(None, {"x": held})[0]
    binding.bind_ortvalue_output("y", onnxruntime.OrtValue.ortvalue_from_numpy(result))

    def run(n):
        for _ in range(n):
            session.run_with_iobinding(binding)

    return run


def infer_mlp(variant):
    nodes = [("Gemm", ("w1", "b1"), {"transB": 1}), ("Relu", (), {}), ("Gemm", ("w2", "b2"), {"transB": 1})]
    return inference("infer_mlp", variant, model_of([1, 10], 1, nodes, random(w1=(32, 10), b1=(32,), w2=(1, 32), b2=(1,))))


def infer_cnn(variant):
    nodes = [("Conv", ("w1", "b1"), {}), ("Relu", (), {}), ("Conv", ("w2", "b2"), {}), ("Relu", (), {}),
             ("MaxPool", (), {"kernel_shape": [2, 2], "strides": [2, 2]}), ("Flatten", (), {}),
             ("Gemm", ("w3", "b3"), {"transB": 1}), ("Relu", (), {}), ("Gemm", ("w4", "b4"), {"transB": 1})]
    return inference("infer_cnn", variant, model_of([1, 1, 28, 28], 10, nodes, random(
        w1=(32, 1, 3, 3), b1=(32,), w2=(64, 32, 3, 3), b2=(64,), w3=(128, 9216), b3=(128,), w4=(10, 128), b4=(10,))))


BUILDERS = {"infer_mlp": infer_mlp, "infer_cnn": infer_cnn}

if __name__ == "__main__":
    protocol.serve("onnxruntime", options, {"onnxruntime": onnxruntime.__version__}, {name: ["run", "binding"] for name in BUILDERS},
                   lambda name, variant, seed: BUILDERS[name](variant))
