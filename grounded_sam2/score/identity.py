"""IDF1: whether each object has one id from its first frame to its last (Ristani et al., 2016)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from grounded_sam2.score.tracks import Tracks

__all__ = ["Identity", "identity"]


@dataclass(frozen=True)
class Identity:
    """Counts of one video and class; those of several add up.

    Attributes:
        matches: objects on frames, of the truth, on which they are with the one id that suits them best.
        missed: the other ones of the truth.
        false: the other ones of the run.
    """

    matches: int
    missed: int
    false: int

    def __add__(self, other: Identity) -> Identity:
        return Identity(self.matches + other.matches, self.missed + other.missed, self.false + other.false)

    def scores(self) -> dict[str, float | int | None]:
        """IDF1, its recall and precision, in [0, 1]; None where there is no object on either side."""
        num_true, num_found = self.matches + self.missed, self.matches + self.false
        if num_true + num_found == 0:
            return {"IDF1": None, "IDP": None, "IDR": None}
        return {
            "IDF1": 2 * self.matches / (num_true + num_found),
            "IDP": self.matches / max(num_found, 1),
            "IDR": self.matches / max(num_true, 1),
        }


def identity(tracks: Tracks, threshold: float = 0.5) -> Identity:
    """The counts of one video and class.

    Args:
        threshold: the least IoU at which an id is with an object.
    """
    together = np.zeros(tracks.shape, np.int64)
    for frame in tracks.frames:
        together[np.ix_(frame.true, frame.found)] += frame.iou >= threshold
    matches = int(together[linear_sum_assignment(-together)].sum())
    true_frames, found_frames = tracks.appearances()
    return Identity(matches, int(true_frames.sum()) - matches, int(found_frames.sum()) - matches)
