#!/bin/sh
# Makes the Python environment that the benchmarks measure other frameworks in. Nothing of the product needs it.
#
#     tests/bench/peers.sh                        in $BP_PEERS, by default ~/.cache/bplua/peers
#     BP_PEERS=/some/where tests/bench/peers.sh
#
# Takes 3 GB of disk. Says what it does, does nothing where the environment is complete, and ends with the interpreter's path.
# It also serves tests/vectors/make_vectors.py.
set -eu

peers=${BP_PEERS:-${XDG_CACHE_HOME:-$HOME/.cache}/bplua/peers}
packages='torch==2.13.0 tensorflow-cpu==2.21.0 keras==3.15.1 jax==0.10.2 jaxlib==0.10.2 onnx==1.23.2 onnxruntime==1.32.0
optuna==5.0.0 numpy==2.4.6 safetensors==0.8.0'

command -v python3 >/dev/null || { echo 'peers.sh: needs python3 (Debian: python3 python3-venv)' >&2; exit 1; }
if [ ! -x "$peers/bin/python" ]; then
    echo "making a virtual environment in $peers"
    mkdir -p "$peers"
    python3 -m venv "$peers" || { echo 'peers.sh: python3 -m venv failed (Debian: apt-get install python3-venv)' >&2; exit 1; }
fi

version='import sys, importlib.metadata as m; print(m.version(sys.argv[1]).split("+")[0])'
missing=
for package in $packages; do
    have=$("$peers/bin/python" -c "$version" "${package%%=*}" 2>/dev/null || true)
    [ "$have" = "${package##*=}" ] || missing="$missing $package"
done
if [ -n "$missing" ]; then
    echo "installing:$missing"
    # The plain torch of the package index brings gigabytes of CUDA; its CPU build has an index of its own, which
    # $BP_TORCH_INDEX may name. Without it, pip takes what its own settings offer.
    # shellcheck disable=SC2086  # a list of words
    "$peers/bin/pip" install --quiet ${BP_TORCH_INDEX:+--extra-index-url "$BP_TORCH_INDEX"} $missing
fi
echo "$peers/bin/python"
