#!/bin/sh
# usage: install.sh CMAKE BUILD_DIR. What cmake --install puts down is whole and runs from there.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$1" --install "$2" --prefix "$dir/prefix" >"$dir/log" || {
    cat "$dir/log"
    exit 1
}
cd "$dir/prefix"
for f in share/doc/trireme/README.md share/doc/trireme/LICENSE share/doc/trireme/docs/score.md share/trireme/configs/imagenet.yaml; do
    [ -s "$f" ] || { echo "FAILED: $f is not installed"; exit 1; }
done
# every page that the README links to is there
grep -oE '\]\([A-Za-z/.-]+\)' share/doc/trireme/README.md | tr -d '()]' | sort -u | while read -r page; do
    [ -s "share/doc/trireme/$page" ] || { echo "FAILED: README links to $page, which is not installed"; exit 1; }
done
demo=share/trireme/configs/demo/digits
bin/trireme run $demo --image $demo/images/000.png >"$dir/out"
grep -q '  2  2$' "$dir/out" || { cat "$dir/out"; exit 1; }
echo "the installation is fine"
