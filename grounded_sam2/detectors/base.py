"""The contract every detector keeps, and the pieces they share."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import supervision as sv

Image = npt.NDArray[np.uint8]


class Detector(Protocol):
    """Finds what a text prompt names."""

    def detect(
        self,
        images: Image | Sequence[Image],
        text_prompt: str | Sequence[str],
        *,
        box_threshold: float = 0.35,
        text_threshold: float = 0.25,
    ) -> list[sv.Detections]:
        """Find the prompt's phrases in one or several images; several give what each alone would.

        Args:
            images: one or several (H, W, 3) uint8 RGB images, of any sizes.
            text_prompt: the phrases, as `grounded_sam2.prompts.parse_prompt` reads them.
            box_threshold: the least confidence of a box that is kept, in [0, 1].
            text_threshold: the least score, in [0, 1], that a phrase needs to become a box's label.

        Returns:
            One `sv.Detections` per image, most confident first: `xyxy` (N, 4) float32 in pixels of that image, inside
            it; `confidence` (N,) float32; `class_id` (N,) int, the index of the phrase in the prompt;
            `data["class_name"]` (N,) str, that phrase. N = 0 gives the same fields, empty.

        Raises:
            ValueError: for an empty prompt, an image of another shape or dtype, or a threshold outside [0, 1].
        """
        ...


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
    return image_list


def check_threshold(name: str, threshold: float) -> None:
    """Raise a ValueError unless `threshold` lies in [0, 1]."""
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"expected {name} in [0, 1], got {threshold}")


def make_detections(
    xyxy: npt.NDArray[np.floating],
    confidence: npt.NDArray[np.floating],
    class_id: npt.NDArray[np.integer],
    phrases: Sequence[str],
    image_size: tuple[int, int],
    nms_threshold: float | None = None,
) -> sv.Detections:
    """Put raw boxes in the form of the contract: inside the image, without duplicates, most confident first.

    Args:
        xyxy: (N, 4) boxes in pixels.
        confidence: (N,) in [0, 1].
        class_id: (N,) index in `phrases`.
        phrases: the prompt's phrases.
        image_size: width and height in pixels.
        nms_threshold: of two boxes that overlap by a higher IoU, whatever their phrases, only the more confident is
            kept; None keeps all.

    Returns:
        Detections of M ≤ N boxes; boxes that lie outside the image or have no area are left out.
    """
    width, height = image_size
    xyxy = (
        np.asarray(xyxy, dtype=np.float32).reshape(-1, 4).clip(0, np.array([width, height, width, height], np.float32))
    )
    order = np.argsort(-confidence, kind="stable")
    order = order[(xyxy[order, 2] > xyxy[order, 0]) & (xyxy[order, 3] > xyxy[order, 1])]
    class_id = np.asarray(class_id, dtype=np.int64)[order]
    detections = sv.Detections(
        xyxy=xyxy[order],
        confidence=np.asarray(confidence, dtype=np.float32)[order],
        class_id=class_id,
        data={"class_name": np.array([phrases[index] for index in class_id], dtype=np.str_)},
    )
    if nms_threshold is None or len(detections) == 0:
        return detections
    return detections.with_nms(threshold=nms_threshold, class_agnostic=True)
