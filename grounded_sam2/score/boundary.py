"""J and F of two masks: the overlap of their regions, and how near their outlines are (DAVIS; Perazzi et al., 2016)."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from grounded_sam2.masks import Corners, Masks, corners_of
from grounded_sam2.score.video import Rle

__all__ = ["boundary_f", "encoded_boundary_f", "region_iou"]

TOLERANCE = 0.008  # of the diagonal of a frame: how far an outline may be off, rounded up to whole pixels
_CORNER = np.ones((2, 2), np.uint8)


def region_iou(one: Masks, other: Masks) -> float:
    """J: intersection over union of two (H, W) bool masks; 1 when both are empty."""
    union = int(np.logical_or(one, other).sum())
    return float(np.logical_and(one, other).sum() / union) if union else 1.0


def boundary_f(one: Masks, other: Masks) -> float:
    """F: harmonic mean of the shares of either outline that the other is near to, of two (H, W) bool masks.

    A mask that is empty, or the whole frame, has no outline: F of two such is 1, and of one such and another 0.
    """
    return _boundary_f(one, other, corners_of(one | other))


def encoded_boundary_f(one: Rle | None, other: Rle | None, size: tuple[int, int]) -> float:
    """The same of two encoded masks, None for an empty one, of frames of this size (width, height)."""
    some = [mask for mask in (one, other) if mask is not None]
    if len(some) == 0:
        return 1.0
    if len(some) == 1:
        return float(coco_mask.area(some[0]) == size[0] * size[1])
    boxes = np.asarray(coco_mask.toBbox(some)).astype(int)
    left, top = boxes[:, :2].min(axis=0).tolist()
    right, bottom = (boxes[:, :2] + boxes[:, 2:]).max(axis=0).tolist()
    decoded = [coco_mask.decode(mask) for mask in some]
    return _boundary_f(decoded[0], decoded[1], (left, top, right, bottom))


def _boundary_f(one: npt.NDArray[np.generic], other: npt.NDArray[np.generic], around: Corners) -> float:
    """F of two masks (H, W), 0 outside of a box; only what is in the box, and a pixel around it, is looked at."""
    left, top, right, bottom = around
    window = np.s_[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1]
    reach = math.ceil(TOLERANCE * float(np.linalg.norm(one.shape)))
    outlines = [_outline(mask[window]) for mask in (one, other)]
    lengths = [int(np.count_nonzero(outline)) for outline in outlines]
    if 0 in lengths:
        return float(lengths[0] == lengths[1])
    near = [_near(outline, reach) for outline in outlines]
    precision = np.count_nonzero(outlines[0].astype(bool) & near[1]) / lengths[0]
    recall = np.count_nonzero(outlines[1].astype(bool) & near[0]) / lengths[1]
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _outline(mask: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """The pixels that differ from the one to the right, the one below, or the one between those, (H, W) 0 or 1."""
    if mask.size == 0:
        return np.zeros(mask.shape, np.uint8)
    pixels = np.ascontiguousarray(mask, dtype=np.uint8)
    return np.asarray(cv2.morphologyEx(pixels, cv2.MORPH_GRADIENT, _CORNER, anchor=(0, 0)), np.uint8)


def _near(outline: npt.NDArray[np.uint8], reach: int) -> npt.NDArray[np.bool_]:
    """The pixels from which an outline is at most `reach` away."""
    distance = cv2.distanceTransform(1 - outline, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance) <= reach + 1e-3  # whole numbers under the root lie farther apart
