"""Many images through detector and segmenter in batches, as much of them in memory at a time as two batches hold.

An interrupted run goes on where it stopped: what is finished is written down in `progress.jsonl`, image by image.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
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
from grounded_sam2.owned import OwnedFolder, hidden_id
from grounded_sam2.prompts import Prompt
from sam2.shown import shown

__all__ = ["BatchFolder", "ImageBatch", "detect_batch", "read_batches"]

SMALLEST_SIDE = 4  # pixels; less shows nothing
_SUFFIXES = {"json": ".json", "annotated": ".jpg"}  # of the files in the folders of results
_FIRST_BYTES = b'{"settings"'  # of progress.jsonl
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
        reason = shown(problem) or type(problem).__name__
        return reason if shown(image.path.name) in reason else f"{shown(image.path)}: {reason}"
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

        with BatchFolder("outputs/batch", {"BOX_THRESHOLD": 0.35}, listed) as folder:
            for batch in read_batches(listed, 8, folder.is_finished):
                ...
                write_json(folder.json_path(image), image.path, detections, size)
                ...
                folder.finish(batch.listed)

    An image is finished as long as its file, its phrases and the settings are the same and its JSON file is there. The
    folder is this process's own until `close`, see `OwnedFolder`.

    Args:
        folder: is made if it is not there.
        settings: those that the results depend on.
        listed: the images of the run; their files may not replace other ones.
        source: the list that names them, which is not replaced either.
        with_pictures: an image is finished only if its annotated picture is there too.
        overwrite: forget what is finished.

    Raises:
        ValueError: the folder holds results of other settings, of other images of the same name, or files that are not
            the project's where results go; an image is itself an output there; or `progress.jsonl` is damaged.
        OSError: the folder cannot be written, or another process writes to it.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        settings: Mapping[str, Any],
        listed: Sequence[ListedImage] = (),
        *,
        source: str | os.PathLike[str] = "",
        with_pictures: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.with_pictures = with_pictures
        self._owned = OwnedFolder(folder, *(image.path for image in listed), *([source] if source else []))
        self.progress_path = check_writable(self.folder / "progress.jsonl")
        self._finished: dict[str, dict[str, Any]] = {}
        settings = json.loads(json.dumps(settings, default=str))
        self._claim_files(listed)
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
        if not overwrite:
            self._refuse_other_images(listed)

    def _claim_files(self, listed: Sequence[ListedImage]) -> None:
        """Make sure, before anything is found, that results of these images can be written."""
        is_older = self._is_of_older_version()
        own_folders = tuple(os.path.realpath(self.folder / name) + os.sep for name in ("json", "annotated", "yolo"))
        folders = ["json", "annotated"] if self.with_pictures else ["json"]
        for image in listed:
            if f"{_real_folder(image.path.parent)}{os.sep}".startswith(own_folders):
                raise ValueError(f"{image.path} is an output of a run into {self.folder}: choose another --output-dir")
            self._claim([f"{name}/{image.stem}{_SUFFIXES[name]}" for name in folders], self._owned, is_older)
        self._claim(["progress.jsonl", "coco.json"], self._owned, is_older)
        if (self.folder / "yolo").exists():
            labels = [f"labels/{image.stem}.txt" for image in listed]
            self._claim(["data.yaml", *labels], OwnedFolder(self.folder / "yolo"), is_older)

    def _claim(self, names: Sequence[str], owned: OwnedFolder, is_older: bool) -> None:
        for name in names:
            if is_older:
                owned.adopt(name)
            owned.claim(name)

    def _is_of_older_version(self) -> bool:
        """Whether an earlier version of the project, which kept no record of files, wrote to the folder."""
        if self._owned.knows("progress.jsonl") or not self.progress_path.exists():
            return False
        with self.progress_path.open("rb") as lines:
            return lines.read(len(_FIRST_BYTES)) == _FIRST_BYTES

    def _refuse_other_images(self, listed: Sequence[ListedImage]) -> None:
        holders = {entry["stem"].lower(): entry for entry in self._finished.values() if "stem" in entry}
        for image in listed:
            entry = holders.get(image.stem.lower())
            if entry is not None and image.path.exists() and _is_of_another(entry, image):
                raise ValueError(
                    f"{self.json_path(image)} is about another image than {image.path}: choose another --output-dir, "
                    "or --overwrite it"
                )

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
            # older versions noted no stem; of a moved image only the place differs
            former = {"stem": image.stem, **self._finished[image.name], "place": None}
            return former == {**_record(image), "place": None}
        except OSError:
            return False

    def finish(self, images: Sequence[ListedImage]) -> None:
        """Write down that the files of all images of a batch are written, at once.

        Raises:
            OSError: a full disk, or an image that is gone by now.
        """
        records = [{**_record(image), "place": _place(image)} for image in images]
        self._append(*records)
        self._finished.update((record["name"], record) for record in records)

    def exported(self, listed: Sequence[ListedImage]) -> list[ExportedImage]:
        """The finished ones among listed images, as a data set; their ids are their places in the list, from 1."""
        return [
            ExportedImage(place, image.name, image.stem, self.json_path(image), image.path)
            for place, image in enumerate(listed, start=1)
            if self.is_finished(image)
        ]

    def close(self) -> None:
        """Close `progress.jsonl` and let the folder go. Closing twice is harmless."""
        self._progress.close()
        self._owned.close()

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
        "stem": image.stem,
        "phrases": list(prompt.phrases),
        **{name: value for name, value in more.items() if value},
        "num_bytes": status.st_size,
        "modified_ns": status.st_mtime_ns,
    }


def _is_of_another(entry: Mapping[str, Any], image: ListedImage) -> bool:
    """Whether what was written down is of an image elsewhere, and not of this one before it was moved."""
    if entry["place"] == _place(image):
        return False
    status = image.path.stat()
    return (entry["num_bytes"], entry["modified_ns"]) != (status.st_size, status.st_mtime_ns)


def _place(image: ListedImage) -> str:
    return hidden_id(os.path.join(_real_folder(image.path.parent), image.path.name))


@lru_cache(maxsize=4096)
def _real_folder(folder: Path) -> str:
    return os.path.realpath(folder)
