"""The feature enhancer: image and text read each other, then themselves (arXiv:2303.05499, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from grounding_dino.groundingdino.models.features import ImageFeatures, TextFeatures
from grounding_dino.groundingdino.models.fusion import FusionLayer
from grounding_dino.groundingdino.models.layers import MultiheadAttention, feed_forward, row_blocks
from grounding_dino.groundingdino.models.position_encoding import sine_encoding
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

    def forward(self, images: ImageFeatures, reference_points: Tensor) -> Tensor:
        """The new cells (B, S, C) of images; `reference_points`: see the function of that name."""
        attended = self.self_attn.attend(
            images.cells + images.position, reference_points, images.cells, images.spatial_shapes, images.padding_mask
        )
        blocks = [self._after_attention(images.cells[:, rows], attended[:, rows]) for rows in row_blocks(images.cells)]
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

    def forward(self, images: ImageFeatures, text: TextFeatures) -> tuple[ImageFeatures, TextFeatures]:
        """Images and texts of the same shapes, each read with the other."""
        points = reference_points(images)
        text_position = sine_encoding(text.position_ids, text.tokens.shape[-1]).to(text.tokens.dtype)
        attention_mask = text.self_attention_mask[:, None]
        for layer, text_layer, fusion_layer in zip(self.layers, self.text_layers, self.fusion_layers, strict=True):
            cells, tokens = fusion_layer(images.cells, text.tokens, images.padding_mask, text.token_mask)
            text = replace(text, tokens=text_layer(tokens, text_position, attention_mask))
            images = replace(images, cells=cells)
            images = replace(images, cells=layer(images, points))
        return images, text


def reference_points(images: ImageFeatures) -> Tensor:
    """(B, S, L, 2) float32: where the cells of all levels lie on each level, x, y in 0..1 of it and its padding."""
    centres = relative_centres(images.spatial_shapes, images.level_sizes)
    return centres[:, :, None] * images.valid_ratios[:, None]


def relative_centres(spatial_shapes: Sequence[tuple[int, int]], level_sizes: Tensor) -> Tensor:
    """(B, S, 2) float32: the centres of all cells as x, y, in 0..1 of each image's own part of their level.

    Arguments as in `ImageFeatures`.
    """
    centres = []
    for level, (height, width) in enumerate(spatial_shapes):
        y, x = (torch.arange(size, dtype=torch.float32, device=level_sizes.device) + 0.5 for size in (height, width))
        grid = torch.stack((x.expand(height, width), y[:, None].expand(height, width)), dim=-1)
        centres.append(grid.flatten(0, 1) / level_sizes[:, None, level])  # (B, height · width, 2)
    return torch.cat(centres, dim=1)
