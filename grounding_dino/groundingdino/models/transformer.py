"""From image and text features to queries with boxes: feature enhancer, query selection, decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from grounding_dino.groundingdino.configuration import GroundingDINOConfig
from grounding_dino.groundingdino.models.decoder import Decoder
from grounding_dino.groundingdino.models.encoder import FeatureEnhancer, relative_centres
from grounding_dino.groundingdino.models.features import ImageFeatures, Queries, TextFeatures
from grounding_dino.groundingdino.models.layers import MLP, ContrastiveEmbed


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

    def forward(self, images: ImageFeatures, text: TextFeatures) -> tuple[Queries, TextFeatures]:
        """Find in each image candidates for what the text of the same row names.

        Returns:
            Queries whose boxes the last box head has yet to correct, and the text that they are to be compared with.
        """
        images, text = self.encoder(images, text)
        proposals = self.propose(images, text)
        features = proposals.features.detach()
        if self.tgt_embed is not None:
            features = self.tgt_embed.weight[: features.shape[1]].expand_as(features)
        return self.decoder(replace(proposals, features=features), images, text), text

    def propose(self, images: ImageFeatures, text: TextFeatures) -> Queries:
        """Select the cells that agree best with any token (language-guided query selection, section 3.2).

        Every cell proposes a box around itself, of a size that goes with its level. Where such a box would be all but
        as large as the image, or its centre all but on the border, the cell takes part as one that knows nothing.
        Padding is never selected before an image's own cells.

        Args:
            images, text: after the feature enhancer.

        Returns:
            The cells that become queries, best first; `num_queries`, or as many as there are cells if those are fewer.
        """
        anchors = anchor_boxes(images.spatial_shapes, images.level_sizes)  # (B, S, 4)
        is_valid = ((anchors > 0.01) & (anchors < 0.99)).all(dim=-1)
        features = images.cells.masked_fill(~is_valid[..., None], 0)
        features = self.enc_output_norm(self.enc_output(features))
        scores = self.enc_out_class_embed(features, text.tokens, text.token_mask).amax(dim=-1)  # (B, S)
        if images.padding_mask is not None:
            scores = scores.masked_fill(images.padding_mask, -torch.inf)
        cells = self.select(scores)

        selected = features.gather(1, cells[..., None].expand(-1, -1, features.shape[-1]))
        anchor_logits = torch.logit(anchors).masked_fill(~is_valid[..., None], torch.inf)
        anchor_logits = anchor_logits.gather(1, cells[..., None].expand(-1, -1, 4))
        boxes_cxcywh = (self.enc_out_bbox_embed(selected).float() + anchor_logits).sigmoid().detach()
        query_mask = None if images.padding_mask is None else ~images.padding_mask.gather(1, cells)
        return Queries(selected, boxes_cxcywh, query_mask)

    def select(self, scores: Tensor) -> Tensor:
        """(B, S) scores → (B, Q) int64 cells, best first."""
        return scores.topk(min(self.num_queries, scores.shape[1]), dim=1).indices


def anchor_boxes(spatial_shapes: Sequence[tuple[int, int]], level_sizes: Tensor) -> Tensor:
    """(B, S, 4) float32 cxcywh: each cell's own box before any correction, in 0..1 of each image.

    The sides are 0.05 on the finest level and double from level to level. Arguments as in `ImageFeatures`.
    """
    centres = relative_centres(spatial_shapes, level_sizes)
    sides = torch.cat(
        [centres.new_full((height * width,), 0.05 * 2**level) for level, (height, width) in enumerate(spatial_shapes)]
    )
    return torch.cat((centres, sides[:, None].expand_as(centres)), dim=-1)
