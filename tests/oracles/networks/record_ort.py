#!/usr/bin/env python3
"""Runs the exported networks in onnxruntime and records its outputs beside PyTorch's.

usage: record_ort.py DIR      DIR/NAME/{model.onnx, input_<i>.npy, output_<i>.npy} -> ort_<i>.npy
Prints how far the two oracles are apart, as a share of the output's scale: the floor for any comparison with them.
Needs PyPI's onnxruntime (1.31.1 made the fixtures) and numpy."""
import glob
import os
import sys

import numpy as np
import onnxruntime


def main():
    print(f"onnxruntime {onnxruntime.__version__}")
    for model in sorted(glob.glob(os.path.join(sys.argv[1], "*", "model.onnx"))):
        folder = os.path.dirname(model)
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        feed = {x.name: np.load(os.path.join(folder, f"input_{i}.npy")) for i, x in enumerate(session.get_inputs())}
        worst = 0.0
        for i, got in enumerate(session.run(None, feed)):
            want = np.load(os.path.join(folder, f"output_{i}.npy"))
            assert got.shape == want.shape and got.dtype == want.dtype, (folder, i, got.shape, want.shape)
            if want.size:
                worst = max(worst, np.abs(got.astype(float) - want).max() / max(np.abs(want).max(), 1e-30))
            np.save(os.path.join(folder, f"ort_{i}.npy"), got)
        print(f"{os.path.basename(folder):14s} onnxruntime is within {worst:.1e} of PyTorch's scale", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main()
