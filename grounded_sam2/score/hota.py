"""HOTA: how well objects are detected and how well their ids hold, weighed equally (Luiten et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from grounded_sam2.score.tracks import Tracks

__all__ = ["Hota", "hota"]

Floats = npt.NDArray[np.float64]

THRESHOLDS = np.arange(0.05, 0.99, 0.05)  # of the IoU of a match; 19
TINY = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Hota:
    """Sums (19,), one for each threshold, of one video and class; those of several add up.

    Attributes:
        matches: objects of the truth that are matched, over frames.
        missed: those that are not.
        false: objects of the run that match none.
        association: Σ over matches of the share of frames, of those that either id of the pair is on, on which both are
            matched.
        recall: the same share of the frames of the true one.
        precision: the same share of the frames of the one found.
        iou: Σ of the IoU of matches.
    """

    matches: Floats
    missed: Floats
    false: Floats
    association: Floats
    recall: Floats
    precision: Floats
    iou: Floats

    def __add__(self, other: Hota) -> Hota:
        return Hota(*(own + others for own, others in zip(vars(self).values(), vars(other).values(), strict=True)))

    def scores(self) -> dict[str, float | None]:
        """Means over the thresholds, in [0, 1]; None where there is no object on either side."""
        names = ("HOTA", "DetA", "AssA", "DetRe", "DetPr", "AssRe", "AssPr", "LocA")
        if not (self.matches + self.missed + self.false).any():
            return dict.fromkeys(names)
        some = np.maximum(self.matches, 1)
        detection = self.matches / np.maximum(self.matches + self.missed + self.false, 1)
        association = self.association / some
        columns = (
            np.sqrt(detection * association),
            detection,
            association,
            self.matches / np.maximum(self.matches + self.missed, 1),
            self.matches / np.maximum(self.matches + self.false, 1),
            self.recall / some,
            self.precision / some,
            np.where(self.matches > 0, self.iou / some, 1),
        )
        return {name: float(column.mean()) for name, column in zip(names, columns, strict=True)}


def hota(tracks: Tracks) -> Hota:
    """The sums of one video and class.

    On each frame objects are paired so that the pairs' IoU, times how well their tracks fit on the whole, is largest;
    a pair is a match for every threshold up to its IoU.
    """
    true_frames, found_frames = tracks.appearances()
    both = true_frames[:, None] + found_frames[None]
    alignment = _alignment(tracks, both)
    matched = np.zeros((len(THRESHOLDS), *tracks.shape), np.int32)  # frames on which two ids are a match
    iou_sum, num_true, num_found = np.zeros(len(THRESHOLDS)), int(true_frames.sum()), int(found_frames.sum())
    for frame in tracks.frames:
        rows, columns = linear_sum_assignment(-alignment[np.ix_(frame.true, frame.found)] * frame.iou)
        ious = frame.iou[rows, columns]
        is_match = ious[None] >= THRESHOLDS[:, None] - TINY
        matched[:, frame.true[rows], frame.found[columns]] += is_match
        iou_sum += (is_match * ious).sum(axis=1)
    num = matched.sum(axis=(1, 2))
    association, recall, precision = (np.zeros(len(THRESHOLDS)) for _ in range(3))
    for row, together in enumerate(matched):  # one threshold at a time: there may be thousands of ids
        squared = together.astype(np.float64) ** 2
        association[row] = (squared / np.maximum(both - together, 1)).sum()
        recall[row] = (squared.sum(axis=1) / np.maximum(true_frames, 1)).sum()
        precision[row] = (squared.sum(axis=0) / np.maximum(found_frames, 1)).sum()
    return Hota(num.astype(np.float64), num_true - num, num_found - num, association, recall, precision, iou_sum)


def _alignment(tracks: Tracks, both: npt.NDArray[np.int64]) -> Floats:
    """(true, found): how well two tracks fit over all frames, before any object is matched.

    On a frame a pair counts its IoU over all IoU that either has with anything.
    """
    potential = np.zeros(tracks.shape)
    for frame in tracks.frames:
        iou = frame.iou
        rivals = iou.sum(axis=0)[None] + iou.sum(axis=1)[:, None] - iou
        share = np.divide(iou, rivals, out=np.zeros_like(iou), where=rivals > TINY)
        potential[np.ix_(frame.true, frame.found)] += share
    return potential / np.maximum(both - potential, TINY)
