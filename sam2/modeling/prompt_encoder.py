"""Prompt encoder: points, boxes and masks → sparse and dense embeddings (Kirillov et al., 2023, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sam2.modeling.layers import LayerNorm2d
from sam2.modeling.position_encoding import PositionEmbeddingRandom


class PromptEncoder(nn.Module):
    """Embeds prompts given in pixels of the model's square input image."""

    def __init__(self, embed_dim: int, image_size: int, embedding_size: int) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.image_size = image_size
        self.embedding_size = embedding_size  # side of the image embedding; dense embeddings have the same
        self.pe_layer = PositionEmbeddingRandom(embed_dim // 2)
        # negative point, positive point, top-left corner, bottom-right corner
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, embed_dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, 4, kernel_size=2, stride=2),
            LayerNorm2d(4),
            nn.GELU(),
            nn.Conv2d(4, 16, kernel_size=2, stride=2),
            LayerNorm2d(16),
            nn.GELU(),
            nn.Conv2d(16, embed_dim, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, embed_dim)

    @property
    def mask_input_size(self) -> tuple[int, int]:
        """Height and width of a mask prompt: four times the image embedding's."""
        return 4 * self.embedding_size, 4 * self.embedding_size

    @property
    def image_embedding_size(self) -> tuple[int, int]:
        """Height and width of the image embedding."""
        return self.embedding_size, self.embedding_size

    @property
    def input_image_size(self) -> tuple[int, int]:
        """Height and width of the model's input, pixels."""
        return self.image_size, self.image_size

    def get_dense_pe(self) -> Tensor:
        """Position encoding of the image embedding, (1, embed_dim, h, w)."""
        return self.pe_layer.grid(self.embedding_size, self.embedding_size)

    def embed_points(self, coords: Tensor, labels: Tensor, pad: bool = True) -> Tensor:
        """Points (B, P, 2) px, labels (B, P) → (B, P + 1, embed_dim); the last one is the padding point, if wanted.

        Labels: 1 foreground, 0 background, 2 and 3 a box's top-left and bottom-right corner, -1 padding.
        """
        coords = coords + 0.5  # pixel centres
        if pad:
            coords = torch.cat((coords, coords.new_zeros(len(coords), 1, 2)), dim=1)
            labels = torch.cat((labels, -labels.new_ones(len(labels), 1)), dim=1)
        encoded = self.pe_layer.encode(coords / self.image_size)
        kinds = torch.cat([self.not_a_point_embed.weight, *self.point_embeddings.parameters()])
        is_point = (labels >= 0).unsqueeze(-1)
        return torch.where(is_point, encoded, torch.zeros_like(encoded)) + kinds[labels.long() + 1]

    def embed_boxes(self, boxes: Tensor) -> Tensor:
        """Boxes (B, 4) xyxy px, or their corners (B, 2, 2) → (B, 2, embed_dim)."""
        corners = boxes.reshape(-1, 2, 2)
        labels = torch.tensor([[2, 3]], dtype=torch.int32, device=corners.device).expand(len(corners), -1)
        return self.embed_points(corners, labels, pad=False)

    def forward(
        self, points: tuple[Tensor, Tensor] | None, boxes: Tensor | None, masks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Embed the prompts of a batch of objects; without any, of one object.

        Args:
            points: coords (B, P, 2) float in pixels of the model's input and labels (B, P), see `embed_points`.
            boxes: (B, 4) xyxy in pixels of the model's input, or None.
            masks: (B, 1, 4h, 4w) mask logits, or None.

        Returns:
            sparse embeddings (B, T, embed_dim), T being P + 1, 2, P + 2 or 0, and dense ones (B, embed_dim, h, w).
        """
        given = next((x for x in (points and points[0], boxes, masks) if x is not None), None)
        batch = 1 if given is None else len(given)
        embedded = []
        if points is not None:
            embedded.append(self.embed_points(*points, pad=boxes is None))
        if boxes is not None:
            embedded.append(self.embed_boxes(boxes))
        empty = self.no_mask_embed.weight.new_zeros(batch, 0, self.embed_dim)
        sparse = torch.cat(embedded, dim=1) if embedded else empty
        if masks is not None:
            return sparse, self.mask_downscaling(masks.to(empty.dtype))
        dense = self.no_mask_embed.weight.reshape(1, -1, 1, 1)
        return sparse, dense.expand(batch, -1, self.embedding_size, self.embedding_size)
