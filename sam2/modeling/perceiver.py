"""The spatial perceiver of EdgeTAM: a memory as a few hundred tokens (Zhou et al., 2025, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2.config import SAM2Config
from sam2.modeling.memory_encoder import WholeMemory
from sam2.modeling.position_encoding import rope_rotations, sine_position_encoding


class CrossAttention(nn.Module):
    """Latents attend, with one head, to the cells of a memory."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm_x = nn.LayerNorm(dim)
        self.norm_latents = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def keys_and_values(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Of cells (..., C), each (..., C)."""
        keys, values = self.to_kv(self.norm_x(cells)).chunk(2, dim=-1)
        return keys, values

    def forward(self, latents: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Latents (B, L, C), keys and values (B, K, C) → (B, L, C)."""
        queries = self.to_q(self.norm_latents(latents))
        return self.to_out(F.scaled_dot_product_attention(queries, keys, values))


class SelfAttention(nn.Module):
    """Latents attend, with one head, to each other."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, L, C) → (B, L, C)."""
        latents = self.norm(latents)
        keys, values = self.to_kv(latents).chunk(2, dim=-1)
        if latents.shape[1] > 1:  # a latent alone has all of its own attention
            values = F.scaled_dot_product_attention(self.to_q(latents), keys, values)
        return self.to_out(values)


def feed_forward(dim: int) -> nn.Sequential:
    """A normalised MLP, four times as wide in its middle."""
    wide = 4 * dim
    return nn.Sequential(
        nn.LayerNorm(dim), nn.Linear(dim, wide, bias=False), nn.GELU(), nn.Linear(wide, dim, bias=False)
    )


class PerceiverLayer(nn.Module):
    """Cross-attention and MLP, self-attention and MLP, all residual."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attn = CrossAttention(dim)
        self.ff = feed_forward(dim)
        self.self_attn = SelfAttention(dim)
        self.self_ff = feed_forward(dim)

    def forward(self, latents: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Latents (B, L, C), keys and values (B, K, C) of a memory's cells → (B, L, C)."""
        latents = latents + self.attn(latents, keys, values)
        latents = latents + self.ff(latents)
        latents = latents + self.self_attn(latents)
        return latents + self.self_ff(latents)


class SpatialPerceiver(WholeMemory):
    """Latents that each look at all of a memory, and latents that each look at one window of it.

    Args:
        dim: C, channels of a memory.
        num_latents: L1, tokens that look at all cells; they have no place.
        num_latents_2d: L2, a square number, tokens of the windows of a grid; each has the place of its window.
        num_layers: of which all latents go through the same.
        side: h and w of a memory, in cells.

    Raises:
        ValueError: no such grid of windows divides a memory evenly.
    """

    def __init__(self, dim: int, num_latents: int, num_latents_2d: int, num_layers: int, side: int) -> None:
        super().__init__()
        grid = math.isqrt(max(num_latents_2d, 0))
        if num_latents < 1 or num_latents_2d < 1 or grid**2 != num_latents_2d or side % grid != 0:
            raise ValueError(
                f"expected at least one latent, and a square number of latents_2d whose root divides a memory of "
                f"{side}×{side} cells (an image_size that is a multiple of {16 * max(grid, 1)}), "
                f"got {num_latents} and {num_latents_2d}"
            )
        self.grid = grid
        self.latents = nn.Parameter(torch.randn(num_latents, dim))
        self.latents_2d = nn.Parameter(torch.randn(num_latents_2d, dim))
        self.layers = nn.ModuleList(PerceiverLayer(dim) for _ in range(num_layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, memory: Tensor) -> Tensor:
        """(N, C, h, w) → (N, C, L1 + L2)."""
        batch, dim, height, width = memory.shape
        grid, rows, columns = self.grid, height // self.grid, width // self.grid
        where = sine_position_encoding(dim, height, width, memory.device, memory.dtype).flatten(2).transpose(1, 2)
        cells = memory.permute(0, 2, 3, 1).flatten(1, 2)  # (N, h·w, C)
        whole = self.latents.expand(batch, -1, -1)
        windowed = self.latents_2d.expand(batch, -1, -1).reshape(-1, 1, dim)

        def by_window(x: Tensor) -> Tensor:  # (N, h·w, C) → (N·L2, cells of a window, C)
            return x.view(batch, grid, rows, grid, columns, dim).transpose(2, 3).reshape(-1, rows * columns, dim)

        for layer in cast(list[PerceiverLayer], list(self.layers)):
            keys, values = layer.attn.keys_and_values(cells)
            whole = layer(whole, keys + where, values + where)
            windowed = layer(windowed, by_window(keys), by_window(values))
        return self.norm(torch.cat((whole, windowed.view(batch, -1, dim)), dim=1)).transpose(1, 2)

    def position_encoding(self, shape: Sequence[int], device: torch.device, dtype: torch.dtype) -> Tensor:
        dim, tokens = shape
        return _token_positions(dim, tokens - self.grid**2, self.grid, device, dtype)

    def rotations(self, channels: int, theta: float, device: torch.device) -> Tensor:
        return _token_rotations(channels, len(self.latents), self.grid, theta, device)


def build_memory_compressor(config: SAM2Config) -> WholeMemory:
    """The compressor that `config.memory_compressor` names.

    Raises:
        ValueError: there is none of that name, or it does not fit the size of a memory.
    """
    match config.memory_compressor:
        case "none":
            return WholeMemory()
        case "perceiver":
            return SpatialPerceiver(
                config.mem_dim,
                config.perceiver_latents,
                config.perceiver_latents_2d,
                config.perceiver_layers,
                side=config.image_size // 16,
            )
    raise ValueError(f"expected the memory_compressor 'none' or 'perceiver', got {config.memory_compressor!r}")


# Cached like the encodings they are made of, and as little to be changed in place.
@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _token_positions(dim: int, num_latents: int, grid: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(1, L, C): zeros for the latents without a place, then the places of the windows."""
    windows = sine_position_encoding(dim, grid, grid, device, dtype).flatten(2).transpose(1, 2)
    return torch.cat((windows.new_zeros(1, num_latents, dim), windows), dim=1)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _token_rotations(channels: int, num_latents: int, grid: int, theta: float, device: torch.device) -> Tensor:
    """(L, channels / 2) complex: 1 for the latents without a place, then the rotations of the windows."""
    windows = rope_rotations(channels, grid, grid, theta, device)
    return torch.cat((torch.ones_like(windows[:1]).expand(num_latents, -1), windows))
