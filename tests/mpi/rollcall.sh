#!/bin/sh
# usage: rollcall.sh TRIREME SOURCE_DIR CASE. Ranks that are late, dead or of another build are named with rank and
# host within the deadline, the job ends, and no process stays. 77: no mpirun here.
set -eu
trireme=$1 demo=$2/configs/demo/digits case=$3
command -v mpirun >/dev/null || { echo "skip: no mpirun"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_WAIT_POLICY=passive
export TRM_DEADLINE_SCALE=1 TRM_ROLL_CALL_S=4
host=$(hostname)

# job RANKS_AND_FLAGS...: runs trireme score; its exit code in $rc
job() {
    rc=0
    timeout 60 mpirun --oversubscribe --bind-to none "$@" score "$demo" --input "$demo/images" --output "$dir/o.csv" \
        --overwrite 2>"$dir/e.log" || rc=$?
}
fail() {
    echo "FAILED: $*"
    cat "$dir/e.log" 2>/dev/null || true
    exit 1
}
left() { # processes of this test; a zombie is only a line that its parent has not read
    # shellcheck disable=SC2009  # pgrep tells no states
    ps -eo stat=,pid=,args= | grep -F "$dir/" | grep -v -e '^Z' -e 'grep -F' || true
}
none_left() {
    n=0
    while [ -n "$(left)" ]; do
        n=$((n + 1))
        [ $n -lt 100 ] || fail "processes are left: $(left)"
        sleep 0.1
    done
}
named() { # named COUNT TEXT: so many lines
    [ "$(grep -c "^trireme.*$2" "$dir/e.log")" = "$1" ] || fail "want $1 line(s) with '$2'"
}

case $case in
asleep) # a rank that never starts the program: MPI_Init itself hangs on all others
    cat >"$dir/asleep.sh" <<'R'
#!/bin/sh
if [ "$OMPI_COMM_WORLD_RANK" = "$ASLEEP" ]; then while :; do sleep 1; done; fi
exec "$@"
R
    chmod +x "$dir/asleep.sh"
    for rank in 2 0; do
        export ASLEEP=$rank
        job -x ASLEEP -np 4 "$dir/asleep.sh" "$trireme"
        [ "$rc" = 1 ] || fail "exit code $rc, want 1"
        named 1 "1 of 4 ranks missing: rank $rank (host $host)"
        none_left
    done
    ;;
stuck) # MPI is up, but a rank does not answer
    export TRM_JOB_FAULT=roll:late:2:600000
    job -x TRM_JOB_FAULT -np 4 "$trireme"
    [ "$rc" = 1 ] || fail "exit code $rc, want 1"
    named 1 "the roll call: 1 of 4 ranks missing after .* s: rank 2 (host $host)"
    none_left
    ;;
dead) # by mpirun's default the job dies with the rank; with recovery it is ours to notice
    export TRM_JOB_FAULT=roll:die:2
    job -x TRM_JOB_FAULT -np 4 "$trireme"
    [ "$rc" = 137 ] || fail "exit code $rc, want 137"
    grep -q "process rank 2 .*on node $host .*signal 9" "$dir/e.log" || fail "mpirun does not name it"
    none_left
    job --enable-recovery -x TRM_JOB_FAULT -np 4 "$trireme"
    [ "$rc" != 124 ] || fail "it hung"
    named 1 "the roll call: 1 of 4 ranks missing after .* s: rank 2 (host $host)"
    none_left
    export TRM_JOB_FAULT=init:die:3
    job --enable-recovery -x TRM_JOB_FAULT -np 4 "$trireme"
    [ "$rc" != 124 ] || fail "it hung"
    named 1 "1 of 4 ranks missing: rank 3 (host $host)"
    none_left
    ;;
gone) # it dies after the roll call: noticed long before the deadline, which is ten minutes
    for rank in 2 0; do
        export TRM_JOB_FAULT=agree:die:$rank
        job --enable-recovery -x TRM_JOB_FAULT -np 4 "$trireme"
        [ "$rc" != 124 ] || fail "it hung"
        grep -q "^trireme.*1 of 4 ranks missing after .* s: rank $rank ($host, pid [0-9]*) has ended" "$dir/e.log" ||
            fail "rank $rank is not named"
        none_left
    done
    ;;
build) # a copy with another build id
    command -v objcopy >/dev/null || { echo "skip: no objcopy"; exit 77; }
    objcopy -O binary --only-section=.note.gnu.build-id --set-section-flags .note.gnu.build-id=alloc,load,contents \
        "$trireme" "$dir/note" || fail "no build id in the program"
    size=$(wc -c <"$dir/note")
    [ "$size" -gt 20 ] || fail "no build id in the program"
    { head -c $((size - 4)) "$dir/note"; printf 'abcd'; } >"$dir/other-note"
    objcopy --update-section .note.gnu.build-id="$dir/other-note" "$trireme" "$dir/trireme" || fail "objcopy"
    rc=0
    set -- score "$demo" --input "$demo/images" --output "$dir/o.csv"
    timeout 60 mpirun --oversubscribe --bind-to none -np 2 "$trireme" "$@" : -np 1 "$dir/trireme" "$@" : \
        -np 1 "$trireme" "$@" 2>"$dir/e.log" || rc=$?
    [ "$rc" = 2 ] || fail "exit code $rc, want 2"
    named 1 "rank 2 ($host, pid [0-9]*) runs another build of the program: .*/[0-9a-f]\{16\}, and rank 0 ($host, pid"
    [ ! -e "$dir/o.csv" ] || fail "an output was made"
    none_left
    # stripping changes no build id: such a copy is the same program
    strip -o "$dir/stripped" "$trireme"
    timeout 60 mpirun --oversubscribe --bind-to none -np 1 "$trireme" "$@" : -np 1 "$dir/stripped" "$@" \
        2>"$dir/e.log" || fail "a stripped copy is refused"
    ;;
orphans) # mpirun itself is killed: in a run, in MPI_Init, in the roll call
    i=0
    while [ $i -lt 300 ]; do
        for f in "$demo"/images/*.png; do echo "$f"; done
        i=$((i + 1))
    done >"$dir/list.txt"
    for fault in none:none:0 init:late:2:600000 roll:late:2:600000; do
        TRM_ROLL_CALL_S=600 TRM_JOB_FAULT=$fault mpirun --oversubscribe --bind-to none -np 4 "$trireme" score "$demo" \
            --input "$dir/list.txt" --output "$dir/o.jsonl" --overwrite 2>"$dir/e.log" &
        launcher=$!
        n=0
        if [ $fault = none:none:0 ]; then
            while [ ! -s "$dir/o.jsonl" ] && [ $n -lt 300 ]; do
                sleep 0.05
                n=$((n + 1))
            done
        else
            sleep 1.5
        fi
        left | grep -q score || fail "the job had ended already"
        kill -9 $launcher
        none_left
        wait $launcher || true
    done
    ;;
*)
    echo "unknown case $case"
    exit 1
    ;;
esac
echo "ok: $case"
