"""Ids put right over a span of frames: merge, split, swap; masks cleared, pinned and released.

Where masks change hands over a span, the first and the last frame on which an object is seen there become conditioning
frames of it: a later propagation cannot bring the mistake back into the span from outside.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from grounded_sam2.session.cells import GIVEN, NOTHING, TRACKED, NewCell, copied_cell, new_cell, no_cell
from grounded_sam2.session.edits import draft_object
from grounded_sam2.session.session import Session

__all__ = ["clear", "merge", "pin", "release", "split", "swap"]


def merge(session: Session, obj_id: int, other_id: int, first: int = 0, last: int | None = None) -> None:
    """Make one object of two: what the other one has in a span is added to the first one's masks.

    Args:
        session: is changed.
        obj_id: the object that stays.
        other_id: the one that loses its masks in the span, and is removed when it has none left.
        first: 0-based first frame of the span.
        last: its last frame; None: the video's.

    Raises:
        ValueError: no such objects, one object twice, a locked one, or a span outside the video.
    """
    _check_pair(session, obj_id, other_id)
    first, last = _checked_span(session, first, last)
    ours, others = session.cells.of_object(obj_id), session.cells.of_object(other_id)
    taken = [t for t in range(first, last + 1) if others[t]["kind"] != NOTHING]
    edges = _edges(np.maximum(ours["area"], others["area"]), taken)
    with session.command("merge", obj_id=obj_id, other_id=other_id, first=first, last=last) as draft:
        for t in taken:
            kind = GIVEN if t in edges else int(max(ours[t]["kind"], others[t]["kind"]))
            draft.put(_united(session, ours[t], others[t], obj_id, kind), no_cell(other_id, t))
        if (others["kind"][:first] == NOTHING).all() and (others["kind"][last + 1 :] == NOTHING).all():
            draft.objects[other_id] = replace(session.object(other_id), is_removed=True)


def split(session: Session, obj_id: int, first: int, last: int | None = None, name: str | None = None) -> int:
    """Make two objects of one: what it has in a span becomes a new object's.

    Returns:
        The id of the new object, of the same class.

    Raises:
        ValueError: as `merge`, or the object is seen on no frame of the span.
    """
    obj = session.object(obj_id, to_change=True)
    first, last = _checked_span(session, first, last)
    ours = session.cells.of_object(obj_id)
    taken = [t for t in range(first, last + 1) if ours[t]["kind"] != NOTHING]
    edges = _edges(ours["area"], taken)
    if not edges:
        raise ValueError(f"object {obj_id} is not seen on frames {first} to {last}: nothing to split off")
    with session.command("split", obj_id=obj_id, first=first, last=last) as draft:
        new = draft_object(session, draft, min(edges), obj.class_name, name, obj.confidence)
        for t in taken:
            draft.put(_handed(ours[t], new.obj_id, t in edges), no_cell(obj_id, t))
    return new.obj_id


def swap(session: Session, obj_id: int, other_id: int, first: int = 0, last: int | None = None) -> None:
    """Exchange the masks of two objects over a span; arguments and errors as `merge`."""
    _check_pair(session, obj_id, other_id)
    first, last = _checked_span(session, first, last)
    ours, others = session.cells.of_object(obj_id), session.cells.of_object(other_id)
    span = range(first, last + 1)
    our_edges, other_edges = _edges(ours["area"], span), _edges(others["area"], span)
    with session.command("swap", obj_id=obj_id, other_id=other_id, first=first, last=last) as draft:
        for t in span:
            if ours[t]["kind"] != NOTHING or others[t]["kind"] != NOTHING:
                draft.put(_handed(others[t], obj_id, t in other_edges), _handed(ours[t], other_id, t in our_edges))


def clear(session: Session, obj_id: int, first: int = 0, last: int | None = None) -> None:
    """Forget what an object has in a span, conditioning frames too; errors as `merge`."""
    session.object(obj_id, to_change=True)
    first, last = _checked_span(session, first, last)
    ours = session.cells.of_object(obj_id)
    with session.command("clear", obj_id=obj_id, first=first, last=last) as draft:
        draft.put(*(no_cell(obj_id, t) for t in range(first, last + 1) if ours[t]["kind"] != NOTHING))


def pin(session: Session, obj_id: int, frame_idx: int) -> None:
    """Say that a mask is right: its frame becomes a conditioning frame. ValueError where nothing is known."""
    _change_kind(session, "pin", obj_id, frame_idx, GIVEN)


def release(session: Session, obj_id: int, frame_idx: int) -> None:
    """Make a conditioning frame a common one, whose mask the next propagation may change; errors as `pin`."""
    _change_kind(session, "release", obj_id, frame_idx, TRACKED)


def _change_kind(session: Session, command: str, obj_id: int, frame_idx: int, kind: int) -> None:
    session.object(obj_id, to_change=True)
    record = session.cells.at(obj_id, session.check_frame(frame_idx))
    if record is None:
        raise ValueError(f"nothing is known of object {obj_id} on frame {frame_idx}")
    with session.command(command, obj_id=obj_id, frame_idx=frame_idx) as draft:
        draft.put(copied_cell(record, kind=kind))


def _united(
    session: Session, ours: npt.NDArray[np.void], others: npt.NDArray[np.void], obj_id: int, kind: int
) -> NewCell:
    """The cell of an object that takes in another one's mask on a frame."""
    if ours["area"] == 0 or others["area"] == 0:
        larger = ours if ours["area"] > 0 or others["kind"] == NOTHING else others
        return copied_cell(larger, obj_id=obj_id, kind=kind, agreement=np.nan)
    scores = tuple(float(np.fmin(ours[name], others[name])) for name in ("mask_score", "object_score"))
    mask = session.cells.mask(ours) | session.cells.mask(others)
    return new_cell(obj_id, int(ours["frame_idx"]), kind, mask, (scores[0], scores[1]))


def _handed(record: npt.NDArray[np.void], obj_id: int, is_edge: bool) -> NewCell:
    """A cell as another object's."""
    if record["kind"] == NOTHING:
        return no_cell(obj_id, int(record["frame_idx"]))
    return copied_cell(record, obj_id=obj_id, kind=GIVEN if is_edge else int(record["kind"]))


def _edges(areas: npt.NDArray[np.int32], span: range | list[int]) -> set[int]:
    """The first and the last frame of a span on which something is seen."""
    seen = [t for t in span if areas[t] > 0]
    return {seen[0], seen[-1]} if seen else set()


def _check_pair(session: Session, obj_id: int, other_id: int) -> None:
    session.object(obj_id, to_change=True)
    session.object(other_id, to_change=True)
    if obj_id == other_id:
        raise ValueError(f"expected two objects, got {obj_id} twice")


def _checked_span(session: Session, first: int, last: int | None) -> tuple[int, int]:
    last = session.num_frames - 1 if last is None else last
    if session.check_frame(first) > session.check_frame(last):
        raise ValueError(f"expected a span whose first frame is not after its last one, got {first} to {last}")
    return int(first), int(last)
