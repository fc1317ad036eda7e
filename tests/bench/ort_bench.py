"""One onnxruntime process of the benchmark. usage: ort_bench.py MODEL THREADS WARMUPS CALLS INPUT.npz [OUTPUT.npz]
Prints {"ms": [...]}. Best mode: all graph optimisations, its own thread pool with spinning."""
import json
import sys
import time

import numpy as np
import onnxruntime as ort

model, threads, warmups, calls, inputs = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
options = ort.SessionOptions()
options.intra_op_num_threads = threads
options.inter_op_num_threads = 1
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
feed = dict(np.load(inputs))
for _ in range(warmups + 1):
    outputs = session.run(None, feed)
if len(sys.argv) > 6:
    np.savez(sys.argv[6], **{o.name: v for o, v in zip(session.get_outputs(), outputs)})
times = []
for _ in range(calls):
    start = time.perf_counter()
    session.run(None, feed)
    times.append((time.perf_counter() - start) * 1e3)
print(json.dumps({"ms": times}))
