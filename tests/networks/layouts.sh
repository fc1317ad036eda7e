#!/usr/bin/env bash
# Whole architectures at full size over ranks of this host: the answer of one rank, and the memory that was planned.
# usage: layouts.sh TEST_PLAN_MEMORY     Cache: as full.sh, which exports the networks. Skips (77) without them.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
program=${1:?usage: layouts.sh TEST_PLAN_MEMORY}
cache=${TRM_CACHE:-$PWD/.cache}/networks
ran=0 bad=0

# check NETWORK TENSOR PIPELINE [MEMORY_BYTES [PERCENT]]
check() {
    model=$cache/$1/model.onnx
    [ -e "$cache/$1/done" ] || return
    shift
    ran=$((ran + 1))
    echo "$(basename "$(dirname "$model")"): tensor=$1,pipeline=$2 ${*:3}"
    "$program" "$model" "$@" || bad=1
}

for network in bert densenet121 lstm_tagger mobilenet_v2 resnet18 resnet3d resnet50 unet vit yolo; do
    for layout in "2 1" "3 1" "4 1" "1 2" "1 3" "2 2"; do
        # shellcheck disable=SC2086 # two numbers
        check "$network" $layout
    done
done
# a quarter each, nearly; where memory is short cuts follow it
for network in resnet50 bert vit; do
    check "$network" 4 1 0 30
done
check resnet50 1 4 36700160 30
check bert 1 4 125000000 30
check vit 1 4 125000000 30
[ $ran -gt 0 ] || { echo "no networks in $cache (networks/full makes them): skipped"; exit 77; }
exit $bad
