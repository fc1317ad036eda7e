#!/usr/bin/env bash
# One job per file: warns past 500 lines, fails past 800. Also: no tab in C sources, no trailing blanks.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
. tests/lint/sources.sh
bad=0
while IFS= read -r f; do
    n=$(wc -l <"$f")
    if [ "$n" -gt 800 ]; then
        echo "$f: $n lines; none may pass 800: look for the seam"
        bad=1
    elif [ "$n" -gt 500 ]; then
        echo "warning: $f: $n lines; past 500 look for the seam"
    fi
done < <(sources '*.c' '*.h' '*.cu' '*.def' '*.sh' '*.py' '*.cmake' 'CMakeLists.txt')
if sources '*.c' '*.h' '*.def' '*.sh' '*.cmake' '*.py' | xargs -r grep -nHP '[ \t]+$|^ *\t' /dev/null; then
    echo "trailing blanks or tabs in the lines above"
    bad=1
fi
[ $bad -eq 0 ] && echo "lengths and blanks are fine"
exit $bad
