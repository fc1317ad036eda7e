#!/usr/bin/env python3
"""usage: kill.py TRIREME SOURCE_DIR [KILLS [SEED]]

Scores the digits, many times over, on one to four ranks in changing layouts, kills the run at a random moment (one rank, all
ranks, or mpirun itself, by SIGKILL) and goes on at once with --resume, until KILLS runs were started; then lets it end. Every
output must then hold what an undisturbed run writes: byte by byte, but for numbers that a tensor layout may change by 1e-5 of
the largest; and no rank may outlive its mpirun for long. Most runs must have been killed before their end, and many behind a write,
or the test has shown nothing. 77: no mpirun here.
"""
import os
import pathlib
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

trireme, source = sys.argv[1], pathlib.Path(sys.argv[2])
kills = int(sys.argv[3]) if len(sys.argv) > 3 else 50
seed = int(sys.argv[4]) if len(sys.argv) > 4 else 7
demo = source / "configs/demo/digits"
# times 360 records: some seconds each, however many kills they take
REPEAT = {"jsonl": 150, "csv": 450, "npy": 450} if kills > 20 else {"jsonl": 60, "csv": 120, "npy": 120}

# ranks: layouts they can take; the first is what `score` does by itself
LAYOUTS = {1: [None], 2: [None, "tensor=2", "pipeline=2"], 3: [None, "pipeline=3", "tensor=3"],
           4: [None, "tensor=4", "pipeline=4", "data=2,tensor=2", "data=2,pipeline=2", "tensor=2,pipeline=2"]}

if shutil.which("mpirun") is None:
    print("skip: no mpirun")
    sys.exit(77)
random.seed(seed)
env = dict(os.environ, OMP_WAIT_POLICY="passive", OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
env.setdefault("TRM_DEADLINE_SCALE", "10")
work = pathlib.Path(tempfile.mkdtemp())
env.update(TRM_CACHE=str(work / "cache"), TRM_PROBE="quick")
rank_sh = work / "rank.sh"
rank_sh.write_text('#!/bin/sh\necho $$ >"$PIDS/pid.${OMPI_COMM_WORLD_RANK:-0}"\nexec "$@"\n')
rank_sh.chmod(0o755)
log = open(work / "log", "wb")


class Run:
    def __init__(self, kind, output, *more):
        self.output = output
        self.ranks = random.randint(1, 4)
        self.pids = pathlib.Path(tempfile.mkdtemp(dir=work))
        command = [str(rank_sh), trireme, "score", str(demo), "--input", str(work / f"{kind}.txt"), "--output", str(output),
                   "--threads", "1", *more]
        self.layout = random.choice(LAYOUTS[self.ranks])
        if self.layout:
            command += ["--parallel", self.layout]
        self.mpi = self.ranks > 1 or random.random() < 0.5
        if self.mpi:
            command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(self.ranks)] + command
        self.process = subprocess.Popen(command, env=dict(env, PIDS=str(self.pids)), stdout=log, stderr=log)

    def ended(self):
        return self.process.poll() is not None

    def end(self):
        return self.process.wait(timeout=120)

    def rank_pids(self):
        pids = []
        for f in sorted(self.pids.glob("pid.*")):
            text = f.read_text().strip()
            if text:
                pids.append(int(text))
        return pids

    def kill(self):
        """Returns what was killed. Only processes that are certainly ours: a rank's id is used while mpirun, its parent, lives."""
        what = random.choice(["rank", "all", "mpirun"]) if self.mpi else "all"
        ranks = self.rank_pids()
        if what == "mpirun" or not ranks:
            self.process.kill()
        elif not self.mpi:
            self.process.kill()
        else:
            for pid in [random.choice(ranks)] if what == "rank" else ranks:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            # Open MPI 4.1's mpirun sometimes waits for ever where a rank dies while it connects: its ranks are gone by then
            self.process.kill()
            self.end()
        return what

    def left(self):
        """Ranks that outlived their mpirun."""
        alive = []
        for pid in self.rank_pids():
            try:
                if b"score" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    alive.append(pid)
            except OSError:
                pass
        return alive


def journal_bytes(output):
    try:
        return os.path.getsize(f"{output}.journal")
    except OSError:
        return 0


def fail(text):
    log.flush()
    print((work / "log").read_text(errors="replace")[-4000:])
    print(f"FAILED (seed {seed}): {text}")
    shutil.rmtree(work)
    sys.exit(1)


NUMBER = re.compile(rb"-?\d+\.\d+(?:e[-+]?\d+)?|-?\d+e[-+]?\d+")


def equal(kind, got, want):
    if got == want:
        return True
    if kind == "npy":
        n = (len(want) - 128) // 4
        if len(got) != len(want) or got[:128] != want[:128]:
            return False
        a, b = struct.unpack(f"<{n}f", got[128:128 + 4 * n]), struct.unpack(f"<{n}f", want[128:128 + 4 * n])
    else:
        if NUMBER.sub(b"#", got) != NUMBER.sub(b"#", want):
            return False
        a, b = [float(x) for x in NUMBER.findall(got)], [float(x) for x in NUMBER.findall(want)]
    bound = 1e-5 * max(abs(x) for x in b if x == x)
    return len(a) == len(b) and all(x == y or abs(x - y) <= bound or (x != x and y != y) for x, y in zip(a, b))


images = [str(p) for p in sorted((demo / "images").glob("*.png"))]
wanted = {}
layouts = set()
# the planner of tensor and pipeline layouts measures the machine once
subprocess.run([trireme, "plan", str(demo), "--ranks", "2", "--threads", "1"], env=env, stdout=log, stderr=log, check=True)
for kind, repeat in REPEAT.items():
    # an image that is none, here and there: errors keep their place too
    lines = images * repeat
    for i in range(50, len(lines), 997):
        lines[i] = str(demo / "labels.csv")
    (work / f"{kind}.txt").write_text("\n".join(lines) + "\n")
    calm = work / f"calm.{kind}"
    run = Run(kind, calm)
    if run.end() != 0:
        fail(f"the undisturbed run of {kind}")
    wanted[kind] = calm.read_bytes()

counts = {"rank": 0, "all": 0, "mpirun": 0}
middle = behind_write = finished = outputs = 0
start = time.monotonic()
killed = []


def check(kind, output):
    global outputs
    if not equal(kind, output.read_bytes(), wanted[kind]):
        fail(f"{output.name} differs from the undisturbed run's")
    outputs += 1
    output.unlink()


for i in range(kills):
    kind = list(REPEAT)[i // 4 % 3]  # the same again: the ranks of the one before may still be there
    output = work / f"o.{kind}"
    # a new output begins without --resume or with it: both must do
    run = Run(kind, output, "--resume")
    layouts.add(run.layout)
    before, begun = journal_bytes(output), time.monotonic()
    if random.random() < 0.3:  # any moment, also while it starts
        until = begun + random.random()
        while time.monotonic() < until and not run.ended():
            time.sleep(0.005)
    else:  # after it has written something, this time
        while journal_bytes(output) <= before and not run.ended() and time.monotonic() < begun + 60:
            time.sleep(0.002)
        until = time.monotonic() + random.random() * 0.4
        while time.monotonic() < until and not run.ended():
            time.sleep(0.002)
    if run.ended():
        finished += 1
        if run.process.returncode != 0:
            fail(f"run {i} ended with {run.process.returncode}")
        check(kind, output)
        continue
    counts[run.kill()] += 1
    killed.append(run)
    middle += run.process.returncode != 0
    behind_write += journal_bytes(output) > before
    if run.process.returncode == 0:
        check(kind, output)
took = time.monotonic() - start
for kind in REPEAT:
    output = work / f"o.{kind}"
    run = Run(kind, output, "--resume")
    if run.end() != 0:
        fail(f"the last run of {kind} ended with {run.process.returncode}")
    check(kind, output)
deadline = time.monotonic() + 60
while any(run.left() for run in killed):
    if time.monotonic() > deadline:
        fail(f"ranks outlived their job: {[run.left() for run in killed if run.left()]}")
    time.sleep(0.1)
print(f"{kills} runs in {took:.0f} s: {middle} killed before their end ({counts}), {behind_write} of them behind a write, "
      f"{finished} ended before, in {len(layouts)} layouts; {outputs} outputs equal")
if middle * 5 < kills * 3 or behind_write * 3 < kills:
    fail("too few were killed in the middle: more records are wanted")
shutil.rmtree(work)
