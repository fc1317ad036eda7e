#!/bin/sh
# usage: layouts.sh TRIREME NETWORKS SOURCE_DIR CASE. CASE is a layout (tensor=2,pipeline=2): all networks on so many
# ranks, one job, each against what one rank computes; or one of the words below. 77: no mpirun here.
set -eu
trireme=$1 networks=$2 source=$3 case=$4
demo=$source/configs/demo/digits
command -v mpirun >/dev/null || { echo "skip: no mpirun"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export TRM_DEADLINE_SCALE="${TRM_DEADLINE_SCALE:-10}"
export OMP_WAIT_POLICY=passive

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
ranks_of() { # of a layout: the product of its numbers
    echo "$1" | tr ',' '\n' | awk -F= '{ n = (n ? n : 1) * $2 } END { print n }'
}

case $case in
score) # every layout writes what one rank writes, in order; logits to 1e-4
    "$trireme" score "$demo" --input "$demo/images" --output "$dir/one.csv" --raw 2>"$dir/one.log" || fail "one rank"
    for layout in data=4 tensor=4 pipeline=4 data=2,tensor=2 data=2,tensor=2,pipeline=2 data=2,pipeline=3; do
        n=$(ranks_of $layout)
        ranks "$n" "$trireme" score "$demo" --input "$demo/images" --output "$dir/$layout.csv" --raw \
            --labels "$demo/labels.csv" --parallel $layout 2>"$dir/$layout.log" || fail "$layout"
        grep -q '^accuracy 359/360$' "$dir/$layout.log" || fail "accuracy with $layout"
        paste -d, "$dir/$layout.csv" "$dir/one.csv" | awk -F, -v l="$layout" '
            NR > 1 { if ($1 != $13) bad++
                     for (i = 2; i <= 11; i++) { d = $i - $(i + 12); if (d < 0) d = -d; if (!(d <= 1e-4)) bad++ } }
            END { if (NR != 361 || bad > 0) { print l ": " NR " lines, " bad + 0 " differ"; exit 1 } }' ||
            fail "logits with $layout"
    done
    ;;
batches) # few records, odd batches, records that fail among them: each in its place
    { for i in 000 001 002 003 004 005 006; do echo "$demo/images/$i.png"; done
      echo "$dir/none.png"
      for i in 007 008; do echo "$demo/images/$i.png"; done; } >"$dir/list.txt"
    for layout in pipeline=3 tensor=2,pipeline=2; do
        ranks "$(ranks_of $layout)" "$trireme" score "$demo" --input "$dir/list.txt" --output "$dir/o.jsonl" \
            --batch 5 --overwrite --parallel $layout 2>"$dir/b.log" || fail "$layout"
        [ "$(wc -l <"$dir/o.jsonl")" = 10 ] || fail "$(wc -l <"$dir/o.jsonl") records"
        awk -F'[:,]' '$2 != NR - 1 { exit 1 }' "$dir/o.jsonl" || fail "out of order"
        [ "$(sed -n 8p "$dir/o.jsonl" | grep -c '"error"')" = 1 ] || fail "the bad record has no error"
        [ "$(grep -c '"error"' "$dir/o.jsonl")" = 1 ] || fail "others failed too"
    done
    ;;
failing) # records that fail while they run: each fails alone, in its place, and the replica goes on
    awk 'BEGIN { for (i = 0; i < 40; i++) { n = i % 10 < 7 ? 6 : 9; ids = ones = noughts = ""
            for (k = 0; k < n; k++) { c = k ? "," : ""; id = (i * 7 + k * 3) % 90
                if (k == 2 && (i == 5 || i == 17 || i == 18)) id = 100000
                ids = ids c id; ones = ones c 1; noughts = noughts c 0 }
            printf "{\"input_ids\":[%s],\"attention_mask\":[%s],\"token_type_ids\":[%s]}\n", ids, ones, noughts } }' \
        >"$dir/in.jsonl"
    model=$source/tests/data/networks/bert
    "$trireme" score "$model" --input "$dir/in.jsonl" --output "$dir/one.csv" --output-name pooled --raw --batch 4 \
        2>"$dir/one.log" || fail "one rank"
    for layout in pipeline=3 tensor=3 tensor=2,pipeline=2 data=2,pipeline=2; do
        ranks "$(ranks_of $layout)" "$trireme" score "$model" --input "$dir/in.jsonl" --output "$dir/o.csv" \
            --overwrite --output-name pooled --raw --batch 4 --parallel $layout 2>"$dir/f.log" || fail "$layout"
        grep -q '40 records, 3 errors' "$dir/f.log" || fail "errors with $layout"
        sed 's/"[^"]*"/failed/g' "$dir/o.csv" >"$dir/x"
        sed 's/"[^"]*"/failed/g' "$dir/one.csv" | paste -d, "$dir/x" - | awk -F, -v l="$layout" '
            NR == 1 { half = NF / 2; next }
            { at = NR - 2; if (($half != "") != (at == 5 || at == 17 || at == 18)) bad++
              for (i = 2; i < half; i++) { d = $i - $(i + half); if (d < 0) d = -d; if (!(d <= 1e-5)) bad++ } }
            END { if (NR != 41 || bad > 0) { print l ": " NR " lines, " bad + 0 " differ"; exit 1 } }' ||
            fail "values with $layout"
    done
    ;;
run) # one answer, printed once, whatever the layout; a bad input ends all ranks with exit code 2
    "$trireme" run "$demo" --image "$demo/images/000.png" >"$dir/one.txt" || fail "one rank"
    for layout in tensor=3 pipeline=2 tensor=2,pipeline=2 auto data=1,tensor=1,pipeline=1; do
        n=$(ranks_of $layout)
        [ $layout = auto ] && n=3
        [ $layout = data=1,tensor=1,pipeline=1 ] && n=2
        ranks "$n" "$trireme" run "$demo" --image "$demo/images/000.png" --parallel $layout >"$dir/o.txt" \
            2>"$dir/r.log" || fail "$layout"
        cut -c1-8 "$dir/one.txt" >"$dir/x"
        cut -c1-8 "$dir/o.txt" >"$dir/y"
        cmp "$dir/x" "$dir/y" || fail "another answer with $layout"
    done
    rc=0
    ranks 2 "$trireme" run "$demo" --image "$dir/none.png" --parallel tensor=2 2>"$dir/e.log" || rc=$?
    [ "$rc" = 2 ] || fail "exit code $rc, want 2"
    [ "$(grep -c '^trireme run: .*none.png' "$dir/e.log")" = 1 ] || fail "not one line"
    rc=0
    ranks 2 "$trireme" run "$demo" --image "$demo/images/000.png" --parallel data=2 2>"$dir/e.log" || rc=$?
    [ "$rc" = 2 ] || fail "exit code $rc for data=2, want 2"
    ;;
bench) # every rank tells its place and what it took
    ranks 4 "$trireme" bench "$source/tests/data/networks/resnet18" --parallel tensor=2,pipeline=2 --rounds 5 --json \
        >"$dir/b.json" 2>"$dir/b.log" || fail "bench"
    [ "$(grep -o '"stage": 1' "$dir/b.json" | wc -l)" = 2 ] || fail "$(cat "$dir/b.json")"
    grep -q '"layout": "data=1,tensor=2,pipeline=2"' "$dir/b.json" || fail "$(cat "$dir/b.json")"
    grep -q '"flow_ms"' "$dir/b.json" || fail "no throughput"
    ;;
memory) # what does not fit one rank runs on four; one rank says what would fit
    model=$source/tests/data/networks/resnet50
    rc=0
    "$trireme" bench "$model" --memory 400KiB --rounds 1 >"$dir/o.txt" 2>"$dir/m.log" || rc=$?
    [ "$rc" != 0 ] || fail "400 KiB were enough for one rank"
    grep -q 'would fit: .*pipeline=' "$dir/m.log" || fail "no layout that would fit is named"
    ranks 4 "$trireme" bench "$model" --memory 400KiB --rounds 1 >"$dir/o.txt" 2>"$dir/n.log" || fail "four ranks"
    grep -q '^layout' "$dir/o.txt" || fail "no layout"
    for n in resnet50 bert vit; do # cuts that follow memory agree, too
        ranks 4 "$networks" --threads 1 --against one --parallel pipeline=4 --memory 350000 \
            "$source/tests/data/networks/$n" || fail "$n in a pipeline with a limit"
    done
    ranks 4 "$networks" --threads 1 --against one --parallel tensor=4 --memory 350000 \
        "$source/tests/data/networks/vit" || fail "vit divided with a limit"
    ;;
models) # one path, another model on rank 1: other weights, another graph, another YAML. No answer is given.
    cat >"$dir/rank.sh" <<'R'
#!/bin/sh
cd "$DIRS/$OMPI_COMM_WORLD_RANK" || exit 9
exec "$@"
R
    chmod +x "$dir/rank.sh"
    export DIRS="$dir"
    mkdir "$dir/0" "$dir/1"
    cp -r "$demo" "$dir/0/m"
    for what in same weights graph yaml; do
        rm -rf "$dir/1/m"
        cp -r "$demo" "$dir/1/m"
        case $what in
        weights) # one byte in the middle of the file, where floats are
            at=$(($(wc -c <"$dir/1/m/model.onnx") / 2))
            old=$(od -An -tu1 -j$at -N1 "$dir/1/m/model.onnx")
            # shellcheck disable=SC2059  # an octal escape is a format
            printf "\\$(printf %03o $(((old + 16) % 256)))" |
                dd of="$dir/1/m/model.onnx" bs=1 seek=$at conv=notrunc 2>"$dir/dd.log" ;;
        graph) cp "$source/tests/data/networks/resnet18/model.onnx" "$dir/1/m/model.onnx" ;;
        yaml) sed -i 's/mean: 0.5/mean: 0.4/' "$dir/1/m/model.yaml" ;;
        esac
        for layout in data=2 tensor=2 pipeline=2; do
            rc=0
            ranks 2 "$dir/rank.sh" "$trireme" score m --input "$demo/images" --output "$dir/o.csv" --overwrite \
                --parallel $layout 2>"$dir/s.log" || rc=$?
            [ $what = same ] && [ "$rc" = 0 ] && continue
            [ $what = same ] && fail "the same model on both: exit code $rc with $layout"
            [ "$rc" = 2 ] || fail "exit code $rc with another $what and $layout, want 2"
            grep -q "^trireme score: rank 1: opened another model than rank 0" "$dir/s.log" ||
                fail "another $what and $layout: not named"
        done
    done
    ;;
killed) # a follower dies: the job ends, with an error, and leaves nobody behind
    cat >"$dir/rank.sh" <<'R'
#!/bin/sh
echo $$ >"$PIDS/pid.$OMPI_COMM_WORLD_RANK"
exec "$@"
R
    chmod +x "$dir/rank.sh"
    for layout in tensor=3 pipeline=3; do
        rm -f "$dir"/pid.*
        PIDS=$dir mpirun --allow-run-as-root --oversubscribe --bind-to none --enable-recovery -x PIDS -np 3 \
            "$dir/rank.sh" "$trireme" bench "$source/tests/data/networks/resnet18" --parallel $layout \
            --rounds 1000000 >"$dir/b.txt" 2>"$dir/k.log" &
        job=$!
        n=0
        while [ ! -s "$dir/pid.2" ] && [ $n -lt 500 ]; do
            sleep 0.02
            n=$((n + 1))
        done
        sleep 1.5
        kill -9 "$(cat "$dir/pid.2")" || fail "rank 2 had ended already"
        wait $job || true # with --enable-recovery mpirun's exit code says nothing
        grep -q '^trireme bench: .*rank 2' "$dir/k.log" || fail "$layout: the dead rank is not named"
        for r in 0 1; do
            ! kill -0 "$(cat "$dir/pid.$r")" 2>/dev/null || fail "$layout: rank $r is still there"
        done
    done
    ;;
*=*)
    ranks "$(ranks_of "$case")" "$networks" --threads 1 --against one --parallel "$case" \
        "$source"/tests/data/networks/* || fail "$case"
    ;;
*) fail "no case '$case'" ;;
esac
echo "ok: $case"
