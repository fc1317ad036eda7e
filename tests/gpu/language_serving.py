#!/usr/bin/env python3
"""Many streams through the gateway beside the engine alone.

usage: language_serving.py --trireme TRIREME --model FOLDER [--streams 256] [--prompt 512] [--new 256] [--requests 768] [--json FILE]
The engine: all streams at once from beginning to end (trireme bench). The gateway: a closed loop of as many (trireme bench --url).
Bars: at least 90% of the engine's tokens a second; p99 of the time between tokens within 1.5 times the median.
TRM_GPU_DRY=small: a few streams of few tokens, and no bar is judged."""
import argparse
import json
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "mpi"))
from serving import Cluster, fail

DRY = os.environ.get("TRM_GPU_DRY") == "small"


def run(command):
    r = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if r.returncode != 0:
        print(r.stdout[-2000:])
        return None, f"{command[1]}: exit code {r.returncode}: {r.stderr.strip()[-600:]}"
    return json.loads(r.stdout[r.stdout.index("{"):]), None


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--trireme", required=True)
    p.add_argument("--model", required=True)
    p.add_argument("--streams", type=int, default=4 if DRY else 256)
    p.add_argument("--prompt", type=int, default=20 if DRY else 512)
    p.add_argument("--new", type=int, default=6 if DRY else 256)
    p.add_argument("--requests", type=int, default=8 if DRY else 768)
    p.add_argument("--json")
    args = p.parse_args()
    model = os.path.abspath(args.model)
    context = args.prompt + args.new + 256
    engine, error = run([args.trireme, "bench", model, "--device", "cuda", "--batch", str(args.streams), "--max-batch", str(args.streams),
                         "--prompt-tokens", str(args.prompt), "--new-tokens", str(args.new), "--context", str(context), "--rounds", "1",
                         "--no-prefix-cache", "--json"])
    if error:
        fail(None, error)
    alone = engine["sequences"]["p50"] * args.new
    print(f"engine alone: {alone:.1f} tokens/s, decode {engine['decode']['p50']:.1f}, prefill {engine['prefill']['p50']:.1f}", flush=True)
    Cluster.threads = os.cpu_count() or 1
    c = Cluster(args.trireme, f'  - {{ name: m, path: "{model}", max_batch: {args.streams}, context: {context} }}', cluster="device: cuda").ready(timeout=300)
    served, error = run([args.trireme, "bench", "--url", c.url.geturl(), "--model", "m", "--concurrency", str(args.streams), "--requests",
                         str(args.requests), "--prompt-tokens", str(args.prompt), "--max-tokens", str(args.new), "--ignore-eos", "--stream",
                         "--json", "-"])
    if error:
        fail(c, error)
    code = c.end()
    gap = served["token"]
    share, spread = served["tokens_per_s"] / alone, gap["p99_ms"] / max(gap["p50_ms"], 1e-6)
    print(f"served: {served['tokens_per_s']:.1f} tokens/s of {served['answered']} requests, {served['failed']} failed; first token "
          f"{served['first']['p50_ms']:.1f} ms (p50), {served['first']['p99_ms']:.1f} (p99); between tokens {gap['p50_ms']:.2f} ms (p50), "
          f"{gap['p99_ms']:.2f} (p99)")
    print(f"{100 * share:.1f}% of the engine alone (bar 90%), p99 between tokens {spread:.2f} times the median (bar 1.5)")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump({"engine": engine, "served": served, "share": share, "spread": spread}, f, indent=1)
    if code != 0 or served["failed"] != 0 or served["answered"] != args.requests:
        fail(None, f"exit code {code}, {served['failed']} requests failed")
    sys.exit(0 if DRY or (share >= 0.9 and spread <= 1.5) else 1)


main()
