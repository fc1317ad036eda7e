#!/bin/sh
# usage: language.sh TRIREME SOURCE_DIR CASE [DEVICE]. Language models on the command line on a device with memory of its own,
# over the emulated driver (TRM_CUDA_DRIVER, TRM_CUDA_MODULE are set).
#   memory   a card that is too small: said before loading, or while loading, with the ledger; what is left goes to the cache;
#            a type that the weights do not have is warned of
#   faults   a card that fails on the way: text that was there stays, and the reason is said once, on a line of its own
#   layouts  the CPU's tokens, all of them in fp32 and nearly all in bf16; and one rank's bytes under every layout and batch
#   formats  the same for weights in fp16, of block types and packed, and for a cache of 8 bits: one rank's bytes
#   one-rank one rank of two has no memory for a step's inputs: that request fails with its words at once, the others are served
#   stages   pipeline stages on devices that take their time: one rank's bytes, and steps that are begun behind others
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
    # a tied table is kept once, and what is planned is what there is: 8.4 MB of weights
    check "weights" 0 'weights 8.4 MB, activations [0-9.]*, workspace ' \
        "$trireme" run "$model" --prompt x --max-tokens 1 --device "$device" --log info
    grep -aqE 'plan.* weights 8.4 MB' "$dir/err" || complain "the plan has other weights than the model"
    # before anything is loaded: the ledger, and what would fit
    TRM_EMU_MEMORY=300000 check "300 KB" 2 \
        'the model does not fit: .* a rank \((weights|the KV cache|activations) .*, .*, .*\), the limit is 0.3 MB; the biggest weights are ' \
        "$trireme" run "$model" --prompt x --device "$device"
    check "--memory 200KB" 2 'the limit is 0.2 MB; .*; a smaller --kv-cache, --context or --step-tokens needs less' \
        "$trireme" run "$model" --prompt x --device "$device" --memory 200000
    # a cache that is asked for and is larger than the card
    TRM_EMU_MEMORY=64000000 check "a cache of 100 MB" 2 'does not fit: .* a rank \(the KV cache 10.*the limit is ' \
        "$trireme" run "$model" --prompt x --device "$device" --kv-cache 100000000
    # the limit allows what the card has not: there is no room for the smallest cache, or less than that
    for bytes in 100000 1000000; do
        TRM_EMU_MEMORY=$bytes check "--memory 1GiB on $bytes bytes" 1 'the plan needs .* MB \(.*weights .* the biggest weights are ' \
            "$trireme" run "$model" --prompt x --device "$device" --memory 1GiB
    done
    # weights stay bf16, and so do activations
    check "--dtype fp16" 0 ' W .* dtype f16: activations are rounded to bf16 in products, as the weights are' \
        "$trireme" bench "$model" --device "$device" --dtype fp16 --prompt-tokens 4 --new-tokens 2 --rounds 1
    grep -aq '^device    .*; cache in bf16$' "$dir/out" || complain "bench does not say its device"
}

faults() {
    TRM_EMU_FAULT=330:700 check "run" 1 '^trireme run: the device: .*the GPU failed' \
        "$trireme" run "$model" --prompt "The Senate" --max-tokens 200 --ignore-eos --device "$device"
    [ -s "$dir/out" ] && [ "$(tail -c 1 "$dir/out")" = "" ] || complain "run: want text, and its line ended"
    echo hello >"$dir/line"
    printf '%s' '{% for m in messages %}{{ m.content }}{% endfor %}' >"$dir/plain.jinja"
    got=0
    TRM_EMU_FAULT=330:700 timeout 120 "$trireme" chat "$model" --chat-template "$dir/plain.jinja" --max-tokens 200 --ignore-eos \
        --device "$device" >"$dir/out" 2>"$dir/err" <"$dir/line" || got=$?
    [ $got = 1 ] || complain "chat: exit code $got"
    [ -s "$dir/out" ] && [ "$(tail -c 1 "$dir/out")" = "" ] || complain "chat: want text, and its line ended"
    echo '{"prompt": "The Senate", "max_tokens": 20}' >"$dir/in.jsonl"
    TRM_EMU_FAULT=30:700 check "score" 1 '^trireme score: no replica is left; the last was .*the GPU failed' \
        "$trireme" score "$model" --input "$dir/in.jsonl" --output "$dir/o.jsonl" --device "$device"
    [ "$(grep -c 'the GPU failed' "$dir/err")" = 1 ] || complain "score: the reason is said more than once"
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

# score OUT OPTIONS...: the requests of $dir/requests.jsonl
score() {
    out=$1 n=$2
    shift 2
    got=0
    set -- "$trireme" score "$model" --input "$dir/requests.jsonl" --output "$out" --overwrite --threads 1 \
        --context ${context:-320} --log info "$@"
    [ "$n" = 1 ] || set -- mpirun --allow-run-as-root --oversubscribe --bind-to none -np "$n" "$@"
    timeout 300 "$@" >"$dir/out" 2>"$dir/err" </dev/null || got=$?
    [ $got = 0 ] || complain "exit code $got: $*"
}
# agree A B LEAST: of the tokens that follow the same text, a share of at least LEAST is equal
agree() {
    python3 - "$@" <<'P' || complain "$1 and $2: other tokens"
import json, sys
def tokens(path):
    for line in open(path):
        r = json.loads(line)
        for c in r.get("choices", [r]):
            yield c.get("token_ids") or []
same = total = 0
for a, b in zip(tokens(sys.argv[1]), tokens(sys.argv[2])):
    for x, y in zip(a, b):
        total += 1
        same += x == y
        if x != y:
            break
print(f"{same} of {total} tokens are the same")
sys.exit(0 if total > 30 and same >= float(sys.argv[3]) * total else 1)
P
}

layouts() {
    command -v mpirun >/dev/null || { echo "skip: no mpirun"; exit 77; }
    command -v python3 >/dev/null || { echo "skip: no python3"; exit 77; }
    export TRM_DEADLINE_SCALE="${TRM_DEADLINE_SCALE:-10}"
    python3 "$source/tests/mpi/language_requests.py" "${REQUESTS:-8}" 4096 48 7 constrained >"$dir/requests.jsonl"
    for dtype in fp32 bf16; do
        score "$dir/cpu.jsonl" 1 --device cpu --dtype $dtype
        score "$dir/one.jsonl" 1 --device "$device" --dtype $dtype
        grep -q '"error"' "$dir/one.jsonl" && complain "an error: $(grep -m1 '"error"' "$dir/one.jsonl")"
        least=1.0
        [ $dtype = fp32 ] || least=${LEAST:-0.9}
        agree "$dir/cpu.jsonl" "$dir/one.jsonl" "$least"
        for layout in tensor=2 pipeline=2 ${MORE:+tensor=4 tensor=2,pipeline=2 data=2}; do
            n=$(echo "$layout" | tr ',' '\n' | awk -F= '{ n = (n ? n : 1) * $2 } END { print n }')
            score "$dir/other.jsonl" "$n" --device "$device" --dtype $dtype --parallel $layout
            cmp -s "$dir/one.jsonl" "$dir/other.jsonl" || complain "$dtype, $layout: other bytes than one rank's"
        done
        score "$dir/other.jsonl" 1 --device "$device" --dtype $dtype --max-batch 3 --step-tokens 24
        cmp -s "$dir/one.jsonl" "$dir/other.jsonl" || complain "$dtype, smaller batches: other bytes"
    done
}

formats() {
    command -v mpirun >/dev/null || { echo "skip: no mpirun"; exit 77; }
    command -v python3 >/dev/null || { echo "skip: no python3"; exit 77; }
    export TRM_DEADLINE_SCALE="${TRM_DEADLINE_SCALE:-10}"
    context=96
    python3 "$source/tests/mpi/language_requests.py" "${REQUESTS:-3}" 150 96 >"$dir/requests.jsonl"
    for row in llama-f16.gguf: llama-q8_0.gguf: packed-gptq: ${MORE:+packed-gptq-8: packed-fp8: mixtral-f16.gguf: mixtral: qwen3:i8 \
            gemma3: packed-awq:i8}; do
        model=$source/tests/data/language/models/${row%:*} cache=${row#*:}
        score "$dir/one.jsonl" 1 --device "$device" ${cache:+--kv-dtype $cache}
        grep -q '"error"' "$dir/one.jsonl" && complain "$row: an error: $(grep -m1 '"error"' "$dir/one.jsonl")"
        for layout in tensor=2 pipeline=2 ${MORE:+tensor=4 tensor=2,pipeline=2}; do
            n=$(echo "$layout" | tr ',' '\n' | awk -F= '{ n = (n ? n : 1) * $2 } END { print n }')
            score "$dir/other.jsonl" "$n" --device "$device" --parallel $layout ${cache:+--kv-dtype $cache}
            cmp -s "$dir/one.jsonl" "$dir/other.jsonl" || complain "$row, $layout: other bytes than one rank's"
        done
        score "$dir/other.jsonl" 1 --device "$device" --max-batch 2 --step-tokens 16 ${cache:+--kv-dtype $cache}
        cmp -s "$dir/one.jsonl" "$dir/other.jsonl" || complain "$row, smaller batches: other bytes"
        echo "${row%:*}${cache:+, cache in $cache}: the same bytes in every layout"
    done
}

one_rank() {
    command -v mpirun >/dev/null || { echo "skip: no mpirun"; exit 77; }
    export TRM_GROUP_SHARED=1 TRM_EMU_IPC=1 TRM_DEADLINE_SCALE=10 # whoever waits waits for long
    for penalty in 1.0 1.3 1.0; do
        echo '{"prompt": [5, 6, 7], "max_tokens": 4, "temperature": 0, "ignore_eos": true, "repetition_penalty": '$penalty'}'
    done >"$dir/requests.jsonl"
    got=0
    set -- "$trireme" score "$model" --input "$dir/requests.jsonl" --output "$dir/out.jsonl" --overwrite --threads 1 \
        --context 320 --device "$device" --parallel tensor=2 --max-batch 1
    # the counts that a penalty needs: 2 bytes for each of the vocabulary, made with the first request that has one
    timeout 100 mpirun --allow-run-as-root --oversubscribe --bind-to none -np 1 "$@" : -np 1 -x TRM_EMU_REFUSE=8192 "$@" \
        >"$dir/out" 2>"$dir/err" </dev/null || got=$?
    [ $got = 0 ] || complain "exit code $got"
    grep -q 'over host memory' "$dir/err" && complain "the devices have no group"
    [ "$(grep -c '"completion_tokens":4' "$dir/out.jsonl")" = 2 ] || complain "not two answers: $(cat "$dir/out.jsonl")"
    grep -q '"index":1.*rank 1: .* of device memory' "$dir/out.jsonl" || complain "not rank 1's words: $(cat "$dir/out.jsonl")"
}

stages() {
    command -v mpirun >/dev/null || { echo "skip: no mpirun"; exit 77; }
    command -v python3 >/dev/null || { echo "skip: no python3"; exit 77; }
    export TRM_DEADLINE_SCALE="${TRM_DEADLINE_SCALE:-10}" TRM_GROUP_SHARED=1 TRM_EMU_IPC=1
    python3 "$source/tests/mpi/language_requests.py" "${REQUESTS:-6}" 4096 24 7 constrained >"$dir/requests.jsonl"
    score "$dir/one.jsonl" 1 --device "$device" --dtype fp32
    grep -q '"error"' "$dir/one.jsonl" && complain "an error: $(grep -m1 '"error"' "$dir/one.jsonl")"
    for layout in pipeline=2 tensor=2,pipeline=2 pipeline=4; do
        n=$(echo "$layout" | tr ',' '\n' | awk -F= '{ n = (n ? n : 1) * $2 } END { print n }')
        TRM_EMU_SLOW=15 score "$dir/other.jsonl" "$n" --device "$device" --dtype fp32 --parallel $layout --log debug
        cmp -s "$dir/one.jsonl" "$dir/other.jsonl" || complain "$layout: other bytes than one rank's"
        overlapped=$(grep -acE ' steps, [1-9][0-9]* of them begun behind another' "$dir/err")
        [ "$overlapped" = "$n" ] || complain "$layout: on $overlapped of $n ranks steps were begun behind another"
    done
}

case $case in
one-rank) one_rank ;;
memory | faults | preempt | layouts | formats | stages) $case ;;
*) complain "no case '$case'" ;;
esac
exit $bad
