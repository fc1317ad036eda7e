#!/usr/bin/env bash
# Installs the Debian packages that Trireme needs and that are not there yet. The one list of them.
# usage: launch/install-packages.sh [build] [test] [oracles]      (default: build)
# As root, or through sudo. Does nothing, and needs neither, where nothing is missing.
set -euo pipefail

build=(
    build-essential cmake ninja-build pkg-config ccache git ca-certificates
    libdnnl-dev libopenmpi-dev openmpi-bin openssh-client
    libzmq3-dev libmsgpack-dev libyaml-dev libjansson-dev zlib1g-dev
    libpng-dev libjpeg62-turbo-dev libpcre2-dev libutf8proc-dev
    libmicrohttpd-dev libgnutls28-dev libcurl4-gnutls-dev libncurses-dev
)
# what the tests and the checks of tests/lint need on top
tests=(check python3 curl openssl libonnx-testdata clang libomp-dev clang-format clang-tidy shellcheck)
# development tools that make fixtures (tests/oracles): never needed to build or test
oracles=(python3 python3-numpy python3-torch python3-torchvision python3-venv)

wanted=()
for group in "${@:-build}"; do
    case $group in
    build) wanted+=("${build[@]}") ;;
    test) wanted+=("${build[@]}" "${tests[@]}") ;;
    oracles) wanted+=("${oracles[@]}") ;;
    *)
        echo "install-packages: unknown group '$group': build, test or oracles" >&2
        exit 2
        ;;
    esac
done

if ! command -v apt-get >/dev/null; then
    echo "install-packages: no apt-get here; Trireme needs these Debian packages, or their like:" >&2
    echo "  ${wanted[*]}" >&2
    exit 0 # CMake says what is really missing
fi

declare -A installed=()
while read -r name status; do
    [ "$status" = installed ] && installed[$name]=1
done < <(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${wanted[@]}" 2>/dev/null || true)
missing=()
for name in "${wanted[@]}"; do
    [ -n "${installed[$name]:-}" ] || missing+=("$name")
done
if [ ${#missing[@]} -eq 0 ]; then
    echo "packages: all ${#wanted[@]} are installed"
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "install-packages: not root and no sudo; as root: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
    [ -t 0 ] || as_root+=(-n) # nobody is there to type a password
fi
apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
        -o DPkg::Lock::Timeout=900 -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 "$@" </dev/null
}
echo "packages: installing ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# The package lists may be absent (a fresh root) or stale: then refresh them and try once more.
if ! apt install --no-install-recommends "${missing[@]}" >"$log" 2>&1; then
    echo "packages: refreshing the package lists"
    if ! { apt update && apt install --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        echo "install-packages: apt-get could not install: ${missing[*]}" >&2
        exit 1
    fi
fi
echo "packages: done"
