"""The cross-modality decoder (Grounding DINO, arXiv:2303.05499, section 3.3), which refines boxes layer by layer."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from grounding_dino.groundingdino.models.features import ImageFeatures, Queries, TextFeatures
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
        queries: Queries,
        position: Tensor,
        reference_boxes: Tensor,
        images: ImageFeatures,
        text: TextFeatures,
    ) -> Tensor:
        """The new features (B, Q, C) of queries.

        Args:
            queries: what is known of them so far.
            position: (B, Q, C), where they are.
            reference_boxes: (B, Q, L, 4) their boxes on each level.
            images: where they look.
            text: what they are compared with.
        """
        query_mask = None if queries.query_mask is None else queries.query_mask[:, None, None]
        token_mask = text.token_mask[:, None, None]
        x = queries.features
        placed = x + position
        x = self.norm2(x + self.self_attn(placed, placed, x, query_mask))
        x = self.catext_norm(x + self.ca_text(x + position, text.tokens, text.tokens, token_mask))
        attended = self.cross_attn(
            x + position, reference_boxes, images.cells, images.spatial_shapes, images.padding_mask
        )
        x = self.norm1(x + attended)
        return feed_forward(x, self.linear1, self.linear2, self.norm3)


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

    def forward(self, queries: Queries, images: ImageFeatures, text: TextFeatures) -> Queries:
        """The queries after the last layer and its norm; its box head, applied to them, says how their boxes are to be
        corrected."""
        level_scale = images.valid_ratios.repeat(1, 1, 2)[:, None]  # (B, 1, L, 4)
        for i, layer in enumerate(self.layers):
            if i > 0:
                delta = self.bbox_embed[i - 1](queries.features)
                queries = replace(queries, boxes_cxcywh=self.correct_boxes(queries.boxes_cxcywh, delta).detach())
            # Relative to the image, not to the padded batch: a query must not depend on its neighbours' sizes.
            encoded = encode_boxes(queries.boxes_cxcywh, queries.features.shape[-1] // 2)
            position = self.ref_point_head(encoded.to(queries.features.dtype))
            reference_boxes = queries.boxes_cxcywh[:, :, None] * level_scale
            queries = replace(queries, features=layer(queries, position, reference_boxes, images, text))
        return replace(queries, features=self.norm(queries.features))

    def correct_boxes(self, boxes_cxcywh: Tensor, delta: Tensor) -> Tensor:
        """Add `delta` to the logits of boxes in 0..1; both (B, Q, 4), the result float32."""
        eps = self.inverse_sigmoid_eps
        logits = boxes_cxcywh.clamp(min=eps).log() - (1 - boxes_cxcywh).clamp(min=eps).log()
        return (logits + delta.float()).sigmoid()
