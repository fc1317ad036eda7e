#!/usr/bin/env python3
"""ResNet-50 and BERT-base with seeded random weights: the ONNX file that Trireme reads, and the PyTorch module with the very
same weights.

usage: models.py FOLDER [resnet50] [bert]     writes FOLDER/<name>/model.onnx, inputs and outputs as .npy

Needs torch, torchvision, transformers and onnx, as machines with a GPU usually have them. `load(name)` gives the module
and example inputs to other scripts."""
import os
import sys
import warnings

import numpy as np
import torch

SEED = 7


class Words(torch.nn.Module):
    """BERT's encoder and pooler, as classifiers use it."""

    def __init__(self):
        super().__init__()
        import transformers

        config = transformers.BertConfig(attn_implementation="sdpa")
        self.bert = transformers.BertModel(config)

    def forward(self, input_ids, attention_mask, token_type_ids):
        out = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return out.last_hidden_state, out.pooler_output


def calibrated(net, x):
    """Random convolutions shrink or blow up what passes through them; batch norms with the statistics of a few random
    images keep it in range, as training would."""
    net.train()
    for m in net.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.momentum = None
    with torch.no_grad():
        for _ in range(2):
            net(x)
    return net.eval()


def inputs_of(name, batch, generator=None):
    g = generator or torch.Generator().manual_seed(SEED)
    if name == "resnet50":
        return {"image": torch.randn(batch, 3, 224, 224, generator=g)}
    ids = torch.randint(0, 30522, (batch, 128), generator=g)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}


def load(name):
    torch.manual_seed(SEED)
    if name == "resnet50":
        import torchvision

        net = torchvision.models.resnet50(weights=None)
        return calibrated(net, inputs_of(name, 8)["image"])
    if name == "bert":
        return Words().eval()
    raise SystemExit(f"models.py: no model '{name}': resnet50 or bert")


def export(name, folder):
    net, inputs = load(name), inputs_of(name, 2)
    os.makedirs(folder, exist_ok=True)
    outputs = ["logits"] if name == "resnet50" else ["hidden", "pooled"]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = net(*inputs.values())
        torch.onnx.export(net, tuple(inputs.values()), os.path.join(folder, "model.onnx"), opset_version=17,
                          input_names=list(inputs), output_names=outputs, dynamo=False,
                          dynamic_axes={n: {0: "batch"} for n in [*inputs, *outputs]})
    for i, v in enumerate(inputs.values()):
        np.save(os.path.join(folder, f"input_{i}.npy"), v.numpy())
    for i, v in enumerate(want if isinstance(want, tuple) else (want,)):
        np.save(os.path.join(folder, f"output_{i}.npy"), v.numpy())
    print(f"{name}: {folder}/model.onnx")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    for model in sys.argv[2:] or ["resnet50", "bert"]:
        export(model, os.path.join(sys.argv[1], model))
