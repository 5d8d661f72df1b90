"""What a person does to objects: find, add, click, paint, rename, hide, remove. Each function is one command.

All coordinates are pixels of the video, x before y. A mask that a person gives or corrects makes its frame a
conditioning frame of the object: no propagation changes it, see `grounded_sam2.session.propagation`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import supervision as sv

from grounded_sam2.detectors.base import Detector, read_search
from grounded_sam2.masks import Masks, mask_overlaps
from grounded_sam2.render import PALETTE
from grounded_sam2.session.cells import GIVEN, NewCell, new_cell
from grounded_sam2.session.history import Draft
from grounded_sam2.session.objects import Search, SessionObject
from grounded_sam2.session.prompting import Answer, Box, Points, answered, checked_mask, checked_points, refined
from grounded_sam2.session.session import Session
from grounded_sam2.track.tracking import segment_on_frame
from sam2.shown import visible

__all__ = [
    "accept", "add_object", "draft_object", "find", "hide", "lock", "paint", "recolor", "refine", "remove", "rename",
    "set_mask", "set_search",
]  # fmt: skip

MOST_BRUSHED = 5_000_000_000  # pixels of one stroke, each place of the brush counted: some seconds
KNOWN_IOU = 0.5  # of a found mask and an object's, from which the two are taken for one


# ---- by text ----


def set_search(session: Session, **changes: Any) -> Search:
    """Set what is looked for: `text_prompt`, `box_threshold`, `text_threshold`; what is not named stays.

    Raises:
        ValueError: a prompt that asks for nothing, or a threshold outside [0, 1] or of another phrase.
    """
    search = replace(session.search, **changes)
    if search.text_prompt:
        read_search(search.text_prompt, search.box_threshold, search.text_threshold)
    with session.command("search", **changes) as draft:
        draft.search = search
    return search


def find(session: Session, detector: Detector, frame_idx: int) -> sv.Detections:
    """Look for what `set_search` said on one frame. Nothing is added: a person accepts some of it, see `accept`.

    Returns:
        N ≥ 0 detections with `mask` (N, H, W), `mask_score` where the model predicts it, and `data["known_as"]` (N,)
        int64, the object whose mask on this frame is much the same; 0 for what is new.

    Raises:
        ValueError: no prompt has been set, or no such frame.
    """
    frame_idx = session.check_frame(frame_idx)
    if not session.search.text_prompt:
        raise ValueError('nothing to look for: call set_search(session, text_prompt="dog.") first')
    search = session.search
    [detections] = detector.detect(
        session.frames[frame_idx],
        search.text_prompt,
        box_threshold=search.box_threshold,
        text_threshold=search.text_threshold,
    )
    found = segment_on_frame(session.scratch, frame_idx, detections)
    known = {obj_id: mask for obj_id in session.objects if (mask := session.mask(obj_id, frame_idx)) is not None}
    found.data["known_as"] = np.zeros(len(found), np.int64)
    if known and len(found):
        ious, _ = mask_overlaps(list(np.asarray(found.mask)), list(known.values()))
        ids = np.array(list(known))[ious.argmax(axis=1)]
        found.data["known_as"] = np.where(ious.max(axis=1) >= KNOWN_IOU, ids, 0)
    return found


def accept(session: Session, frame_idx: int, found: sv.Detections) -> list[int]:
    """Make objects of what `find` found: `accept(session, 0, found[[0, 2]])` takes two of it.

    Args:
        session: is changed.
        frame_idx: the frame it was found on.
        found: N ≥ 0 detections with masks; those with an empty one are left out.

    Returns:
        The ids of the new objects.
    """
    frame_idx = session.check_frame(frame_idx)
    masks = [] if found.mask is None else [np.asarray(mask, bool) for mask in found.mask]
    kept = [row for row, mask in enumerate(masks) if mask.any()]
    if not kept:
        return []
    scores = found.data.get("mask_score")
    obj_ids = []
    with session.command("accept", frame_idx=frame_idx, text_prompt=session.search.text_prompt) as draft:
        for row in kept:
            confidence = 1.0 if found.confidence is None else float(found.confidence[row])
            class_name = str(found.data["class_name"][row])
            obj = draft_object(session, draft, frame_idx, class_name, confidence=confidence)
            mask_score = None if scores is None else float(scores[row])
            draft.put(_given(session, obj.obj_id, frame_idx, masks[row], mask_score))
            obj_ids.append(obj.obj_id)
    return obj_ids


# ---- by clicks, boxes and masks ----


def add_object(
    session: Session,
    frame_idx: int,
    *,
    box: Box | None = None,
    points: Points | None = None,
    labels: Iterable[int] | None = None,
    mask: Masks | None = None,
    class_name: str = "object",
    name: str | None = None,
) -> int:
    """Make an object of clicks, a box, both, or a mask on a frame.

    Args:
        session: is changed.
        frame_idx: 0-based.
        box: (4,) xyxy; may have points beside it.
        points: (P, 2) xy.
        labels: (P,) 1 on the object, 0 beside it; None: all are on it.
        mask: (H, W) bool, by itself.
        class_name: what kind of thing it is, for exports.
        name: what it is called; None: its class and id.

    Returns:
        The id of the new object.

    Raises:
        ValueError: neither or both of a mask and a box or points, or arrays of other shapes or odd values.
    """
    session.check_frame(frame_idx)
    if (mask is None) == (box is None and points is None):
        raise ValueError("expected either a mask, or a box or points")
    prompts: dict[str, Any] = {}
    if mask is not None:
        answer = Answer(checked_mask(session, mask), None, np.nan)
    else:
        answer = answered(session, frame_idx, box, points, labels)
        if box is not None:
            prompts["box"] = np.asarray(box, float).tolist()
        if points is not None:
            prompts["points"], prompts["labels"] = (each.tolist() for each in checked_points(session, points, labels))
    with session.command("add", frame_idx=frame_idx, **prompts) as draft:
        obj = draft_object(session, draft, frame_idx, class_name, name)
        draft.put(_given(session, obj.obj_id, frame_idx, answer.mask, answer.mask_score, answer.object_score))
    return obj.obj_id


def refine(
    session: Session, obj_id: int, frame_idx: int, points: Points, labels: Iterable[int] | None = None
) -> Answer:
    """Correct an object's mask on a frame by clicks on it and beside it.

    The model starts from the mask that is there and takes into account the clicks that made it, back to the last mask
    that was propagated or painted. Where there is no mask, it starts from the clicks alone.

    Raises:
        ValueError: no such object, a locked one, or as `add_object`.
    """
    session.object(obj_id, to_change=True)
    given, kinds = checked_points(session, points, labels)
    answer = refined(session, obj_id, session.check_frame(frame_idx), given, kinds)
    args = {"obj_id": obj_id, "frame_idx": frame_idx, "points": given.tolist(), "labels": kinds.tolist()}
    with session.command("refine", **args) as draft:
        draft.put(_given(session, obj_id, frame_idx, answer.mask, answer.mask_score, answer.object_score))
    return answer


def set_mask(session: Session, obj_id: int, frame_idx: int, mask: Masks) -> None:
    """Give an object's mask (H, W) on a frame; an empty one says that it is not there. Errors as `refine`."""
    session.object(obj_id, to_change=True)
    session.check_frame(frame_idx)
    checked = checked_mask(session, mask)
    with session.command("set_mask", obj_id=obj_id, frame_idx=frame_idx) as draft:
        draft.put(_given(session, obj_id, frame_idx, checked))


def paint(
    session: Session, obj_id: int, frame_idx: int, stroke: Points, radius: float, *, erase: bool = False
) -> Masks:
    """Add a stroke of a round brush to an object's mask on a frame, or take it away.

    Args:
        session: is changed.
        obj_id: the object.
        frame_idx: 0-based; where there is no mask, the stroke is all of it.
        stroke: (P, 2) xy, P ≥ 1, where the brush went.
        radius: of the brush in pixels, at least 0.5.
        erase: take away.

    Returns:
        The mask (H, W) as it is now.

    Raises:
        ValueError: as `refine`.
    """
    session.object(obj_id, to_change=True)
    points, _ = checked_points(session, stroke, None)
    if not 0.5 <= radius <= max(session.size):
        raise ValueError(f"expected a radius from 0.5 to {max(session.size)} pixels, got {radius}")
    if len(points) * np.minimum(2 * radius, session.size).prod() > MOST_BRUSHED:
        raise ValueError(
            f"expected a shorter stroke or a smaller brush, got {len(points)} places of a radius of {radius}"
        )
    before = session.mask(obj_id, frame_idx)
    brushed = np.zeros(session.size[::-1], np.uint8)
    path = np.rint(points * 16).astype(np.int32)  # OpenCV takes sixteenths of a pixel
    for start, end in zip(path, [*path[1:], path[-1]], strict=True):
        cv2.line(brushed, start.tolist(), end.tolist(), 1, max(1, round(2 * radius)), shift=4)
        cv2.circle(brushed, end.tolist(), round(radius * 16), 1, cv2.FILLED, shift=4)
    mask = brushed > 0
    if erase:
        mask = np.zeros_like(mask) if before is None else before & ~mask
    elif before is not None:
        mask = before | mask
    args = {"stroke": points.tolist(), "radius": radius, "erase": erase}
    with session.command("paint", obj_id=obj_id, frame_idx=frame_idx, **args) as draft:
        draft.put(_given(session, obj_id, frame_idx, mask))
    return mask


# ---- the object itself ----


def rename(session: Session, obj_id: int, name: str | None = None, class_name: str | None = None) -> None:
    """Call an object, or the kind of thing that it is, something else; None, or nothing to be seen, leaves that."""
    obj = session.object(obj_id)
    new_name, new_class = visible(name or "") or obj.name, visible(class_name or "") or obj.class_name
    _change_object(session, "rename", obj_id, name=new_name, class_name=new_class)


def recolor(session: Session, obj_id: int, color: str) -> None:
    """Draw an object in another colour, "#rrggbb"; ValueError for another notation."""
    _change_object(session, "recolor", obj_id, color=sv.Color.from_hex(color).as_hex())


def hide(session: Session, obj_id: int, is_hidden: bool = True) -> None:
    """Do not draw an object, or draw it again; it is tracked and exported all the same."""
    _change_object(session, "hide", obj_id, is_hidden=bool(is_hidden))


def lock(session: Session, obj_id: int, is_locked: bool = True) -> None:
    """Refuse every change of an object, or allow them again."""
    session.object(obj_id)
    _change_object(session, "lock", obj_id, to_change=False, is_locked=bool(is_locked))


def remove(session: Session, obj_id: int) -> None:
    """Remove an object with all its masks; only an undo brings it back."""
    _change_object(session, "remove", obj_id, is_removed=True)


def _change_object(session: Session, kind: str, obj_id: int, *, to_change: bool = True, **changes: Any) -> None:
    obj = session.object(obj_id, to_change)
    with session.command(kind, obj_id=obj_id, **changes) as draft:
        draft.objects[obj_id] = replace(obj, **changes)


# ---- parts ----


def draft_object(
    session: Session,
    draft: Draft,
    frame_idx: int,
    class_name: str,
    name: str | None = None,
    confidence: float = 1.0,
) -> SessionObject:
    """A new object in a command that is being given."""
    obj_id = max([session.history.last_obj_id, *draft.objects]) + 1
    color = PALETTE.by_idx(obj_id).as_hex()
    class_name = visible(class_name) or "object"
    name = visible(name or "") or f"{class_name} {obj_id}"
    obj = SessionObject(obj_id, name, class_name, color, int(frame_idx), confidence)
    draft.objects[obj_id] = obj
    return obj


def _given(
    session: Session,
    obj_id: int,
    frame_idx: int,
    mask: Masks,
    mask_score: float | None = None,
    object_score: float | None = None,
) -> NewCell:
    return new_cell(obj_id, frame_idx, GIVEN, checked_mask(session, mask), (mask_score, object_score))
