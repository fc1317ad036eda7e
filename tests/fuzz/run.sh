#!/usr/bin/env bash
# Builds the libFuzzer targets with clang and runs each for some seconds: clean means no crash, no sanitizer report.
# usage: tests/fuzz/run.sh SOURCE_DIR BUILD_DIR SECONDS [TARGET]
# Seeds: tests/fuzz/seeds/<target>/, the unit tests' images and arrays, and for fuzz_onnx ONNX's own node models where
# they are installed.
# Exit code 77 (skipped) without clang's fuzzer.
set -euo pipefail

source=$1
build=$2
seconds=$3
only=${4:-}

if ! command -v clang >/dev/null || ! echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n);
int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { (void)d; (void)n; return 0; }' |
    clang -x c -fsanitize=fuzzer,address,undefined -o /dev/null - 2>/dev/null; then
    echo "fuzz: clang with libFuzzer is not installed"
    exit 77
fi
cmake -S "$source" -B "$build" -G Ninja -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTRM_FUZZ=ON \
    -DTRM_CHECKED=ON >/dev/null
cmake --build "$build" --target fuzz
for file in "$source"/tests/fuzz/fuzz_*.c; do
    target=$(basename "$file" .c)
    [ -z "$only" ] || [ "$only" = "$target" ] || continue
    corpus=$build/corpus/$target
    mkdir -p "$corpus"
    seeds=("$corpus")
    [ -d "$source/tests/fuzz/seeds/$target" ] && seeds+=("$source/tests/fuzz/seeds/$target")
    if [ "$target" = fuzz_onnx ] && [ -d /usr/include/onnx/backend/test/data/node ]; then
        mkdir -p "$build/seeds/$target"
        for model in /usr/include/onnx/backend/test/data/node/*/model.onnx; do
            name=$(basename "$(dirname "$model")")
            cp "$model" "$build/seeds/$target/$name"
        done
        seeds+=("$build/seeds/$target")
    fi
    [ "$target" = fuzz_image ] && seeds+=("$source/tests/data/images")
    [ "$target" = fuzz_template ] && seeds+=("$source/tests/data/templates")
    [ "$target" = fuzz_npy ] && seeds+=("$source/tests/data/npy")
    [ "$target" = fuzz_tokenizer ] && seeds+=("$source/tests/data/tokenizers")
    [ "$target" = fuzz_gguf ] && seeds+=("$source/tests/data/language/formats")
    [ "$target" = fuzz_safetensors ] && seeds+=("$source/tests/data/language/formats")
    echo "fuzz: $target for $seconds s"
    "$build/tests/$target" -max_total_time="$seconds" -rss_limit_mb=4096 -timeout=25 -print_final_stats=1 \
        -artifact_prefix="$build/" "${seeds[@]}" 2>&1 | tail -n 25
done
