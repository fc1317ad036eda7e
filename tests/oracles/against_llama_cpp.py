#!/usr/bin/env python3
"""A GGUF model against llama.cpp: greedy text of 64 tokens on ten prompts, and log-probabilities.

usage: against_llama_cpp.py TRIREME MODEL.gguf [--speed]
Wants llama-cpp-python (0.3.36 was used). Exit code 77: it is not installed."""
import json
import math
import os
import subprocess
import sys
import tempfile

import numpy as np

try:
    import llama_cpp
except ImportError:
    print("skip: llama-cpp-python is not installed")
    sys.exit(77)

PROMPTS = [
    "The capital of France is",
    "Once upon a time, there was a",
    "def fibonacci(n):\n",
    "The three laws of thermodynamics are",
    "Dear Sir or Madam,\n\nI am writing to",
    "In 1969, the first humans",
    "Ingredients: 2 eggs, 100 g sugar, 200 g flour.\nMethod:",
    "La physique quantique est",
    "Water boils at 100 degrees Celsius because",
    "To be, or not to be, that is the",
]
NEW = 64


def theirs(model):
    """Greedy tokens and the log-probabilities of each, one token at a time."""
    llm = llama_cpp.Llama(model, n_ctx=1024, n_threads=2, n_batch=512, verbose=False)
    ends = {llm.token_eos()}
    vocabulary = llm.n_vocab()
    out = []
    for prompt in PROMPTS:
        ids = llm.tokenize(prompt.encode(), add_bos=True, special=True)
        llm.reset()
        llm.eval(ids)
        tokens, logprobs = [], []
        while len(tokens) < NEW:
            row = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(llm.ctx, -1), (vocabulary,)).astype(np.float64)
            best = int(row.argmax())
            top = row.max()
            tokens.append(best)
            logprobs.append(float(top - (top + math.log(np.exp(row - top).sum()))))
            if best in ends:
                break
            llm.eval([best])
        text = llm.detokenize([t for t in tokens if t not in ends], prev_tokens=ids).decode("utf-8", "replace")
        out.append((ids, tokens, text, logprobs))
    return out


def ours(trireme, model, theirs_ids):
    with tempfile.TemporaryDirectory() as d:
        source, target = os.path.join(d, "in.jsonl"), os.path.join(d, "out.jsonl")
        with open(source, "w") as f:
            for prompt in PROMPTS:
                f.write(json.dumps({"prompt": prompt, "max_tokens": NEW, "temperature": 0, "logprobs": 2,
                                    "return_token_ids": True}) + "\n")
        subprocess.run([trireme, "score", model, "--input", source, "--output", target, "--context", "1024"],
                       check=True)
        with open(target) as f:
            return [json.loads(line) for line in f]


def main():
    trireme, model = sys.argv[1:3]
    want = theirs(model)
    got = ours(trireme, model, want)
    same, differences = 0, []
    for (ids, tokens, text, logprobs), mine, prompt in zip(want, got, PROMPTS):
        if mine["prompt_token_ids"] != list(ids):
            print(f"FAILED: {prompt!r}: prompt ids {mine['prompt_token_ids']} against {list(ids)}")
            return 1
        equal = mine["token_ids"] == tokens
        same += equal
        n = 0  # as long as the tokens agree the log-probabilities are of the same
        for a, b, x, y in zip(mine["token_ids"], tokens, mine["logprobs"]["token_logprobs"], logprobs):
            if a != b:
                break
            differences.append(abs(x - y))
            n += 1
        print(f"{'same ' if equal else 'other'} {n:3d} tokens compared  {prompt!r}")
        if not equal:
            print("   theirs", repr(text))
            print("   ours  ", repr(mine["text"]))
            print("   at the fork: ours", mine["logprobs"]["top_logprobs"][n] if n < len(mine["token_ids"]) else "end")
    mean = sum(differences) / max(1, len(differences))
    print(f"{same} of {len(PROMPTS)} texts equal; mean |log-probability difference| {mean:.4f} over "
          f"{len(differences)} tokens, largest {max(differences):.4f}")
    return 0 if same >= 9 and mean <= 0.05 and not math.isnan(mean) else 1


sys.exit(main())
