"""Where to look: what is known of each object on each frame, and the doubtful frames in order of doubt."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from grounded_sam2.doubts import Doubt, falling, in_order_of_doubt, object_doubts, overlap_doubt, runs_of_doubt
from grounded_sam2.session.cells import GIVEN, NOTHING, TRACKED
from grounded_sam2.session.session import Session

__all__ = ["Doubt", "doubts", "states"]

AGREEMENT = 0.8  # IoU of both sides where they meet, from which on it is not doubted


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
        by_reason = {**_doubts_of(records[obj_id]), "overlap": overlap_doubt(overlaps[obj_id])}
        for reason, doubt in by_reason.items():
            found += runs_of_doubt(obj_id, reason, np.where(records[obj_id]["kind"] == TRACKED, doubt, 0.0))
    return in_order_of_doubt(found)[:limit]


def _doubts_of(records: npt.NDArray[np.void]) -> dict[str, npt.NDArray[np.float64]]:
    """Reason → doubt (num_frames,) in [0, 1] of one object by itself."""
    return {
        **object_doubts(records["area"], records["mask_score"], records["object_score"]),
        "sides disagree": falling(records["agreement"], AGREEMENT),
    }


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
