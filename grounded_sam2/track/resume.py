"""A run that was interrupted goes on where it stopped: its state, saved beside what it has written so far."""

from __future__ import annotations

import logging
import os
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import supervision as sv

from grounded_sam2.export.annotations import FrameAnnotationWriter, read_frame_annotations
from grounded_sam2.files import GrowingFile, check_partial, check_writable, partial_of
from grounded_sam2.images import RGBImage
from grounded_sam2.script import StoppedError
from grounded_sam2.track.events import EventLogWriter, IdentityEvent
from grounded_sam2.track.reverse import ReverseTracker
from grounded_sam2.track.saved_state import read_state, write_state
from grounded_sam2.video.frame_source import FrameSource, IndexedFrameSource

__all__ = ["SavedRun"]

logger = logging.getLogger(__name__)


class Resumable(Protocol):
    """What every tracker offers."""

    def save(self) -> dict[str, Any]:
        """Everything that the next frame builds on, as tensors and plain values."""

    def restore(self, saved: dict[str, Any]) -> None:
        """Become what `save` saw."""


class StreamTracker(Resumable, Protocol):
    """What `ContinuousTracker` and `FirstSightTracker` offer: they take frames as they come."""

    @property
    def frame_idx(self) -> int:
        """0-based, of the last frame; -1 before the first."""

    def step(self, image: RGBImage) -> sv.Detections:
        """Take in the next frame; gives its objects."""

    def take_events(self) -> list[IdentityEvent]:
        """What happened to the objects since the last call."""


class HasFile(Protocol):
    """A writer of lines."""

    file: GrowingFile


class SavedRun:
    """The state of a run, saved now and then while it goes on, and whenever it is stopped between two frames.

        with SavedRun("out/clip.resume", settings_of(globals()), frames, resume=RESUME) as saved, ...:
            for frame_idx, image, objects in saved.follow(tracker, frames, annotations, event_log):
                video.write(annotate(image, objects))

    A run has one or more stages, one after another, each with what it follows and the lines that it writes. All states
    are in one file, which is replaced in one step, and removed when the `with` block ends well. Camera and live stream
    come only once: of them nothing is saved.

    Args:
        path: of the file.
        settings: those on which the results depend; see `grounded_sam2.flags.settings_of`.
        frames: what is followed.
        resume: go on with the run that `path` is of; when there is none, the run starts anew and says so.
        every: seconds from one save to the next.

    Raises:
        ValueError: `path` is damaged, or of a run with other settings or of another source; or `every` is negative.
        OSError: `path` cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        settings: Mapping[str, Any],
        frames: FrameSource,
        resume: bool = False,
        every: float = 30.0,
    ) -> None:
        if not every >= 0:  # also not NaN
            raise ValueError(f"expected SAVE_EVERY of at least 0 seconds, got {every}")
        self.path = Path(path)
        self.every = every
        self.indexed_frames = frames if isinstance(frames, IndexedFrameSource) else None
        as_text = {name: str(value) for name, value in settings.items()}
        self._run = {"settings": as_text, "source": _description(self.indexed_frames) if self.indexed_frames else {}}
        self._stages: dict[str, dict[str, Any]] = {}
        self._last_save = time.monotonic()
        self._is_over = False
        check_partial(check_writable(path))
        if resume:
            self._stages = self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        if self.indexed_frames is None:
            raise ValueError("cannot resume a camera or a live stream: expected a video file or image folder")
        if not self.path.exists():
            logger.warning("there is no %s to resume from: starting with the first frame", self.path)
            return {}
        saved = read_state(self.path) or {}
        try:
            run: dict[str, dict[str, str]] = {kind: dict(saved["run"][kind]) for kind in self._run}
            stages: dict[str, dict[str, Any]] = dict(saved["stages"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"cannot resume: {self.path} is damaged; run without --resume to start anew") from error
        for kind, current in self._run.items():
            for name, former in run[kind].items():
                if current.get(name) != former:
                    raise ValueError(
                        f"cannot resume: {self.path} is of a run with {name} {former}, this one has "
                        f"{current.get(name)}; run without --resume to start anew"
                    )
        return stages

    @contextmanager
    def stage(self, name: str, tracker: Resumable, *writers: HasFile) -> Iterator[SavedStage]:
        """A part of the run, which goes on where an interrupted one stopped.

        Args:
            name: of the stage.
            tracker: is restored when the stage had begun, and saved when it ends or is stopped between two frames.
            writers: what is written in the stage, of which nothing has been written yet; cut back likewise.

        Raises:
            ValueError: what was written is not there as it was.
        """
        stage = SavedStage(self, name, tracker, [writer.file for writer in writers])
        if name in self._stages:
            try:
                stage.restore(self._stages[name])
            except (KeyError, TypeError) as error:
                raise ValueError(
                    f"cannot resume: {self.path} is of another version of this program ({error!r}); run without "
                    "--resume to start anew"
                ) from error
        elif not self._stages:
            self.path.unlink(missing_ok=True)  # of an interrupted run, whose lines are about to be replaced
        try:
            yield stage
        except StoppedError:
            stage.save()
            raise
        stage.save()

    def follow(
        self,
        tracker: StreamTracker,
        images: Iterable[RGBImage],
        annotations: FrameAnnotationWriter,
        event_log: EventLogWriter | None = None,
    ) -> Iterator[tuple[int, RGBImage, sv.Detections]]:
        """Follow objects through a video from its first frame; what an interrupted run has found is read back.

        Args:
            tracker: newly made.
            images: all frames from the first one on.
            annotations: newly opened; gets each frame's objects.
            event_log: newly opened; gets what happened to them. None: nobody wants to know.

        Yields:
            Frame index, frame and objects.
        """
        with self.stage("forwards", tracker, annotations, *([] if event_log is None else [event_log])) as stage:
            yield from stage.follow(tracker, images, annotations, event_log)

    def follow_back(
        self,
        tracker: ReverseTracker,
        found: Iterable[tuple[int, sv.Detections]],
        annotations: FrameAnnotationWriter,
    ) -> None:
        """Follow objects back, or the rest of the way back if that was interrupted.

        Args:
            tracker: newly made.
            found: what its `run` yields.
            annotations: newly opened; gets that.
        """
        with self.stage("backwards", tracker, annotations) as stage:
            for frame_idx, objects in found:
                annotations.write(frame_idx, objects)
                stage.save_when_due()

    def give_up(self) -> None:
        """Save nothing from now on: the run ends before its last frame because that was wanted, and is complete."""
        self._is_over = True
        self._stages.clear()
        self.path.unlink(missing_ok=True)

    def put(self, name: str, state: dict[str, Any]) -> None:
        """Write one stage's state into the file, beside those of the stages before it."""
        self._stages[name] = state
        write_state(self.path, {"run": self._run, "stages": self._stages})
        self._last_save = time.monotonic()

    @property
    def can_resume(self) -> bool:
        """Whether the frames can be read a second time, and the run was not given up."""
        return self.indexed_frames is not None and not self._is_over

    @property
    def is_due(self) -> bool:
        """Whether there is something to save, and the last save is long enough ago."""
        return self.can_resume and time.monotonic() - self._last_save >= self.every

    def __enter__(self) -> SavedRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.path.unlink(missing_ok=True)
            partial_of(self.path).unlink(missing_ok=True)  # what a run that was killed while it saved has left
        elif issubclass(kind, KeyboardInterrupt) and self._stages:
            logger.warning("--resume goes on from there")


class SavedStage:
    """A stage that is going on; see `SavedRun.stage`."""

    def __init__(self, run: SavedRun, name: str, tracker: Resumable, files: list[GrowingFile]) -> None:
        self._run = run
        self._name = name
        self._tracker = tracker
        self._files = files

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a saved state."""
        for file, (num_bytes, checksum) in zip(self._files, state["files"], strict=True):
            file.go_on(num_bytes, checksum)
        self._tracker.restore(state["tracker"])

    def follow(
        self,
        tracker: StreamTracker,
        images: Iterable[RGBImage],
        annotations: FrameAnnotationWriter,
        event_log: EventLogWriter | None = None,
    ) -> Iterator[tuple[int, RGBImage, sv.Detections]]:
        """As `SavedRun.follow`, in a stage that is going on and may have done other things before."""
        frames = self._run.indexed_frames
        num_found = tracker.frame_idx + 1
        found = read_frame_annotations(annotations.partial_path) if num_found else iter(())
        for frame_idx, image in enumerate(images):
            if frame_idx < num_found:
                yield frame_idx, image, next(found).detections
                continue
            objects = tracker.step(image)
            annotations.write(frame_idx, objects, None if frames is None else frames.image_path(frame_idx))
            if event_log is not None:
                event_log.write(tracker.take_events())
            yield frame_idx, image, objects
            self.save_when_due()

    def save(self) -> None:
        """Save the state, once the lines that belong to it are sure to stay."""
        if not self._run.can_resume:
            return
        for file in self._files:
            file.sync()
        files = [(file.num_bytes, file.checksum) for file in self._files]
        self._run.put(self._name, {"tracker": self._tracker.save(), "files": files})

    def save_when_due(self) -> None:
        """Save the state unless that was done a moment ago; to be called between two frames."""
        if self._run.is_due:
            self.save()


def _description(frames: IndexedFrameSource) -> dict[str, str]:
    """What tells a video from another one, without reading all of it."""
    looked_at = [frames[frame_idx] for frame_idx in (0, len(frames) // 2, -1)]
    return {
        "frames": str(len(frames)),
        "pixels": f"{frames.width}x{frames.height}",
        "frames per second": str(frames.fps),
        "content": " ".join(f"{zlib.crc32(image.tobytes()):08x}" for image in looked_at),
    }
