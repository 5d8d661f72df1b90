"""Many images through detector and segmenter in batches, as much of them in memory at a time as two batches hold.

An interrupted run goes on where it stopped: what is finished is written down in `progress.jsonl`, image by image.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import supervision as sv

from grounded_sam2 import plain_json
from grounded_sam2.batch.image_list import ListedImage
from grounded_sam2.detectors.base import (
    DEFAULT_BOX_THRESHOLD,
    DEFAULT_TEXT_THRESHOLD,
    Aliases,
    Detector,
    Threshold,
    given_options,
)
from grounded_sam2.export.images import ExportedImage
from grounded_sam2.files import check_writable, writing_to
from grounded_sam2.images import RGBImage, read_image
from grounded_sam2.prompts import Prompt
from sam2.shown import shown

__all__ = ["BatchFolder", "ImageBatch", "detect_batch", "read_batches"]

SMALLEST_SIDE = 4  # pixels; less shows nothing
_READERS = 4  # threads that decode images


# ---- the images ----


@dataclass
class ImageBatch:
    """Images that were read together.

    Attributes:
        listed: B ≥ 0 images that could be read.
        images: their pixels, (H, W, 3) uint8 RGB of any sizes.
        skipped: those that could not, each with the reason.
    """

    listed: list[ListedImage] = field(default_factory=list)
    images: list[RGBImage] = field(default_factory=list)
    skipped: list[tuple[ListedImage, str]] = field(default_factory=list)


def read_batches(
    listed: Sequence[ListedImage], batch_size: int, is_finished: Callable[[ListedImage], bool] = lambda image: False
) -> Iterator[ImageBatch]:
    """Read images in batches, the next one while the current one is worked on.

    Args:
        listed: what to read, in this order.
        batch_size: how many at a time; a batch with images that cannot be read has fewer.
        is_finished: images to leave out. The others are in the batches they would be in without it, since models may
            round a little differently in other company.

    Raises:
        ValueError: a `batch_size` below 1.
    """
    if batch_size < 1:
        raise ValueError(f"expected a batch_size of at least 1, got {batch_size}")
    starts = range(0, len(listed), batch_size)
    parts = [[image for image in listed[start : start + batch_size] if not is_finished(image)] for start in starts]
    parts = [part for part in parts if part]
    with ThreadPoolExecutor(_READERS) as readers:
        ahead = [readers.submit(_read, image) for image in parts[0]] if parts else []
        for number, part in enumerate(parts):
            current, batch = ahead, ImageBatch()
            if number + 1 < len(parts):
                ahead = [readers.submit(_read, image) for image in parts[number + 1]]
            for image, reading in zip(part, current, strict=True):
                pixels = reading.result()
                if isinstance(pixels, str):
                    batch.skipped.append((image, pixels))
                else:
                    batch.listed.append(image)
                    batch.images.append(pixels)
            yield batch


def _read(image: ListedImage) -> RGBImage | str:
    """The pixels of an image, or why there are none."""
    try:
        pixels = read_image(image.path)
    except (ValueError, OSError) as problem:
        return shown(problem)
    height, width = pixels.shape[:2]
    if min(height, width) < SMALLEST_SIDE:
        return f"{image.path} has {width}x{height} pixels, expected {SMALLEST_SIDE} a side at least"
    return pixels


# ---- the detector ----


def detect_batch(
    detector: Detector,
    batch: ImageBatch,
    box_threshold: Threshold = DEFAULT_BOX_THRESHOLD,
    text_threshold: Threshold = DEFAULT_TEXT_THRESHOLD,
    *,
    aliases: Aliases | None = None,
    top_k: int | None = None,
) -> list[sv.Detections]:
    """Find in each image what its own prompt asks for; images with the same prompt go to the detector together.

    Args:
        detector: finds the boxes.
        batch: B images.
        box_threshold: see `Detector.detect`; a mapping must fit every prompt.
        text_threshold: likewise.
        aliases: likewise.
        top_k: see `Detector.detect`.

    Returns:
        B detections; `class_id` is the index in the image's own phrases.
    """
    rows_of: dict[Prompt, list[int]] = {}
    for row, image in enumerate(batch.listed):
        rows_of.setdefault(image.prompt, []).append(row)
    options = given_options(box_threshold, text_threshold, aliases, top_k)
    found: dict[int, sv.Detections] = {}
    for prompt, rows in rows_of.items():
        of_rows = detector.detect([batch.images[row] for row in rows], prompt, **options)
        found.update(zip(rows, of_rows, strict=True))
    return [found[row] for row in range(len(batch.listed))]


# ---- the files ----


class BatchFolder:
    """The folder that a run over many images writes to, and what is finished in it.

        with BatchFolder("outputs/batch", {"BOX_THRESHOLD": 0.35}) as folder:
            for batch in read_batches(listed, 8, folder.is_finished):
                ...
                write_json(folder.json_path(image), image.path, detections, size)
                ...
                folder.finish(batch.listed)

    An image is finished as long as its file, its phrases and the settings are the same and its JSON file is there.

    Args:
        folder: is made if it is not there.
        settings: those that the results depend on.
        with_pictures: an image is finished only if its annotated picture is there too.
        overwrite: forget what is finished.

    Raises:
        ValueError: the folder holds results of other settings, or a damaged `progress.jsonl`.
        OSError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        settings: Mapping[str, Any],
        *,
        with_pictures: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.with_pictures = with_pictures
        self.progress_path = check_writable(self.folder / "progress.jsonl")
        self._finished: dict[str, dict[str, Any]] = {}
        settings = json.loads(json.dumps(settings, default=str))
        if not overwrite and self.progress_path.exists():
            num_bytes = self._read_progress(settings)
            self._progress: BinaryIO = self.progress_path.open("r+b", buffering=0)
            self._progress.truncate(num_bytes)
            self._progress.seek(num_bytes)
        else:
            num_bytes = 0
            self._progress = self.progress_path.open("wb", buffering=0)
        if num_bytes == 0:
            self._append({"settings": settings})

    def _read_progress(self, settings: Mapping[str, Any]) -> int:
        """Read what is finished.

        Returns:
            The length of the lines to keep: the complete ones, as a crash may have cut off the last one.
        """
        num_bytes = 0
        with self.progress_path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    break
                num_bytes += len(line)
                try:
                    entry = plain_json.loads(line)
                    if number == 1:
                        former = dict(entry["settings"])
                    else:
                        self._finished[plain_json.check_text(entry["name"], "name")] = entry
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise ValueError(
                        f"{self.progress_path}, line {number} is damaged ({error!r}); --overwrite starts anew"
                    ) from error
        if num_bytes > 0 and former != settings:
            if not self._finished:
                return 0
            differing = [name for name in {**former, **settings} if former.get(name) != settings.get(name)]
            changes = ", ".join(f"{name} was {former.get(name)}, is {settings.get(name)}" for name in differing)
            raise ValueError(
                f"{self.folder} holds results of other settings ({changes}): choose another --output-dir, or "
                "--overwrite them"
            )
        return num_bytes

    def _append(self, *entries: Mapping[str, Any]) -> None:
        remaining = "".join(json.dumps(entry) + "\n" for entry in entries).encode("ascii")
        with writing_to(self.progress_path):
            while remaining:
                remaining = remaining[self._progress.write(remaining) :]

    def json_path(self, image: ListedImage) -> Path:
        """Where the annotations of an image go."""
        return self.folder / "json" / f"{image.stem}.json"

    def picture_path(self, image: ListedImage) -> Path:
        """Where its annotated picture goes."""
        return self.folder / "annotated" / f"{image.stem}.jpg"

    def is_finished(self, image: ListedImage) -> bool:
        """Whether nothing is left to do for an image."""
        if image.name not in self._finished or not self.json_path(image).exists():
            return False
        if self.with_pictures and not self.picture_path(image).exists():
            return False
        try:
            return self._finished[image.name] == _record(image)
        except OSError:
            return False

    def finish(self, images: Sequence[ListedImage]) -> None:
        """Write down that the files of all images of a batch are written, at once.

        Raises:
            OSError: a full disk, or an image that is gone by now.
        """
        records = [_record(image) for image in images]
        self._append(*records)
        self._finished.update((record["name"], record) for record in records)

    def exported(self, listed: Sequence[ListedImage]) -> list[ExportedImage]:
        """The finished ones among listed images, as a data set; their ids are their places in the list, from 1."""
        return [
            ExportedImage(place, image.name, image.stem, self.json_path(image))
            for place, image in enumerate(listed, start=1)
            if self.is_finished(image)
        ]

    def close(self) -> None:
        """Close `progress.jsonl`. Closing twice is harmless."""
        self._progress.close()

    def __enter__(self) -> BatchFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _record(image: ListedImage) -> dict[str, Any]:
    """What tells an image and its prompt from later versions of them, as JSON gives it back."""
    status, prompt = image.path.stat(), image.prompt
    more = {
        "unwanted": list(prompt.unwanted),
        "aliases": {phrase: list(aliases) for phrase, aliases in prompt.aliases.items()},
        "thresholds": dict(prompt.thresholds),
    }
    return {
        "name": image.name,
        "phrases": list(prompt.phrases),
        **{name: value for name, value in more.items() if value},
        "num_bytes": status.st_size,
        "modified_ns": status.st_mtime_ns,
    }
