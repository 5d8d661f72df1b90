"""From image and text features to queries with boxes: feature enhancer, query selection, decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from grounding_dino.groundingdino.configuration import GroundingDINOConfig
from grounding_dino.groundingdino.models.decoder import Decoder
from grounding_dino.groundingdino.models.encoder import FeatureEnhancer, reference_points, relative_centres
from grounding_dino.groundingdino.models.layers import MLP, ContrastiveEmbed
from grounding_dino.groundingdino.models.position_encoding import sine_encoding


class Proposals(NamedTuple):
    """The cells that become queries, best first. Q is `num_queries`, or the number of cells where those are fewer.

    features: (B, Q, C) of these cells.
    boxes_cxcywh: (B, Q, 4) float32 in 0..1 of each image.
    query_mask: (B, Q) bool, False where an image has fewer cells than Q; None where all count.
    """

    features: Tensor
    boxes_cxcywh: Tensor
    query_mask: Tensor | None


class Transformer(nn.Module):
    """Everything behind the two backbones; see `GroundingDINO`."""

    def __init__(self, config: GroundingDINOConfig) -> None:
        super().__init__()
        dim, eps = config.hidden_dim, config.layer_norm_eps
        self.num_queries = config.num_queries
        self.level_embed = nn.Parameter(torch.randn(config.num_feature_levels, dim))
        self.encoder = FeatureEnhancer(
            config.enc_layers,
            dim,
            config.nheads,
            config.num_feature_levels,
            config.enc_n_points,
            config.dim_feedforward,
            eps,
        )
        self.enc_output = nn.Linear(dim, dim)
        self.enc_output_norm = nn.LayerNorm(dim, eps=eps)
        self.enc_out_class_embed = ContrastiveEmbed(dim if config.scaled_class_embed else None)
        self.enc_out_bbox_embed = MLP(dim, dim, 4, num_layers=3)
        self.tgt_embed = nn.Embedding(config.num_queries, dim) if config.embed_init_tgt else None
        self.decoder = Decoder(
            config.dec_layers,
            dim,
            config.dec_nheads,
            config.num_feature_levels,
            config.dec_n_points,
            config.dec_dim_feedforward,
            eps,
            config.inverse_sigmoid_eps,
        )

    def forward(
        self,
        vision: Tensor,
        vision_position: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        level_sizes: Tensor,
        padding_mask: Tensor | None,
        text: Tensor,
        token_mask: Tensor,
        text_attention_mask: Tensor,
        position_ids: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """
        Args:
            vision: (B, S, C), the cells of all levels one after another.
            vision_position: (B or 1, S, C).
            spatial_shapes: (height, width) of each of the L levels, padding included.
            level_sizes: (B, L, 2) float32 (width, height) of each image's own part of each level.
            padding_mask: (B, S) bool, True on padding, or None where there is none.
            text: (B, T, C).
            token_mask: (B, T) bool, False on padding.
            text_attention_mask: (B, T, T) bool, True where a token may look.
            position_ids: (B, T) int64, 0-based within each sub-sentence.

        Returns:
            queries: (B, Q, C).
            boxes_cxcywh: (B, Q, 4) float32 in 0..1 of each image, which the last box head has yet to correct.
            text: (B, T, C) that the queries are to be compared with.
            query_mask: as in `Proposals`.
        """
        vision, text = self.encoder(
            vision,
            vision_position,
            reference_points(spatial_shapes, level_sizes),
            spatial_shapes,
            padding_mask,
            text,
            sine_encoding(position_ids, text.shape[-1]).to(text.dtype),
            token_mask,
            text_attention_mask,
        )
        proposals = self.propose(vision, spatial_shapes, level_sizes, padding_mask, text, token_mask)
        queries = proposals.features.detach()
        if self.tgt_embed is not None:
            queries = self.tgt_embed.weight[: queries.shape[1]].expand_as(queries)
        padded_sizes = level_sizes.new_tensor([(width, height) for height, width in spatial_shapes])
        queries, boxes_cxcywh = self.decoder(
            queries,
            proposals.boxes_cxcywh,
            proposals.query_mask,
            vision,
            spatial_shapes,
            level_sizes / padded_sizes,
            padding_mask,
            text,
            token_mask,
        )
        return queries, boxes_cxcywh, text, proposals.query_mask

    def propose(
        self,
        vision: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        level_sizes: Tensor,
        padding_mask: Tensor | None,
        text: Tensor,
        token_mask: Tensor,
    ) -> Proposals:
        """Select the cells that agree best with any token (language-guided query selection, section 3.2).

        Every cell proposes a box around itself, of a size that goes with its level. Where such a box would be all but
        as large as the image, or its centre all but on the border, the cell takes part as one that knows nothing.
        Padding is never selected before an image's own cells. Arguments as in `forward`.
        """
        anchors = anchor_boxes(spatial_shapes, level_sizes)  # (B, S, 4)
        is_valid = ((anchors > 0.01) & (anchors < 0.99)).all(dim=-1)
        features = vision.masked_fill(~is_valid[..., None], 0)
        features = self.enc_output_norm(self.enc_output(features))
        scores = self.enc_out_class_embed(features, text, token_mask).amax(dim=-1)  # (B, S)
        if padding_mask is not None:
            scores = scores.masked_fill(padding_mask, -torch.inf)
        cells = self.select(scores)

        selected = features.gather(1, cells[..., None].expand(-1, -1, features.shape[-1]))
        anchor_logits = torch.logit(anchors).masked_fill(~is_valid[..., None], torch.inf)
        anchor_logits = anchor_logits.gather(1, cells[..., None].expand(-1, -1, 4))
        boxes_cxcywh = (self.enc_out_bbox_embed(selected).float() + anchor_logits).sigmoid().detach()
        query_mask = None if padding_mask is None else ~padding_mask.gather(1, cells)
        return Proposals(selected, boxes_cxcywh, query_mask)

    def select(self, scores: Tensor) -> Tensor:
        """(B, S) scores → (B, Q) int64 cells, best first."""
        return scores.topk(min(self.num_queries, scores.shape[1]), dim=1).indices


def anchor_boxes(spatial_shapes: Sequence[tuple[int, int]], level_sizes: Tensor) -> Tensor:
    """(B, S, 4) float32 cxcywh: each cell's own box before any correction, in 0..1 of each image.

    The sides are 0.05 on the finest level and double from level to level. Arguments as in `reference_points`.
    """
    centres = relative_centres(spatial_shapes, level_sizes)
    sides = torch.cat(
        [centres.new_full((height * width,), 0.05 * 2**level) for level, (height, width) in enumerate(spatial_shapes)]
    )
    return torch.cat((centres, sides[:, None].expand_as(centres)), dim=-1)
