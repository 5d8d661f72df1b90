"""Memory encoder: a frame's features and one object's mask → the memory of that object on that frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sam2.modeling.layers import LayerNorm2d


class MaskDownSampler(nn.Module):
    """Four convolutions of stride 2, each quadrupling the channels from 1, and a projection: stride 16 in all."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for _ in range(4):
            layers += [nn.Conv2d(channels, 4 * channels, kernel_size=3, stride=2, padding=1)]
            layers += [LayerNorm2d(4 * channels), nn.GELU()]
            channels *= 4
        self.encoder = nn.Sequential(*layers, nn.Conv2d(channels, dim, kernel_size=1))

    def forward(self, masks: Tensor) -> Tensor:
        return self.encoder(masks)


class CXBlock(nn.Module):
    """A ConvNeXt block (Liu et al., 2022): depthwise 7×7, then an MLP per cell, scaled per channel."""

    def __init__(self, dim: int, layer_scale: float = 1e-6) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = LayerNorm2d(dim)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        y = self.gamma * self.pwconv2(self.act(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class Fuser(nn.Module):
    """ConvNeXt blocks after another."""

    def __init__(self, dim: int, num_layers: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CXBlock(dim) for _ in range(num_layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class MemoryEncoder(nn.Module):
    """Adds the downsampled mask to the frame's features and compresses the sum to `mem_dim` channels."""

    def __init__(self, dim: int, mem_dim: int) -> None:
        super().__init__()
        self.mask_downsampler = MaskDownSampler(dim)
        self.pix_feat_proj = nn.Conv2d(dim, dim, kernel_size=1)
        self.fuser = Fuser(dim)
        self.out_proj = nn.Conv2d(dim, mem_dim, kernel_size=1) if mem_dim != dim else nn.Identity()

    def forward(self, vision: Tensor, masks: Tensor) -> Tensor:
        """Features (1 or N, C, h, w) and scaled masks (N, 1, 16h, 16w) → (N, mem_dim, h, w)."""
        return self.out_proj(self.fuser(self.pix_feat_proj(vision) + self.mask_downsampler(masks)))
