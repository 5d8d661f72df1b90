"""How the objects of a truth and of a run overlap on one frame, as masks or as boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from grounded_sam2.score.video import FrameObjects, Rle

__all__ = ["Overlap", "box_overlap", "mask_overlap", "overlap_of"]

Floats = npt.NDArray[np.float64]
TINY = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Overlap:
    """What N objects and M others share.

    Attributes:
        shared: (N, M) area, in pixels.
        areas: (N,) of the ones.
        other_areas: (M,) of the others.
    """

    shared: Floats
    areas: Floats
    other_areas: Floats

    @property
    def iou(self) -> Floats:
        """(N, M) intersection over union, 0 where there is nothing."""
        union = self.areas[:, None] + self.other_areas[None] - self.shared
        return np.divide(self.shared, union, out=np.zeros_like(union), where=union > TINY)

    def take(self, rows: npt.NDArray[np.bool_], columns: npt.NDArray[np.bool_]) -> Overlap:
        """Some of the objects, (N,) bool, and some of the others, (M,) bool."""
        return Overlap(self.shared[rows][:, columns], self.areas[rows], self.other_areas[columns])


def overlap_of(ones: FrameObjects, others: FrameObjects, by_mask: bool) -> Overlap:
    """The overlap of the objects of two sides, of their masks or of their boxes."""
    if by_mask:
        return mask_overlap(ones.masks or [], others.masks or [])
    return box_overlap(ones.boxes, others.boxes)


def mask_overlap(ones: Sequence[Rle], others: Sequence[Rle]) -> Overlap:
    """The overlap of encoded masks of one size."""
    areas, other_areas = (
        np.asarray(coco_mask.area(list(masks)) if masks else [], np.float64) for masks in (ones, others)
    )
    if not len(areas) or not len(other_areas):
        return Overlap(np.zeros((len(areas), len(other_areas))), areas, other_areas)
    ious = np.asarray(coco_mask.iou(list(ones), list(others), [False] * len(others)))
    # what is shared is a whole number of pixels, which the ratio tells exactly
    shared = np.rint(ious * (areas[:, None] + other_areas[None]) / (1 + ious))
    return Overlap(shared, areas, other_areas)


def box_overlap(ones: Floats, others: Floats) -> Overlap:
    """The overlap of boxes (N, 4) and (M, 4) xyxy; a box of no width or height has none."""
    areas, other_areas = (np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1) for boxes in (ones, others))
    low = np.maximum(ones[:, None, :2], others[None, :, :2])
    high = np.minimum(ones[:, None, 2:], others[None, :, 2:])
    return Overlap(np.maximum(high - low, 0).prod(axis=2), areas, other_areas)
