#!/usr/bin/env python3
"""Measures layouts that fit two cores, and what the planner predicted for them; writes tables.

usage: layouts.py --trireme build/release/trireme --models DIR [--networks resnet50,bert,mobilenet_v2,densenet121] [--batches 1,8]
                  [--rounds 5] [--out docs/measurements/DATE-layouts.md]

Layouts: one rank with one and with two threads; data=2, tensor=2 and pipeline=2 with one thread a rank. A round runs each
layout once, in an order that turns from round to round, each in fresh processes (3 warm-ups, 20 timed steps, 6 at batch 8); per layout
the median over rounds of each run's median step (latency) and of its records a second (pipelines full; data=2: two ranks that
run at the same time, summed). Predictions: `trireme plan --json` with the layout forced, rates measured before the first round.
Reported: prediction error per case and its median; the planner's choice among the layouts beside the best measured one; and
the scaling ratios. Run it on a quiet machine."""
import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys

LAYOUTS = {  # name: (ranks, threads, --parallel)
    "1x1": (1, 1, "data=1"),
    "1x2": (1, 2, "data=1"),
    "data=2": (2, 1, "data=2"),
    "tensor=2": (2, 1, "tensor=2"),
    "pipeline=2": (2, 1, "pipeline=2"),
}
DIMS = {"bert": ["--dim", "sequence=128"]}
ENV = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_hwloc_base_binding_policy="none")


def run(command):
    r = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=ENV)
    if r.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {r.returncode}: {r.stderr.strip()[-600:]}")
    return r.stdout


def measure(a, model, layout, batch, dims):
    """(ms a step, records a second)"""
    ranks, threads, parallel = LAYOUTS[layout]
    steps = str(max(6, a.steps // batch))
    base = [a.trireme, "bench", model, "--batch", str(batch), "--threads", str(threads), "--rounds", steps, "--json"] + dims
    if layout == "data=2":  # two replicas that know nothing of each other, as in a job
        both = [subprocess.Popen(["taskset", "-c", str(i)] + base, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ENV)
                for i in range(2)]
        found = [json.loads(p.communicate()[0]) for p in both]
        ms = statistics.fmean(f["median_ms"] for f in found)
        return ms, sum(batch / f["median_ms"] * 1e3 for f in found)
    if ranks == 1:
        f = json.loads(run((["taskset", "-c", "0"] if threads == 1 else []) + base))
        return f["median_ms"], batch / f["median_ms"] * 1e3
    f = json.loads(run(["mpirun", "-np", str(ranks)] + base + ["--parallel", parallel]))
    return f["median_ms"], batch / f.get("flow_ms", f["median_ms"]) * 1e3


def predict(a, model, layout, batch, dims):
    ranks, threads, parallel = LAYOUTS[layout]
    out = json.loads(run([a.trireme, "plan", model, "--ranks", str(ranks), "--threads", str(threads), "--parallel", parallel,
                          "--batch", str(batch), "--json"] + dims))
    c = next(c for c in out["candidates"] if c["parallel"] == out["parallel"])
    return c["step_us"] / 1e3, c["records_s"]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--trireme", required=True)
    p.add_argument("--models", required=True)
    p.add_argument("--networks", default="resnet50,bert,mobilenet_v2,densenet121")
    p.add_argument("--batches", default="1,8")
    p.add_argument("--layouts", default=",".join(LAYOUTS))
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--out")
    a = p.parse_args()
    layouts = a.layouts.split(",")
    rows, errors, choices, scaling = [], [], [], []
    for network in a.networks.split(","):
        model = os.path.join(a.models, network)
        dims = DIMS.get(network, [])
        for batch in map(int, a.batches.split(",")):
            predicted = {l: predict(a, model, l, batch, dims) for l in layouts}
            runs = {l: [] for l in layouts}
            for r in range(a.rounds):
                order = layouts[r % len(layouts):] + layouts[:r % len(layouts)]
                for l in order:
                    runs[l].append(measure(a, model, l, batch, dims))
            ms = {l: statistics.median(m for m, _ in v) for l, v in runs.items()}
            rate = {l: statistics.median(x for _, x in v) for l, v in runs.items()}
            for l in layouts:
                # a pipeline's and a data layout's purpose is throughput, the others' time is their step
                got, want = (1e3 * batch / rate[l], 1e3 * batch / predicted[l][1])
                error = want / got - 1
                errors.append(abs(error))
                rows.append(f"| {network} | {batch} | {l} | {ms[l]:.2f} | {predicted[l][0]:.2f} | {rate[l]:.2f} | {predicted[l][1]:.2f} "
                            f"| {100 * (predicted[l][0] / ms[l] - 1):+.0f}% | {100 * error:+.0f}% |")
                print(rows[-1], flush=True)
            for what, value, best in (("latency", ms, min), ("throughput", rate, max)):
                index = 0 if what == "latency" else 1
                choice = best(layouts, key=lambda l: predicted[l][index])
                top = best(layouts, key=lambda l: value[l])
                loss = max(value[choice] / value[top], value[top] / value[choice]) - 1
                choices.append(f"| {network} | {batch} | {what} | {choice} | {top} | {100 * loss:.1f}% |")
                print(choices[-1], flush=True)
            if all(l in layouts for l in LAYOUTS):
                scaling.append(f"| {network} | {batch} | {rate['data=2'] / rate['1x1']:.2f} | {ms['tensor=2'] / ms['1x2']:.2f} "
                               f"| {rate['pipeline=2'] / rate['1x1']:.2f} |")
                print(scaling[-1], flush=True)
    text = [f"# Layouts on two cores, {datetime.date.today()}", "",
            f"Command: `tests/bench/layouts.py --networks {a.networks} --batches {a.batches} --rounds {a.rounds}`. Protocol: its head.", "",
            "| network | batch | layout | ms a step | predicted | records/s | predicted | error, step | error, records/s |",
            "|---|---|---|---|---|---|---|---|---|", *rows, "",
            f"Median error (time a record, pipelines full): {100 * statistics.median(errors):.1f}%.", "",
            "| network | batch | objective | the planner's choice | best measured | loss |", "|---|---|---|---|---|---|", *choices, ""]
    if scaling:
        text += ["| network | batch | data=2 over one rank, one thread | tensor=2: time over one rank, two threads "
                 "| pipeline=2 over one rank, one thread |", "|---|---|---|---|---|", *scaling, ""]
    print("\n".join(text))
    if a.out:
        with open(a.out, "w") as f:
            f.write("\n".join(text))


main()
