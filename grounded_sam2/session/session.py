"""A session: one video in one folder, with the objects that people find, click, correct and follow in it."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from grounded_sam2.masks import Masks
from grounded_sam2.session.cells import GIVEN, CellStore
from grounded_sam2.session.compaction import is_wasteful, write_compacted
from grounded_sam2.session.folder import locked, read_record, write_record
from grounded_sam2.session.history import SLACK_BYTES, Draft, History
from grounded_sam2.session.objects import Command, Search, SessionObject
from grounded_sam2.track.follower import FollowedVideo, Follower, as_follower
from grounded_sam2.video import open_indexed_frames
from grounded_sam2.video.frame_source import IndexedFrameSource

if TYPE_CHECKING:
    from sam2.sam2_video_predictor import SAM2VideoPredictor

__all__ = ["Session", "open_session"]

logger = logging.getLogger(__name__)


class Session:
    """A session that is open; made by `create_session` and `open_session`, changed by the functions of this package.

    Everything that is done is on disk when the function that does it returns. There is nothing to save: the process
    may be killed at any moment. One process at a time may have a session open, and one thread at a time may use it.

    Attributes:
        folder: everything of the session; it may be moved while the session is closed.
        name: of the video, for people.
        source: the video file or folder of images, in `folder` unless it was not copied.
        frames: the video.
        history: what was done; see `grounded_sam2.session.history`.

    Raises:
        BlockingIOError: another process has the session open.
        FileNotFoundError: there is no session in the folder, or its video is gone.
        ValueError: the session is damaged, or of a newer version, or its video is another one than it was.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        follower: Follower | SAM2VideoPredictor | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._record = read_record(self.folder)
        self._lock = locked(self.folder)
        self._follower = None if follower is None else as_follower(follower)
        self._scratch: FollowedVideo | None = None
        self._next_check = 0  # size of masks.bin from which on waste is looked for
        try:
            self.name = str(self._record["name"])
            self.source = self.folder / self._record["source"]
            self.frames: IndexedFrameSource = open_indexed_frames(self.source, float(self._record["fps"]))
            self._check_folder()
            self.history = History(self.folder / self._record["history"], self.frames.size, len(self.frames))
            self.compact_when_wasteful()
        except BaseException:
            self._lock.close()
            raise

    # ---- the video and the model ----

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the frames in pixels."""
        return self.frames.size

    @property
    def num_frames(self) -> int:
        """How many frames the video has."""
        return len(self.frames)

    @property
    def follower(self) -> Follower:
        """The model that segments and follows; RuntimeError where the session was opened without one."""
        if self._follower is None:
            raise RuntimeError("this needs a model: open the session with open_session(folder, predictor)")
        return self._follower

    @property
    def scratch(self) -> FollowedVideo:
        """The video as prompts on single frames are answered on; it keeps the last frame's encoding, and no object."""
        if self._scratch is None:
            self._scratch = self.follower.open_video(self.frames)
        return self._scratch

    # ---- what is known ----

    @property
    def cells(self) -> CellStore:
        """All masks; see `grounded_sam2.session.cells`."""
        return self.history.cells

    @property
    def objects(self) -> dict[int, SessionObject]:
        """The objects that were not removed, by id, in the order of ids."""
        return {obj_id: obj for obj_id, obj in sorted(self.history.objects.items()) if not obj.is_removed}

    @property
    def search(self) -> Search:
        """What `find` looks for."""
        return self.history.search

    @property
    def unfinished(self) -> Command | None:
        """A propagation that was cancelled or killed, which `resume` can go on with; None where there is none."""
        return self.history.unfinished

    def mask(self, obj_id: int, frame_idx: int) -> Masks | None:
        """An object's mask (H, W) on a frame, empty where it is not seen; None where nothing is known.

        Raises:
            ValueError: no such object or frame.
        """
        self.object(obj_id)
        record = self.cells.at(obj_id, self.check_frame(frame_idx))
        return None if record is None else self.cells.mask(record)

    def given_frames(self, obj_id: int) -> list[int]:
        """An object's conditioning frames in order: those with a mask that a person gave, corrected or pinned."""
        return np.flatnonzero(self.cells.of_object(obj_id)["kind"] == GIVEN).tolist()

    def object(self, obj_id: int, to_change: bool = False) -> SessionObject:
        """One of `objects`.

        Args:
            obj_id: its id.
            to_change: also refuse one that is locked.

        Raises:
            ValueError: no such object, or a locked one.
        """
        obj = self.history.objects.get(obj_id)
        if obj is None or obj.is_removed:
            raise ValueError(f"expected one of the objects {list(self.objects)}, got {obj_id}")
        if to_change and obj.is_locked:
            raise ValueError(f"object {obj_id} ({obj.name}) is locked: unlock it first")
        return obj

    def check_frame(self, frame_idx: int) -> int:
        """The index of a frame as a plain number; ValueError outside the video."""
        if not 0 <= frame_idx < self.num_frames:
            raise ValueError(f"expected a frame index from 0 to {self.num_frames - 1}, got {frame_idx}")
        return int(frame_idx)

    # ---- undo and redo, closing ----

    def undo(self) -> str | None:
        """Take the last command back, exactly; returns its kind, or None where there is none (any more)."""
        command = self.history.undo()
        return None if command is None else command.kind

    def redo(self) -> str | None:
        """Do again what was undone last; returns its kind, or None."""
        command = self.history.redo()
        return None if command is None else command.kind

    @contextmanager
    def command(self, kind: str, **args: Any) -> Iterator[Draft]:
        """Give a command, see `History.command`; afterwards, give disk back where much of it is wasted."""
        with self.history.command(kind, **args) as draft:
            yield draft
        self.compact_when_wasteful()

    def compact_when_wasteful(self) -> None:
        """Give back the disk of masks that no undo or redo can reach, where that is worth it."""
        if self.cells.num_bytes < self._next_check or self.unfinished is not None:
            return
        if is_wasteful(self.history):
            try:
                self.compact()
            except OSError as error:  # the disk is too full to make room on it; what was done is done all the same
                logger.warning("%s", error)
        self._next_check = self.cells.num_bytes + SLACK_BYTES

    def compact(self) -> None:
        """Give back the disk of masks that no undo or redo can reach.

        Raises:
            OSError: no room to copy the others; all is as before.
            RuntimeError: a propagation is unfinished.
        """
        if self.unfinished is not None:
            raise RuntimeError("a propagation is unfinished: call resume(...), or give another command")
        old, folder = self.history, self.folder / f"history-{secrets.token_hex(4)}"
        folder.mkdir()
        try:
            write_compacted(old, folder)
            compacted = History(folder, self.size, self.num_frames)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        try:
            write_record(self.folder, {**self._record, "history": folder.name})
        finally:  # what the record on disk says is what holds, however that ended
            self._record = read_record(self.folder)
            is_replaced = self._record["history"] == folder.name
            self.history, unused = (compacted, old) if is_replaced else (old, compacted)
            unused.close()
            shutil.rmtree(unused.folder, ignore_errors=True)

    def close(self) -> None:
        """Let go of the video, the files and the lock. Closing twice is harmless."""
        self._scratch = None
        self.history.close()
        self.frames.close()
        self._lock.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_folder(self) -> None:
        """Make sure that the video is the one it was, and remove histories that a kill left while they took turns."""
        expected = [self._record[name] for name in ("num_frames", "width", "height")]
        found = [len(self.frames), *self.frames.size]
        if found != expected:
            described = ("{} frames of {}x{} pixels".format(*video) for video in (expected, found))
            raise ValueError("the session in {} is of a video with {}, found {}".format(self.folder, *described))
        for folder in self.folder.glob("history-*"):
            if folder.name != self._record["history"]:
                shutil.rmtree(folder, ignore_errors=True)


def open_session(
    folder: str | os.PathLike[str],
    follower: Follower | SAM2VideoPredictor | None = None,
) -> Session:
    """Open a session again, as it was left or killed.

    Args:
        folder: of the session.
        follower: the model, a `Follower` or a SAM 2 video predictor; None for what needs no model.

    Raises:
        BlockingIOError, FileNotFoundError, ValueError: as `Session`.
    """
    return Session(folder, follower)
