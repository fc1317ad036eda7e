#!/bin/sh
# usage: commands.sh TRIREME SOURCE_DIR. The command line with and without a CUDA device, over the emulated driver
# (TRM_CUDA_DRIVER, TRM_CUDA_MODULE are set).
set -eu
trireme=$1 source=$2
demo=$source/configs/demo/digits
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() {
    echo "FAILED: $*"
    cat "$dir/out" "$dir/err" 2>/dev/null || true
    exit 1
}
# refused NAME PATTERN: --device cuda ends with exit code 2 and one line; auto goes on with the CPU
refused() {
    rc=0
    "$trireme" run "$demo" --image "$demo/images/000.png" --device cuda >"$dir/out" 2>"$dir/err" || rc=$?
    [ $rc = 2 ] || fail "$1: exit code $rc, want 2"
    [ "$(wc -l <"$dir/err")" = 1 ] || fail "$1: not one line"
    grep -q "^trireme run: --device cuda: .*$2" "$dir/err" || fail "$1: want '$2'"
    [ ! -s "$dir/out" ] || fail "$1: wrote to standard output"
    "$trireme" run "$demo" --image "$demo/images/000.png" --device auto >"$dir/out" 2>"$dir/err" || fail "$1: auto"
    cmp -s "$dir/cpu" "$dir/out" || fail "$1: auto answers otherwise than the CPU"
    "$trireme" devices >"$dir/out" 2>"$dir/err" || fail "$1: devices"
    grep -q "not used: .*$2" "$dir/out" || fail "$1: devices does not say why"
}

! ldd "$trireme" | grep -iE 'cuda|cublas|cudnn|nccl' || fail "the program links a CUDA library"
"$trireme" run "$demo" --image "$demo/images/000.png" --device cpu >"$dir/cpu" 2>"$dir/err" || fail "cpu"

TRM_CUDA_DRIVER=$dir/none.so refused "no driver" "no CUDA driver"
TRM_EMU_DRIVER=none refused "no device" "no CUDA device"
TRM_EMU_DRIVER=old refused "old driver" "driver is too old"
TRM_EMU_DRIVER=stub refused "stub driver" "does not start"
TRM_CUDA_MODULE=$dir/none.so refused "no module" "cannot be loaded"
printf 'void trm_nothing(void); void trm_nothing(void) {}\n' >"$dir/m.c"
cc -shared -fPIC -o "$dir/foreign.so" "$dir/m.c" && TRM_CUDA_MODULE=$dir/foreign.so refused "foreign module" "no CUDA backend"

"$trireme" devices >"$dir/out" 2>"$dir/err" || fail devices
grep -q '^cuda:0 ' "$dir/out" || fail "devices lists no device"
TRM_EMU_DEVICES=2 "$trireme" devices >"$dir/out" 2>"$dir/err" || fail devices
grep -q '^cuda:1 ' "$dir/out" || fail "devices lists no second device"
grep -q 'links: cuda:1' "$dir/out" || fail "devices shows no links"

for device in cuda cuda:0 auto; do
    "$trireme" run "$demo" --image "$demo/images/000.png" --device $device >"$dir/out" 2>"$dir/err" || fail $device
    cut -c1-8 "$dir/cpu" >"$dir/x"
    cut -c1-8 "$dir/out" >"$dir/y"
    cmp -s "$dir/x" "$dir/y" || fail "$device answers otherwise than the CPU"
done
for name in cuda:7 cuda:x gpu cuda: cuda:-1; do
    rc=0
    "$trireme" run "$demo" --image "$demo/images/000.png" --device $name >"$dir/out" 2>"$dir/err" || rc=$?
    [ $rc = 2 ] || fail "--device $name: exit code $rc, want 2"
    [ "$(wc -l <"$dir/err")" = 1 ] || fail "--device $name: not one line"
done

# score: the answers of the CPU, whole files
head -n 40 "$demo/labels.csv" >"$dir/labels.csv"
"$trireme" score "$demo" --input "$demo/images" --output "$dir/g.csv" --device cuda --labels "$demo/labels.csv" \
    >"$dir/out" 2>"$dir/err" || fail score
grep -q '^accuracy 359/360$' "$dir/err" || grep -q '^accuracy 359/360$' "$dir/out" || fail "score on the device"

# BERT's attention reads the rows of one product: no transposes are left
"$trireme" bench "$source/tests/data/networks/bert" --device cuda --dtype bf16 --dim sequence=16 --rounds 1 --profile \
    >"$dir/out" 2>"$dir/err" || fail "bench bert"
grep -q 'attention packed' "$dir/err" || fail "attention is not packed"
! grep -q 'Transpose' "$dir/err" || fail "transposes around a packed attention"

# an index out of range in the data fails its record alone, as on the CPU
awk 'BEGIN { for (i = 0; i < 6; i++) { id = i == 3 ? 100000 : i
    printf "{\"input_ids\":[%d,2,3],\"attention_mask\":[1,1,1],\"token_type_ids\":[0,0,0]}\n", id } }' >"$dir/in.jsonl"
"$trireme" score "$source/tests/data/networks/bert" --input "$dir/in.jsonl" --output "$dir/o.jsonl" --device cuda --batch 4 \
    --output-name pooled --raw >"$dir/out" 2>"$dir/err" || fail "score with a bad record"
grep -q '6 records, 1 errors' "$dir/err" || fail "one record of six is bad"
sed -n 4p "$dir/o.jsonl" | grep -q 'Gather.*index 100000' || fail "the bad record's error: $(sed -n 4p "$dir/o.jsonl")"

# a device that is lost in the middle: an end with exit code 1 that says so, no hang, no answer
rc=0
TRM_EMU_FAULT=5:700 timeout 60 "$trireme" run "$demo" --image "$demo/images/000.png" --device cuda >"$dir/out" \
    2>"$dir/err" || rc=$?
[ $rc = 1 ] || fail "a lost device: exit code $rc, want 1"
grep -q 'the GPU failed (.*700' "$dir/err" || fail "a lost device is not reported"
[ ! -s "$dir/out" ] || fail "a lost device answered"

# too little device memory: said before anything is loaded, what is big, what would fit
rc=0
TRM_EMU_MEMORY=300000 timeout 60 "$trireme" bench "$source/tests/data/networks/resnet50" --device cuda --rounds 1 >"$dir/out" \
    2>"$dir/err" || rc=$?
[ $rc = 2 ] || fail "300 KB of device memory: exit code $rc, want 2"
grep -q 'the model does not fit: .* the limit is 0.3 MB; the biggest weights are ' "$dir/err" || fail "no word of memory"
# the plan fits a limit that the device has not: while loading, or in the first step
for memory in 1000 100000 450000; do
    rc=0
    TRM_EMU_MEMORY=$memory timeout 60 "$trireme" bench "$source/tests/data/networks/resnet50" --device cuda --rounds 1 \
        --memory 1GiB >"$dir/out" 2>"$dir/err" || rc=$?
    [ $rc = 1 ] || fail "$memory bytes of device memory: exit code $rc, want 1"
    grep -q 'the plan needs .* MB (.*weights .* the biggest weights are ' "$dir/err" || fail "$memory bytes: not explained"
done

# rates: measured, cached, used
export TRM_CACHE="$dir/cache" TRM_PROBE=quick
"$trireme" devices --measure >"$dir/out" 2>"$dir/err" || fail "devices --measure"
grep -q '^cuda:0 rates measured 2' "$dir/out" || fail "no rates of the device"
grep -q '^  from a kernel to the next ' "$dir/out" || fail "no gap"
[ "$(find "$dir/cache" -name 'rates-*' | wc -l)" = 2 ] || fail "rates of the CPU and of the device are not cached"
"$trireme" inspect "$source/tests/data/networks/resnet50" --device cuda >"$dir/out" 2>"$dir/err" || fail "inspect"
grep -q '^on cuda .* nodes$' "$dir/out" || fail "inspect does not say what runs on the device"
grep -q '^on the CPU .* nodes' "$dir/out" || fail "inspect does not say what runs beside it"
"$trireme" inspect "$source/configs/demo/tiny-sotu" --device cuda >"$dir/out" 2>"$dir/err" || fail "inspect a language model"
grep -q '^on the CPU *0 nodes$' "$dir/out" || fail "inspect does not say where a language model runs"
echo "ok"
