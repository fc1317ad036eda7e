#!/usr/bin/env python3
"""usage: serve_ranks.py TRIREME SOURCE_DIR CASE. trireme serve with language models over ranks that have an (emulated) device each
(TRM_CUDA_DRIVER, TRM_CUDA_MODULE are set). Cases:
  layouts  tensor=2 and pipeline=2: one rank's tokens and log-probabilities, streamed or not; clients that leave; models loaded anew
           while requests come, none of which is lost; a drain
  killed   a rank dies (SIGKILL) while requests are under way: with mpirun the job ends and says which, under trireme launch the other
           replica gives the same answers and the lost one comes back
  long     both, again and again
77: no mpirun here."""
import json
import os
import pathlib
import random
import re
import shutil
import signal
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "mpi"))
from serving import SCALE, Cluster, fail

trireme, source, case = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
ENV = {"TRM_EMU_DEVICES": "2", "TRM_EMU_IPC": "1"}
if shutil.which("mpirun") is None:
    print("skip: no mpirun")
    sys.exit(77)


def models(*names):
    return "".join(f'  - {{ name: {n}, path: "{source}/tests/data/language/models/{n}", dtype: fp32, kv_cache: 2MiB }}\n' for n in names)


BOTH = ("llama", "gemma3")


def start(layout, ranks, names=BOTH, command="serve"):
    c = Cluster(trireme, models(*names), cluster="device: cuda" + (f", {layout}" if layout else ""), ranks=ranks, env=ENV, command=command,
                log="info").ready()
    if "tensor=2" in layout and (not re.search(r"NCCL [0-9.]*: rank 1 of 2,", c.text()) or "over host memory" in c.text()):
        fail(c, f"{layout}: the devices have no group")
    return c


def request(i, names=BOTH):
    return {"model": names[i % len(names)], "prompt": [1 + i, 5, 9, 7 * i % 200 + 3], "max_tokens": 4 + i % 3, "temperature": 0.8 * (i % 3 > 0),
            "seed": i, "logprobs": 2, "return_token_ids": True}


def plain(c, i, names=BOTH):
    """What request i is answered: (tokens, log-probabilities, text), or the error."""
    status, a = c.ask("POST", "/v1/completions", request(i, names))
    if status != 200:
        return status, a
    return [(x["token_ids"], x["logprobs"]["token_logprobs"], x["text"]) for x in a["choices"]]


def streamed(c, i, names=BOTH):
    """The same request's text from a stream's pieces, or the error."""
    events = c.stream("/v1/completions", request(i, names))
    if events[-1] != "[DONE]" or any("error" in e for e in events[:-1]):
        return events
    return "".join(x["text"] for e in events[:-1] for x in e["choices"])


def answers(c, count=6, names=BOTH):
    """All at once, so that they share steps."""
    out = [None] * count

    def one(i):
        try:
            out[i] = plain(c, i, names), streamed(c, i, names)
        except (OSError, AssertionError) as e:
            out[i] = repr(e)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return out


def check(c, want, what, names=BOTH):
    for i, (a, b) in enumerate(zip(want, answers(c, len(want), names))):
        if a != b:
            fail(c, f"{what}: request {i}: {b} is not {a}")


def one_rank(names=BOTH):
    c = start("", 1, names)
    want = answers(c, names=names)
    for i, w in enumerate(want):
        if not isinstance(w, tuple) or not isinstance(w[0], list) or w[1] != w[0][0][2]:
            fail(c, f"one rank: request {i}: {w}")
    if c.end() != 0:
        fail(None, "one rank: the exit code")
    return want


def leave(c, model):
    k = c.connect()
    k.request("POST", "/v1/completions", body=json.dumps({"model": model, "prompt": [1, 2], "max_tokens": 60, "stream": True}).encode())
    k.getresponse().read(1)
    k.close()


def nothing_runs(c, what):
    """What clients have left is given up: all is idle again."""
    deadline = time.monotonic() + 30 * SCALE
    while True:
        s = c.ask("GET", "/status")[1]["cluster"]
        if s["running"] == 0:
            return
        if time.monotonic() > deadline:
            fail(c, f"{what}: {s['running']} requests run on after their clients have left")
        time.sleep(0.05)


def loaded_anew(c, want, what, loads):
    stop, bad, count = threading.Event(), [], [0]

    def traffic(k):
        i = k
        while not stop.is_set():
            try:
                got = plain(c, i % len(want))
            except OSError as e:
                got = repr(e)
            if got != want[i % len(want)][0]:
                bad.append((i % len(want), got))
            count[0] += 1
            i += 1

    threads = [threading.Thread(target=traffic, args=(k,)) for k in range(2)]
    for t in threads:
        t.start()
    for i in range(loads):
        status, a = c.ask("POST", f"/v2/repository/models/{BOTH[i % 2]}/load", {})
        if status != 200:
            bad.append((status, a))
    stop.set()
    for t in threads:
        t.join()
    if bad or count[0] == 0:
        fail(c, f"{what}: {len(bad)} of {count[0]} requests went wrong while models were loaded anew: {bad[:2]}")
    return count[0]


def layouts(turns=1):
    want = one_rank()
    for layout in ("tensor=2", "pipeline=2"):
        c = start(f'parallel: "{layout}"', 2)
        check(c, want, layout)
        n = 0
        for _ in range(turns):
            for model in BOTH:
                leave(c, model)
            n += loaded_anew(c, want, layout, 2)
            nothing_runs(c, layout)
        check(c, want, f"{layout}, after models were loaded anew")
        lost = c.ask("GET", "/status")[1]["replicas_lost"]
        code = c.end()
        if code != 0 or lost != 0:
            fail(None, f"{layout}: exit code {code}, {lost} replicas lost")
        print(f"{layout}: one rank's bytes; {n} requests while models were loaded anew", flush=True)


def job(layout, victim):
    """Under mpirun a rank that is lost ends the job; requests are answered, if not by what they ask."""
    c = start(f'parallel: "{layout}"', 2, ("llama",))
    results = []

    def one(i):
        try:
            results.append(c.ask("POST", "/v1/completions", {"model": "llama", "prompt": [1 + i], "max_tokens": 100, "ignore_eos": True})[0])
        except OSError:
            results.append("closed")

    threads = [threading.Thread(target=one, args=(i,)) for i in range(3)]
    for t in threads:
        t.start()
    while c.ask("GET", "/status")[1]["cluster"]["running"] == 0:
        time.sleep(0.02)
    pids = c.ranks()
    if len(pids) != 2:
        fail(c, f"{layout}: ranks {pids}")
    os.kill(pids[victim], signal.SIGKILL)
    begun = time.monotonic()
    try:
        code = c.process.wait(30 * SCALE)
    except Exception:  # noqa: BLE001
        fail(c, f"{layout}: rank {victim} was killed and the job goes on")
    for t in threads:
        t.join(20 * SCALE)
    text = c.text()
    if code == 0 or len(results) != 3 or 200 in results:
        fail(c, f"{layout}: rank {victim} was killed: exit code {code}, requests {results}")
    if "signal 9" not in text and "lost" not in text:
        fail(c, f"{layout}: no word of the killed rank")
    c.close()
    print(f"{layout}: rank {victim} killed, exit code {code} after {time.monotonic() - begun:.1f} s, requests {results}", flush=True)


def killed(kills=1):
    for layout, victim in (("tensor=2", 1), ("pipeline=2", 0)):
        job(layout, victim)
    names = ("llama",)
    want = one_rank(names)
    for layout in ("tensor=2", "pipeline=2"):
        c = start(f'replicas: 2, parallel: "{layout}"', 1, names, "launch")
        check(c, want, layout, names)
        for _ in range(kills):
            replica(c, layout, want, names)
        if c.end(signal.SIGTERM) != 0:
            fail(None, f"{layout}: exit code")


def replica(c, layout, want, names):
    got = []
    t = threading.Thread(target=lambda: got.extend(answers(c, len(want), names)))
    t.start()
    ready = [r for r in c.ask("GET", "/status")[1]["replicas"] if r["state"] == "ready" and len(r["ranks"]) == 2]
    if len(ready) != 2:
        fail(c, f"{layout}: {len(ready)} whole replicas")
    victim = random.choice(ready)
    before = c.ask("GET", "/status")[1]["replicas_lost"]
    os.kill(random.choice(victim["ranks"])["pid"], signal.SIGKILL)
    t.join()
    for i, (a, b) in enumerate(zip(want, got)):
        if a != b:
            fail(c, f"{layout}: a rank was killed, request {i}: {b} is not {a}")
    deadline = time.monotonic() + 60 * SCALE
    while True:
        s = c.ask("GET", "/status")[1]
        whole = [r for r in s["replicas"] if r["state"] == "ready" and len(r["ranks"]) == 2]
        if s["replicas_lost"] > before and len(whole) == 2:
            break
        if time.monotonic() > deadline:
            fail(c, f"{layout}: the lost replica did not come back: {s['replicas']}")
        time.sleep(0.1)
    check(c, want, f"{layout}, after the replica came back", names)
    print(f"{layout}: a rank of a replica killed, all answers right, and the replica is back", flush=True)


def long():
    layouts(5)
    for layout in ("tensor=2", "pipeline=2"):
        for victim in (0, 1):
            job(layout, victim)
    killed(4)


random.seed(1)
{"layouts": layouts, "killed": killed, "long": long}[case]()
print("ok")
