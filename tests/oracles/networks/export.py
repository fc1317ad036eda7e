#!/usr/bin/env python3
"""Exports networks with random weights from PyTorch to ONNX, with inputs and PyTorch's outputs as .npy.

usage: export.py small|full OUT_DIR [NAME...]
Writes OUT_DIR/NAME/{model.onnx, input_<i>.npy, output_<i>.npy}. `small` made the fixtures in tests/data/networks;
`full` gives the architectures at full size (minutes, about 1.3 GB). Needs Debian 12's python3-torch and
python3-torchvision (1.13.0, 0.14.1); launch/install-packages.sh oracles installs them."""
import os
import sys
import warnings

import numpy as np
import torch

import nets


def export(name, size, out):
    folder = os.path.join(out, name)
    os.makedirs(folder, exist_ok=True)
    module, inputs, in_names, out_names, axes, options = nets.NETS[name][0 if size == "small" else 1]()
    with torch.no_grad():
        outputs = module(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    # EVAL lets the exporter fold batch norms into convolutions; PRESERVE keeps them as nodes
    training = torch.onnx.TrainingMode.PRESERVE if options.get("keep_bn") else torch.onnx.TrainingMode.EVAL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, inputs, os.path.join(folder, "model.onnx"), input_names=in_names,
                          output_names=out_names, dynamic_axes=axes, opset_version=options["opset"],
                          training=training, do_constant_folding=not options.get("keep_bn"))
    for kind, tensors in (("input", inputs), ("output", outputs)):
        for i, t in enumerate(tensors):
            np.save(os.path.join(folder, f"{kind}_{i}.npy"), np.ascontiguousarray(t.numpy()))
    bytes_ = os.path.getsize(os.path.join(folder, "model.onnx"))
    shapes = " ".join(str(tuple(t.shape)) for t in outputs)
    print(f"{name}: {bytes_ / 1e6:.2f} MB, outputs {shapes}", flush=True)


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in ("small", "full"):
        sys.exit(__doc__)
    torch.set_num_threads(int(os.environ.get("THREADS", os.cpu_count() or 1)))
    print(f"torch {torch.__version__}, size {sys.argv[1]}")
    for name in sys.argv[3:] or nets.NETS:
        export(name, sys.argv[1], sys.argv[2])


if __name__ == "__main__":
    main()
