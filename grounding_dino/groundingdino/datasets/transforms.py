"""Transforms of an image and its boxes under upstream's names and arguments, with upstream's numbers.

    transform = Compose([RandomResize([800], max_size=1333), ToTensor(), Normalize(mean, std)])
    image, target = transform(Image.open("street.jpg").convert("RGB"), None)

A target is None or a dictionary; its "boxes" (N, 4) xyxy in pixels, "area" (N), "masks" (N, H, W) and "size" (2) follow
the image.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_convert

from grounding_dino.groundingdino.image import ImageTransform

Target = dict[str, Any] | None
Transform = Callable[[Any, Target], tuple[Any, Target]]


def resize(
    image: Image.Image, target: Target, size: int | tuple[int, int], max_size: int | None = None
) -> tuple[Image.Image, Target]:
    """Resize an image.

    Args:
        size: pixels the shorter side gets, or (width, height).
        max_size: pixels the longer side may have.
    """
    if isinstance(size, int):
        longest = max_size or max(image.size) * size  # no limit
        height, width = ImageTransform(size, longest).size_of(image.height, image.width)
    else:
        width, height = size
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    if target is None:
        return resized, None
    target = dict(target)
    across, down = width / image.width, height / image.height
    if "boxes" in target:
        target["boxes"] = target["boxes"] * torch.tensor([across, down, across, down])
    if "area" in target:
        target["area"] = target["area"] * (across * down)
    if "masks" in target:
        masks = target["masks"][:, None].float()
        target["masks"] = torch.nn.functional.interpolate(masks, (height, width), mode="nearest")[:, 0] > 0.5
    return resized, {**target, "size": torch.tensor([height, width])}


def hflip(image: Image.Image, target: Target) -> tuple[Image.Image, Target]:
    """Mirror an image."""
    flipped = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if target is None:
        return flipped, None
    target = dict(target)
    if "boxes" in target:
        x0, y0, x1, y1 = target["boxes"].unbind(1)
        target["boxes"] = torch.stack((image.width - x1, y0, image.width - x0, y1), dim=1)
    if "masks" in target:
        target["masks"] = target["masks"].flip(-1)
    return flipped, target


class RandomResize:
    """`resize` to one of several sizes."""

    def __init__(self, sizes: Sequence[int], max_size: int | None = None) -> None:
        self.sizes = sizes
        self.max_size = max_size

    def __call__(self, img: Image.Image, target: Target = None) -> tuple[Image.Image, Target]:
        return resize(img, target, random.choice(list(self.sizes)), self.max_size)


class RandomHorizontalFlip:
    """`hflip` with a probability."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, img: Image.Image, target: Target) -> tuple[Image.Image, Target]:
        return hflip(img, target) if random.random() < self.p else (img, target)


class RandomSelect:
    """The first of two transforms with a probability, else the second."""

    def __init__(self, transforms1: Transform, transforms2: Transform, p: float = 0.5) -> None:
        self.transforms1 = transforms1
        self.transforms2 = transforms2
        self.p = p

    def __call__(self, img: Image.Image, target: Target) -> tuple[Any, Target]:
        return (self.transforms1 if random.random() < self.p else self.transforms2)(img, target)


class ToTensor:
    """A Pillow image → (3, H, W) float32 in [0, 1]."""

    def __call__(self, img: Image.Image, target: Target) -> tuple[Tensor, Target]:
        pixels = torch.from_numpy(np.array(img.convert("RGB")).transpose(2, 0, 1))
        return pixels.float().div(255).contiguous(), target


class Normalize:
    """Subtract a mean and divide by a deviation, both per channel; boxes become cxcywh in 0..1."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = mean
        self.std = std

    def __call__(self, image: Tensor, target: Target = None) -> tuple[Tensor, Target]:
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        normal = image.sub(mean).div_(std)
        if target is None or "boxes" not in target:
            return normal, target
        height, width = image.shape[-2:]
        boxes = box_convert(target["boxes"], "xyxy", "cxcywh") / torch.tensor([width, height, width, height])
        return normal, {**target, "boxes": boxes}


class Compose:
    """One transform after another."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = transforms

    def __call__(self, image: Any, target: Target) -> tuple[Any, Target]:
        for transform in self.transforms:
            image, target = transform(image, target)
        return image, target
