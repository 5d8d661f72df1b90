"""The prompt encoder under facebookresearch/sam2's name and arguments."""

from __future__ import annotations

from typing import Any

from sam2.modeling import prompt_encoder
from sam2.modeling.memory_attention import check_wiring
from sam2.modeling.position_encoding import PositionEmbeddingRandom

__all__ = ["PositionEmbeddingRandom", "PromptEncoder"]


class PromptEncoder(prompt_encoder.PromptEncoder):
    """`sam2.modeling.prompt_encoder.PromptEncoder` for square images, by upstream's arguments.

    Raises:
        ValueError: sizes that are not square, or other than 16 `mask_in_chans`.
    """

    def __init__(
        self,
        embed_dim: int,
        image_embedding_size: tuple[int, int],
        input_image_size: tuple[int, int],
        mask_in_chans: int = 16,
        **wiring: Any,
    ) -> None:
        check_wiring("PromptEncoder", {"mask_in_chans": mask_in_chans, **wiring}, {"mask_in_chans": 16})
        sides = {*image_embedding_size}, {*input_image_size}
        if any(len(side) != 1 for side in sides):
            raise ValueError(f"expected square sizes, got {image_embedding_size} and {input_image_size}")
        super().__init__(embed_dim, input_image_size[0], image_embedding_size[0])
