"""Average precision as COCO and YouTube-VIS take it: of what is found, the surest first, how much is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Precision", "Ranked", "average_precision", "matched"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of the IoU of a match
RECALLS = np.linspace(0, 1, 101)
TINY = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Ranked:
    """What was found in one image, or as tracks in one video, of one class.

    Attributes:
        scores: (D,), how sure each is, falling.
        is_right: (10, D) bool, for each threshold.
        is_ignored: (10, D) bool, what is neither right nor wrong.
        num_true: objects that should be found.
    """

    scores: Floats
    is_right: Bools
    is_ignored: Bools
    num_true: int


@dataclass(frozen=True)
class Precision:
    """Average precision of one class: mean over the thresholds, and at IoU 0.5 and 0.75, in [0, 1]."""

    ap: float
    ap50: float
    ap75: float


def matched(ious: Floats, scores: Floats, is_crowd: Bools, most: int | None = None) -> Ranked:
    """Match what was found with the truth: the surest first, each with the free object that it covers best.

    Args:
        ious: (G, D) of the truth's objects and those found.
        scores: (D,).
        is_crowd: (G,) objects that need not be found; they are taken only where no other one fits.
        most: how many at most, the surest; None: all.
    """
    order = np.argsort(-scores, kind="stable")[:most]
    ious = ious[:, order]
    shape = len(THRESHOLDS), len(order)
    is_right, is_ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    is_free = np.ones((len(THRESHOLDS), len(ious)), bool)
    every = np.arange(len(THRESHOLDS))
    for column in np.flatnonzero((ious >= THRESHOLDS[0] - TINY).any(axis=0)).tolist():
        iou = ious[:, column]
        fits = is_free & (iou[None] >= THRESHOLDS[:, None] - TINY)
        worth = np.where(fits, iou[None] + ~is_crowd[None], -1.0)
        best = worth.shape[1] - 1 - worth[:, ::-1].argmax(axis=1)  # of equal ones the last
        has_match = fits[every, best]
        is_free[every[has_match], best[has_match]] = False
        is_right[:, column] = has_match & ~is_crowd[best]
        is_ignored[:, column] = has_match & is_crowd[best]
    return Ranked(scores[order], is_right, is_ignored, int((~is_crowd).sum()))


def average_precision(groups: Sequence[Ranked]) -> Precision | None:
    """Over all images, or all videos, of one class; None where there is nothing to be found."""
    num_true = sum(group.num_true for group in groups)
    if num_true == 0:
        return None
    scores = np.concatenate([group.scores for group in groups])
    order = np.argsort(-scores, kind="stable")
    is_right = np.concatenate([group.is_right for group in groups], axis=1)[:, order]
    is_ignored = np.concatenate([group.is_ignored for group in groups], axis=1)[:, order]
    right = is_right.cumsum(axis=1, dtype=np.float64)
    wrong = (~is_right & ~is_ignored).cumsum(axis=1, dtype=np.float64)
    recall = right / num_true
    precision = right / np.maximum(right + wrong, TINY)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]  # the best at that recall or a higher one
    by_threshold = np.zeros(len(THRESHOLDS))
    for row in range(len(THRESHOLDS)):
        reached = np.searchsorted(recall[row], RECALLS, side="left")
        values = precision[row, reached[reached < len(scores)]]
        by_threshold[row] = values.sum() / len(RECALLS)
    return Precision(float(by_threshold.mean()), float(by_threshold[0]), float(by_threshold[5]))
