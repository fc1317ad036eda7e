#!/usr/bin/env python3
"""The likeliest token at every position of a text, on the CPU in fp32 and on the device in fp32 and bf16.

usage: language_positions.py TRIREME MODEL TEXT... [--prompts 24] [--bytes 450] [--types fp32,bf16] [--kv-dtype T] [--limit SECONDS]
Prints the share of positions at which the device says the CPU's token, and each other position with how closely the CPU itself
decided. bf16 is what the device does by default (a GGUF file's block types: activations in int8 either way, as on the CPU).
Exit code 0: all in fp32, but for those that the CPU decides by less than 1e-3, and 98% in bf16."""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

LEAST = {"fp32": 1.0, "bf16": 0.98}
CLOSE = 1e-3


def likeliest(path):
    """(token, by how much) of each position that has another before it."""
    with open(path, encoding="utf-8") as f:
        for line in f:
            row = json.loads(line)
            if "error" in row:
                sys.exit(f"{path}: {row['error']}")
            for place in row.get("prompt_logprobs") or []:
                if place:
                    top = sorted(((t["logprob"], t["id"]) for t in place["top_logprobs"]), reverse=True)
                    yield top[0][1], top[0][0] - top[1][0]


def score(args, requests, out, options):
    begun = time.monotonic()
    r = subprocess.run([args.trireme, "score", args.model, "--input", requests, "--output", out, "--context", str(args.bytes + 8),
                        *(["--kv-dtype", args.kv_dtype] if args.kv_dtype else []), *options], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=args.limit)
    if r.returncode != 0:
        sys.exit(f"score {' '.join(options)}: exit code {r.returncode}: {r.stderr.strip()[-400:]}")
    return list(likeliest(out)), time.monotonic() - begun


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("trireme")
    p.add_argument("model")
    p.add_argument("text", nargs="+")
    p.add_argument("--prompts", type=int, default=24)
    p.add_argument("--bytes", type=int, default=450, help="of a prompt; no token is shorter than one")
    p.add_argument("--types", default=",".join(LEAST))
    p.add_argument("--kv-dtype", help="of the cache, on both")
    p.add_argument("--limit", type=float, help="seconds that a run may take")
    args = p.parse_args()
    text = ""
    for name in args.text:
        with open(name, encoding="utf-8") as f:
            text += f.read()
    prompts = [text[i * args.bytes:(i + 1) * args.bytes] for i in range(min(args.prompts, len(text) // args.bytes))]
    if not prompts:
        sys.exit(f"a text of {len(text)} characters, want {args.bytes} for each prompt")
    bad = False
    with tempfile.TemporaryDirectory() as d:
        requests = os.path.join(d, "in.jsonl")
        with open(requests, "w", encoding="utf-8") as f:
            for prompt in prompts:
                f.write(json.dumps({"prompt": prompt, "max_tokens": 1, "prompt_logprobs": 2, "temperature": 0}) + "\n")
        want, seconds = score(args, requests, os.path.join(d, "cpu.jsonl"), ["--device", "cpu", "--dtype", "fp32"])
        print(f"CPU: {len(want)} positions, {seconds:.1f} s", flush=True)
        for name in args.types.split(","):
            got, seconds = score(args, requests, os.path.join(d, name + ".jsonl"), ["--device", "cuda", "--dtype", name])
            if len(got) != len(want):
                sys.exit(f"{name}: {len(got)} positions, the CPU has {len(want)}")
            others = [a[1] for a, b in zip(want, got) if a[0] != b[0]]
            same, close = len(want) - len(others), sum(gap < CLOSE for gap in others)
            print(f"{name}: {same} of {len(want)} positions ({100 * same / len(want):.2f}%), {close} of the others are decided by less "
                  f"than {CLOSE}; {seconds:.1f} s", flush=True)
            if others:
                print("  the others are decided by " + ", ".join(f"{gap:.4f}" for gap in sorted(others, reverse=True)[:12]), flush=True)
            bad |= not want or same + (close if name == "fp32" else 0) < LEAST[name] * len(want)
    sys.exit(1 if bad else 0)


main()
