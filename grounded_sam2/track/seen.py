"""What a video model sees on one frame, as NumPy arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from grounded_sam2.masks import Masks
from grounded_sam2.track.object_track import Descriptors

__all__ = ["Proposed", "Scores", "Seen"]

# Predicted quality of a mask in [0, 1], None where the model predicts none; and presence, above 0 for there.
Scores: TypeAlias = tuple[float | None, float]


@dataclass(frozen=True)
class Seen:
    """What is seen of N objects on one frame; N = 0 has the same fields.

    Attributes:
        obj_ids: N object ids.
        masks: (N, H, W) bool in the same order, without specks; empty where an object is not seen.
        object_scores: (N,) presence: above 0 where the model takes the object to be there.
        mask_scores: (N,) predicted quality of each mask in [0, 1]; None from a model that predicts none.
        descriptors: (N, C) what each object looks like, compared by cosine; None from a model that cannot say.
    """

    obj_ids: list[int]
    masks: Masks
    object_scores: npt.NDArray[np.floating]
    mask_scores: npt.NDArray[np.floating] | None = None
    descriptors: Descriptors | None = None

    def scores(self) -> dict[int, Scores]:
        """Both scores of each object, by id."""
        qualities = [None] * len(self.obj_ids) if self.mask_scores is None else self.mask_scores.tolist()
        return dict(zip(self.obj_ids, zip(qualities, self.object_scores.tolist(), strict=True), strict=True))


@dataclass(frozen=True)
class Proposed:
    """Masks for N boxes on one frame, of which no object has been made.

    Attributes:
        masks: (N, H, W) bool, without specks; empty where the model sees no object in the box.
        mask_scores: as in `Seen`.
        descriptors: as in `Seen`, and comparable with those.
    """

    masks: Masks
    mask_scores: npt.NDArray[np.floating] | None = None
    descriptors: Descriptors | None = None

    def only(self, rows: npt.NDArray[np.integer]) -> Proposed:
        """Those at some positions."""
        scores, descriptors = self.mask_scores, self.descriptors
        return Proposed(
            self.masks[rows],
            None if scores is None else scores[rows],
            None if descriptors is None else descriptors[rows],
        )
