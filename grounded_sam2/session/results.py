"""What a session gives away: the objects of a frame, drawn or not, and the files that every exporter reads."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import supervision as sv

from grounded_sam2.export.annotations import FrameAnnotationWriter, VideoHeader
from grounded_sam2.export.formats import FORMATS
from grounded_sam2.images import RGBImage
from grounded_sam2.masks import decode_rle
from grounded_sam2.render import annotate
from grounded_sam2.session.objects import SessionObject
from grounded_sam2.session.session import Session
from grounded_sam2.track.tracking import no_objects

__all__ = ["annotated", "class_names", "drawn", "export", "objects_on", "write_annotations"]


def class_names(session: Session) -> list[str]:
    """What kinds of things the objects are, in the order of their ids; a `class_id` is an index here."""
    return list(dict.fromkeys(obj.class_name for obj in session.objects.values()))


def objects_on(session: Session, frame_idx: int, *, with_hidden: bool = True) -> sv.Detections:
    """The objects that are seen on a frame, in the common currency.

    Returns:
        N ≥ 0 objects in the order of their ids: `mask`, `xyxy` around it, `tracker_id`, `class_id` (see `class_names`),
        `confidence`, `data` with `class_name`, `name`, `mask_score` and `object_score` (NaN where there is none).

    Raises:
        ValueError: no such frame.
    """
    seen = _seen_on(session, session.check_frame(frame_idx), with_hidden)
    if not seen:
        return no_objects(session.size)
    objects = _detections(seen, class_names(session))
    objects.mask = decode_rle([session.cells.rle(record) for _, record in seen])
    return objects


def _seen_on(session: Session, frame_idx: int, with_hidden: bool = True) -> list[tuple[SessionObject, np.void]]:
    """The objects that are seen on a frame, in the order of their ids, with their records."""
    shown = [obj for obj in session.objects.values() if with_hidden or not obj.is_hidden]
    found = [(obj, session.cells.at(obj.obj_id, frame_idx)) for obj in shown]
    return [(obj, record) for obj, record in found if record is not None and record["area"] > 0]


def _detections(seen: Sequence[tuple[SessionObject, np.void]], names: Sequence[str]) -> sv.Detections:
    """What `_seen_on` found as N ≥ 0 detections, without masks; `names` are those of the classes."""
    if not seen:
        return sv.Detections.empty()
    return sv.Detections(
        xyxy=np.array([record["box"] for _, record in seen], np.float32),
        confidence=np.array([obj.confidence for obj, _ in seen], np.float32),
        class_id=np.array([names.index(obj.class_name) for obj, _ in seen], np.int64),
        tracker_id=np.array([obj.obj_id for obj, _ in seen], np.int64),
        data={
            "class_name": np.array([obj.class_name for obj, _ in seen]),
            "name": np.array([obj.name for obj, _ in seen]),
            "mask_score": np.array([record["mask_score"] for _, record in seen], np.float32),
            "object_score": np.array([record["object_score"] for _, record in seen], np.float32),
        },
    )


def annotated(session: Session, frame_idx: int) -> RGBImage:
    """A frame (H, W, 3) RGB with the objects that are not hidden drawn in, by their names and in their colours."""
    objects = objects_on(session, frame_idx, with_hidden=False)
    colors = {obj_id: obj.color for obj_id, obj in session.objects.items()}
    return drawn(session.frames[frame_idx], objects, colors)


def drawn(image: RGBImage, objects: sv.Detections, colors: Mapping[int, str]) -> RGBImage:
    """An image (H, W, 3) RGB with objects drawn in, by their names and in their colours "#rrggbb", id → colour."""
    if objects.tracker_id is None or len(objects) == 0:
        return image
    named = sv.Detections(objects.xyxy, mask=objects.mask, data={"class_name": objects.data["name"]})
    return annotate(image, named, [colors[int(obj_id)] for obj_id in objects.tracker_id])


def write_annotations(session: Session, path: str | os.PathLike[str]) -> None:
    """Write all frames as JSON lines under a header, one frame at a time; see `grounded_sam2.export.annotations`.

    Objects that are hidden are written too, those that were removed are not.

    Raises:
        OSError: `path` cannot be written.
    """
    names = class_names(session)
    header = VideoHeader(session.size, session.name, session.frames.fps, tuple(names))
    with FrameAnnotationWriter(path, header) as writer:
        for frame_idx in range(session.num_frames):
            image_path = session.frames.image_path(frame_idx)
            name = None if image_path is None else Path(image_path).name
            seen = _seen_on(session, frame_idx)
            # masks stay encoded, as they are on disk: a long video is written in seconds
            encoded = [session.cells.rle(record) for _, record in seen]
            writer.write(frame_idx, _detections(seen, names), name, encoded)


def export(session: Session, folder: str | os.PathLike[str], formats: Sequence[str] = tuple(FORMATS)) -> list[Path]:
    """Write the annotations, and from them the formats of other programs; see `grounded_sam2.export.formats`.

    Args:
        session: is not changed.
        folder: gets `annotations.jsonl` and what each format is called.
        formats: some of `FORMATS`.

    Returns:
        What was written.

    Raises:
        ValueError: an unknown format, or one that cannot hold the objects.
        OSError: it cannot be written.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ValueError(f"expected formats of {', '.join(FORMATS)}, got {', '.join(unknown)}")
    annotations = Path(folder) / "annotations.jsonl"
    write_annotations(session, annotations)
    written = [annotations]
    for name in formats:
        write, file_name = FORMATS[name]
        write(annotations, Path(folder) / file_name)
        written.append(Path(folder) / file_name)
    return written
