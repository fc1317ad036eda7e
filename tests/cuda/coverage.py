#!/usr/bin/env python3
"""Which of our CUDA kernels have run in the emulation.

usage: coverage.py KERNELS_DIR COVERED_FILE
Every __global__ function in KERNELS_DIR/*.cu must be in COVERED_FILE (which the emulation appends launched kernels to, one
name a line), or in `without` below with the reason. Exit code 1 names those that are not.
"""
import pathlib
import re
import sys

# kernel: why no test launches it
without = {"overlap_probe": "never launched: asked what it was compiled for"}


def kernels(folder):
    found = {}
    for path in sorted(pathlib.Path(folder).glob("*.cu*")):
        text = re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(), flags=re.S)
        # __global__ void [__launch_bounds__(...)] name(
        for m in re.finditer(r"__global__\s+(?:__launch_bounds__\s*\([^;{]*?\)\s*)?void\s+"
                             r"(?:__launch_bounds__\s*\((?:[^()]|\([^()]*\))*\)\s*)?(\w+)\s*\(", text):
            found.setdefault(m.group(1), path.name)
    return found


def main():
    found = kernels(sys.argv[1])
    path = pathlib.Path(sys.argv[2])
    ran = set(path.read_text().split()) if path.exists() else set()
    missing = sorted(k for k in found if k not in ran and k not in without)
    for k in missing:
        print(f"{found[k]}: {k} was launched by no test")
    for k in sorted(set(without) - set(found)):
        print(f"no such kernel: {k}")
    print(f"{len(found) - len(missing)} of {len(found)} kernels ran in the emulation")
    return 1 if missing or not found or set(without) - set(found) else 0


sys.exit(main())
