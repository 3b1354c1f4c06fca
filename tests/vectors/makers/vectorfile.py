"""A file of named cases, written as safetensors."""
import json
import platform
import struct
import zlib

import keras
import numpy as np
import safetensors.numpy
import tensorflow as tf
import torch

DTYPES = {"float64": "F64", "float32": "F32", "int64": "I64", "int32": "I32", "uint8": "U8"}


def rng_of(name):
    """The random numbers of a case depend on its name alone, so that adding a case changes no other."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def agree(where, a, b, rtol=1e-11):
    """Raises unless two frameworks computed the same numbers, relative to the largest of them."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        raise AssertionError(f"{where}: shapes {a.shape} and {b.shape}")
    scale = max(1e-30, float(np.abs(a).max(initial=0)))
    worst = float(np.abs(a - b).max(initial=0)) / scale
    if not worst <= rtol:
        raise AssertionError(f"{where}: the frameworks differ by {worst:.3g}")


class VectorFile:
    def __init__(self, about):
        self.about = " ".join(about.split())
        self.cases = {}
        self.tensors = {}

    def add(self, name, options, tensors):
        """One case: options become its JSON, tensors are named to arrays."""
        if name in self.cases:
            raise ValueError(f"two cases called {name}")
        self.cases[name] = options
        self.extend(name, tensors)

    def extend(self, name, tensors):
        """More tensors for a case."""
        for key, value in tensors.items():
            array = np.array(value, order="C")  # ascontiguousarray would turn a scalar into a vector
            if str(array.dtype) not in DTYPES:
                raise ValueError(f"{name}/{key}: dtype {array.dtype}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"{name}/{key}: not finite")
            self.tensors[f"{name}/{key}"] = array

    def metadata(self):
        versions = {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__.split("+")[0],
                    "tensorflow": tf.__version__, "keras": keras.__version__}
        meta = {"about": self.about, "versions": json.dumps(versions), "cases": json.dumps(list(self.cases))}
        meta.update({f"case.{name}": json.dumps(options) for name, options in self.cases.items()})
        return meta

    def save(self, path):
        """Writes the file and returns its size. The safetensors package orders metadata at random; written here, the same
        vectors give the same bytes. The package then reads the file back."""
        header, offset = {"__metadata__": self.metadata()}, 0
        for name, array in self.tensors.items():
            end = offset + array.nbytes
            header[name] = {"dtype": DTYPES[str(array.dtype)], "shape": list(array.shape), "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(a.tobytes() for a in self.tensors.values()))
        back = safetensors.numpy.load_file(path)
        if back.keys() != self.tensors.keys() or not all(np.array_equal(back[k], a) for k, a in self.tensors.items()):
            raise AssertionError(f"{path}: reading back gives other tensors")
        return path.stat().st_size

    def differences(self, path, rtol=1e-6):
        """What a stored file has that this one has not, in words. f32 training differs in the last bits from machine to
        machine, hence the tolerance."""
        stored = safetensors.numpy.load_file(path)
        found = [f"only stored: {k}" for k in stored.keys() - self.tensors.keys()]
        found += [f"not stored: {k}" for k in self.tensors.keys() - stored.keys()]
        for key in stored.keys() & self.tensors.keys():
            try:
                agree(key, stored[key], self.tensors[key], rtol)
            except AssertionError as error:
                found.append(str(error))
        with safetensors.safe_open(path, framework="np") as file:
            old, new = file.metadata(), self.metadata()
        found += [f"options changed: {k}" for k in sorted(old.keys() | new.keys()) if k != "versions" and old.get(k) != new.get(k)]
        return found
