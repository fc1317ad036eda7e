#!/usr/bin/env python3
"""Hands the program what it must refuse, the way a user would.

usage: bad_input.py TRIREME [PATTERN]

Every case runs the real command and checks its exit code, that exactly one line on standard error says what is wrong
(every given pattern occurs in it), that standard output stays empty, and that no file or folder is made or changed.
Only the standard library is needed; models, arrays and pictures are made by onnx_bytes.py.
"""
import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from onnx_bytes import *  # noqa: F403

TIME_LIMIT = float(os.environ.get("TRM_DEADLINE_SCALE", "1")) * 20


def snapshot(folder):
    """Every path below `folder` with what it holds."""
    found = {}
    for where, folders, files in os.walk(folder):
        for name in folders:
            found[os.path.join(where, name)] = None
        for name in files:
            path = os.path.join(where, name)
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as f:
                    found[path] = f.read()
            else:
                found[path] = None
    return found


class Room:
    """One case's folder, with the files that all cases start from."""

    def __init__(self, root, name):
        self.folder = os.path.join(root, re.sub(r"\W+", "_", name))
        os.makedirs(self.folder)

    def put(self, name, data):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data.encode() if isinstance(data, str) else data)
        return path


X, Y = info("x", F32, ["N", 4]), info("y", F32, ["N", 4])
RELU = model([node("Relu", ["x"], ["y"])], [X], [Y])
ADD = model([node("Add", ["a", "b"], ["y"])], [info("a", F32, ["N", 4]), info("b", F32, ["N", 4])], [Y])
ROWS = npy("<f4", "(2, 4)", floats(*range(8)))
GATHER = model([node("Gather", ["table", "i"], ["y"], name="lookup")], [info("i", I64, ["N", 2])],
               [info("y", F32, ["N", 2, 2])], [tensor("table", F32, [3, 2], floats(*range(6)))])
IMAGES = model([node("GlobalAveragePool", ["x"], ["p"]), node("Flatten", ["p"], ["y"])],
               [info("x", F32, ["N", 3, 8, 8])], [info("y", F32, ["N", 3])])


def with_nodes(*nodes, tensors=(), inputs=(X,), outputs=(Y,), opset=17):
    return model(list(nodes), list(inputs), list(outputs), list(tensors), opset)


def weight(**how):
    """x + w, where w is described by `how`."""
    how.setdefault("dims", [4])
    return with_nodes(node("Add", ["x", "w"], ["y"]), tensors=[tensor("w", F32, **how)])


# name -> (files, arguments, patterns[, exit code])
CASES = {}


def case(name, files, arguments, *patterns, rc=2):
    assert name not in CASES, name
    CASES[name] = (files, arguments.split(), patterns, rc)


def bad_models():
    """Models that every command must refuse on opening."""
    whole = field(1, 8) + field(7, b"") + field(8, field(2, 17))
    yield "empty", b"", ["m.onnx", "empty"]
    yield "truncated", RELU[:-9], ["m.onnx"]
    yield "cut in half", GATHER[:len(GATHER) // 2], ["m.onnx"]
    yield "text", "this is no model, this is text\n" * 20, ["m.onnx"]
    yield "no graph", field(1, 8) + field(8, field(2, 17)), ["m.onnx", "graph"]
    yield "empty graph", whole, ["m.onnx"]
    yield "huge dims", weight(dims=[1 << 40, 1 << 40], raw=floats(1)), ["'w'"]
    yield "huge but legal dims", weight(dims=[1 << 30, 1 << 4], raw=floats(1)), ["'w'"]
    yield "negative dims", weight(dims=[-4], raw=floats(1, 2, 3, 4)), ["'w'"]
    yield "short initialiser", weight(raw=floats(1, 2, 3)), ["'w'"]
    yield "missing initialiser", with_nodes(node("Add", ["x", "w"], ["y"], name="plus")), ["'w'", "plus"]
    yield "cycle", with_nodes(node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]),
                              node("Relu", ["b"], ["y"])), ["cycle"]
    yield "output of no node", with_nodes(node("Relu", ["x"], ["z"])), ["'y'"]
    yield "written twice", with_nodes(node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["y"])), ["'y'"]
    yield "unknown operator", with_nodes(node("Frobnicate", ["x"], ["y"], name="frob7")), [
        "Frobnicate", "frob7", "opset 17"]
    yield "names of two lines", with_nodes(node("Two\nlines\x1b[31m", ["x"], ["y"], name="a\nb")), [r"a\?b", r"Two\?lines\?\[31m"]
    yield "foreign domain", with_nodes(node("Relu", ["x"], ["y"], name="n3", domain="com.example")), [
        "com.example", "n3"]
    yield "training operator", with_nodes(node("RandomNormalLike", ["x"], ["y"], name="noise")), [
        "RandomNormalLike", "noise", "opset 17"]
    yield "opset from the future", with_nodes(node("Relu", ["x"], ["y"]), opset=999), ["opset 999"]
    yield "shapes that do not fit", with_nodes(node("MatMul", ["x", "w"], ["y"], name="mm"),
                                               tensors=[tensor("w", F32, [5, 4], floats(*range(20)))]), ["mm"]
    yield "axis out of range", with_nodes(node("Softmax", ["x"], ["y"], name="soft", axis=7)), ["soft", "axis"]
    yield "attribute of a wrong kind", with_nodes(node("Softmax", ["x"], ["y"], name="soft", axis="one")), [
        "axis"]
    yield "strings", with_nodes(node("Identity", ["x"], ["y"]), inputs=[info("x", STRING, [2])],
                                outputs=[info("y", STRING, [2])]), ["'x'"]
    yield "huge constant result", with_nodes(
        node("ConstantOfShape", ["s"], ["big"], name="huge"), node("Add", ["x", "big"], ["y"]),
        tensors=[tensor("s", I64, [2], struct.pack("<qq", 1 << 40, 1 << 40))]), ["1099511627776"]
    yield "division by zero", with_nodes(
        node("Div", ["s", "z"], ["q"], name="div0"), node("Reshape", ["x", "q"], ["y"]),
        tensors=[tensor("s", I64, [1], struct.pack("<q", 4)), tensor("z", I64, [1], struct.pack("<q", 0))]), []
    for name, op in (("conv of a wrong rank", "Conv"), ("pool without a kernel", "MaxPool")):
        inputs = ["x", "w"] if op == "Conv" else ["x"]
        yield name, with_nodes(node(op, inputs, ["y"], name="layer1"),
                               tensors=[tensor("w", F32, [4, 1], floats(1, 2, 3, 4))]), ["layer1"]
    body = graph([node("Relu", ["x"], ["y"])], [], [Y])
    for _ in range(500):
        body = graph([node("If", ["c"], ["y"], then_branch=body, else_branch=body[:0])], [], [Y])
        if len(body) > 1 << 16:
            break
    deep = field(1, 8) + field(7, body) + field(8, field(2, 17))
    yield "bodies in bodies", deep, []


def external_models():
    yield "outside", {"location": "../secret.bin"}, ["../secret.bin"]
    yield "outside by the back door", {"location": "sub/../../secret.bin"}, ["secret.bin"]
    yield "absolute", {"location": "/etc/hostname"}, ["/etc/hostname"]
    yield "not there", {"location": "none.bin"}, ["none.bin"]
    yield "beyond the file", {"location": "w.bin", "offset": 8, "length": 16}, ["w.bin"]
    yield "offset overflows", {"location": "w.bin", "offset": (1 << 63) - 1, "length": 16}, ["w.bin"]
    yield "offset no number", {"location": "w.bin", "offset": "eight"}, ["offset"]
    yield "negative offset", {"location": "w.bin", "offset": -4}, ["offset"]
    yield "wrong length", {"location": "w.bin", "offset": 0, "length": 12}, ["12"]
    yield "a folder", {"location": "sub"}, ["sub"]
    yield "a fifo", {"location": "fifo"}, ["fifo"]
    yield "a link that leads outside", {"location": "link.bin"}, ["link.bin"]


def fill_cases():
    for name, data, patterns in bad_models():
        case("model " + name, {"m.onnx": data, "x.npy": ROWS}, "run m.onnx --input x.npy", *patterns)
    for name, data, patterns in list(bad_models())[:17]:
        case("inspect " + name, {"m.onnx": data}, "inspect m.onnx", *patterns)
    for name, data, patterns in list(bad_models())[:2]:
        case("bench " + name, {"m.onnx": data}, "bench m.onnx", *patterns)
        case("score " + name, {"m.onnx": data, "x.npy": ROWS}, "score m.onnx --input x.npy --output o.jsonl",
             *patterns)
    for name, external, patterns in external_models():
        case("external " + name, {"d/m.onnx": weight(external=external), "d/w.bin": floats(1, 2, 3, 4), "d/sub/": "",
                                  "secret.bin": floats(1, 2, 3, 4), "d/fifo": "fifo", "d/link.bin": "../secret.bin"},
             "inspect d/m.onnx", "'w'", *patterns)

    # what the model is called, and what is no ONNX file
    case("model not there", {}, "run none.onnx --input x.npy", "none.onnx", "No such file")
    case("folder without model", {"d/readme.txt": "hello"}, "inspect d", "'d'", "onnx")
    case("folder with two models", {"d/a.onnx": RELU, "d/b.onnx": RELU}, "inspect d", "a.onnx|two|several|2 ")
    case("model is a fifo", {"m.onnx": "fifo"}, "inspect m.onnx", "m.onnx", "regular")
    export = r'torch\.onnx\.export\(.*\.onnx'
    zipped = b"PK\x03\x04" + b"\0" * 26 + b"archive/data.pkl" + b"\0" * 100
    for extension in "pt", "pth":
        case(extension, {f"net.{extension}": zipped}, f"run net.{extension} --image a.png", f"net.{extension}",
             export)
    case("old pickle", {"net.pt": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."}, "inspect net.pt",
         export)
    script = b"PK\x03\x04" + b"\0" * 26 + b"net/code/__torch__.py" + b"\0" * 100 + b"net/constants.pkl"
    case("torchscript", {"net.pt": script}, "inspect net.pt", export)
    case("torchscript called onnx", {"net.onnx": script}, "inspect net.onnx", export)

    # inputs of run
    good = {"m.onnx": RELU, "two.onnx": ADD, "x.npy": ROWS}
    case("no input", good, "run m.onnx", "'x' is missing", "--input x=")
    case("missing input", good, "run two.onnx --input a=x.npy", "'b' is missing", "--input b=")
    case("wrong name", good, "run m.onnx --input z=x.npy", "no input 'z'", "'x'")
    case("which input", good, "run two.onnx --input x.npy", "NAME=FILE", "2 inputs")
    case("given twice", good, "run m.onnx --input x=x.npy x=x.npy", "'x'", "twice")
    arrays = {
        "rank": (npy("<f4", "(8,)", floats(*range(8))), ["'x'", r"\[8\]", r"\[N, 4\]|rank|2 dims"]),
        "rank 0": (npy("<f4", "()", floats(1)), ["'x'"]),
        "shape": (npy("<f4", "(4, 2)", floats(*range(8))), ["'x'", r"\[4, 2\]", "4"]),
        "no rows": (npy("<f4", "(0, 4)", b""), ["'x'"]),
        "empty": (b"", ["bad.npy"]),
        "truncated": (ROWS[:-5], ["bad.npy"]),
        "header cut": (ROWS[:40], ["bad.npy"]),
        "version": (b"\x93NUMPY\x09\x00" + ROWS[8:], ["bad.npy", "version"]),
        "objects": (npy("|O", "(2, 4)", b"\0" * 64), ["bad.npy"]),
        "strings": (npy("<U4", "(2, 4)", b"\0" * 128), ["bad.npy"]),
        "huge": (npy("<f4", "(1099511627776, 1099511627776)", b""), ["bad.npy"]),
        "negative": (npy("<f4", "(-2, 4)", floats(*range(8))), ["bad.npy"]),
        "text": ("1 2 3 4\n", ["bad.npy"]),
    }
    arrays["dtype"] = (npy("<f4", "(2, 4)", floats(*range(8))), ["'i'", "f32", "i64"])
    for name, (data, patterns) in arrays.items():
        if name == "dtype":  # whole numbers are taken for floats, not the other way round
            for how in "run g.onnx --input i=bad.npy", "score g.onnx --input bad.npy --output o.jsonl":
                case("array dtype " + how[:5], {"g.onnx": GATHER, "bad.npy": data}, how, *patterns)
            continue
        if name != "no rows":
            case("array " + name, {**good, "bad.npy": data}, "run m.onnx --input x=bad.npy --output-dir o", *patterns)
        if name not in ("rank", "rank 0"):
            case("score array " + name, {**good, "bad.npy": data},
                 "score m.onnx --input bad.npy --output o.jsonl", *(["'x'", r"\[1, 2\]|\[2\]", "4"] if name == "shape" else [p for p in patterns if "'x'" not in p]))
    case("score array rank", {**good, "bad.npy": arrays["rank"][0]}, "score m.onnx --input bad.npy --output o.jsonl",
         "'x'", r"\[\]", r"\[4\]")
    case("array of whole numbers", {**good, "bad.npy": npy("<i8", "(2, 4)", b"\0" * 64)}, "run m.onnx --input bad.npy",
         "'x'", "i64", "f32")
    case("array not there", good, "run m.onnx --input x=none.npy", "none.npy", "No such file")
    case("array is a folder", {**good, "d/": ""}, "run m.onnx --input x=d", "'d'", "regular")
    case("npz empty", {**good, "a.npz": b""}, "run m.onnx --input a.npz", "a.npz")
    case("npz is none", {**good, "a.npz": ROWS}, "run m.onnx --input a.npz", "a.npz")
    case("index out of range", {"g.onnx": GATHER, "i.npy": npy("<i8", "(1, 2)", struct.pack("<qq", 0, 9))},
         "run g.onnx --input i=i.npy --output-dir o", "lookup", "9", r"\b3\b|-3")
    case("bench a free dim", {"m.onnx": with_nodes(node("Relu", ["x"], ["y"]), inputs=[info("x", F32, ["N", "M"])],
                                                   outputs=[info("y", F32, ["N", "M"])])},
         "bench m.onnx", "'M'", "--dim M=")
    case("bench huge batch", {"m.onnx": with_nodes(
        node("Relu", ["x"], ["y"]), inputs=[info("x", F32, ["N", "M"])], outputs=[info("y", F32, ["N", "M"])])},
        "bench m.onnx --batch 65536 --dim M=1099511627776", "x|bytes", rc=None)
    case("bench bad dim", good, "bench m.onnx --dim N=many", "--dim 'N=many'")
    case("bench unknown dim", good, "bench m.onnx --dim Q=3", "Q")
    case("plan layout", good, "plan m.onnx --ranks 2 --parallel tensor=zwei", "--parallel", "tensor=zwei", "number")
    case("plan layout's name", good, "plan m.onnx --ranks 2 --parallel tensors=2", "tensors=2", "data=N, tensor=N")
    case("plan layout twice", good, "plan m.onnx --ranks 2 --parallel data=2,data=2", "data is given twice")
    case("plan huge replica", good, "plan m.onnx --ranks 128 --parallel tensor=128", "128", "at most 64")
    case("plan other ranks", good, "plan m.onnx --ranks 3 --parallel tensor=2", "takes 2 ranks, there are 3")
    case("plan too many stages", good, "plan m.onnx --ranks 2 --parallel pipeline=2 --device cpu:2", "only 1 node")
    case("plan no ranks", good, "plan m.onnx --ranks 0", "--ranks '0'", "from 1")
    case("plan objective", good, "plan m.onnx --objective speed", "--objective 'speed'", "throughput")
    case("plan device", good, "plan m.onnx --device abacus", "abacus", "cuda:")
    case("plan cores", good, "plan m.onnx --device cpu:0", "cpu:0")
    case("plan unknown dim", good, "plan m.onnx --dim Q=3", "Q")
    case("plan no model", {}, "plan missing.onnx", "missing.onnx")

    # images
    pictures = {"m.onnx": IMAGES, "flat.onnx": RELU, "two.onnx": ADD, "a.png": png(8, 8), "cut.png": png(8, 8)[:-30],
                "no.png": "not a picture", "empty.png": b"", "cut.jpg": b"\xff\xd8\xff\xe0\x00\x10JFIF",
                "huge.png": png(1 << 30, 1 << 30, b"")}
    for name in "cut.png", "no.png", "empty.png", "cut.jpg", "huge.png":
        case("image " + name, pictures, f"run m.onnx --image {name}", name)
        case("image after a good one " + name, pictures, f"run m.onnx --image a.png {name}", name)
    case("image not there", pictures, "run m.onnx --image a.png none.png", "none.png")
    case("image is a fifo", {**pictures, "f.png": "fifo"}, "run m.onnx --image f.png", "f.png", "regular")
    case("image is a folder", {**pictures, "d.png/": ""}, "run m.onnx --image d.png", "d.png", "regular")
    case("images for tensors", pictures, "run flat.onnx --image a.png", "'x'", "image")
    case("images for two inputs", pictures, "run two.onnx --image a.png", "2 inputs|one input", "has 2")
    case("score images for tensors", {**pictures, "p/a.png": png(8, 8)}, "score flat.onnx --input p --output o.csv",
         "'x'", "image")
    case("all images unreadable", {"m.onnx": IMAGES, "p/a.png": b"", "p/b.png": b"no"},
         "score m.onnx --input p --output o.csv", "all 2 records failed", "a.png", rc=None)
    case("more labels than classes", pictures, "run m.onnx --image a.png --top 4", "--top 4", "3 classes")
    case("score more labels than classes", {**pictures, "p/a.png": png(8, 8)},
         "score m.onnx --input p --output o.jsonl --top 4", "--top 4", "3 classes")
    case("image and input", {**pictures, "x.npy": ROWS}, "run m.onnx --image a.png --input x.npy", "--image", "--input")

    # the YAML beside the model
    yamls = {
        "unknown key": ("preprocess:\n  resise: 8\n", [r"m\.yaml:2:3", "resise", "resize"]),
        "unknown key at the top": ("labls: l.txt\n", [r"m\.yaml:1:1", "labls", "labels"]),
        "wrong type": ("top_k: many\n", [r"m\.yaml:1", "top_k"]),
        "out of range": ("top_k: 0\n", [r"m\.yaml:1", "top_k"]),
        "twice": ("top_k: 3\ntop_k: 4\n", [r"m\.yaml:2", "top_k"]),
        "broken": ("preprocess: [1, 2\n", [r"m\.yaml:"]),
        "a list": ("- 1\n", [r"m\.yaml:1"]),
        "binary": (b"\x00\xff\xfe", [r"m\.yaml"]),
        "labels not there": ("labels: none.txt\n", ["none.txt"]),
        "labels too few": ("labels: l.txt\n", [r"l\.txt", "2", "3"]),
        "unknown output": ("output: z\n", ["'z'", "y"]),
        "mean of two": ("preprocess:\n  mean: [1, 2]\n", [r"m\.yaml:2", "2 values", "3"]),
        "std of zero": ("preprocess:\n  std: 0\n", [r"m\.yaml", "std"]),
        "aliases": ("a: &a [x]\nb: *a\n", [r"m\.yaml:"]),
    }
    for name, (text, patterns) in yamls.items():
        case("yaml " + name, {**pictures, "m.yaml": text, "l.txt": "a\nb\n"}, "run m.onnx --image a.png", *patterns)
    case("score yaml", {**pictures, "m.yaml": yamls["unknown key"][0], "p/a.png": png(8, 8)},
         "score m.onnx --input p --output o.csv", r"m\.yaml:2:3", "resise")

    # outputs of run
    case("output dir below a file", good, "run m.onnx --input x=x.npy --output-dir x.npy/o", "--output-dir", "x.npy/o")
    case("output dir is a file", good, "run m.onnx --input x=x.npy --output-dir x.npy", "--output-dir", "x.npy")
    case("output dir nowhere", good, "run m.onnx --input x=x.npy --output-dir a/b/c", "--output-dir", "a/b/c")
    case("output dir read only", good, "run m.onnx --input x=x.npy --output-dir /proc/o", "--output-dir", "/proc/o")
    case("output dir that cannot be written", good, "run m.onnx --input x=x.npy --output-dir /proc", "/proc", rc=None)
    # outputs of score
    score = "score m.onnx --input x.npy --output "
    case("output exists", {**good, "o.jsonl": "mine\n"}, score + "o.jsonl", "o.jsonl", "--resume", "--overwrite")
    case("output of no kind", good, score + "o.xml", "o.xml", r"\.jsonl", r"\.csv", r"\.npy")
    case("output in no folder", good, score + "a/o.csv", "a/o.csv", "folder")
    case("output is a folder", {**good, "o.csv/": ""}, score + "o.csv", "o.csv", "folder")
    case("output is the input", good, score + "x.npy --overwrite", "x.npy", "input")
    for kind in "jsonl", "csv", "npy":
        case("output cannot be made " + kind, good, score + f"/proc/o.{kind}", f"/proc/o.{kind}")
    case("resume and overwrite", good, score + "o.csv --resume --overwrite", "--resume", "--overwrite")
    foreign = {"jsonl": ['{"name": "mine"}\n', '{"index":0,"id":"7"}\n', "a line", "mine\nand mine", "\n"],
               "csv": ["a,b\n1,2\n", "a,b\n1,2", "mine", "id,error\n7,\n"],
               "npy": [ROWS[:-16], "mine", npy("<i8", "(1, 4)", b"\0" * 32), npy("<f4", "(1, 9)", b"\0" * 36),
                       npy("<f4", "(9, 4)", b"\0" * 144)]}
    for kind, texts in foreign.items():
        for i, text in enumerate(texts):
            if (kind, i) != ("npy", 0):
                case(f"resume foreign {kind} {i}", {**good, f"o.{kind}": text}, score + f"o.{kind} --resume",
                     f"o.{kind}")

    # inputs of score
    scored = {**good, "g.onnx": GATHER, "i.onnx": IMAGES}
    case("score input not there", scored, "score m.onnx --input none --output o.csv", "none", "does not exist")
    case("score input of no kind", {**scored, "in.xml": "x"}, "score m.onnx --input in.xml --output o.csv", "in.xml",
         r"\.jsonl")
    case("score empty folder", {**scored, "p/": ""}, "score i.onnx --input p --output o.csv", "'p'", "png")
    case("score empty list", {**scored, "l.txt": "\n\n"}, "score i.onnx --input l.txt --output o.csv", "l.txt", "empty")
    case("score list is binary", {**scored, "l.txt": b"\x00\x01\x02" * 300}, "score i.onnx --input l.txt --output o.csv",
         "l.txt", "one image path a line")
    case("score list of none", {**scored, "l.txt": "no.png\nnone.png\n"},
         "score i.onnx --input l.txt --output o.csv", "all 2 records failed", "no.png", rc=None)
    case("score list is a fifo", {**scored, "l.txt": "fifo"}, "score i.onnx --input l.txt --output o.csv", "l.txt")
    case("score lines is a fifo", {**scored, "l.jsonl": "fifo"}, "score m.onnx --input l.jsonl --output o.csv", "l.jsonl")
    case("score empty lines", {**scored, "l.jsonl": ""}, "score m.onnx --input l.jsonl --output o.csv", "l.jsonl", "empty")
    for i, line in enumerate(["{\"x\": [1, 2", "[1, 2]", "7", "{}", "{\"x\": \"text\"}", "{\"x\": [[1], [1, 2]]}",
                              "{\"x\": " + "[" * 3000 + "]" * 3000 + "}", "\x00\x01"]):
        case(f"score bad first line {i}", {**scored, "l.jsonl": "\n" + line + "\n"},
             "score m.onnx --input l.jsonl --output o.jsonl", r"l\.jsonl", "line 2")
    case("score lines without input", {**scored, "l.jsonl": '{"z": [1, 2, 3, 4]}\n'},
         "score m.onnx --input l.jsonl --output o.csv", "'z'", "'x'", rc=None)
    case("score lines of a wrong shape", {**scored, "l.jsonl": '{"x": [1, 2, 3]}\n'},
         "score m.onnx --input l.jsonl --output o.csv", "'x'", r"\b3\b", rc=None)
    case("score labels not there", {**scored, "p/a.png": png(8, 8)},
         "score i.onnx --input p --output o.csv --labels none.csv", "none.csv")
    case("score labels bad", {**scored, "p/a.png": png(8, 8), "l.csv": "file,label\na.png;1\n"},
         "score i.onnx --input p --output o.csv --labels l.csv", "l.csv:2", "file,label")
    case("score labels of none", {**scored, "p/a.png": png(8, 8), "l.csv": "file,label\n"},
         "score i.onnx --input p --output o.csv --labels l.csv", "l.csv")
    case("score unknown output", scored, "score m.onnx --input x.npy --output o.csv --output-name z", "'z'", "it has y")
    case("score npz of two lengths", {**scored, "two.onnx": ADD}, "score two.onnx --input x.npy --output o.jsonl",
         "'a'|'b'|2 inputs")

    # the command line itself
    case("unknown command", {}, "lunch", "'lunch'", "--help")
    case("no model", {}, "run", "usage: trireme run")
    case("no output", good, "score m.onnx --input x.npy", "--output")
    case("no score input", good, "score m.onnx --output o.csv", "--input")
    case("unknown option", good, "run m.onnx --inputt x.npy", "--inputt", "--input")
    case("unknown short option", good, "run m.onnx -x", "-x")
    case("option without value", good, "score m.onnx --input", "--input")
    case("not a number", good, "bench m.onnx --rounds many", "--rounds 'many'", "number")
    case("number out of range", good, "bench m.onnx --rounds 0", "--rounds '0'", "from 1")
    case("number too long", good, "bench m.onnx --rounds 99999999999999999999", "--rounds")
    case("no choice", good, "run m.onnx --device tpu", "'tpu'", "cpu")
    case("no such dtype", good, "run m.onnx --dtype fp8", "'fp8'", "bf16")
    case("no cuda here", good, "run m.onnx --input x.npy --device cuda", "cuda")
    case("too many models", good, "run m.onnx two.onnx --input x.npy", "two.onnx")
    case("empty name", good, "inspect ''", "''|empty|file")
    case("too many threads", good, "run m.onnx --input x.npy --threads 100000", "--threads")


def prepare(room, files):
    for name, data in files.items():
        path = os.path.join(room.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if name.endswith("/"):
            os.makedirs(path, exist_ok=True)
        elif data == "fifo":
            os.mkfifo(path)
        elif name.endswith("link.bin"):
            os.symlink(data, path)
        else:
            room.put(name, data)


def run_case(trireme, root, name, env):
    """What is wrong; None where all is as it must be."""
    files, arguments, patterns, want_rc = CASES[name]
    room = Room(root, name)
    prepare(room, files)
    before = snapshot(room.folder)
    try:
        done = subprocess.run([trireme] + [a.strip("'") for a in arguments], cwd=room.folder, env=env,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        return "hangs"
    after = snapshot(room.folder)
    lines = done.stderr.decode(errors="replace").splitlines()
    said = "\n    ".join(line[:400] for line in lines[:12])
    if done.returncode != want_rc and (want_rc is not None or done.returncode not in (1, 2)):
        return f"exit code {done.returncode}, want {want_rc}: {said}"
    if len(lines) != 1 and not (want_rc is None and "output" in name):
        if want_rc is not None or not lines:
            return f"{len(lines)} lines on standard error: {said}"
    if want_rc is not None and done.stdout:
        return f"wrote to standard output: {done.stdout[:200]}"
    for p in patterns:
        if not re.search(p, lines[-1] if want_rc is not None else "\n".join(lines), re.IGNORECASE):
            return f"does not say '{p}': {said}"
    if want_rc is not None and before != after:
        changed = sorted(p for p in set(before) | set(after) if before.get(p, 0) != after.get(p, 0))
        return f"made or changed {[os.path.relpath(p, room.folder) for p in changed]}"
    return None


def command(trireme, root, name, files, arguments, **how):
    room = Room(root, name)
    prepare(room, files)
    done = subprocess.run(how.pop("launcher", []) + [trireme] + arguments.split(), cwd=room.folder,
                          stdin=subprocess.DEVNULL, stdout=how.pop("stdout", subprocess.PIPE), stderr=subprocess.PIPE,
                          timeout=TIME_LIMIT, **how)
    return room, done.returncode, done.stderr.decode(errors="replace").splitlines()


def only_that_record(trireme, root, env):
    """In a scoring job one bad record is one error; the others are scored."""
    pictures = {"m.onnx": IMAGES, "p/0.png": png(8, 8), "p/1.png": b"no picture", "p/2.png": b"", "p/3.png": png(9, 9)}
    room, rc, said = command(trireme, root, "pictures", pictures, "score m.onnx --input p --output o.jsonl", env=env)
    rows = [json.loads(line) for line in open(room.folder + "/o.jsonl")]
    if rc != 0 or ["error" in r for r in rows] != [False, True, True, False]:
        return f"a bad picture among good ones: exit code {rc}, {rows}, {said}"
    if "1.png" not in rows[1]["error"] + rows[1]["file"]:
        return f"the bad picture is not named: {rows[1]}"
    lines = '{"i": [0, 1]}\n\n{"i": [0, \n{"i": [0, 9]}\n{"i": [2, 2]}\n{"i": "no"}\n{"j": [0, 0]}\n{"i": [1.5, 2]}\n'
    room, rc, said = command(trireme, root, "lines", {"m.onnx": GATHER, "l.jsonl": lines},
                             "score m.onnx --input l.jsonl --output o.jsonl", env=env)
    rows = [json.loads(line) for line in open(room.folder + "/o.jsonl")]
    if rc != 0 or ["error" in r for r in rows] != [False, True, True, False, True, True, True]:
        return f"bad lines among good ones: exit code {rc}, {rows}, {said}"
    for row, wanted in ((1, "line 3"), (2, "lookup.*9"), (4, "line 6"), (5, "'j'"), (6, "'i'.*f32.*i64")):
        if not re.search(wanted, rows[row]["error"]):
            return f"row {row} does not say '{wanted}': {rows[row]['error']}"
    return None


def small_files():
    """No file may grow past 8 KiB: what a full disk looks like, without one."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))


def full_disk(trireme, root, env):
    """Exit code 1, one line, and what was complete stays."""
    rows = 600
    files = {"m.onnx": RELU, "x.npy": npy("<f4", f"({rows}, 4)", floats(*range(4 * rows)))}
    for kind in "jsonl", "csv", "npy":
        room, rc, said = command(trireme, root, "full" + kind, files, f"score m.onnx --input x.npy --output o.{kind}",
                                 env=env, preexec_fn=small_files)
        with open(f"{room.folder}/o.{kind}", "rb") as f:
            kept = f.read()
        if rc != 1 or not said or f"o.{kind}" not in said[-1]:
            return f"score to a full disk as {kind}: exit code {rc}, {said}"
        if kind != "npy" and (kept[-1:] != b"\n" or kept.count(b"\n") < 20):
            return f"score to a full disk as {kind}: a torn record: {kept[-80:]}"
        if kind == "npy" and (len(kept) - 256) % 16 != 0:
            return f"score to a full disk as {kind}: a torn row"
        if kind == "npy" and f"({(len(kept) - 256) // 16}, 4)".encode() not in kept[:256]:
            return f"score to a full disk as {kind}: its header tells another number of rows: {kept[:100]}"
    room, rc, said = command(trireme, root, "fullrun", files, "run m.onnx --input x.npy --output-dir o", env=env,
                             preexec_fn=small_files)
    if rc != 1 or len(said) != 1 or "y.npy" not in said[0] or os.path.exists(room.folder + "/o"):
        return f"run to a full disk: exit code {rc}, {said}"
    if os.path.exists("/dev/full"):
        for arguments in "run m.onnx --input x.npy", "inspect m.onnx", "bench m.onnx --rounds 1 --warmup 0":
            with open("/dev/full", "w") as full:
                _, rc, said = command(trireme, root, "out" + arguments[:3], files, arguments, env=env, stdout=full)
            if rc != 1 or len(said) != 1 or "standard output" not in said[0]:
                return f"{arguments} to a full standard output: exit code {rc}, {said}"
        room = Room(root, "device")
        prepare(room, files)
        os.symlink("/dev/full", room.folder + "/o.jsonl")
        done = subprocess.run([trireme] + "score m.onnx --input x.npy --output o.jsonl --overwrite".split(),
                              cwd=room.folder, env=env, capture_output=True, timeout=TIME_LIMIT)
        if done.returncode != 1 or b"No space left" not in done.stderr or not os.path.exists("/dev/full"):
            return f"score to /dev/full: exit code {done.returncode}, {done.stderr}"
    return None


def four_ranks(trireme, root, env):
    """Through mpirun: still one line of ours, exit code 2, no output."""
    if shutil.which("mpirun") is None:
        print("no mpirun here: its case is left out")
        return None
    bad = with_nodes(node("Frobnicate", ["x"], ["y"], name="frob7"))
    env = {**env, "ASAN_OPTIONS": env.get("ASAN_OPTIONS", "") + ":detect_leaks=0"}  # Open MPI keeps what it has
    launcher = "mpirun --allow-run-as-root --oversubscribe --bind-to none -np 4".split()
    for name, files, arguments, wanted in (
            ("model", {"m.onnx": bad, "x.npy": ROWS}, "score m.onnx --input x.npy --output o.jsonl", "frob7.*opset 17"),
            ("run", {"m.onnx": bad, "x.npy": ROWS}, "run m.onnx --input x.npy", "frob7.*opset 17"),
            ("option", {}, "score m.onnx --inputt x.npy", "--inputt")):
        room, rc, said = command(trireme, root, "ranks" + name, files, arguments, env=env, launcher=launcher)
        ours = [line for line in said if line.startswith("trireme ")]
        if rc != 2 or len(ours) != 1 or not re.search(wanted, ours[0]) or os.path.exists(room.folder + "/o.jsonl"):
            return f"four ranks, bad {name}: exit code {rc}, {said}"
    return None


def main():
    trireme = os.path.abspath(sys.argv[1])
    pattern = sys.argv[2] if len(sys.argv) > 2 else ""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    fill_cases()
    names = [n for n in CASES if re.search(pattern, n)]
    root = tempfile.mkdtemp()
    try:
        with ThreadPoolExecutor(2) as pool:
            jobs = {f.__name__: pool.submit(f, trireme, root, env) for f in (four_ranks, full_disk, only_that_record)
                    if re.search(pattern, f.__name__)}
            wrong = [(n, w) for n, w in zip(names, pool.map(lambda n: run_case(trireme, root, n, env), names)) if w]
            wrong += [(n, j.result()) for n, j in jobs.items() if j.result()]
    finally:
        shutil.rmtree(root)
    for name, what in wrong:
        print(f"FAILED {name}: {what}")
    total = len(names) + len(jobs)
    print(f"{total - len(wrong)} of {total} cases end as they must")
    return 1 if wrong or total == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
