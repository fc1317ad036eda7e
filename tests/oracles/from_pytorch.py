#!/usr/bin/python3
"""Runs docs/from-pytorch.md: its python, sh and yaml blocks in order in an empty folder, then what Trireme
says to PyTorch's own files. Usage: from_pytorch.py TRIREME [--keep]

Needs torch, torchvision, onnx and NumPy (Debian 12: python3-torch python3-torchvision python3-onnx). Made with
torch 1.13.1, torchvision 0.14.1, onnx 1.12. Without them: a message, and exit code 77 (skipped)."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings

try:
    import numpy
    import onnx
    import torch
    import torchvision
except ImportError as e:
    print(f"skipped: {e.name} is not installed (Debian: python3-torch python3-torchvision python3-onnx)")
    sys.exit(77)

warnings.filterwarnings("ignore")
ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
TRIREME = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "build", "release", "trireme"))


def trireme(arguments):
    return subprocess.run([TRIREME] + arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=300)


def fail(text):
    print("FAILED:", text)
    sys.exit(1)


def must(arguments):
    r = trireme(arguments)
    if r.returncode != 0:
        fail(f"trireme {' '.join(arguments)}: exit code {r.returncode}\n{r.stderr}")
    return r.stdout


def refused(arguments, wanted):
    r = trireme(arguments)
    lines = r.stderr.strip().split("\n")
    if r.returncode != 2 or len(lines) != 1 or wanted not in lines[0]:
        fail(f"trireme {' '.join(arguments)}: exit code {r.returncode}, wanted 2 and one line with '{wanted}'\n{r.stderr}")
    return lines[0]


def prepare():
    """What the page takes for granted: photographs and labels."""
    images = os.path.join(ROOT, "tests", "data", "images")
    os.mkdir("photos")
    for name in ("photo.jpg", "wide.png", "tall.png", "rgb444.jpg"):
        shutil.copy(os.path.join(images, name), "photos")
    shutil.copy(os.path.join(images, "photo.jpg"), ".")
    shutil.copy(os.path.join(ROOT, "configs", "imagenet-labels.txt"), "labels.txt")


def run_page():
    with open(os.path.join(ROOT, "docs", "from-pytorch.md"), encoding="utf-8") as f:
        blocks = re.findall(r"```(\w+)\n(.*?)```", f.read(), re.S)
    names = {}
    for kind, text in blocks:
        if kind == "python":
            exec(text, names)
        elif kind == "yaml":
            with open("net.yaml", "w") as f:
                f.write(text)
        else:
            for line in text.strip().split("\n"):
                words = line.split()
                assert words[0] == "trireme", line
                names["printed"] = must(words[1:])
                print("ok:", line)
    return names


def check_answers(names):
    """The label of a photograph, by torchvision's own pipeline."""
    from PIL import Image
    from torchvision import transforms as T

    chain = T.Compose([T.Resize(256), T.CenterCrop(224), T.ToTensor(),
                       T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    with open("labels.txt") as f:
        labels = f.read().split("\n")
    x = chain(Image.open("photo.jpg").convert("RGB"))[None]
    best = labels[int(names["model"](x).argmax())]
    if best not in must(["run", "net.onnx", "--image", "photo.jpg"]):
        fail(f"'trireme run net.onnx --image photo.jpg' does not name '{best}'")
    with open("scores.jsonl") as f:
        count = sum(1 for _ in f)
    if count != len(os.listdir("photos")):
        fail(f"scores.jsonl has {count} lines for {len(os.listdir('photos'))} photographs")


def check_foreign(names):
    """PyTorch's own files: one line, and the call in it works as it stands."""
    model = names["model"]
    torch.save(model.state_dict(), "saved.pth")
    torch.save(model.state_dict(), "old.pth", _use_new_zipfile_serialization=False)
    torch.jit.save(torch.jit.trace(model, torch.zeros(1, 3, 224, 224)), "script.pt")
    for name in ("saved.pth", "old.pth", "script.pt"):
        line = refused(["inspect", name], "torch.onnx.export(")
    call = re.search(r"torch\.onnx\.export\(.*?opset_version=17\)", line)
    if call is None:
        fail(f"no whole call in: {line}")
    exec(call.group(0), {"torch": torch, "model": model})
    must(["run", "script.onnx", "--input", "input=x.npy", "--output-dir", "out-script"])
    if not (numpy.load("out-script/output.npy") == numpy.load("out/output.npy")).all():
        fail("the export that the error message tells gives another network")


def main():
    folder = tempfile.mkdtemp(prefix="from-pytorch-")
    try:
        os.chdir(folder)
        torch.manual_seed(0)
        torch.set_num_threads(1)
        prepare()
        names = run_page()
        check_answers(names)
        check_foreign(names)
        print("ok: torch", torch.__version__, "torchvision", torchvision.__version__, "onnx", onnx.__version__)
    finally:
        os.chdir(ROOT)
        if "--keep" in sys.argv:
            print(folder)
        else:
            shutil.rmtree(folder)


main()
