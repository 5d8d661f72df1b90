"""The contract every detector keeps, and the pieces they share.

A new detector derives from `PhraseDetector` and says where the texts of a `Search` are; all else is done here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypedDict, cast

import cv2
import numpy as np
import numpy.typing as npt
import supervision as sv

from grounded_sam2.prompts import TextPrompt, expand_aliases, find_phrase, read_prompt, score_phrases

Image: TypeAlias = npt.NDArray[np.uint8]
# One threshold, or one per phrase; phrases that are not named have the default.
Threshold: TypeAlias = float | Mapping[str, float]
# Phrase → other words for the same thing.
Aliases: TypeAlias = Mapping[str, str | Sequence[str]]

DEFAULT_BOX_THRESHOLD = 0.35
DEFAULT_TEXT_THRESHOLD = 0.25
UNWANTED_IOU = 0.7  # of a box and a more confident one of an unwanted phrase, from which it is taken for that
# A more elongated image is padded to this ratio: resized as it is, its short side would leave the backbone nothing.
_MAX_ASPECT_RATIO = 6
_LONGEST_ELONGATED = (
    4096  # pixels: an elongated image is shrunk to this before it is padded, which would need gigabytes
)


class DetectOptions(TypedDict, total=False):
    """The options of `Detector.detect`; what wraps a detector hands on those that it was given."""

    box_threshold: Threshold
    text_threshold: Threshold
    aliases: Aliases | None
    top_k: int | None


def given_options(
    box_threshold: Threshold, text_threshold: Threshold, aliases: Aliases | None, top_k: int | None
) -> DetectOptions:
    """The options for a detector that is called by another: those that are None are not asked of it."""
    options: DetectOptions = {"box_threshold": box_threshold, "text_threshold": text_threshold}
    if aliases is not None:
        options["aliases"] = aliases
    if top_k is not None:
        options["top_k"] = top_k
    return options


class Detector(Protocol):
    """Finds what a text prompt names."""

    def detect(
        self,
        images: Image | Sequence[Image],
        text_prompt: TextPrompt,
        *,
        box_threshold: Threshold = DEFAULT_BOX_THRESHOLD,
        text_threshold: Threshold = DEFAULT_TEXT_THRESHOLD,
        aliases: Aliases | None = None,
        top_k: int | None = None,
    ) -> list[sv.Detections]:
        """Find the prompt's phrases in one or several images; several give what each alone would.

        Args:
            images: one or several (H, W, 3) uint8 RGB images, of any sizes.
            text_prompt: the phrases, as `grounded_sam2.prompts.read_prompt` reads them. A box of a wanted phrase is
                dropped where one of an unwanted phrase is more confident and overlaps it by an IoU of 0.7 or more. A
                threshold that the prompt itself gives a phrase goes before the two here.
            box_threshold: the least confidence of a box that is kept, in [0, 1]; a mapping gives phrases their own,
                those that it does not name have the default.
            text_threshold: the least score that a phrase needs to become a box's label, likewise.
            aliases: phrase → other words that are looked for too, beside those of the prompt; what they find carries
                the phrase: {"e-scooter": ["kick scooter"]}.
            top_k: how many boxes of each phrase an image may have, the most confident ones: 1 for referring
                expressions; None does not limit them.

        Returns:
            One `sv.Detections` per image, most confident first: `xyxy` (N, 4) float32 in pixels of that image, inside
            it; `confidence` (N,) float32; `class_id` (N,) int, the index among the wanted phrases of the prompt;
            `data["class_name"]` (N,) str, that phrase; `mask` (N, H, W) bool where the detector was told to find masks.
            N = 0 gives the same fields, empty.

        Raises:
            ValueError: for an empty prompt, an image of another shape or dtype, a threshold outside [0, 1], a threshold
                or alias of what is no phrase of the prompt, an alias of two phrases, or a `top_k` below 1.
        """
        ...


class PhraseDetector(ABC):
    """What all detectors but wrappers share: they find texts, and everything else is done here.

    Args:
        nms_threshold: of two boxes that overlap by a higher IoU only the more confident is kept, also when they come
            from two passes over a long prompt; None keeps all.
        class_agnostic_nms: let boxes of different phrases suppress each other too.

    Raises:
        ValueError: an `nms_threshold` outside [0, 1].
    """

    def __init__(self, nms_threshold: float | None = 0.7, class_agnostic_nms: bool = True) -> None:
        if nms_threshold is not None:
            check_threshold("nms_threshold", nms_threshold)
        self.nms_threshold = nms_threshold
        self.class_agnostic_nms = class_agnostic_nms

    @abstractmethod
    def find(self, images: Sequence[Image], search: Search) -> Iterable[RawBoxes]:
        """Find the texts of a search in images.

        Args:
            images: I ≥ 0 checked images.
            search: what is looked for.

        Returns:
            The boxes of each image: those that reach the threshold of the text they were found by, with its
            `Search.class_id`, in any order.
        """

    def detect(
        self,
        images: Image | Sequence[Image],
        text_prompt: TextPrompt,
        *,
        box_threshold: Threshold = DEFAULT_BOX_THRESHOLD,
        text_threshold: Threshold = DEFAULT_TEXT_THRESHOLD,
        aliases: Aliases | None = None,
        top_k: int | None = None,
    ) -> list[sv.Detections]:
        """Find the prompt's phrases; see `Detector.detect`."""
        search = read_search(text_prompt, box_threshold, text_threshold, aliases)
        image_list = as_image_list(images)
        check_top_k(top_k)
        found = self.find(image_list, search)
        return [self.settle(image, boxes, search, top_k) for image, boxes in zip(image_list, found, strict=True)]

    def settle(self, image: Image, boxes: RawBoxes, search: Search, top_k: int | None = None) -> sv.Detections:
        """Put what was found in an image in the form of the contract; see `make_detections`."""
        return make_detections(
            boxes.xyxy,
            boxes.confidence,
            boxes.class_id,
            search.phrases,
            image_size=(image.shape[1], image.shape[0]),
            nms_threshold=self.nms_threshold,
            class_agnostic=self.class_agnostic_nms,
            top_k=top_k,
            masks=boxes.masks,
        )


def as_image_list(images: Image | Sequence[Image]) -> list[Image]:
    """Take one image or several, and check each.

    Raises:
        ValueError: when an image is not a non-empty (H, W, 3) uint8 array; names its position, shape and dtype.
    """
    image_list = [images] if isinstance(images, np.ndarray) and images.ndim == 3 else list(images)
    for index, image in enumerate(image_list):
        shape, dtype = np.shape(image), getattr(image, "dtype", type(image).__name__)
        if not isinstance(image, np.ndarray) or dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise ValueError(f"image {index}: expected an (H, W, 3) uint8 RGB array, got shape {shape} of {dtype}")
    # PyTorch takes no negative strides, as those of bgr[:, :, ::-1]
    return [np.ascontiguousarray(image) for image in image_list]


def check_threshold(name: str, threshold: float) -> None:
    """Raise a ValueError unless `threshold` lies in [0, 1]."""
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"expected {name} in [0, 1], got {threshold}")


def check_finite(*results: npt.NDArray[np.floating]) -> None:
    """Raise a ValueError where a model's results are no numbers: thresholds would drop them without a word."""
    if not all(np.isfinite(result).all() for result in results):
        raise ValueError(
            "the detector computes NaN instead of scores and boxes: its weights are damaged, or they overflow in this "
            "precision; build it in float32"
        )


def check_top_k(top_k: int | None) -> None:
    """Raise a ValueError unless `top_k` is None or at least 1."""
    if top_k is not None and top_k < 1:
        raise ValueError(f"expected a top_k of at least 1, or None, got {top_k}")


def pad_elongated(image: Image) -> tuple[Image, tuple[float, float]]:
    """Pad an (H, W, 3) image with black at the right or bottom up to an aspect ratio of 6; most stay as they are.

    Returns:
        The image to look at, and the (width, height), in pixels of `image`, of what it shows with its padding.
    """
    height, width = image.shape[:2]
    if max(height, width) <= _MAX_ASPECT_RATIO * min(height, width):
        return image, (width, height)
    scale = min(1.0, _LONGEST_ELONGATED / max(height, width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    small_height, small_width = image.shape[:2]
    missing_height = max(0, math.ceil(small_width / _MAX_ASPECT_RATIO) - small_height)
    missing_width = max(0, math.ceil(small_height / _MAX_ASPECT_RATIO) - small_width)
    padded = np.pad(image, ((0, missing_height), (0, missing_width), (0, 0)))
    return padded, (padded.shape[1] * width / small_width, padded.shape[0] * height / small_height)


@dataclass(frozen=True)
class Search:
    """What one prompt asks for: P wanted phrases, and the T ≥ P texts that a detector looks for to find them.

    Attributes:
        phrases: the wanted phrases, which become labels; `class_id` is the index here.
        texts: the phrases, the unwanted ones, then the aliases of both.
        class_id: (T,) int64, the phrase each text stands for; P and more for an unwanted one.
        box_threshold: (T,) float32, the least confidence of a box of that text.
        text_threshold: (T,) float32, the least score with which the text can become a box's label.
    """

    phrases: list[str]
    texts: list[str]
    class_id: npt.NDArray[np.int64]
    box_threshold: npt.NDArray[np.float32]
    text_threshold: npt.NDArray[np.float32]


def read_search(
    text_prompt: TextPrompt,
    box_threshold: Threshold = DEFAULT_BOX_THRESHOLD,
    text_threshold: Threshold = DEFAULT_TEXT_THRESHOLD,
    aliases: Aliases | None = None,
) -> Search:
    """Work out what the arguments of `detect` ask for.

    Raises:
        ValueError: see `Detector.detect`.
    """
    prompt = read_prompt(text_prompt)
    names = prompt.looked_for
    texts, class_id = expand_aliases(names, prompt.aliases, aliases)
    of_texts = np.array(class_id, dtype=np.int64)
    of_boxes = _thresholds("box_threshold", box_threshold, DEFAULT_BOX_THRESHOLD, names)
    of_labels = _thresholds("text_threshold", text_threshold, DEFAULT_TEXT_THRESHOLD, names)
    for name, threshold in prompt.thresholds.items():
        index = names.index(name)
        of_boxes[index] = threshold
        of_labels[index] = min(of_labels[index], threshold)  # a higher one would keep the boxes asked for from it
    return Search(list(prompt.phrases), texts, of_texts, of_boxes[of_texts], of_labels[of_texts])


def _thresholds(name: str, threshold: Threshold, default: float, phrases: Sequence[str]) -> npt.NDArray[np.float32]:
    """One threshold per phrase: (P,) float32."""
    if not isinstance(threshold, Mapping):
        check_threshold(name, threshold)
        return np.full(len(phrases), threshold, dtype=np.float32)
    values = np.full(len(phrases), default, dtype=np.float32)
    for phrase, value in threshold.items():
        check_threshold(f"{name} of {phrase!r}", value)
        values[find_phrase(phrase, phrases)] = value
    return values


@dataclass(frozen=True)
class RawBoxes:
    """Boxes of one image as a detector finds them.

    Attributes:
        xyxy: (N, 4) float32 in pixels.
        confidence: (N,) float32 in [0, 1].
        class_id: (N,) int64, see `Search.class_id`.
        masks: (N, H, W) bool, where the detector finds masks.
    """

    xyxy: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]
    class_id: npt.NDArray[np.int64]
    masks: npt.NDArray[np.bool_] | None = None

    @classmethod
    def joined(cls, parts: Sequence[RawBoxes]) -> RawBoxes:
        """All boxes of one or more parts, in order, either all with masks or all without."""
        xyxy, confidence, class_id = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("xyxy", "confidence", "class_id")
        )
        masks = [part.masks for part in parts if part.masks is not None]
        return cls(xyxy, confidence, class_id, np.concatenate(masks) if masks else None)


def keep_queries(
    token_scores: npt.NDArray[np.float32],
    boxes_cxcywh: npt.NDArray[np.float32],
    spans: Sequence[tuple[int, int]],
    pass_texts: range,
    search: Search,
    image_size: tuple[float, float],
) -> RawBoxes:
    """Keep the queries of a token-scoring model that speak for a text, each for one.

    Args:
        token_scores: (Q, T) in [0, 1], one score per query and token.
        boxes_cxcywh: (Q, 4) in [0, 1] of the image.
        spans: per text of this pass, the first and the past-the-last token of its words.
        pass_texts: which of the search's texts the pass looks for.
        search: what is looked for.
        image_size: width and height in pixels.
    """
    check_finite(token_scores, boxes_cxcywh)
    of_pass = slice(pass_texts.start, pass_texts.stop)
    text_index, confidence = score_phrases(token_scores, spans, search.text_threshold[of_pass])
    kept = (confidence >= search.box_threshold[of_pass][text_index]) & (confidence > 0)
    center, half = boxes_cxcywh[kept, :2], boxes_cxcywh[kept, 2:] / 2
    xyxy = np.concatenate([center - half, center + half], axis=1) * np.array(image_size * 2, np.float32)
    return RawBoxes(xyxy, confidence[kept], search.class_id[of_pass][text_index[kept]])


def make_detections(
    xyxy: npt.NDArray[np.floating],
    confidence: npt.NDArray[np.floating],
    class_id: npt.NDArray[np.integer],
    phrases: Sequence[str],
    image_size: tuple[int, int],
    nms_threshold: float | None = None,
    class_agnostic: bool = True,
    top_k: int | None = None,
    masks: npt.NDArray[np.bool_] | None = None,
) -> sv.Detections:
    """Put raw boxes in the form of the contract: inside the image, wanted, without duplicates, most confident first.

    Args:
        xyxy: (N, 4) boxes in pixels.
        confidence: (N,) in [0, 1].
        class_id: (N,) index in `phrases`; from `len(phrases)` on, the box is of an unwanted phrase.
        phrases: the prompt's wanted phrases.
        image_size: width and height in pixels.
        nms_threshold: of two boxes that overlap by a higher IoU only the more confident is kept; None keeps all.
        class_agnostic: let boxes of different phrases suppress each other too.
        top_k: how many boxes a phrase may have, the most confident ones; None does not limit them.
        masks: (N, H, W) bool, one for each box; duplicates are told by the boxes all the same.

    Returns:
        Detections of M ≤ N boxes; left out are those that lie outside the image or have no area, those of unwanted
        phrases, and those that are more surely of one.
    """
    width, height = image_size
    check_finite(np.asarray(xyxy), np.asarray(confidence))
    xyxy = (
        np.asarray(xyxy, dtype=np.float32).reshape(-1, 4).clip(0, np.array([width, height, width, height], np.float32))
    )
    order = np.argsort(-confidence, kind="stable")
    order = order[(xyxy[order, 2] > xyxy[order, 0]) & (xyxy[order, 3] > xyxy[order, 1])]
    detections = sv.Detections(
        xyxy=xyxy[order],
        confidence=np.asarray(confidence, dtype=np.float32)[order],
        class_id=np.asarray(class_id, dtype=np.int64)[order],
        data={"row": order},
    )
    if nms_threshold is not None and len(detections) > 0:
        detections = detections.with_nms(threshold=nms_threshold, class_agnostic=class_agnostic)
    detections = _without_unwanted(detections, len(phrases))
    if top_k is not None and len(detections) > 0:
        best = [np.flatnonzero(detections.class_id == index)[:top_k] for index in range(len(phrases))]
        detections = cast(sv.Detections, detections[np.sort(np.concatenate(best))])
    rows = detections.data.pop("row")
    kept_class_id = cast(npt.NDArray[np.int64], detections.class_id)
    detections.data["class_name"] = np.array([phrases[index] for index in kept_class_id], dtype=np.str_)
    if masks is not None:
        detections.mask = masks[rows]
    return detections


def _without_unwanted(detections: sv.Detections, num_wanted: int) -> sv.Detections:
    """The boxes of the first `num_wanted` classes that no more confident box of another class lies on."""
    class_id, confidence = cast(npt.NDArray[np.int64], detections.class_id), detections.confidence
    is_wanted = class_id < num_wanted
    if is_wanted.all():
        return detections
    assert confidence is not None
    wanted, unwanted = np.flatnonzero(is_wanted), np.flatnonzero(~is_wanted)
    if len(wanted) > 0:
        overlap = sv.box_iou_batch(detections.xyxy[wanted], detections.xyxy[unwanted])  # (W, U)
        is_surer = confidence[unwanted] > confidence[wanted, None]
        wanted = wanted[~((overlap >= UNWANTED_IOU) & is_surer).any(axis=1)]
    return cast(sv.Detections, detections[wanted])
