"""J and F of two masks: the overlap of their regions, and how near their outlines are (DAVIS; Perazzi et al., 2016)."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from grounded_sam2.masks import Corners, Masks, corners_of, decode_window
from grounded_sam2.score.video import Rle

__all__ = ["boundary_f", "encoded_boundary_f"]

TOLERANCE = 0.008  # of the diagonal of a frame: how far an outline may be off, rounded up to whole pixels
_CORNER = np.ones((2, 2), np.uint8)


def boundary_f(one: Masks, other: Masks) -> float:
    """F: harmonic mean of the shares of either outline that the other is near to, of two (H, W) bool masks.

    A mask that is empty, or the whole frame, has no outline: F of two such is 1, and of one such and another 0.
    """
    left, top, right, bottom = _widened(corners_of(one | other), (one.shape[1], one.shape[0]))
    reach = _reach((one.shape[1], one.shape[0]))
    return _outlines_f(_outline(one[top:bottom, left:right]), _outline(other[top:bottom, left:right]), reach)


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
    window = _widened((left, top, right, bottom), size)
    outlines = [_outline(decode_window(mask, window)) for mask in some]
    return _outlines_f(outlines[0], outlines[1], _reach(size))


def _widened(box: Corners, size: tuple[int, int]) -> Corners:
    """A box and a pixel around it, as far as the frame (width, height) goes: outside are no outlines of masks in it."""
    left, top, right, bottom = box
    return max(left - 1, 0), max(top - 1, 0), min(right + 1, size[0]), min(bottom + 1, size[1])


def _reach(size: tuple[int, int]) -> int:
    return math.ceil(TOLERANCE * float(np.linalg.norm(size)))


def _outlines_f(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8], reach: int) -> float:
    lengths = [int(np.count_nonzero(outline)) for outline in (one, other)]
    if 0 in lengths:
        return float(lengths[0] == lengths[1])
    precision, recall = _num_near(one, other, reach) / lengths[0], _num_near(other, one, reach) / lengths[1]
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _outline(mask: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """The pixels that differ from the one to the right, the one below, or the one between those, (H, W) 0 or 1."""
    if mask.size == 0:
        return np.zeros(mask.shape, np.uint8)
    pixels = np.ascontiguousarray(mask, dtype=np.uint8)
    return np.asarray(cv2.morphologyEx(pixels, cv2.MORPH_GRADIENT, _CORNER, anchor=(0, 0)), np.uint8)


def _num_near(outline: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8], reach: int) -> int:
    """How many pixels of an outline are at most `reach` away from another one."""
    half = int(reach / math.sqrt(2))  # of a square that is within reach as a whole; often that settles it
    is_far = (outline > 0) & (cv2.dilate(other, np.ones((2 * half + 1,) * 2, np.uint8)) == 0)
    num_far = int(np.count_nonzero(is_far))
    if num_far:
        distance = np.asarray(cv2.distanceTransform(1 - other, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
        num_far = int(np.count_nonzero(distance[is_far] > reach + 1e-3))  # roots of whole numbers lie farther apart
    return int(np.count_nonzero(outline)) - num_far
