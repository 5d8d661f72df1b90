"""What of a run does not count on a frame, because the truth says that nobody knows, or that it is beside the point."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask
from scipy.optimize import linear_sum_assignment

from grounded_sam2.masks import decode_rle, encode_rle
from grounded_sam2.score.overlap import mask_overlap, overlap_of
from grounded_sam2.score.video import COUNTS, DISTRACTOR, REGION, FrameObjects, Rle

__all__ = ["counted"]

MATCH = 0.5  # IoU from which on an object of a run is that of the truth
INSIDE = 0.5  # share of an object above which it lies in a region
TINY = float(np.finfo(np.float64).eps)


def counted(true: FrameObjects, found: FrameObjects, by_mask: bool) -> tuple[FrameObjects, FrameObjects]:
    """The objects of a frame that count: of the truth, and of a run.

    Void pixels are taken from the run's masks. Where the truth has distractors, all its objects are matched with the
    run's, and what matches a distractor goes. Where it has regions, what matches no object and lies in them goes.
    """
    if true.void is not None and by_mask:
        found = _without_pixels(found, true.void)
    is_region = true.roles == REGION
    objects, regions = true.take(~is_region), true.take(is_region)
    if (objects.roles == DISTRACTOR).any() and len(found):
        partner = _partners(objects, found, by_mask)
        on_distractor = np.append(objects.roles == DISTRACTOR, False)[partner]  # -1, nobody, is the last
        found = found.take(~on_distractor)
    objects = objects.take(objects.roles == COUNTS)
    if len(regions) and len(found) and by_mask:
        region: Any = coco_mask.merge(list(regions.masks or []), intersect=False)
        overlap = mask_overlap(found.masks or [], [region])
        inside = overlap.shared[:, 0] / overlap.areas > INSIDE + TINY
        found = found.take(~inside | (_partners(objects, found, by_mask) >= 0))
    return objects, found


def _partners(true: FrameObjects, found: FrameObjects, by_mask: bool) -> npt.NDArray[np.int64]:
    """(M,) the position of the true object that each one found is matched with, -1 for none."""
    iou = overlap_of(true, found, by_mask).iou
    worth = np.where(iou >= MATCH - TINY, iou, 0.0)
    rows, columns = linear_sum_assignment(-worth)
    is_match = worth[rows, columns] > TINY
    partner = np.full(len(found), -1)
    partner[columns[is_match]] = rows[is_match]
    return partner


def _without_pixels(objects: FrameObjects, void: Rle) -> FrameObjects:
    masks = list(objects.masks or [])
    touched = np.flatnonzero(mask_overlap(masks, [void]).shared[:, 0] > 0).tolist()
    if not touched:
        return objects
    [gone] = decode_rle([void])
    left = encode_rle(decode_rle([masks[row] for row in touched]) & ~gone)
    for row, mask in zip(touched, left, strict=True):
        masks[row] = mask
    return replace(objects, masks=masks).take(coco_mask.area(masks) > 0)
