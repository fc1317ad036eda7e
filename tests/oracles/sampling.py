#!/usr/bin/env python3
"""Expected distributions of sampling: tests/data/sampling.json. Needs numpy.

Written from the definitions (Hugging Face's logits processors and warpers, OpenAI's presence and frequency penalties), in
double precision, over sorted arrays; shares nothing with worker/language. What each case's file says: the row, the
parameters, tokens of the prompt and the output, and the probability of every token that may be drawn.
"""
import json
import os
import sys

try:
    import numpy as np
except ImportError as e:
    print(f"sampling: {e}")
    sys.exit(77)

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "sampling.json")


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def log_softmax(x):
    m = x.max()
    return x - m - np.log(np.exp(x - m).sum())


def distribution(row, p):
    x = row.astype(np.float64).copy()
    for token, bias in p.get("bias", []):
        x[token] += bias
    prompt, output = p.get("prompt", []), p.get("output", [])
    penalty = p.get("repetition_penalty", 1)
    for token in sorted(set(prompt) | set(output)):
        x[token] = x[token] / penalty if x[token] > 0 else x[token] * penalty
    for token in sorted(set(output)):
        x[token] -= p.get("presence_penalty", 0) + p.get("frequency_penalty", 0) * output.count(token)
    if len(output) < p.get("min_tokens", 0):
        x[p["end"]] = -np.inf
    if p["temperature"] == 0:
        probs = np.zeros(len(x))
        probs[int(np.argmax(x))] = 1
        return probs
    x = x / p["temperature"]
    order = np.lexsort((np.arange(len(x)), -x))  # descending, then by id
    if p.get("top_k", 0) > 0:
        x[order[p["top_k"]:]] = -np.inf
    if p.get("top_p", 1) < 1:
        probs = softmax(x)[order]
        before = np.cumsum(probs) - probs
        x[order[(before >= p["top_p"]) & (np.arange(len(x)) > 0)]] = -np.inf
    if p.get("min_p", 0) > 0:
        probs = softmax(x)
        x[probs < p["min_p"] * probs.max()] = -np.inf
    if p.get("typical_p", 1) < 1:
        logs = log_softmax(x)
        probs = np.exp(logs)
        with np.errstate(invalid="ignore"):
            entropy = -np.nansum(probs * logs)
        distance = np.abs(-logs - entropy)
        by = np.argsort(distance, kind="stable")
        reached = int(np.sum(np.cumsum(probs[by]) < p["typical_p"]))
        last = distance[by[min(reached, len(by) - 1)]]
        x[distance > last] = -np.inf
    return softmax(x)


CASES = [
    ("plain", {"temperature": 1}),
    ("cold", {"temperature": 0.5}),
    ("hot", {"temperature": 3}),
    ("very cold", {"temperature": 1e-6}),
    ("greedy", {"temperature": 0}),
    ("top_k 1", {"temperature": 1, "top_k": 1}),
    ("top_k 5", {"temperature": 1, "top_k": 5}),
    ("top_k 80", {"temperature": 2, "top_k": 80}),
    ("top_k beyond", {"temperature": 1, "top_k": 100000}),
    ("top_p 0.9", {"temperature": 1, "top_p": 0.9}),
    ("top_p 0.3", {"temperature": 1.5, "top_p": 0.3}),
    ("top_p small", {"temperature": 1, "top_p": 1e-6}),
    ("min_p 0.1", {"temperature": 1, "min_p": 0.1}),
    ("min_p 1", {"temperature": 1, "min_p": 1}),
    ("typical 0.5", {"temperature": 1, "typical_p": 0.5}),
    ("typical 0.9", {"temperature": 1, "typical_p": 0.9}),
    ("top_k top_p", {"temperature": 1, "top_k": 10, "top_p": 0.8}),
    ("top_k large top_p", {"temperature": 2, "top_k": 90, "top_p": 0.7}),
    ("top_k min_p", {"temperature": 1, "top_k": 20, "min_p": 0.2}),
    ("top_p min_p", {"temperature": 2, "top_p": 0.9, "min_p": 0.05}),
    ("top_k typical", {"temperature": 1, "top_k": 12, "typical_p": 0.6}),
    ("all", {"temperature": 0.8, "top_k": 30, "top_p": 0.9, "min_p": 0.02, "typical_p": 0.8}),
    ("bias", {"temperature": 1, "bias": [[3, 4.0], [7, -100.0], [50, 2.5]]}),
    ("bias greedy", {"temperature": 0, "bias": [[3, 40.0]]}),
    ("repetition", {"temperature": 1, "repetition_penalty": 1.3, "prompt": [1, 2, 3, 3, 9], "output": [4, 4]}),
    ("repetition below 1", {"temperature": 1, "repetition_penalty": 0.8, "prompt": [1, 2, 90, 3]}),
    ("presence", {"temperature": 1, "presence_penalty": 1.5, "prompt": [1, 2, 3], "output": [4, 4, 5]}),
    ("frequency", {"temperature": 1, "frequency_penalty": 0.7, "prompt": [1, 2, 3], "output": [4, 4, 5]}),
    ("penalties", {"temperature": 0.9, "repetition_penalty": 1.1, "presence_penalty": -0.5,
                   "frequency_penalty": 0.4, "prompt": [8, 8], "output": [4, 4, 5, 8], "top_k": 40}),
    ("min_tokens", {"temperature": 1, "min_tokens": 3, "end": [0, 5], "output": [4, 4]}),
    ("min_tokens reached", {"temperature": 1, "min_tokens": 2, "end": [0, 5], "output": [4, 4]}),
    ("bias and penalties", {"temperature": 1, "bias": [[4, 3.0]], "repetition_penalty": 1.5, "output": [4],
                            "presence_penalty": 0.5}),
]


def main():
    rng = np.random.default_rng(20260102)
    rows = {
        "normal": (rng.standard_normal(96) * 2).astype(np.float32),
        "ties": np.repeat(np.array([2, 1.5, 0, -1, 1, 3, -4, 0.5], np.float32), 12),
        "flat": (rng.standard_normal(96) * 0.05).astype(np.float32),
        "peaked": np.concatenate([np.array([30, 29, 25], np.float32), rng.standard_normal(93).astype(np.float32)]),
    }
    cases = []
    for row_name, row in rows.items():
        for name, p in CASES:
            probs = distribution(row, p)
            kept = np.nonzero(probs > 0)[0]
            cases.append({"name": f"{row_name}: {name}", "row": row_name, **p,
                          "ids": [int(i) for i in kept], "probs": [float(f"{probs[i]:.6g}") for i in kept]})
    logs = {name: [float(f"{v:.8g}") for v in log_softmax(row.astype(np.float64))] for name, row in rows.items()}
    with open(OUT, "w", encoding="utf-8") as f:
        json.dump({"by": {"numpy": np.__version__}, "rows": {k: [float(v) for v in r] for k, r in rows.items()},
                   "logprobs": logs, "cases": cases}, f, separators=(",", ":"))
        f.write("\n")
    print(f"{OUT}: {len(cases)} cases")


if __name__ == "__main__":
    main()
