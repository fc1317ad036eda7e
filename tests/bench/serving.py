#!/usr/bin/env python3
"""What serving costs, on a quiet machine.

usage: serving.py --trireme build/release/trireme --latency build/dev/tests/bench_gateway_latency [--cases a,b] [--rounds 5]
                  [--language MODEL] [--embed MODEL] [--networks DIR (cnn_models.py)]

Cases, each in rounds whose sides alternate (A B B A), with the median of the rounds reported:
  gateway      a small inference over HTTP and over the public ZeroMQ endpoint, one client: what the gateway adds
  throughput   tokens a second of a server with 16 slots that is never idle, against trireme score on the same requests
  tail         end-to-end latency at 75 % of that rate, Poisson arrivals, answers of one length
  tensor-tail  the same for the demo network without batching: beside M/D/1
  batching     16 clients with one image (or text) each: batching on against off
  start        from start to ready for the demo models, 1 and 4 ranks; memory of the coordinator's job
"""
import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "mpi"))
from serving import Cluster

ap = argparse.ArgumentParser()
ap.add_argument("--trireme", required=True)
ap.add_argument("--latency")
ap.add_argument("--cases", default="gateway,throughput,tail,tensor-tail,batching,start")
ap.add_argument("--rounds", type=int, default=5)
ap.add_argument("--language", default="configs/demo/tiny-sotu")
ap.add_argument("--embed")
ap.add_argument("--networks")
ap.add_argument("--threads", type=int, default=2)
ap.add_argument("--shares", type=lambda t: [float(x) for x in t.split(",")], default=[0.25, 0.5, 0.75, 0.9])
ap.add_argument("--tail", type=int, default=300, help="requests at each load of the tail")
ap.add_argument("--requests", type=int, default=512, help="of a throughput round")
o = ap.parse_args()
DIGITS = os.path.abspath("configs/demo/digits/model.onnx")
PROMPT, NEW, SLOTS = 64, 64, 16


def start(models, more="", threads=o.threads, **kw):
    Cluster.threads = threads
    more += "\nlimits: { requests_per_key: 1024, queue: 8192 }"
    return Cluster(os.path.abspath(o.trireme), models, more=more, env={"OMP_WAIT_POLICY": ""} if threads > 1 else None, **kw).ready(120)


def load(c, *more):
    with tempfile.NamedTemporaryFile(suffix=".json") as f:
        r = subprocess.run([o.trireme, "bench", "--url", c.url.geturl(), "--json", f.name, *more], capture_output=True, text=True)
        if r.returncode:
            sys.exit(r.stderr)
        return json.load(open(f.name))


def ratio(name, pairs, unit):
    a, b = statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)
    rs = sorted(x / y for x, y in pairs)
    rng = random.Random(1)
    boot = sorted(statistics.geometric_mean(rng.choices(rs, k=len(rs))) for _ in range(2000))
    print(f"{name}: {a:.1f} against {b:.1f} {unit}; ratio {statistics.geometric_mean(rs):.3f} "
          f"(95 %: {boot[50]:.3f} to {boot[1949]:.3f}, {len(rs)} rounds)", flush=True)


def gateway():
    c = start(f'  - {{ name: digits, path: "{DIGITS}" }}', more='zmq: { clients: "tcp://127.0.0.1:15599" }', threads=1)
    for _ in range(o.rounds):
        r = subprocess.run([o.latency, c.url.hostname, str(c.url.port), "tcp://127.0.0.1:15599", "digits", "image", "1x1x32x32", "8000"],
                           capture_output=True, text=True, check=True)
        print("gateway: " + "; ".join(r.stdout.strip().splitlines()[1:]), flush=True)
    c.end()


def language(c, n, *more):
    return load(c, "--api", "openai", "--endpoint", "completions", "--prompt-tokens", str(PROMPT), "--max-tokens", str(NEW),
                "--ignore-eos", "--requests", str(n), *more)


def throughput():
    models = f'  - {{ name: m, path: "{os.path.abspath(o.language)}", max_batch: {SLOTS}, temperature: 0, context: 512 }}'
    rng = random.Random(3)
    words = ["people", "law", "great", "public", "nation", "year", "peace", "house", "land", "time", "power", "state", "war", "union"]
    with tempfile.TemporaryDirectory() as d:
        def score(n):
            path = pathlib.Path(d, "in.jsonl")
            path.write_text("".join(json.dumps({"prompt": " ".join(rng.choices(words, k=PROMPT)), "max_tokens": NEW, "ignore_eos": True}) + "\n"
                                    for _ in range(n)))
            at = time.monotonic()
            subprocess.run([o.trireme, "score", o.language, "--input", str(path), "--output", str(pathlib.Path(d, "out.jsonl")), "--overwrite",
                            "--threads", str(o.threads), "--max-batch", str(SLOTS), "--temperature", "0", "--context", "512"], check=True,
                           capture_output=True)
            return time.monotonic() - at

        c = start(models)
        language(c, 32, "--concurrency", "32", "--no-stream")
        pairs = []
        for i in range(o.rounds):
            offline = lambda: o.requests * NEW / (score(o.requests + 32) - score(32))
            online = lambda: language(c, o.requests, "--concurrency", "32", "--no-stream")["tokens_per_s"]
            a = [offline(), online()] if i % 2 == 0 else [online(), offline()][::-1]
            pairs.append((a[1], a[0]))
        ratio(f"throughput, serving against score ({PROMPT} + {NEW} tokens, {SLOTS} slots)", pairs, "tokens/s")
        streamed = [language(c, o.requests, "--concurrency", "32")["tokens_per_s"] for _ in range(2)]
        print(f"throughput, streamed: {statistics.median(streamed):.1f} tokens/s; 64 streams at once: "
              f"{language(c, o.requests, '--concurrency', '64')['tokens_per_s']:.1f}, failed {language(c, 64, '--concurrency', '64')['failed']}", flush=True)
        c.end()
        return statistics.median(p[0] for p in pairs) / NEW


def tail(capacity):
    models = f'  - {{ name: m, path: "{os.path.abspath(o.language)}", max_batch: {SLOTS}, temperature: 0, context: 512 }}'
    c = start(models)
    language(c, 32, "--concurrency", "32")
    for share in o.shares:
        r = language(c, o.tail, "--rate", f"{capacity * share:.3f}", "--seed", "5")
        t, f, k = r["total"], r["first"], r["token"]
        print(f"tail at {share:.0%} ({capacity * share:.2f} requests/s): total p50 {t['p50_ms']:.0f}, p90 {t['p90_ms']:.0f}, p99 {t['p99_ms']:.0f} ms "
              f"(p99/p50 {t['p99_ms'] / t['p50_ms']:.2f}); first p50 {f['p50_ms']:.1f}, p99 {f['p99_ms']:.1f}; token p50 {k['p50_ms']:.2f}, "
              f"p99 {k['p99_ms']:.2f}; late p99 {r['late']['p99_ms']:.2f}, failed {r['failed']}", flush=True)
    c.end()


def tensor_tail():
    c = start(f'  - {{ name: digits, path: "{DIGITS}", batching: false }}', threads=1)
    service = load(c, "--api", "v2", "--requests", "3000", "--warmup", "200")
    capacity = service["requests_per_s"]
    for share in (0.25, 0.5, 0.75, 0.9):
        r = load(c, "--api", "v2", "--rate", f"{capacity * share:.1f}", "--requests", "4000", "--warmup", "100")
        t = r["total"]
        print(f"tensor tail at {share:.0%} of {capacity:.0f} requests/s: p50 {t['p50_ms']:.3f}, p99 {t['p99_ms']:.3f} ms, p99/p50 "
              f"{t['p99_ms'] / t['p50_ms']:.2f} (M/D/1 at 75 %: 4.6)", flush=True)
    c.end()


def batching():
    cases = []
    if o.networks:
        cases += [("alexnet", f"{o.networks}/alexnet.onnx", ["--api", "v2"], 160, "batching: false", "max_batch: 16, max_delay: 10ms"),
                  ("resnet50", f"{o.networks}/resnet50.onnx", ["--api", "v2"], 96, "batching: false", "max_batch: 16, max_delay: 10ms")]
    if o.embed:
        cases.append(("embeddings", o.embed, ["--api", "openai", "--endpoint", "embeddings", "--prompt-tokens", "32"], 640, "max_batch: 1",
                      "max_batch: 16"))
    for name, path, how, n, off, on in cases:
        servers = {k: start(f'  - {{ name: m, path: "{os.path.abspath(path)}", {v} }}') for k, v in (("off", off), ("on", on))}
        for c in servers.values():
            load(c, *how, "--concurrency", "16", "--requests", "64")
        pairs = []
        for i in range(o.rounds):
            got = {}
            for k in ("on", "off") if i % 2 else ("off", "on"):
                got[k] = load(servers[k], *how, "--concurrency", "16", "--requests", str(n))
            pairs.append((got["on"]["requests_per_s"], got["off"]["requests_per_s"]))
        ratio(f"batching, {name}, 16 clients: on against off", pairs, "requests/s")
        print(f"  latency p50/p99: on {got['on']['total']['p50_ms']:.1f}/{got['on']['total']['p99_ms']:.1f}, off "
              f"{got['off']['total']['p50_ms']:.1f}/{got['off']['total']['p99_ms']:.1f} ms", flush=True)
        for c in servers.values():
            c.end()


def start_up():
    models = f'  - {{ name: digits, path: "{DIGITS}" }}\n  - {{ name: sotu, path: "{os.path.abspath("configs/demo/tiny-sotu")}" }}'
    for ranks, layout in ((1, ""), (4, "replicas: 4"), (4, 'parallel: "tensor=4"')):
        times = []
        for _ in range(o.rounds):
            c = start(models, threads=1, ranks=ranks, cluster=layout)
            times.append(c.ready_s)
            c.end()
        print(f"start to ready, {ranks} ranks {layout}: median {statistics.median(times):.2f} s beyond MPI's own start", flush=True)
    c = start(models, threads=1, ranks=1, command="launch", cluster="replicas: 2")
    for p in c.ranks():
        line = pathlib.Path(f"/proc/{p}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        rss = [x for x in pathlib.Path(f"/proc/{p}/status").read_text().splitlines() if x.startswith("VmRSS")][0].split()[1]
        private = sum(int(x.split()[1]) for x in pathlib.Path(f"/proc/{p}/smaps_rollup").read_text().splitlines() if x.startswith("Private"))
        print(f"memory: {'coordinator' if 'coordinator' in line else 'replica'}: resident {int(rss) / 1024:.1f} MiB, private {private / 1024:.1f}", flush=True)
    c.mpirun = False
    c.end()


print(f"{time.strftime('%Y-%m-%d')}, load {os.getloadavg()[0]:.2f}, {o.threads} threads", flush=True)
capacity = None
for case in o.cases.split(","):
    if case == "gateway":
        gateway()
    elif case == "throughput":
        capacity = throughput()
    elif case == "tail":
        tail(capacity or throughput())
    elif case == "tensor-tail":
        tensor_tail()
    elif case == "batching":
        batching()
    elif case == "start":
        start_up()
