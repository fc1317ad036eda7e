#!/usr/bin/env bash
# clang-format agrees with every C file. Mend with: tests/lint/format.sh --fix
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
. tests/lint/sources.sh
command -v clang-format >/dev/null || { echo "clang-format is not installed: skipped"; exit 77; }
if [ "${1:-}" = --fix ]; then
    sources '*.c' '*.h' | xargs -r clang-format -i
else
    sources '*.c' '*.h' | xargs -r -P 2 -n 20 clang-format --dry-run -Werror --ferror-limit=3
fi
