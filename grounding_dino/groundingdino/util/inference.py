"""Load a model and find what a caption names, with upstream's function names, arguments and return values.

    model = load_model("GroundingDINO_SwinT_OGC", "gdino_checkpoints/groundingdino_swint_ogc.pth")
    image_source, image = load_image("street.jpg")
    boxes, logits, phrases = predict(model, image, "car . tire .", box_threshold=0.35, text_threshold=0.25)
    cv2.imwrite("annotated.jpg", annotate(image_source, boxes, logits, phrases))

Unlike upstream, a device that is left out is one this machine has, weights that do not fit are named, a caption that is
too long is read in parts, labels hold no [SEP], and classes are integers. For labels that are always one of the user's
phrases, batches, and any number of phrases see `grounded_sam2.detectors.local.LocalDetector`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import supervision as sv
import torch
from PIL import Image
from torch import Tensor

from grounding_dino.groundingdino.configuration import load_config
from grounding_dino.groundingdino.image import ImageTransform, image_transform_for
from grounding_dino.groundingdino.models.captioned import CaptionedGroundingDINO
from grounding_dino.groundingdino.text import PromptTokenizer, tokenizer_for
from grounding_dino.groundingdino.weights import config_for, find_weights, load_into

Device = str | torch.device


def load_model(
    model_config_path: str | Path | None,
    model_checkpoint_path: str | Path,
    device: Device | None = None,
    *,
    text_encoder_type: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    **overrides: Any,
) -> CaptionedGroundingDINO:
    """Build a model from a checkpoint.

    Args:
        model_config_path: an upstream config name or file (`"GroundingDINO_SwinT_OGC.py"`) or a Hugging Face folder;
            None works the architecture out from the checkpoint.
        model_checkpoint_path: official `.pth` file or Hugging Face folder.
        device: where the model goes; None takes a GPU if there is one.
        text_encoder_type: folder or hub name of the tokenizer; None takes the one that the config names, and for
            "bert-base-uncased" looks beside the checkpoint first, see `tokenizer_for`.
        dtype: precision of weights and computation.
        overrides: fields of the config, such as `num_queries=300`.

    Raises:
        FileNotFoundError: no such config, checkpoint or tokenizer.
        ValueError: an unknown field, a device this machine does not have, or weights that do not fit.
    """
    where = _choose_device(device)
    find_weights(model_checkpoint_path)  # a missing file is reported before any model is built
    if model_config_path is None:
        config = config_for(model_checkpoint_path)
    else:
        config = load_config(model_config_path)
    try:
        config = replace(config, **overrides)
    except TypeError as problem:
        raise ValueError(f"unknown setting of a Grounding DINO config: {problem}") from problem
    tokenizer = tokenizer_for(model_checkpoint_path, text_encoder_type or config.own_tokenizer)
    image_transform = image_transform_for(model_checkpoint_path)
    with torch.device("meta"):  # random weights are never made
        model = CaptionedGroundingDINO(config, tokenizer, image_transform)
    load_into(model, model_checkpoint_path)
    return model.to(where, dtype).eval()


def load_image(
    image_path: str | Path, transform: ImageTransform | None = None
) -> tuple[npt.NDArray[np.uint8], torch.Tensor]:
    """Read an image file.

    Args:
        image_path: any image Pillow reads.
        transform: how it is prepared, such as `model.image_transform`; None is that of the official models, and a model
            for smaller images shrinks what it is given.

    Returns:
        image_source: (H, W, 3) uint8 RGB.
        image: (3, h, w) float32, resized and normalised.

    Raises:
        FileNotFoundError: no such file.
        OSError: not an image.
    """
    with Image.open(image_path) as file:
        image = file.convert("RGB")
    return np.array(image), (transform or ImageTransform()).from_pillow(image)


def preprocess_caption(caption: str) -> str:
    """The caption in lower case, ended by a dot."""
    caption = caption.lower().strip()
    return caption if caption.endswith(".") else caption + "."


def predict(
    model: CaptionedGroundingDINO,
    image: Tensor,
    caption: str,
    box_threshold: float,
    text_threshold: float,
    device: Device | None = None,
    remove_combined: bool = False,
) -> tuple[Tensor, Tensor, list[str]]:
    """Find what a caption names in one image.

    Args:
        model: see `load_model`.
        image: (3, h, w), see `load_image`.
        caption: phrases, each ended by a dot, or a sentence.
        box_threshold: a box is kept when its best token scores more.
        text_threshold: a token belongs to a box's label when it scores more.
        device: where the model is moved first; None leaves it where it is.
        remove_combined: take a label's tokens only from the phrase that holds the best one.

    Returns:
        boxes: (N, 4) float32 cxcywh in 0..1 of the image, on the CPU. N = 0 when nothing is found.
        logits: (N,) float32, the score of each box's best token, in 0..1.
        phrases: per box the caption's tokens above `text_threshold`, as text; this can be a part of a phrase, or parts
            of several. `predict_with_classes` gives whole ones.

    Raises:
        ValueError: when a phrase of the caption has more tokens than the model reads.
    """
    input_ids = model.tokenizer.caption_ids(preprocess_caption(caption))
    boxes, scores = _find(model, image, input_ids, device)
    best = scores.amax(dim=1)
    kept = best > box_threshold
    closing = [position for position, token_id in enumerate(input_ids) if token_id in _phrase_ends(model.tokenizer)]
    phrases = []
    for token_scores in scores[kept]:
        start, stop = 1, len(input_ids) - 1
        if remove_combined:
            start, stop = _phrase_around(int(token_scores.argmax()), closing)
        above = [position for position in range(start, stop) if token_scores[position] > text_threshold]
        phrases.append(model.tokenizer.decode([input_ids[position] for position in above]).replace(".", ""))
    return boxes[kept], best[kept], phrases


def predict_with_classes(
    model: CaptionedGroundingDINO,
    image: Tensor,
    classes: Sequence[str],
    box_threshold: float,
    text_threshold: float,
    device: Device | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Find objects of the given classes in one image, each class judged by its own tokens.

    Args:
        model: see `load_model`.
        image: (3, h, w), see `load_image`.
        classes: names; of equal ones the first counts.
        box_threshold: a box is kept when its best token scores more.
        text_threshold: a box is kept when the best token of a class scores more.
        device: where the model is moved first; None leaves it where it is.

    Returns:
        boxes: (N, 4) float32 cxcywh in 0..1 of the image, on the CPU.
        logits: (N,) float32, the score of each box's best token, in 0..1.
        class_id: (N,) int64, the index in `classes` of the one with the best token.

    Raises:
        ValueError: when there is no class, or one of more tokens than the model reads.
    """
    names = [name.lower().strip() for name in classes]
    unique = list(dict.fromkeys(names))
    if not unique:
        raise ValueError("expected at least one class, got none")
    input_ids, spans = model.tokenizer.layout([model.tokenizer.phrase_ids(name) for name in unique])
    boxes, scores = _find(model, image, input_ids, device)
    class_scores = torch.stack([scores[:, start:stop].amax(dim=1) for start, stop in spans], dim=1)  # (Q, classes)
    best, best_of_class = scores.amax(dim=1), class_scores.amax(dim=1)
    kept = (best > box_threshold) & (best_of_class > text_threshold)
    class_id = torch.tensor([names.index(name) for name in unique], device=class_scores.device)[
        class_scores[kept].argmax(dim=1)
    ]
    return boxes[kept], best[kept], class_id


def annotate(
    image_source: npt.NDArray[np.uint8], boxes: Tensor, logits: Tensor, phrases: Sequence[str]
) -> npt.NDArray[np.uint8]:
    """Draw what `predict` found.

    Args:
        image_source: (H, W, 3) uint8 RGB, left as it is.
        boxes: (N, 4) cxcywh in 0..1.
        logits: (N,) scores.
        phrases: N labels.

    Returns:
        (H, W, 3) uint8 BGR, as `cv2.imwrite` expects.
    """
    scene = cv2.cvtColor(image_source, cv2.COLOR_RGB2BGR)
    height, width = image_source.shape[:2]
    detections = sv.Detections(xyxy=_to_pixels(boxes, height, width))
    labels = [f"{phrase} {score:.2f}" for phrase, score in zip(phrases, logits, strict=True)]
    scene = sv.BoxAnnotator(color_lookup=sv.ColorLookup.INDEX).annotate(scene, detections)
    return sv.LabelAnnotator(color_lookup=sv.ColorLookup.INDEX).annotate(scene, detections, labels)


class Model:
    """A model with its device, for images as OpenCV reads them; arguments and errors as those of `load_model`."""

    def __init__(
        self,
        model_config_path: str | Path | None,
        model_checkpoint_path: str | Path,
        device: Device | None = None,
        **options: Any,
    ) -> None:
        self.model = load_model(model_config_path, model_checkpoint_path, device, **options)
        self.device = self.model.device

    def predict_with_caption(
        self,
        image: npt.NDArray[np.uint8],
        caption: str,
        box_threshold: float = 0.35,
        text_threshold: float = 0.25,
    ) -> tuple[sv.Detections, list[str]]:
        """Find what a caption names, see `predict`; each label is taken from one phrase of the caption.

        Args:
            image: (H, W, 3) uint8 BGR.
            caption: phrases, each ended by a dot.
            box_threshold: least score of a box.
            text_threshold: least score of a token of its label.

        Returns:
            detections: `xyxy` (N, 4) in pixels and `confidence`, without classes.
            phrases: N labels.
        """
        boxes, logits, phrases = predict(
            self.model, self._prepare(image), caption, box_threshold, text_threshold, self.device, remove_combined=True
        )
        height, width = image.shape[:2]
        return Model.post_process_result(height, width, boxes, logits), phrases

    def predict_with_classes(
        self,
        image: npt.NDArray[np.uint8],
        classes: Sequence[str],
        box_threshold: float,
        text_threshold: float,
    ) -> sv.Detections:
        """Find objects of the given classes, see the function of that name.

        Args:
            image: (H, W, 3) uint8 BGR.
            classes: names.
            box_threshold: least score of a box.
            text_threshold: least score of its class.

        Returns:
            `xyxy` (N, 4) in pixels, `confidence`, and `class_id` (N,) int, the index in `classes`.
        """
        boxes, logits, class_id = predict_with_classes(
            self.model, self._prepare(image), classes, box_threshold, text_threshold, self.device
        )
        height, width = image.shape[:2]
        detections = Model.post_process_result(height, width, boxes, logits)
        detections.class_id = class_id.numpy()
        return detections

    def _prepare(self, image_bgr: npt.NDArray[np.uint8]) -> Tensor:
        return _from_bgr(image_bgr, self.model.image_transform)

    @staticmethod
    def preprocess_image(image_bgr: npt.NDArray[np.uint8]) -> Tensor:
        """Prepare an (H, W, 3) uint8 BGR image as the official models expect it: (3, h, w) float32."""
        return _from_bgr(image_bgr, ImageTransform())

    @staticmethod
    def post_process_result(source_h: int, source_w: int, boxes: Tensor, logits: Tensor) -> sv.Detections:
        """Bring what `predict` returns to pixels of an image of the given height and width."""
        return sv.Detections(xyxy=_to_pixels(boxes, source_h, source_w), confidence=logits.numpy())

    @staticmethod
    def find_index(string: str, lst: Sequence[str]) -> int:
        """Index of the first class that contains the first word of a phrase, in any case; -1 if there is none."""
        word = next(iter(string.lower().split()), None)
        return next((i for i, name in enumerate(lst) if word is not None and word in name.lower()), -1)

    @staticmethod
    def phrases2classes(phrases: Sequence[str], classes: Sequence[str]) -> npt.NDArray[Any]:
        """Per phrase the index of the class it is, or else of the first class it contains, or else None."""
        class_ids: list[int | None] = []
        for phrase in phrases:
            contained = (index for index, name in enumerate(classes) if name in phrase)
            class_ids.append(list(classes).index(phrase) if phrase in classes else next(contained, None))
        return np.array(class_ids)


@torch.no_grad()
def _find(
    model: CaptionedGroundingDINO, image: Tensor, input_ids: Sequence[int], device: Device | None
) -> tuple[Tensor, Tensor]:
    """All Q queries of one image and one text of T tokens: boxes (Q, 4) cxcywh in 0..1 and scores (Q, T) in 0..1."""
    if device is not None:
        model.to(_choose_device(device))
    output = model.find([image], [list(input_ids)])
    return output.boxes_cxcywh[0].float().cpu(), output.logits[0].float().sigmoid().cpu()


def _choose_device(device: Device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {str(device)!r} was asked for, but torch sees no CUDA device; leave it out, or 'cpu'")
    return torch.device(device)


def _phrase_ends(tokenizer: PromptTokenizer) -> tuple[int, int, int]:
    """Ids at which a label is cut: unlike the text encoder, upstream does not end it at a question mark."""
    return tokenizer.cls_id, tokenizer.sep_id, tokenizer.stop_id


def _phrase_around(position: int, closing: Sequence[int]) -> tuple[int, int]:
    """First and past-the-last position of the phrase that a token is part of; nothing for [CLS]."""
    stop = next(end for end in closing if end >= position)
    start = max((end for end in closing if end < position), default=position) + 1
    return start, stop


def _from_bgr(image_bgr: npt.NDArray[np.uint8], transform: ImageTransform) -> Tensor:
    return transform.from_pillow(Image.fromarray(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB)))


def _to_pixels(boxes: Tensor, height: int, width: int) -> npt.NDArray[np.float32]:
    """(N, 4) xyxy in pixels of boxes (N, 4) cxcywh in 0..1."""
    center, half = boxes[:, :2], boxes[:, 2:] / 2
    return (torch.cat([center - half, center + half], dim=1) * boxes.new_tensor([width, height] * 2)).numpy()
