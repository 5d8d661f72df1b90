"""The cross-modality decoder (Grounding DINO, arXiv:2303.05499, section 3.3), which refines boxes layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from grounding_dino.groundingdino.models.layers import MLP, MultiheadAttention, feed_forward
from grounding_dino.groundingdino.models.position_encoding import encode_boxes
from grounding_dino.groundingdino.ops import MSDeformAttn


class DecoderLayer(nn.Module):
    """Queries look at each other, at the text, and at the image around their boxes."""

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
        self.self_attn = MultiheadAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.ca_text = MultiheadAttention(dim, num_heads)
        self.catext_norm = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.cross_attn = MSDeformAttn(dim, num_levels=num_levels, num_heads=num_heads, num_points=num_points)
        self.norm1 = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.linear1 = nn.Linear(dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, dim)
        self.norm3 = nn.LayerNorm(dim, eps=layer_norm_eps)

    def forward(
        self,
        queries: Tensor,
        position: Tensor,
        reference_boxes: Tensor,
        query_mask: Tensor | None,
        vision: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        padding_mask: Tensor | None,
        text: Tensor,
        token_mask: Tensor,
    ) -> Tensor:
        """(B, Q, C) → (B, Q, C); `position` is of the same shape, `reference_boxes` (B, Q, L, 4), both masks of
        queries and tokens (B, 1, 1, Q or T); for the other arguments see `Decoder`."""
        placed = queries + position
        queries = self.norm2(queries + self.self_attn(placed, placed, queries, query_mask))
        queries = self.catext_norm(queries + self.ca_text(queries + position, text, text, token_mask))
        attended = self.cross_attn(queries + position, reference_boxes, vision, spatial_shapes, padding_mask)
        queries = self.norm1(queries + attended)
        return feed_forward(queries, self.linear1, self.linear2, self.norm3)


class Decoder(nn.Module):
    """Layers whose boxes are each corrected by the layer's own head before the next layer looks around them.

    `bbox_embed` is put in by the model, which applies the last of these heads to what the decoder returns.
    """

    bbox_embed: nn.ModuleList

    def __init__(
        self,
        num_layers: int,
        dim: int,
        num_heads: int,
        num_levels: int,
        num_points: int,
        dim_feedforward: int,
        layer_norm_eps: float,
        inverse_sigmoid_eps: float,
    ) -> None:
        super().__init__()
        self.inverse_sigmoid_eps = inverse_sigmoid_eps
        self.layers = nn.ModuleList(
            DecoderLayer(dim, num_heads, num_levels, num_points, dim_feedforward, layer_norm_eps)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.ref_point_head = MLP(2 * dim, dim, dim, num_layers=2)

    def forward(
        self,
        queries: Tensor,
        boxes_cxcywh: Tensor,
        query_mask: Tensor | None,
        vision: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        valid_ratios: Tensor,
        padding_mask: Tensor | None,
        text: Tensor,
        token_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            queries: (B, Q, C).
            boxes_cxcywh: (B, Q, 4) float32 in 0..1 of each image.
            query_mask: (B, Q) bool, False for queries that stand for nothing, or None where all count.
            vision: (B, S, C), the cells of all levels one after another.
            spatial_shapes: (height, width) of each of the L levels, padding included.
            valid_ratios: (B, L, 2) float32, the part of each level's width and height that is image.
            padding_mask: (B, S) bool, True on padding, or None where there is none.
            text: (B, T, C).
            token_mask: (B, T) bool, False on padding.

        Returns:
            queries: (B, Q, C) after the last layer and its norm.
            boxes_cxcywh: (B, Q, 4) float32; the last head, applied to `queries`, says how they are to be corrected.
        """
        level_scale = valid_ratios.repeat(1, 1, 2)[:, None]  # (B, 1, L, 4)
        query_mask = None if query_mask is None else query_mask[:, None, None]
        token_mask = token_mask[:, None, None]
        for i, layer in enumerate(self.layers):
            if i > 0:
                boxes_cxcywh = self.correct_boxes(boxes_cxcywh, self.bbox_embed[i - 1](queries)).detach()
            # Relative to the image, not to the padded batch: a query must not depend on its neighbours' sizes.
            position = self.ref_point_head(encode_boxes(boxes_cxcywh, queries.shape[-1] // 2).to(queries.dtype))
            reference_boxes = boxes_cxcywh[:, :, None] * level_scale
            queries = layer(
                queries, position, reference_boxes, query_mask, vision, spatial_shapes, padding_mask, text, token_mask
            )
        return self.norm(queries), boxes_cxcywh

    def correct_boxes(self, boxes_cxcywh: Tensor, delta: Tensor) -> Tensor:
        """Add `delta` to the logits of boxes in 0..1; both (B, Q, 4), the result float32."""
        eps = self.inverse_sigmoid_eps
        logits = boxes_cxcywh.clamp(min=eps).log() - (1 - boxes_cxcywh).clamp(min=eps).log()
        return (logits + delta.float()).sigmoid()
