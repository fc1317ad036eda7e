#!/usr/bin/env bash
# Words that do not belong in the repository: left-over markers, somebody's machine, calls that end a process from
# library code.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
. tests/lint/sources.sh
bad=0
complain() { # complain LINES WHY
    if [ -n "$1" ]; then
        printf '%s\n  %s\n' "$1" "$2"
        bad=1
    fi
}
# the patterns are split so that this file does not match itself
marks='TO''DO|FIX''ME|XX''X|HA''CK'
# a marker with a condition, as the style asks, is fine: (topic): condition for removal
complain "$(sources '*.c' '*.h' '*.def' '*.sh' '*.cmake' '*.py' '*.md' |
    xargs -r grep -nHE "\b($marks)\b" /dev/null | grep -vE "\b($marks)\([a-z0-9 -]+\): ")" \
    "say it in the issue, or write the condition for removal"
complain "$(sources '*' | grep -vE '\.(png|jpg|onnx|npy|npz|pb)$' |
    xargs -r -d '\n' grep -nHIE '/(home|Users)/[a-z]+/|/wo''rk/|/tmp''/w/' /dev/null)" \
    "a path of somebody's machine"
rooms='^(base|kernels|model|parallel|worker|coordinator)/'
complain "$(sources '*.c' | grep -E "$rooms" |
    xargs -r grep -nHE '(^|[^_a-zA-Z])(exit|abort|MPI_Abort) *\(' /dev/null | grep -vE 'base/status\.c:|_exit')" \
    "library code never ends the process: return a status"
complain "$(sources '*.c' | grep -E "$rooms" |
    xargs -r grep -nHE '(^|[^_a-zA-Z])(gets|strcpy|sprintf|strtok|atoi|atof) *\(' /dev/null)" \
    "use the checked form"
complain "$(sources '*.h' | while IFS= read -r h; do
    grep -qE '^(#ifndef TRM_|#pragma once)' "$h" || is_body "$h" || echo "$h"
done)" "every header has a guard TRM_..., or says that it is a body included many times: 'no include guard'"
[ $bad -eq 0 ] && echo "words are fine"
exit $bad
