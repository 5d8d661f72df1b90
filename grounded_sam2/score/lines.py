"""Our own JSON lines as a video to be scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from grounded_sam2.export.annotations import FrameAnnotations, ImageAnnotations
from grounded_sam2.export.coco_yolo import FIRST_CATEGORY
from grounded_sam2.score.video import NOBODY, FrameObjects, Video

__all__ = ["read_lines"]


def read_lines(path: Path) -> Video:
    """A file of `FrameAnnotationWriter`; a frame's line is read when it is its turn.

    Whether there are masks and classes is taken from the first frame with objects.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another format; from `frames` also objects without ids.
    """
    with FrameAnnotations(path) as lines:
        indices = tuple(sorted(lines))
        if lines.header is None and not indices:
            raise ValueError(f"{path} holds no annotations of a video")
        some = next((frame for frame in map(lines.encoded, indices) if len(frame.detections)), None)
        header = lines.header
        size = header.size if header is not None else _size(lines.encoded(indices[0]))
    has_masks = some is None or "segmentation" in some.detections.data
    has_names = some is None or "class_name" in some.detections.data
    has_numbers = some is None or some.detections.class_id is not None

    def frames(wanted: Sequence[int]) -> Iterator[FrameObjects]:
        with FrameAnnotations(path) as lines:
            for frame_idx in wanted:
                if frame_idx not in lines:
                    yield NOBODY
                    continue
                frame = lines.encoded(frame_idx)
                if _size(frame) != size:
                    raise ValueError(f"{path}: frame {frame_idx} is {_size(frame)}, expected {size} as before")
                yield _objects(frame, f"{path}, frame {frame_idx}")

    return Video(str(path), size, indices, True, has_masks, has_names, has_numbers, frames)


def _size(frame: ImageAnnotations) -> tuple[int, int]:
    return frame.width, frame.height


def _objects(frame: ImageAnnotations, origin: str) -> FrameObjects:
    detections = frame.detections
    if len(detections) == 0:
        return NOBODY
    if detections.tracker_id is None:
        raise ValueError(f"{origin}: expected objects with a tracker_id")
    masks = detections.data.get("segmentation")
    names = detections.data.get("class_name")
    return FrameObjects.of(
        detections.tracker_id,
        boxes=detections.xyxy,
        masks=None if masks is None else list(masks),
        scores=detections.confidence,
        names=None if names is None else [str(name) for name in names],
        numbers=None if detections.class_id is None else detections.class_id + FIRST_CATEGORY,
        mask_scores=detections.data.get("mask_score"),
        object_scores=detections.data.get("object_score"),
    )
