"""Objects are followed while a video is played, frame by frame, and edited on the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from grounded_sam2.session.cells import FORWARD, NOTHING, TRACKED, new_cell
from grounded_sam2.session.objects import Command
from grounded_sam2.session.plan import plan
from grounded_sam2.session.session import Session
from grounded_sam2.track.follower import FollowedVideo, Seen

__all__ = ["Player"]

Source: TypeAlias = tuple[tuple[int, int], ...]  # conditioning frames in order, each with the number of its record


class Player:
    """Follows the objects forward behind their last conditioning frames, as `propagate(..., "forward")` would.

        player = Player(session)
        while not player.step(frame_idx + 1):  # one frame of work at a time
            pass

    The masks are the same. But the state of the model is kept from one command to the next: after a click or a new
    object on the frame that is played, no other object is followed anew from its beginning. Where the state does not
    fit what is asked for (after an undo, or on an earlier frame), the objects are followed again from their last
    conditioning frames. Frames between two conditioning frames, and before the first, are left to `propagate`.

    What is written is a command of the kind "propagate"; it ends with the next command.

    Attributes:
        reached: the frame that the model is at; -1: none yet.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._video: FollowedVideo | None = None
        self._seen: Iterator[tuple[int, Seen]] = iter(())
        self._followed: dict[int, Source] = {}
        self._command: Command | None = None
        self.reached = -1

    def step(self, frame_idx: int) -> bool:
        """Follow the objects over at most one frame towards `frame_idx`.

        Returns:
            Whether the mask of every object on `frame_idx` is known now; objects that are locked do not count.

        Raises:
            ValueError: no such frame.
            OSError: a full disk; what was written so far stays.
        """
        self._session.check_frame(frame_idx)
        if not self._is_known(frame_idx):
            self._follow_towards(frame_idx)
        is_known = self._is_known(frame_idx)
        if is_known and frame_idx == self._session.num_frames - 1:
            self.finish()
        return is_known

    def finish(self) -> None:
        """End the command that is being written, so that it does not count as interrupted; what was done stays."""
        if self._is_writing():
            assert self._command is not None
            self._session.history.finish(self._command)
            self._session.compact_when_wasteful()

    @property
    def obj_ids(self) -> list[int]:
        """The objects that are followed."""
        return list(self._followed)

    def _is_known(self, frame_idx: int) -> bool:
        return not any(self._is_stale(i, source, frame_idx) for i, source in self._sources(frame_idx).items())

    def _is_stale(self, obj_id: int, source: Source, frame_idx: int) -> bool:
        """Whether an object's mask is not known, or older than what it would be followed from."""
        newest = max(row for _, row in source)
        cells = self._session.cells
        return cells.row_at(obj_id, frame_idx) < newest or cells.at(obj_id, frame_idx) is None

    def _is_stale_somewhere(self, obj_id: int, source: Source, first: int) -> bool:
        """The same of any frame from the first one on."""
        newest = max(row for _, row in source)
        rows = self._session.cells.current[obj_id][first:]
        kinds = self._session.cells.of_object(obj_id)["kind"][first:]
        return bool(((rows < newest) | (kinds == NOTHING)).any())

    def _sources(self, frame_idx: int) -> dict[int, Source]:
        """What each object that is followed onto a frame is followed from, the last one its start."""
        sources = {}
        for obj_id, obj in self._session.objects.items():
            given = [] if obj.is_locked else self._session.given_frames(obj_id)
            if given and given[-1] < frame_idx:
                [stretch] = plan(self._session, obj_id, frame_idx, frame_idx, "forward")
                sources[obj_id] = tuple((t, self._session.cells.row_at(obj_id, t)) for t in stretch.conditions)
        return sources

    def _follow_towards(self, frame_idx: int) -> None:
        sources = self._sources(frame_idx)
        for obj_id in [i for i, source in self._followed.items() if sources.get(i) != source]:
            del self._followed[obj_id]
            assert self._video is not None
            self._video.remove(obj_id)
        wanted = {
            i: source
            for i, source in sources.items()
            if i in self._followed or self._is_stale_somewhere(i, source, frame_idx)
        }
        is_late = any(source[-1][0] < self.reached for i, source in wanted.items() if i not in self._followed)
        is_new = self._video is None or not self._followed or is_late or self.reached >= frame_idx
        if is_new:
            self._video, self._followed = self._session.follower.open_video(self._session.frames), {}
            self.reached = min(source[-1][0] for source in wanted.values())
        self._admit(wanted)
        if is_new:
            assert self._video is not None
            self._seen = iter(self._video.follow(self.reached))
            next(self._seen)  # the conditioning frame itself
        self.reached, seen = next(self._seen)
        self._write(seen)

    def _admit(self, wanted: dict[int, Source]) -> None:
        """Give the model the conditioning masks of the objects that are followed from the frame that it is at."""
        assert self._video is not None
        starting = {
            i: source for i, source in wanted.items() if source[-1][0] == self.reached and i not in self._followed
        }
        # frame by frame, so that each is encoded once for all objects, and the one to go on from last
        for t in sorted({t for source in starting.values() for t, _ in source}):
            for obj_id, source in starting.items():
                if t in dict(source):
                    self._video.add(t, obj_id, mask=self._session.mask(obj_id, t))
        self._followed |= starting

    def _write(self, seen: Seen) -> None:
        """Put on disk what is seen of each object where that is not known yet."""
        history = self._session.history
        if not self._is_writing():
            last = self._session.num_frames - 1
            span = {"first": self.reached, "last": last, "direction": "forward", "obj_ids": list(self._followed)}
            self._command = history.begin("propagate", **span)
        assert self._command is not None
        cells = []
        for obj_id, source in self._followed.items():
            if self._is_stale(obj_id, source, self.reached):
                row = seen.obj_ids.index(obj_id)
                mask_score = None if seen.mask_scores is None else float(seen.mask_scores[row])
                scores = (mask_score, float(seen.object_scores[row]))
                cells.append(new_cell(obj_id, self.reached, TRACKED, seen.masks[row], scores, FORWARD))
        history.put(self._command, cells)

    def _is_writing(self) -> bool:
        """Whether the command that was begun last is still the last one."""
        return self._command is not None and self._session.unfinished is self._command
