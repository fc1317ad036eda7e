#!/bin/sh
# usage: plan_language.sh TRIREME SOURCE_DIR. Plans of Llama 3.1 8B, 70B and 405B for accelerators that are not here: layouts,
# ledgers, and times between what the hardware cannot exceed and what would be of no use. Checkpoints are holes in files.
set -u
trireme=$1 source=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0
complain() {
    echo "FAILED: $*"
    head -c 3000 "$dir/out" "$dir/err"
    bad=1
}
make() {
    name=$1
    shift
    "$source/tests/cli/sparse_model.sh" "$dir/$name" "$@" || exit 1
}
# plan EXIT_CODE MODEL OPTIONS...: JSON in $dir/out
plan() {
    want=$1 model=$2
    shift 2
    got=0
    timeout 100 "$trireme" plan "$dir/$model" --json "$@" >"$dir/out" 2>"$dir/err" </dev/null || got=$?
    [ "$got" = "$want" ] || complain "plan $model $*: exit code $got, want $want"
}
# layout NAME DATA TENSOR PIPELINE: what was chosen
layout() {
    sed 's/"reason".*//' "$dir/out" | grep -q "\"parallel\": {\"data\": $2, \"tensor\": $3, \"pipeline\": $4}" ||
        complain "$1: want data=$2,tensor=$3,pipeline=$4"
}
# rate NAME PHASE LOW HIGH: tokens a second of the choice's phase 1, 2 or 3
rate() {
    seen=$(sed 's/"candidates".*//' "$dir/out" | grep -o '"tokens_s": [0-9.]*' | sed -n "$2s/.* //p")
    awk -v x="${seen:-0}" -v low="$3" -v high="$4" 'BEGIN { exit !(x >= low && x <= high) }' ||
        complain "$1: ${seen:-no} tokens/s, want $3 .. $4"
}
number() { # KEY: the first number of that key
    grep -o "\"$1\": [0-9.]*" "$dir/out" | head -n 1 | sed 's/.*: //'
}
# fits NAME BYTES: no rank's ledger is above that, and none is 1 % below: the cache takes what is left
fits() {
    sed 's/.*"ledger": //' "$dir/out" | tr '{' '\n' | awk -F'[:,]' -v limit="$2" '
        /stage/ { n++; sum = $6 + $10 + $12 + $14 + $16 + 0
                  kv = $0; sub(/.*"kv": /, "", kv); sum += kv + 0
                  most = sum > most ? sum : most }
        END { exit !(n > 0 && most <= limit && most >= limit * 0.99) }' || complain "$1: the ledger of its ranks"
}

make 8b 32 4096 32 8 14336 128256
make 70b 80 8192 64 8 28672 128256
make 405b 126 16384 128 8 53248 128256
h100=85270200320 h200=150770000000 # usable bytes, of 80 and at least those of 139.6 GiB

plan 0 8b --ranks 1 --device cuda:h200
layout "8B" 1 1 1
rate "8B, batch 1" 1 220 317
rate "8B, batch 64" 2 8500 13000
rate "8B, prompts" 3 20000 52000
fits "8B" $h200
one=$(number kv_tokens)
plan 0 8b --ranks 1 --device cuda:h200 --kv-dtype i8
two=$(number kv_tokens)
awk -v a="$one" -v b="$two" 'BEGIN { exit !(b > 1.85 * a && b < 2 * a) }' || complain "an i8 cache: $two tokens beside $one"
plan 0 8b --ranks 1 --device cuda:h200 --kv-cache 17GiB --context 131072
[ "$(number kv_tokens)" = 139264 ] || complain "--kv-cache 17GiB: $(number kv_tokens) tokens"
plan 2 8b --ranks 1 --device cuda:h200 --kv-cache 16MiB
grep -q 'a KV cache of 16777216 bytes holds 128 tokens' "$dir/err" || complain "a small --kv-cache"
plan 0 8b --ranks 1 --device cuda:h200 --dtype fp32
rate "8B, fp32 activations" 3 500 4000
grep -q '"kv_dtype": "f32"' "$dir/out" || complain "fp32 activations, another cache"
plan 0 8b --ranks 8 --device cuda:80GiB
layout "8B on 8 cards" 8 1 1
plan 0 8b --ranks 8 --device cuda:80GiB --objective latency
layout "8B on 8 cards, latency" 1 8 1
plan 0 8b --ranks 1 --device cuda:80GiB --memory 18GiB
fits "8B in 18 GiB" 19327352832
plan 2 8b --ranks 1 --device cuda:80GiB --memory 16GiB
grep -q 'does not fit: .*needs .*(weights 16.06 GB, the KV cache .*would fit: tensor=2' "$dir/err" || complain "8B in 16 GiB"

plan 0 70b --ranks 8 --device cuda:80GiB
layout "70B on 8 of 80 GiB" 4 2 1
fits "70B on 8 of 80 GiB" $h100
plan 0 70b --ranks 8 --device cuda:141GiB --parallel tensor=8
rate "70B, tensor=8, batch 1" 1 130 214
plan 0 70b --ranks 16 --hosts 2 --device cuda:80GiB
layout "70B on 16 of 80 GiB" 8 2 1

plan 0 405b --ranks 8 --device cuda:141GiB
layout "405B on 8 of 141 GiB" 1 8 1
fits "405B on 8 of 141 GiB" $h200
plan 0 405b --ranks 16 --hosts 2 --device cuda:80GiB
layout "405B on 16 of 80 GiB" 1 8 2
plan 0 405b --ranks 16 --hosts 2 --device cuda:141GiB
layout "405B on 16 of 141 GiB" 2 8 1
plan 2 405b --ranks 8 --device cuda:80GiB
grep -q 'does not fit: .*(weights 10.*the biggest weights are .*lm_head.*would fit: tensor=8,pipeline=2 with ' "$dir/err" ||
    complain "405B on 8 of 80 GiB"

# for people
"$trireme" plan "$dir/8b" --ranks 1 --device cuda:h200 >"$dir/out" 2>"$dir/err" || complain "a plan for people"
grep -q '^  decode 64 .* tokens/s\|^  decode 64 ' "$dir/out" || complain "no line of a batch of 64"
grep -q '^  prefill 8x2048 ' "$dir/out" || complain "no line of prompts"
grep -q '^  KV cache: [0-9]* tokens of each replica (bf16)' "$dir/out" || complain "no line of the cache"
exit $bad
