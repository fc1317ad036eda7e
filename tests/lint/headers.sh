#!/usr/bin/env bash
# Every header compiles alone, as C11 and as C++17 (nvcc reads headers as C++), with warnings as errors.
# usage: headers.sh BUILD_DIR   (compile_commands.json there gives the include folders)
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
. tests/lint/sources.sh
build=${1:-build/dev}
flags=(-I.)
while IFS= read -r dir; do
    flags+=(-isystem "$dir")
done < <(grep -oE -- '-isystem [^ ]+' "$build/compile_commands.json" 2>/dev/null | awk '{print $2}' | sort -u)
for dir in $(grep -oE -- '-I[^ ]+' "$build/compile_commands.json" 2>/dev/null | cut -c3- | sort -u); do
    flags+=(-isystem "$dir")
done
export LC_ALL=C
one() {
    local h=$1 out
    shift
    if ! out=$(echo "#include \"$h\"" | "${CC:-cc}" -x c -std=gnu11 -Wall -Wextra -Werror -fsyntax-only "$@" - 2>&1); then
        printf '%s does not compile alone as C:\n%s\n' "$h" "$out"
        return 1
    fi
    [[ $h != tests/* ]] || return 0 # tests are C only
    if ! out=$(echo "#include \"$h\"" | "${CXX:-c++}" -x c++ -std=gnu++17 -Wall -Werror -fsyntax-only "$@" - 2>&1); then
        printf '%s does not compile alone as C++:\n%s\n' "$h" "$out"
        return 1
    fi
}
bad=0 count=0
while IFS= read -r h; do
    ! is_body "$h" || continue
    count=$((count + 1))
    one "$h" "${flags[@]}" || bad=1
done < <(sources '*.h' | grep -v '^kernels/cuda/')
echo "$count headers, each alone as C and as C++"
exit $bad
