"""Any zero-shot detector of transformers that takes text, from a model id or a local folder.

Grounding DINO and MM Grounding DINO score boxes against the tokens of one text; their labels are worked out here from
each phrase's own tokens. OWL-ViT, OWLv2 and OmDet-Turbo score boxes against a list of phrases, which is simple.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForZeroShotObjectDetection, AutoProcessor
from transformers.models.auto.modeling_auto import MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES

import grounded_sam2.detectors.efficientnet_lite  # noqa: F401 (the backbone of the bundled detector)
from checkpoint_files.reading import check_numbers
from grounded_sam2.detectors.base import Image, PhraseDetector, RawBoxes, Search, keep_queries, pad_elongated
from grounded_sam2.prompts import encoder_phrase, split_passes
from grounded_sam2.weights.hub import (
    check_weights,
    hub_token,
    reading_model,
    reads_as_path,
    without_progress,
    without_retry_messages,
)

# Model types whose logits are per token of one text; all others score a list of phrases.
_SAMPLING = "MultiScaleDeformableAttention"  # what transformers calls the part that samples features
_TOKEN_SCORING = ("grounding-dino", "mm-grounding-dino")


class HuggingFaceDetector(PhraseDetector):
    """A `Detector` over ``AutoModelForZeroShotObjectDetection``.

    With a token-scoring model a box is kept when the phrase chosen for it reaches `box_threshold`, and a phrase can be
    chosen when its best token reaches `text_threshold` (`grounded_sam2.prompts.score_phrases`). With the other models
    each phrase has one score, which `box_threshold` alone judges. Phrases beyond what the text encoder holds are looked
    for in further passes over the image.

    Args:
        model_id: a local folder (read with no network access at all) or a model id of the hub.
        device: where the model runs.
        dtype: the precision the model is built with; the sampling of features is computed in float32 in any case.
        nms_threshold: of two boxes that overlap by a higher IoU only the more confident is kept, also when they come
            from two passes over a long prompt; None keeps all.
        class_agnostic_nms: let boxes of different phrases suppress each other too.
        batch_size: how many images of one size go through the model together.

    Raises:
        FileNotFoundError: when the folder, or the model on the hub, is not there; names the command that brings it.
        ValueError: when it is there but holds no zero-shot detector, or not all of its weights.
    """

    def __init__(
        self,
        model_id: str | Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        nms_threshold: float | None = 0.7,
        class_agnostic_nms: bool = True,
        batch_size: int = 4,
    ) -> None:
        super().__init__(nms_threshold, class_agnostic_nms)
        if batch_size < 1:
            raise ValueError(f"expected a batch_size of at least 1, got {batch_size}")
        self.device = torch.device(device)
        self.dtype = dtype
        self.batch_size = batch_size
        self.model, self.processor = _load(model_id, dtype)
        self.model.to(self.device).eval()
        self.scores_tokens = self.model.config.model_type in _TOKEN_SCORING

    @torch.inference_mode()
    def find(self, images: Sequence[Image], search: Search) -> list[RawBoxes]:
        """The boxes of a search's texts; see `PhraseDetector.find`."""
        find = self._find_by_tokens if self.scores_tokens else self._find_by_phrases
        raw_boxes: list[list[RawBoxes]] = [[] for _ in images]
        for indices in self._same_size_batches(images):
            batch, sizes = zip(*(pad_elongated(images[index]) for index in indices), strict=True)
            for pass_boxes in find(batch, sizes, search):
                for index, boxes in zip(indices, pass_boxes, strict=True):
                    raw_boxes[index].append(boxes)
        return [RawBoxes.joined(passes) for passes in raw_boxes]

    def _same_size_batches(self, image_list: Sequence[Image]) -> Iterator[list[int]]:
        """Yield indices of images of one size; padding one to another's size would change its boxes."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(image_list):
            by_shape.setdefault(image.shape, []).append(index)
        for indices in by_shape.values():
            for start in range(0, len(indices), self.batch_size):
                yield indices[start : start + self.batch_size]

    def _pixels(self, batch: Sequence[Image]) -> dict[str, torch.Tensor]:
        # the axes are named because a 3-pixel-high image could be read as channels first
        pixels = self.processor.image_processor(
            images=list(batch), input_data_format="channels_last", return_tensors="pt"
        )
        return {
            name: tensor.to(self.device, self.dtype if tensor.is_floating_point() else tensor.dtype)
            for name, tensor in pixels.items()
        }

    def _find_by_tokens(
        self, batch: Sequence[Image], sizes: Sequence[tuple[float, float]], search: Search
    ) -> Iterator[list[RawBoxes]]:
        tokenizer = self.processor.tokenizer
        words = [tokenizer(encoder_phrase(text), add_special_tokens=False)["input_ids"] for text in search.texts]
        mark = tokenizer(".", add_special_tokens=False)["input_ids"]
        capacity = self._text_capacity() - 2  # [CLS] and [SEP]
        pixels = self._pixels(batch)

        for pass_texts in split_passes([len(word_ids) + len(mark) for word_ids in words], capacity):
            token_ids, spans = [tokenizer.cls_token_id], []
            for text_index in pass_texts:
                spans.append((len(token_ids), len(token_ids) + len(words[text_index])))
                token_ids += words[text_index] + mark
            token_ids.append(tokenizer.sep_token_id)

            input_ids = torch.tensor([token_ids] * len(batch), device=self.device)
            output = self.model(
                **pixels,
                input_ids=input_ids,
                token_type_ids=torch.zeros_like(input_ids),
                attention_mask=torch.ones_like(input_ids),
            )
            token_scores = output.logits[..., : len(token_ids)].float().sigmoid().cpu().numpy()  # (B, Q, T)
            boxes_cxcywh = output.pred_boxes.float().cpu().numpy()  # (B, Q, 4) in [0, 1]
            yield [
                keep_queries(scores, boxes, spans, pass_texts, search, size)
                for scores, boxes, size in zip(token_scores, boxes_cxcywh, sizes, strict=True)
            ]

    def _find_by_phrases(
        self, batch: Sequence[Image], sizes: Sequence[tuple[float, float]], search: Search
    ) -> Iterator[list[RawBoxes]]:
        text = [search.texts] * len(batch)
        encoded = self.processor(
            images=list(batch), text=text, input_data_format="channels_last", truncation=True, return_tensors="pt"
        )
        inputs = {
            name: tensor.to(self.device, self.dtype if tensor.is_floating_point() else tensor.dtype)
            for name, tensor in encoded.items()
        }
        output = self.model(**inputs)
        scored = self.processor.post_process_grounded_object_detection(
            output,
            threshold=float(search.box_threshold.min()),
            target_sizes=[(height, width) for width, height in sizes],
            text_labels=text,
        )
        yield [_of_texts(boxes, search) for boxes in scored]

    def _text_capacity(self) -> int:
        config = self.model.config
        return min(config.max_text_len, config.text_config.max_position_embeddings)


def _load(model_id: str | Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """Build the model and its processor from a folder, or from the hub's cache or the hub itself."""
    name = os.fspath(model_id)
    is_folder = Path(name).is_dir()
    cure = f"hf download {name} --local-dir gdino_checkpoints/{Path(name).name}"
    if not is_folder and reads_as_path(name):
        raise FileNotFoundError(
            f"the detector folder {name} is missing; get a detector with: "
            f"hf download IDEA-Research/grounding-dino-tiny --local-dir {name}"
        )
    if is_folder and not (Path(name) / "config.json").is_file():
        raise FileNotFoundError(
            f"{name} holds no config.json; a detector folder has config.json, model.safetensors, "
            "preprocessor_config.json and the tokenizer's files"
        )
    # no code that a folder or repository brings is run, and nobody is asked whether it may be
    options: dict[str, Any] = {"local_files_only": is_folder, "trust_remote_code": False, "token": hub_token()}
    with reading_model(name, "detector", is_folder, cure):
        with without_retry_messages():
            config = AutoConfig.from_pretrained(name, **options)
        if config.model_type not in MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES:
            legal = ", ".join(sorted(MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES))
            raise ValueError(f"{name} holds a model of type {config.model_type!r}, expected a detector: {legal}")
        with without_progress() if is_folder else contextlib.nullcontext():
            model, loading = AutoModelForZeroShotObjectDetection.from_pretrained(
                name, config=config, dtype=dtype, output_loading_info=True, **options
            )
        processor = AutoProcessor.from_pretrained(name, **options)
    check_weights(name, loading)
    check_numbers(dict(model.named_parameters()), name)
    _check_tokenizer(name, model, processor)
    if dtype != torch.float32:
        _attend_in_float32(model)
    return model, processor


def _check_tokenizer(name: str, model: Any, processor: Any) -> None:
    """Raise a ValueError unless a model's tokenizer has the marks that texts are laid out with, and no other ids."""
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or not callable(tokenizer):
        raise ValueError(f"{name} holds no tokenizer that can be read")
    num_words = getattr(getattr(model.config, "text_config", None), "vocab_size", None)
    if num_words is not None and len(tokenizer) > num_words:
        raise ValueError(f"the tokenizer in {name} has {len(tokenizer)} tokens, the model {num_words}")
    needs_marks = model.config.model_type in _TOKEN_SCORING
    if needs_marks and (tokenizer.cls_token_id is None or tokenizer.sep_token_id is None):
        raise ValueError(f"the tokenizer in {name} lacks the marks [CLS] and [SEP]: expected that of a BERT model")


def _attend_in_float32(model: torch.nn.Module) -> None:
    """Let deformable attention compute in float32 whatever precision the model has.

    The sampling of features at places between pixels gives NaN in bfloat16 and float16 (on CPUs, PyTorch 2.14),
    which ends in no boxes at all; so its inputs are converted, and its output is converted back.
    """

    def as_float32(_: torch.nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(value.float() if _is_half(value) else value for value in arguments)

    def as_before(_: torch.nn.Module, __: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        return output.to(dtype)

    dtype = next(model.parameters()).dtype
    for module in model.modules():
        if type(module).__name__.endswith(_SAMPLING):
            module.register_forward_pre_hook(as_float32)
            module.register_forward_hook(as_before)


def _is_half(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype in (torch.float16, torch.bfloat16)


def _of_texts(boxes: dict[str, torch.Tensor], search: Search) -> RawBoxes:
    """The boxes of one image that reach the threshold of the text they were found by."""
    confidence = boxes["scores"].float().cpu().numpy()
    text_index = np.asarray(boxes["labels"].cpu(), dtype=np.int64)
    kept = confidence >= search.box_threshold[text_index]
    xyxy = boxes["boxes"].float().cpu().numpy().reshape(-1, 4)
    return RawBoxes(xyxy[kept], confidence[kept], search.class_id[text_index[kept]])
