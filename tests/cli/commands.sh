#!/bin/sh
# usage: commands.sh TRIREME SOURCE_DIR. What the commands print and refuse.
set -u
trireme=$1 data=$2/tests/data/networks demo=$2/configs/demo/digits
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export TRM_CACHE="$dir" # what plan measures of this machine
bad=0

# check NAME EXIT_CODE PATTERN COMMAND...: the exit code, and a line of the output that matches
check() {
    name=$1 want=$2 pattern=$3
    shift 3
    got=0
    "$@" >"$dir/out" 2>&1 </dev/null || got=$?
    if [ "$got" != "$want" ] || ! grep -qE -e "$pattern" "$dir/out"; then
        echo "FAILED: $name: exit code $got, want $want, and a line like: $pattern"
        head -n 20 "$dir/out"
        bad=1
    fi
}

check help 0 '^usage: trireme COMMAND' "$trireme" --help
check version 0 '^trireme [0-9]' "$trireme" --version
for command in inspect plan run score bench devices; do
    check "$command --help" 0 "^usage: trireme $command" "$trireme" "$command" --help
    check "$command -h" 0 "^usage: trireme $command" "$trireme" "$command" -h
done
check "devices" 0 '^rates built in' env TRM_CACHE="$dir/none" "$trireme" devices
check "devices, argument" 2 "unexpected argument 'x'" "$trireme" devices x
check "rank 1 is silent" 0 '^nothing$' sh -c "OMPI_COMM_WORLD_RANK=1 '$trireme' --version | grep . || echo nothing"
check "unknown command" 2 "unknown command 'foo'" "$trireme" foo

# top_k of the YAML is not bounded by what --top once was
cp "$data/unet/model.onnx" "$dir/unet.onnx"
echo 'top_k: 500' >"$dir/unet.yaml"
check "top_k 500" 0 '^  ' "$trireme" run "$dir/unet.onnx" --image "$demo/images/000.png"
[ "$(grep -c '^  ' "$dir/out")" = 500 ] || { echo "FAILED: $(grep -c '^  ' "$dir/out") labels, want 500"; bad=1; }

# bench says what it ran
check "bench of a file" 0 'batch 2' "$trireme" bench "$data/resnet18/model.onnx" \
    --input "$data/resnet18/input_0.npy" --rounds 1
check "bench, batch and file" 2 "^trireme bench: --batch 3: dim 0 of input '.*' is 2 in the file given" \
    "$trireme" bench "$data/resnet18/model.onnx" --input "$data/resnet18/input_0.npy" --batch 3
check "bench, unknown dim" 2 "no input has a free dim 'q'" "$trireme" bench "$demo" --dim q=3
check "bind is score's" 2 "unknown option '--bind'" "$trireme" bench "$demo" --bind keep
check "bench as JSON" 0 '^\{"model": ".*", "device": ".*"batch": 4, ' "$trireme" bench "$demo" --batch 4 --rounds 1 --json

# plan: the table, the choice, the ledger; nothing else on standard output, and neither ranks nor devices
plan() {
    "$trireme" plan "$data/resnet18/model.onnx" --device cpu:8 "$@"
}
check "plan" 0 '^\* data=2,tensor=2,pipeline=1 .*B$' plan --ranks 4 --parallel data=2,tensor=2
check "plan, choice" 0 '^chosen   data=.*: .*(throughput|the best)' plan --ranks 4
check "plan, ledger" 0 '^  1, 1  .* MB$' plan --ranks 4 --parallel tensor=2,pipeline=2
check "plan, cuda" 0 '^chosen ' plan --ranks 8 --device cuda:80GiB
check "plan, cuda, card" 0 '^rates    data sheet \(cuda:h200: H200 141 GB\)$' plan --ranks 4 --device cuda:h200 --dtype fp16
check "plan, cuda, ledger" 0 '^  0, 0 .* MB .* MB$' plan --ranks 8 --device cuda:80GiB
check "plan, cuda, as JSON" 0 '"on_cpu": .*"ledger": \[.*"workspace": [0-9]+, "host": [0-9]+' plan --ranks 8 --device cuda:80GiB --json
check "plan, no such card" 2 "^trireme plan: device 'cuda:h20': want cpu:CORES .*h200, l40s, b200" plan --device cuda:h20
check "inspect, cuda" 0 '^on the CPU +[0-9]+ nodes' "$trireme" inspect "$data/resnet18/model.onnx" --device cuda
check "plan, hosts" 0 '^chosen ' plan --ranks 4 --hosts 2 --objective latency
check "plan, verbose" 0 "Conv.*out channels" plan --ranks 2 --parallel tensor=2 --verbose
check "plan as JSON" 0 '^\{"model": ".*"parallel": \{"data": 1, "tensor": 4, "pipeline": 1\}.*\]\}$' \
    plan --ranks 4 --parallel tensor=4 --json
check "plan, memory" 2 "^trireme plan: the model does not fit: .* the biggest weights are '.*would fit: tensor=" \
    plan --ranks 1 --memory 600KiB
check "plan, ranks" 2 '^trireme plan: parallel data=2,tensor=2,pipeline=1 takes 4 ranks, there are 3$' \
    plan --ranks 3 --parallel data=2,tensor=2
check "plan here" 0 '^chosen ' "$trireme" plan "$demo" --ranks 2

[ $bad -eq 0 ] && echo "the command line is fine"
exit $bad
