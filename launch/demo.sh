#!/usr/bin/env bash
# The demo: installs what is missing, builds, and runs two models on four ranks, which share the work in four ways: a copy
# of the model each, each layer divided, the layers in a pipeline, and a mixture. 360 images of handwritten digits are
# scored, and a language model continues a text.
# usage: launch/demo.sh [--no-install] [RANKS]       (default: 4 ranks)
# Safe to repeat; works as root or with sudo; asks nothing.
set -euo pipefail

ranks=4 install=1
for arg in "$@"; do
    case $arg in
    --no-install) install=0 ;;
    [1-9] | [1-9][0-9]) ranks=$arg ;;
    *)
        sed -n '2,6s/^# \{0,1\}//p' "$0"
        exit 2
        ;;
    esac
done
cd "$(dirname "$0")/.."
exec </dev/null

step() { # step NAME COMMAND...: quiet unless it fails
    local name=$1 log=build/logs/demo-$1.log from=$SECONDS
    shift
    printf '== %-10s' "$name"
    if "$@" >"$log" 2>&1; then
        printf '%4d s\n' $((SECONDS - from))
    else
        printf 'FAILED (whole log: %s)\n' "$log"
        tail -n 25 "$log"
        exit 1
    fi
}

mkdir -p build/logs
echo "Trireme: the demo"
[ $install -eq 0 ] || launch/install-packages.sh build
step configure cmake --preset release -DBUILD_TESTING=OFF
step build cmake --build --preset release -j "$(nproc)"
trireme=build/release/trireme
model=configs/demo/digits
out=build/demo
mkdir -p "$out"

echo
echo "== the model: $trireme inspect $model"
"$trireme" inspect "$model"

echo
echo "== one image: $trireme run $model --image $model/images/000.png"
"$trireme" run "$model" --image "$model/images/000.png"

# Root may run mpirun; four ranks on a machine of two cores share them, unbound.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
run=(mpirun --oversubscribe --bind-to none -np "$ranks" "$trireme" score "$model" --input "$model/images" --overwrite)
layouts=("data=$ranks" "tensor=$ranks" "pipeline=$ranks")
[ $((ranks % 2)) -ne 0 ] || layouts+=("data=2,tensor=$((ranks / 2))")
echo
echo "== the layouts of $ranks ranks: $trireme plan $model --ranks $ranks"
"$trireme" plan "$model" --ranks "$ranks" --threads 1

for layout in "${layouts[@]}"; do
    csv=$out/digits-$layout.csv
    command=("${run[@]}" --output "$csv" --parallel "$layout")
    echo
    echo "== all images with $layout: ${command[*]}"
    start=$(date +%s%N)
    "${command[@]}"
    elapsed_ms=$((($(date +%s%N) - start) / 1000000))
    # The result's columns: file,label,score,... in input order; the truth's: file,label.
    awk -F, -v ms="$elapsed_ms" -v ranks="$ranks" '
        function base(path) { sub(/.*\//, "", path); return path }
        FNR == 1 { next }
        NR == FNR { truth[base($1)] = $2; next }
        { count++; if (base($1) in truth && truth[base($1)] == $2) right++ }
        END {
            printf "accuracy    %d of %d (%.2f %%)\n", right, count, count ? 100 * right / count : 0
            printf "throughput  %.0f images/s on %d ranks, start and end included (%.2f s)\n", count * 1000 / ms, ranks, ms / 1000
            exit !(count == 360 && right >= 359)
        }' "$model/labels.csv" "$csv" || {
        echo "demo: expected 360 results and at least 359 right" >&2
        exit 1
    }
done

echo
# Labels must be the same; scores may differ in the last digits, because sums are taken in another order.
for layout in "${layouts[@]:1}"; do
    paste -d, "$out/digits-${layouts[0]}.csv" "$out/digits-$layout.csv" | awk -F, -v a="${layouts[0]}" -v b="$layout" '
        NR == 1 { half = NF / 2; next }
        { if ($1 != $(1 + half) || $2 != $(2 + half)) bad++
          d = $3 - $(3 + half); if (d < 0) d = -d; if (d > worst) worst = d }
        END { printf "agreement   %s and %s: %d records, %d labels differ, scores by at most %.1g\n", a, b, NR - 1, bad, worst
              exit bad > 0 || worst > 1e-4 }' || {
        echo "demo: the layouts should agree" >&2
        exit 1
    }
done
echo "results     $out/digits-*.csv"

language=configs/demo/tiny-sotu
prompt="Fellow citizens of the Senate and House of Representatives:"
generate=("$trireme" run "$language" --prompt "$prompt" --max-tokens 60 --temperature 0.7 --top-p 0.95 --seed 2 --threads 1)
[ $((ranks % 2)) -ne 0 ] || layouts[3]=tensor=2,pipeline=$((ranks / 2))
echo
echo "== a language model: $trireme run $language --prompt \"$prompt\" ..."
"${generate[@]}" >"$out/one.txt" 2>"$out/one.log" || {
    cat "$out/one.log"
    exit 1
}
printf '%s' "$prompt"
cat "$out/one.txt"
for layout in "${layouts[@]}"; do
    text=$out/$layout.txt log=$out/$layout.log
    mpirun --oversubscribe --bind-to none -np "$ranks" "${generate[@]}" --parallel "$layout" >"$text" 2>"$log" || {
        cat "$log"
        exit 1
    }
    cmp -s "$out/one.txt" "$text" || {
        echo "demo: the text should be the same with $layout; it is:" >&2
        cat "$text" >&2
        exit 1
    }
    # standard error's last line: 12 prompt tokens in 6.9 ms (1739.1 tokens/s), 60 new in 24.4 ms (2418.0 tokens/s)
    printf '%-21s the same text, %s tokens/s\n' "$layout" "$(sed -n 's/.* new in .*(\([0-9.]*\) tokens\/s)$/\1/p' "$log" | tail -n 1)"
done
