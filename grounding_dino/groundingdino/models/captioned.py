"""The detector that reads captions as they are written, called as upstream's model is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from grounding_dino.groundingdino.captions import CaptionPass, caption_passes
from grounding_dino.groundingdino.configuration import GroundingDINOConfig
from grounding_dino.groundingdino.image import ImageTransform
from grounding_dino.groundingdino.models.grounding_dino import DetectorOutput, GroundingDINO
from grounding_dino.groundingdino.text import PromptTokenizer, text_inputs
from grounding_dino.groundingdino.weight_names import with_official_names


class CaptionedGroundingDINO(GroundingDINO):
    """A `GroundingDINO` that reads captions as they are written, called as upstream's model is.

    A caption of more tokens than the model reads is cut between phrases, and each part is looked for by itself, with
    queries of its own. Images that are larger than `image_transform` makes them are shrunk.

    Args:
        config: the architecture.
        tokenizer: of the captions.
        image_transform: how images are to be prepared; `load_image` and `Model` use it.
    """

    def __init__(
        self, config: GroundingDINOConfig, tokenizer: PromptTokenizer, image_transform: ImageTransform | None = None
    ) -> None:
        super().__init__(config)
        self.tokenizer = tokenizer
        self.image_transform = image_transform or ImageTransform()

    @property
    def max_text_len(self) -> int:
        """Most tokens of a text that is read at once, [CLS] and [SEP] included."""
        return min(self.config.max_text_len, self.config.bert_max_position_embeddings)

    def find(self, images: Sequence[Tensor], input_ids: Sequence[Sequence[int]]) -> DetectorOutput:
        """Find in each image what the caption of the same row names.

        Args:
            images: (3, H, W) normalised.
            input_ids: of the captions, of any length.

        Returns:
            Logits (B, Q · P, T), -inf on tokens that a query was not asked for, and boxes (B, Q · P, 4), where a
            caption of T tokens is read in P parts; queries beyond those of a row's own parts have -inf everywhere.

        Raises:
            ValueError: when there is no image, not one caption per image, or a phrase that is too long.
        """
        if len(images) != len(input_ids):
            raise ValueError(f"expected one caption per image, got {len(input_ids)} for {len(images)} images")
        features = self.encode_images([self.image_transform.shrink(image) for image in images])
        special_ids = self.tokenizer.special_ids
        passes = [caption_passes(ids, self.max_text_len, (self.tokenizer.stop_id,)) for ids in input_ids]
        length = max(len(ids) for ids in input_ids)
        num_parts = max(len(parts) for parts in passes)
        if num_parts == 1:
            return self.detect(features, self.encode_text(text_inputs(input_ids, special_ids)))
        logits = torch.full((len(images), num_parts, self.config.num_queries, length), -torch.inf, device=self.device)
        boxes = torch.zeros(len(images), num_parts, self.config.num_queries, 4, device=self.device)
        for part in range(num_parts):
            rows = [row for row, parts in enumerate(passes) if part < len(parts)]
            read: list[CaptionPass] = [passes[row][part] for row in rows]
            text = self.encode_text(text_inputs([one.input_ids for one in read], special_ids))
            output = self.detect(features.rows(rows), text)
            for number, (row, one) in enumerate(zip(rows, read, strict=True)):
                found = output.logits[number]
                where = torch.tensor(one.positions, device=found.device)
                logits[row, part, : len(found), where] = found[:, : len(where)].float()
                boxes[row, part, : len(found)] = output.boxes_cxcywh[number].float()
        return DetectorOutput(logits.flatten(1, 2), boxes.flatten(1, 2))

    def forward(  # type: ignore[override]  # upstream's arguments and return value, not the parent's
        self,
        samples: Sequence[Tensor] | Tensor,
        targets: Sequence[Mapping[str, Any]] | None = None,
        captions: Sequence[str] | None = None,
        **ignored: Any,
    ) -> dict[str, Tensor]:
        """Find in each image what its caption names.

        Args:
            samples: (3, H, W) normalised images, or one tensor (B, 3, H, W).
            targets: dictionaries with the captions under "caption", where `captions` is left out.
            captions: one per image; each phrase ended by a dot.

        Returns:
            pred_logits: (B, Q, max_text_len or T) float32, -inf where the caption has no token.
            pred_boxes: (B, Q, 4) float32 cxcywh in 0..1 of the image.

        Raises:
            ValueError: when there is no image, not one caption per image, or a phrase of more than `max_text_len`
                tokens.
        """
        if targets is not None and all(isinstance(target, str) for target in targets):
            captions = targets  # type: ignore[assignment]  # by position
        elif captions is None:
            captions = [target["caption"] for target in targets or ()]
        output = self.find(list(samples), [self.tokenizer.caption_ids(caption) for caption in captions or ()])
        width = max(self.config.max_text_len, output.logits.shape[2])
        logits = output.logits.new_full((*output.logits.shape[:2], width), -torch.inf)
        logits[..., : output.logits.shape[2]] = output.logits
        return {"pred_logits": logits, "pred_boxes": output.boxes_cxcywh}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights under official names, or those of DistributedDataParallel or Hugging Face."""
        return super().load_state_dict(with_official_names(state_dict), strict, assign)
