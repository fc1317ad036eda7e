#!/usr/bin/env bash
# clang-tidy (.clang-tidy) on C files. usage: tidy.sh BUILD_DIR [--changed [BASE]] [FILE...]
# Default: every file of the build. --changed: those that differ from BASE (default: main, else the last commit's parent).
# Files that passed are remembered by a hash of all that decides the result, so that a second run is cheap.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
build=${1:?usage: tidy.sh BUILD_DIR [--changed [BASE]] [FILE...]}
shift
command -v clang-tidy >/dev/null || { echo "clang-tidy is not installed: skipped"; exit 77; }
[ -f "$build/compile_commands.json" ] || { echo "$build/compile_commands.json is missing: configure first"; exit 77; }
if [ "${1:-}" = --changed ]; then
    base=${2:-}
    [ -n "$base" ] || base=$(git merge-base HEAD main 2>/dev/null || true)
    [ "$base" != "$(git rev-parse HEAD 2>/dev/null)" ] || base=HEAD~1
    files=$(git diff --name-only --diff-filter=d "$base" -- '*.c' 2>/dev/null || true)
elif [ $# -gt 0 ]; then
    files=$*
else
    files=$(grep -oE '"file": "[^"]+"' "$build/compile_commands.json" | cut -d'"' -f4 |
        sed "s,^$PWD/,," | grep -vE '^/|^build/' | sort -u)
fi
known=()
for f in $files; do
    grep -qF "\"file\": \"$PWD/$f\"" "$build/compile_commands.json" && known+=("$f")
done
[ ${#known[@]} -gt 0 ] || { echo "clang-tidy: no file to check"; exit 0; }
cache=$build/tidy-passed
mkdir -p "$cache"
headers=$( (
    cat .clang-tidy "$build/CMakeCache.txt"
    git ls-files -z '*.h' '*.def' 2>/dev/null | xargs -0 -r cat
) 2>/dev/null | sha1sum | cut -c1-40)
export build cache headers
check() {
    local f=$1 mark out
    mark=$cache/$( (echo "$headers"; cat "$f") | sha1sum | cut -c1-40)
    [ ! -e "$mark" ] || return 0
    if out=$(timeout 300 clang-tidy --quiet -p "$build" "$f" 2>/dev/null); then
        printf '%s' "${out:+$out
}"
        : >"$mark"
    else
        printf '%s\n' "$out"
        return 1
    fi
}
export -f check
if printf '%s\n' "${known[@]}" | xargs -P "$(nproc)" -I{} bash -c 'check {}'; then
    echo "clang-tidy: ${#known[@]} files are fine"
else
    exit 1
fi
