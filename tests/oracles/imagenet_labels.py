#!/usr/bin/python3
"""Writes configs/imagenet-labels.txt, ImageNet's 1000 class names as torchvision orders them (the order of
its models' outputs). The committed file was made with torchvision 0.14.1 (Debian 12: python3-torchvision)."""
import os
import sys

try:
    from torchvision.models._meta import _IMAGENET_CATEGORIES
except ImportError:
    print("skipped: torchvision is not installed (Debian: python3-torchvision)")
    sys.exit(77)
path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "configs", "imagenet-labels.txt")
with open(path, "w", encoding="utf-8") as f:
    f.write("".join(name + "\n" for name in _IMAGENET_CATEGORIES))
