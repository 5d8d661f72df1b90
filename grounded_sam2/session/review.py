"""Where to look: what is known of each object on each frame, and the doubtful frames in order of doubt."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from grounded_sam2.session.cells import GIVEN, NOTHING, TRACKED
from grounded_sam2.session.session import Session

__all__ = ["Doubt", "doubts", "states"]

LOW_MASK_SCORE = 0.75  # predicted quality from which on a mask is not doubted
FAINT_PRESENCE = 3.0  # object scores nearer to zero are doubted
AREA_JUMP = 0.6  # of a mask's pixels those of the frame before, from which on the change is not doubted
OVERLAP = 0.2  # share of the smaller of two masks that lies on the other, up to which it is not doubted
AGREEMENT = 0.8  # IoU of both sides where they meet, from which on it is not doubted
VANISHING = 0.5  # doubt of the first frame on which an object is seen no more


@dataclass(frozen=True)
class Doubt:
    """A run of neighbouring frames on which an object is doubted for one reason.

    Attributes:
        frame_idx: the most doubtful frame of the run, 0-based.
        obj_id: the object.
        reason: "mask score", "presence", "area jump", "overlap", "sides disagree" or "vanishes".
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


def states(session: Session, obj_id: int) -> npt.NDArray[np.str_]:
    """What is known of an object on each frame, for a timeline.

    Returns:
        (num_frames,) of "corrected": a conditioning frame, given or corrected by a person; "seen": tracked; "hidden":
        not seen, but seen before and again later; "lost": not seen, and on one side never; "": nothing is known.

    Raises:
        ValueError: no such object.
    """
    session.object(obj_id)
    records = session.cells.of_object(obj_id)
    is_seen = records["area"] > 0
    shown = np.flatnonzero(is_seen)
    is_between = np.zeros(len(records), bool)
    if len(shown):
        is_between[shown[0] : shown[-1]] = True
    states = np.full(len(records), "", dtype="<U9")
    states[records["kind"] != NOTHING] = "lost"
    states[(records["kind"] != NOTHING) & is_between] = "hidden"
    states[is_seen] = "seen"
    states[records["kind"] == GIVEN] = "corrected"
    return states


def doubts(session: Session, obj_ids: list[int] | None = None, limit: int | None = None) -> list[Doubt]:
    """The frames that a person should look at, the most doubtful first.

    Conditioning frames are not doubted. An object is doubted where its mask's predicted quality is low, where the model
    is not sure whether it is there, where its mask is much larger or smaller than on the frame before, where it lies on
    another object's, where two propagations meet and disagree, and on the first frame on which it is seen no more.

    Args:
        session: is not changed.
        obj_ids: whom to doubt; None: all objects.
        limit: how many runs at most; None: all.
    """
    obj_ids = list(session.objects) if obj_ids is None else obj_ids
    records = {obj_id: session.cells.of_object(obj_id) for obj_id in session.objects}
    overlaps = _overlaps(session, records)
    found = []
    for obj_id in obj_ids:
        session.object(obj_id)
        by_reason = {**_doubts_of(records[obj_id]), "overlap": _rising(overlaps[obj_id], OVERLAP)}
        for reason, doubt in by_reason.items():
            found += _runs(obj_id, reason, np.where(records[obj_id]["kind"] == TRACKED, doubt, 0.0))
    found.sort(key=lambda doubt: (-doubt.doubt, doubt.frame_idx, doubt.obj_id, doubt.reason))
    return found[:limit]


def _doubts_of(records: npt.NDArray[np.void]) -> dict[str, npt.NDArray[np.float64]]:
    """Reason → doubt (num_frames,) in [0, 1] of one object by itself."""
    area = records["area"].astype(np.float64)
    is_seen = area > 0
    before = np.concatenate([[0.0], area[:-1]])
    is_continued = is_seen & (before > 0)
    ratio = np.ones(len(area))
    np.divide(np.minimum(area, before), np.maximum(area, before), out=ratio, where=is_continued)
    return {
        "mask score": np.where(is_seen, _falling(records["mask_score"], LOW_MASK_SCORE), 0.0),
        "presence": _falling(np.abs(records["object_score"]), FAINT_PRESENCE),
        "area jump": _falling(ratio, AREA_JUMP),
        "sides disagree": _falling(records["agreement"], AGREEMENT),
        "vanishes": np.where(~is_seen & (before > 0), VANISHING, 0.0),
    }


def _falling(values: npt.NDArray[np.floating], fine: float) -> npt.NDArray[np.float64]:
    """1 at zero, falling to 0 at what is fine; 0 for NaN."""
    return np.nan_to_num(np.clip(1 - values.astype(np.float64) / fine, 0, 1), nan=0.0)


def _rising(values: npt.NDArray[np.floating], fine: float) -> npt.NDArray[np.float64]:
    """0 up to what is fine, rising to 1 at one."""
    return np.clip((values.astype(np.float64) - fine) / (1 - fine), 0, 1)


def _overlaps(session: Session, records: dict[int, npt.NDArray[np.void]]) -> dict[int, npt.NDArray[np.float64]]:
    """Object id → (num_frames,) the largest share of the smaller of two masks that lies on the other one.

    Masks are read only where boxes meet, two at a time, and compared as they are encoded.
    """
    shares = {obj_id: np.zeros(session.num_frames) for obj_id in records}
    for (one, ours), (two, others) in combinations(records.items(), 2):
        low = np.maximum(ours["box"][:, :2], others["box"][:, :2])
        high = np.minimum(ours["box"][:, 2:], others["box"][:, 2:])
        is_seen = (ours["area"] > 0) & (others["area"] > 0)
        for t in np.flatnonzero(is_seen & (low < high).all(axis=1)).tolist():
            both = [session.cells.rle(ours[t]), session.cells.rle(others[t])]
            shared = float(coco_mask.area(coco_mask.merge(both, intersect=True)))
            share = shared / float(min(ours[t]["area"], others[t]["area"]))
            shares[one][t], shares[two][t] = max(shares[one][t], share), max(shares[two][t], share)
    return shares


def _runs(obj_id: int, reason: str, doubt: npt.NDArray[np.float64]) -> list[Doubt]:
    """Each run of frames with doubt, as its most doubtful frame."""
    padded = np.concatenate([[False], doubt > 0, [False]])
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    runs = []
    for first, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        worst = first + int(doubt[first:stop].argmax())
        runs.append(Doubt(worst, obj_id, reason, float(doubt[worst]), first, stop - 1))
    return runs
