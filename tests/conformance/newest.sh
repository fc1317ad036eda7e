#!/usr/bin/env bash
# The conformance runner on the newest ONNX test data from PyPI.
# usage: newest.sh CONFORMANCE_PROGRAM [RUNNER OPTION...]
# ONNX_VERSION pins a version (default: the newest). Data and a virtual environment lie in TRM_CACHE or .cache.
# Skips (77) where PyPI cannot be reached and nothing is cached.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
program=${1:?usage: newest.sh CONFORMANCE_PROGRAM [OPTION...]}
shift
cache=${TRM_CACHE:-$PWD/.cache}/onnx-${ONNX_VERSION:-newest}
data=$cache/data
if [ ! -e "$data/done" ]; then
    mkdir -p "$cache"
    if ! { python3 -m venv "$cache/venv" &&
        "$cache/venv/bin/pip" install -q "onnx${ONNX_VERSION:+==$ONNX_VERSION}" numpy pillow; } >"$cache/pip.log" 2>&1; then
        tail -n 3 "$cache/pip.log"
        echo "PyPI's onnx could not be installed (offline?): skipped"
        exit 77
    fi
    "$cache/venv/bin/python" tests/conformance/newest.py "$data" 2>"$cache/skipped.log" && touch "$data/done" || exit 1
fi
dirs=()
for kind in node simple pytorch-converted pytorch-operator; do
    [ ! -d "$data/$kind" ] || dirs+=(--data "$data/$kind")
done
"$program" "${dirs[@]}" --jobs 2 --expect tests/conformance/unsupported.txt \
    --expect tests/conformance/unsupported-newest.txt "$@"
