"""Detections as files, and back: the JSON of one image, and a video's per-frame results as JSON lines.

One annotation is the same in both:

    {"class_name": "dog", "bbox": [x1, y1, x2, y2], "segmentation": {"size": [h, w], "counts": "..."},
     "score": 0.87, "mask_score": 0.95}

`bbox` is xyxy in pixels, `segmentation` COCO's compressed run-length encoding (null without masks), `score` the
detector's confidence, `mask_score` SAM 2's predicted IoU. Where objects are tracked, `tracker_id` and `object_score`,
SAM 2's presence logit, are added. Lines of a video also carry `class_id`. Numbers are written in full, so that what is
read back is equal to what was written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import supervision as sv

from grounded_sam2.files import GrowingFile, replacing
from grounded_sam2.masks import decode_rle, encode_rle

__all__ = [
    "FrameAnnotationWriter",
    "FrameAnnotations",
    "ImageAnnotations",
    "read_caption",
    "read_frame_annotations",
    "read_json",
    "write_json",
]


# ---- annotations ----


@dataclass
class ImageAnnotations:
    """What one image or one frame of a video holds.

    Attributes:
        detections: N ≥ 0 boxes, with masks, confidence, ids and `data["class_name"]` as far as they were written.
        width: of the image, in pixels.
        height: of the image, in pixels.
        image_path: of an image; None for a frame.
        frame_idx: 0-based, of a frame; None for an image.
    """

    detections: sv.Detections
    width: int
    height: int
    image_path: str | None = None
    frame_idx: int | None = None


def _plain(value: np.generic | float | int) -> float | int | None:
    """A NumPy number as the shortest JSON number that reads back equal; None for NaN."""
    if isinstance(value, (np.integer, int)):
        return int(value)
    return None if np.isnan(value) else float(str(value))


def _annotations_of(
    detections: sv.Detections, size: tuple[int, int], with_class_id: bool = False
) -> list[dict[str, Any]]:
    """One dict for each detection, in order."""
    width, height = size
    segmentations: Sequence[dict[str, Any] | None] = [None] * len(detections)
    if detections.mask is not None and len(detections) > 0:
        masks = np.asarray(detections.mask, dtype=bool)
        if masks.shape != (len(detections), height, width):
            raise ValueError(f"masks: expected {(len(detections), height, width)}, got {masks.shape}")
        segmentations = encode_rle(masks)
    columns: dict[str, Any] = {
        "score": detections.confidence,
        "mask_score": detections.data.get("mask_score"),
        "object_score": detections.data.get("object_score"),
        "tracker_id": detections.tracker_id,
        "class_id": detections.class_id if with_class_id else None,
    }
    class_names = detections.data.get("class_name")
    annotations = []
    for position, segmentation in enumerate(segmentations):
        annotation: dict[str, Any] = {
            "class_name": None if class_names is None else str(class_names[position]),
            "bbox": [_plain(side) for side in detections.xyxy[position]],
            "segmentation": segmentation,
            "score": None,
        }
        annotation.update(
            {key: _plain(column[position]) for key, column in columns.items() if column is not None and len(column)}
        )
        annotations.append(annotation)
    return annotations


def _image_entries(detections: sv.Detections, size: tuple[int, int], with_class_id: bool = False) -> dict[str, Any]:
    return {
        "annotations": _annotations_of(detections, size, with_class_id),
        "box_format": "xyxy",
        "img_width": int(size[0]),
        "img_height": int(size[1]),
    }


def _column(annotations: list[dict[str, Any]], key: str) -> npt.NDArray[np.float32] | None:
    """The values under `key`, NaN where there is none; None when no annotation has one."""
    values = [annotation.get(key) for annotation in annotations]
    if all(value is None for value in values):
        return None
    return np.array([np.nan if value is None else value for value in values], dtype=np.float32)


def _id_column(annotations: list[dict[str, Any]], key: str) -> npt.NDArray[np.int64] | None:
    values = [annotation.get(key) for annotation in annotations]
    return None if None in values or not values else np.array(values, dtype=np.int64)


def _parsed(entry: Any, origin: str) -> ImageAnnotations:
    """The inverse of `_image_entries`, plus the path or the index."""
    try:
        if entry["box_format"] != "xyxy":
            raise ValueError(f'box_format: expected "xyxy", got {entry["box_format"]!r}')
        annotations = entry["annotations"]
        width, height = int(entry["img_width"]), int(entry["img_height"])
        detections = _detections_of(annotations, width, height) if annotations else sv.Detections.empty()
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{origin} holds no annotations in the expected format: {error!r}") from error
    return ImageAnnotations(detections, width, height, entry.get("image_path"), entry.get("frame_idx"))


def _detections_of(annotations: list[dict[str, Any]], width: int, height: int) -> sv.Detections:
    """N ≥ 1 annotations as detections; without a `class_id`, classes count in the order of first appearance."""
    class_names = [annotation["class_name"] for annotation in annotations]
    has_names = None not in class_names
    class_id = _id_column(annotations, "class_id")
    if class_id is None and has_names:
        distinct = list(dict.fromkeys(class_names))
        class_id = np.array([distinct.index(name) for name in class_names], dtype=np.int64)
    segmentations = [annotation["segmentation"] for annotation in annotations]
    mask = None if None in segmentations else decode_rle(segmentations)
    if mask is not None and mask.shape[1:] != (height, width):
        raise ValueError(f"segmentation: expected size {[height, width]}, got {list(mask.shape[1:])}")
    columns: dict[str, Any] = {
        "class_name": np.array(class_names) if has_names else None,
        "mask_score": _column(annotations, "mask_score"),
        "object_score": _column(annotations, "object_score"),
    }
    return sv.Detections(
        xyxy=np.array([annotation["bbox"] for annotation in annotations], dtype=np.float32),
        mask=mask,
        confidence=_column(annotations, "score"),
        class_id=class_id,
        tracker_id=_id_column(annotations, "tracker_id"),
        data={key: column for key, column in columns.items() if column is not None},
    )


# ---- one image ----


def write_json(
    path: str | os.PathLike[str],
    image_path: str | os.PathLike[str],
    detections: sv.Detections,
    size: tuple[int, int],
    caption: str | None = None,
) -> None:
    """Write what was found in one image; an older file is replaced in one step.

    Args:
        path: of the JSON file; missing folders are made.
        image_path: of the image, written into the file as it is.
        detections: N ≥ 0; `data["class_name"]` names the classes, `data["mask_score"]` is written where it is there.
        size: (width, height) of the image in pixels, also the size of the masks.
        caption: what the image shows, in words, written as "caption" before the rest; None writes none.

    Raises:
        ValueError: masks of another size.
        OSError: `path` cannot be written.
    """
    described = {} if caption is None else {"caption": caption}
    entry = {**described, "image_path": os.fspath(image_path), **_image_entries(detections, size)}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(entry, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> ImageAnnotations:
    """Read back a file of `write_json`.

    The format does not hold class ids: they count the class names in order of first appearance.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, or not of this format.
    """
    try:
        entry = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    return _parsed(entry, os.fspath(path))


def read_caption(path: str | os.PathLike[str]) -> str | None:
    """The caption in a file of `write_json`; None where it has none.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, or not of an image.
    """
    try:
        caption = json.loads(Path(path).read_text(encoding="utf-8")).get("caption")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not the JSON of an image: {error}") from error
    return None if caption is None else str(caption)


# ---- a video ----


class FrameAnnotationWriter:
    """Write what was found in a video, one line of JSON a frame, each on disk before the next frame is worked on.

    Lines go to `<stem>.partial<suffix>`, which takes the place of `path` when the `with` block ends well. After an
    error, Ctrl-C or a crash the partial file stays and can be read with `read_frame_annotations`; an older `path` is
    untouched.

    Args:
        path: of the file, usually `*.jsonl`; missing folders are made.
        size: (width, height) of the frames in pixels, also the size of the masks.

    Attributes:
        file: what the lines go to; an interrupted run goes on in it, see `grounded_sam2.track.resume`.

    Raises:
        OSError: `path` cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], size: tuple[int, int]) -> None:
        self.file = GrowingFile(path)
        self.path = self.file.path
        self.size = size

    @property
    def partial_path(self) -> Path:
        """Where the lines are until the video is complete."""
        return self.file.partial_path

    def write(self, frame_idx: int, detections: sv.Detections) -> None:
        """Append a frame; N = 0 writes a line with no annotations.

        Raises:
            ValueError: masks of another size.
            OSError: a full disk.
            RuntimeError: after `close`.
        """
        entry = {"frame_idx": int(frame_idx), **_image_entries(detections, self.size, with_class_id=True)}
        self.file.append(json.dumps(entry) + "\n")

    def read(self) -> FrameAnnotations:
        """What has been written so far, before the file takes its place; to be closed before that."""
        self.file.append("")
        return FrameAnnotations(self.partial_path)

    def close(self) -> None:
        """Move the finished file to `path`. Closing twice is harmless."""
        self.file.finish()

    def __enter__(self) -> FrameAnnotationWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.file.leave()


def read_frame_annotations(path: str | os.PathLike[str]) -> Iterator[ImageAnnotations]:
    """Read back a video's annotations frame by frame; one line is held at a time.

    A last line that was cut off by a crash is left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line is not of this format; the message names it.
    """
    with Path(path).open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
            except ValueError as error:
                if not line.endswith("\n"):
                    return
                raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
            yield _parsed(entry, f"{path}, line {number}")


class FrameAnnotations:
    """A video's annotations on disk, read frame by frame in any order; only where each frame's line is, is held.

    The file is open until `close`, or to the end of a `with` block.

    Args:
        path: lines that `FrameAnnotationWriter` wrote, in any order of frames.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line is not of this format; the message names it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lines: BinaryIO = self.path.open("rb")
        self._offsets: dict[int, int] = {}
        self._obj_ids: dict[int, tuple[int, ...]] = {}
        try:
            self._index()
        except BaseException:
            self._lines.close()
            raise

    def _index(self) -> None:
        offset = 0
        for number, line in enumerate(self._lines, start=1):
            if line.endswith(b"\n"):  # a crash may have cut off the last one
                try:
                    entry = json.loads(line)
                    frame_idx = int(entry["frame_idx"])
                    obj_ids = [annotation.get("tracker_id") for annotation in entry["annotations"]]
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(f"{self.path}, line {number} is no frame's annotations: {error!r}") from error
                self._offsets[frame_idx] = offset
                self._obj_ids[frame_idx] = tuple(obj_id for obj_id in obj_ids if obj_id is not None)
            offset += len(line)

    def __len__(self) -> int:
        return len(self._offsets)

    def __iter__(self) -> Iterator[int]:
        """Frame indices, in the file's order."""
        return iter(self._offsets)

    def __contains__(self, frame_idx: object) -> bool:
        return frame_idx in self._offsets

    def __getitem__(self, frame_idx: int) -> ImageAnnotations:
        """What one frame holds.

        Raises:
            KeyError: the frame is not in the file.
        """
        self._lines.seek(self._offsets[frame_idx])
        return _parsed(json.loads(self._lines.readline()), f"{self.path}, frame {frame_idx}")

    def obj_ids(self, frame_idx: int) -> tuple[int, ...]:
        """The ids of the objects on one frame, without reading their masks.

        Raises:
            KeyError: the frame is not in the file.
        """
        return self._obj_ids[frame_idx]

    def close(self) -> None:
        """Close the file."""
        self._lines.close()

    def __enter__(self) -> FrameAnnotations:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
