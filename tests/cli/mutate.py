#!/usr/bin/env python3
"""Damages the committed models at random and runs each: it must answer or refuse, never crash, leak or hang.

usage: mutate.py TRIREME SOURCE_DIR [COUNT [SEED]]

TRIREME is best a build with sanitizers (preset asan). Some get bytes flipped, cut out, doubled or cut off; most
stay whole messages with a value changed, left out, doubled or out of order, which reaches what lies behind the reader:
shape rules, passes, kernels. The same seed gives the same damage. What fails is kept in the folder that is printed.
"""
import glob
import os
import random
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from bad_input import GATHER, IMAGES, RELU, ROWS, TIME_LIMIT
from onnx_bytes import npy, varint


def damaged(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not data:
            break
        near = rng.choice((200, 2000, len(data)))
        at = rng.randrange(min(near, len(data)))
        at = at if rng.random() < 0.5 else len(data) - 1 - at
        how = rng.randrange(6)
        if how == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            data[at] = rng.choice((0, 1, 0x7f, 0x80, 0xff, rng.randrange(256)))
        elif how == 2:
            del data[at:at + rng.choice((1, 2, 8, 100))]
        elif how == 3:
            data[at:at] = data[at:at + rng.choice((1, 2, 8, 100))]
        elif how == 4:
            data[at:at + 8] = rng.randbytes(8)
        elif rng.random() < 0.3:
            del data[at:]
    return bytes(data)


def parse(data):
    """A message's fields as [number, wire type, value]; None where it is none."""
    fields, at = [], 0

    def number():
        nonlocal at
        v = shift = 0
        while True:
            b = data[at]
            at += 1
            v |= (b & 127) << shift
            shift += 7
            if b < 128:
                return v

    try:
        while at < len(data):
            key = number()
            if key & 7 == 0:
                fields.append([key >> 3, 0, number()])
            elif key & 7 in (1, 5):
                size = 8 if key & 7 == 1 else 4
                fields.append([key >> 3, key & 7, data[at:at + size]])
                at += size
            elif key & 7 == 2:
                size = number()
                fields.append([key >> 3, 2, data[at:at + size]])
                at += size
            else:
                return None
    except IndexError:
        return None
    return fields if at == len(data) and fields and all(0 < f[0] < 100 for f in fields) else None


def bent(rng, data, spare=b""):
    """The same message with one value changed somewhere in it: a whole one, all lengths right."""
    fields = parse(data)
    if not fields:
        return bytes(rng.choice((data[:-1], data + data, b"", spare, bytes(rng.choice(data or b"a") for _ in data))))
    small = [f for f in fields if f[1] != 2 or len(f[2]) < 20000 or len(fields) < 8]
    f = rng.choice(small or fields)
    how = rng.randrange(12)
    if how == 0:
        fields.remove(f)
    elif how == 1:
        fields.insert(rng.randrange(len(fields) + 1), list(f))
    elif how == 2:
        rng.shuffle(fields)
    elif f[1] == 0:
        f[2] = rng.choice((0, 1, 2, 3, 7, 100, f[2] + 1, f[2] * 2, (1 << 31) - 1, 1 << 31, 1 << 40, (1 << 63) - 1, 1 << 63,
                           (1 << 64) - 1, (1 << 64) - 2, max(0, f[2] - 1), rng.randrange(40)))
    elif f[1] == 2:
        other = rng.choice([g[2] for g in fields if g[1] == 2])
        f[2] = bent(rng, f[2], other if rng.random() < 0.3 else b"")
    else:
        f[2] = rng.choice((bytes(len(f[2])), b"\xff" * len(f[2]), rng.randbytes(len(f[2]))))
    out = b""
    for n, wire, value in fields:
        if wire == 0:
            out += varint(n << 3) + varint(value)
        else:
            out += varint(n << 3 | wire) + (varint(len(value)) if wire == 2 else b"") + value
    return out


def subjects(source):
    """(model bytes, its arguments) for every model that is small enough to damage often."""
    image = os.path.join(source, "configs/demo/digits/images/000.png")
    small = {"relu": (RELU, ROWS), "gather": (GATHER, npy("<i8", "(1, 2)", bytes(16))),
             "pool": (IMAGES, npy("<f4", "(1, 3, 8, 8)", bytes(768)))}
    for name, (model, array) in small.items():
        yield name, model, [("x.npy", array)], ["--input", "x.npy"]
    with open(os.path.join(source, "configs/demo/digits/model.onnx"), "rb") as f:
        yield "digits", f.read(), [], ["--image", image]
    for folder in sorted(glob.glob(os.path.join(source, "tests/data/networks/*/"))):
        path = os.path.join(folder, "model.onnx")
        if os.path.getsize(path) < 1 << 20:
            with open(path, "rb") as f:
                yield os.path.basename(folder[:-1]), f.read(), [], None  # inspected, and benched with made-up inputs


def main():
    trireme, source = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 300
    rng = random.Random(int(sys.argv[4]) if len(sys.argv) > 4 else 1)
    root = tempfile.mkdtemp()
    env = {**os.environ, "OMP_NUM_THREADS": "1",
           "ASAN_OPTIONS": "allocator_may_return_null=1:hard_rss_limit_mb=3000:" + os.environ.get("ASAN_OPTIONS", "")}
    models = list(subjects(source))
    ends = {}

    def one(job):
        number, (name, model, files, arguments) = job
        folder = os.path.join(root, f"{number}-{name}")
        os.makedirs(folder)
        for file, data in [("m.onnx", model)] + files:
            with open(os.path.join(folder, file), "wb") as f:
                f.write(data)
        line = ["run", "m.onnx"] + arguments if arguments is not None else [
            "bench", "m.onnx", "--rounds", "1", "--warmup", "1"]
        try:
            done = subprocess.run([trireme] + line + ["--threads", "1"], cwd=folder, env=env, capture_output=True,
                                  stdin=subprocess.DEVNULL, timeout=TIME_LIMIT)
        except subprocess.TimeoutExpired:
            return folder, "hangs"
        said = done.stderr.decode(errors="replace")
        ends[done.returncode] = ends.get(done.returncode, 0) + 1
        if done.returncode not in (0, 1, 2) or "Sanitizer" in said or "runtime error" in said:
            return folder, f"exit code {done.returncode}: {said[:3000]}"
        if done.returncode == 0 or said.count("\n") == 1:
            shutil.rmtree(folder)
            return None
        return folder, f"exit code {done.returncode}, not one line: {said[:1000]}"

    jobs = []
    for i in range(count):
        name, model, files, arguments = models[i % len(models)]
        for_bytes = rng.random() < 0.3
        jobs.append((i, (name, damaged(rng, model) if for_bytes else bent(rng, bent(rng, model)), files, arguments)))
    with ThreadPoolExecutor(2) as pool:
        wrong = [w for w in pool.map(one, jobs) if w]
    for folder, what in wrong:
        print(f"FAILED {folder}: {what}")
    print(f"{count - len(wrong)} of {count} damaged models are answered or refused; exit codes {sorted(ends.items())}")
    if not wrong:
        shutil.rmtree(root)
    return 1 if wrong or not count else 0


if __name__ == "__main__":
    sys.exit(main())
