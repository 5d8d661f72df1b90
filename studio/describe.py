"""What a session looks like as JSON: its state, its masks, its timeline and its doubts."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from grounded_sam2.session import Doubt, Session, SessionObject, states
from grounded_sam2.session.cells import GIVEN, NOTHING
from grounded_sam2.session.objects import Command

__all__ = [
    "cells_json",
    "doubt_json",
    "objects_json",
    "score_json",
    "search_json",
    "spans_of",
    "timeline_json",
    "unfinished_json",
]

MOST_MASK_FRAMES = 64

Json = dict[str, Any]


def objects_json(session: Session) -> list[Json]:
    return [_object_json(session, obj) for obj in session.objects.values()]


def _object_json(session: Session, obj: SessionObject) -> Json:
    return {
        "id": obj.obj_id,
        "name": obj.name,
        "class_name": obj.class_name,
        "color": obj.color,
        "home_frame": obj.home_frame,
        "is_hidden": obj.is_hidden,
        "is_locked": obj.is_locked,
        "confidence": round(obj.confidence, 4),
        "given": session.given_frames(obj.obj_id),
    }


def search_json(session: Session) -> Json:
    search = session.search

    def plain(threshold: float | Mapping[str, float]) -> Any:
        return dict(threshold) if isinstance(threshold, Mapping) else threshold

    return {
        "text_prompt": search.text_prompt,
        "box_threshold": plain(search.box_threshold),
        "text_threshold": plain(search.text_threshold),
    }


def unfinished_json(session: Session) -> Json | None:
    command = session.unfinished
    if command is None:
        return None
    args = command.args
    return {"first": args["first"], "last": args["last"], "direction": args["direction"], "ids": args["obj_ids"]}


def cells_json(session: Session, first: int, last: int) -> Json:
    """The masks of a span of at most `MOST_MASK_FRAMES` frames: {"frames": {"12": [cell, …], …}}.

    Raises:
        ValueError: a span outside the video, the wrong way round, or longer.
    """
    if session.check_frame(first) > session.check_frame(last):
        raise ValueError(f"expected a span whose first frame is not after its last one, got {first} to {last}")
    if last - first >= MOST_MASK_FRAMES:
        raise ValueError(f"expected at most {MOST_MASK_FRAMES} frames at a time, got {last - first + 1}")
    return {"frames": {str(t): _cells_on(session, t) for t in range(first, last + 1)}}


def _cells_on(session: Session, frame_idx: int) -> list[Json]:
    cells = []
    for obj_id in session.objects:
        record = session.cells.at(obj_id, frame_idx)
        if record is not None:
            cells.append(
                {
                    "id": obj_id,
                    "counts": session.cells.rle(record)["counts"],
                    "box": record["box"].tolist(),
                    "area": int(record["area"]),
                    "score": score_json(record["mask_score"]),
                    "presence": score_json(record["object_score"]),
                    "kind": "given" if record["kind"] == GIVEN else "tracked",
                }
            )
    return cells


def score_json(value: float | np.floating | None) -> float | None:
    """A score in few digits; None for none, and for NaN."""
    return None if value is None or not np.isfinite(value) else round(float(value), 4)


def timeline_json(session: Session, cuts: list[int]) -> Json:
    """What is known of each object on each frame, as runs; and where things were given, looked for, and cut."""
    objects = {}
    for obj_id in session.objects:
        runs = [[state, len(list(run))] for state, run in groupby(states(session, obj_id).tolist())]
        objects[str(obj_id)] = {"states": runs, "score": _percent(session.cells.of_object(obj_id))}
    accepted = {command.args["frame_idx"] for command in session.history.done if command.kind == "accept"}
    found = {obj.home_frame for obj in session.objects.values() if obj.confidence < 1}
    barriers = {str(obj_id): session.given_frames(obj_id) for obj_id in session.objects}
    return {"objects": objects, "barriers": barriers, "rounds": sorted(accepted | found), "cuts": cuts}


def _percent(records: npt.NDArray[np.void]) -> list[int]:
    """Mask scores of records in percent; -1 where there is none."""
    scores = np.where(records["kind"] == NOTHING, np.nan, records["mask_score"])
    return np.where(np.isnan(scores), -1, np.rint(100 * np.clip(np.nan_to_num(scores), 0, 1))).astype(int).tolist()


def doubt_json(doubt: Doubt) -> Json:
    return {
        "frame": doubt.frame_idx,
        "id": doubt.obj_id,
        "reason": doubt.reason,
        "doubt": round(doubt.doubt, 4),
        "first": doubt.first,
        "last": doubt.last,
    }


def spans_of(session: Session, command: Command) -> list[list[int]]:
    """The masks that a command changed, as [id, first frame, last frame] for each object."""
    stop = session.cells.num_records if command.stop is None else command.stop
    records = session.cells.records()[command.first : stop]
    spans = {}
    for obj_id in np.unique(records["obj_id"]).tolist():
        frames = records["frame_idx"][records["obj_id"] == obj_id]
        spans[obj_id] = [obj_id, int(frames.min()), int(frames.max())]
    for obj_id, (before, after) in command.objects.items():
        if before is not None and before.is_removed != after.is_removed:  # all its masks go, or come back
            spans[obj_id] = [obj_id, 0, session.num_frames - 1]
    return list(spans.values())
