#!/usr/bin/env bash
# Everything that needs a real GPU, in stages that each fit in 8 minutes. README.md beside this file says how to bring the
# repository to a bare machine.
# usage: tests/gpu/run.sh [--report FILE] [--build DIR] [STAGE...]     default: all stages
# TRM_GPU_DRY=small tries the stages language, language-bench and serving where there is no card: over the emulation that
# TRM_CUDA_MODULE, TRM_CUDA_DRIVER and TRM_NCCL_LIBRARY name, with small models and few tokens.
# Each stage adds its part to the report (default build/gpu-report.md). Exit code 0 if none failed; a stage that cannot run
# here says so and does not count.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
root=$PWD
all="build devices kernels conformance networks language layouts graphs nccl sanitizer faults bench language-bench serving"
report=build/gpu-report.md build=build/gpu stages=()
while [ $# -gt 0 ]; do
    case $1 in
    --report) report=$2 && shift ;;
    --build) build=$2 && shift ;;
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0" && echo "stages: $all" && exit 0 ;;
    -*) echo "run.sh: unknown option '$1'" >&2 && exit 2 ;;
    *) [[ " $all " == *" $1 "* ]] || { echo "run.sh: no stage '$1': $all" >&2; exit 2; }
       stages+=("$1") ;;
    esac
    shift
done
[ ${#stages[@]} -gt 0 ] || read -ra stages <<<"$all"
mkdir -p "$(dirname "$report")" build/logs
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none TRM_DEADLINE_SCALE=${TRM_DEADLINE_SCALE:-3}
dry=${TRM_GPU_DRY:-}
case $dry in
"") unset TRM_CUDA_MODULE TRM_CUDA_DRIVER TRM_NCCL_LIBRARY ;; # the real ones
small) export TRM_TEST_BRIEF=1 TRM_TEST_STEPS=2 TRM_TINY=1 ;;
*) echo "run.sh: TRM_GPU_DRY=$dry: want small" >&2 && exit 2 ;;
esac
trireme=$build/trireme
data=${TRM_ONNX_DATA:-/usr/include/onnx/backend/test/data}
models=${TRM_GPU_MODELS:-build/gpu-models}
failed=0

note() { printf '%s\n' "$*" | tee -a "$report"; }
# limited SECONDS COMMAND...: as timeout(1), for functions of this file too: all that it has started is ended, exit code 124
limited() {
    local limit=$1 pid rc=0
    shift
    set -m # a process group of its own
    ("$@") </dev/null &
    pid=$!
    set +m
    for ((; limit > 0; limit--)); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 1
    done
    if [ "$limit" -gt 0 ]; then
        wait "$pid" || rc=$?
    else
        kill -KILL -- "-$pid"
        wait "$pid" 2>/dev/null
        rc=124
    fi
    return $rc
}
# run NAME COMMAND...: its output into a log, its end into the report
run() {
    local name=$1 log from=$SECONDS rc=0
    shift
    log=build/logs/gpu-$(echo "$name" | tr ' /' '--').log
    limited "${LIMIT:-450}" "$@" >"$log" 2>&1 || rc=$?
    case $rc in
    0) note "- **$name**: ok, $((SECONDS - from)) s" ;;
    77) note "- **$name**: cannot run here: $(tail -n 1 "$log")" ;;
    *) note "- **$name**: FAILED (exit code $rc), $((SECONDS - from)) s"
       failed=$((failed + 1)) ;;
    esac
    { echo '```'; tail -n "${LINES_SHOWN:-12}" "$log" | cut -c1-400; echo '```'; } | tee -a "$report"
    return 0
}

stage_build() {
    local arch
    arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)
    case $arch in 90) arch=90a-real ;; "") arch=90a-real ;; *) arch=$arch-real ;; esac
    build_all() {
        cmake -G Ninja -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CUDA_ARCHITECTURES="$arch" && cmake --build "$build"
    }
    run build build_all
    [ -e "$build/libtrireme_cuda.so" ] || { note "- no CUDA module was built"; failed=$((failed + 1)); }
}

stage_devices() {
    LINES_SHOWN=40 run "what is here" "$trireme" devices
    run "driver" nvidia-smi
    no_cuda_linked() { ldd "$trireme"; ! ldd "$trireme" | grep -iE 'cuda|cublas|cudnn|nccl'; }
    run "the program links no CUDA library" no_cuda_linked
}

stage_kernels() {
    kernels() {
        local bad=0 n=0
        for t in "$build"/tests/cuda_test_*; do
            [ -x "$t" ] || continue
            case $t in *_emulation* | *_dnn_plans*) continue ;; esac # of the emulation alone
            n=$((n + 1))
            timeout 120 "$t" || { echo "FAILED: $t"; bad=$((bad + 1)); }
        done
        echo "$n programs, $bad failed"
        [ $n -gt 0 ] && [ $bad -eq 0 ]
    }
    LINES_SHOWN=30 run "kernels against the CPU backend" kernels
}

stage_conformance() {
    [ -d "$data/node" ] || { note "- conformance: no ONNX test data ($data; TRM_ONNX_DATA names another folder)"; return; }
    LINES_SHOWN=40 run "ONNX conformance, fp32, captured steps too" "$build/tests/conformance" --data "$data/node" \
        --data "$data/simple" --data "$data/pytorch-converted" --data "$data/pytorch-operator" --device cuda --rounds 4 \
        --jobs 4 --expect tests/conformance/unsupported.txt --min 996
}

make_models() {
    [ -e "$models/bert/model.onnx" ] && [ -e "$models/resnet50/model.onnx" ] && return 0
    python3 tests/gpu/models.py "$models" >build/logs/gpu-models.log 2>&1 || {
        note "- models: $(tail -n 1 build/logs/gpu-models.log)"
        return 1
    }
}

stage_networks() {
    local half=()
    for n in tests/data/networks/*/; do [ "$(basename "$n")" = yolo ] || half+=("$n"); done
    run "twins of ten networks, fp32 1e-4" "$build/tests/networks" --device cuda tests/data/networks/*
    run "in bf16, 3e-2" "$build/tests/networks" --device cuda --dtype bf16 --tolerance 0.03 "${half[@]}"
    run "in fp16, 5e-3" "$build/tests/networks" --device cuda --dtype f16 --tolerance 0.005 "${half[@]}"
    if make_models; then
        run "ResNet-50 and BERT-base against PyTorch on the CPU, fp32 1e-4" "$build/tests/networks" --device cuda \
            "$models/resnet50" "$models/bert"
        run "in bf16, 5e-2" "$build/tests/networks" --device cuda --dtype bf16 --tolerance 0.05 "$models/resnet50" "$models/bert"
        run "in fp16, 2e-2" "$build/tests/networks" --device cuda --dtype f16 --tolerance 0.02 "$models/resnet50" "$models/bert"
    fi
}

stage_language() { # language models: logits, tokens, layouts that share one card
    local gemma=${TRM_GPU_GGUF:-} more=(MORE=1 REQUESTS=24 LEAST=0.98) few=()
    [ -z "$dry" ] || more=(REQUESTS=8) few=(--prompts 1 --bytes 40)
    logits() { TRM_TEST_DEVICE=cuda TRM_TEST_DTYPE=$1 "$build/tests/worker_test_lm_logits"; }
    LINES_SHOWN=12 run "logits of small checkpoints of every architecture against PyTorch, fp32 2e-4" logits fp32
    LINES_SHOWN=12 run "as the device rounds by default (bf16, fp16, fp8, int8, int4), each with its bound" logits half
    LINES_SHOWN=12 run "with a KV cache of 8 bits" logits cache8
    for test in layouts formats preempt memory; do
        run "language models: $test" env "${more[@]}" tests/cuda/language.sh "$trireme" "$root" $test
    done
    run "the same without captured graphs" env TRM_GRAPHS=off "${more[@]: -1}" tests/cuda/language.sh "$trireme" "$root" layouts
    positions() {
        python3 tests/gpu/language_positions.py "$trireme" "$1" README.md docs/language-models.md docs/serving.md ${few[@]+"${few[@]}"}
    }
    run "tiny-sotu, likeliest token at every position of a text: CPU, fp32, bf16" positions configs/demo/tiny-sotu
    if [ -n "$gemma" ]; then run "$(basename "$gemma"), likewise" positions "$gemma"; fi
}

stage_layouts() { # ranks that share one GPU: collectives staged through host memory
    for layout in tensor=2 pipeline=2 tensor=2,pipeline=2; do
        LIMIT=150 run "twins over $layout on one GPU, 1e-5 of one rank" tests/cuda/layouts.sh "$build/tests/networks" "$root" $layout
    done
    score() {
        local d
        d=$(mktemp -d)
        mpirun -np 2 "$trireme" score configs/demo/digits --input configs/demo/digits/images --output "$d/o.csv" --device cuda \
            --parallel data=2 --labels configs/demo/digits/labels.csv
    }
    run "score over data=2 on one GPU" score
}

stage_graphs() {
    TRM_GRAPHS=off run "twins without captured graphs" "$build/tests/networks" --device cuda tests/data/networks/*
    if make_models; then
        for g in on off; do
            TRM_GRAPHS=$g run "ResNet-50 batch 1, graphs $g" "$trireme" bench "$models/resnet50" --device cuda --dtype fp16 \
                --batch 1 --rounds 200 --resident
        done
    fi
}

stage_nccl() { # two processes that pose as two hosts: NVIDIA supports none of this; it tests our calls, never speed
    cat >build/logs/nccl-rank.sh <<'R'
#!/bin/sh
NCCL_HOSTID=rank$OMPI_COMM_WORLD_RANK NCCL_NET=Socket NCCL_IB_DISABLE=1 NCCL_SOCKET_IFNAME=lo TRM_GROUP_SHARED=1 exec "$@"
R
    chmod +x build/logs/nccl-rank.sh
    LIMIT=240 run "NCCL between two processes on one GPU (unsupported by NCCL)" mpirun -np 2 build/logs/nccl-rank.sh \
        "$build/tests/networks" --threads 1 --device cuda --against one --parallel tensor=2 tests/data/networks/bert \
        tests/data/networks/resnet18
    if [ "$(nvidia-smi -L 2>/dev/null | wc -l)" -ge 2 ]; then
        run "NCCL over two GPUs" mpirun -np 2 "$build/tests/networks" --threads 1 --device cuda --against one \
            --parallel tensor=2 tests/data/networks/*
    else
        note "- NCCL over several GPUs: there is one GPU here"
    fi
}

stage_sanitizer() {
    command -v compute-sanitizer >/dev/null || { note "- compute-sanitizer is not installed"; return; }
    sanitized() {
        local bad=0
        for t in "$build"/tests/cuda_test_*; do
            case $t in *_emulation* | *_dnn_plans*) continue ;; esac
            timeout 100 compute-sanitizer --tool memcheck --error-exitcode 9 "$t" >build/logs/sanitizer.one 2>&1 || {
                echo "FAILED: $t"
                tail -n 20 build/logs/sanitizer.one
                bad=$((bad + 1))
            }
        done
        echo "$bad failed"
        [ $bad -eq 0 ]
    }
    LINES_SHOWN=40 run "compute-sanitizer memcheck on the kernel tests" sanitized
}

stage_faults() {
    hog() { # most of the card's memory is somebody else's: loading says what is big and what would fit
        python3 - "$trireme" "$models/resnet50" <<'P'
import subprocess, sys, torch
free, _ = torch.cuda.mem_get_info()
x = torch.empty(free - (300 << 20), dtype=torch.uint8, device="cuda")
r = subprocess.run([sys.argv[1], "bench", sys.argv[2], "--device", "cuda", "--batch", "64", "--rounds", "2"],
                   capture_output=True, text=True, timeout=120)
print(r.returncode, r.stderr.strip())
sys.exit(0 if r.returncode in (1, 2) and "memory" in r.stderr else 1)
P
    }
    make_models && run "out of device memory" hog
    no_device() {
        local rc=0
        CUDA_VISIBLE_DEVICES='' "$trireme" run configs/demo/digits --image configs/demo/digits/images/000.png --device cuda || rc=$?
        [ $rc = 2 ]
    }
    run "no visible device: exit code 2" no_device
}

stage_bench() {
    make_models || return
    LIMIT=${BENCH_LIMIT:-480} LINES_SHOWN=40 run "beside PyTorch and onnxruntime" python3 tests/gpu/bench.py --trireme "$trireme" \
        --models "$models" --rounds "${BENCH_ROUNDS:-5}" --json build/logs/gpu-bench.json ${BENCH_CASES:+--cases "$BENCH_CASES"}
}

stage_language-bench() {
    make_language_models || return
    LIMIT=${BENCH_LIMIT:-560} LINES_SHOWN=40 run "language models beside transformers and llama.cpp" python3 \
        tests/gpu/language_bench.py --trireme "$trireme" --models "$models" --rounds "${BENCH_ROUNDS:-$([ -n "$dry" ] && echo 1 || echo 5)}" \
        --json build/logs/gpu-language.json ${BENCH_CASES:+--cases "$BENCH_CASES"}
    run "what the plan says of the same" "$trireme" plan "$models/llama-8b" --ranks 1 --device cuda
}

stage_serving() { # 256 streams, prompt 512, 256 new tokens, beside the engine's own rate
    make_language_models || return
    LIMIT=560 LINES_SHOWN=40 run "256 streams through the gateway, beside the engine alone" python3 tests/gpu/language_serving.py \
        --trireme "$trireme" --model "$models/llama-8b" --json build/logs/gpu-serving.json
}

make_language_models() {
    [ -e "$models/llama-8b-q4_k.gguf" ] && [ -e "$models/llama-8b/config.json" ] && return 0
    python3 tests/gpu/language_models.py "$models" >build/logs/gpu-language-models.log 2>&1 || {
        note "- language models: $(tail -n 1 build/logs/gpu-language-models.log)"
        return 1
    }
}

[ -s "$report" ] || {
    note "# Trireme on a GPU"
    note ""
    note "$(date -u +%Y-%m-%d), $(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | head -n 1 || echo 'no GPU'), $(nvcc --version 2>/dev/null | tail -n 2 | head -n 1), commit $(git rev-parse --short HEAD 2>/dev/null || cat .commit 2>/dev/null || echo unknown)"
}
for s in "${stages[@]}"; do
    note ""
    note "## $s"
    note ""
    "stage_$s"
done
note ""
note "$failed failed."
[ $failed -eq 0 ]
