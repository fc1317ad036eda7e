#!/usr/bin/env bash
# Whole architectures at full size: exported from PyTorch into a cache (once), then run and compared.
# usage: full.sh NETWORKS_PROGRAM     Cache: TRM_CACHE or .cache/networks. Skips (77) without PyTorch.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
program=${1:?usage: full.sh NETWORKS_PROGRAM}
cache=${TRM_CACHE:-$PWD/.cache}/networks
python=/usr/bin/python3
mkdir -p "$cache"
names=$(sed -n 's/^    "\([a-z0-9_]*\)": (lambda.*/\1/p' tests/oracles/networks/nets.py)
todo=()
for name in $names; do
    [ -e "$cache/$name/done" ] || todo+=("$name")
done
if [ ${#todo[@]} -gt 0 ]; then
    if ! "$python" -c 'import torch, torchvision' 2>/dev/null; then
        echo "no PyTorch for $python (launch/install-packages.sh oracles): skipped"
        exit 77
    fi
    for name in "${todo[@]}"; do
        "$python" tests/oracles/networks/export.py full "$cache" "$name" && touch "$cache/$name/done" || exit 1
    done
fi
folders=() bf16=()
for name in $names; do
    folders+=("$cache/$name")
    # in bf16 a detector keeps other boxes, and its output another shape: nothing to compare with
    [ "$name" = yolo ] || bf16+=("$cache/$name")
done
status=0
"$program" "${folders[@]}" || status=1
echo "in bf16:"
"$program" --dtype bf16 --tolerance 0.05 "${bf16[@]}" || status=1
exit $status
