"""Objects are followed from their conditioning frames through a span of the video.

**Barriers.** The conditioning frames of an object are those with a mask that a person gave, corrected or pinned. No
propagation changes them. The frames between two of them form a gap, and are tracked from both sides: forward from the
earlier one, backward from the later one. Each frame takes the side whose conditioning frame is nearer, the earlier one
where both are as near, so that every frame is tracked once; only the frame at which the sides meet is tracked by both,
and how far they agree there is noted for the review. A gap is tracked from its two conditioning frames wherever the
span begins and ends, and `direction` says nothing about it. Before its first and after its last conditioning frame an
object is tracked backward and forward, if `direction` says so.

**What a mask depends on.** The frames; the masks on the one or two conditioning frames next to it; and, that the model
knows the whole object though a correction shows half of it, the mask on the object's home frame, or where that is no
conditioning frame any more, on its earliest one. Nothing else: not other objects, not other gaps, not what was tracked
before. So a correction only concerns the gaps around it, and tracking them again gives what tracking all would, but for
the last bits of a model whose arithmetic depends on how many objects go through it together.

Each propagation opens its video anew and gives those masks as prompts, in place of a state of the model that lives as
long as the session: such a state would hold what undone commands taught it, and would differ after a kill. It costs two
more encodings for each conditioning frame, shared by the objects that have it. All objects go through the video
together, once forward and once backward.

**Interrupted.** Masks are on disk as they come. A propagation that was cancelled (its loop left) or killed goes on with
`resume`, from the state that was saved last, at most `save_every` seconds before, and what it had written is not
written again. On the same machine with the same model it ends bit for bit as if nothing had happened.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from grounded_sam2.masks import mask_iou
from grounded_sam2.session.cells import BACKWARD, FORWARD, GIVEN, TRACKED, NewCell, copied_cell, new_cell
from grounded_sam2.session.objects import Command
from grounded_sam2.session.plan import Direction, Stretch, plan
from grounded_sam2.session.session import Session
from grounded_sam2.track.follower import FollowedVideo, Seen
from grounded_sam2.track.saved_state import read_state, write_state

__all__ = ["Progress", "propagate", "resume"]

logger = logging.getLogger(__name__)

STATE_NAME = "propagation.state"


@dataclass(frozen=True)
class Progress:
    """One frame of a propagation is done.

    Attributes:
        frame_idx: 0-based.
        obj_ids: the objects whose masks on it were written; none on a frame that is only passed on the way.
        num_done: masks written so far.
        num_total: masks that will have been written at the end.
    """

    frame_idx: int
    obj_ids: list[int]
    num_done: int
    num_total: int


def propagate(
    session: Session,
    first: int = 0,
    last: int | None = None,
    direction: Direction = "both",
    obj_ids: list[int] | None = None,
    save_every: float = 30.0,
) -> Iterator[Progress]:
    """Track objects through a span; see the module for which masks come from where.

        for progress in propagate(session, 0, 99):
            print(progress.frame_idx, f"{progress.num_done} of {progress.num_total}")

    It is one command. Leaving the loop cancels it, and keeps every frame that was done.

    Args:
        session: is changed.
        first: 0-based first frame of the span.
        last: its last frame; None: the video's.
        direction: where an object is tracked that has a conditioning frame on one side only.
        obj_ids: which objects; None: all that are not locked. All others stay as they are, bit for bit.
        save_every: seconds from one saved state, which `resume` goes on from, to the next.

    Raises:
        ValueError: no such object, frame or direction, or a locked object.
        RuntimeError: the session has no model; or, while it runs, another command was given.
    """
    last = session.num_frames - 1 if last is None else last
    if session.check_frame(first) > session.check_frame(last):
        raise ValueError(f"expected a span whose first frame is not after its last one, got {first} to {last}")
    if direction not in get_args(Direction):
        raise ValueError(f"expected a direction of {', '.join(get_args(Direction))}, got {direction!r}")
    if obj_ids is None:
        obj_ids = [obj_id for obj_id, obj in session.objects.items() if not obj.is_locked]
    for obj_id in obj_ids:
        session.object(obj_id, to_change=True)
    _ = session.follower
    args = {"first": int(first), "last": int(last), "direction": direction, "obj_ids": list(dict.fromkeys(obj_ids))}
    return _run(session, session.history.begin("propagate", **args), save_every)


def resume(session: Session, save_every: float = 30.0) -> Iterator[Progress]:
    """Go on with the propagation that was cancelled or killed; see `propagate`.

    Raises:
        RuntimeError: there is none: see `Session.unfinished`.
    """
    if session.unfinished is None:
        raise RuntimeError("no propagation was interrupted, or another command was given since: call propagate(...)")
    _ = session.follower
    return _run(session, session.unfinished, save_every)


def _run(session: Session, command: Command, save_every: float) -> Iterator[Progress]:
    """Do what is not done yet of a propagation."""
    args = command.args
    first, last = args["first"], args["last"]
    stretches = [s for obj_id in args["obj_ids"] for s in plan(session, obj_id, first, last, args["direction"])]
    if command is not session.unfinished:
        raise RuntimeError("another command was given since: call propagate(...) again")
    done = _done(session, command, stretches)
    num_total = sum(_num_frames(stretch, first, last) for stretch in stretches)
    num_done = sum(int(marks.sum()) for marks in done.values())
    saver = _Saver(session, command, save_every)
    for side in (FORWARD, BACKWARD):
        of_side = [stretch for stretch in stretches if stretch.side == side and saver.side <= side]
        for frame_idx, tracked, seen in _follow(session, side, of_side, saver):
            cells = []
            for obj_id, stretch in tracked.items():
                if first <= frame_idx <= last and not done[obj_id, side][frame_idx]:
                    done[obj_id, side][frame_idx] = True
                    cells.append(_seen_cell(session, stretch, frame_idx, seen, seen.obj_ids.index(obj_id)))
            session.history.put(command, cells)
            num_done += len(cells)
            yield Progress(frame_idx, [int(cell.record["obj_id"]) for cell in cells], num_done, num_total)
    session.history.finish(command)
    saver.remove()
    session.compact_when_wasteful()


def _num_frames(stretch: Stretch, first: int, last: int) -> int:
    """How many frames of a span a stretch writes."""
    step = 1 if stretch.side == FORWARD else -1
    ends = sorted((stretch.start + step, stretch.stop))
    return max(0, min(ends[1], last) - max(ends[0], first) + 1)


def _done(session: Session, command: Command, stretches: list[Stretch]) -> dict[tuple[int, int], npt.NDArray[np.bool_]]:
    """Object id and side → (num_frames,) whether the command has written that already."""
    done = {(stretch.obj_id, stretch.side): np.zeros(session.num_frames, bool) for stretch in stretches}
    records = session.cells.records()[command.first :]
    for (obj_id, side), marks in done.items():
        marks[records["frame_idx"][(records["obj_id"] == obj_id) & (records["side"] == side)]] = True
    return done


def _seen_cell(session: Session, stretch: Stretch, frame_idx: int, seen: Seen, row: int) -> NewCell:
    """What a stretch writes about a frame; where the sides meet, the other side's mask with how far they agree."""
    mask = np.asarray(seen.masks[row], bool)
    if frame_idx == stretch.seam and (other := session.cells.at(stretch.obj_id, frame_idx)) is not None:
        return copied_cell(other, side=stretch.side, agreement=mask_iou(mask, session.cells.mask(other)))
    mask_score = None if seen.mask_scores is None else float(seen.mask_scores[row])
    scores = (mask_score, float(seen.object_scores[row]))
    return new_cell(stretch.obj_id, frame_idx, TRACKED, mask, scores, stretch.side)


# ---- one direction ----


def _follow(
    session: Session, side: int, stretches: list[Stretch], saver: _Saver
) -> Iterator[tuple[int, dict[int, Stretch], Seen]]:
    """Go through the video in one direction, each object followed where its stretches are.

    Yields:
        Frame index, the stretches that reach the frame, by object, and what is seen. The conditioning frame itself is
        not among a stretch's frames.
    """
    step = 1 if side == FORWARD else -1
    waiting = sorted(stretches, key=lambda stretch: (stretch.start * step, stretch.obj_id))
    followed: dict[int, Stretch] = {}
    video, reached = saver.restored(side)
    if reached is not None:
        passed = [stretch for stretch in waiting if stretch.start * step <= reached * step]
        followed = {stretch.obj_id: stretch for stretch in passed if stretch.stop * step > reached * step}
        waiting = waiting[len(passed) :]
    while waiting or followed:
        start = waiting[0].start if reached is None else reached
        reached = None
        video = video or session.follower.open_video(session.frames)
        _admit(session, video, start, waiting, followed)
        for frame_idx, seen in video.follow(start, reverse=side == BACKWARD):
            yield frame_idx, {i: stretch for i, stretch in followed.items() if stretch.start != frame_idx}, seen
            for obj_id in [i for i, stretch in followed.items() if stretch.stop == frame_idx]:
                video.remove(obj_id)
                del followed[obj_id]
            _admit(session, video, frame_idx, waiting, followed)
            if not followed:
                break
            saver.save_when_due(side, frame_idx, video)


def _admit(
    session: Session, video: FollowedVideo, frame_idx: int, waiting: list[Stretch], followed: dict[int, Stretch]
) -> None:
    """Give the model the conditioning masks of the stretches that start on a frame."""
    starting = []
    while waiting and waiting[0].start == frame_idx:
        starting.append(waiting.pop(0))
        followed[starting[-1].obj_id] = starting[-1]
    # frame by frame, so that each is encoded once for all objects, and the one to go on from last
    frames = sorted({t for stretch in starting for t in stretch.conditions}, key=lambda t: (t == frame_idx, t))
    for t in frames:
        for stretch in starting:
            record = session.cells.at(stretch.obj_id, t)
            if t in stretch.conditions and record is not None:
                assert record["kind"] == GIVEN
                video.add(t, stretch.obj_id, mask=session.cells.mask(record))


class _Saver:
    """The state of a propagation on disk, from which a kill lets it go on; a damaged one counts as not there.

    Attributes:
        side: the direction in which it was saved; of one before, all is done.
    """

    def __init__(self, session: Session, command: Command, every: float) -> None:
        self._session = session
        self._path: Path = session.folder / STATE_NAME
        self._seq = command.seq
        self._every = every
        self._last_save = time.monotonic()
        self._saved = self._read()
        self.side = FORWARD if self._saved is None else int(self._saved["side"])

    def save_when_due(self, side: int, frame_idx: int, video: FollowedVideo) -> None:
        """Save what the frames after this one build on, unless that was done a moment ago."""
        if time.monotonic() - self._last_save < self._every:
            return
        self._session.cells.sync()
        write_state(self._path, {"seq": self._seq, "side": side, "frame_idx": frame_idx, "video": video.save()})
        self._last_save = time.monotonic()

    def restored(self, side: int) -> tuple[FollowedVideo | None, int | None]:
        """The video as it was saved in this direction, and the frame that was reached; None and None for no such."""
        if self._saved is None or self._saved["side"] != side:
            return None, None
        saved, self._saved = self._saved, None
        try:
            video = self._session.follower.load_video(saved["video"], self._session.frames)
        except (KeyError, TypeError, ValueError) as error:  # of another model
            logger.warning("the propagation goes on from its beginning: %s", error)
            return None, None
        return video, int(saved["frame_idx"])

    def remove(self) -> None:
        """Remove the state of a propagation that is complete."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any] | None:
        saved = read_state(self._path) if self._path.exists() else None
        return saved if saved is not None and saved["seq"] == self._seq else None
