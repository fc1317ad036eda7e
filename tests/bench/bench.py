#!/usr/bin/env python3
"""Pairs Trireme with onnxruntime on whole networks, and writes a table.

usage: bench.py --trireme build/release/trireme --models .cache/networks [--threads 2,1] [--rounds 7] [--cases A,B]
                [--out docs/measurements/DATE-onnxruntime.md]

Protocol: the outputs of both are compared first (1e-4 of the scale), else there is no speed row. A round is four fresh
processes, Trireme, onnxruntime, onnxruntime, Trireme, each with 3 warm-ups and at least 20 timed calls; its ratio is the
geometric mean of Trireme's two medians over that of onnxruntime's. A probe of the machine goes before each round; rounds whose
probe is under 90% of the run's best are thrown away. Reported: geometric mean of the ratios with a bootstrap 95%
interval (below 1 is faster; a win or a loss is claimed only where the interval excludes 1), each side's median, minimum
and p99, and the share of the machine's multiply-add limit. Above 100% of that limit is a bug and fails.
Models: tests/oracles/networks/export.py full DIR resnet50 mobilenet_v2 bert. Run it on a quiet machine; needs
onnxruntime and numpy."""
import argparse
import datetime
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
# name: (folder, batch, multiply-adds a record in 1e9, calls, input maker)
PIXELS = lambda b: {"image": np.random.default_rng(1).standard_normal((b, 3, 224, 224)).astype(np.float32)}


def words(_):
    ids = np.random.default_rng(1).integers(0, 30522, (1, 128))
    return {"input_ids": ids, "attention_mask": np.ones((1, 128), np.int64), "token_type_ids": np.zeros((1, 128), np.int64)}


CASES = {
    "resnet50-b1": ("resnet50", 1, 4.09, 20, PIXELS),
    "resnet50-b8": ("resnet50", 8, 4.09, 20, PIXELS),
    "mobilenet_v2-b1": ("mobilenet_v2", 1, 0.301, 60, PIXELS),
    "bert-base-1x128": ("bert", 1, 11.17, 20, words),
}


def run(command, **kw):
    r = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **kw)
    if r.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit code {r.returncode}: {r.stderr.strip()[-400:]}")
    return r.stdout


def percentile(values, p):
    return sorted(values)[min(len(values) - 1, int(p * len(values)))]


def geometric(values):
    return math.exp(statistics.fmean(map(math.log, values)))


def bootstrap(values, n=10000):
    rng = random.Random(1)
    means = sorted(geometric(rng.choices(values, k=len(values))) for _ in range(n))
    return means[int(0.025 * n)], means[int(0.975 * n)]


class Pair:
    def __init__(self, args, name, threads, folder):
        self.args, self.name, self.threads = args, name, threads
        network, self.batch, self.gmacs, self.calls, make = CASES[name]
        self.model = os.path.join(args.models, network, "model.onnx")
        self.inputs = make(self.batch)
        self.npz = os.path.join(folder, f"{name}.npz")
        np.savez(self.npz, **self.inputs)
        self.flags = []
        for key, value in self.inputs.items():
            path = os.path.join(folder, f"{name}-{key}.npy")
            np.save(path, value)
            self.flags += ["--input", f"{key}={path}"]
        self.folder = folder

    def trireme(self):
        out = run([self.args.trireme, "bench", self.model, "--threads", str(self.threads), "--batch", str(self.batch),
                   "--warmup", "3", "--rounds", str(self.calls), "--json", *self.flags])
        return json.loads(out)["ms"]

    def rival(self, outputs=None):
        command = [sys.executable, os.path.join(HERE, "ort_bench.py"), self.model, str(self.threads), "3",
                   str(self.calls), self.npz]
        return json.loads(run(command + ([outputs] if outputs else [])))["ms"]

    def agree(self):
        """Largest error as a share of the scale, over all outputs."""
        want_path, got_dir = os.path.join(self.folder, "want.npz"), os.path.join(self.folder, "got")
        os.makedirs(got_dir, exist_ok=True)
        self.rival(want_path)
        run([self.args.trireme, "run", self.model, "--threads", str(self.threads), *self.flags, "--output-dir", got_dir])
        worst = 0.0
        for name, want in np.load(want_path).items():
            got = np.load(os.path.join(got_dir, name + ".npy"))
            if got.shape != want.shape:
                return math.inf
            worst = max(worst, float(np.abs(got - want).max() / np.abs(want).max()))
        return worst


def measure(pair, probe):
    error = pair.agree()
    if not error <= 1e-4:
        return {"name": pair.name, "threads": pair.threads, "error": error, "ratios": []}
    rounds, best = [], 0.0
    limit = max(2 * pair.args.rounds, pair.args.rounds + 4)
    while len(rounds) < limit:
        p = json.loads(run([probe, str(pair.threads)]))
        best = max(best, p["gflops"])
        a1, b1, b2, a2 = pair.trireme(), pair.rival(), pair.rival(), pair.trireme()
        ratio = geometric([statistics.median(a1), statistics.median(a2)]) / geometric(
            [statistics.median(b1), statistics.median(b2)])
        rounds.append((p, ratio, a1 + a2, b1 + b2))
        print(f"  {pair.name} x{pair.threads} round {len(rounds)}: ratio {ratio:.3f}, probe {p['gflops']:.0f} GFLOP/s",
              file=sys.stderr, flush=True)
        if sum(r[0]["gflops"] >= 0.9 * best for r in rounds) >= pair.args.rounds:
            break
    kept = [r for r in rounds if r[0]["gflops"] >= 0.9 * best]
    ours, theirs = [t for r in kept for t in r[2]], [t for r in kept for t in r[3]]
    share = 2 * pair.gmacs * pair.batch / (min(ours) / 1e3) / best
    return {"name": pair.name, "threads": pair.threads, "error": error, "ratios": [r[1] for r in kept],
            "thrown": len(rounds) - len(kept), "ours": ours, "theirs": theirs, "gflops": best,
            "gbps": max(r[0]["gbps"] for r in kept), "share": share}


def cpu_name():
    with open("/proc/cpuinfo") as f:
        return next((l.split(":", 1)[1].strip() for l in f if l.startswith("model name")), platform.machine())


def table(results, args):
    import onnxruntime
    commit = run(["git", "-C", HERE, "log", "-1", "--format=%h"]).strip()
    lines = [f"# Trireme and onnxruntime {onnxruntime.__version__}, {datetime.date.today()}", "",
             f"Machine: {cpu_name()}, {os.cpu_count()} CPUs. Trireme at {commit}, fp32 both. Command: `{args.command}`.",
             "Protocol: the head of `tests/bench/bench.py`. Ratio: Trireme's time over onnxruntime's, below 1 is faster.", "",
             "| case | threads | ratio [95%] | verdict | Trireme ms: median, min, p99 | onnxruntime ms: median, min, p99 | "
             "of FMA limit | error of scale | rounds (thrown) |", "|---|---|---|---|---|---|---|---|---|"]
    bad = False
    for r in results:
        if not r["ratios"]:
            lines.append(f"| {r['name']} | {r['threads']} | no row: outputs differ | | | | | {r['error']:.1e} | |")
            bad = True
            continue
        low, high = bootstrap(r["ratios"])
        verdict = "faster" if high < 1 else "slower" if low > 1 else "equal"
        side = lambda t: f"{statistics.median(t):.2f}, {min(t):.2f}, {percentile(t, 0.99):.2f}"
        if r["share"] > 1.0:
            verdict, bad = "ABOVE THE LIMIT: a bug of the measurement", True
        lines.append(f"| {r['name']} | {r['threads']} | {geometric(r['ratios']):.3f} [{low:.3f}, {high:.3f}] | {verdict} | "
                     f"{side(r['ours'])} | {side(r['theirs'])} | {100 * r['share']:.0f}% | {r['error']:.1e} | "
                     f"{len(r['ratios'])} ({r['thrown']}) |")
    limits = {r["threads"]: (r["gflops"], r["gbps"]) for r in results if r["ratios"]}
    lines += ["", "Limits measured in the run: " + "; ".join(
        f"{t} threads: {g:.0f} GFLOP/s fp32, {b:.1f} GB/s read" for t, (g, b) in sorted(limits.items())) + "."]
    return "\n".join(lines) + "\n", bad


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--trireme", required=True)
    p.add_argument("--models", required=True)
    p.add_argument("--threads", default="2,1")
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--cases", default=",".join(CASES))
    p.add_argument("--out")
    args = p.parse_args()
    args.command = "tests/bench/bench.py " + f"--threads {args.threads} --rounds {args.rounds}"
    with tempfile.TemporaryDirectory() as folder:
        probe = os.path.join(folder, "probe")
        run(["cc", "-O3", "-march=native", "-fopenmp", os.path.join(HERE, "probe.c"), "-o", probe])
        results = [measure(Pair(args, name, int(t), folder), probe)
                   for t in args.threads.split(",") for name in args.cases.split(",")]
    text, bad = table(results, args)
    print(text)
    if args.out:
        os.makedirs(os.path.dirname(os.path.abspath(args.out)), exist_ok=True)
        with open(args.out, "w") as f:
            f.write(text)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
