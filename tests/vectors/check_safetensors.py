#!/usr/bin/env python3
"""Opens a file with the safetensors package of Python, loads every tensor, and prints name, shape and dtype of each.

    python3 tests/vectors/check_safetensors.py FILE [--metadata]

Prints one line per tensor, "name [shape] dtype", and last "N tensors, M bytes"; with --metadata, first one line "key = value" per entry.
Exit code 0: all could be loaded; 1: the package refused the file (its reason goes to stderr); 77: the package is not installed,
which a test counts as skipped. Was tried with safetensors 0.8.0.
"""
import sys

try:
    from safetensors import safe_open
except ImportError:
    print("the Python package safetensors (with numpy) is not installed", file=sys.stderr)
    raise SystemExit(77)


def check(path, metadata):
    count = size = 0
    with safe_open(path, framework="np") as file:
        if metadata:
            for key, value in sorted((file.metadata() or {}).items()):
                print(f"{key} = {value}")
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            print(f"{name} {list(tensor.shape)} {tensor.dtype}")
            count, size = count + 1, size + tensor.nbytes
    print(f"{count} tensors, {size} bytes")


def main():
    paths = [a for a in sys.argv[1:] if a != "--metadata"]
    if len(paths) != 1:
        print("usage: check_safetensors.py FILE [--metadata]", file=sys.stderr)
        return 2
    try:
        check(paths[0], "--metadata" in sys.argv)
    except Exception as error:  # the package raises its own type, OSError and others
        print(f"{paths[0]}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
