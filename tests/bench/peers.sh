#!/bin/sh
# Makes the Python environment that the benchmarks measure other frameworks in. Nothing of the product needs it.
#
#     tests/bench/peers.sh                        in $BP_PEERS, by default ~/.cache/bplua/peers
#     BP_PEERS=/some/where tests/bench/peers.sh
#
# Takes 3 GB of disk. Says what it does, does nothing where the environment is complete, and ends with the interpreter's path.
# KANN, a small framework in C, comes from its repository or, where that is out of reach, from Debian's source archive of rspamd, which
# carries it; it is compiled with OpenBLAS when cblas.h is there. What cannot be had is said, and the bench names it as not measured.
# The environment also serves tests/vectors/make_vectors.py.
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

here=$(cd "$(dirname "$0")" && pwd)
kann=$peers/kann
archive=rspamd_3.4.orig.tar.xz
archive_sum=a7dad761aa6bbc666b7977dfd741b240bf02cff8779e088f17dbfa74d5429f8a
mirror=${BP_DEBIAN_MIRROR:-http://deb.debian.org/debian}

fetch_kann() {
    [ ! -f "$kann/kann.c" ] || return 0
    rm -rf "$kann" && mkdir -p "$kann"
    echo 'fetching KANN'
    if git clone --quiet --depth 1 https://github.com/attractivechaos/kann "$kann/clone" 2>/dev/null; then
        mv "$kann"/clone/k*.[ch] "$kann" && rm -rf "$kann/clone"
        return
    fi
    command -v curl >/dev/null || return 1
    curl --fail --silent --show-error --location --output "$kann/$archive" "$mirror/pool/main/r/rspamd/$archive" || return 1
    echo "$archive_sum  $kann/$archive" | sha256sum --check --quiet || return 1
    tar -xJf "$kann/$archive" -C "$kann" --strip-components=3 --wildcards '*/contrib/kann/k*.[ch]' && rm "$kann/$archive"
}

build_kann() {
    for header in config.h blas-config.h; do [ -f "$kann/$header" ] || : > "$kann/$header"; done # its copy in the archive wants them
    blas=
    if echo '#include <cblas.h>' | ${CC:-cc} -E - >/dev/null 2>&1; then blas='-DHAVE_CBLAS_SGEMM=1 -DHAVE_CBLAS_H=1'; fi
    # shellcheck disable=SC2086  # lists of words
    ${CC:-cc} -std=gnu11 -O3 -march=native -DHAVE_PTHREAD $blas -w -include stdbool.h -I"$kann" -o "$peers/bin/kann_peer" \
        "$here/peers/kann_peer.c" "$kann/kann.c" "$kann/kautodiff.c" ${blas:+-lopenblas} -lm -pthread
}

if fetch_kann && build_kann; then
    echo "$peers/bin/kann_peer"
else
    echo 'peers.sh: KANN could not be fetched and built; it will be named as not measured' >&2
fi
echo "$peers/bin/python"
