"""Detections as files, and back: the JSON of one image, and a video's per-frame results as JSON lines.

One annotation is the same in both:

    {"class_name": "dog", "bbox": [x1, y1, x2, y2], "segmentation": {"size": [h, w], "counts": "..."},
     "score": 0.87, "mask_score": 0.95}

`bbox` is xyxy in pixels, `segmentation` COCO's compressed run-length encoding (null without masks), `score` the
detector's confidence, `mask_score` SAM 2's predicted IoU. Where objects are tracked, `tracker_id` and `object_score`,
SAM 2's presence logit, are added, and `name` where a person gave an object one. Lines of a video also carry `class_id`.
Numbers are written in full, so that what is read back is equal to what was written.

The first line of a video is its header, which says what the other lines are about; files without one are read too:

    {"format_version": 1, "source": "assets/parade.mp4", "fps": 25, "img_width": 640, "img_height": 360,
     "phrases": ["owl", "motorcycle"], "settings": {"BOX_THRESHOLD": 0.35}}
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import supervision as sv

from grounded_sam2 import plain_json
from grounded_sam2.files import GrowingFile, replacing
from grounded_sam2.masks import check_rle, decode_rle, encode_rle
from grounded_sam2.plain_json import LARGEST_WHOLE, check_box, check_number, check_size, check_text, check_whole
from sam2.shown import without_secrets

__all__ = [
    "FrameAnnotationWriter",
    "FrameAnnotations",
    "ImageAnnotations",
    "VideoHeader",
    "read_caption",
    "read_frame_annotations",
    "read_header",
    "read_json",
    "write_json",
]

FORMAT_VERSION = 1  # of a video's lines; the highest that is read
# The largest numbers that are read; exports make lists of so many.
LARGEST_FRAME_IDX = 10**7
LARGEST_CLASS_ID = 10**5


# ---- annotations ----


@dataclass
class ImageAnnotations:
    """What one image or one frame of a video holds.

    Attributes:
        detections: N ≥ 0 boxes, with masks, confidence, ids and `data["class_name"]` as far as they were written.
        width: of the image, in pixels.
        height: of the image, in pixels.
        image_path: of an image, or of a frame that is one; None for other frames.
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
    detections: sv.Detections,
    size: tuple[int, int],
    with_class_id: bool = False,
    encoded: Sequence[dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """One dict for each detection, in order; masks come from `encoded` where it is given."""
    width, height = size
    segmentations: Sequence[dict[str, Any] | None] = [None] * len(detections) if encoded is None else encoded
    if len(segmentations) != len(detections):
        raise ValueError(f"encoded: expected {len(detections)} masks, got {len(segmentations)}")
    if encoded is None and detections.mask is not None and len(detections) > 0:
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
    class_names, names = detections.data.get("class_name"), detections.data.get("name")
    annotations = []
    for position, segmentation in enumerate(segmentations):
        annotation: dict[str, Any] = {
            "class_name": None if class_names is None else str(class_names[position]),
            **({} if names is None else {"name": str(names[position])}),
            "bbox": [_plain(side) for side in detections.xyxy[position]],
            "segmentation": segmentation,
            "score": None,
        }
        annotation.update(
            {key: _plain(column[position]) for key, column in columns.items() if column is not None and len(column)}
        )
        annotations.append(annotation)
    return annotations


def _image_entries(
    detections: sv.Detections,
    size: tuple[int, int],
    with_class_id: bool = False,
    encoded: Sequence[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    return {
        "annotations": _annotations_of(detections, size, with_class_id, encoded),
        "box_format": "xyxy",
        "img_width": int(size[0]),
        "img_height": int(size[1]),
    }


def _column(annotations: list[dict[str, Any]], key: str) -> npt.NDArray[np.float32] | None:
    """The values under `key`, NaN where there is none; None when no annotation has one."""
    values = [annotation.get(key) for annotation in annotations]
    if all(value is None for value in values):
        return None
    numbers = [np.nan if value is None else check_number(value, key) for value in values]
    return np.array(numbers, dtype=np.float32)


def _id_column(annotations: list[dict[str, Any]], key: str) -> npt.NDArray[np.int64] | None:
    values = [annotation.get(key) for annotation in annotations]
    if None in values or not values:
        return None
    largest = LARGEST_CLASS_ID if key == "class_id" else LARGEST_WHOLE
    return np.array([check_whole(value, key, least=-1, largest=largest) for value in values], dtype=np.int64)


def _parsed(entry: Any, origin: str, is_decoded: bool = True) -> ImageAnnotations:
    """The inverse of `_image_entries`, plus the path or the index; see `FrameAnnotations.encoded`."""
    try:
        if entry["box_format"] != "xyxy":
            raise ValueError(f'box_format: expected "xyxy", got {entry["box_format"]!r}')
        annotations = entry["annotations"]
        width, height = check_size(entry)
        if not isinstance(annotations, list):
            raise TypeError(f"annotations: expected a list, got {type(annotations).__name__}")
        frame_idx = entry.get("frame_idx")
        if frame_idx is not None:
            check_whole(frame_idx, "frame_idx", largest=LARGEST_FRAME_IDX)
        detections = _detections_of(annotations, width, height, is_decoded) if annotations else sv.Detections.empty()
        image_path = entry.get("image_path")
        named = None if image_path is None else check_text(image_path, "image_path")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{origin} holds no annotations in the expected format: {error!r}") from error
    return ImageAnnotations(detections, width, height, named, frame_idx)


def _detections_of(
    annotations: list[dict[str, Any]], width: int, height: int, is_decoded: bool = True
) -> sv.Detections:
    """N ≥ 1 annotations as detections; without a `class_id`, classes count in the order of first appearance."""
    class_names = [annotation["class_name"] for annotation in annotations]
    names = [annotation.get("name") for annotation in annotations]
    for key, texts in (("class_name", class_names), ("name", names)):
        for text in texts:
            if text is not None:
                check_text(text, key)
    has_names = None not in class_names
    class_id = _id_column(annotations, "class_id")
    if class_id is None and has_names:
        distinct = list(dict.fromkeys(class_names))
        class_id = np.array([distinct.index(name) for name in class_names], dtype=np.int64)
    segmentations = [annotation["segmentation"] for annotation in annotations]
    has_masks = None not in segmentations
    if has_masks and not is_decoded:
        for segmentation in segmentations:
            check_rle(segmentation, (height, width))
    mask = decode_rle(segmentations, (height, width)) if has_masks and is_decoded else None
    columns: dict[str, Any] = {
        "segmentation": np.array(segmentations, dtype=object) if has_masks and not is_decoded else None,
        "class_name": np.array(class_names) if has_names else None,
        "name": None if None in names else np.array(names),
        "mask_score": _column(annotations, "mask_score"),
        "object_score": _column(annotations, "object_score"),
    }
    return sv.Detections(
        xyxy=np.array([check_box(annotation["bbox"]) for annotation in annotations], dtype=np.float32),
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
        caption: what the image shows, in words, written as "caption" before the rest; None: no caption.

    Raises:
        ValueError: masks of another size.
        OSError: `path` cannot be written.
    """
    described = {} if caption is None else {"caption": caption}
    entry = {**described, "image_path": without_secrets(os.fspath(image_path)), **_image_entries(detections, size)}
    text = json.dumps(entry, indent=2, ensure_ascii=False) + "\n"
    with replacing(path) as temporary:
        # a byte of a file name that is no UTF-8 becomes the escape "\udc80" to "\udcff", which reads back as it
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_json(path: str | os.PathLike[str]) -> ImageAnnotations:
    """Read back a file of `write_json`.

    The format does not hold class ids: they count the class names in order of first appearance.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, or not of this format.
    """
    try:
        entry = plain_json.loads(Path(path).read_text(encoding="utf-8"))
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
        caption = plain_json.loads(Path(path).read_text(encoding="utf-8")).get("caption")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not the JSON of an image: {error}") from error
    return None if caption is None else str(caption)


# ---- a video ----


@dataclass(frozen=True)
class VideoHeader:
    """What a video's annotations are about: the first line of the file.

    Attributes:
        size: (width, height) of the frames in pixels.
        source: what the frames came from, as `FrameSource.name`; None where that is unknown.
        fps: frames per second, exact; None where that is unknown.
        phrases: what was looked for; an annotation's `class_id` is an index in it.
        settings: of the script, name → value; see `grounded_sam2.flags.settings_of`.
    """

    size: tuple[int, int]
    source: str | None = None
    fps: Fraction | None = None
    phrases: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_line(self) -> str:
        """The header as a line of JSON; inverse of `from_entry`."""
        entry = {
            "format_version": FORMAT_VERSION,
            "source": self.source,
            "fps": None if self.fps is None else _plain_fps(self.fps),
            "img_width": int(self.size[0]),
            "img_height": int(self.size[1]),
            "phrases": list(self.phrases),
            "settings": dict(self.settings),
        }
        return json.dumps(entry, default=str) + "\n"

    @classmethod
    def from_entry(cls, entry: Any, origin: str) -> VideoHeader:
        """Read the header from its JSON; inverse of `to_line`.

        Args:
            origin: file and line, with which an error begins.

        Raises:
            ValueError: it is of a newer version, or not of this format.
        """
        try:
            if check_whole(entry["format_version"], "format_version") > FORMAT_VERSION:
                raise ValueError(f"format_version: expected at most {FORMAT_VERSION}, got {entry['format_version']}")
            fps = entry["fps"]
            if fps is not None and check_number(fps, "fps") <= 0:
                raise ValueError(f"fps: expected more than 0, got {fps}")
            if not isinstance(entry["phrases"], list):
                raise TypeError(f"phrases: expected a list, got {type(entry['phrases']).__name__}")
            return cls(
                size=check_size(entry),
                source=None if entry["source"] is None else check_text(entry["source"], "source"),
                fps=None if fps is None else Fraction(fps).limit_denominator(65535),
                phrases=tuple(check_text(phrase, "phrases") for phrase in entry["phrases"]),
                settings=dict(entry["settings"]),
            )
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:  # the last: of an fps that is no number
            raise ValueError(f"{origin} holds no header in the expected format: {error!r}") from error


def _plain_fps(fps: Fraction) -> float:
    """As JSON: 25, or 29.97002997002997, of which `Fraction.limit_denominator` makes 30000/1001 again."""
    return fps.numerator if fps.denominator == 1 else float(fps)


def _is_header(entry: Any) -> bool:
    return isinstance(entry, dict) and "format_version" in entry


def read_header(path: str | os.PathLike[str]) -> VideoHeader | None:
    """The header of a video's annotations; None where the file has none, as those of older versions.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the first line is not JSON, or a header of a newer version.
    """
    with Path(path).open("rb") as lines:
        line = lines.readline()
    try:
        entry = plain_json.loads(line) if line.endswith(b"\n") else None
    except ValueError as error:
        raise ValueError(f"{path}, line 1 is not JSON: {error}") from error
    return VideoHeader.from_entry(entry, f"{path}, line 1") if _is_header(entry) else None


class FrameAnnotationWriter:
    """Write what was found in a video: a header, and one line of JSON a frame, on disk before the next one is begun.

    Lines go to `<stem>.partial<suffix>`, which takes the place of `path` when the `with` block ends well. After an
    error, Ctrl-C or a crash the partial file stays and can be read with `read_frame_annotations`; an older `path` is
    untouched.

    Args:
        path: of the file, usually `*.jsonl`; missing folders are made.
        video: what the first line says, or only (width, height) of the frames in pixels, and there is no such line.

    Attributes:
        size: (width, height) of the frames in pixels, also the size of the masks.
        file: what the lines go to; an interrupted run goes on in it, see `grounded_sam2.track.resume`.

    Raises:
        OSError: `path` cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], video: VideoHeader | tuple[int, int]) -> None:
        self.file = GrowingFile(path)
        self.path = self.file.path
        self.size = video.size if isinstance(video, VideoHeader) else video
        self._header_line = video.to_line() if isinstance(video, VideoHeader) else ""

    @property
    def partial_path(self) -> Path:
        """Where the lines are until the video is complete."""
        return self.file.partial_path

    def write(
        self,
        frame_idx: int,
        detections: sv.Detections,
        image_path: str | None = None,
        encoded: Sequence[dict[str, Any]] | None = None,
    ) -> None:
        """Append a frame; N = 0 writes a line with no annotations.

        Args:
            frame_idx: 0-based.
            detections: N ≥ 0.
            image_path: of a frame that is an image in a file; None for others.
            encoded: N masks as `encode_rle` gives them, which are written instead of those of `detections`.

        Raises:
            ValueError: masks of another size.
            OSError: a full disk.
            RuntimeError: after `close`.
        """
        named = {} if image_path is None else {"image_path": image_path}
        found = _image_entries(detections, self.size, with_class_id=True, encoded=encoded)
        entry = {"frame_idx": int(frame_idx), **named, **found}
        self._begin()
        self.file.append(json.dumps(entry) + "\n")

    def _begin(self) -> None:
        """Write the header, unless there are lines already: those of an interrupted run have it."""
        if self.file.num_bytes == 0:
            self.file.append(self._header_line)

    def read(self) -> FrameAnnotations:
        """What has been written so far. Close it before this writer is closed, which moves the file."""
        self._begin()
        return FrameAnnotations(self.partial_path)

    def close(self) -> None:
        """Move the finished file to `path`. Closing twice is harmless."""
        if not self.file.is_closed:
            self._begin()
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

    The header is passed over, see `read_header`, and so is a last line that was cut off by a crash.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line is not of this format; the message names it.
    """
    with Path(path).open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                entry = plain_json.loads(line)
            except ValueError as error:
                is_cut_off = not line.endswith("\n") and not (number == 1 and "\0" in line)
                if is_cut_off:
                    return
                raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
            if number == 1 and _is_header(entry):
                VideoHeader.from_entry(entry, f"{path}, line 1")
                continue
            yield _parsed(entry, f"{path}, line {number}")


class FrameAnnotations:
    """A video's annotations on disk, read frame by frame in any order; only where each frame's line is, is held.

    The file is open until `close`, or to the end of a `with` block.

    Args:
        path: lines that `FrameAnnotationWriter` wrote, in any order of frames.

    Attributes:
        header: what the first line says of the video; None where there is no header.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line is not of this format; the message names it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.header: VideoHeader | None = None
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
                self._note(line, number, offset)
            offset += len(line)

    def _note(self, line: bytes, number: int, offset: int) -> None:
        """Note what is on a line, counted from 1, and where it is."""
        try:
            entry = plain_json.loads(line)
            is_header = number == 1 and _is_header(entry)
            frame_idx = -1 if is_header else check_whole(entry["frame_idx"], "frame_idx", largest=LARGEST_FRAME_IDX)
            obj_ids = [] if is_header else [annotation.get("tracker_id") for annotation in entry["annotations"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{self.path}, line {number} is no frame's annotations: {error!r}") from error
        if is_header:
            self.header = VideoHeader.from_entry(entry, f"{self.path}, line 1")
            return
        self._offsets[frame_idx] = offset
        self._obj_ids[frame_idx] = tuple(obj_id for obj_id in obj_ids if obj_id is not None)

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
        return _parsed(self.entry(frame_idx), f"{self.path}, frame {frame_idx}")

    def entry(self, frame_idx: int) -> dict[str, Any]:
        """One frame's line as it is, with masks as they are encoded; nothing of it has been checked.

        Raises:
            KeyError: the frame is not in the file.
        """
        self._lines.seek(self._offsets[frame_idx])
        entry: dict[str, Any] = plain_json.loads(self._lines.readline())
        return entry

    def encoded(self, frame_idx: int) -> ImageAnnotations:
        """What one frame holds, its masks as they are on disk: many frames are read much faster.

        `detections.mask` is None, and where all objects have masks, `data["segmentation"]` (N,) holds them as checked
        dicts of `grounded_sam2.masks.encode_rle`.

        Raises:
            KeyError: the frame is not in the file.
            ValueError: its line is not of this format.
        """
        self._lines.seek(self._offsets[frame_idx])
        return _parsed(plain_json.loads(self._lines.readline()), f"{self.path}, frame {frame_idx}", is_decoded=False)

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
