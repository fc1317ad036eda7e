"""The architectures: full size from torchvision where it has them, and narrow ones that fit a fixture.

Each entry of NETS: name -> (small, full), functions that give (module, inputs, input names, output names,
dynamic axes, export options). Weights are random with a fixed seed; batch norms get random statistics, so that a
wrong fusion shows. Made for torch 1.13 / torchvision 0.14 (Debian 12)."""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.video.resnet import BasicBlock as Block3d, Conv3DSimple


def randomise(module, seed):
    """Weights of a size that keeps activations near 1 through many layers, and lively batch norms."""
    g = torch.Generator().manual_seed(seed)
    for m in module.modules():
        if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            m.weight.data = 0.5 + torch.rand(m.weight.shape, generator=g)
            m.bias.data = 0.2 * torch.randn(m.bias.shape, generator=g)
            m.running_mean = 0.2 * torch.randn(m.running_mean.shape, generator=g)
            m.running_var = 0.5 + torch.rand(m.running_var.shape, generator=g)
        elif isinstance(m, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)):
            fan = m.weight[0].numel() if not isinstance(m, nn.ConvTranspose2d) else m.weight.shape[0] * 4
            m.weight.data = torch.randn(m.weight.shape, generator=g) * math.sqrt(1.6 / fan)
            if m.bias is not None:
                m.bias.data = 0.1 * torch.randn(m.bias.shape, generator=g)
    return module.eval()


class NarrowResNet(nn.Module):
    """torchvision's residual blocks, with a stem and widths of our choice."""

    def __init__(self, block, layers, width, classes=10):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
                                  nn.MaxPool2d(3, 2, 1))
        channels, stages = width, []
        for i, count in enumerate(layers):
            planes, stride = width * 2 ** i, 1 if i == 0 else 2
            for j in range(count):
                s, out, down = stride if j == 0 else 1, planes * block.expansion, None
                if s != 1 or channels != out:
                    down = nn.Sequential(nn.Conv2d(channels, out, 1, s, bias=False), nn.BatchNorm2d(out))
                # width 64 per group means "as many channels as planes" in torchvision's Bottleneck
                stages.append(block(channels, planes, s, down))
                channels = out
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.stages(self.stem(x))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class UNet(nn.Module):
    """Encoder, decoder, skips; one decoder step by transposed convolution, the other by bilinear resize."""

    def __init__(self, width, depth=3):
        super().__init__()

        def double(i, o):
            return nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(),
                                 nn.Conv2d(o, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU())

        widths = [width * 2 ** i for i in range(depth + 1)]
        self.down = nn.ModuleList([double(3 if i == 0 else widths[i - 1], widths[i]) for i in range(depth + 1)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(widths[i + 1], widths[i], 2, 2) if i % 2 == 0 else
                                 nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
                                               nn.Conv2d(widths[i + 1], widths[i], 1)) for i in range(depth)])
        self.join = nn.ModuleList([double(2 * widths[i], widths[i]) for i in range(depth)])
        self.out = nn.Conv2d(width, 2, 1)

    def forward(self, x):
        skips = []
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        for i in reversed(range(len(self.up))):
            x = self.join[i](torch.cat([self.up[i](x), skips[i]], 1))
        return self.out(x)


class Conv(nn.Module):
    def __init__(self, i, o, k=1, s=1):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(i, o, k, s, k // 2, bias=False), nn.BatchNorm2d(o)

    def forward(self, x):
        return F.silu(self.bn(self.conv(x)))


class Csp(nn.Module):
    def __init__(self, i, o, n, shortcut=True):
        super().__init__()
        self.a, self.b, self.c = Conv(i, o // 2), Conv(i, o // 2), Conv(o, o)
        self.m = nn.ModuleList([nn.Sequential(Conv(o // 2, o // 2), Conv(o // 2, o // 2, 3)) for _ in range(n)])
        self.shortcut = shortcut

    def forward(self, x):
        y = self.a(x)
        for m in self.m:
            y = y + m(y) if self.shortcut else m(y)
        return self.c(torch.cat([y, self.b(x)], 1))


class Yolo(nn.Module):
    """A YOLOv5-like detector: CSP backbone, SPPF, feature pyramid with nearest resize, decoding, suppression."""

    def __init__(self, w, classes, size, n=1, threshold=0.25):
        super().__init__()
        self.size, self.classes, self.threshold = size, classes, threshold
        self.stem = nn.Sequential(Conv(3, w, 6 - 1, 2), Conv(w, 2 * w, 3, 2), Csp(2 * w, 2 * w, n))
        self.p3 = nn.Sequential(Conv(2 * w, 4 * w, 3, 2), Csp(4 * w, 4 * w, n))
        self.p4 = nn.Sequential(Conv(4 * w, 8 * w, 3, 2), Csp(8 * w, 8 * w, n))
        self.sppf_in, self.sppf_out = Conv(8 * w, 4 * w), Conv(16 * w, 8 * w)
        self.lateral = Conv(8 * w, 4 * w)
        self.fuse = Csp(8 * w, 4 * w, n, False)
        self.down = Conv(4 * w, 4 * w, 3, 2)
        self.fuse_down = Csp(8 * w, 8 * w, n, False)
        self.heads = nn.ModuleList([nn.Conv2d(4 * w, 3 * (5 + classes), 1), nn.Conv2d(8 * w, 3 * (5 + classes), 1)])
        self.anchors = [[[10., 13.], [16., 30.], [33., 23.]], [[30., 61.], [62., 45.], [59., 119.]]]

    def decode(self, x, level):
        b, _, h, w = x.shape
        h, w, stride = int(h), int(w), 8.0 * 2 ** level
        x = x.view(-1, 3, 5 + self.classes, h, w).permute(0, 1, 3, 4, 2).sigmoid()
        gy, gx = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        grid = torch.stack((gx, gy), 2).view(1, 1, h, w, 2).float()
        anchors = torch.tensor(self.anchors[level]).view(1, 3, 1, 1, 2) * self.size / 640
        xy = (x[..., 0:2] * 2 - 0.5 + grid) * stride
        wh = (x[..., 2:4] * 2) ** 2 * anchors
        return torch.cat((xy, wh, x[..., 4:]), 4).view(-1, 3 * h * w, 5 + self.classes)

    def forward(self, image):
        p3 = self.p3(self.stem(image))
        p4 = self.sppf_in(self.p4(p3))
        a = F.max_pool2d(p4, 5, 1, 2)
        b = F.max_pool2d(a, 5, 1, 2)
        p4 = self.sppf_out(torch.cat([p4, a, b, F.max_pool2d(b, 5, 1, 2)], 1))
        up = F.interpolate(self.lateral(p4), scale_factor=2.0, mode="nearest")
        n3 = self.fuse(torch.cat([up, p3], 1))
        n4 = self.fuse_down(torch.cat([self.down(n3), self.lateral(p4)], 1))
        raw = torch.cat([self.decode(self.heads[0](n3), 0), self.decode(self.heads[1](n4), 1)], 1)
        one = raw[0]
        centre, half = one[:, 0:2], one[:, 2:4] / 2
        boxes = torch.cat([centre - half, centre + half], 1)
        score, label = (one[:, 4:5] * one[:, 5:]).max(1)
        keep = (score > self.threshold).nonzero().squeeze(1)
        boxes, score, label = boxes[keep], score[keep], label[keep]
        keep = torchvision.ops.nms(boxes, score, 0.45)
        return raw, boxes[keep], score[keep], label[keep]


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads, self.dim = heads, dim
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x, mask):
        def split(t):
            return t.view(t.shape[0], t.shape[1], self.heads, self.dim // self.heads).permute(0, 2, 1, 3)

        q, k, v = split(self.q(x)), split(self.k(x)), split(self.v(x))
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(self.dim // self.heads) + mask
        y = torch.matmul(F.softmax(scores, -1), v).permute(0, 2, 1, 3).contiguous()
        return self.o(y.view(y.shape[0], y.shape[1], self.dim))


class Bert(nn.Module):
    """BERT's encoder as the paper has it: post-norm, erf gelu, additive mask; outputs sequence and pooled states."""

    def __init__(self, layers, dim, heads, vocabulary, positions=512):
        super().__init__()
        self.word, self.position, self.kind = (nn.Embedding(n, dim) for n in (vocabulary, positions, 2))
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.layers = nn.ModuleList([nn.ModuleList([
            Attention(dim, heads), nn.LayerNorm(dim, eps=1e-12), nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim),
            nn.LayerNorm(dim, eps=1e-12)]) for _ in range(layers)])
        self.pool = nn.Linear(dim, dim)

    def forward(self, input_ids, attention_mask, token_type_ids):
        position = torch.arange(input_ids.shape[1]).unsqueeze(0)
        x = self.norm(self.word(input_ids) + self.position(position) + self.kind(token_type_ids))
        mask = (1.0 - attention_mask[:, None, None, :].float()) * -10000.0
        for attention, norm1, up, down, norm2 in self.layers:
            x = norm1(x + attention(x, mask))
            x = norm2(x + down(F.gelu(up(x))))
        return x, torch.tanh(self.pool(x[:, 0]))


class Tagger(nn.Module):
    """Words in, one row of tag scores a word out: embedding, two bidirectional LSTM layers, linear."""

    def __init__(self, vocabulary, dim, hidden, tags):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.lstm = nn.LSTM(dim, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.out = nn.Linear(2 * hidden, tags)

    def forward(self, words):
        return F.log_softmax(self.out(self.lstm(self.embed(words))[0]), -1)


class Net3d(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(3, width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
                                  nn.BatchNorm3d(width), nn.ReLU())
        down = nn.Sequential(nn.Conv3d(width, 2 * width, 1, 2, bias=False), nn.BatchNorm3d(2 * width))
        self.blocks = nn.Sequential(Block3d(width, width, Conv3DSimple),
                                    Block3d(width, 2 * width, Conv3DSimple, 2, down))
        self.pool = nn.MaxPool3d(2)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x):
        return self.head(torch.flatten(F.adaptive_avg_pool3d(self.pool(self.blocks(self.stem(x))), 1), 1))


def pixels(*shape):
    """Smooth random images: what convolution networks see is not white noise."""
    coarse = torch.randn(*shape[:2], *(max(2, s // 8) for s in shape[2:]))
    mode = "bilinear" if len(shape) == 4 else "trilinear"
    return F.interpolate(coarse, size=shape[2:], mode=mode, align_corners=False) + 0.1 * torch.randn(*shape)


def image_net(module, seed, shape, keep_bn=False, opset=13, outputs=("logits",)):
    """keep_bn: batch norms stay nodes of their own, so that the importer's side has to fold them."""
    torch.manual_seed(seed)
    axes = {"image": {0: "batch"}, outputs[0]: {0: "batch"}}
    return randomise(module, seed), (pixels(*shape),), ["image"], list(outputs), axes, dict(keep_bn=keep_bn, opset=opset)


def settle(module, image, candidates):
    """Logits of spread 1, so that no score saturates, and a threshold halfway between two scores that leaves so many
    candidates: their order, and so which boxes survive, must not hang on a rounding error."""
    with torch.no_grad():
        one = module(image)[0][0]
        spread = torch.logit(one[:, 4:].double()).clamp(-30, 30).std().item()
        for head in module.heads:
            head.weight /= spread
            head.bias /= spread
        one = module(image)[0][0]
        score = (one[:, 4:5] * one[:, 5:]).max(1)[0].sort(descending=True)[0]
    module.threshold = (score[candidates - 1] + score[candidates]).item() / 2
    gaps = score[:candidates] - score[1:candidates + 1]
    assert gaps.min() > 1e-5, f"two scores are only {gaps.min()} apart: take another seed"


def yolo(w, classes, size, n, threshold, seed, candidates=0):
    torch.manual_seed(seed)
    module = randomise(Yolo(w, classes, size, n, threshold), seed)
    image = pixels(1, 3, size, size)
    if candidates:
        settle(module, image, candidates)
    return (module, (image,), ["image"], ["raw", "boxes", "scores", "labels"],
            {"boxes": {0: "kept"}, "scores": {0: "kept"}, "labels": {0: "kept"}}, dict(opset=13))


def bert(layers, dim, heads, vocabulary, batch, seq, seed):
    torch.manual_seed(seed)
    module = Bert(layers, dim, heads, vocabulary).eval()
    ids = torch.randint(0, vocabulary, (batch, seq))
    mask = torch.ones(batch, seq, dtype=torch.int64)
    mask[-1, seq - seq // 4:] = 0
    kinds = (torch.arange(seq) > seq // 2).long().expand(batch, seq).contiguous()
    names = ["input_ids", "attention_mask", "token_type_ids"]
    axes = {n: {0: "batch", 1: "sequence"} for n in names + ["last_hidden_state"]}
    axes["pooled"] = {0: "batch"}
    return module, (ids, mask, kinds), names, ["last_hidden_state", "pooled"], axes, dict(opset=14)


def tagger(vocabulary, dim, hidden, tags, batch, seq, seed):
    torch.manual_seed(seed)
    return (Tagger(vocabulary, dim, hidden, tags).eval(), (torch.randint(0, vocabulary, (batch, seq)),), ["words"],
            ["tags"], {"words": {1: "length"}, "tags": {1: "length"}}, dict(opset=13))


def vit(seed, shape, **kw):
    torch.manual_seed(seed)
    module = torchvision.models.VisionTransformer(**kw).eval()
    torch.nn.init.normal_(module.heads.head.weight, std=0.1)  # torchvision starts it at zero
    return module, (pixels(*shape),), ["image"], ["logits"], {}, dict(opset=14)


M = torchvision.models
MOBILE_SMALL = [[1, 8, 1, 1], [6, 12, 2, 2], [6, 16, 2, 2], [6, 24, 1, 2]]
NETS = {
    "resnet18": (lambda: image_net(NarrowResNet(BasicBlock, [2, 2, 2, 2], 8), 1, (2, 3, 64, 64), keep_bn=True),
                 lambda: image_net(M.resnet18(), 1, (1, 3, 224, 224))),
    "resnet50": (lambda: image_net(NarrowResNet(Bottleneck, [3, 4, 6, 3], 4), 2, (2, 3, 64, 64)),
                 lambda: image_net(M.resnet50(), 2, (1, 3, 224, 224))),
    "mobilenet_v2": (lambda: image_net(M.MobileNetV2(10, 0.5, MOBILE_SMALL), 3, (2, 3, 64, 64)),
                     lambda: image_net(M.mobilenet_v2(), 3, (1, 3, 224, 224))),
    "densenet121": (lambda: image_net(M.DenseNet(8, (2, 3, 4, 3), 16, num_classes=10), 4, (2, 3, 64, 64), keep_bn=True),
                    lambda: image_net(M.densenet121(), 4, (1, 3, 224, 224))),
    "unet": (lambda: image_net(UNet(8), 5, (1, 3, 48, 64), outputs=("mask",)),
             lambda: image_net(UNet(32, 4), 5, (1, 3, 256, 256), outputs=("mask",))),
    "yolo": (lambda: yolo(4, 3, 64, 1, 0.25, 6), lambda: yolo(32, 80, 640, 3, 0, 36, 30)),
    "vit": (lambda: vit(7, (1, 3, 32, 32), image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=48,
                        mlp_dim=96, num_classes=10),
            lambda: vit(7, (1, 3, 224, 224), image_size=224, patch_size=16, num_layers=12, num_heads=12,
                        hidden_dim=768, mlp_dim=3072)),
    "bert": (lambda: bert(2, 48, 4, 200, 2, 20, 8), lambda: bert(12, 768, 12, 30522, 1, 128, 8)),
    "lstm_tagger": (lambda: tagger(100, 16, 24, 9, 2, 15, 9), lambda: tagger(20000, 200, 256, 45, 4, 60, 9)),
    "resnet3d": (lambda: image_net(Net3d(8), 10, (1, 3, 8, 32, 32)),
                 lambda: image_net(M.video.r3d_18(), 10, (1, 3, 16, 112, 112))),
}
