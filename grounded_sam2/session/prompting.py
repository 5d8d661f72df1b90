"""What the model answers to clicks and boxes on one frame, and the checks that all prompts go through."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from grounded_sam2.masks import Masks, points_in_mask
from grounded_sam2.session.session import Session
from grounded_sam2.track.follower import Seen

__all__ = ["Answer", "Box", "Points", "answered", "checked_mask", "checked_points", "preview", "refined"]

MOST_CLICKS = 500  # on an object of a frame: the model compares each with each, and all of them with the picture
SCRATCH_ID = 1  # of the one object that is in the scratch video while it is asked
Points: TypeAlias = npt.NDArray[np.number] | Sequence[Sequence[float]]
Box: TypeAlias = npt.NDArray[np.number] | Sequence[float]


@dataclass(frozen=True)
class Answer:
    """What the model makes of prompts on one frame.

    Attributes:
        mask: (H, W) bool.
        mask_score: predicted quality in [0, 1]; None from a model that predicts none.
        object_score: presence, above 0 for there.
    """

    mask: Masks
    mask_score: float | None
    object_score: float


def preview(
    session: Session,
    frame_idx: int,
    *,
    obj_id: int | None = None,
    box: Box | None = None,
    points: Points | None = None,
    labels: Iterable[int] | None = None,
) -> Answer:
    """What `add_object` with these prompts would give, or with an `obj_id`, `refine`; nothing is changed.

    The frame is encoded once for all prompts on it, so that this is quick enough to follow the pointer.
    """
    session.check_frame(frame_idx)
    if obj_id is not None:
        if points is None:
            raise ValueError("expected points to refine an object with")
        return refined(session, obj_id, frame_idx, *checked_points(session, points, labels))
    return answered(session, frame_idx, box, points, labels)


def answered(
    session: Session,
    frame_idx: int,
    box: Box | None,
    points: Points | None,
    labels: Iterable[int] | None,
) -> Answer:
    """What the model sees of a new object with these prompts."""
    corners = None if box is None else np.asarray(box, np.float32)
    if corners is not None and (corners.shape != (4,) or not np.isfinite(corners).all()):
        raise ValueError(f"expected a box of 4 finite numbers (xyxy), got {np.asarray(box).tolist()}")
    given, kinds = (None, None) if points is None else checked_points(session, points, labels)
    _check_number(given)
    video = session.scratch
    try:
        return _answer_of(video.add(frame_idx, SCRATCH_ID, box=corners, points=given, labels=kinds))
    finally:
        video.remove(SCRATCH_ID)


def refined(
    session: Session, obj_id: int, frame_idx: int, points: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]
) -> Answer:
    """What the model makes of an object's mask with these clicks, beside those that made it.

    Where the mask did not begin with a click on the object, one in its middle, away from the clicks beside it, is given
    with them: told no more than what was wrong, a model takes something else for the object, or a part of it, whatever
    mask it starts from.
    """
    mask, begins_with_click = session.mask(obj_id, frame_idx), False
    for earlier in _clicks_behind(session, obj_id, frame_idx):
        points = np.concatenate([np.asarray(earlier["points"], np.float32), points])
        labels = np.concatenate([np.asarray(earlier["labels"], np.int32), labels])
        begins_with_click = "obj_id" not in earlier and 1 in earlier["labels"]  # of the command that added it
    if mask is None or not mask.any():
        return answered(session, frame_idx, None, points, labels.tolist())
    if not begins_with_click:
        inside = mask.copy()
        columns, rows = np.minimum(points[labels == 0].astype(int), np.array(session.size) - 1).T
        inside[rows, columns] = False
        middle = points_in_mask(inside, 1)
        points = np.concatenate([middle, points])
        labels = np.concatenate([np.ones(len(middle), np.int32), labels])
    _check_number(points)
    video = session.scratch
    try:
        video.add(frame_idx, SCRATCH_ID, mask=mask)
        return _answer_of(video.refine(frame_idx, SCRATCH_ID, points, labels))
    finally:
        video.remove(SCRATCH_ID)


def _check_number(points: npt.NDArray[np.float32] | None) -> None:
    """ValueError for more clicks than the model is asked with."""
    if points is not None and len(points) > MOST_CLICKS:
        raise ValueError(f"expected at most {MOST_CLICKS} clicks on an object of a frame, got {len(points)}: paint it")


def _clicks_behind(session: Session, obj_id: int, frame_idx: int) -> list[dict[str, Any]]:
    """The arguments of the commands whose clicks made the mask of a cell, the newest first."""
    clicks = []
    row = session.cells.row_at(obj_id, frame_idx)
    for command in reversed(session.history.done):
        if row < command.first:
            continue
        if command.kind not in ("add", "refine") or "points" not in command.args:
            break
        clicks.append(command.args)
        row = int(session.cells.records()[row]["before"])
        if command.kind == "add":
            break
    return clicks


def _answer_of(seen: Seen) -> Answer:
    mask_score = None if seen.mask_scores is None else float(seen.mask_scores[0])
    return Answer(np.asarray(seen.masks[0], bool), mask_score, float(seen.object_scores[0]))


def checked_mask(session: Session, mask: Masks) -> Masks:
    expected = session.size[::-1]
    if np.shape(mask) != expected or np.asarray(mask).dtype != bool:
        raise ValueError(f"expected a bool mask {expected}, got {np.asarray(mask).dtype} {np.shape(mask)}")
    return cast(Masks, np.asarray(mask))


def checked_points(
    session: Session, points: Points, labels: Iterable[int] | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Points (P, 2) and labels (P,) as arrays; ValueError for other shapes, values or places outside the frame."""
    given = np.asarray(points, np.float32)
    if given.ndim != 2 or given.shape[1] != 2 or len(given) == 0:
        raise ValueError(f"expected points (P, 2) with P of at least 1, got {given.shape}")
    if not np.isfinite(given).all() or (given < 0).any() or (given > session.size).any():
        raise ValueError(f"expected points in a frame of {session.size[0]}x{session.size[1]}, got {given.tolist()}")
    kinds = np.ones(len(given), np.int32) if labels is None else np.asarray(list(labels), np.int32)
    if kinds.shape != (len(given),) or not np.isin(kinds, (0, 1)).all():
        raise ValueError(f"expected {len(given)} labels of 0 or 1, got {kinds.tolist()}")
    return given, kinds
