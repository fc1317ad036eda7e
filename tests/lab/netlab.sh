#!/bin/sh
# Hosts h1..hN on one machine: network namespaces on a bridge that lies in a namespace of its own, each with its own
# host name. Nothing of the machine's own network is touched.
#
#   netlab.sh up N                  makes them (10.77.0.K); 77: not possible here, and why
#   netlab.sh down N                ends all that runs on them and takes them away
#   netlab.sh on HOST COMMAND...    runs COMMAND on a host
#   netlab.sh cut|mend HOST         its cable
#   netlab.sh HOST COMMAND...       as "on", but COMMAND is a shell's: what mpirun's plm_rsh_agent is called with
#
# Environment: TRM_LAB, a short name that keeps several labs apart (default: trm); TRM_LAB_HIDE, a folder that is seen
# empty on all hosts but h1.
set -eu
lab=${TRM_LAB:-trm}

up() {
    n=$1
    [ "$(id -u)" = 0 ] || { echo "skip: network namespaces want root"; exit 77; }
    command -v ip >/dev/null || { echo "skip: no 'ip' here (package iproute2)"; exit 77; }
    command -v unshare >/dev/null || { echo "skip: no 'unshare' here (package util-linux)"; exit 77; }
    ip netns add "$lab-sw" 2>/dev/null || { echo "skip: network namespaces are not allowed here"; exit 77; }
    ip -n "$lab-sw" link add br0 type bridge 2>/dev/null || {
        down 0
        echo "skip: bridges are not allowed here"
        exit 77
    }
    ip -n "$lab-sw" link set br0 up
    k=1
    while [ "$k" -le "$n" ]; do
        ip netns add "$lab-h$k"
        ip -n "$lab-h$k" link set lo up
        ip link add "v$k" netns "$lab-sw" type veth peer name eth0 netns "$lab-h$k"
        ip -n "$lab-sw" link set "v$k" master br0 up
        ip -n "$lab-h$k" addr add "10.77.0.$k/24" dev eth0
        ip -n "$lab-h$k" link set eth0 up
        mkdir -p "/etc/netns/$lab-h$k" # "ip netns exec" puts this hosts file over /etc/hosts
        {
            echo 127.0.0.1 localhost
            j=1
            while [ "$j" -le "$n" ]; do
                echo "10.77.0.$j h$j"
                j=$((j + 1))
            done
        } >"/etc/netns/$lab-h$k/hosts"
        k=$((k + 1))
    done
}
down() {
    k=1
    while [ "$k" -le "$1" ]; do
        ip netns pids "$lab-h$k" 2>/dev/null | xargs -r kill -9
        ip netns del "$lab-h$k" 2>/dev/null || true
        rm -rf "/etc/netns/$lab-h$k"
        k=$((k + 1))
    done
    ip netns del "$lab-sw" 2>/dev/null || true
}
# A UTS namespace each: processes of equal host names would take their shared memory for each other's.
enter() { # enter HOST SHELL_TEXT [ARGUMENTS...]
    host=$1 text=$2
    shift 2
    hide=
    if [ -n "${TRM_LAB_HIDE:-}" ] && [ "$host" != h1 ]; then hide="mount -t tmpfs none \"\$TRM_LAB_HIDE\" && "; fi
    exec ip netns exec "$lab-$host" unshare --uts --mount sh -c "hostname $host && $hide$text" sh "$@"
}

case ${1:-} in
up) up "$2" ;;
down) down "$2" ;;
cut) ip -n "$lab-sw" link set "v${2#h}" down ;;
mend) ip -n "$lab-sw" link set "v${2#h}" up ;;
on)
    host=$2
    shift 2
    # shellcheck disable=SC2016  # the inner shell's
    enter "$host" 'exec "$@"' "$@"
    ;;
h[0-9]*)
    host=$1
    shift
    enter "$host" "$*"
    ;;
*)
    echo "usage: netlab.sh up|down N, on HOST COMMAND..., cut|mend HOST" >&2
    exit 2
    ;;
esac
