#!/usr/bin/env bash
# Installs what is missing, builds, and runs the tests. Safe to repeat; asks nothing.
set -euo pipefail

usage() {
    cat <<'END'
usage: tests/run.sh [MODE] [--no-install] [--jobs N]
  (no mode)    preset dev: all tests and checks but the slow ones       under 25 minutes on 2 cores
  --quick      preset dev: unit tests and the fast checks               under 4 minutes
  --slow       preset dev: the tests labelled slow (whole networks, fuzzing, clang-tidy on all files)
  --asan, --ubsan   unit, mpi, conformance and networks tests in a build with that sanitizer (asan: leaks too)
  --tsan            the tests labelled threads in a build with ThreadSanitizer
  --lint       only the checks of tests/lint
The build lies in build/PRESET, logs in build/logs. Exit code 0 if everything passed.
END
}

mode=full install=1 jobs=$(nproc)
while [ $# -gt 0 ]; do
    case $1 in
    --quick | --slow | --asan | --ubsan | --tsan | --lint) mode=${1#--} ;;
    --no-install) install=0 ;;
    --jobs)
        [ $# -ge 2 ] || { usage >&2; exit 2; }
        jobs=$2
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        echo "run.sh: unknown option '$1'" >&2
        usage >&2
        exit 2
        ;;
    esac
    shift
done

cd "$(dirname "$0")/.."
exec </dev/null
preset=dev
select=()
case $mode in
full) select=(-LE slow) ;;
quick) select=(-L 'unit|lint' -LE 'slow|long') ;;
slow) select=(-L slow) ;;
lint) select=(-L lint -LE slow) ;;
asan | ubsan) preset=$mode select=(-L 'unit|mpi|conformance|networks' -LE slow) ;;
tsan) preset=tsan select=(-L threads -LE slow) ;;
esac

# Root may run mpirun, and more ranks than cores are fine: a test box is often a container.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
if [ "$preset" != dev ]; then
    export TRM_DEADLINE_SCALE=${TRM_DEADLINE_SCALE:-10}
    export CK_TIMEOUT_MULTIPLIER=${CK_TIMEOUT_MULTIPLIER:-10}
    export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
fi

mkdir -p build/logs
start=$SECONDS
step() { # step NAME COMMAND...: runs it with its output in a log, shows the log's end if it fails
    local name=$1 log=build/logs/$mode-$1.log from=$SECONDS
    shift
    printf '== %-10s ' "$name"
    if "$@" >"$log" 2>&1; then
        printf '%4d s\n' $((SECONDS - from))
    else
        printf 'FAILED (whole log: %s)\n' "$log"
        grep -nE 'error:|CMake Error|undefined reference|FAILED:' "$log" | head -n 20 || true
        tail -n 25 "$log"
        exit 1
    fi
}

echo "Trireme: tests, mode $mode, preset $preset, $jobs jobs"
[ $install -eq 0 ] || launch/install-packages.sh test
module=ON
[ "$mode" != full ] || module=OFF # the release build makes it, once: nvcc takes its time
step configure cmake --preset "$preset" -DTRM_CUDA_MODULE=$module
step build cmake --build --preset "$preset" -j "$jobs"
if [ "$mode" = full ]; then # what users build must build too
    # for one kind of GPU: the others only differ in what nvcc makes of the same sources
    release() {
        cmake --preset release -DBUILD_TESTING=OFF -DCMAKE_CUDA_ARCHITECTURES=90a-real && cmake --build --preset release -j "$jobs"
    }
    step release release
    if [ -e build/release/libtrireme_cuda.so ]; then
        step module tests/cuda/module.sh build/release/trireme build/release/libtrireme_cuda.so \
            build/dev/tests/libtrireme_cuda_emulated.so "$PWD"
    fi
fi
echo "== ctest ${select[*]}, $((SECONDS - start)) s after the start"
# ctest's own summary are the last lines, its exit code is ours
exec ctest --test-dir "build/$preset" --output-on-failure --no-tests=error -j "$jobs" "${select[@]}"
