"""Prompt encoder: points, boxes and masks → sparse and dense embeddings (Kirillov et al., 2023, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sam2.modeling.layers import LayerNorm2d
from sam2.modeling.position_encoding import PositionEmbeddingRandom

CLICK_REACH = 8.0  # px of the model's input, standard deviation of a click's mark on a prompt map


class PromptMap(nn.Module):
    """Points and boxes drawn as maps, embedded densely: each cell is told where it lies in the box or near a click.

    SAM 2 has none: its decoder learns from a thousand times the data to find a box's edges from its corners' encodings.
    """

    # share of a cell in the box; that times the squared distance from the box's centre, 0..1, across and down; how near
    # a positive click; how near a negative one
    CHANNELS = 5

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(self.CHANNELS, embed_dim, kernel_size=4, stride=4, bias=False)
        nn.init.zeros_(self.embed.weight)  # what was trained without maps begins as it was

    def draw(self, coords: Tensor, labels: Tensor, image_size: int, side: int) -> Tensor:
        """(B, P, 2) px and (B, P) labels, see `PromptEncoder.embed_points` → (B, CHANNELS, side, side), 0..1.

        Of several boxes of a prompt the last one is drawn, of a single corner none.
        """
        cell = image_size / side
        edges = torch.arange(side, device=coords.device, dtype=coords.dtype) * cell
        order = torch.arange(labels.shape[1], device=labels.device)
        corners, is_box = [], torch.ones(len(labels), 1, 1, dtype=torch.bool, device=labels.device)
        for kind in (2, 3):
            is_corner = labels == kind
            is_last = is_corner & (torch.where(is_corner, order, -1).amax(1, keepdim=True) == order)
            corners.append((coords * is_last.unsqueeze(-1)).sum(1).unsqueeze(-1))  # (B, 2, 1)
            is_box = is_box & is_corner.any(1)[:, None, None]
        first, second = torch.minimum(*corners), torch.maximum(*corners)
        inside = (torch.minimum(second, edges + cell) - torch.maximum(first, edges)).clamp(min=0) / cell
        half = ((second - first) / 2).clamp(min=cell / 2)
        off_centre = ((edges + cell / 2 - (first + second) / 2) / half).square().clamp(max=1)  # (B, 2, side)
        covered = inside[:, 1, :, None] * inside[:, 0, None, :] * is_box
        box = [covered, covered * off_centre[:, 0, None, :], covered * off_centre[:, 1, :, None]]
        distance = (edges + (cell - 1) / 2 - coords.unsqueeze(-1)) / CLICK_REACH  # (B, P, 2, side)
        near = (-0.5 * distance.square()).exp()
        marks = near[:, :, 1, :, None] * near[:, :, 0, None, :]
        clicks = [(marks * (labels == kind)[:, :, None, None]).amax(1) for kind in (1, 0)]
        return torch.stack(box + clicks, 1)

    def forward(self, coords: Tensor, labels: Tensor, image_size: int, embedding_size: int) -> Tensor:
        """Prompts as in `draw` → (B, embed_dim, embedding_size, embedding_size); zeros for no prompt."""
        maps = self.draw(coords.float(), labels, image_size, 4 * embedding_size)
        return self.embed(maps.to(self.embed.weight.dtype))


class PromptEncoder(nn.Module):
    """Embeds prompts given in pixels of the model's square input image.

    Args:
        embed_dim: channels of the embeddings.
        image_size: side of the model's input in pixels.
        embedding_size: side of the image embedding in cells.
        prompt_map: dense embeddings show points and boxes too, see `PromptMap`.
    """

    def __init__(self, embed_dim: int, image_size: int, embedding_size: int, prompt_map: bool = False) -> None:
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
        self.prompt_map = PromptMap(embed_dim) if prompt_map else None

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
        return self.embed_points(*self._as_points(boxes), pad=False)

    @staticmethod
    def _as_points(boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (B, 4) xyxy or (B, 2, 2) → their corners (B, 2, 2) and these' labels (B, 2)."""
        corners = boxes.reshape(-1, 2, 2)
        return corners, torch.tensor([[2, 3]], dtype=torch.int32, device=corners.device).expand(len(corners), -1)

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
            dense = self.mask_downscaling(masks.to(empty.dtype))
        else:
            dense = self.no_mask_embed.weight.reshape(1, -1, 1, 1)
            dense = dense.expand(batch, -1, self.embedding_size, self.embedding_size)
        if self.prompt_map is not None:
            prompts = [] if points is None else [points]
            if boxes is not None:
                prompts.append(self._as_points(boxes))
            if prompts:
                coords, labels = (torch.cat(parts, dim=1) for parts in zip(*prompts, strict=True))
                if coords.shape[1]:
                    dense = dense + self.prompt_map(coords, labels, self.image_size, self.embedding_size)
        return sparse, dense
