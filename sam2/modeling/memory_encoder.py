"""Memory encoder: a frame's features and one object's mask → the memory of that object on that frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sam2.config import SAM2Config
from sam2.modeling.layers import LayerNorm2d
from sam2.modeling.position_encoding import sine_position_encoding


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


class WholeMemory(nn.Module):
    """What every memory compressor offers, by the one that compresses nothing: each cell becomes a token.

    A compressor turns memories (N, mem_dim, h, w) into fewer cells or tokens, (N, mem_dim, ...), and places them.
    """

    def forward(self, memory: Tensor) -> Tensor:
        """(N, mem_dim, h, w) → (N, mem_dim, ...), as memories are stored."""
        return memory

    def position_encoding(self, shape: Sequence[int], device: torch.device, dtype: torch.dtype) -> Tensor:
        """Where the L tokens of one stored memory of shape (mem_dim, ...) are: (1, L, mem_dim)."""
        mem_dim, height, width = shape
        return sine_position_encoding(mem_dim, height, width, device, dtype).flatten(2).transpose(1, 2)

    def rotations(self, channels: int, theta: float, device: torch.device) -> Tensor | None:
        """How memory attention turns the L tokens, (L, channels / 2) complex, see `rope_rotations`; 1 leaves a token as
        it is. None: the tokens are the cells of the frame."""
        return None


def build_memory_compressor(config: SAM2Config) -> WholeMemory:
    """The compressor that `config.memory_compressor` names.

    Raises:
        ValueError: there is none of that name.
    """
    match config.memory_compressor:
        case "none":
            return WholeMemory()
    raise ValueError(f"expected the memory_compressor 'none', got {config.memory_compressor!r}")
