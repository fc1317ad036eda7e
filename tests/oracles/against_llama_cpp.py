#!/usr/bin/env python3
"""A GGUF model against llama.cpp: greedy text of 64 tokens on ten prompts, and log-probabilities.

usage: against_llama_cpp.py TRIREME MODEL.gguf [EXACT.gguf]
Both programs round activations to 8 bits, each in its own way, so a greedy text honestly forks where two tokens are as
good as equal. So the ten prompts are those of the candidates below on whose way llama.cpp's own two best tokens are farthest apart; the others
are counted, too. EXACT.gguf is the same weights in F32 (llama_model_quantize to F32): it says how far either program is from
what the weights mean.
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
    "1 2 3 4 5 6 7 8 9 10 11 12 13",
    "A B C D E F G H I J K",
    "Monday, Tuesday, Wednesday, Thursday,",
    "January, February, March, April, May,",
    "one, two, three, four, five, six,",
    "2, 4, 6, 8, 10, 12, 14, 16,",
    "a, b, c, d, e, f, g, h,",
    "10, 20, 30, 40, 50, 60, 70,",
    "red green blue red green blue red green blue",
    "0 1 0 1 0 1 0 1 0 1 0 1",
    "x = 1\nx = 2\nx = 3\nx = 4\nx = 5\n",
    "for i in range(10):\n    print(i)\nfor i in range(10):\n    print(i)\n",
    "<li>one</li>\n<li>two</li>\n<li>three</li>\n",
    "line 1\nline 2\nline 3\nline 4\nline 5\n",
    "100 99 98 97 96 95 94 93",
    "I am happy. You are happy. He is happy. She is happy.",
    "the the the the the the the the",
    "Q: What is 2 + 2?\nA: 4\nQ: What is 3 + 3?\nA: 6\nQ: What is 4 + 4?\nA:",
    "Row, row, row your boat, gently down the stream. Row, row, row your boat,",
    "We the People of the United States, in Order to form a more perfect Union,",
    "Our Father who art in heaven, hallowed be thy",
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod",
]
BEST = 10
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
        tokens, logprobs, gap = [], [], math.inf
        while len(tokens) < NEW:
            row = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(llm.ctx, -1), (vocabulary,)).astype(np.float64)
            best = int(row.argmax())
            top = row.max()
            gap = min(gap, float(np.subtract(*np.partition(row, -2)[[-1, -2]])))
            tokens.append(best)
            logprobs.append(float(top - (top + math.log(np.exp(row - top).sum()))))
            if best in ends:
                break
            llm.eval([best])
        text = llm.detokenize([t for t in tokens if t not in ends], prev_tokens=ids).decode("utf-8", "replace")
        out.append((ids, tokens, text, logprobs, gap))
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


def compare(name, a, b):
    """Equal answers, and log-probabilities as long as the tokens are the same."""
    equal, differences = [], []
    for (tokens, logprobs), (other, others) in zip(a, b):
        equal.append(tokens == other)
        for t, u, x, y in zip(tokens, other, logprobs, others):
            if t != u:
                break
            differences.append(abs(x - y))
    print(f"{name}: {sum(equal)} of {len(equal)} texts equal; |log-probability difference| mean "
          f"{sum(differences) / len(differences):.4f}, largest {max(differences):.4f}, over {len(differences)} tokens")
    return sum(equal), sum(differences) / len(differences)


def main():
    trireme, model = sys.argv[1:3]
    want = theirs(model)
    got = ours(trireme, model, want)
    for prompt, w, g in zip(PROMPTS, want, got):
        if g["prompt_token_ids"] != list(w[0]):
            print(f"FAILED: {prompt!r}: prompt ids {g['prompt_token_ids']} against {list(w[0])}")
            return 1
    mine = [(g["token_ids"], g["logprobs"]["token_logprobs"]) for g in got]
    other = [(w[1], w[3]) for w in want]
    best = sorted(range(len(PROMPTS)), key=lambda i: -want[i][4])[:BEST]
    for i in best:
        print(f"{'same ' if mine[i][0] == other[i][0] else 'other'} least gap {want[i][4]:.3f}  {PROMPTS[i]!r}")
    same, _ = compare("the ten", [mine[i] for i in best], [other[i] for i in best])
    _, mean = compare("all", mine, other)
    if len(sys.argv) > 3:
        exact = [(w[1], w[3]) for w in theirs(sys.argv[3])]
        compare("ours against exact", mine, exact)
        compare("llama.cpp against exact", other, exact)
    return 0 if same >= 9 and mean <= 0.05 else 1


sys.exit(main())
