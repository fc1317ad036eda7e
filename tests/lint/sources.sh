# shellcheck shell=bash
# Sourced by the checks: sources GLOB... lists our files, tracked or new, in a clone or a plain copy.
# Excluded: build trees and fixtures.
sources() {
    if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        git ls-files -co --exclude-standard -- "$@"
    else
        local names=() g
        for g in "$@"; do
            names+=(-o -name "${g##*/}")
        done
        find . \( -path ./build -o -path ./.git \) -prune -o -type f \( "${names[@]:1}" \) -print | sed 's,^\./,,'
    fi | while IFS= read -r f; do
        [ -f "$f" ] && printf '%s\n' "$f"
    done | sort
}

# is_body HEADER: it says in its head that it is included many times, with macros set before ("no include guard").
is_body() {
    head -n 8 "$1" | tr '\n*' '  ' | tr -s ' ' | grep -qi 'no include guard'
}
