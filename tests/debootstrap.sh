#!/usr/bin/env bash
# Proves README's two commands on a bare Debian 12: makes a minimal root, puts a clean clone of HEAD into it, and runs
# ./launch/demo.sh and ./tests/run.sh --quick there. docs/bare-debian.md says more.
# usage (as root): tests/debootstrap.sh [--root DIR] [--keep] [--only-root] [-- COMMAND...]
#   --root DIR    where the root lies (default: a new folder under TMPDIR); used again if it is complete
#   --keep        leave it there at the end
#   --only-root   make the root, run nothing
#   COMMAND       instead of the two: run in the clone, in the bare root
# MIRROR gives the Debian mirror; default: what this machine's apt uses.
set -euo pipefail

root='' keep=0 only=0
while [ $# -gt 0 ]; do
    case $1 in
    --root)
        root=${2:?--root wants a folder}
        keep=1
        shift
        ;;
    --keep) keep=1 ;;
    --only-root) only=1 ;;
    --)
        shift
        break
        ;;
    *)
        sed -n '2,9s/^# \{0,1\}//p' "$0"
        exit 2
        ;;
    esac
    shift
done
[ "$(id -u)" -eq 0 ] || { echo "debootstrap.sh: must be root (chroot, mount)" >&2; exit 2; }
command -v debootstrap >/dev/null || { echo "debootstrap.sh: apt-get install debootstrap" >&2; exit 2; }
source=$(cd "$(dirname "$0")/.." && pwd)
[ -n "$root" ] || root=$(mktemp -d)/debian12

# the mirror that this machine uses, in either form of sources file
find_mirror() {
    local uri
    uri=$(cat /etc/apt/sources.list.d/*.sources 2>/dev/null |
        awk '$1 == "URIs:" && !/security/ { print $2; exit }')
    [ -n "$uri" ] || uri=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
        sed -n 's/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) bookworm .*/\2/p' | head -n 1)
    echo "${uri:-http://deb.debian.org/debian}"
}

mounts=(proc sys dev dev/shm dev/pts)
unmount_all() {
    local i
    for ((i = ${#mounts[@]} - 1; i >= 0; i--)); do
        mountpoint -q "$root/${mounts[i]}" && umount -l "$root/${mounts[i]}" || true
    done
}
finish() {
    unmount_all
    # never remove a tree that still has something mounted in it
    if [ $keep -eq 0 ] && ! grep -qF " $root/" /proc/mounts; then
        rm -rf --one-file-system "$root"
    fi
}
trap finish EXIT

if [ ! -e "$root/etc/trireme-bare-root" ]; then
    echo "== debootstrap: a minimal Debian 12 in $root"
    mkdir -p "$root"
    if ! debootstrap --variant=minbase bookworm "$root" "${MIRROR:-$(find_mirror)}" >"$root.log" 2>&1; then
        tail -n 20 "$root.log"
        exit 1
    fi
    # what this machine's apt needs to reach its mirror: proxy, authentication
    for f in /etc/apt/apt.conf /etc/apt/apt.conf.d/*proxy* /etc/apt/apt.conf.d/99*; do
        [ ! -f "$f" ] || cp "$f" "$root/etc/apt/apt.conf.d/"
    done
    [ ! -d /etc/apt/auth.conf.d ] || cp -r /etc/apt/auth.conf.d "$root/etc/apt/"
    touch "$root/etc/trireme-bare-root"
fi
cp -L /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null || true
cp /etc/hosts "$root/etc/hosts" 2>/dev/null || true
[ $only -eq 0 ] || exit 0

mkdir -p "$root/dev"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys" || true
mount -t tmpfs -o mode=755,size=1m tmpfs "$root/dev"
for node in null zero full random urandom tty; do
    touch "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
    mounts+=("dev/$node")
done
ln -s /proc/self/fd "$root/dev/fd"
mkdir -p "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t devpts devpts "$root/dev/pts" || true

rm -rf "$root/srv/trireme"
git clone -q --no-hardlinks "$source" "$root/srv/trireme"
echo "== commit $(git -C "$root/srv/trireme" log -1 --format='%h %s')"

inside() { # inside COMMAND...: in the clone, with nothing of this machine's environment
    echo "== $*"
    local from=$SECONDS status=0
    chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 TERM=dumb \
        ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
        /bin/bash -c 'cd /srv/trireme && exec "$@"' bash "$@" </dev/null || status=$?
    echo "== exit code $status after $((SECONDS - from)) s: $*"
    return $status
}
if [ $# -gt 0 ]; then
    inside "$@"
else
    inside ./launch/demo.sh
    inside ./tests/run.sh --quick
fi
