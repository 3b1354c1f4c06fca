#!/usr/bin/env python3
"""Makes the reference vectors in this folder: what PyTorch and Keras compute, for our tests to compare with.

    python3 -m venv peers
    peers/bin/pip install torch==2.13.0 tensorflow-cpu==2.21.0 keras==3.15.1 numpy==2.4.6 safetensors==0.8.0
    peers/bin/python tests/vectors/make_vectors.py                  # every file
    peers/bin/python tests/vectors/make_vectors.py losses layers    # some of them
    peers/bin/python tests/vectors/make_vectors.py --check          # compare with the stored files, write nothing

(tests/bench/peers.sh makes such an environment too.) The versions named above made the files that are stored; each file also carries them in its metadata. Only whoever changes the
vectors needs Python: the tests read the stored files.

One file per family, `<family>.safetensors`. Its `__metadata__` (string to string, the values are JSON) has
    about      what the family holds and what the tensors of a case are called
    versions   {"torch": "...", "keras": "...", ...}
    cases      the names of the cases, in order
    case.<c>   the options of case <c>: always "op" and "source" ("pytorch", "keras", or "both": computed by both, which
               had to agree to 1e-11 relative), and what is particular to the family
Tensors are called "<case>/<tensor>". They are f64 unless the case says otherwise. Layouts are ours: images NHWC, convolution
weights [kh][kw][in][out], dense weights [in][out]. Class labels are i64 and count from 0.
"""
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import argparse  # noqa: E402
import importlib  # noqa: E402
import pathlib  # noqa: E402
import pkgutil  # noqa: E402

import keras  # noqa: E402
import torch  # noqa: E402

import makers  # noqa: E402
from makers.vectorfile import VectorFile  # noqa: E402

# Every module of makers that can make something, by its name.
MODULES = (importlib.import_module("makers." + found.name) for found in pkgutil.iter_modules(makers.__path__))
FAMILIES = {module.__name__.split(".")[-1]: module for module in MODULES if hasattr(module, "make")}


def main():
    parser = argparse.ArgumentParser(description="make the reference vectors")
    parser.add_argument("family", nargs="*", help="families to make: " + ", ".join(FAMILIES) + " (default: all)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent, help="folder to write to")
    parser.add_argument("--check", action="store_true", help="compare with the files there instead of writing")
    args = parser.parse_args()
    unknown = [f for f in args.family if f not in FAMILIES]
    if unknown:
        parser.error(f"no family called {', '.join(unknown)}; there are {', '.join(FAMILIES)}")

    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    keras.config.set_floatx("float64")
    failed = False
    for family in args.family or FAMILIES:
        maker = FAMILIES[family]
        out = VectorFile(maker.__doc__)
        maker.make(out)
        path = args.out / f"{family}.safetensors"
        if args.check:
            complaints = out.differences(path)
            failed |= bool(complaints)
            print(f"{path.name}: {'; '.join(complaints) or 'as stored'}")
        else:
            print(f"{path.name}: {len(out.cases)} cases, {out.save(path)} bytes")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
