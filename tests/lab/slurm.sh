#!/usr/bin/env bash
# usage: slurm.sh TRIREME SOURCE_DIR [--install]
# A real Slurm on this machine alone: brings up munge, slurmctld and slurmd in a scratch folder, runs
# "srun --mpi=pmix -n4 trireme score" on the digits, compares with mpirun's result, and takes everything down again.
# Opt-in: it runs daemons as root. Give --install, or set TRM_LAB_SLURM=1 where slurmctld, slurmd, slurm-client and munge
# are installed. Exit code 77: not run.
set -euo pipefail
trireme=$(readlink -f "$1") demo=$(readlink -f "$2")/configs/demo/digits
install=${3:-}
if [ "$install" != --install ] && [ "${TRM_LAB_SLURM:-}" != 1 ]; then
    echo "skip: opt-in: set TRM_LAB_SLURM=1, or give --install"
    exit 77
fi
[ "$(id -u)" = 0 ] || { echo "skip: its daemons want root"; exit 77; }
programs=(slurmctld slurmd srun scontrol munged mpirun)
missing() { for p in "${programs[@]}"; do command -v "$p" || echo "no $p"; done | grep '^no ' || true; }
if [ -n "$(missing)" ] && [ "$install" = --install ]; then
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=900 install --no-install-recommends \
        slurmctld slurmd slurm-client munge openmpi-bin </dev/null
fi
[ -z "$(missing)" ] || { echo "skip: $(missing | tr '\n' ' ')(Debian: slurmctld slurmd slurm-client munge)"; exit 77; }

dir=$(mktemp -d /tmp/trm-slurm.XXXXXX)
chmod 755 "$dir"
pids=()
down() {
    local rc=$? pid
    for f in "$dir"/*.pid; do
        [ -s "$f" ] || continue
        pid=$(cat "$f")
        kill "$pid" 2>/dev/null || true
        pids+=("$pid")
    done
    for pid in "${pids[@]}"; do # a daemon ends its children itself, if it is let
        for _ in $(seq 50); do
            if [ ! -d "/proc/$pid" ] || grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null; then break; fi
            sleep 0.1
        done
        kill -9 "$pid" 2>/dev/null || true
    done
    if [ $rc -ne 0 ] && [ $rc -ne 77 ]; then tail -n 20 "$dir"/*.log 2>/dev/null || true; fi
    rm -rf "$dir"
    exit $rc
}
trap down EXIT
fail() {
    echo "FAILED: $*"
    exit 1
}
until_true() { # until_true SECONDS COMMAND...
    local n=$(($1 * 10))
    shift
    while ! "$@" >/dev/null 2>&1; do
        n=$((n - 1))
        [ $n -gt 0 ] || return 1
        sleep 0.1
    done
}

# munge with a key and a socket of its own: one that already runs here is left alone
mkdir "$dir/munge"
dd if=/dev/urandom of="$dir/munge/key" bs=1024 count=1 status=none
chmod 600 "$dir/munge/key"
chown -R munge: "$dir/munge"
setpriv --reuid munge --regid munge --clear-groups munged --key-file "$dir/munge/key" --socket "$dir/munge/socket" \
    --pid-file "$dir/munge/pid" --log-file "$dir/munge/log" --seed-file "$dir/munge/seed"
ln -s munge/pid "$dir/munged.pid"

# ports of its own too, so that a Slurm of this machine goes on undisturbed
port=$((20000 + RANDOM % 20000))
mkdir "$dir/state" "$dir/spool"
cat >"$dir/slurm.conf" <<CONF
ClusterName=lab
SlurmctldHost=$(hostname -s)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
AuthInfo=socket=$dir/munge/socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
MpiDefault=pmix
SlurmctldPidFile=$dir/slurmctld.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdPidFile=$dir/slurmd.pid
SlurmdLogFile=$dir/slurmd.log
SlurmdSpoolDir=$dir/spool
StateSaveLocation=$dir/state
NodeName=$(hostname -s) CPUs=$(nproc) RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=$(hostname -s) Default=YES MaxTime=10 State=UP OverSubscribe=YES
CONF
export SLURM_CONF="$dir/slurm.conf"
slurmctld -f "$SLURM_CONF" || fail "slurmctld"
slurmd -f "$SLURM_CONF" || fail "slurmd"
idle() { scontrol show node "$(hostname -s)" | grep -q 'State=IDLE'; }
until_true 30 idle || fail "the node is not idle: $(scontrol show node 2>&1 | tr '\n' ' ')"
echo "slurm $(srun --version) is up, one node, $(nproc) CPUs"

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_WAIT_POLICY=passive
export TRM_DEADLINE_SCALE="${TRM_DEADLINE_SCALE:-10}"
score() { echo score "$demo" --input "$demo/images" --raw --labels "$demo/labels.csv" --output "$1"; }
# more tasks than this machine may have CPUs: --overcommit
step() { srun --mpi=pmix --overcommit -N1 "$@"; }

# shellcheck disable=SC2046  # the words of it
step -n4 "$trireme" $(score "$dir/srun.csv") 2>"$dir/srun.log" || fail "srun"
# shellcheck disable=SC2046
mpirun --oversubscribe --bind-to none -np 4 "$trireme" $(score "$dir/mpirun.csv") 2>"$dir/mpirun.log" || fail "mpirun"
grep -q '^accuracy 359/360$' "$dir/srun.log" || fail "accuracy under srun: $(cat "$dir/srun.log")"
[ "$(wc -l <"$dir/srun.csv")" = 361 ] || fail "$(wc -l <"$dir/srun.csv") lines, want 361"
paste -d, "$dir/mpirun.csv" "$dir/srun.csv" | awk -F, '
    NR > 1 { n = NF / 2
        if ($1 != $(1 + n)) bad++
        for (i = 2; i < n; i++) {
            d = $i - $(i + n); if (d < 0) d = -d; if (d > worst) worst = d
            v = $i < 0 ? -$i : $i; if (v > scale) scale = v } }
    END { printf "srun against mpirun: %d records, largest difference %g of the scale\n", NR - 1, worst / scale
          exit !(bad == 0 && worst <= 1e-5 * scale) }' || fail "srun and mpirun differ"

# a rank that does not come is named here too, with its host, and the step ends
rc=0
# shellcheck disable=SC2046
TRM_DEADLINE_SCALE=1 TRM_ROLL_CALL_S=4 TRM_JOB_FAULT=init:late:2:600000 timeout 60 srun --mpi=pmix --overcommit -N1 -n4 \
    "$trireme" $(score "$dir/late.csv") 2>"$dir/late.log" || rc=$?
case $rc in 0 | 124) fail "a late rank: exit code $rc" ;; esac
grep -q "^trireme: the roll call: .*missing: rank 2 (host $(hostname))" "$dir/late.log" ||
    fail "the late rank is not named: $(cat "$dir/late.log")"
# shellcheck disable=SC2009  # pgrep tells no states
no_rank() { ! ps -eo stat=,args= | grep -v '^Z' | grep -F "$dir/" | grep -v grep | grep -q 'trireme score'; }
until_true 20 no_rank || fail "ranks are left"
echo "ok: the same answers under srun and mpirun; a late rank is named"
