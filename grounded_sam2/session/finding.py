"""Objects are followed through a video, and new ones are looked for on the way: every object keeps one id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import supervision as sv

from grounded_sam2.detectors.base import Detector
from grounded_sam2.session.edits import accept, find
from grounded_sam2.session.playing import Player
from grounded_sam2.session.propagation import Progress, propagate
from grounded_sam2.session.session import Session

__all__ = ["Finding", "follow_and_find"]


@dataclass(frozen=True)
class Finding(Progress):
    """One frame of work is done; `num_done` and `num_total` count frames.

    Attributes:
        new_ids: the objects that were found on it and added.
    """

    new_ids: list[int]


def follow_and_find(
    session: Session, detector: Detector, every: int, first: int = 0, last: int | None = None
) -> Iterator[Finding]:
    """Look for what `set_search` said on every n-th frame, add what is new, and follow all objects forward.

        for step in follow_and_find(session, detector, every=10):
            print(step.frame_idx, step.new_ids)

    What `find` takes for a known object is not added again. So that those are known which a person gave on later
    frames, they are tracked through the span first. Each look that adds something is a command, "accept", and so is
    what is followed from one to the next. Leaving the loop ends it; what was done stays.

    Args:
        session: is changed.
        detector: finds the phrases.
        every: frames from one look to the next, at least 1; the first look is on the first frame.
        first: 0-based first frame of the span.
        last: its last frame; None: the video's.

    Raises:
        ValueError: no prompt has been set, no such frame, a span the wrong way round, or an `every` below 1.
        RuntimeError: the session has no model; or, while it runs, another command was given.
    """
    last = session.num_frames - 1 if last is None else last
    if session.check_frame(first) > session.check_frame(last):
        raise ValueError(f"expected a span whose first frame is not after its last one, got {first} to {last}")
    if every < 1:
        raise ValueError(f"expected to look on every frame or more rarely, got every {every}")
    if not session.search.text_prompt:
        raise ValueError('nothing to look for: call set_search(session, text_prompt="dog.") first')
    _ = session.follower
    return _follow_and_find(session, detector, every, int(first), int(last))


def _follow_and_find(session: Session, detector: Detector, every: int, first: int, last: int) -> Iterator[Finding]:
    num_total = last - first + 1
    later = [i for i, obj in session.objects.items() if not obj.is_locked and _last_given(session, i) > first]
    if later:
        until = min(last, max(_last_given(session, obj_id) for obj_id in later))
        for progress in propagate(session, first, until, obj_ids=later):
            yield Finding(progress.frame_idx, progress.obj_ids, 0, num_total, [])
    player = Player(session)
    try:
        for t in range(first, last + 1):
            while not player.step(t):
                yield Finding(player.reached, player.obj_ids, t - first, num_total, [])
            new_ids = _new_on(session, detector, t) if (t - first) % every == 0 else []
            yield Finding(t, [*player.obj_ids, *new_ids], t - first + 1, num_total, new_ids)
    finally:
        player.finish()


def _last_given(session: Session, obj_id: int) -> int:
    return max(session.given_frames(obj_id), default=-1)


def _new_on(session: Session, detector: Detector, frame_idx: int) -> list[int]:
    """Add what is found on a frame and is not known; returns the new ids."""
    found = find(session, detector, frame_idx)
    new = found[np.asarray(found.data["known_as"]) == 0]
    assert isinstance(new, sv.Detections)
    return accept(session, frame_idx, new)
