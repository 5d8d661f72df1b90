"""Multi-head attention as SAM uses it: separate projections, an inner width of its own, optional rotary positions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2.modeling.position_encoding import rope_rotations, rotate


class Attention(nn.Module):
    """Queries (B, Q, C) attend to keys and values (B, K, C_kv); the inner width is C / `downsample_rate`."""

    def __init__(self, dim: int, num_heads: int, downsample_rate: int = 1, kv_dim: int | None = None) -> None:
        super().__init__()
        inner_dim = dim // downsample_rate
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, inner_dim)
        self.k_proj = nn.Linear(kv_dim or dim, inner_dim)
        self.v_proj = nn.Linear(kv_dim or dim, inner_dim)
        self.out_proj = nn.Linear(inner_dim, dim)

    def split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, L, head_dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = self.split_heads(self.q_proj(q)), self.split_heads(self.k_proj(k)), self.split_heads(self.v_proj(v))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class RoPEAttention(Attention):
    """Attention with one head whose queries and keys are cells of a square grid, or several such grids one after
    another, turned by their position; a tail of keys (object pointers) has no position."""

    def __init__(self, dim: int, theta: float, kv_dim: int | None = None) -> None:
        super().__init__(dim, num_heads=1, kv_dim=kv_dim)
        self.theta = theta

    def forward(self, q: Tensor, k: Tensor, v: Tensor, num_keys_without_position: int = 0) -> Tensor:
        q, k = self.q_proj(q), self.k_proj(k)
        side = math.isqrt(q.shape[1])
        rotations = rope_rotations(q.shape[2], side, side, self.theta, q.device)
        q = rotate(q, rotations)
        num_turned = k.shape[1] - num_keys_without_position
        turned = rotate(k[:, :num_turned], rotations.repeat(num_turned // len(rotations), 1))
        k = turned if num_keys_without_position == 0 else torch.cat((turned, k[:, num_turned:]), dim=1)
        return self.out_proj(F.scaled_dot_product_attention(q, k, self.v_proj(v)))
