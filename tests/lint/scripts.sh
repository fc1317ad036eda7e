#!/usr/bin/env bash
# Runs shellcheck on every shell script; and every script with a first line "#!" is executable.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
. tests/lint/sources.sh
bad=0
scripts=$(sources '*.sh' '.ci/run')
for f in $scripts; do
    if [ "$(head -c 2 "$f")" = '#!' ] && [ ! -x "$f" ]; then
        echo "$f: not executable: chmod +x"
        bad=1
    fi
done
command -v shellcheck >/dev/null || { echo "shellcheck is not installed: skipped"; exit 77; }
# shellcheck disable=SC2086
shellcheck -x -S warning $scripts || bad=1
[ $bad -eq 0 ] && echo "shell scripts are fine"
exit $bad
