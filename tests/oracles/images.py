#!/usr/bin/python3
"""Writes tests/data/images: small JPEG and PNG files of every kind, what PIL makes of them, and what
torchvision's transforms make of one. tests/model/test_image.c and test_preprocess.c compare.

Needs Pillow, NumPy, torch and torchvision (Debian 12: python3-pil python3-numpy python3-torch
python3-torchvision). The committed files were made with Pillow 9.4.0, torch 1.13.1, torchvision 0.14.1;
Pillow 13.0.0 gives the same pixels. With --check nothing is written: exits 1 if a file would differ."""
import io
import os
import struct
import sys
import zlib

try:
    import numpy as np
    from PIL import Image
    import torch
    import torchvision
except ImportError as e:
    print(f"skipped: {e.name} is not installed (Debian: python3-pil python3-numpy python3-torch python3-torchvision)")
    sys.exit(77)

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "images")
CHECK = "--check" in sys.argv[1:]
differs = []


def put(name, data):
    path = os.path.join(OUT, name)
    if CHECK:
        if not os.path.exists(path) or open(path, "rb").read() != data:
            differs.append(name)
        return
    os.makedirs(OUT, exist_ok=True)
    with open(path, "wb") as f:
        f.write(data)


def put_array(name, a):
    f = io.BytesIO()
    np.save(f, np.ascontiguousarray(a))
    put(name, f.getvalue())


def scene(w, h, seed=7):
    """Smooth colour, edges and texture, so that every filter has something to get wrong."""
    rng = np.random.RandomState(seed)
    y, x = np.mgrid[0:h, 0:w].astype(float)
    img = np.stack([128 + 100 * np.sin(x / w * 9), 255 * y / h, 128 + 90 * np.cos((x + y) / w * 7)], -1)
    img[h // 4 : h // 2, w // 3 : w // 2] = [250, 30, 20]
    img[(np.hypot(x - w * 0.7, y - h * 0.6) < min(w, h) * 0.2)] = [10, 240, 255]
    img += rng.randint(-12, 13, img.shape)
    return np.clip(img, 0, 255).astype(np.uint8)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples, depth, color, interlace=False, extra=b""):
    """samples: [h, w, channels] of the file's own depth."""
    h, w, c = samples.shape

    def rows(s):
        if s.size == 0:
            return b""
        out = b""
        for r in s:
            if depth == 16:
                b = r.astype(">u2").tobytes()
            elif depth == 8:
                b = r.astype("u1").tobytes()
            else:
                bits = "".join(format(int(v), f"0{depth}b") for v in r.ravel())
                bits += "0" * (-len(bits) % 8)
                b = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
            out += b"\0" + b
        return out

    if interlace:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
        raw = b"".join(rows(samples[y0::dy, x0::dx]) for x0, y0, dx, dy in passes)
    else:
        raw = rows(samples)
    head = struct.pack(">IIBBBBB", w, h, depth, color, 0, 0, int(interlace))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(raw, 9))
            + chunk(b"IEND", b""))


def decode_cases():
    w, h = 37, 27
    a = scene(w, h)
    g = a[..., 1:2]
    img = Image.fromarray(a)

    def jpeg(image, **options):
        f = io.BytesIO()
        image.save(f, "JPEG", **options)
        return f.getvalue()

    yield "rgb420.jpg", jpeg(img, quality=80)
    yield "rgb422.jpg", jpeg(img, quality=80, subsampling=1)
    yield "rgb444.jpg", jpeg(img, quality=90, subsampling=0)
    yield "progressive.jpg", jpeg(img, quality=75, progressive=True)
    yield "grey.jpg", jpeg(img.convert("L"), quality=80)
    yield "cmyk.jpg", jpeg(img.convert("CMYK"), quality=85)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated: must be ignored
    yield "oriented.jpg", jpeg(img, quality=80, exif=exif)
    yield "one.jpg", jpeg(img.crop((0, 0, 1, 1)))
    yield "rgb.png", png(a, 8, 2)
    yield "rgb_interlaced.png", png(a, 8, 2, True)
    yield "rgb16.png", png(a.astype(int) * 257 - 3 * (a > 9), 16, 2)
    yield "rgba.png", png(np.concatenate([a, g], -1), 8, 6)
    yield "rgba16_interlaced.png", png(np.concatenate([a, g], -1).astype(int) * 257, 16, 6, True)
    yield "rgb_trns.png", png(a, 8, 2, extra=chunk(b"tRNS", struct.pack(">HHH", *map(int, a[3, 3]))))
    yield "grey8.png", png(g, 8, 0)
    yield "grey1.png", png(g >> 7, 1, 0)
    yield "grey2_interlaced.png", png(g >> 6, 2, 0, True)
    yield "grey4.png", png(g >> 4, 4, 0)
    yield "grey4_trns.png", png(g >> 4, 4, 0, extra=chunk(b"tRNS", b"\0\5"))
    yield "grey16.png", png(g.astype(int) * 2, 16, 0)
    yield "grey16_interlaced.png", png(g.astype(int) * 2, 16, 0, True)
    yield "greya.png", png(np.concatenate([g, a[..., :1]], -1), 8, 4)
    yield "greya16.png", png(np.concatenate([g, a[..., :1]], -1).astype(int) * 257, 16, 4)
    for depth in (1, 2, 4, 8):
        n = 1 << depth
        palette = np.random.RandomState(depth).randint(0, 256, (n, 3)).astype("u1").tobytes()
        extra = chunk(b"PLTE", palette) + (chunk(b"tRNS", bytes(range(min(n, 7)))) if depth != 2 else b"")
        yield f"palette{depth}.png", png(g >> (8 - depth), depth, 3, depth == 4, extra)


# name, torchvision transforms (size arguments), colour: the table of tests/model/test_preprocess.c too
SHAPES = [
    ("short32", dict(resize=32)),
    ("short32_crop28", dict(resize=32, crop=28)),
    ("tall_short24", dict(resize=24, tall=True)),
    ("to20x50", dict(resize=(20, 50))),
    ("up150", dict(resize=150, crop=40)),
    ("width_only", dict(resize=(61, 30))),
    ("height_only", dict(resize=(20, 97))),
    ("bicubic30", dict(resize=30, how="bicubic")),
    ("bicubic_up", dict(resize=(80, 110), crop=48, how="bicubic")),
    ("nearest30", dict(resize=30, how="nearest")),
    ("nearest_odd", dict(resize=(47, 53), how="nearest")),
    ("crop_odd", dict(crop=(38, 40))),
    ("crop_odd2", dict(crop=(36, 44))),
    ("crop_pad", dict(crop=(70, 101))),
    ("crop_pad_one", dict(crop=(64, 30))),
    ("grey24", dict(resize=24, grey=True)),
    ("bgr24", dict(resize=24, bgr=True)),
    ("plain_down", dict(resize=(23, 41), plain=True)),
    ("plain_up", dict(resize=(75, 120), crop=40, plain=True)),
    ("plain_bicubic", dict(resize=(30, 44), how="bicubic", plain=True)),
]


def main():
    from torchvision import transforms as T
    from torchvision.transforms import InterpolationMode

    modes = dict(bilinear=InterpolationMode.BILINEAR, bicubic=InterpolationMode.BICUBIC, nearest=InterpolationMode.NEAREST)
    for name, data in decode_cases():
        put(name, data)
        img = Image.open(io.BytesIO(data))
        grey_only = img.mode in ("1", "L", "I", "I;16", "LA") or name.startswith("grey")
        if not grey_only:
            put_array(name + ".rgb.npy", np.asarray(img.convert("RGB")))
        put_array(name + ".l.npy", np.asarray(img.convert("L")))

    wide = scene(97, 61, 11)
    put("wide.png", png(wide, 8, 2))
    put("tall.png", png(np.ascontiguousarray(np.rot90(wide)), 8, 2))
    for name, o in SHAPES:
        img = Image.fromarray(np.ascontiguousarray(np.rot90(wide)) if o.get("tall") else wide)
        if o.get("grey"):
            img = img.convert("L")
        x = torch.from_numpy(np.array(img)).permute(2, 0, 1) if o.get("plain") else img
        mode = modes[o.get("how", "bilinear")]
        if "resize" in o:
            x = T.Resize(o["resize"], interpolation=mode, antialias=False if o.get("plain") else None)(x)
        if "crop" in o:
            x = T.CenterCrop(o["crop"])(x)
        a = x.permute(1, 2, 0).numpy() if o.get("plain") else np.asarray(x)
        if o.get("bgr"):
            a = a[..., ::-1]
        put_array(f"pre_{name}.npy", a)

    # the whole classification pipeline: float output of a small one, checksum of the real one
    chain = [T.ToTensor(), T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    small = T.Compose([T.Resize(24), T.CenterCrop(20)] + chain)(Image.fromarray(wide))
    put_array("pre_float.npy", small.numpy())
    f = io.BytesIO()
    Image.fromarray(scene(500, 375, 3)).save(f, "JPEG", quality=35)
    put("photo.jpg", f.getvalue())
    photo = Image.open(io.BytesIO(f.getvalue())).convert("RGB")
    full = np.asarray(T.CenterCrop(224)(T.Resize(256)(photo)))
    put("photo.crc32", ("%08x of the 8-bit samples [224, 224, 3] after Resize(256), CenterCrop(224)\n" % zlib.crc32(full.tobytes())).encode())

    if CHECK and differs:
        print("differ from what this Pillow and torchvision make:", ", ".join(differs))
        sys.exit(1)
    print("Pillow", Image.__version__, "torch", torch.__version__, "torchvision", torchvision.__version__)


if __name__ == "__main__":
    main()
