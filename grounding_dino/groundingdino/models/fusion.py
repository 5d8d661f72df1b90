"""Attention between image and text in both directions at once (GLIP, arXiv:2112.03857, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BiAttention(nn.Module):
    """One matrix of logits between cells and tokens: by its rows the image reads the text, by its columns the reverse.

    Cells are many and tokens few, so no cell is ever projected to the heads. What a projection would do to a cell x is
    done to the tokens instead: (W x + b)·k = x·(Wᵀ k) + b·k for the logits; and because attention weights sum to 1,
    Σ a (W x + b) = W (Σ a x) + b for the values.
    """

    def __init__(self, dim: int, inner_dim: int, num_heads: int) -> None:
        super().__init__()
        if inner_dim % num_heads:
            raise ValueError(f"{inner_dim} channels do not split into {num_heads} attention heads")
        self.num_heads = num_heads
        self.scale = (inner_dim // num_heads) ** -0.5
        self.v_proj = nn.Linear(dim, inner_dim)  # v is for vision: the queries
        self.l_proj = nn.Linear(dim, inner_dim)  # l is for language: the keys
        self.values_v_proj = nn.Linear(dim, inner_dim)
        self.values_l_proj = nn.Linear(dim, inner_dim)
        self.out_v_proj = nn.Linear(inner_dim, dim)
        self.out_l_proj = nn.Linear(inner_dim, dim)
        projections = (
            self.v_proj,
            self.l_proj,
            self.values_v_proj,
            self.values_l_proj,
            self.out_v_proj,
            self.out_l_proj,
        )
        for projection in projections:
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self, vision: Tensor, text: Tensor, padding_mask: Tensor | None, token_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            vision: (B, S, C).
            text: (B, T, C).
            padding_mask: (B, S) bool, True where `vision` is padding, or None.
            token_mask: (B, T) bool, False where `text` is padding.

        Returns:
            What to add to `vision` (B, S, C) and to `text` (B, T, C).
        """
        num_tokens = text.shape[1]
        logits = self._logits(vision, text, token_mask)  # (B, S, heads · T)
        # In a column of the matrix the tokens' mask is a constant, which softmax over the cells cancels.
        columns = logits if padding_mask is None else logits.masked_fill(padding_mask[:, :, None], -torch.inf)
        seen = columns.softmax(dim=1).transpose(1, 2) @ vision  # (B, heads · T, C)
        read = logits.unflatten(-1, (self.num_heads, num_tokens)).softmax(dim=-1).flatten(2)

        head_values = self._by_head(self.values_l_proj(text))  # (B, heads, T, head_dim)
        write = (head_values @ self.out_v_proj.weight.unflatten(1, (self.num_heads, -1)).permute(1, 2, 0)).flatten(1, 2)
        vision_delta = torch.baddbmm(self.out_v_proj.bias, read, write)

        seen = seen.unflatten(1, (self.num_heads, num_tokens))
        values = seen @ self._head_weights(self.values_v_proj).transpose(1, 2)  # (B, heads, T, head_dim)
        text_delta = self.out_l_proj(values.transpose(1, 2).flatten(2) + self.values_v_proj.bias)
        return vision_delta, text_delta

    def _logits(self, vision: Tensor, text: Tensor, token_mask: Tensor) -> Tensor:
        keys = self._by_head(self.l_proj(text) * self.scale)
        directions = (keys @ self._head_weights(self.v_proj)).flatten(1, 2)  # (B, heads · T, C)
        offsets = keys @ self.v_proj.bias.unflatten(0, (self.num_heads, -1, 1))  # (B, heads, T, 1)
        offsets = offsets.squeeze(-1).masked_fill(~token_mask[:, None], torch.finfo(keys.dtype).min / 2)
        return torch.baddbmm(offsets.flatten(1)[:, None], vision, directions.transpose(1, 2))

    def _by_head(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, T, head_dim)

    def _head_weights(self, projection: nn.Linear) -> Tensor:
        return projection.weight.unflatten(0, (self.num_heads, -1))  # (heads, head_dim, C)


class FusionLayer(nn.Module):
    """Norms, `BiAttention`, and a residual connection with a learned gain for each channel."""

    def __init__(self, dim: int, inner_dim: int, num_heads: int, layer_norm_eps: float) -> None:
        super().__init__()
        self.layer_norm_v = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.layer_norm_l = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.attn = BiAttention(dim, inner_dim, num_heads)
        self.gamma_v = nn.Parameter(torch.full((dim,), 1e-4))
        self.gamma_l = nn.Parameter(torch.full((dim,), 1e-4))

    def forward(
        self, vision: Tensor, text: Tensor, padding_mask: Tensor | None, token_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`vision` (B, S, C) and `text` (B, T, C) after each has read the other; see `BiAttention`."""
        vision, text = self.layer_norm_v(vision), self.layer_norm_l(text)
        vision_delta, text_delta = self.attn(vision, text, padding_mask, token_mask)
        return torch.addcmul(vision, self.gamma_v, vision_delta), torch.addcmul(text, self.gamma_l, text_delta)
