#!/usr/bin/env python3
"""Decode and prefill of a GGUF model beside llama.cpp, by the protocol of docs/measurements: paired rounds in the order
A B B A, a fresh process for each engine and round, ratios with a bootstrap interval.

usage: llama_bench.py TRIREME MODEL.gguf [--threads N] [--rounds N] [--prompt N] [--new N] [--batch N]
Wants llama-cpp-python built natively (pip install llama-cpp-python). llama.cpp is given tokens and samples nothing."""
import argparse
import json
import math
import random
import statistics
import subprocess
import sys
import time


def llama_child(a):
    import ctypes

    import llama_cpp

    quiet = llama_cpp.llama_log_callback(lambda *_: None)  # kept as long as it may be called
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    mp = llama_cpp.llama_model_default_params()
    model = llama_cpp.llama_model_load_from_file(a.model.encode(), mp)
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    cp = llama_cpp.llama_context_default_params()
    cp.n_ctx = a.batch * (a.prompt + a.new + 32)
    cp.n_batch = cp.n_ubatch = 512
    cp.n_threads = cp.n_threads_batch = a.threads
    cp.n_seq_max = a.batch
    cp.kv_unified = True
    ctx = llama_cpp.llama_init_from_model(model, cp)
    rng = random.Random(1)
    memory = llama_cpp.llama_get_memory(ctx)
    batch = llama_cpp.llama_batch_init(512, 0, 1)

    def run(tokens):  # (token, position, sequence, wants logits)
        batch.n_tokens = len(tokens)
        for i, (t, p, s, w) in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = t, p, 1
            batch.seq_id[i][0] = s
            batch.logits[i] = w
        if llama_cpp.llama_decode(ctx, batch) != 0:
            raise RuntimeError("llama_decode")
        llama_cpp.llama_synchronize(ctx)

    def measure(new):
        llama_cpp.llama_memory_clear(memory, True)
        t0 = time.perf_counter()
        todo = [(rng.randrange(vocabulary), p, s, p == a.prompt - 1) for s in range(a.batch) for p in range(a.prompt)]
        for i in range(0, len(todo), 512):
            run(todo[i : i + 512])
        t1 = time.perf_counter()
        for k in range(new - 1):
            run([(rng.randrange(vocabulary), a.prompt + k, s, True) for s in range(a.batch)])
        t2 = time.perf_counter()
        return a.batch * a.prompt / (t1 - t0), a.batch * (new - 1) / (t2 - t1)

    measure(16)
    print(json.dumps(measure(a.new)))


def trireme(a):
    out = subprocess.run([a.trireme, "bench", a.model, "--threads", str(a.threads), "--batch", str(a.batch),
                          "--prompt-tokens", str(a.prompt), "--new-tokens", str(a.new), "--rounds", "1", "--warmup", "1",
                          "--context", str(a.prompt + a.new + 32), "--json"] + (["--dtype", a.dtype] if a.dtype else []),
                         check=True, capture_output=True, text=True).stdout
    o = json.loads(out)
    return o["prefill"]["p50"], o["decode"]["p50"]


def llama(a):
    out = subprocess.run([sys.executable, __file__, a.trireme, a.model, "--child", "--threads", str(a.threads), "--prompt",
                          str(a.prompt), "--new", str(a.new), "--batch", str(a.batch)], check=True, capture_output=True,
                         text=True).stdout
    return json.loads(out.strip().splitlines()[-1])


def report(name, ours, theirs):
    logs = [math.log(x / y) for x, y in zip(ours, theirs)]
    rng = random.Random(3)
    means = sorted(statistics.fmean(rng.choices(logs, k=len(logs))) for _ in range(2000))
    print(f"{name:8s} ours {statistics.median(ours):8.1f}  llama.cpp {statistics.median(theirs):8.1f} tokens/s   "
          f"ratio {math.exp(statistics.fmean(logs)):.3f} [{math.exp(means[50]):.3f}, {math.exp(means[1949]):.3f}]")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("trireme")
    p.add_argument("model")
    for name, value in (("threads", 2), ("rounds", 7), ("prompt", 128), ("new", 64), ("batch", 1)):
        p.add_argument("--" + name, type=int, default=value)
    p.add_argument("--dtype")
    p.add_argument("--child", action="store_true")
    a = p.parse_args()
    if a.child:
        return llama_child(a)
    ours, theirs = [], []
    for r in range(a.rounds):
        for engine in (trireme, llama) if r % 2 == 0 else (llama, trireme):
            (ours if engine is trireme else theirs).append(engine(a))
    print(f"{a.model.rsplit('/', 1)[-1]}: {a.threads} threads, batch {a.batch}, {a.prompt} + {a.new} tokens, {a.rounds} rounds")
    report("prefill", [o[0] for o in ours], [t[0] for t in theirs])
    report("decode", [o[1] for o in ours], [t[1] for t in theirs])


main()
