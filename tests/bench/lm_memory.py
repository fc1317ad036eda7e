#!/usr/bin/env python3
"""Private memory of the ranks of a language model beside what the plan said.

usage: lm_memory.py TRIREME MODEL LAYOUT [OPTIONS...]     e.g. tensor=4 --context 2048 --kv-cache 64MiB
Scores a few long requests under mpirun, reads Private_* of /proc/PID/smaps_rollup of each rank while it waits for more
input, and prints it beside the rank's ledger, less what is not private (shared windows)."""
import json
import os
import re
import subprocess
import sys
import tempfile
import time

trireme, model, layout = sys.argv[1:4]
more = sys.argv[4:]
n = 1
for part in layout.split(","):
    n *= int(part.split("=")[1])
work = tempfile.mkdtemp()
fifo = os.path.join(work, "in.jsonl")
lines = [json.dumps({"prompt": [(i * 37 + k * 11) % 3000 + 5 for k in range(300)], "max_tokens": 20, "ignore_eos": True,
                     "temperature": 0}) + "\n" for i in range(16)]
with open(fifo, "w") as f:  # many, so that ranks are still at work when they are looked at
    f.writelines(lines * 200)
env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMP_WAIT_POLICY="passive")
command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(n), trireme, "score", model, "--input", fifo, "--output",
           os.path.join(work, "out.jsonl"), "--parallel", layout, "--threads", "1", "--log", "info"] + more
log = open(os.path.join(work, "log"), "w+")
p = subprocess.Popen(command, env=env, stderr=log, stdout=log)


def ranks():
    out = {}
    for pid in os.listdir("/proc"):
        try:
            if os.readlink(f"/proc/{pid}/exe") == os.path.realpath(trireme):
                e = dict(x.split("=", 1) for x in open(f"/proc/{pid}/environ").read().split("\0") if "=" in x)
                out[int(e["OMPI_COMM_WORLD_RANK"])] = pid
        except (OSError, KeyError, ValueError):
            pass
    return out


def private(pid):
    text = open(f"/proc/{pid}/smaps_rollup").read()
    return sum(int(v) for v in re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+)", text, re.M)) / 1024


deadline = time.time() + 120
while time.time() < deadline and p.poll() is None:
    time.sleep(1)
    if os.path.exists(os.path.join(work, "out.jsonl")) and os.path.getsize(os.path.join(work, "out.jsonl")) > 0:
        break
time.sleep(3)
got = {r: private(pid) for r, pid in sorted(ranks().items())}
p.terminate()
p.wait()
log.seek(0)
text = log.read()
ledger = re.findall(r"^ledger\s+stage (\d+), shard (\d+): (.*)$", text, re.M)
for r, mb in got.items():
    want = ledger[r][2] if r < len(ledger) else "?"
    number = {k: float(v) for k, v in re.findall(r"(weights|activations|staging|workspace|KV cache) ([\d.]+)", want)}
    mapped = re.search(r"\(([\d.]+) of the file", want)
    planned = sum(number.values()) - (float(mapped.group(1)) if mapped else 0)
    print(f"rank {r}: private {mb:8.1f} MiB   planned {planned / 1.048576:8.1f} MiB ({want})")
if not got or not ledger:
    print(text[-2000:])
    sys.exit(1)
