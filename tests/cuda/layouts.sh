#!/bin/sh
# usage: layouts.sh NETWORKS SOURCE_DIR LAYOUT. All networks over so many ranks that share one device (collectives staged
# through host memory), against what one rank computes on it. 77: no mpirun here.
set -eu
networks=$1 source=$2 layout=$3
command -v mpirun >/dev/null || { echo "skip: no mpirun"; exit 77; }
export TRM_DEADLINE_SCALE="${TRM_DEADLINE_SCALE:-10}" OMP_WAIT_POLICY=passive
n=$(echo "$layout" | tr ',' '\n' | awk -F= '{ n = (n ? n : 1) * $2 } END { print n }')
exec mpirun --allow-run-as-root --oversubscribe --bind-to none -np "$n" "$networks" --threads 1 --device cuda \
    --against one --parallel "$layout" "$source"/tests/data/networks/*
