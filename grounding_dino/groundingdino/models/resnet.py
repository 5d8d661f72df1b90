"""A small ResNet (He et al., 2016) of basic blocks with frozen batch norm, that of the nano model
before EfficientNet-Lite0."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grounding_dino.groundingdino.models.checks import check_images


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose statistics and affine are constants, so that it folds into the convolution before it."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Two (C,) float32 tensors: the norm of x is x · scale + shift."""
        scale = self.weight.float() * (self.running_var.float() + self.eps).rsqrt()
        return scale, self.bias.float() - self.running_mean.float() * scale


def convolve(x: Tensor, conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> Tensor:
    """(B, C_in, H, W) → (B, C_out, h, w): `conv`, which has no bias, and then `norm`."""
    scale, shift = norm.scale_and_shift()
    kernel = (conv.weight * scale[:, None, None, None]).to(x.dtype)
    return F.conv2d(x, kernel, shift.to(x.dtype), conv.stride, conv.padding)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around a residual connection, which is projected where the shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = FrozenBatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = FrozenBatchNorm2d(channels)
        self.downsample: nn.ModuleList | None = None
        if stride != 1 or in_channels != channels:
            projection = nn.Conv2d(in_channels, channels, kernel_size=1, stride=stride, bias=False)
            self.downsample = nn.ModuleList([projection, FrozenBatchNorm2d(channels)])

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else convolve(x, *self.downsample)
        x = convolve(x, self.conv1, self.bn1).relu_()
        return convolve(x, self.conv2, self.bn2).add_(shortcut).relu_()


class ResNet(nn.Module):
    """Stages at strides 4, 8, 16, 32, …; parameters have torchvision's names: conv1, bn1, layer1.0.conv1, …

    Args:
        embedding_size: channels of the first convolution.
        hidden_sizes: channels of each stage.
        depths: blocks of each stage.
        out_indices: stages whose maps are returned, 0-based and ascending.

    Attributes:
        num_channels: channels of each returned map.

    Raises:
        ValueError: `hidden_sizes` and `depths` differ in length, or `out_indices` are not ascending stages.
    """

    def __init__(
        self,
        embedding_size: int,
        hidden_sizes: Sequence[int],
        depths: Sequence[int],
        out_indices: Sequence[int] = (1, 2, 3),
    ) -> None:
        super().__init__()
        if len(depths) != len(hidden_sizes):
            raise ValueError(f"Expected as many depths as hidden_sizes, got {tuple(depths)} and {tuple(hidden_sizes)}.")
        if not out_indices or list(out_indices) != sorted(set(out_indices) & set(range(len(depths)))):
            raise ValueError(f"Expected ascending out_indices from 0 to {len(depths) - 1}, got {tuple(out_indices)}.")
        self.out_indices = tuple(out_indices)
        self.num_channels = tuple(hidden_sizes[i] for i in out_indices)
        self.conv1 = nn.Conv2d(3, embedding_size, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = FrozenBatchNorm2d(embedding_size)
        self.num_stages = len(depths)
        for i, (in_channels, channels) in enumerate(pairwise([embedding_size, *hidden_sizes])):
            strides = [1 if i == 0 else 2] + [1] * (depths[i] - 1)
            widths = [in_channels] + [channels] * (depths[i] - 1)
            blocks = [BasicBlock(width, channels, stride) for width, stride in zip(widths, strides, strict=True)]
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))

    def forward(self, images: Tensor) -> list[Tensor]:
        """
        Args:
            images: (B, 3, H, W) normalised, of any size.

        Returns:
            One (B, C, h, w) map for each of `out_indices`, finest first, with h = ⌈H / stride⌉.

        Raises:
            ValueError: `images` has another shape.
        """
        check_images(images)
        x = convolve(images, self.conv1, self.bn1).relu_()
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        levels = []
        for i in range(self.out_indices[-1] + 1):
            x = self.get_submodule(f"layer{i + 1}")(x)
            if i in self.out_indices:
                levels.append(x)
        return levels
