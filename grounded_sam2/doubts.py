"""Where to look: rules for which frames of an object are doubtful, shared by sessions and by runs without a truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Doubt", "falling", "in_order_of_doubt", "object_doubts", "overlap_doubt", "runs_of_doubt"]

LOW_MASK_SCORE = 0.75  # predicted quality from which on a mask is not doubted
FAINT_PRESENCE = 3.0  # object scores nearer to zero are doubted
AREA_JUMP = 0.6  # of a mask's pixels those of the frame before, from which on the change is not doubted
OVERLAP = 0.2  # share of the smaller of two masks that lies on the other, up to which it is not doubted
VANISHING = 0.5  # doubt of the first frame on which an object is seen no more

Doubts = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Doubt:
    """A run of neighbouring frames on which an object is doubted for one reason.

    Attributes:
        frame_idx: the most doubtful frame of the run, 0-based.
        obj_id: the object.
        reason: "mask score", "presence", "area jump", "overlap", "vanishes", or one of those that whoever doubts adds.
        doubt: on that frame, in (0, 1].
        first: the run's first frame.
        last: its last frame.
    """

    frame_idx: int
    obj_id: int
    reason: str
    doubt: float
    first: int
    last: int


def object_doubts(
    area: npt.NDArray[np.number], mask_score: npt.NDArray[np.floating], object_score: npt.NDArray[np.floating]
) -> dict[str, Doubts]:
    """Reason → doubt (T,) in [0, 1] of one object by itself on T frames.

    Args:
        area: (T,) pixels, 0 where the object is not seen.
        mask_score: (T,) predicted quality in [0, 1]; NaN, which is not doubted, where there is none.
        object_score: (T,) presence, above 0 for there; NaN likewise.
    """
    area = area.astype(np.float64)
    is_seen = area > 0
    before = np.concatenate([[0.0], area[:-1]]) if len(area) else area
    ratio = np.ones(len(area))
    np.divide(np.minimum(area, before), np.maximum(area, before), out=ratio, where=is_seen & (before > 0))
    return {
        "mask score": np.where(is_seen, falling(mask_score, LOW_MASK_SCORE), 0.0),
        "presence": falling(np.abs(object_score), FAINT_PRESENCE),
        "area jump": falling(ratio, AREA_JUMP),
        "vanishes": np.where(~is_seen & (before > 0), VANISHING, 0.0),
    }


def overlap_doubt(share: npt.NDArray[np.floating]) -> Doubts:
    """Doubt (T,) from the largest share of the smaller of two masks that lies on the other one, (T,)."""
    return np.clip((share.astype(np.float64) - OVERLAP) / (1 - OVERLAP), 0, 1)


def falling(values: npt.NDArray[np.floating], fine: float) -> Doubts:
    """1 at zero, falling to 0 at what is fine; 0 for NaN."""
    return np.nan_to_num(np.clip(1 - values.astype(np.float64) / fine, 0, 1), nan=0.0)


def runs_of_doubt(obj_id: int, reason: str, doubt: Doubts) -> list[Doubt]:
    """Each run of frames with doubt, as its most doubtful frame; frames are positions in `doubt` (T,)."""
    padded = np.concatenate([[False], doubt > 0, [False]])
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    runs = []
    for first, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        worst = first + int(doubt[first:stop].argmax())
        runs.append(Doubt(worst, obj_id, reason, float(doubt[worst]), first, stop - 1))
    return runs


def in_order_of_doubt(doubts: list[Doubt]) -> list[Doubt]:
    """The most doubtful first; equal ones in the order of their frames."""
    return sorted(doubts, key=lambda doubt: (-doubt.doubt, doubt.frame_idx, doubt.obj_id, doubt.reason))
