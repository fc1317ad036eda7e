#!/bin/sh
# usage: language.sh TRIREME SOURCE_DIR CASE [DEVICE]. Language models on the command line on a device with memory of its own,
# over the emulated driver (TRM_CUDA_DRIVER, TRM_CUDA_MODULE are set).
#   memory   a card that is too small: said before loading, or while loading, with the ledger; what is left goes to the cache
#   preempt  a cache that holds less than what is under way: sequences wait and begin again, and answers are the same
set -u
trireme=$1 source=$2 case=$3 device=${4:-cuda}
model=$source/configs/demo/tiny-sotu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export OMP_WAIT_POLICY=passive TRM_PROBE=quick TRM_CACHE="$dir"
bad=0
complain() {
    echo "FAILED: $*"
    head -c 3000 "$dir/out" "$dir/err"
    bad=1
}
# check NAME EXIT_CODE PATTERN COMMAND...: the exit code, and a line of standard output or error that matches
check() {
    name=$1 want=$2 pattern=$3
    shift 3
    got=0
    timeout 120 "$@" >"$dir/out" 2>"$dir/err" </dev/null || got=$?
    [ "$got" = "$want" ] || complain "$name: exit code $got, want $want"
    cat "$dir/out" "$dir/err" | grep -aqE -e "$pattern" || complain "$name: want a line like: $pattern"
}

memory() {
    # before anything is loaded: the ledger, and what would fit
    TRM_EMU_MEMORY=300000 check "300 KB" 2 \
        'the model does not fit: .* a rank \((weights|the KV cache|activations) .*, .*, .*\), the limit is 0.3 MB; the biggest weights are ' \
        "$trireme" run "$model" --prompt x --device "$device"
    check "--memory 200KB" 2 'the limit is 0.2 MB; .*; a smaller --kv-cache or --context needs less' \
        "$trireme" run "$model" --prompt x --device "$device" --memory 200000
    # a cache that is asked for and is larger than the card
    TRM_EMU_MEMORY=64000000 check "a cache of 100 MB" 2 'does not fit: .* a rank \(the KV cache 10.*the limit is ' \
        "$trireme" run "$model" --prompt x --device "$device" --kv-cache 100000000
    # the limit allows what the card has not: there is no room for the smallest cache, or less than that
    for bytes in 100000 1000000; do
        TRM_EMU_MEMORY=$bytes check "--memory 1GiB on $bytes bytes" 1 'the plan needs .* MB \(.*weights .* the biggest weights are ' \
            "$trireme" run "$model" --prompt x --device "$device" --memory 1GiB
    done
}

# tokens_of CACHE: what greedy decoding of 24 prompts says, with a cache of so many bytes
tokens_of() {
    got=0
    timeout 300 "$trireme" score "$model" --input "$dir/prompts.jsonl" --output "$dir/$1.jsonl" --overwrite --device "$device" \
        --max-tokens 24 --max-batch 16 --context 128 --kv-cache "$1" --log info >"$dir/out" 2>"$dir/err" </dev/null || got=$?
    [ $got = 0 ] || complain "a cache of $1 bytes: exit code $got"
}

preempt() {
    awk 'BEGIN { for (i = 0; i < 24; i++) { text = "the"; for (k = 0; k < 12 + i % 5; k++) text = text " " (i * 7 + k * 3) % 10
        printf "{\"prompt\": \"%s\"}\n", text } }' >"$dir/prompts.jsonl"
    tokens_of 16MiB
    tokens_of 600KiB # little more than one context
    grep -aqE 'preemptions [1-9]' "$dir/err" || complain "nothing was preempted"
    cmp -s "$dir/16MiB.jsonl" "$dir/600KiB.jsonl" || complain "a small cache changes answers"
}

case $case in
memory | preempt) $case ;;
*) complain "no case '$case'" ;;
esac
exit $bad
