#!/usr/bin/env python3
"""The likeliest token at every position of a text, on the CPU in fp32 and on the device in fp32 and bf16.

usage: language_positions.py TRIREME MODEL TEXT...
Prints the share of positions at which the device says the CPU's token. Exit code 0: all in fp32, but for those that the CPU
itself decides by less than 1e-3, and 98% in bf16."""
import json
import os
import subprocess
import sys
import tempfile

PIECE, PIECES = 450, 24  # bytes of a prompt, prompts


def likeliest(path):
    for line in open(path):
        row = json.loads(line)
        if "error" in row:
            sys.exit(f"{path}: {row['error']}")
        for place in row.get("prompt_logprobs") or []:
            if place:
                top = sorted(((t["logprob"], t["id"]) for t in place["top_logprobs"]), reverse=True)
                yield top[0][1], top[0][0] - top[1][0]


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    trireme, model = sys.argv[1:3]
    text = "".join(open(name, encoding="utf-8").read() for name in sys.argv[3:])
    prompts = [text[i * PIECE:(i + 1) * PIECE] for i in range(min(PIECES, len(text) // PIECE))]
    bad = False
    with tempfile.TemporaryDirectory() as d:
        requests = os.path.join(d, "in.jsonl")
        with open(requests, "w") as f:
            for p in prompts:
                f.write(json.dumps({"prompt": p, "max_tokens": 1, "prompt_logprobs": 2, "temperature": 0}) + "\n")
        found = {}
        for name, options in (("cpu", ["--device", "cpu"]), ("fp32", ["--device", "cuda", "--dtype", "fp32"]),
                              ("bf16", ["--device", "cuda", "--dtype", "bf16"])):
            out = os.path.join(d, name)
            subprocess.run([trireme, "score", model, "--input", requests, "--output", out, "--context", "400", *options],
                           check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            found[name] = list(likeliest(out))
        for name, least in (("fp32", 1.0), ("bf16", 0.98)):
            pairs = list(zip(found["cpu"], found[name], strict=True))
            same = sum(a[0] == b[0] for a, b in pairs)
            close = sum(a[0] != b[0] and a[1] < 1e-3 for a, b in pairs)
            print(f"{name}: {same} of {len(pairs)} positions, {close} of the others are decided by less than 1e-3")
            bad |= same + (close if name == "fp32" else 0) < least * len(pairs)
    sys.exit(1 if bad else 0)


main()
