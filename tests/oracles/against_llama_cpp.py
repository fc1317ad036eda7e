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
    llm = llama_cpp.Llama(model, n_ctx=1024, n_threads=2, logits_all=True, verbose=False)
    out = []
    for prompt in PROMPTS:
        ids = llm.tokenize(prompt.encode(), add_bos=True, special=True)
        llm.reset()
        r = llm.create_completion(ids, max_tokens=NEW, temperature=0, logprobs=1, top_k=1)
        c = r["choices"][0]
        # the same tokens scored, by the raw logits
        out.append((ids, c["text"], c["logprobs"]["token_logprobs"]))
    return out


def ours(trireme, model, theirs_ids):
    with tempfile.TemporaryDirectory() as d:
        source, target = os.path.join(d, "in.jsonl"), os.path.join(d, "out.jsonl")
        with open(source, "w") as f:
            for prompt in PROMPTS:
                f.write(json.dumps({"prompt": prompt, "max_tokens": NEW, "temperature": 0, "logprobs": 1,
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
    for (ids, text, logprobs), mine, prompt in zip(want, got, PROMPTS):
        if mine["prompt_token_ids"] != list(ids):
            print(f"FAILED: {prompt!r}: prompt ids {mine['prompt_token_ids']} against {list(ids)}")
            return 1
        equal = mine["text"] == text
        same += equal
        common = os.path.commonprefix([mine["text"], text])
        # as long as the texts agree the log-probabilities are of the same tokens
        n = 0
        for a, b in zip(mine["logprobs"]["token_logprobs"], logprobs):
            if sum(len(t) for t in mine["logprobs"]["tokens"][: n + 1]) > len(common):
                break
            differences.append(abs(a - b))
            n += 1
        print(f"{'same ' if equal else 'other'} {n:3d} tokens compared  {prompt!r}")
        if not equal:
            print("   theirs", repr(text))
            print("   ours  ", repr(mine["text"]))
    mean = sum(differences) / max(1, len(differences))
    print(f"{same} of {len(PROMPTS)} texts equal; mean |log-probability difference| {mean:.4f} over "
          f"{len(differences)} tokens, largest {max(differences):.4f}")
    return 0 if same >= 9 and mean <= 0.05 and not math.isnan(mean) else 1


sys.exit(main())
