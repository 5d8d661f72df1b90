"""The doubtful frames of a run for which there is no truth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from grounded_sam2.doubts import Doubt, in_order_of_doubt, object_doubts, overlap_doubt, runs_of_doubt
from grounded_sam2.score.overlap import overlap_of
from grounded_sam2.score.video import NOBODY, FrameObjects, Video, frames_of
from grounded_sam2.track.events import EventKind, IdentityEvent

__all__ = ["doubtful_frames", "event_doubts"]

SAME = 0.5  # IoU with where another object has just been, from which on a new id is doubted
RETURNING = 0.5  # doubt of the first frame on which an object is seen again
# of what happens to objects, that which may be a mistake, and its doubt
EVENT_DOUBTS: dict[EventKind, float] = {"merged": 0.8, "exchanged": 0.7, "found again": 0.5, "lost": 0.4}

Floats = npt.NDArray[np.float64]


def doubtful_frames(run: Video, events: Iterable[IdentityEvent] = (), by_mask: bool | None = None) -> list[Doubt]:
    """The frames of a run that a person should look at, the most doubtful first.

    Doubted is an object of which the mask or its presence is unsure, one that grows or shrinks at a stroke, that lies
    on another one, that vanishes or returns, and whose new id begins where another one has just ended. Frames are read
    one after another; a few numbers are held for each object and frame.

    Args:
        events: of the run's log, which may be doubtful too; see `grounded_sam2.track.events`.
        by_mask: whether masks are looked at, or boxes; None: masks where there are some.

    Raises:
        ValueError: a file is damaged.
        OSError: it cannot be read.
    """
    by_mask, num_frames = run.has_masks if by_mask is None else by_mask, len(run.frame_indices)
    columns: dict[int, Floats] = {}  # id → area, mask score, object score, overlap, and taking over, by frame
    before = NOBODY
    for position, objects in enumerate(frames_of(run, run.frame_indices, by_mask)):
        overlap = overlap_of(objects, objects, by_mask)
        smaller = np.minimum(overlap.areas[:, None], overlap.areas[None])
        shares = np.divide(overlap.shared, smaller, out=np.zeros_like(smaller), where=smaller > 0)
        np.fill_diagonal(shares, 0)
        taken = _taken_over(before, objects, by_mask)
        for row, obj_id in enumerate(objects.ids.tolist()):
            is_new = obj_id not in columns
            column = columns.setdefault(obj_id, _nothing(num_frames))
            column[:, position] = (
                overlap.areas[row],
                objects.mask_scores[row],
                objects.object_scores[row],
                shares[row].max(initial=0),
                taken[row] if is_new else 0,
            )
        before = objects
    doubts = []
    for obj_id, (area, mask_score, object_score, share, taken) in columns.items():
        by_reason = {
            **object_doubts(area, mask_score, object_score),
            "overlap": overlap_doubt(share),
            "returns": _returning(area),
            "id changes": taken,
        }
        for reason, doubt in by_reason.items():
            doubts += runs_of_doubt(obj_id, reason, doubt)
    indices = run.frame_indices
    named = [
        replace(doubt, frame_idx=indices[doubt.frame_idx], first=indices[doubt.first], last=indices[doubt.last])
        for doubt in doubts
    ]
    return in_order_of_doubt(named + event_doubts(events))


def event_doubts(events: Iterable[IdentityEvent]) -> list[Doubt]:
    """What happened to objects, where it may be a mistake; the reason is the event's."""
    return [
        Doubt(event.frame_idx, event.obj_id, f"{event.kind}: {event.reason}", doubt, event.frame_idx, event.frame_idx)
        for event in events
        if (doubt := EVENT_DOUBTS.get(event.kind)) is not None
    ]


def _nothing(num_frames: int) -> Floats:
    return np.stack([np.zeros(num_frames), *np.full((2, num_frames), np.nan), *np.zeros((2, num_frames))])


def _returning(area: Floats) -> Floats:
    """(T,) the doubt of a first frame after an absence."""
    is_seen = area > 0
    begins = is_seen & ~np.concatenate([[False], is_seen[:-1]])
    begins[np.flatnonzero(begins)[:1]] = False  # the very first time
    return np.where(begins, RETURNING, 0.0)


def _taken_over(before: FrameObjects, objects: FrameObjects, by_mask: bool) -> Floats:
    """(N,) the IoU of each object with one that was there on the frame before and is no more."""
    ended = before.take(~np.isin(before.ids, objects.ids))
    if not len(ended) or not len(objects):
        return np.zeros(len(objects))
    iou = overlap_of(objects, ended, by_mask).iou.max(axis=1)
    return np.where(iou >= SAME, iou, 0.0)
