"""A run's annotations together with the video that they are about: its objects, and their masks frame by frame."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import supervision as sv
from pycocotools import mask as coco_mask

from grounded_sam2.export.annotations import FrameAnnotations
from grounded_sam2.files import Inputs
from grounded_sam2.masks import Masks, check_rle, decode_rle
from grounded_sam2.video import VideoFile, open_indexed_frames
from grounded_sam2.video.frame_source import IndexedFrameSource
from sam2.frames.decoding import DEFAULT_FPS
from sam2.frames.still_image import check_regular_file
from sam2.shown import is_url, shown

__all__ = ["TrackedObject", "TrackedVideo"]

_MOST_LISTED = 12  # names in a message


@dataclass
class TrackedObject:
    """One object of a video.

    Attributes:
        obj_id: its id.
        class_names: what it was taken for, in the order of first appearance.
        names: what people called it, likewise; none where nobody did.
        frames: indices of the frames on which it has a mask that is not empty, ascending.
    """

    obj_id: int
    class_names: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)

    @property
    def label(self) -> str:
        """What messages and logs call it: "#3 dog", with the name that a person gave it "#3 Rex"."""
        return f"#{self.obj_id} {(self.names or self.class_names or ['object'])[-1]}"

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """First and last frame of each span on which it has no mask, between frames on which it has one."""
        return [(a + 1, b - 1) for a, b in zip(self.frames, self.frames[1:], strict=False) if b - a > 1]


class TrackedVideo:
    """The JSON lines of a tracked video and its frames. Masks are decoded when they are asked for, and not kept.

        with TrackedVideo("outputs/parade.jsonl") as video:
            for frame_idx, image in enumerate(video.frames):
                masks = video.masks(frame_idx, video.choose("person"))

    Neither the lines nor the frames can be replaced by an output while the object lives.

    Args:
        annotations_path: lines that a tracking script or a session wrote.
        source: the video file, the folder of frames or opened frames; None: what the annotations name.

    Attributes:
        annotations: the lines.
        frames: of the video.
        objects: by id, in the order of ids.

    Raises:
        FileNotFoundError: there are no annotations, or no video.
        ValueError: the annotations are of another format, have objects without ids or masks, or are about other frames
            than the video has.
    """

    def __init__(
        self,
        annotations_path: str | os.PathLike[str],
        source: str | os.PathLike[str] | IndexedFrameSource | None = None,
    ) -> None:
        path = Path(annotations_path)
        if not path.exists():
            raise FileNotFoundError(f"no such annotations: {annotations_path}")
        check_regular_file(path, "the annotations of a video")
        self.annotations = FrameAnnotations(path)
        try:
            self.frames = self._opened(source)
            self._inputs = Inputs(path, *source_files(self.frames))
            self._check_frames()
            self.objects = self._found_objects()
        except BaseException:
            self.annotations.close()
            raise

    def _opened(self, source: str | os.PathLike[str] | IndexedFrameSource | None) -> IndexedFrameSource:
        header = self.annotations.header
        fps = DEFAULT_FPS if header is None or header.fps is None else header.fps
        if source is not None:
            return open_indexed_frames(source, fps)
        named = None if header is None else header.source
        if header is None or named is None:
            raise ValueError(f"{self.annotations.path} does not say which video it is about: name it with --video-path")
        if "LATENCY" in header.settings or is_url(named):
            raise ValueError(f"{shown(named)} was tracked as a stream: name a file of its frames with --video-path")
        if not Path(named).exists():
            raise FileNotFoundError(f"the video {shown(named)} is not there any more: name it with --video-path")
        return open_indexed_frames(named, fps)

    def _check_frames(self) -> None:
        """Make sure that there is one line for each frame, and that both have one size."""
        header, path = self.annotations.header, self.annotations.path
        if header is not None and header.size != self.frames.size:
            sizes = [f"{width}x{height}" for width, height in (header.size, self.frames.size)]
            raise ValueError(f"{path} is about frames of {sizes[0]} pixels, {self.frames.name} has {sizes[1]}")
        if sorted(self.annotations) != list(range(len(self.frames))):
            raise ValueError(
                f"{path} has lines for {len(self.annotations)} frames, {self.frames.name} has {len(self.frames)}: "
                "expected one line for each frame"
            )

    def _found_objects(self) -> dict[int, TrackedObject]:
        objects: dict[int, TrackedObject] = {}
        for frame_idx in range(len(self.frames)):
            for obj_id, annotation in self._on(frame_idx):
                obj = objects.setdefault(obj_id, TrackedObject(obj_id))
                for names, key in ((obj.class_names, "class_name"), (obj.names, "name")):
                    name = annotation.get(key)
                    if isinstance(name, str) and name not in names:
                        names.append(name)
                is_new = not obj.frames or obj.frames[-1] != frame_idx
                if is_new and coco_mask.area(annotation["segmentation"]) > 0:
                    obj.frames.append(frame_idx)
        return dict(sorted(objects.items()))

    def _on(self, frame_idx: int) -> list[tuple[int, dict[str, Any]]]:
        """The objects of a frame: id, and what its line says, with a mask that is checked and encoded.

        Raises:
            ValueError: objects without ids or masks, or masks of another size.
        """
        found = []
        for annotation in self.annotations.entry(frame_idx)["annotations"]:
            obj_id, segmentation = annotation.get("tracker_id"), annotation.get("segmentation")
            if not isinstance(obj_id, int) or segmentation is None:
                raise ValueError(
                    f"{self.annotations.path}: expected tracked objects with masks; "
                    f"frame {frame_idx} has one without {'an id' if segmentation else 'a mask'}"
                )
            try:
                check_rle(segmentation, (self.frames.height, self.frames.width))
            except ValueError as error:
                raise ValueError(f"{self.annotations.path}, frame {frame_idx}: {error}") from error
            found.append((obj_id, annotation))
        return found

    def masks(self, frame_idx: int, obj_ids: Iterable[int]) -> dict[int, Masks]:
        """The masks (H, W) bool that objects have on a frame, by id; those without one, or an empty one, are not in it.

        Raises:
            ValueError: the line is not of this format.
        """
        wanted = set(obj_ids)
        found = [(obj_id, annotation) for obj_id, annotation in self._on(frame_idx) if obj_id in wanted]
        masks: dict[int, Masks] = {}
        for obj_id, annotation in found:
            [mask] = decode_rle([annotation["segmentation"]])
            if mask.any():
                masks[obj_id] = masks[obj_id] | mask if obj_id in masks else mask
        return masks

    def detections(self, frame_idx: int, obj_ids: Iterable[int]) -> sv.Detections:
        """N ≥ 0 objects of a frame, among some, as they were written."""
        found = self.annotations[frame_idx].detections
        if found.tracker_id is None or len(found) == 0:
            return sv.Detections.empty()
        chosen = found[np.isin(found.tracker_id, list(obj_ids))]
        return chosen if isinstance(chosen, sv.Detections) else sv.Detections.empty()

    def choose(self, names: str | Sequence[str] = ()) -> list[int]:
        """The ids of the objects that are meant by names.

        Args:
            names: of classes or objects, whatever the case of letters, or ids ("3" or "#3"), in a list or with commas
                between them. An object that was ever taken for a class belongs to it. None of them: all objects.

        Raises:
            ValueError: a name that no object has; the message lists those there are.
        """
        parts = names.split(",") if isinstance(names, str) else names
        wanted = [" ".join(part.split()) for part in parts if part.strip()]
        if not wanted:
            return list(self.objects)
        chosen: set[int] = set()
        for name in wanted:
            found = [obj.obj_id for obj in self.objects.values() if _is_called(obj, name)]
            if not found:
                raise ValueError(f"no object is called {shown(name)!r}; there are {self._known_names()}")
            chosen.update(found)
        return sorted(chosen)

    def check_ids(self, obj_ids: Iterable[int]) -> None:
        """ValueError where an id is of no object."""
        unknown = [obj_id for obj_id in obj_ids if obj_id not in self.objects]
        if unknown:
            raise ValueError(f"expected some of the objects {list(self.objects)}, got {unknown[0]}")

    def _known_names(self) -> str:
        names = dict.fromkeys(name for obj in self.objects.values() for name in [*obj.class_names, *obj.names])
        known = [shown(name) for name in names] + [f"#{obj_id}" for obj_id in self.objects]
        more = f" and {len(known) - _MOST_LISTED} more" if len(known) > _MOST_LISTED else ""
        return ", ".join(known[:_MOST_LISTED]) + more if known else "no objects"

    def close(self) -> None:
        """Close the files."""
        self.annotations.close()
        self.frames.close()

    def __enter__(self) -> TrackedVideo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_called(obj: TrackedObject, name: str) -> bool:
    if name.removeprefix("#") == str(obj.obj_id):
        return True
    return name.casefold() in (" ".join(known.split()).casefold() for known in [*obj.class_names, *obj.names])


def source_files(frames: IndexedFrameSource) -> list[Path]:
    """The files that frames are read from, in order; none for arrays."""
    if isinstance(frames, VideoFile):
        return [Path(frames.location)]
    paths = [frames.image_path(frame_idx) for frame_idx in range(len(frames))]
    return [Path(path) for path in paths if path is not None]
