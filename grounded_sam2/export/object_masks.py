"""The mask images of each object by themselves, in a folder of its own.

object_masks/3_red_car/00012.png     (H, W) 8-bit grey, 255 on object 3 on frame 12, 0 elsewhere
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import TracebackType

import numpy as np
import supervision as sv
from PIL import Image as PILImage

from grounded_sam2.files import check_writable, replacing

__all__ = ["ObjectMaskWriter"]

_OBJECT_FOLDER = re.compile(r"\d+_.*")
_FRAME_FILE = re.compile(r"\d{5,}\.png|\.\d{5,}\.[0-9a-f]{8}\.png")  # the second is what a killed run leaves
_LONGEST_NAME = 60  # characters of an object's name in that of its folder


class ObjectMaskWriter:
    """Write an image for each object and frame on which it is seen; each file is complete, or not there.

    They grow in a folder `<folder>.partial` and are moved to their place when the `with` block ends well, where they
    take the place of those of an earlier run, and only of those. After an error, Ctrl-C or a crash the partial folder
    stays, and the earlier run's files are as they were.

    Args:
        folder: in which the objects' folders are made.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.partial_folder = self.folder.with_name(f"{self.folder.name}.partial")
        for target in (self.folder, self.partial_folder):
            check_writable(target / "0_object")
            _remove_if_empty(target)
        self._names: dict[int, str] = {}

    def write(self, frame_idx: int, detections: sv.Detections) -> None:
        """Write one frame.

        Args:
            frame_idx: 0-based.
            detections: N ≥ 0, with `mask` (N, H, W) bool, `tracker_id` and `data["class_name"]`.

        Raises:
            ValueError: objects without ids, names or masks.
            OSError: a full disk.
        """
        if not self._names:
            _clear(self.partial_folder)  # of an interrupted run
        if len(detections) == 0:
            return
        if detections.mask is None or detections.tracker_id is None or "class_name" not in detections.data:
            raise ValueError("expected detections with mask, tracker_id and class_name")
        columns = (detections.tracker_id.tolist(), detections.data["class_name"], detections.mask)
        for obj_id, name, mask in zip(*columns, strict=True):
            folder = self._names.setdefault(obj_id, f"{obj_id}_{_plain(str(name))}")
            with replacing(self.partial_folder / folder / f"{frame_idx:05d}.png") as temporary:
                PILImage.fromarray(np.where(mask, np.uint8(255), np.uint8(0))).save(temporary, optimize=False)

    def close(self) -> None:
        """Move the finished files to their place, and remove those of an earlier run."""
        if not self._names:
            _clear(self.partial_folder)
        _clear(self.folder)
        for name in self._names.values():
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            for path in (self.partial_folder / name).iterdir():
                os.replace(path, self.folder / name / path.name)
        _clear(self.partial_folder)

    def __enter__(self) -> ObjectMaskWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()


def _plain(name: str) -> str:
    """A name of an object as a part of a file name."""
    return re.sub(r"\W+", "_", name).strip("_")[:_LONGEST_NAME] or "object"


def _clear(folder: Path) -> None:
    """Remove what runs have written into a folder, and what is empty then."""
    if not folder.is_dir():
        return
    for subfolder in folder.iterdir():
        if subfolder.is_dir() and _OBJECT_FOLDER.fullmatch(subfolder.name):
            for path in subfolder.iterdir():
                if path.is_file() and _FRAME_FILE.fullmatch(path.name):
                    path.unlink()
            _remove_if_empty(subfolder)
    _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):  # someone may have put something there
        folder.rmdir()
