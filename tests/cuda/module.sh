#!/bin/sh
# usage: module.sh TRIREME MODULE DRIVER SOURCE_DIR. The real module beside an emulated driver: it loads with every symbol
# found, and ends in one line where the runtime finds no real driver.
set -eu
trireme=$1 module=$2 source=$4
export TRM_CUDA_MODULE=$2 TRM_CUDA_DRIVER=$3
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
[ -s "$module" ] || { echo "FAILED: $module was not built"; exit 1; }
"$trireme" devices >"$dir/out" 2>"$dir/err" || { cat "$dir/err"; exit 1; }
grep -q 'driver: CUDA .*; CUDA runtime' "$dir/out" || { echo "FAILED: the module does not load:"; cat "$dir/out"; exit 1; }
rc=0
"$trireme" run "$source/configs/demo/digits" --image "$source/configs/demo/digits/images/000.png" --device cuda \
    >"$dir/out" 2>"$dir/err" || rc=$?
if [ $rc != 2 ] || [ "$(wc -l <"$dir/err")" != 1 ]; then
    echo "FAILED: exit code $rc without a real driver:"
    cat "$dir/err"
    exit 1
fi
cat "$dir/err"
