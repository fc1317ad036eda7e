#!/usr/bin/env python3
"""Trireme beside PyTorch (compiled, CUDA graphs) and, where it runs on the GPU, onnxruntime: ResNet-50 and BERT-base.

usage: bench.py --trireme build/release/trireme --models FOLDER [--rounds 5] [--cases A,B] [--json FILE]
       FOLDER: what models.py wrote

Protocol: same weights, dtype, batch, inputs. The outputs are compared first (fp32 PyTorch is the judge: error over the
largest value; fp16 2e-2, bf16 5e-2, fp32 1e-4), else there is no speed row. Then rounds of Trireme, rival, rival, Trireme, each
Trireme run a fresh process; a row's ratio is the geometric mean of the rounds' ratios of medians with a bootstrap 95%
interval (below 1: Trireme is faster; claimed only where the interval excludes 1). Inputs stay in device memory on both
sides (`trireme bench --resident`), outputs come back to the host. Before each round a bf16 product is timed: rounds under
90% of the run's best are thrown away. Losses are printed in the same table."""
import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time

import numpy as np
import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import models  # noqa: E402

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
BOUNDS = {"fp16": 2e-2, "bf16": 5e-2, "fp32": 1e-4}
# name: model, dtype, batch, timed calls, the bar (ms a step or records/s)
CASES = {
    "resnet50-fp16-b1": ("resnet50", "fp16", 1, 400, ("ms", 0.40)),
    "resnet50-fp16-b256": ("resnet50", "fp16", 256, 40, ("rate", 35000)),
    "resnet50-fp32-b1": ("resnet50", "fp32", 1, 200, None),
    "bert-bf16-b1": ("bert", "bf16", 1, 400, ("ms", 0.45)),
    "bert-bf16-b128": ("bert", "bf16", 128, 40, ("rate", 18000)),
}


def geometric(values):
    return math.exp(statistics.fmean(map(math.log, values)))


def interval(values, rng):
    if len(values) < 2:
        return values[0], values[0]
    means = sorted(geometric(rng.choices(values, k=len(values))) for _ in range(2000))
    return means[50], means[1949]


def probe():
    """TFLOP/s of a bf16 product."""
    a = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(20):
        a @ a
    torch.cuda.synchronize()
    return 20 * 2 * 4096 ** 3 / (time.perf_counter() - start) / 1e12


def trireme(args, folder, dtype, inputs, calls):
    names = [f"{n}={p}" for n, p in inputs]
    command = [args.trireme, "bench", folder, "--device", "cuda", "--dtype", dtype, "--rounds", str(calls), "--resident",
               "--json", "--input", *names]
    r = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if r.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit code {r.returncode}: {r.stderr.strip()[-400:]}")
    return json.loads(r.stdout)


def accuracy(args, folder, dtype, inputs, want, scratch):
    names = [f"{n}={p}" for n, p in inputs]
    subprocess.run([args.trireme, "run", folder, "--device", "cuda", "--dtype", dtype, "--output-dir", scratch, "--input",
                    *names], check=True, stdin=subprocess.DEVNULL, capture_output=True)
    worst = 0.0
    for name, w in want.items():
        got = np.load(os.path.join(scratch, name + ".npy"))
        worst = max(worst, float(np.abs(got - w).max() / np.abs(w).max()))
    return worst


class Torch:
    """The module in the case's dtype, compiled with CUDA graphs; falls back to a graph captured by hand."""

    def __init__(self, name, dtype, tensors):
        net = models.load(name).cuda().to(DTYPES[dtype])
        if name == "resnet50":
            net = net.to(memory_format=torch.channels_last)
        self.inputs = [t.cuda().to(DTYPES[dtype]) if t.is_floating_point() else t.cuda() for t in tensors]
        if name == "resnet50":
            self.inputs = [t.contiguous(memory_format=torch.channels_last) for t in self.inputs]
        self.how = "torch.compile max-autotune"
        try:
            self.net = torch.compile(net, mode="max-autotune")
            self.step()
        except Exception as e:  # no compiler for its kernels here
            self.how = f"CUDA graph, eager kernels ({type(e).__name__})"
            self.net = self.by_hand(net)
        for _ in range(5):
            self.step()

    def by_hand(self, net):
        stream = torch.cuda.Stream()
        with torch.no_grad(), torch.cuda.stream(stream):
            for _ in range(3):
                net(*self.inputs)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(graph):
            out = net(*self.inputs)

        def replay(*_):
            graph.replay()
            return out

        return replay

    def step(self):
        with torch.no_grad():
            out = self.net(*self.inputs)
        return [o.float().cpu() for o in (out if isinstance(out, (tuple, list)) else (out,))]

    def times(self, calls):
        ms = []
        for _ in range(calls):
            start = time.perf_counter()
            self.step()
            ms.append((time.perf_counter() - start) * 1e3)
        return ms

    def flow(self, calls):
        """Steps launched without waiting for each other: throughput."""
        torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.no_grad():
            for _ in range(calls):
                self.net(*self.inputs)
        torch.cuda.synchronize()
        return (time.perf_counter() - start) * 1e3 / calls


class Ort:
    def __init__(self, folder, tensors, names):
        import onnxruntime

        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise RuntimeError("this onnxruntime has no CUDA provider")
        self.session = onnxruntime.InferenceSession(os.path.join(folder, "model.onnx"),
                                                    providers=["CUDAExecutionProvider"])
        self.how = f"onnxruntime {onnxruntime.__version__} (fp32)"
        self.feed = {n: t.numpy() for n, t in zip(names, tensors)}

    def times(self, calls):
        ms = []
        for _ in range(calls):
            start = time.perf_counter()
            self.session.run(None, self.feed)
            ms.append((time.perf_counter() - start) * 1e3)
        return ms

    def flow(self, calls):
        return statistics.median(self.times(calls))


def compare(args, case, rival, runs, rng):
    """Rounds of A B B A; returns the row."""
    name, dtype, batch, calls, bar = CASES[case]
    folder, inputs = runs
    rounds, best = [], 0.0
    for _ in range(args.rounds):
        speed = probe()
        best = max(best, speed)
        pairs = []
        for side in "ABBA":
            pairs.append(trireme(args, folder, dtype, inputs, calls) if side == "A" else
                         (rival.times(calls), rival.flow(calls)))
        ours = geometric([pairs[0]["median_ms"], pairs[3]["median_ms"]])
        theirs = geometric([statistics.median(pairs[1][0]), statistics.median(pairs[2][0])])
        flow = geometric([p.get("flow_ms", p["median_ms"]) for p in (pairs[0], pairs[3])])
        their_flow = geometric([pairs[1][1], pairs[2][1]])
        rounds.append((speed, ours, theirs, flow, their_flow, pairs[0]))
    rounds = [r for r in rounds if r[0] >= 0.9 * best] or rounds
    latency = [r[1] / r[2] for r in rounds]
    rate = [r[3] / r[4] for r in rounds]
    ours, flow = statistics.median(r[1] for r in rounds), statistics.median(r[3] for r in rounds)
    met = None
    if bar is not None:
        met = ours <= bar[1] if bar[0] == "ms" else batch * 1e3 / flow >= bar[1]
    lo, hi = interval(latency, rng)
    flo, fhi = interval(rate, rng)
    return {"case": case, "rival": rival.how, "rounds": len(rounds), "ours_ms": ours,
            "theirs_ms": statistics.median(r[2] for r in rounds), "latency_ratio": [geometric(latency), lo, hi],
            "ours_rate": batch * 1e3 / flow, "theirs_rate": batch * 1e3 / statistics.median(r[4] for r in rounds),
            "rate_time_ratio": [geometric(rate), flo, fhi], "bar": bar, "bar_met": met, "probe_tflops": best,
            "kernels": rounds[0][5].get("kernels"), "host_kernels": rounds[0][5].get("host_kernels"),
            "captures": rounds[0][5].get("captures")}


def main():
    p = argparse.ArgumentParser(usage=__doc__)
    p.add_argument("--trireme", required=True)
    p.add_argument("--models", required=True)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--cases", default=",".join(CASES))
    p.add_argument("--json")
    args = p.parse_args()
    if not torch.cuda.is_available():
        print("bench.py: PyTorch sees no GPU: skipped")
        return 77
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    rng, rows = random.Random(1), []
    print(f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}, CUDA {torch.version.cuda}, "
          f"cuDNN {torch.backends.cudnn.version()}", flush=True)
    for case in args.cases.split(","):
        name, dtype, batch, _, _ = CASES[case]
        folder = os.path.join(args.models, name)
        scratch = os.path.join(args.models, "scratch", case)
        os.makedirs(scratch, exist_ok=True)
        tensors = models.inputs_of(name, batch)
        inputs = []
        for n, t in tensors.items():
            path = os.path.join(scratch, f"in_{n}.npy")
            np.save(path, t.numpy())
            inputs.append((n, path))
        net = models.load(name).cuda()
        with torch.no_grad():
            out = net(*[t.cuda() for t in tensors.values()])
        names = ["logits"] if name == "resnet50" else ["hidden", "pooled"]
        want = {n: o.float().cpu().numpy() for n, o in zip(names, out if isinstance(out, tuple) else (out,))}
        del net, out
        torch.cuda.empty_cache()
        try:
            error = accuracy(args, folder, dtype, inputs, want, scratch)
        except (subprocess.CalledProcessError, OSError) as e:
            print(f"{case}: Trireme failed: {getattr(e, 'stderr', e)}", flush=True)
            rows.append({"case": case, "failed": str(getattr(e, "stderr", e))})
            continue
        if not error <= BOUNDS[dtype]:
            print(f"{case}: error {error:.2e} of the scale, allowed {BOUNDS[dtype]}: no speed row", flush=True)
            rows.append({"case": case, "error": error, "failed": "accuracy"})
            continue
        rivals = [lambda: Torch(name, dtype, list(tensors.values()))]
        if dtype == "fp32":
            rivals.append(lambda: Ort(folder, list(tensors.values()), list(tensors)))
        for make in rivals:
            try:
                row = compare(args, case, make(), (folder, inputs), rng)
            except Exception as e:
                print(f"{case}: a rival does not run here: {e}", flush=True)
                continue
            row["error"] = error
            rows.append(row)
            r, t = row["latency_ratio"], row["rate_time_ratio"]
            print(f"{case}: {row['ours_ms']:.4f} ms a step, {row['ours_rate']:.0f} records/s; {row['rival']}: "
                  f"{row['theirs_ms']:.4f} ms, {row['theirs_rate']:.0f}; time over theirs {r[0]:.3f} [{r[1]:.3f}, {r[2]:.3f}], "
                  f"flow {t[0]:.3f} [{t[1]:.3f}, {t[2]:.3f}]; error {error:.1e}; bar {row['bar']}: "
                  f"{'met' if row['bar_met'] else 'none' if row['bar'] is None else 'MISSED'}; "
                  f"{row['kernels']} kernels, {row['host_kernels']} on the host, {row['captures']} captures", flush=True)
            torch.cuda.empty_cache()
    if args.json:
        with open(args.json, "w") as f:
            json.dump(rows, f, indent=1)
    return 0


sys.exit(main())
