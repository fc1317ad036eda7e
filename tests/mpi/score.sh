#!/bin/sh
# usage: score.sh TRIREME SOURCE_DIR CASE. The scoring job on the digits model, on one rank and on four.
# 77: no mpirun here.
set -eu
trireme=$1 demo=$2/configs/demo/digits case=$3
command -v mpirun >/dev/null || { echo "skip: no mpirun"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export TRM_DEADLINE_SCALE="${TRM_DEADLINE_SCALE:-10}"
export OMP_WAIT_POLICY=passive

ranks() {
    n=$1
    shift
    mpirun --allow-run-as-root --oversubscribe --bind-to none -np "$n" "$trireme" "$@"
}
fail() {
    echo "FAILED: $*"
    cat "$dir"/*.log 2>/dev/null || true
    exit 1
}

case $case in
accuracy) # 359 of 360 on four ranks, logits equal the reference and one rank's
    ranks 4 score "$demo" --input "$demo/images" --output "$dir/four.csv" --raw --labels "$demo/labels.csv" \
        2>"$dir/four.log" || fail "four ranks"
    grep -q '^accuracy 359/360$' "$dir/four.log" || fail "accuracy on four ranks"
    "$trireme" score "$demo" --input "$demo/images" --output "$dir/one.csv" --raw --labels "$demo/labels.csv" \
        2>"$dir/one.log" || fail "one rank"
    grep -q '^accuracy 359/360$' "$dir/one.log" || fail "accuracy on one rank"
    for f in one four; do # columns 2..11 against the reference, line by line
        tail -n +2 "$dir/$f.csv" | paste -d, - "$demo/reference_logits.csv" | awk -F, -v f="$f" '
            { for (i = 0; i < 10; i++) { d = $(2 + i) - $(13 + i); if (d < 0) d = -d; if (!(d <= 1e-4)) bad++ } }
            END { if (NR != 360 || bad > 0) { print f ": " NR " rows, " bad + 0 " logits differ"; exit 1 } }' ||
            fail "logits of $f"
    done
    ;;
refusal) # bad input: one line that names the rank, exit code 2, no output
    rc=0
    ranks 3 score "$dir/none.onnx" --input "$demo/images" --output "$dir/o.csv" 2>"$dir/e.log" || rc=$?
    [ "$rc" = 2 ] || fail "exit code $rc, want 2"
    [ "$(grep -c '^trireme score: rank 0: .*none.onnx' "$dir/e.log")" = 1 ] || fail "not one line"
    [ ! -e "$dir/o.csv" ] || fail "an output was made"
    ;;
resume) # a torn output is completed on two ranks: the same bytes; what would not fit is refused
    i=0
    while [ $i -lt 10 ]; do
        for f in "$demo"/images/*.png; do echo "$f"; done
        i=$((i + 1))
    done >"$dir/list.txt"
    ranks 2 score "$demo" --input "$dir/list.txt" --output "$dir/whole.jsonl" 2>"$dir/a.log" || fail "whole"
    [ "$(grep -c '^mark' "$dir/whole.jsonl.journal")" -gt 1 ] || fail "one entry only"
    # as a run leaves it that was killed inside a write behind its first entry
    sed '/^mark/q' "$dir/whole.jsonl.journal" >"$dir/torn.jsonl.journal"
    n=$(awk '/^mark/ { print $5 }' "$dir/torn.jsonl.journal")
    head -c $((n + 900)) "$dir/whole.jsonl" >"$dir/torn.jsonl"
    ranks 2 score "$demo" --input "$dir/list.txt" --output "$dir/torn.jsonl" --resume 2>"$dir/b.log" || fail "resume"
    cmp "$dir/whole.jsonl" "$dir/torn.jsonl" || fail "resumed output differs"
    grep -q '^with those of earlier runs: 3600 records, 0 errors' "$dir/b.log" || fail "the count"
    # complete: nothing to do
    ranks 2 score "$demo" --input "$dir/list.txt" --output "$dir/torn.jsonl" --resume 2>"$dir/c.log" || fail "complete"
    grep -q 'is complete: 3600 records' "$dir/c.log" || fail "complete: not said"
    # another input, or none that is known: refused before anything is touched
    echo "$demo/images/000.png" >>"$dir/list.txt"
    for why in "the input differs: " "has no journal"; do
        [ "$why" = "the input differs: " ] || rm "$dir/torn.jsonl.journal"
        rc=0
        ranks 2 score "$demo" --input "$dir/list.txt" --output "$dir/torn.jsonl" --resume 2>"$dir/d.log" || rc=$?
        [ "$rc" = 2 ] || fail "$why: exit code $rc, want 2"
        grep -q "$why" "$dir/d.log" || fail "$why: not said"
        cmp "$dir/whole.jsonl" "$dir/torn.jsonl" || fail "$why: the output was touched"
    done
    ;;
killed) # a rank dies: it is named, and the output is complete and in order
    i=0
    while [ $i -lt 30 ]; do
        for f in "$demo"/images/*.png; do echo "$f"; done
        i=$((i + 1))
    done >"$dir/list.txt"
    # each rank leaves its process id; rank 2's is the one to be killed
    cat >"$dir/rank.sh" <<'R'
#!/bin/sh
echo $$ >"$PIDS/pid.$OMPI_COMM_WORLD_RANK"
exec "$@"
R
    chmod +x "$dir/rank.sh"
    PIDS=$dir mpirun --allow-run-as-root --oversubscribe --bind-to none --enable-recovery -x PIDS -np 4 \
        "$dir/rank.sh" "$trireme" score "$demo" --input "$dir/list.txt" --output "$dir/o.jsonl" \
        --labels "$demo/labels.csv" 2>"$dir/k.log" &
    job=$!
    n=0
    while [ ! -s "$dir/o.jsonl" ] && [ $n -lt 3000 ]; do
        sleep 0.02
        n=$((n + 1))
    done
    kill -9 "$(cat "$dir/pid.2")" || fail "rank 2 had ended already"
    wait $job || fail "the job"
    grep -q 'lost replica 2/1 (rank 2' "$dir/k.log" || fail "the dead replica is not named"
    [ "$(wc -l <"$dir/o.jsonl")" = 10800 ] || fail "$(wc -l <"$dir/o.jsonl") of 10800 records"
    awk -F'[:,]' '$2 != NR - 1 { exit 1 }' "$dir/o.jsonl" || fail "out of order"
    ! grep -q '"error"' "$dir/o.jsonl" || fail "records failed"
    ;;
interrupted) # SIGTERM ends the job promptly; what is written is whole records in order
    i=0
    while [ $i -lt 200 ]; do
        for f in "$demo"/images/*.png; do echo "$f"; done
        i=$((i + 1))
    done >"$dir/list.txt"
    # what Ctrl-C comes to in mpirun; a shell's background job ignores SIGINT itself
    mpirun --allow-run-as-root --oversubscribe --bind-to none -np 3 "$trireme" score "$demo" \
        --input "$dir/list.txt" --output "$dir/o.jsonl" 2>"$dir/i.log" &
    job=$!
    n=0
    while [ ! -s "$dir/o.jsonl" ] && [ $n -lt 600 ]; do
        sleep 0.1
        n=$((n + 1))
    done
    kill -TERM $job
    rc=0
    wait $job || rc=$?
    [ "$rc" != 0 ] || fail "exit code 0"
    n=$(wc -l <"$dir/o.jsonl")
    { [ "$n" -gt 0 ] && [ "$n" -lt 72000 ]; } || fail "$n records"
    [ "$(tail -c 2 "$dir/o.jsonl")" = "}" ] || fail "a torn record"
    awk -F'[:,]' '$2 != NR - 1 { exit 1 }' "$dir/o.jsonl" || fail "out of order"
    ;;
full) # the disk is full: exit code 1, whole records kept
    rc=0
    (
        ulimit -f 10
        trap '' XFSZ
        "$trireme" score "$demo" --input "$demo/images" --output "$dir/o.jsonl" --threads 1
    ) 2>"$dir/f.log" || rc=$?
    [ "$rc" = 1 ] || fail "exit code $rc, want 1"
    [ "$(wc -l <"$dir/o.jsonl")" -gt 10 ] || fail "nothing kept"
    [ "$(tail -c 2 "$dir/o.jsonl")" = "}" ] || fail "a torn record"
    "$trireme" score "$demo" --input "$demo/images" --output "$dir/o.jsonl" --resume --threads 1 2>"$dir/r.log" ||
        fail "resume with room"
    [ "$(wc -l <"$dir/o.jsonl")" = 360 ] || fail "$(wc -l <"$dir/o.jsonl") of 360 records"
    awk -F'[:,]' '$2 != NR - 1 { exit 1 }' "$dir/o.jsonl" || fail "out of order"
    ;;
*) fail "no case '$case'" ;;
esac
echo "ok: $case"
