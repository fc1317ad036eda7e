#!/usr/bin/env python3
"""Language models on a card beside transformers (static cache, torch.compile) and, where it is installed with CUDA,
llama.cpp; and the card's own limits.

usage: language_bench.py --trireme build/release/trireme --models FOLDER [--rounds 5] [--cases A,B] [--json FILE]
       FOLDER: what language_models.py wrote

Protocol: same weights, types, batch and tokens, greedy, no early end. Rounds of Trireme, rival, rival, Trireme, each engine a
fresh process; a row's ratio (Trireme's rate over the rival's) is the geometric mean over rounds with a bootstrap 95%
interval. Before each round a bf16 product and a copy are timed: rounds under 90% of the run's best are thrown away. Bars are
absolute figures of one H200; each row also says what part of the measured limit it is. Losses are printed in the same table.
Random weights: outputs are compared by tests (logits of small checkpoints), not here.

TRM_GPU_DRY=small in the environment tries the script itself where there is no card: tiny models, few tokens, Trireme over the
emulated device, rivals on the CPU. Its figures mean nothing, and no bar is judged."""
import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time

DRY = os.environ.get("TRM_GPU_DRY") == "small"
DEVICE = "cpu" if DRY else "cuda"  # of the rivals
WEIGHTS = {"llama-8b": 16.06e9 - 2 * 128256 * 4096, "llama-8b-q4_k.gguf": 4.69e9}  # bytes that a step reads
FLOPS = 2 * (8.03e9 - 2 * 128256 * 4096)  # a prompt token, without embedding and head
KV_TOKEN = 2 * 32 * 8 * 128 * 2  # bytes

# name: model, what, batch, prompt, new, options, bar
CASES = {
    "bf16-decode-b1": ("llama-8b", "decode", 1, 1024, 128, [], 240.0),
    "bf16-decode-b64": ("llama-8b", "decode", 64, 1024, 128, [], 9700.0),
    "bf16-prefill-8x2048": ("llama-8b", "prefill", 8, 2048, 1, ["--step-tokens", "16384"], "60% of the matmul rate"),
    "bf16-prefill-free": ("llama-8b", "prefill", 8, 2048, 1, ["--step-tokens", "16384", "--deterministic", "off"],
                          "60% of the matmul rate"),
    "q4_k-decode-b1": ("llama-8b-q4_k.gguf", "decode", 1, 1024, 128, [], "60% of bandwidth"),
    "q4_k-decode-b64": ("llama-8b-q4_k.gguf", "decode", 64, 1024, 128, [], None),
}

if DRY:
    CASES = {k: (m, what, min(batch, 2), 16, 3 if what == "decode" else 1, ["--step-tokens", "64", *options[2:]] if options else [], None)
             for k, (m, what, batch, _, _, options, _) in CASES.items()}


def geometric(values):
    return math.exp(statistics.fmean(map(math.log, values)))


def interval(values, rng):
    means = sorted(geometric(rng.choices(values, k=len(values))) for _ in range(2000))
    return means[50], means[1949]


PROBE = """
import sys, time, torch
device, n, size, turns = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
wait = torch.cuda.synchronize if device == "cuda" else lambda: None
a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
x = torch.empty(size, device=device, dtype=torch.uint8); y = torch.empty_like(x)
def rate(f, work):
    for _ in range(3): f()
    wait(); t = time.perf_counter()
    for _ in range(turns): f()
    wait(); return turns * work / (time.perf_counter() - t)
print(rate(lambda: a @ a, 2 * n**3), rate(lambda: y.copy_(x), 2 * size))
"""

TRANSFORMERS = """
import json, sys, time, torch
from transformers import AutoModelForCausalLM, StaticCache
device, folder, what = sys.argv[1], sys.argv[2], sys.argv[6]
batch, prompt, new = map(int, sys.argv[3:6])
wait = torch.cuda.synchronize if device == "cuda" else lambda: None
m = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa").to(device).eval()
ids = torch.randint(0, m.config.vocab_size, (batch, prompt), device=device)
cache = StaticCache(config=m.config, max_cache_len=prompt + new + 1)
how = {"mode": "reduce-overhead"} if device == "cuda" else {"backend": "eager"}
step = torch.compile(m.forward, fullgraph=True, **how) if what == "decode" else m.forward
def prefill():
    cache.reset()
    at = torch.arange(prompt, device=device)
    return m(ids, past_key_values=cache, position_ids=at[None], cache_position=at, logits_to_keep=1).logits[:, -1:].argmax(-1)
def decode(token):
    for i in range(new):
        at = torch.tensor([prompt + i], device=device)
        token = step(token.clone(), past_key_values=cache, position_ids=at[None], cache_position=at).logits[:, -1:].argmax(-1)
    return token
with torch.no_grad():
    for turn in range(3):
        wait(); t0 = time.perf_counter()
        token = prefill()
        wait(); t1 = time.perf_counter()
        if what == "decode": decode(token)
        wait(); t2 = time.perf_counter()
print(json.dumps({"prefill": batch * prompt / (t1 - t0), "decode": batch * new / (t2 - t1) if what == "decode" else 0}))
"""

LLAMA_CPP = """
import json, sys, time
from llama_cpp import Llama, llama_supports_gpu_offload
device, path, prompt, new = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if device == "cuda" and not llama_supports_gpu_offload(): sys.exit("llama.cpp is here without CUDA")
layers = -1 if device == "cuda" else 0
m = Llama(path, n_gpu_layers=layers, n_ctx=prompt + new + 8, n_batch=prompt, flash_attn=True, verbose=False)
ids = [(i * 37 + 11) % 1000 for i in range(prompt)]
for turn in range(2):
    m.reset(); t0 = time.perf_counter(); m.eval(ids); t1 = time.perf_counter()
    for i in range(new): m.eval([(i * 31) % 1000])
    t2 = time.perf_counter()
print(json.dumps({"prefill": prompt / (t1 - t0), "decode": new / (t2 - t1)}))
"""


def output(command, **more):
    r = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, **more)
    if r.returncode != 0:
        raise RuntimeError(f"{command[0]} {command[1] if command[1] != '-c' else ''}: exit code {r.returncode}: {r.stderr.strip()[-300:]}")
    return r.stdout.strip().splitlines()[-1]


def trireme(args, path, batch, prompt, new, options):
    out = json.loads(output([args.trireme, "bench", path, "--device", "cuda", "--batch", str(batch), "--prompt-tokens", str(prompt),
                             "--new-tokens", str(new), "--context", str(prompt + new + 8), "--max-batch", str(max(batch, 8)),
                             "--rounds", "1" if DRY else "2", "--no-prefix-cache", "--json", *options]))
    return {"prefill": out["prefill"]["p50"], "decode": out.get("decode", {}).get("p50", 0)}


def rival(args, model, path, batch, prompt, new, what):
    if model.endswith(".gguf"):
        return json.loads(output([sys.executable, "-c", LLAMA_CPP, DEVICE, path, str(prompt), str(new)])) if batch == 1 else None
    return json.loads(output([sys.executable, "-c", TRANSFORMERS, DEVICE, path, str(batch), str(prompt), str(new), what]))


def part_of_limit(model, what, batch, prompt, new, rate, limits):
    if what == "prefill":
        return rate * FLOPS / limits[0], "matmul rate"
    read = WEIGHTS[model] + batch * (prompt + new / 2) * KV_TOKEN
    return rate / batch * read / limits[1], "bandwidth"


def run_case(args, name, rng):
    model, what, batch, prompt, new, options, bar = CASES[name]
    path = os.path.join(args.models, model)
    if not os.path.exists(path):
        return {"case": name, "note": f"{path} is not there"}
    rounds, note = [], ""
    for _ in range(args.rounds):
        limits = tuple(map(float, output([sys.executable, "-c", PROBE, DEVICE, *(("256", "1048576", "2") if DRY else
                                                                               ("8192", "1073741824", "20"))]).split()))
        a = [trireme(args, path, batch, prompt, new, options)[what]]
        b = []
        try:
            for _ in range(1 if DRY else 2):
                r = rival(args, model, path, batch, prompt, new, what)
                b += [] if r is None else [r[what]]
        except RuntimeError as e:
            note = str(e)[:200]
        a.append(trireme(args, path, batch, prompt, new, options)[what])
        rounds.append((limits, a, b))
    best = max(r[0][0] for r in rounds), max(r[0][1] for r in rounds)
    kept = [r for r in rounds if DRY or (r[0][0] >= 0.9 * best[0] and r[0][1] >= 0.9 * best[1])]
    if not kept:
        raise RuntimeError(f"{name}: no round had both a product and a copy at 90% of the best")
    ours = statistics.median(x for r in kept for x in r[1])
    part, limit = part_of_limit(model, what, batch, prompt, new, ours, best)
    if part > 1.0 and not DRY:
        raise RuntimeError(f"{name}: {part:.2f} of the {limit}: the measurement is wrong")
    row = {"case": name, "tokens_s": ours, "part": part, "limit": limit, "bar": bar, "rounds": len(kept), "note": note}
    if isinstance(bar, float):
        row["met"] = ours >= bar
    elif bar is not None:
        row["met"] = part >= 0.60
    theirs = [x for r in kept for x in r[2]]
    if theirs:
        ratios = [geometric(r[1]) / geometric(r[2]) for r in kept if r[2]]
        row.update(rival=statistics.median(theirs), ratio=geometric(ratios), interval=interval(ratios, rng))
    return row


def first_token(args):
    """Process start to the first token with the file in the page cache."""
    path = os.path.join(args.models, "llama-8b")
    if not os.path.exists(path):
        return None
    times = []
    for turn in range(args.rounds + 1):
        start = time.perf_counter()
        output([args.trireme, "bench", path, "--device", "cuda", "--prompt-tokens", "16", "--new-tokens", "1", "--rounds", "1",
                "--warmup", "0", "--context", "1024", "--json"])
        if turn > 0:  # the first one brings the file into the page cache
            times.append(time.perf_counter() - start)
    return times


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--trireme", required=True)
    p.add_argument("--models", required=True)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--cases", default=",".join(CASES))
    p.add_argument("--json")
    args = p.parse_args()
    rng, rows = random.Random(1), []
    print("| case | tokens/s | of the limit | bar | rival | ratio [95%] | rounds |\n|---|---|---|---|---|---|---|")
    for name in args.cases.split(","):
        try:
            row = run_case(args, name, rng)
        except RuntimeError as e:
            row = {"case": name, "note": str(e)}
        rows.append(row)
        if "tokens_s" not in row:
            print(f"| {name} | - | - | - | - | - | {row['note']} |", flush=True)
            continue
        mark = "" if "met" not in row else " met" if row["met"] else " MISSED"
        beside = "-" if "ratio" not in row else f"{row['ratio']:.2f} [{row['interval'][0]:.2f}, {row['interval'][1]:.2f}]"
        print(f"| {name} | {row['tokens_s']:.0f} | {100 * row['part']:.0f}% of {row['limit']} | {row['bar']}{mark} | "
              f"{row.get('rival', float('nan')):.0f} | {beside} | {row['rounds']} {row['note']} |", flush=True)
    times = first_token(args)
    if times:
        print(f"\nprocess start to first token, 16 GB in the page cache: median {statistics.median(times):.2f} s, "
              f"least {min(times):.2f} s (bar 3 s)")
        rows.append({"case": "first-token", "seconds": times})
    if args.json:
        with open(args.json, "w") as f:
            json.dump(rows, f, indent=1)


main()
