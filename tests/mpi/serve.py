#!/usr/bin/env python3
"""usage: serve.py TRIREME SOURCE_DIR CASE

trireme serve with the demo models. Cases:
  layouts   the same answers, streamed or not, under one rank, tensor=2, pipeline=2, data=2 and all of them; a tensor model's
            labels are those of its test set; idle ranks sleep
  drain     SIGTERM while streams are under way: they end well, new requests are refused, exit code 0; a second one ends at once
  reload    models loaded and unloaded under traffic without a lost request; 100 cycles give memory back
  groups    two groups of ranks with models of their own
  turns     stages: a language model and a tensor model at once, while models are loaded anew and clients leave
  follower  trireme launch: a rank that does not lead dies, and mpirun is slow to see it: its replica's requests go to the other
  bad       configurations and requests that are refused with one line
77: no mpirun here.
"""
import csv
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from serving import SCALE, Cluster, cpu_ticks, fail, resident

trireme, source, case = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
DIGITS = source / "configs/demo/digits"
MODELS = f'  - {{ name: digits, path: "{DIGITS}/model.onnx" }}\n  - {{ name: sotu, path: "{source}/configs/demo/tiny-sotu" }}'
PROMPTS = ["We must", "The state of the Union is", "My fellow citizens", "Peace", "In the year", "Congress has"]

if shutil.which("mpirun") is None:
    print("skip: no mpirun")
    sys.exit(77)


def requests():
    for i, prompt in enumerate(PROMPTS * 2):
        yield {"model": "sotu", "prompt": prompt, "max_tokens": 12 + i, "temperature": 0 if i % 3 == 0 else 0.9, "seed": 100 + i,
               "top_p": 0.95, "logprobs": 2, "n": 1 + i % 2}


def essence(answer):
    return [(c["index"], c["text"], c["logprobs"], c["finish_reason"]) for c in answer["choices"]]


def joined(events):
    """What a stream's chunks come to: text and finish reason of each choice."""
    out = {}
    for e in events:
        for c in [] if e == "[DONE]" else e["choices"]:
            text, reason = out.get(c["index"], ("", None))
            out[c["index"]] = (text + c["text"], c["finish_reason"] or reason)
    return [(i, *out[i]) for i in sorted(out)]


def answers(c):
    """All at once, from threads, so that they share steps."""
    out, errors = {}, []

    def one(i, r):
        try:
            status, a = c.ask("POST", "/v1/completions", r)
            assert status == 200, (status, a)
            events = c.stream("/v1/completions", r)
            assert events[-1] == "[DONE]", events[-1]
            got = joined(events[:-1])
            assert got == [(x["index"], x["text"], x["finish_reason"]) for x in sorted(a["choices"], key=lambda x: x["index"])], (got, a)
            out[i] = essence(a)
        except Exception as e:  # noqa: BLE001: a thread's failure is the test's
            errors.append(repr(e))

    threads = [threading.Thread(target=one, args=x) for x in enumerate(requests())]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if errors:
        fail(c, errors[0])
    return [out[i] for i in sorted(out)]


def check_digits(c):
    want = {}
    with open(DIGITS / "labels.csv", newline="") as f:
        for row in csv.reader(f):
            want[row[0]] = row[1]
    right = wrong = 0
    connection = c.connect()
    for path in sorted((DIGITS / "images").iterdir())[:40]:
        status, a = c.ask("POST", "/predictions/digits", path.read_bytes(), {"Content-Type": "image/png"}, connection)
        if status != 200:
            fail(c, f"predictions: {status} {a}")
        if path.name in want:
            right, wrong = (right + 1, wrong) if next(iter(a)) == want[path.name] else (right, wrong + 1)
    if right < 30 or wrong > 1:
        fail(c, f"predictions: {right} right, {wrong} wrong")


def layouts():
    first = None
    for ranks, layout in [(1, ""), (2, 'parallel: "tensor=2"'), (2, 'parallel: "pipeline=2"'), (2, "replicas: 2"),
                          (4, 'replicas: 2, parallel: "tensor=2"'), (4, 'parallel: "tensor=2,pipeline=2"')]:
        c = Cluster(trireme, MODELS, cluster=layout, ranks=ranks).ready()
        got = answers(c)
        first = first or got
        for i, (a, b) in enumerate(zip(first, got)):
            if a != b:
                fail(c, f"{layout}: request {i}: {b} is not {a}")
        check_digits(c)
        pids = c.ranks()
        if len(pids) != ranks:
            fail(c, f"{layout}: {len(pids)} processes")
        idle = 0.0
        if ranks == 4 and "pipeline=2" in layout:
            time.sleep(1)
            before = cpu_ticks(pids)
            time.sleep(4)
            idle = (cpu_ticks(pids) - before) / 4 / ranks  # ticks are hundredths of a second: % of a core
            if idle > 3 * SCALE:
                fail(c, f"{layout}: an idle rank takes {idle:.2f} % of a core")
            print(f"{layout}: an idle rank takes {idle:.2f} % of a core")
        print(f"{layout or 'one rank'}: {len(got)} requests, ready after {c.ready_s} s")
        code = c.end()
        if code != 0:
            fail(None, f"{layout}: exit code {code}")


def drain():
    for mpirun in (False, True):
        c = Cluster(trireme, MODELS, ranks=1, mpirun=mpirun, more="limits: { drain_s: 60 }").ready()
        results, errors = [], []

        def long_one(i):
            try:
                results.append(c.stream("/v1/completions", {"model": "sotu", "prompt": PROMPTS[i % 6], "max_tokens": 400, "seed": i,
                                                            "ignore_eos": True}))
            except Exception as e:  # noqa: BLE001
                errors.append(repr(e))

        threads = [threading.Thread(target=long_one, args=(i,)) for i in range(16)]
        idle = c.connect()
        idle.connect()
        for t in threads:
            t.start()
        while c.ask("GET", "/status")[1]["cluster"]["running"] < 16 and not results and not errors:
            time.sleep(0.01)
        c.signal(signal.SIGUSR1 if mpirun else signal.SIGTERM)
        time.sleep(0.3)
        try:
            status, a = c.ask("POST", "/v1/completions", {"model": "sotu", "prompt": "x", "max_tokens": 1}, connection=idle)
        except OSError:
            status, a = 503, "no connection"
        if status != 503 and not results:
            fail(c, f"a new request while it drains: {status} {a}")
        for t in threads:
            t.join()
        if errors or len(results) != 16 or any(r[-1] != "[DONE]" or r[-2]["choices"][0]["finish_reason"] != "length" for r in results):
            cut = [r[-2:] for r in results if r[-1] != "[DONE]" or r[-2]["choices"][0]["finish_reason"] != "length"]
            fail(c, f"streams while it drained: {len(results)} ended, {errors[:1]}, {cut[:2]}")
        code = c.wait()
        if code != 0:
            fail(None, f"exit code {code} after a drain")
        print("drain" + (" under mpirun" if mpirun else "") + ": 16 streams ended, new ones refused, exit code 0")
    c = Cluster(trireme, MODELS, more="limits: { drain_s: 600 }").ready()
    conns = []
    for i in range(8):
        conn = c.connect()
        conn.request("POST", "/v1/completions", body=json.dumps({"model": "sotu", "prompt": "x", "max_tokens": 450, "ignore_eos": True,
                                                                  "stream": True, "n": 32}).encode())
        conns.append(conn)
    time.sleep(0.3)
    c.signal(signal.SIGTERM)
    time.sleep(0.5)
    begun = time.monotonic()
    if c.process.poll() is None:
        c.signal(signal.SIGTERM)
    code = c.wait(10)
    print(f"a second SIGTERM: exit code {code} after {time.monotonic() - begun:.2f} s")


def reload():
    for ranks, layout in [(1, ""), (2, 'parallel: "tensor=2"'), (2, "replicas: 2")]:
        c = Cluster(trireme, MODELS, cluster=layout, ranks=ranks).ready()
        stop, errors, count = threading.Event(), [], [0, 0]

        def traffic(kind):
            conn = c.connect()
            body = (DIGITS / "images/000.png").read_bytes()
            while not stop.is_set():
                try:
                    if kind == 0:
                        status, a = c.ask("POST", "/predictions/digits", body, connection=conn)
                    else:
                        status, a = c.ask("POST", "/v1/completions", {"model": "sotu", "prompt": "We", "max_tokens": 8}, connection=conn)
                    if status != 200:
                        errors.append((status, a))
                except OSError as e:
                    errors.append(repr(e))
                    return
                count[kind] += 1

        threads = [threading.Thread(target=traffic, args=(k % 2,)) for k in range(4)]
        for t in threads:
            t.start()
        for i in range(10):
            for m in ("digits", "sotu"):
                status, a = c.ask("POST", f"/v2/repository/models/{m}/load", {})
                if status != 200:
                    fail(c, f"load {m}: {status} {a}")
        stop.set()
        for t in threads:
            t.join()
        if errors or min(count) == 0:
            fail(c, f"{layout}: traffic while models were loaded anew: {count}, {errors[:2]}")
        print(f"{layout or 'one rank'}: 20 loads under traffic, {sum(count)} requests, none lost")
        for i in range(10):
            status, a = c.ask("POST", "/v2/repository/models/sotu/load", {"parameters": {"config": '{"dtype": "fp16"}'}})
            if status != 400 or "fp16" not in a["error"]:
                fail(c, f"{layout}: a load that must fail: {status} {a}")
        if c.ask("GET", "/status")[1]["replicas_lost"] != 0:
            fail(c, f"{layout}: a load that failed has cost a replica")
        cycles = 100 if ranks == 1 else 10
        pids, memory = c.ranks(), []
        for i in range(cycles + 10):
            for m in ("digits", "sotu"):
                for what in ("unload", "load"):
                    status, a = c.ask("POST", f"/v2/repository/models/{m}/{what}", {})
                    if status != 200:
                        fail(c, f"{what} {m}: {status} {a}")
            if i < 10:
                memory.append(sum(resident(p) for p in pids))
        # an unload is answered when requests go elsewhere; its memory comes back when the ranks have come to it, and steps of more
        # sizes are bound while nothing else is to do: a cycle that kept 0.1 MB would show
        before, most = max(memory), max(memory) + (10 << 20)
        after, deadline = sum(resident(p) for p in pids), time.monotonic() + 20 * SCALE
        while after > most and time.monotonic() < deadline:
            time.sleep(0.1)
            after = sum(resident(p) for p in pids)
        status, a = c.ask("POST", "/v1/completions", {"model": "sotu", "prompt": "We", "max_tokens": 8})
        if status != 200 or after > most:
            fail(c, f"after {cycles} cycles: {status}, private memory {before / 1e6:.2f} MB, then {after / 1e6:.2f}")
        print(f"{cycles} cycles of unload and load of two models: private memory {before / 1e6:.2f} MB, then {after / 1e6:.2f}")
        status, answer = c.ask("POST", "/v2/repository/models/sotu/unload", {}, {"Origin": "http://elsewhere.example"})
        if status != 403:
            fail(c, f"a web page of another origin unloads a model: {status} {answer}")
        c.ask("POST", "/v2/repository/models/sotu/unload", {})
        status, a = c.ask("POST", "/v1/completions", {"model": "sotu", "prompt": "We"})
        if status not in (404, 503):
            fail(c, f"a request to a model that is not loaded: {status} {a}")
        if c.end() != 0:
            fail(None, "exit code")


def groups():
    models = (f'  - {{ name: digits, path: "{DIGITS}/model.onnx", group: small }}\n'
              f'  - {{ name: sotu, path: "{source}/configs/demo/tiny-sotu", group: big }}')
    c = Cluster(trireme, models, cluster='groups: { big: { ranks: 2, parallel: "tensor=2" }, small: { ranks: 1 } }', ranks=3).ready()
    answers(c)
    check_digits(c)
    status, a = c.ask("GET", "/status")
    if status != 200:
        fail(c, "status")
    if c.end() != 0:
        fail(None, "exit code")
    print("two groups serve a model each")


class Traffic:
    """Clients that ask both models without a pause; answers that are no 200 are in `bad`."""

    def __init__(self, c, leave=False):
        self.stop, self.bad, self.counts = threading.Event(), [], [0, 0]
        image = (DIGITS / "images/000.png").read_bytes()

        def one(i):
            while not self.stop.is_set():
                try:
                    if i % 3 == 0:
                        status, a = c.ask("POST", "/predictions/digits", image)
                    else:
                        status, a = c.ask("POST", "/v1/completions", {"model": "sotu", "prompt": PROMPTS[i], "max_tokens": 40, "seed": i})
                except OSError as e:
                    status, a = 0, repr(e)
                if status != 200:
                    self.bad.append((status, a))
                    time.sleep(0.1)
                self.counts[i % 3 == 0] += 1

        def leaver():
            while not self.stop.is_set():
                conn = c.connect()
                conn.request("POST", "/v1/completions", body=json.dumps({"model": "sotu", "prompt": "We", "max_tokens": 400, "stream": True}))
                conn.getresponse().read(1)
                conn.close()

        self.threads = [threading.Thread(target=one, args=(i,)) for i in range(6)] + [threading.Thread(target=leaver)] * leave
        for t in self.threads:
            t.daemon = True
            t.start()

    def end(self, c, what):
        self.stop.set()
        for t in self.threads:
            t.join()
        if self.bad or min(self.counts) == 0:
            fail(c, f"{what}: {len(self.bad)} of {self.counts} requests went wrong: {self.bad[:2]}")
        print(f"{what}: {sum(self.counts)} requests, all right")


def turns():
    c = Cluster(trireme, MODELS, cluster='parallel: "pipeline=2"', ranks=2).ready()
    traffic = Traffic(c, leave=True)
    time.sleep(2)
    for i in range(5):
        for m in ("digits", "sotu"):
            try:
                status, a = c.ask("POST", f"/v2/repository/models/{m}/load", {})
            except OSError as e:
                status, a = 0, repr(e)
            if status != 200:
                traffic.stop.set()
                fail(c, f"load {m}: {status} {a}")
    traffic.end(c, "two models over two stages")
    if c.end() != 0:
        fail(None, "exit code")


def follower():
    c = Cluster(trireme, MODELS, cluster='replicas: 2, parallel: "tensor=2"', command="launch").ready()
    c.mpirun = False
    traffic = Traffic(c)
    for i in range(2):
        deadline = time.monotonic() + 60 * SCALE
        while True:
            ready = [r for r in c.ask("GET", "/status")[1]["replicas"] if r["state"] == "ready" and len(r["ranks"]) == 2]
            if len(ready) == 2:
                break
            if time.monotonic() > deadline:
                traffic.stop.set()
                fail(c, "the replicas did not become whole")
            time.sleep(0.1)
        time.sleep(0.5)
        victim = next(x["pid"] for x in ready[i]["ranks"] if x["rank"] == 1)
        launcher = int(pathlib.Path(f"/proc/{victim}/stat").read_text().rsplit(")", 1)[1].split()[1])
        os.kill(launcher, signal.SIGSTOP)
        os.kill(victim, signal.SIGKILL)
        time.sleep(2)
        os.kill(launcher, signal.SIGCONT)
    time.sleep(1)
    traffic.end(c, "two ranks that follow were killed")
    if c.end(signal.SIGTERM) != 0:
        fail(None, "exit code")


def bad():
    work = pathlib.Path(tempfile.mkdtemp())
    path = work / "c.yaml"
    model = f'models: [{{ name: d, path: "{DIGITS}/model.onnx" }}]\n'
    for name, text, says in [
        ("empty", "", "models"),
        ("no models", "models: []\n", "models"),
        ("unknown key", model + "gatway: {}\n", "gateway"),
        ("no path", "models: [{ name: x }]\n", "path"),
        ("missing file", "models: [{ name: x, path: /nowhere/x.onnx }]\n", "does not exist"),
        ("bad name", f'models: [{{ name: "a/b", path: "{DIGITS}/model.onnx" }}]\n', "name"),
        ("twice", f'models: [{{ name: a, path: "{DIGITS}/model.onnx" }}, {{ name: a, path: "{DIGITS}/model.onnx" }}]\n', "twice"),
        ("no group", f'models: [{{ name: a, path: "{DIGITS}/model.onnx", group: g }}]\n', "group"),
        ("layout", model + "cluster: { parallel: bananas=2 }\n", "parallel"),
        ("ranks", model + "cluster: { parallel: tensor=4 }\n", "ranks"),
        ("left over", model + "cluster: { groups: { a: { ranks: 2 } } }\n", "ranks"),
        ("device", model + "cluster: { device: abacus }\n", "abacus"),
        ("listen", model + 'gateway: { listen: "nowhere" }\n', "listen"),
        ("keys", model + "gateway: { keys: missing.txt }\n", "missing.txt"),
        ("cert", model + "gateway: { tls: { cert: a.pem, key: b.pem } }\n", "a.pem"),
        ("not a model", f'models: [{{ name: a, path: "{DIGITS}/labels.csv" }}]\n', "labels.csv"),
        ("settings", f'models: [{{ name: a, path: "{DIGITS}/model.onnx", max_batch: -3 }}]\n', "max_batch"),
    ]:
        path.write_text(text)
        r = subprocess.run([trireme, "serve", str(path)], capture_output=True, timeout=60 * SCALE)
        lines = [x for x in r.stderr.decode(errors="replace").splitlines() if not x[:4].isdigit()]
        if r.returncode != 2 or len(lines) != 1 or says not in lines[0] or r.stdout:
            print(r.stderr.decode())
            fail(None, f"{name}: exit code {r.returncode}, {len(lines)} lines, want one with '{says}' and 2")
    shutil.rmtree(work)
    print("17 configurations refused with one line each")


{"layouts": layouts, "drain": drain, "reload": reload, "groups": groups, "turns": turns, "follower": follower, "bad": bad}[case]()
