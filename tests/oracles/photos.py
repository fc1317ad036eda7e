#!/usr/bin/env python3
"""Ten photographs through `trireme run` and through torchvision's own pipeline: the same top-5, in the same order.

usage: photos.py TRIREME [CACHE]        (default cache: .cache/photos)

The photographs ship in the wheels scikit-image 0.17.2 and scikit-learn 1.0.2 (PyPI). The network is torchvision's
ResNet-50 with seeded random weights and normalisation statistics taken from random images, so that its class scores differ
as a trained network's do; what is compared is decoding, resizing, cropping, normalising and the network itself.
Made with torch 1.13, torchvision 0.14, Pillow 9.4 (Debian 12). Skips (77) where torch or the photographs are missing."""
import os
import subprocess
import sys
import zipfile

PHOTOS = {
    "scikit-image==0.17.2": ["skimage/data/" + n for n in (
        "astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "motorcycle_right.png",
        "hubble_deep_field.jpg", "retina.jpg", "rocket.jpg")],
    "scikit-learn==1.0.2": ["sklearn/datasets/images/" + n for n in ("china.jpg", "flower.jpg")],
}


def skip(why):
    print("skipped:", why)
    sys.exit(77)


def photographs(cache):
    found = []
    for package, names in PHOTOS.items():
        paths = [os.path.join(cache, os.path.basename(n)) for n in names]
        if not all(os.path.exists(p) for p in paths):
            done = subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--python-version", "3.8",
                                   "--only-binary=:all:", "-d", cache, package], capture_output=True, text=True)
            wheels = [w for w in os.listdir(cache) if w.endswith(".whl") and w.split("-")[0] == package.split("==")[0].replace("-", "_")]
            if done.returncode != 0 or not wheels:
                skip("cannot download " + package)
            with zipfile.ZipFile(os.path.join(cache, wheels[0])) as z:
                for name, path in zip(names, paths):
                    with open(path, "wb") as f:
                        f.write(z.read(name))
        found += paths
    return found


def network(path):
    import torch
    import torchvision
    torch.manual_seed(7)
    model = torchvision.models.resnet50(weights=None)
    model.train()
    with torch.no_grad():
        for _ in range(3):  # running statistics of every normalisation
            model(torch.randn(8, 3, 224, 224))
        model.fc.weight.mul_(20)
    model.eval()
    if not os.path.exists(path):
        torch.onnx.export(model, torch.zeros(1, 3, 224, 224), path, input_names=["image"], output_names=["logits"],
                          dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}}, opset_version=13)
    return model


def main():
    trireme = os.path.abspath(sys.argv[1])
    cache = os.path.abspath(sys.argv[2] if len(sys.argv) > 2 else ".cache/photos")
    try:
        import torch
        from PIL import Image
        from torchvision import transforms as T
    except ImportError as e:
        skip(str(e))
    os.makedirs(cache, exist_ok=True)
    files = photographs(cache)
    path = os.path.join(cache, "resnet50.onnx")
    model = network(path)
    configs = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "configs")
    with open(os.path.join(configs, "imagenet.yaml")) as f:
        yaml = f.read().replace("imagenet-labels.txt", os.path.abspath(os.path.join(configs, "imagenet-labels.txt")))
    with open(os.path.join(cache, "resnet50.yaml"), "w") as f:
        f.write(yaml)
    out = subprocess.run([trireme, "run", path, "--image", *files], capture_output=True, text=True)
    if out.returncode != 0:
        sys.exit(out.stderr)
    rows, got = out.stdout.splitlines(), {}
    for row in rows:
        if not row.startswith("  "):
            current = got.setdefault(row, [])
        else:
            p, index, label = row.split(None, 2)
            current.append((int(index), float(p), label))
    pipeline = T.Compose([T.Resize(256), T.CenterCrop(224), T.ToTensor(),
                          T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    bad = 0
    for f in files:
        with torch.no_grad():
            p = model(pipeline(Image.open(f).convert("RGB"))[None]).softmax(1)[0]
        top = p.topk(5)
        want = list(zip(top.indices.tolist(), top.values.tolist()))
        same = [i for i, _, _ in got[f]] == [i for i, _ in want]
        far = max(abs(a[1] - b[1]) for a, b in zip(got[f], want))
        bad += not same or far > 1e-4
        print(f"{'ok ' if same and far <= 1e-4 else 'BAD'} {os.path.basename(f):24s} {[i for i, _, _ in got[f]]} "
              f"largest difference of a probability {far:.1e}")
    print(f"{len(files) - bad} of {len(files)} photographs have the same top-5")
    sys.exit(bad > 0)


main()
