#!/usr/bin/env bash
# Includes point down only: launch -> coordinator, worker -> parallel -> model, kernels -> base; model and kernels do not
# know each other, nor do coordinator and worker. And: no MPI, CUDA or ZeroMQ header where only deciding is done.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
. tests/lint/sources.sh
bad=0

# room: what it may include
declare -A may=(
    [base]="base"
    [kernels]="kernels base"
    [model]="model base"
    [parallel]="parallel model kernels base"
    [worker]="worker parallel model kernels base"
    [coordinator]="coordinator parallel model kernels base"
    [launch]="launch coordinator worker parallel model kernels base"
)
rooms="base kernels model parallel worker coordinator launch"
for room in $rooms; do
    while IFS=: read -r file line text; do
        [ -n "$file" ] || continue
        path=${text#*\"}
        path=${path%%\"*}
        to=${path%%/*}
        if [ "$to" = "$path" ]; then
            echo "$file:$line: \"$path\": write the path from the root of the repository"
            bad=1
        elif [[ " ${may[$room]} " != *" $to "* ]]; then
            echo "$file:$line: $room/ must not include $to/ (\"$path\"); it may include: ${may[$room]}"
            bad=1
        fi
    done < <(sources "$room/*.c" "$room/*.h" "$room/*.cu" "$room/*.def" | grep "^$room/" |
        xargs -r grep -nHE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' /dev/null)
done

# A third-party library is met in few places: FOLDERS that may include HEADER.
third() { # third HEADER_REGEX ALLOWED_PATH_REGEX WHY
    local hits
    hits=$(sources '*.c' '*.h' '*.cu' | grep -v '^tests/' |
        xargs -r grep -nHE "^[[:space:]]*#[[:space:]]*include[[:space:]]*<($1)>" /dev/null | grep -vE "^($2)")
    if [ -n "$hits" ]; then
        printf '%s\n' "$hits"
        echo "  $3"
        bad=1
    fi
}
third 'mpi\.h' 'parallel/|launch/|coordinator/|worker/' 'MPI is met in parallel/ and above, never in what only decides'
third 'zmq\.h' 'base/|docs/clients/' 'ZeroMQ is met in base/link_zmq.c only'
third 'dnnl.*\.h|oneapi/.*' 'kernels/cpu/' 'oneDNN is met in kernels/cpu only'
third 'cuda.*\.h|cublas.*\.h|cudnn.*\.h|nccl\.h' 'kernels/cuda/|parallel/comm_nccl' 'CUDA is met in kernels/cuda and parallel/comm_nccl.c only'
third 'yaml\.h' 'base/' 'libyaml is met in base/ only'
third 'microhttpd\.h|gnutls/.*' 'coordinator/gateway/http' 'libmicrohttpd is met in coordinator/gateway/http*.c only'
third 'curl/.*|n?curses\.h' 'launch/' 'libcurl and ncurses are met in launch/ only'
third 'jpeglib\.h|png\.h' 'model/' 'image libraries are met in model/ only'

[ $bad -eq 0 ] && echo "includes point down"
exit $bad
