"""Layers that the feature enhancer and the decoder share, with the parameter names of the official files."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS_AT_ONCE = 1024  # of a batch that go through a layer together on a CPU: what it makes of them stays near the cache


class MLP(nn.Module):
    """Linear layers with a ReLU between them."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int) -> None:
        super().__init__()
        widths = [input_dim] + [hidden_dim] * (num_layers - 1) + [output_dim]
        self.layers = nn.ModuleList(nn.Linear(width, next_width) for width, next_width in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class MultiheadAttention(nn.Module):
    """Attention whose three input projections are rows of one matrix."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"{embed_dim} channels do not split into {num_heads} attention heads")
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """
        Args:
            query: (B, Q, C).
            key: (B, K, C).
            value: (B, K, C).
            mask: bool, broadcastable to (B, heads, Q, K), True where a query may look; at least once in every row.

        Returns:
            (B, Q, C).
        """
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        return self.out_proj(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))


class ContrastiveEmbed(nn.Module):
    """Logits: how well each query agrees with each token.

    Args:
        scaled_channels: MM-Grounding-DINO divides the dot product by the root of this number of channels, and adds a
            learned bias; None does neither.
    """

    bias: nn.Parameter | None

    def __init__(self, scaled_channels: int | None = None) -> None:
        super().__init__()
        self.scale = 1.0 if scaled_channels is None else scaled_channels**-0.5
        self.register_parameter("bias", None if scaled_channels is None else nn.Parameter(torch.zeros(())))

    def forward(self, queries: Tensor, text: Tensor, token_mask: Tensor) -> Tensor:
        """
        Args:
            queries: (B, Q, C).
            text: (B, T, C).
            token_mask: (B, T) bool, False on padding.

        Returns:
            (B, Q, T), -inf on padding.
        """
        logits = queries @ text.transpose(1, 2)
        if self.bias is not None:
            logits = logits * self.scale + self.bias
        return logits.masked_fill(~token_mask[:, None], -torch.inf)


def feed_forward(x: Tensor, linear1: nn.Linear, linear2: nn.Linear, norm: nn.LayerNorm) -> Tensor:
    """(..., C) → (..., C): a linear layer, a ReLU and another linear layer, the residual connection and its norm."""
    return norm(linear2(linear1(x).relu_()).add_(x))


def row_blocks(x: Tensor) -> list[slice]:
    """Slices of the rows of (B, S, C) that go through a layer one after another: all at once on a GPU or to train."""
    batch, length = x.shape[:2]
    step = length if torch.is_grad_enabled() or x.device.type != "cpu" else max(1, ROWS_AT_ONCE // max(1, batch))
    return [slice(start, start + step) for start in range(0, length, step)]
