#!/bin/sh
# usage: groups.sh NETWORKS GROUP_RANKS SOURCE_DIR CASE. Ranks whose emulated devices have a group (NCCL, and sums in peers'
# memory): whole networks against what one rank computes, and what happens when a rank or the library fails.
# 77: no mpirun here.
set -eu
networks=$1 group_ranks=$2 source=$3 case=$4
command -v mpirun >/dev/null || { echo "skip: no mpirun"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export TRM_DEADLINE_SCALE="${TRM_DEADLINE_SCALE:-4}" OMP_WAIT_POLICY=passive TRM_LOG=info
export TRM_GROUP_SHARED=1 TRM_EMU_IPC=1 TRM_EMU_NCCL_LOG=1
data=$source/tests/data/networks

fail() {
    echo "FAILED: $case: $*"
    cat "$dir"/log
    exit 1
}
ranks() {
    n=$1
    shift
    rc=0
    timeout 240 mpirun --allow-run-as-root --oversubscribe --bind-to none -np "$n" "$@" >"$dir/log" 2>&1 || rc=$?
}
# N ranks, then networks and options; the group was used, nothing went over host memory
compare() {
    n=$1
    shift
    ranks "$n" "$networks" --threads 1 --device cuda --against one --parallel "tensor=$n" "$@"
    [ $rc = 0 ] || fail "exit code $rc"
    for r in $(seq 0 $((n - 1))); do
        grep -q "NCCL [0-9.]*: rank $r of $n," "$dir/log" || fail "rank $r has no group"
    done
    ! grep -q "over host memory" "$dir/log" || fail "staged through host memory"
}
# a sum has gone through NCCL
through_nccl() {
    grep -q "NCCL rank 0 of [0-9]*: [1-9][0-9]* collectives" "$dir/log" || fail "NCCL was not called"
}
without_peers() {
    ! grep -q "made in one step" "$dir/log" || fail "peers' memory was used"
    grep -q "no direct sums" "$dir/log" || fail "no word of peers' memory"
    through_nccl
}

case $case in
two | four)
    n=2
    [ "$case" = two ] || n=4
    compare $n "$data"/*
    grep -q "made in one step" "$dir/log" || fail "no sums in peers' memory"
    through_nccl
    ;;
late) # work runs only when it is waited for
    export TRM_EMU_LATE=1
    compare 2 "$data"/bert "$data"/vit "$data"/resnet18
    ;;
nccl) # without peers' memory, all sums are NCCL's
    export TRM_EMU_IPC=0
    compare 2 "$data"/*
    without_peers
    ;;
half) # sums of 16-bit floats are made in fp32
    for ipc in 0 1; do
        export TRM_EMU_IPC=$ipc
        compare 2 --dtype bf16 --tolerance 0.03 "$data"/bert "$data"/vit "$data"/resnet18
        compare 2 --dtype f16 --tolerance 0.005 "$data"/bert "$data"/vit "$data"/resnet18
    done
    ;;
faults) # a collective that fails, on one rank or on all, ends the job with words
    export TRM_EMU_IPC=0
    for fault in 1:0 3:1 2; do
        TRM_EMU_NCCL_FAULT=$fault ranks 2 "$networks" --threads 1 --device cuda --against one --parallel tensor=2 "$data"/bert
        [ $rc != 0 ] && [ $rc != 124 ] || fail "fault $fault: exit code $rc"
        grep -q "bert .*FAILED: .*NCCL: .*was made to fail" "$dir/log" || fail "fault $fault is not reported"
    done
    ;;
absent) # who does not arrive is named, within the deadline
    export TRM_DEADLINE_SCALE=1
    TRM_EMU_NCCL_FAULT=init:1 ranks 3 "$group_ranks" 1
    [ $rc = 0 ] || fail "exit code $rc"
    [ "$(grep -c 'nccl: not ready after 1 s: .*rank 1 (host ' "$dir/log")" -ge 1 ] || fail "rank 1 is not named"
    ranks 3 "$group_ranks"
    [ $rc = 0 ] && [ "$(grep -c 'a group' "$dir/log")" = 3 ] || fail "no group of three, exit code $rc"
    ;;
staged) # no library, or one card for all: over host memory, and it is said why
    TRM_NCCL_LIBRARY=/nowhere/libnccl.so.2 ranks 2 "$group_ranks"
    [ $rc = 0 ] && [ "$(grep -c staged "$dir/log")" = 2 ] || fail "no library: exit code $rc"
    grep -q "over host memory: NCCL: /nowhere/libnccl.so.2" "$dir/log" || fail "no word of the library"
    TRM_GROUP_SHARED=0 ranks 2 "$group_ranks"
    [ $rc = 0 ] && [ "$(grep -c staged "$dir/log")" = 2 ] || fail "one device: exit code $rc"
    grep -q "over host memory: ranks 0 and 1 share one device" "$dir/log" || fail "no word of the device"
    ;;
*)
    echo "no such case: $case"
    exit 2
    ;;
esac
echo ok
