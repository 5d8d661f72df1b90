"""Position encodings: sine over a grid, random Fourier features of points, sine over time, rotary for attention."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn


# Cached encodings are made outside inference mode, so that training may use them after inference has.
@lru_cache(maxsize=32)
@torch.inference_mode(False)
def sine_position_encoding(channels: int, height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Sine encoding of the cells of a grid (Carion et al., 2020, DETR): first half y, second half x.

    Returns:
        (1, channels, height, width). Cached, so it must not be changed in place.
    """
    eps = 1e-6
    half = channels // 2
    y = torch.arange(1, height + 1, dtype=torch.float32, device=device) / (height + eps) * (2 * math.pi)
    x = torch.arange(1, width + 1, dtype=torch.float32, device=device) / (width + eps) * (2 * math.pi)
    index = torch.arange(half, dtype=torch.float32, device=device)
    period = 10000.0 ** (2 * torch.div(index, 2, rounding_mode="floor") / half)

    def interleave(position: Tensor) -> Tensor:
        angle = position[:, None] / period
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)  # (length, half)

    rows = interleave(y).T[:, :, None].expand(half, height, width)
    columns = interleave(x).T[:, None, :].expand(half, height, width)
    return torch.cat((rows, columns))[None].to(dtype)


def positions(level: Tensor) -> Tensor:
    """Where the cells of maps (B, C, h, w) are, as maps of their shape."""
    return sine_position_encoding(*level.shape[1:], level.device, level.dtype).expand(len(level), -1, -1, -1)


def sine_time_encoding(times: Tensor, channels: int) -> Tensor:
    """Sine encoding of scalar times: (...,) float → (..., channels) float32, sines first, cosines after."""
    half = channels // 2
    index = torch.arange(half, dtype=torch.float32, device=times.device)
    period = 10000.0 ** (2 * torch.div(index, 2, rounding_mode="floor") / half)
    angle = times.unsqueeze(-1) / period
    return torch.cat((angle.sin(), angle.cos()), dim=-1)


class PositionEmbeddingRandom(nn.Module):
    """Random Fourier features of positions in the unit square (Tancik et al., 2020)."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, num_pos_feats: int = 64, scale: float | None = None) -> None:
        super().__init__()
        frequencies = (scale or 1.0) * torch.randn(2, num_pos_feats)
        self.register_buffer("positional_encoding_gaussian_matrix", frequencies)

    def encode(self, xy: Tensor) -> Tensor:
        """(..., 2) positions in [0, 1], x first → (..., 2 · num_pos_feats)."""
        matrix = self.positional_encoding_gaussian_matrix
        angle = (2 * xy.float() - 1) @ matrix.float() * (2 * math.pi)
        return torch.cat((angle.sin(), angle.cos()), dim=-1).to(matrix.dtype)

    def grid(self, height: int, width: int) -> Tensor:
        """Encoding of the centres of a grid's cells, (1, 2 · num_pos_feats, height, width)."""
        device = self.positional_encoding_gaussian_matrix.device
        y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
        x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
        xy = torch.stack((x[None, :].expand(height, width), y[:, None].expand(height, width)), dim=-1)
        return self.encode(xy).permute(2, 0, 1)[None]

    # ---- the names of facebookresearch/sam2 ----

    def forward(self, size: tuple[int, int]) -> Tensor:
        """Encoding of the cells of a grid of (height, width), (2 · num_pos_feats, height, width)."""
        return self.grid(*size)[0]

    def forward_with_coords(self, coords_input: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Encoding of points (..., 2) xy in pixels of an image of (height, width)."""
        return self.encode(coords_input / coords_input.new_tensor([image_size[1], image_size[0]]))

    def _pe_encoding(self, coords: Tensor) -> Tensor:
        return self.encode(coords)


class PositionEmbeddingSine(nn.Module):
    """`sine_position_encoding` of a map's cells as a module, as facebookresearch/sam2 has it.

    Args:
        num_pos_feats: channels.
        unused: upstream's other arguments, which have one value in all models or only concern caches.
    """

    def __init__(self, num_pos_feats: int, **unused: Any) -> None:
        super().__init__()
        self.num_pos_feats = num_pos_feats

    def forward(self, x: Tensor) -> Tensor:
        """(B, ?, H, W) → (B, num_pos_feats, H, W) float32, on the device of `x`."""
        where = sine_position_encoding(self.num_pos_feats, *x.shape[-2:], x.device, torch.float32)
        return where.expand(len(x), -1, -1, -1)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def rope_rotations(channels: int, height: int, width: int, theta: float, device: torch.device) -> Tensor:
    """Axial rotary encoding of a grid's cells (Su et al., 2021; Heo et al., 2024).

    Returns:
        (height · width, channels / 2) complex64 unit numbers: the first half of the pairs turns with x, the
        second with y. Cached, so it must not be changed in place.
    """
    frequency = 1.0 / theta ** (torch.arange(0, channels, 4, device=device).float() / channels)
    cell = torch.arange(height * width, device=device, dtype=torch.float32)
    x, y = cell % width, torch.div(cell, width, rounding_mode="floor")
    angle = torch.cat((torch.outer(x, frequency), torch.outer(y, frequency)), dim=-1)
    return torch.polar(torch.ones_like(angle), angle)


def rotate(x: Tensor, rotations: Tensor) -> Tensor:
    """Turn consecutive channel pairs of `x` (..., L, C) by `rotations` (L, C / 2) complex."""
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * rotations).flatten(-2).to(x.dtype)
