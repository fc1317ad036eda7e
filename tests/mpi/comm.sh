#!/bin/sh
# usage: comm.sh COMM_RANKS CASE. Communicators of a job, on one to four ranks.
# 77: no mpirun here.
set -eu
driver=$1 case=$2
command -v mpirun >/dev/null || { echo "skip: no mpirun"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

ranks() {
    n=$1
    shift
    mpirun --allow-run-as-root --oversubscribe --bind-to none -np "$n" "$@"
}
fail() {
    echo "FAILED: $*"
    cat "$dir"/*.log 2>/dev/null || true
    exit 1
}

case $case in
shm | mpi) # every call against scalar loops
    for n in 1 2 3 4; do
        TRM_COMM=$case ranks $n "$driver" >"$dir/$n.log" 2>&1 || fail "$case on $n ranks"
    done
    ;;
late | other) # who does not come, or calls something else, is named by the others; the job ends
    for row in shm mpi; do
        rc=0
        TRM_COMM=$row ranks 3 "$driver" --trouble "$case" >"$dir/$row.log" 2>&1 || rc=$?
        grep -q "not checked in this build" "$dir/$row.log" && continue
        grep -q "^rank 0: .*rank 2" "$dir/$row.log" || fail "$case over $row: rank 2 is not named"
        # after a loss over MPI the job ends without MPI_Finalize, which mpirun reports as a failure
        [ "$rc" = 0 ] || [ "$row-$case" = mpi-late ] || fail "$case over $row: exit code $rc"
        if grep -q "^rank [0-9]*: $case:" "$dir/$row.log"; then fail "$case over $row"; fi
    done
    ;;
killed) # the environment lets a rank die; mpirun ends the job, and the others have named it before
    rc=0
    TRM_COMM_FAULT=die:1:40 ranks 3 "$driver" >"$dir/k.log" 2>&1 || rc=$?
    [ "$rc" -ne 0 ] || fail "a job whose rank was killed ended well"
    ;;
*) fail "no case $case" ;;
esac
