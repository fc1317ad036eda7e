#!/usr/bin/python3
"""Writes tests/data/language/quant: rows of every weight type of GGUF files and what they stand for.

<type>.bin is ROWS rows of K elements as a file stores them, <type>.npy the floats [ROWS, K]. Needs gguf and
NumPy; the committed files were made with gguf 0.19.0 and NumPy 2.4.6. Types that the package can quantise get
normal random numbers (the first row also ends in a block of zeros), K-quants random bytes with sane super
scales (positive, negative, zero, subnormal), so that every bit of every field counts."""
import os

import gguf
import numpy as np
from gguf.quants import dequantize, quantize

ROWS, K = 3, 512
# where a superblock's fp16 numbers stand, in bytes
SUPER = {"Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}

out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "language", "quant")
os.makedirs(out, exist_ok=True)
rng = np.random.default_rng(20)
for name in ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]:
    kind = gguf.GGMLQuantizationType[name]
    elems, size = gguf.GGML_QUANT_SIZES[kind]
    if name in SUPER:
        blocks = rng.integers(0, 256, (ROWS * K // elems, size), dtype=np.uint8)
        scales = np.array([0.01, -0.3, 0, 3e-7, 1.7, -2e-5], dtype=np.float16)
        for n, at in enumerate(SUPER[name]):
            blocks[:, at:at + 2] = np.roll(scales, 3 * n).reshape(-1, 1).view(np.uint8)
        raw = blocks.reshape(ROWS, -1)
    else:
        x = rng.standard_normal((ROWS, K)).astype(np.float32)
        x[0, -32:] = 0
        raw = quantize(x, kind)
    want = dequantize(raw, kind).reshape(ROWS, K).astype("<f4")
    raw.tofile(os.path.join(out, name.lower() + ".bin"))
    np.save(os.path.join(out, name.lower() + ".npy"), want)
