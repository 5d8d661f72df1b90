"""Grounding DINO of this repository as a detector: official checkpoints, Hugging Face folders, and the bundled nano."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import supervision as sv
import torch

from grounded_sam2.detectors.base import (
    DEFAULT_BOX_THRESHOLD,
    DEFAULT_TEXT_THRESHOLD,
    Aliases,
    Image,
    PhraseDetector,
    RawBoxes,
    Search,
    Threshold,
    as_image_list,
    check_top_k,
    keep_queries,
    pad_elongated,
    read_search,
)
from grounded_sam2.prompts import TextPrompt, split_passes
from grounding_dino.groundingdino.image import image_transform_for
from grounding_dino.groundingdino.models.grounding_dino import TextFeatures
from grounding_dino.groundingdino.text import text_inputs, tokenizer_for
from grounding_dino.groundingdino.weights import build_model, find_weights


@dataclass(frozen=True)
class _TextPass:
    """One text for the encoder: its tokens, the texts of a search it holds, and the tokens of each."""

    input_ids: tuple[int, ...]
    texts: range
    spans: list[tuple[int, int]]


class LocalDetector(PhraseDetector):
    """A `Detector` over this repository's Grounding DINO.

    A box is kept when the phrase chosen for it reaches `box_threshold`, and a phrase can be chosen when its best token
    reaches `text_threshold` (`grounded_sam2.prompts.score_phrases`). Images of any sizes go through the model together,
    each image once however many phrases are looked for, and each text once as long as it stays in the cache; phrases
    beyond what the text encoder holds take further passes over what the backbone made of the image. Images are resized
    as transformers' image processor does it.

    Args:
        checkpoint: official `.pth` file, or Hugging Face folder of Grounding DINO or MM-Grounding-DINO.
        config: upstream config name or file; None works the architecture out from the checkpoint.
        tokenizer: folder or hub name of the tokenizer; None takes the one that the config names, and for
            "bert-base-uncased" looks beside the checkpoint before the hub or its cache. Local files are read with no
            network access at all.
        device: where the model runs.
        dtype: the precision the model is built with: float32, bfloat16, or float16 on a GPU.
        nms_threshold: of two boxes that overlap by a higher IoU only the more confident is kept, also when they come
            from two passes over a long prompt; None keeps all.
        class_agnostic_nms: let boxes of different phrases suppress each other too.
        batch_size: how many images go through the model together.
        text_cache_size: how many encoded texts are kept for later calls; a text is what one pass reads, of up to 256
            tokens.

    Raises:
        FileNotFoundError: when the checkpoint, config or tokenizer is not there; names the command that brings it.
        ValueError: for weights of another model, or a dtype the device should not compute in.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        config: str | Path | None = None,
        tokenizer: str | Path | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        nms_threshold: float | None = 0.7,
        class_agnostic_nms: bool = True,
        batch_size: int = 4,
        text_cache_size: int = 64,
    ) -> None:
        super().__init__(nms_threshold, class_agnostic_nms)
        for name, count in (("batch_size", batch_size), ("text_cache_size", text_cache_size)):
            if count < 1:
                raise ValueError(f"expected a {name} of at least 1, got {count}")
        _check_dtype(dtype, torch.device(device))
        self.batch_size = batch_size
        self.text_cache_size = text_cache_size
        find_weights(checkpoint)  # a missing file is reported before any model is built
        self.image_transform = image_transform_for(checkpoint)
        self.model = build_model(checkpoint, config, device, dtype)
        self.tokenizer = tokenizer_for(checkpoint, tokenizer or self.model.config.own_tokenizer)
        self._text_features: OrderedDict[tuple[int, ...], TextFeatures] = OrderedDict()

    def find(self, images: Sequence[Image], search: Search) -> list[RawBoxes]:
        """The boxes of a search's texts; see `PhraseDetector.find`."""
        return self._find_each(images, [search] * len(images))

    def detect_each(
        self,
        images: Sequence[Image],
        text_prompts: Sequence[TextPrompt],
        *,
        box_threshold: Threshold = DEFAULT_BOX_THRESHOLD,
        text_threshold: Threshold = DEFAULT_TEXT_THRESHOLD,
        aliases: Aliases | None = None,
        top_k: int | None = None,
    ) -> list[sv.Detections]:
        """Find in each image the phrases of its own prompt; `class_id` is the index in that prompt.

        Args:
            images: several images, see `detect`.
            text_prompts: one prompt per image.
            box_threshold: as in `detect`; a mapping must fit every prompt.
            text_threshold: the same.
            aliases: the same.
            top_k: how many boxes each phrase may have in one image.

        Raises:
            ValueError: as `detect`, and when there is not one prompt per image.
        """
        image_list = as_image_list(images)
        if isinstance(text_prompts, str) or len(text_prompts) != len(image_list):
            count = "one text" if isinstance(text_prompts, str) else len(text_prompts)
            raise ValueError(f"expected one prompt for each of {len(image_list)} images, got {count}")
        searches = [read_search(prompt, box_threshold, text_threshold, aliases) for prompt in text_prompts]
        check_top_k(top_k)
        found = self._find_each(image_list, searches)
        return [
            self.settle(image, boxes, search, top_k)
            for image, boxes, search in zip(image_list, found, searches, strict=True)
        ]

    @torch.inference_mode()
    def _find_each(self, image_list: Sequence[Image], searches: Sequence[Search]) -> list[RawBoxes]:
        passes_of = {id(search): self._text_passes(search) for search in searches}
        raw_boxes: list[list[RawBoxes]] = [[] for _ in image_list]
        # images of similar shapes go together, so that little of a batch is padding
        order = sorted(range(len(image_list)), key=lambda index: image_list[index].shape[1] / len(image_list[index]))
        for start in range(0, len(order), self.batch_size):
            indices = order[start : start + self.batch_size]
            batch = [image_list[index] for index in indices]
            passes = [passes_of[id(searches[index])] for index in indices]
            for row, boxes in self._find(batch, [searches[index] for index in indices], passes):
                raw_boxes[indices[row]].append(boxes)
        return [RawBoxes.joined(boxes) for boxes in raw_boxes]

    def _find(
        self, batch: Sequence[Image], searches: Sequence[Search], passes: Sequence[Sequence[_TextPass]]
    ) -> Iterator[tuple[int, RawBoxes]]:
        """Encode the images once, and yield what each pass finds in the image of a row."""
        padded, sizes = zip(*map(pad_elongated, batch), strict=True)
        image_features = self.model.encode_images([self.image_transform(image) for image in padded])
        for number in range(max(map(len, passes))):
            rows = [row for row, of_image in enumerate(passes) if number < len(of_image)]
            text_features = TextFeatures.stack([self._encode(passes[row][number]) for row in rows])
            output = self.model.detect(
                image_features if len(rows) == len(batch) else image_features.rows(rows), text_features
            )
            token_scores = output.logits.float().sigmoid().cpu().numpy()  # (B, Q, T)
            boxes_cxcywh = output.boxes_cxcywh.float().cpu().numpy()  # (B, Q, 4) in [0, 1]
            for row, scores, boxes in zip(rows, token_scores, boxes_cxcywh, strict=True):
                text_pass = passes[row][number]
                yield row, keep_queries(scores, boxes, text_pass.spans, text_pass.texts, searches[row], sizes[row])

    def _text_passes(self, search: Search) -> list[_TextPass]:
        words = [self.tokenizer.phrase_ids(text) for text in search.texts]
        config = self.model.config
        capacity = min(config.max_text_len, config.bert_max_position_embeddings) - 2  # [CLS] and [SEP]
        passes = []
        for texts in split_passes([len(word_ids) + 1 for word_ids in words], capacity):
            input_ids, spans = self.tokenizer.layout(words[texts.start : texts.stop])
            passes.append(_TextPass(tuple(input_ids), texts, spans))
        return passes

    def _encode(self, text_pass: _TextPass) -> TextFeatures:
        """The features of a text, from the cache if it was read lately."""
        key = text_pass.input_ids
        if key not in self._text_features:
            self._text_features[key] = self.model.encode_text(text_inputs([key], self.tokenizer.special_ids))
            if len(self._text_features) > self.text_cache_size:
                self._text_features.popitem(last=False)
        self._text_features.move_to_end(key)
        return self._text_features[key]


def _check_dtype(dtype: torch.dtype, device: torch.device) -> None:
    """Refuse what overflows, or what a device has no fast arithmetic for."""
    allowed = (torch.float32, torch.bfloat16) + ((torch.float16,) if device.type != "cpu" else ())
    if dtype not in allowed:
        names = ", ".join(str(one).removeprefix("torch.") for one in allowed)
        raise ValueError(f"expected a dtype of {names} on {device}, got {str(dtype).removeprefix('torch.')}")
