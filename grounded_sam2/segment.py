"""From boxes to masks, with whatever makes masks: SAM 2's image predictor, or another `BoxSegmenter`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import supervision as sv
from scipy import ndimage

from grounded_sam2.images import RGBImage
from sam2.sam2_image_predictor import SAM2ImagePredictor

Boxes: TypeAlias = npt.NDArray[np.float32]
Flags: TypeAlias = npt.NDArray[np.bool_]
# (N, H, W) bool, and the (N,) float32 IoU that the segmenter predicts for each with what it should be.
ScoredMasks: TypeAlias = tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]

_MASK_PIXELS = 2**27  # of the masks that are made at a time, by SAM 2's predictor 4 bytes each
_MASK_LOGIT = 10.0  # what SAM 2's own memory takes for certain, inside a mask and, negative, outside


class BoxSegmenter(Protocol):
    """Finds masks of boxes or points on images."""

    def set_images(self, images: Sequence[RGBImage]) -> None:
        """Take in B ≥ 1 images, (H, W, 3) uint8 RGB of any sizes, in place of those before.

        Raises:
            ValueError: one is not an RGB image.
        """
        ...

    def masks_of_boxes(
        self, image_idx: int, boxes_xyxy: Boxes, rough_masks: npt.NDArray[np.bool_] | None = None
    ) -> ScoredMasks:
        """One mask for each box of an image.

        Args:
            image_idx: which of the images set.
            boxes_xyxy: (N, 4) in pixels of that image, N ≥ 1.
            rough_masks: (N, H, W), what is to be drawn more exactly; None: what stands out in the box.
        """
        ...

    def masks_of_points(self, image_idx: int, points: npt.NDArray[np.float32], is_inside: Flags) -> ScoredMasks:
        """One mask for the points of each object.

        Args:
            image_idx: which of the images set.
            points: (N, P, 2) xy in pixels of that image, N, P ≥ 1.
            is_inside: (N, P), whether a point lies on the object or beside it.
        """
        ...


class SAM2BoxSegmenter:
    """SAM 2's image predictor as a `BoxSegmenter`."""

    def __init__(self, predictor: SAM2ImagePredictor) -> None:
        self.predictor = predictor
        self._sizes: list[tuple[int, ...]] = []  # (height, width) of each image set

    def set_images(self, images: Sequence[RGBImage]) -> None:
        """Encode images, all together; see `BoxSegmenter.set_images`."""
        if len(images) == 1:
            self.predictor.set_image(images[0])
        else:
            self.predictor.set_image_batch(images)
        self._sizes = [image.shape[:2] for image in images]

    def masks_of_boxes(
        self, image_idx: int, boxes_xyxy: Boxes, rough_masks: npt.NDArray[np.bool_] | None = None
    ) -> ScoredMasks:
        """See `BoxSegmenter.masks_of_boxes`."""
        if rough_masks is None:
            return self._predict(image_idx, len(boxes_xyxy), box=boxes_xyxy)
        side = self.predictor.mask_input_size
        shrunk = np.stack(
            [cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA) for mask in rough_masks]
        )
        mask_input = (2 * shrunk[:, None] - 1) * _MASK_LOGIT  # (N, 1, side, side)
        return self._predict(image_idx, len(boxes_xyxy), box=boxes_xyxy, mask_input=mask_input)

    def masks_of_points(self, image_idx: int, points: npt.NDArray[np.float32], is_inside: Flags) -> ScoredMasks:
        """See `BoxSegmenter.masks_of_points`."""
        return self._predict(image_idx, len(points), point_coords=points, point_labels=is_inside.astype(np.int32))

    def _predict(self, image_idx: int, count: int, **prompts: npt.NDArray[Any]) -> ScoredMasks:
        """The masks of `count` objects, as many at a time as fit in memory as the predictor makes them."""
        height, width = self._sizes[image_idx]
        masks, scores = np.zeros((count, height, width), dtype=bool), np.zeros(count, dtype=np.float32)
        for part in _parts_of(count, height * width):
            of_part: dict[str, Any] = {name: column[part] for name, column in prompts.items()}
            if len(self._sizes) == 1:
                drawn, predicted, _ = self.predictor.predict(**of_part, multimask_output=False)
            else:
                columns: dict[str, Any] = {
                    f"{name}_batch": [column if row == image_idx else None for row in range(len(self._sizes))]
                    for name, column in of_part.items()
                }
                of_images = self.predictor.predict_batch(**columns, multimask_output=False)
                drawn, predicted = of_images[0][image_idx], of_images[1][image_idx]
            masks[part], scores[part] = drawn.reshape(-1, height, width), predicted.reshape(-1)
        return masks, scores


def _parts_of(count: int, num_pixels: int) -> Iterator[slice]:
    """Ranges of objects whose masks, of `num_pixels` each, are to be made at a time."""
    step = max(1, _MASK_PIXELS // num_pixels)
    return (slice(start, start + step) for start in range(0, count, step))


def _as_segmenter(predictor: SAM2ImagePredictor | BoxSegmenter) -> BoxSegmenter:
    return SAM2BoxSegmenter(predictor) if isinstance(predictor, SAM2ImagePredictor) else predictor


def segment(predictor: SAM2ImagePredictor | BoxSegmenter, image: RGBImage, detections: sv.Detections) -> sv.Detections:
    """Find the mask of each detected box.

    Args:
        predictor: encodes `image` anew; with N = 0 it is not used.
        image: (H, W, 3) uint8 RGB.
        detections: N ≥ 0 boxes in pixels of `image`; not changed.

    Returns:
        The same detections with `mask` (N, H, W) bool and `data["mask_score"]` (N,) float32, the predicted IoU.

    Raises:
        ValueError: `image` is not an RGB image.
    """
    [segmented] = segment_batch(predictor, [image], [detections])
    return segmented


def segment_batch(
    predictor: SAM2ImagePredictor | BoxSegmenter, images: Sequence[RGBImage], detections: Sequence[sv.Detections]
) -> Iterator[sv.Detections]:
    """Find the masks of several images' boxes, all images encoded together; see `segment`.

    Args:
        predictor: encodes the images that have boxes anew.
        images: B images, (H, W, 3) uint8 RGB of any sizes.
        detections: of each, N ≥ 0 boxes; not changed.

    Yields:
        The detections of one image after the other with `mask` (N, H, W) bool and `data["mask_score"]` (N,) float32.
    """
    segmenter = _as_segmenter(predictor)
    encoded = [row for row, of_image in enumerate(detections) if len(of_image) > 0]
    if encoded:
        segmenter.set_images([images[row] for row in encoded])
    for row, (image, of_image) in enumerate(zip(images, detections, strict=True)):
        if len(of_image) > 0:
            masks, scores = segmenter.masks_of_boxes(encoded.index(row), _boxes_of(of_image))
        else:
            masks, scores = np.zeros((0, *image.shape[:2]), dtype=bool), np.zeros(0, dtype=np.float32)
        yield _with_masks(of_image, masks, scores)


def _boxes_of(detections: sv.Detections) -> Boxes:
    return np.asarray(detections.xyxy, dtype=np.float32)


def _with_masks(detections: sv.Detections, masks: Flags, scores: npt.NDArray[np.float32]) -> sv.Detections:
    return replace(detections, mask=masks, data={**detections.data, "mask_score": scores})


def segment_missing(
    predictor: SAM2ImagePredictor | BoxSegmenter, image: RGBImage, detections: sv.Detections
) -> sv.Detections:
    """Keep the masks that a detector has found, and find those of the other boxes.

    Args:
        predictor: encodes `image` anew, unless every box has a mask.
        image: (H, W, 3) uint8 RGB.
        detections: N ≥ 0 boxes, with masks (N, H, W) bool or none; a mask without pixels counts as none. Not changed.

    Returns:
        The same detections with `mask` (N, H, W) bool; with `data["mask_score"]` only if none had a mask, as in
        `segment`, since a detector predicts no IoU of its masks.

    Raises:
        ValueError: `image` is not an RGB image, or masks have another size.
    """
    if detections.mask is None:
        return segment(predictor, image, detections)
    masks = np.array(_checked_masks(detections, image), dtype=bool)
    missing = np.flatnonzero(~masks.any(axis=(1, 2)))
    if len(missing) == 0:
        return detections
    segmenter = _as_segmenter(predictor)
    segmenter.set_images([image])
    masks[missing], _ = segmenter.masks_of_boxes(0, _boxes_of(detections)[missing])
    return replace(detections, mask=masks)


def refine(predictor: SAM2ImagePredictor | BoxSegmenter, image: RGBImage, detections: sv.Detections) -> sv.Detections:
    """Draw rough masks anew; without masks, the same as `segment`.

    A mask is drawn from itself and its box. Parts that do not touch are drawn one by one, each from itself and the box
    around it, so that what lies between them is not taken in.

    Args:
        predictor: encodes `image` anew; with N = 0 it is not used.
        image: (H, W, 3) uint8 RGB.
        detections: N ≥ 0 boxes in pixels of `image`, with `mask` (N, H, W) bool or none; a mask without pixels counts
            as its filled box. Not changed.

    Returns:
        The same detections with new masks and `data["mask_score"]` (N,) float32, the predicted IoU, the mean over a
        mask's parts.

    Raises:
        ValueError: `image` is not an RGB image, or masks have another size.
    """
    if detections.mask is None or len(detections) == 0:
        return segment(predictor, image, detections)
    rough_masks = _checked_masks(detections, image)
    segmenter = _as_segmenter(predictor)
    segmenter.set_images([image])
    parts = (
        (index, part, part_box)
        for index, (mask, box) in enumerate(zip(rough_masks, _boxes_of(detections), strict=True))
        for part, part_box in _parts(mask, box)
    )
    masks = np.zeros(rough_masks.shape, dtype=bool)
    scores: list[list[float]] = [[] for _ in rough_masks]
    at_a_time = max(1, _MASK_PIXELS // rough_masks[0].size)
    while several := list(itertools.islice(parts, at_a_time)):
        owners, rough, boxes = zip(*several, strict=True)
        for index, mask, score in zip(
            owners, *segmenter.masks_of_boxes(0, np.stack(boxes), np.stack(rough)), strict=True
        ):
            masks[index] |= mask
            scores[index].append(float(score))
    return _with_masks(detections, masks, np.array([np.mean(of_parts) for of_parts in scores], dtype=np.float32))


def _checked_masks(detections: sv.Detections, image: RGBImage) -> Flags:
    """The masks of detections, which have to be of the image's size."""
    masks = np.asarray(detections.mask)
    expected = (len(detections), *image.shape[:2])
    if masks.shape != expected:
        raise ValueError(f"masks: expected {expected}, got {masks.shape}")
    return masks


def _parts(
    mask: npt.NDArray[np.bool_], box: npt.NDArray[np.float32]
) -> Iterator[tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]]:
    """The connected parts of a mask, (H, W) bool each, at least one, and the box around each, xyxy; of a mask in one
    part, the box given."""
    labelled, num_parts = ndimage.label(mask)
    if num_parts == 0:
        filled = np.zeros_like(mask)
        left, top, right, bottom = box.astype(int)
        filled[top : bottom + 1, left : right + 1] = True
        yield filled, box
    elif num_parts == 1:
        yield mask, box
    else:
        for number, (rows, columns) in enumerate(ndimage.find_objects(labelled), start=1):
            yield labelled == number, np.array([columns.start, rows.start, columns.stop, rows.stop], dtype=np.float32)
