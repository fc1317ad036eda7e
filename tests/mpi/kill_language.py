#!/usr/bin/env python3
"""usage: kill_language.py TRIREME SOURCE_DIR [KILLS [SEED]]

kill.py for a language model: scores requests on one to four ranks in changing layouts, kills the run at a random moment (one
rank, all ranks or mpirun, by SIGKILL), goes on with --resume until KILLS runs were killed, then lets it end. The output must be
byte by byte what one rank writes undisturbed: no layout changes a bit of an answer. 77: no mpirun here.
"""
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

trireme, source = sys.argv[1], pathlib.Path(sys.argv[2])
kills = int(sys.argv[3]) if len(sys.argv) > 3 else 6
random.seed(int(sys.argv[4]) if len(sys.argv) > 4 else 7)
LAYOUTS = ["data=1", "data=2", "tensor=2", "pipeline=2", "data=3", "tensor=2,pipeline=2", "data=2,tensor=2", "tensor=4"]
REQUESTS, COPIES = 100, 25 if kills > 5 else 15

if shutil.which("mpirun") is None:
    print("skip: no mpirun")
    sys.exit(77)
env = dict(os.environ, OMP_WAIT_POLICY="passive", OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
env.update(TRM_PROBE="quick")
env.setdefault("TRM_DEADLINE_SCALE", "10")
work = pathlib.Path(tempfile.mkdtemp())
env["TRM_CACHE"] = str(work / "cache")
rank_sh = work / "rank.sh"
rank_sh.write_text('#!/bin/sh\necho $$ >"$PIDS/pid.${OMPI_COMM_WORLD_RANK:-0}"\nexec "$@"\n')
rank_sh.chmod(0o755)
log = open(work / "log", "wb")


def fail(text):
    log.flush()
    print((work / "log").read_text(errors="replace")[-4000:])
    print(f"FAILED: {text}")
    shutil.rmtree(work)
    sys.exit(1)


def ranks_of(layout):
    n = 1
    for part in layout.split(","):
        n *= int(part.split("=")[1])
    return n


def start(layout, output, *more):
    """The process, and the folder of its ranks' ids."""
    pids = pathlib.Path(tempfile.mkdtemp(dir=work))
    command = [str(rank_sh), trireme, "score", str(source / "configs/demo/tiny-sotu"), "--input", str(work / "in.jsonl"),
               "--output", str(output), "--threads", "1", "--parallel", layout, *more]
    if ranks_of(layout) > 1:
        command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(ranks_of(layout))] + command
    return subprocess.Popen(command, env=dict(env, PIDS=str(pids)), stdout=log, stderr=log), pids


def kill(process, pids):
    """Only processes that are certainly ours: a rank's id is used while its parent lives."""
    ranks = [int(f.read_text()) for f in sorted(pids.glob("pid.*")) if f.read_text().strip()]
    what = random.choice(["rank", "all", "mpirun"])
    if what == "mpirun" or len(ranks) < 2:
        process.kill()
    else:
        for pid in [random.choice(ranks)] if what == "rank" else ranks:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:  # mpirun itself may wait for ever where a rank dies while it connects
        process.kill()
        process.wait(timeout=30)


def journal_bytes(output):
    try:
        return os.path.getsize(f"{output}.journal")
    except OSError:
        return 0


lines = subprocess.run([sys.executable, str(source / "tests/mpi/language_requests.py"), str(REQUESTS), "4096", "320"],
                       check=True, stdout=subprocess.PIPE).stdout.splitlines(keepends=True) * COPIES
for i in range(50, len(lines), 97):  # errors keep their place, too
    lines[i] = b'{"prompt": "no end\n'
(work / "in.jsonl").write_bytes(b"".join(lines))
begun = time.monotonic()
calm = work / "calm.jsonl"
if start("data=1", calm)[0].wait() != 0:
    fail("the undisturbed run")
wanted, took = calm.read_bytes(), time.monotonic() - begun

output = work / "out.jsonl"
killed = behind_write = ended = equal = 0
while killed < kills and ended < 4 * kills:
    before = journal_bytes(output)
    process, pids = start(random.choice(LAYOUTS), output, "--resume")
    if random.random() < 0.7:  # after it has written something, this time
        until = time.monotonic() + 60
        while journal_bytes(output) <= before and process.poll() is None and time.monotonic() < until:
            time.sleep(0.002)
    until = time.monotonic() + random.random() * 0.5
    while time.monotonic() < until and process.poll() is None:
        time.sleep(0.002)
    if process.poll() is None:
        kill(process, pids)
        killed += process.returncode != 0
        behind_write += process.returncode != 0 and journal_bytes(output) > before
    else:
        ended += 1
    if process.returncode == 0:
        if output.read_bytes() != wanted:
            fail("the output differs from the undisturbed run's")
        equal += 1
        output.unlink()
        pathlib.Path(f"{output}.journal").unlink()
    elif process.returncode > 0 and process.poll() is not None and ended and journal_bytes(output) == 0:
        fail(f"a run ended with {process.returncode}")
if start(random.choice(LAYOUTS), output, "--resume")[0].wait() != 0:
    fail("the last run")
if output.read_bytes() != wanted:
    fail("the output differs from the undisturbed run's")
print(f"{len(lines)} requests in {took:.1f} s undisturbed; {killed} runs killed, {behind_write} of them behind a write, {ended} ended "
      f"before; {equal + 1} outputs equal")
if killed < kills or behind_write * 3 < kills:
    fail("too few were killed in the middle: more requests are wanted")
shutil.rmtree(work)
