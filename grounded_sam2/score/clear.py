"""CLEAR: what was missed, false, switched and broken off (Bernardin and Stiefelhagen, 2008)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from grounded_sam2.score.tracks import Tracks

__all__ = ["Clear", "clear"]

TINY = float(np.finfo(np.float64).eps)
KEPT = 1000.0  # what a pair of the frame before is worth beside a better IoU
MOSTLY, HARDLY = 0.8, 0.2  # shares of an object's frames on which it is matched
NOBODY = -1


@dataclass(frozen=True)
class Clear:
    """Counts of one video and class; those of several add up.

    Attributes:
        matches: objects of the truth that are matched, over frames.
        missed: those that are not.
        false: objects of the run that match none.
        switches: matches with another id than the object was matched with last.
        fragments: how often an object is matched again after frames of its own on which it is not.
        mostly_tracked: objects that are matched on more than 0.8 of their frames.
        partly_tracked: on less, but on 0.2 at least.
        mostly_lost: the others.
        iou: Σ of the IoU of matches.
    """

    matches: int
    missed: int
    false: int
    switches: int
    fragments: int
    mostly_tracked: int
    partly_tracked: int
    mostly_lost: int
    iou: float

    def __add__(self, other: Clear) -> Clear:
        return Clear(*(own + others for own, others in zip(vars(self).values(), vars(other).values(), strict=True)))

    def scores(self) -> dict[str, float | int | None]:
        """MOTA up to 1, and below 0 where more is wrong than there is; None where nothing is there to be matched."""
        num_true = self.matches + self.missed
        return {
            "MOTA": (self.matches - self.false - self.switches) / num_true if num_true else None,
            "MOTP": self.iou / self.matches if self.matches else None,
            "matches": self.matches,
            "missed": self.missed,
            "false": self.false,
            "IDSW": self.switches,
            "Frag": self.fragments,
            "MT": self.mostly_tracked,
            "PT": self.partly_tracked,
            "ML": self.mostly_lost,
        }


def clear(tracks: Tracks, threshold: float = 0.5) -> Clear:
    """The counts of one video and class.

    On each frame pairs of the frame before are kept where their IoU still suffices, and the others paired so that IoU
    is largest.

    Args:
        threshold: the least IoU of a match.
    """
    num_true = tracks.shape[0]
    last = np.full(num_true, NOBODY)  # whom each object was matched with last
    previous = np.full(num_true, NOBODY)  # the same, only of the frame before
    begun, matched = np.zeros(num_true, np.int64), np.zeros(num_true, np.int64)
    switches, iou_sum = 0, 0.0
    for frame in tracks.frames:
        if not len(frame.true) or not len(frame.found):
            continue
        is_kept = previous[frame.true][:, None] == frame.found[None]
        worth = np.where(frame.iou < threshold - TINY, 0.0, KEPT * is_kept + frame.iou)
        rows, columns = linear_sum_assignment(-worth)
        is_match = worth[rows, columns] > TINY
        rows, columns = rows[is_match], columns[is_match]
        true, found = frame.true[rows], frame.found[columns]
        switches += int(((last[true] != NOBODY) & (last[true] != found)).sum())
        begun[true] += previous[true] == NOBODY
        matched[true] += 1
        last[true] = found
        previous[:] = NOBODY
        previous[true] = found
        iou_sum += float(frame.iou[rows, columns].sum())
    true_frames, found_frames = tracks.appearances()
    ratio = matched / np.maximum(true_frames, 1)
    mostly, at_least_partly = int((ratio > MOSTLY).sum()), int((ratio >= HARDLY).sum())
    matches = int(matched.sum())
    return Clear(
        matches=matches,
        missed=int(true_frames.sum()) - matches,
        false=int(found_frames.sum()) - matches,
        switches=switches,
        fragments=int(np.maximum(begun - 1, 0).sum()),
        mostly_tracked=mostly,
        partly_tracked=at_least_partly - mostly,
        mostly_lost=num_true - at_least_partly,
        iou=iou_sum,
    )
