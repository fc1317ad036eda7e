#!/bin/sh
# usage: language.sh TRIREME SOURCE_DIR CASE [MODEL]. Language models over several ranks. 77: no mpirun or Python here.
#   layouts   the same requests give the same bytes (token ids, log-probabilities to the last bit) under every layout,
#             thread count, batch size and cache: the promise of layout invariance
#   formats   the same for weights of other types and for experts: MODEL is a folder of small models
set -eu
trireme=$1 source=$2 case=$3
command -v mpirun >/dev/null || { echo "skip: no mpirun"; exit 77; }
command -v python3 >/dev/null || { echo "skip: no python3"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export TRM_DEADLINE_SCALE="${TRM_DEADLINE_SCALE:-10}"
export OMP_WAIT_POLICY=passive TRM_PROBE=quick

ranks() {
    n=$1
    shift
    if [ "$n" = 1 ]; then "$@"; else mpirun --allow-run-as-root --oversubscribe --bind-to none -np "$n" "$@"; fi
}
fail() {
    echo "FAILED: $*"
    tail -n 20 "$dir"/*.log 2>/dev/null || true
    exit 1
}
ranks_of() {
    echo "$1" | tr ',' '\n' | awk -F= '{ n = (n ? n : 1) * $2 } END { print n }'
}
score() { # score MODEL LAYOUT OUT OPTIONS...: the requests under a layout
    model=$1 layout=$2 out=$3
    shift 3
    ranks "$(ranks_of "$layout")" "$trireme" score "$model" --input "$dir/requests.jsonl" --output "$out" --overwrite \
        --parallel "$layout" --log info "$@" 2>"$dir/score.log" || fail "$model under $layout $*"
}
against() { # against MODEL LAYOUT OPTIONS...
    model=$1 layout=$2
    shift 2
    score "$model" "$layout" "$dir/other.jsonl" "$@"
    cmp "$dir/one.jsonl" "$dir/other.jsonl" || fail "$model: $layout $* differs from one rank"
    echo "same: $layout $*"
}

case $case in
layouts)
    model=${4:-$source/configs/demo/tiny-sotu}
    python3 "$source/tests/mpi/language_requests.py" 100 4096 320 7 constrained >"$dir/requests.jsonl"
    score "$model" data=1 "$dir/one.jsonl" --threads 1
    [ "$(grep -c '"error"' "$dir/one.jsonl")" = 0 ] || fail "requests failed: $(grep -m1 '"error"' "$dir/one.jsonl")"
    [ "$(wc -l <"$dir/one.jsonl")" = 100 ] || fail "$(wc -l <"$dir/one.jsonl") answers"
    for layout in tensor=2 tensor=3 tensor=4 pipeline=2 pipeline=3 tensor=2,pipeline=2 data=2; do
        against "$model" $layout --threads 1
    done
    against "$model" data=1 --threads 2
    against "$model" tensor=2 --threads 2
    against "$model" data=1 --threads 1 --max-batch 1
    against "$model" data=1 --threads 1 --max-batch 32 --step-tokens 48
    against "$model" data=1 --threads 1 --no-prefix-cache
    against "$model" tensor=2,pipeline=2 --threads 1 --no-prefix-cache --max-batch 7 --step-tokens 33
    # a cache of little more than one context: sequences give way and are computed anew
    for layout in data=1 tensor=2 pipeline=2; do
        against "$model" $layout --threads 1 --context 320 --kv-cache 1600KiB
        grep -q 'preemptions [1-9]' "$dir/score.log" || fail "nothing was preempted"
    done
    ;;
formats)
    folder=${4:-$source/tests/data/language/models}
    for model in "$folder"/*.gguf "$folder"/*/; do
        case $model in
        */packed-gptq/ | */packed-fp8/ | */packed-ints/) ;;
        */packed-*) continue ;; # the same blocks, read from another form
        esac
        case $model in
        *bert*) # encoders: whole sequences, a row of numbers each
            context=60
            awk 'BEGIN { for (i = 0; i < 20; i++) { ids = ""
                for (k = 0; k < 1 + i * 7 % 50; k++) ids = ids (k ? "," : "") (i * 31 + k * 17) % 100
                printf "{\"input\": [%s]}\n", ids } }' >"$dir/requests.jsonl"
            ;;
        *)
            context=96
            python3 "$source/tests/mpi/language_requests.py" 24 150 96 >"$dir/requests.jsonl"
            ;;
        esac
        score "$model" data=1 "$dir/one.jsonl" --threads 1 --context $context
        [ "$(grep -c '"error"' "$dir/one.jsonl")" = 0 ] || fail "$model: $(grep -m1 '"error"' "$dir/one.jsonl")"
        echo "$model"
        for layout in tensor=2 pipeline=2 tensor=3; do
            against "$model" $layout --threads 1 --context $context
        done
    done
    ;;
*)
    echo "language.sh: unknown case '$case'" >&2
    exit 2
    ;;
esac
