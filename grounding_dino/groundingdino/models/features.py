"""What is known of images, texts and queries on the way through Grounding DINO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageFeatures:
    """B images as the encoder of the image sees them, or, after the feature enhancer, as read together with a text.

    Attributes:
        cells: (B, S, C), all levels of the padded batch flattened row by row, one after another.
        position: (B, S, C), or (1, S, C) where no image is padded; what tells cells and levels apart.
        spatial_shapes: (height, width) of each of the L levels of the padded batch.
        level_sizes: (B, L, 2) float32 (width, height) of each image's own part of each level.
        padding_mask: (B, S) bool, True on padding, or None where there is none.
    """

    cells: Tensor
    position: Tensor
    spatial_shapes: tuple[tuple[int, int], ...]
    level_sizes: Tensor
    padding_mask: Tensor | None

    @property
    def valid_ratios(self) -> Tensor:
        """(B, L, 2) float32: the part of each level's width and height that is image and not padding."""
        padded_sizes = self.level_sizes.new_tensor([(width, height) for height, width in self.spatial_shapes])
        return self.level_sizes / padded_sizes

    def __len__(self) -> int:
        return len(self.cells)

    def rows(self, indices: Sequence[int]) -> ImageFeatures:
        """The features of some of the images, in any order and as often as wanted."""
        rows = torch.as_tensor(indices, dtype=torch.int64, device=self.cells.device)
        return ImageFeatures(
            self.cells[rows],
            self.position if self.padding_mask is None else self.position[rows],
            self.spatial_shapes,
            self.level_sizes[rows],
            None if self.padding_mask is None else self.padding_mask[rows],
        )


@dataclass(frozen=True)
class TextFeatures:
    """B texts of at most T tokens as the text encoder sees them, or, after the feature enhancer, with an image.

    Attributes:
        tokens: (B, T, C).
        token_mask: (B, T) bool, False on padding.
        self_attention_mask: (B, T, T) bool, True where the token of a row may look.
        position_ids: (B, T) int64, 0-based within each sub-sentence.
    """

    tokens: Tensor
    token_mask: Tensor
    self_attention_mask: Tensor
    position_ids: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, indices: Sequence[int]) -> TextFeatures:
        """The features of some of the texts, in any order and as often as wanted."""
        rows = torch.as_tensor(indices, dtype=torch.int64, device=self.tokens.device)
        return TextFeatures(
            self.tokens[rows], self.token_mask[rows], self.self_attention_mask[rows], self.position_ids[rows]
        )

    @staticmethod
    def stack(parts: Sequence[TextFeatures]) -> TextFeatures:
        """One batch of the texts of several, padded to the longest; `parts` must not be empty."""
        longest = max(part.tokens.shape[1] for part in parts)
        num_texts = sum(len(part) for part in parts)
        first = parts[0]
        stacked = TextFeatures(
            first.tokens.new_zeros(num_texts, longest, first.tokens.shape[2]),
            first.token_mask.new_zeros(num_texts, longest),
            torch.eye(longest, dtype=torch.bool, device=first.tokens.device).repeat(num_texts, 1, 1),
            first.position_ids.new_zeros(num_texts, longest),
        )
        start = 0
        for part in parts:
            end, length = start + len(part), part.tokens.shape[1]
            stacked.tokens[start:end, :length] = part.tokens
            stacked.token_mask[start:end, :length] = part.token_mask
            stacked.self_attention_mask[start:end, :length, :length] = part.self_attention_mask
            stacked.position_ids[start:end, :length] = part.position_ids
            start = end
        return stacked


@dataclass(frozen=True)
class Queries:
    """Q candidates for an object in each of B images.

    Attributes:
        features: (B, Q, C).
        boxes_cxcywh: (B, Q, 4) float32 in 0..1 of each image.
        query_mask: (B, Q) bool, False for queries that stand for nothing, or None where all count.
    """

    features: Tensor
    boxes_cxcywh: Tensor
    query_mask: Tensor | None
