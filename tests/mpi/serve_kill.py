#!/usr/bin/env python3
"""usage: serve_kill.py TRIREME SOURCE_DIR [KILLS [SEED]]

trireme launch with two replicas of two ranks: clients ask without a pause while ranks are killed (SIGKILL, or SIGSTOP: silent
but there) at random moments. Every request is answered 200 with the very text that an undisturbed server gives, streamed ones
without a seam; a lost replica is noticed within 2 s and comes back with a new epoch. Then both replicas are killed at once:
requests wait or get a clear 503, and the service is whole again. At last launch itself is killed: no process is left behind.
77: no mpirun here.
"""
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from serving import SCALE, Cluster, fail

trireme, source = sys.argv[1], pathlib.Path(sys.argv[2])
kills = int(sys.argv[3]) if len(sys.argv) > 3 else 4
random.seed(int(sys.argv[4]) if len(sys.argv) > 4 else 1)
MODELS = f'  - {{ name: digits, path: "{source}/configs/demo/digits/model.onnx" }}\n  - {{ name: sotu, path: "{source}/configs/demo/tiny-sotu" }}'
LAYOUT = 'replicas: 2, parallel: "tensor=2"'
PROMPTS = ["We must", "The state of the Union is", "My fellow citizens", "Peace", "In the year", "Congress has"]

if shutil.which("mpirun") is None:
    print("skip: no mpirun")
    sys.exit(77)


def request(i):
    return {"model": "sotu", "prompt": PROMPTS[i % 6], "max_tokens": 60 + 10 * (i % 4), "seed": 50 + i % 12, "temperature": 0.8}


def text_of(events):
    return "".join(c["text"] for e in events if e != "[DONE]" for c in e["choices"])


def status(c):
    return c.ask("GET", "/status")[1]


def lost(c):
    return status(c)["replicas_lost"]


def wait_for(c, what, condition, seconds):
    deadline = time.monotonic() + seconds * SCALE
    while not condition():
        if time.monotonic() > deadline:
            fail(c, f"{what} did not happen within {seconds} s")
        time.sleep(0.02)


c = Cluster(trireme, MODELS, cluster=LAYOUT, command="launch").ready()
c.mpirun = False
want = {}
for i in range(12):
    code, a = c.ask("POST", "/v1/completions", request(i))
    if code != 200:
        fail(c, f"undisturbed: {code} {a}")
    want[json.dumps(request(i))] = a["choices"][0]["text"]

stop, wrong, counts, longest = threading.Event(), [], [0, 0], [0.0]


def client(k):
    i = k
    while not stop.is_set():
        r = request(i)
        begun = time.monotonic()
        try:
            if k % 2:
                events = c.stream("/v1/completions", r)
                got = text_of(events)
                ok = events[-1] == "[DONE]" and not any("error" in e for e in events[:-1])
            else:
                code, a = c.ask("POST", "/v1/completions", r)
                ok, got = code == 200, a["choices"][0]["text"] if code == 200 else a
        except Exception as e:  # noqa: BLE001
            ok, got = False, repr(e)
        if not ok or got != want[json.dumps(r)]:
            wrong.append((r, got))
        counts[k % 2] += 1
        longest[0] = max(longest[0], time.monotonic() - begun)
        i += 4


threads = [threading.Thread(target=client, args=(k,)) for k in range(8)]
for t in threads:
    t.start()
slowest = 0.0
for n in range(kills):
    time.sleep(random.uniform(0.3, 1.2))
    before = lost(c)
    replicas = {r.get("replica"): r for r in status(c)["replicas"] if r["state"] == "ready"}
    victim = random.choice(sorted(replicas))
    pid = random.choice([x["pid"] for x in replicas[victim]["ranks"]])
    silent = n % 3 == 2
    os.kill(replicas[victim]["pid"] if silent else pid, signal.SIGSTOP if silent else signal.SIGKILL)
    at = time.monotonic()
    wait_for(c, "the loss of a replica being noticed", lambda: lost(c) > before, 10)
    slowest = max(slowest, time.monotonic() - at)
    if silent:
        os.kill(replicas[victim]["pid"], signal.SIGKILL)
    wait_for(c, "a new life of the replica",
             lambda: any(r.get("replica") == victim and r["state"] == "ready" and r["identity"] != replicas[victim]["identity"]
                         for r in status(c)["replicas"]), 30)
stop.set()
for t in threads:
    t.join()
if wrong:
    fail(c, f"{len(wrong)} of {sum(counts)} requests went wrong, the first: {wrong[0]}")
if slowest > 2.0 * SCALE:
    fail(c, f"a lost replica was noticed only after {slowest:.2f} s")
print(f"{kills} losses: {counts[0]} requests and {counts[1]} streams, all right; noticed after {slowest:.2f} s at most, "
      f"the longest request took {longest[0]:.2f} s")

for r in status(c)["replicas"]:
    if r["state"] == "ready":
        os.kill(r["pid"], signal.SIGKILL)
code, a = c.ask("POST", "/v1/completions", request(0))
if code not in (200, 503):
    fail(c, f"with no replica left: {code} {a}")
wait_for(c, "service after the loss of all", lambda: c.ask("POST", "/v1/completions", request(0))[0] == 200, 30)
print(f"both replicas killed: {code}, then whole again")

code = c.end(signal.SIGTERM) if kills % 2 else None
if code is None:
    pids = c.ranks()
    c.process.kill()
    deadline = time.monotonic() + 20 * SCALE
    while any(pathlib.Path(f"/proc/{p}").exists() for p in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [p for p in pids if pathlib.Path(f"/proc/{p}").exists()]
    if left:
        fail(c, f"launch was killed, and processes {left} are left")
    c.close()
    print("launch was killed: nothing is left behind")
elif code != 0:
    fail(None, f"exit code {code}")
