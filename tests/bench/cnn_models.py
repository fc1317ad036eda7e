#!/usr/bin/env python3
"""usage: cnn_models.py DIR. Writes alexnet.onnx and resnet50.onnx with random weights and an open batch dim, for measurements of speed.

The architectures are those of Krizhevsky et al. 2012 (as one tower, torchvision's widths) and He et al. 2015 (bottlenecks, stride in the
3x3, batch normalisation folded into the convolutions). Needs onnx (1.16 or newer) and numpy.
"""
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Net:
    def __init__(self, name):
        self.name, self.nodes, self.weights, self.count, self.rng = name, [], [], 0, np.random.default_rng(1)

    def fresh(self):
        self.count += 1
        return f"v{self.count}"

    def weight(self, *shape):
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        w = (self.rng.standard_normal(shape) * (np.sqrt(2 / fan_in) if len(shape) > 1 else 0.01)).astype(np.float32)
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(w, name))
        return name

    def op(self, kind, *inputs, **attributes):
        out = self.fresh()
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def conv(self, x, i, o, k, s=1, p=0, relu=True):
        y = self.op("Conv", x, self.weight(o, i, k, k), self.weight(o), kernel_shape=[k, k], strides=[s, s], pads=[p] * 4)
        return self.op("Relu", y) if relu else y

    def linear(self, x, i, o, relu=True):
        y = self.op("Gemm", x, self.weight(o, i), self.weight(o), transB=1)
        return self.op("Relu", y) if relu else y

    def save(self, out, path):
        self.nodes[-1].output[0] = "logits"
        graph = helper.make_graph(self.nodes, self.name, [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 224, 224])],
                                  [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1000])], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
        model.ir_version = 8
        onnx.save(model, path)


def alexnet():
    n = Net("alexnet")
    x = n.conv("image", 3, 64, 11, 4, 2)
    x = n.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])
    x = n.conv(x, 64, 192, 5, 1, 2)
    x = n.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])
    x = n.conv(x, 192, 384, 3, 1, 1)
    x = n.conv(x, 384, 256, 3, 1, 1)
    x = n.conv(x, 256, 256, 3, 1, 1)
    x = n.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])
    x = n.op("Flatten", x)
    x = n.linear(x, 256 * 36, 4096)
    x = n.linear(x, 4096, 4096)
    return n, n.linear(x, 4096, 1000, relu=False)


def resnet50():
    n = Net("resnet50")
    x = n.op("MaxPool", n.conv("image", 3, 64, 7, 2, 3), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    width = 64
    for stage, blocks in enumerate([3, 4, 6, 3]):
        inner = 64 << stage
        for b in range(blocks):
            stride = 2 if b == 0 and stage > 0 else 1
            short = x if b > 0 else n.conv(x, width, inner * 4, 1, stride, relu=False)
            y = n.conv(x, width, inner, 1)
            y = n.conv(y, inner, inner, 3, stride, 1)
            y = n.conv(y, inner, inner * 4, 1, relu=False)
            x = n.op("Relu", n.op("Add", y, short))
            width = inner * 4
    x = n.op("Flatten", n.op("GlobalAveragePool", x))
    return n, n.linear(x, 2048, 1000, relu=False)


out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
for make in (alexnet, resnet50):
    net, y = make()
    net.save(y, out / f"{net.name}.onnx")
    print(out / f"{net.name}.onnx")
