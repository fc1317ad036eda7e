#!/usr/bin/python3
"""Writes the array files that tests/base/test_npy.c reads (tests/data/npy). Needs NumPy; the committed
files were made with NumPy 1.24.2. Every array holds 0, 1, 2, ... in shape [2, 3, 4] unless its name says
otherwise."""
import os
import numpy as np

out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "npy")
os.makedirs(out, exist_ok=True)
a = np.arange(24).reshape(2, 3, 4)
for t in ["<f4", ">f4", "<f2", ">f8", "<i8", ">i2", "|u1", "|i1", "<u4"]:
    name = t.replace("<", "le_").replace(">", "be_").replace("|", "")
    np.save(os.path.join(out, name + ".npy"), a.astype(t))
np.save(os.path.join(out, "fortran.npy"), np.asfortranarray(a.astype("<f4")))
np.save(os.path.join(out, "fortran_be.npy"), np.asfortranarray(a.astype(">i4")))
np.save(os.path.join(out, "bool.npy"), a % 2 == 1)
np.save(os.path.join(out, "scalar.npy"), np.float32(7))
np.save(os.path.join(out, "empty.npy"), np.zeros((0, 3), "<f4"))
np.save(os.path.join(out, "bfloat16.npy"), (a.astype("<f4").view("<u4") >> 16).astype("<u2").view("V2"))
for v in (2, 3):
    with open(os.path.join(out, f"version{v}.npy"), "wb") as f:
        np.lib.format.write_array(f, a.astype("<f4"), version=(v, 0))
np.save(os.path.join(out, "complex.npy"), np.zeros(2, "<c8"))
np.save(os.path.join(out, "text.npy"), np.array(["a", "bc"]))
np.save(os.path.join(out, "struct.npy"), np.zeros(2, [("x", "<f4"), ("y", "<i4")]))
np.savez(os.path.join(out, "stored.npz"), x=a.astype("<f4"), y=np.asfortranarray(a.astype("<i4")))
np.savez_compressed(os.path.join(out, "deflated.npz"), x=a.astype("<f4"), y=np.asfortranarray(a.astype("<i4")),
                    long=np.arange(10000, dtype="<i4").reshape(1000, 10))
