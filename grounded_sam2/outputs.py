"""What a tracking script writes about a video: all its files, opened together, complete or marked partial together."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import supervision as sv

from grounded_sam2.behind import Behind
from grounded_sam2.export.annotations import FrameAnnotationWriter, VideoHeader
from grounded_sam2.export.id_maps import IdMapWriter
from grounded_sam2.export.object_masks import ObjectMaskWriter
from grounded_sam2.images import RGBImage
from grounded_sam2.owned import OutputFiles
from grounded_sam2.prompts import parse_prompt
from grounded_sam2.render import annotate, spotlight
from grounded_sam2.track.events import EventLogWriter, IdentityEvent
from grounded_sam2.video.frame_source import FrameSource
from grounded_sam2.video.video_writer import VideoWriter

__all__ = ["ObjectOutputs", "TrackingOutputs"]

logger = logging.getLogger(__name__)


class TrackingOutputs:
    """The annotated video, the annotations, the maps of ids and the event log of one run.

        files = OutputFiles(OUTPUT_DIR, "clip.mp4")
        with TrackingOutputs(files, frames, phrases, settings_of(globals())) as outputs:
            for frame_idx, image in enumerate(frames):
                objects = tracker.step(image)
                outputs.write(frame_idx, annotate(image, objects), objects, tracker.take_events())
        print(f"wrote {outputs}")

    They are `<name>.mp4`, `<name>.jsonl`, `mask_data/` with `json_data/`, and `events.jsonl`, and as long as the run
    goes on `….partial.…` beside them: see each writer. A run that ends well without any frame writes no video, and one
    that an earlier run left there goes. Maps and events say no name: where those of another video are in the folder,
    they go to the folder `<name>/` in it.

    Args:
        files: says where everything goes, and what it is called.
        frames: what the video is made from, one for one and from the first.
        phrases: what is looked for; a `class_id` is an index in it.
        settings: of the script, see `grounded_sam2.flags.settings_of`.
        with_identity: also write the maps of ids and the event log, for objects that come and go.

    Attributes:
        header: first line of the annotations.
        annotations: writer of them.
        event_log: writer of events; None without identity.

    Raises:
        OSError: something cannot be written.
    """

    def __init__(
        self,
        files: OutputFiles,
        frames: FrameSource,
        phrases: Sequence[str],
        settings: Mapping[str, Any],
        with_identity: bool = True,
    ) -> None:
        self.header = VideoHeader(frames.size, frames.name, frames.fps, tuple(phrases), settings)
        self.annotations = FrameAnnotationWriter(files.path(".jsonl"), self.header)
        self.event_log: EventLogWriter | None = None
        self._id_maps: IdMapWriter | None = None
        if with_identity:
            folder = files.folder_for("events.jsonl", "mask_data", "json_data")
            self.event_log = EventLogWriter(folder / "events.jsonl")
            self._id_maps = IdMapWriter(folder, frames.size)
        self._video = _VideoOfRun(files.path(".mp4"), frames.fps, frames.size, like=frames)
        self._files = files  # holds the folder for this run
        self._frames = frames
        self._behind = Behind()
        self._stack = ExitStack()

    def write(
        self, frame_idx: int, annotated: RGBImage, objects: sv.Detections, events: Iterable[IdentityEvent] = ()
    ) -> None:
        """Write all there is about a frame; frames come in order, from the first one.

        Args:
            frame_idx: 0-based.
            annotated: (H, W, 3) uint8 RGB, the frame with the objects drawn in.
            objects: N ≥ 0 objects of the frame.
            events: what happened to objects since the frame before.

        Raises:
            ValueError: an image or masks of another size, or objects without ids or masks.
            OSError: a full disk.
        """
        self.annotations.write(frame_idx, objects, self._frames.image_path(frame_idx))
        if self.event_log is not None:
            self.event_log.write(events)
        self.write_picture(frame_idx, annotated, objects)

    def write_picture(self, frame_idx: int, annotated: RGBImage, objects: sv.Detections) -> None:
        """Write what `write` does but for the lines, which `SavedRun.follow` writes by itself."""
        self._video.write(annotated)
        if self._id_maps is not None:
            self._id_maps.write(frame_idx, objects)

    def draw(self, frame_idx: int, image: RGBImage, objects: sv.Detections) -> None:
        """`write_picture` of a frame with its objects drawn in, in a thread of its own, up to four frames behind.

        Args:
            frame_idx: 0-based.
            image: (H, W, 3) uint8 RGB, the frame; neither it nor the objects may change any more.
            objects: N ≥ 0 objects of the frame.

        Raises:
            ValueError: as `write_picture`, of this frame or of one shortly before.
            OSError: the same.
        """
        if self._frames.seconds is None:
            self._behind.do(self._draw, frame_idx, image, objects)
        else:  # of a live source the video shows a frame when the newest one came
            self._draw(frame_idx, image, objects)

    def _draw(self, frame_idx: int, image: RGBImage, objects: sv.Detections) -> None:
        self.write_picture(frame_idx, annotate(image, objects), objects)

    def __str__(self) -> str:
        """What was written, for people: the paths with commas between them."""
        paths = [self.annotations.path]
        if self._video.num_frames > 0:
            paths.insert(0, self._video.path)
        if self.event_log is not None and self._id_maps is not None:
            paths += [self.event_log.path, self._id_maps.mask_folder, self._id_maps.json_folder]
        return ", ".join(map(str, paths))

    def __enter__(self) -> TrackingOutputs:
        for writer in (self.annotations, self.event_log, self._id_maps, self._video, self._behind):
            if writer is not None:
                self._stack.enter_context(writer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


class ObjectOutputs:
    """What is written of single objects: mask images in a folder of each, and a video of some of them.

        with ObjectOutputs(files, frames, with_masks=True, selected="owl. 3.") as of_objects:
            for frame_idx, image, objects in ...:
                of_objects.write(frame_idx, image, objects)

    They are `object_masks/<id>_<name>/<frame>.png`, see `ObjectMaskWriter`, and `<name>_selected.mp4`, and as long as
    the run goes on partial ones beside them.

    Args:
        files: says where everything goes, and what it is called.
        frames: what the objects are on, one for one and from the first.
        with_masks: write the mask images.
        selected: names and ids of the objects that the video shows, in the notation of a prompt: "owl. 3."; "" for no
            video.
        brightness: of everything else in it, in [0, 1]; 0 is black.

    Raises:
        ValueError: `selected` names nothing, or a brightness outside [0, 1].
        OSError: something cannot be written.
    """

    def __init__(
        self,
        files: OutputFiles,
        frames: FrameSource,
        with_masks: bool = True,
        selected: str = "",
        brightness: float = 0.0,
    ) -> None:
        if not 0 <= brightness <= 1:
            raise ValueError(f"expected a brightness in [0, 1] of what is not selected, got {brightness}")
        self._files = files  # holds the folder for this run
        self._brightness = brightness
        self._selected = parse_prompt(selected) if selected.strip() else []
        self._num_selected = 0  # on all frames
        self._masks: ObjectMaskWriter | None = None
        self._video: VideoWriter | None = None
        if with_masks:
            self._masks = ObjectMaskWriter(files.folder_for("object_masks") / "object_masks")
        if self._selected:
            self._video = _VideoOfRun(files.path("_selected.mp4"), frames.fps, frames.size, like=frames)
        self._stack = ExitStack()

    def write(self, frame_idx: int, image: RGBImage, objects: sv.Detections) -> None:
        """Write what there is of a frame; frames come in order, from the first one.

        Args:
            frame_idx: 0-based.
            image: (H, W, 3) uint8 RGB, the frame.
            objects: N ≥ 0 objects of the frame.

        Raises:
            ValueError: an image or masks of another size, or objects without ids, names or masks.
            OSError: a full disk.
        """
        if self._masks is not None:
            self._masks.write(frame_idx, objects)
        if self._video is not None:
            is_shown = self._is_selected(objects)
            self._num_selected += int(is_shown.sum())
            shown = objects[is_shown]
            assert isinstance(shown, sv.Detections)
            self._video.write(spotlight(image, shown, self._brightness))

    def _is_selected(self, objects: sv.Detections) -> npt.NDArray[np.bool_]:
        if len(objects) == 0:
            return np.zeros(0, dtype=bool)
        if objects.tracker_id is None or "class_name" not in objects.data:
            raise ValueError("expected detections with tracker_id and class_name")
        ids = [obj_id.removeprefix("#") for obj_id in self._selected]
        by_id = [str(obj_id) in ids for obj_id in objects.tracker_id.tolist()]
        return np.array(by_id) | np.isin(objects.data["class_name"], self._selected)

    def __str__(self) -> str:
        """What was written, for people: the paths with commas between them; "" for nothing."""
        paths = [] if self._masks is None else [self._masks.folder]
        if self._video is not None and self._video.num_frames > 0:
            paths.append(self._video.path)
        return ", ".join(map(str, paths))

    def __enter__(self) -> ObjectOutputs:
        for writer in (self._masks, self._video):
            if writer is not None:
                self._stack.enter_context(writer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if kind is None and self._video is not None and self._num_selected == 0:
            logger.warning("no object of %s was seen: %s shows none", ", ".join(self._selected), self._video.path)


class _VideoOfRun(VideoWriter):
    """A video that is not there after a run without frames, nor is one that an earlier run left."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self.num_frames == 0:
            self.leave()
            for earlier in (self.path, self.partial_path):
                earlier.unlink(missing_ok=True)
        else:
            super().__exit__(kind, error, trace)
