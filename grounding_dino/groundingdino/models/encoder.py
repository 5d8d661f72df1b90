"""The feature enhancer: image and text read each other, then themselves (arXiv:2303.05499, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from grounding_dino.groundingdino.models.fusion import FusionLayer
from grounding_dino.groundingdino.models.layers import MultiheadAttention, feed_forward, row_blocks
from grounding_dino.groundingdino.ops import MSDeformAttn


class TextEnhancerLayer(nn.Module):
    """Self-attention within each sub-sentence, and a feed-forward network."""

    def __init__(self, dim: int, num_heads: int, dim_feedforward: int, layer_norm_eps: float) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(dim, num_heads)
        self.norm1 = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.linear1 = nn.Linear(dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, dim)
        self.norm2 = nn.LayerNorm(dim, eps=layer_norm_eps)

    def forward(self, text: Tensor, position: Tensor, mask: Tensor) -> Tensor:
        """(B, T, C) → (B, T, C); `position` is of the same shape, `mask` (B, 1, T, T) bool, True where to look."""
        placed = text + position
        text = self.norm1(text + self.self_attn(placed, placed, text, mask))
        return feed_forward(text, self.linear1, self.linear2, self.norm2)


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention over all levels, and a feed-forward network."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_levels: int,
        num_points: int,
        dim_feedforward: int,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        self.self_attn = MSDeformAttn(dim, num_levels=num_levels, num_heads=num_heads, num_points=num_points)
        self.norm1 = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.linear1 = nn.Linear(dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, dim)
        self.norm2 = nn.LayerNorm(dim, eps=layer_norm_eps)

    def forward(
        self,
        vision: Tensor,
        position: Tensor,
        reference_points: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        padding_mask: Tensor | None,
    ) -> Tensor:
        """(B, S, C) → (B, S, C); for the other arguments see `FeatureEnhancer`."""
        attended = self.self_attn.attend(vision + position, reference_points, vision, spatial_shapes, padding_mask)
        blocks = [self._after_attention(vision[:, rows], attended[:, rows]) for rows in row_blocks(vision)]
        return torch.cat(blocks, dim=1)

    def _after_attention(self, vision: Tensor, attended: Tensor) -> Tensor:
        vision = self.norm1(self.self_attn.output_proj(attended).add_(vision))
        return feed_forward(vision, self.linear1, self.linear2, self.norm2)


class FeatureEnhancer(nn.Module):
    """Layers of three parts each: fusion of image and text, text enhancer, deformable self-attention of the image."""

    def __init__(
        self,
        num_layers: int,
        dim: int,
        num_heads: int,
        num_levels: int,
        num_points: int,
        dim_feedforward: int,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        heads, inner_dim = num_heads // 2, dim_feedforward // 2  # of the two parts that deal with text
        self.layers = nn.ModuleList(
            DeformableEncoderLayer(dim, num_heads, num_levels, num_points, dim_feedforward, layer_norm_eps)
            for _ in range(num_layers)
        )
        self.text_layers = nn.ModuleList(
            TextEnhancerLayer(dim, heads, inner_dim, layer_norm_eps) for _ in range(num_layers)
        )
        self.fusion_layers = nn.ModuleList(
            FusionLayer(dim, inner_dim, heads, layer_norm_eps) for _ in range(num_layers)
        )

    def forward(
        self,
        vision: Tensor,
        vision_position: Tensor,
        reference_points: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        padding_mask: Tensor | None,
        text: Tensor,
        text_position: Tensor,
        token_mask: Tensor,
        text_attention_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            vision: (B, S, C), the cells of all levels one after another.
            vision_position: (B or 1, S, C), what tells cells apart.
            reference_points: (B, S, L, 2) float32, where each cell looks on each level.
            spatial_shapes: (height, width) of each level.
            padding_mask: (B, S) bool, True on padding, or None where there is none.
            text: (B, T, C).
            text_position: (B, T, C).
            token_mask: (B, T) bool, False on padding.
            text_attention_mask: (B, T, T) bool, True where a token may look.

        Returns:
            `vision` and `text` of the same shapes.
        """
        text_attention_mask = text_attention_mask[:, None]
        for layer, text_layer, fusion_layer in zip(self.layers, self.text_layers, self.fusion_layers, strict=True):
            vision, text = fusion_layer(vision, text, padding_mask, token_mask)
            text = text_layer(text, text_position, text_attention_mask)
            vision = layer(vision, vision_position, reference_points, spatial_shapes, padding_mask)
        return vision, text


def reference_points(spatial_shapes: Sequence[tuple[int, int]], level_sizes: Tensor) -> Tensor:
    """Where the cells of all levels lie on all levels.

    Args:
        spatial_shapes: (height, width) of each of the L levels, padding included.
        level_sizes: (B, L, 2) float32 (width, height) of each image's own part of each level.

    Returns:
        (B, S, L, 2) float32 as x, y in 0..1 of a level with its padding.
    """
    padded_sizes = level_sizes.new_tensor([(width, height) for height, width in spatial_shapes])
    centres = relative_centres(spatial_shapes, level_sizes)
    return centres[:, :, None] * (level_sizes / padded_sizes)[:, None]


def relative_centres(spatial_shapes: Sequence[tuple[int, int]], level_sizes: Tensor) -> Tensor:
    """(B, S, 2) float32: the centres of all cells as x, y, in 0..1 of each image's own part of their level."""
    centres = []
    for level, (height, width) in enumerate(spatial_shapes):
        y, x = (torch.arange(size, dtype=torch.float32, device=level_sizes.device) + 0.5 for size in (height, width))
        grid = torch.stack((x.expand(height, width), y[:, None].expand(height, width)), dim=-1)
        centres.append(grid.flatten(0, 1) / level_sizes[:, None, level])  # (B, height · width, 2)
    return torch.cat(centres, dim=1)
