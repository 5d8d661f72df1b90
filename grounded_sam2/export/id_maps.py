"""Tracked objects as files, and back: one map of ids per frame.

`IdMapWriter` writes the two folders that scripts for Grounded SAM 2 read:

    mask_data/mask_00000.npy     (H, W) uint16, at each pixel the id of the object on it, 0 for none
    json_data/mask_00000.json    {"mask_name": "mask_00000.npy", "mask_height": H, "mask_width": W,
                                  "promote_type": "mask", "labels": {"1": {"instance_id": 1, "class_name": "dog",
                                  "x1": …, "y1": …, "x2": …, "y2": …, "logit": 0.87}}}

Boxes are xyxy in pixels; `logit` is the detector's confidence. To these fields `class_id`, `mask_score` and
`object_score` are added.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import supervision as sv

from grounded_sam2 import plain_json
from grounded_sam2.files import check_writable, replacing

__all__ = ["IdMapWriter", "id_map", "read_id_map"]

_FRAME_FILE = re.compile(r"mask_(\d+)\.(?:npy|json)")
_TEMPORARY_FILE = re.compile(r"\.mask_\d+\.[0-9a-f]{8}\.(?:npy|json)")  # what a killed run leaves
_LARGEST_ID = np.iinfo(np.uint16).max


def id_map(detections: sv.Detections, size: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """One frame's objects as a map; where masks overlap, the smaller object is on top.

    Args:
        detections: N ≥ 0, with `mask` (N, H, W) bool and `tracker_id` (N,), 1 to 65535.
        size: (width, height) in pixels.

    Returns:
        (H, W) uint16, 0 where no object is.

    Raises:
        ValueError: no masks or ids, masks of another size, or an id outside 1 to 65535.
    """
    width, height = size
    ids = np.zeros((height, width), dtype=np.uint16)
    if len(detections) == 0:
        return ids
    if detections.mask is None or detections.tracker_id is None:
        raise ValueError("expected detections with mask and tracker_id")
    masks = np.asarray(detections.mask)
    if masks.shape[1:] != (height, width):
        raise ValueError(f"expected masks of {(height, width)}, got {masks.shape[1:]}")
    if detections.tracker_id.min() < 1 or detections.tracker_id.max() > _LARGEST_ID:
        raise ValueError(f"expected ids from 1 to {_LARGEST_ID}, got {detections.tracker_id.tolist()}")
    for row in np.argsort(-masks.sum((1, 2)), kind="stable"):
        ids[masks[row]] = detections.tracker_id[row]
    return ids


class IdMapWriter:
    """Write `mask_data/` and `json_data/` of a video; each file is complete, or not there.

    Both grow in a folder `partial`, from which `read_id_map` reads as well, and are moved to their place when the
    `with` block ends well; what an earlier run left in it, and only that, goes. After an error, Ctrl-C or a crash the
    partial folder stays, and the earlier run's files are as they were.

    Args:
        folder: in which both folders are made.
        size: (width, height) of the frames in pixels.

    Raises:
        OSError: the folders cannot be written.
        ValueError: a file in `partial` that no run has written, which could neither stay nor go.
    """

    def __init__(self, folder: str | os.PathLike[str], size: tuple[int, int]) -> None:
        self.mask_folder = Path(folder) / "mask_data"
        self.json_folder = Path(folder) / "json_data"
        self.partial_folder = Path(folder) / "partial"
        self.size = size
        self._num_frames = 0
        for subfolder in (self.mask_folder, self.json_folder):
            check_writable(subfolder / "mask_00000")
            check_writable(self.partial_folder / subfolder.name / "mask_00000")
        self._refuse_foreign_files()

    def _refuse_foreign_files(self) -> None:
        subfolders = [self.partial_folder / folder.name for folder in (self.mask_folder, self.json_folder)]
        foreign = [path for path in self.partial_folder.iterdir() if path not in subfolders]
        foreign += [path for folder in subfolders for path in folder.iterdir() if not _is_of_a_run(path)]
        if foreign:
            raise ValueError(f"{foreign[0]} was not written by this program: move it away, {self.partial_folder} goes")

    def write(self, frame_idx: int, detections: sv.Detections) -> None:
        """Write one frame; N = 0 writes an empty map.

        Raises:
            ValueError: see `id_map`.
        """
        name = f"mask_{frame_idx:05d}"
        ids = id_map(detections, self.size)
        entry = {
            "mask_name": f"{name}.npy",
            "mask_height": self.size[1],
            "mask_width": self.size[0],
            "promote_type": "mask",
            "labels": {str(label["instance_id"]): label for label in _labels(detections)},
        }
        with replacing(self.partial_folder / self.mask_folder.name / f"{name}.npy") as temporary:
            np.save(temporary, ids)
        with replacing(self.partial_folder / self.json_folder.name / f"{name}.json") as temporary:
            # a byte that is no UTF-8, of the command line, is escaped
            temporary.write_text(json.dumps(entry, ensure_ascii=False), encoding="utf-8", errors="backslashreplace")
        self._num_frames = max(self._num_frames, frame_idx + 1)

    def close(self) -> None:
        """Move the finished files to their place, and remove the frames of an earlier run beyond the last of this."""
        for folder in (self.mask_folder, self.json_folder):
            for path in folder.iterdir():
                if _frame_of(path) >= self._num_frames:
                    path.unlink()
            partial = self.partial_folder / folder.name
            for path in partial.iterdir():
                if 0 <= _frame_of(path) < self._num_frames:
                    os.replace(path, folder / path.name)
                elif _is_of_a_run(path):  # of an interrupted one
                    path.unlink()
            _remove_if_empty(partial)
        _remove_if_empty(self.partial_folder)

    def __enter__(self) -> IdMapWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()


def _frame_of(path: Path) -> int:
    """The frame that a file of this format is of; -1 for other files."""
    named = _FRAME_FILE.fullmatch(path.name)
    return -1 if named is None else int(named[1])


def _is_of_a_run(path: Path) -> bool:
    return path.is_file() and (_frame_of(path) >= 0 or _TEMPORARY_FILE.fullmatch(path.name) is not None)


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):  # someone may have put something there meanwhile
        folder.rmdir()


def _labels(detections: sv.Detections) -> list[dict[str, Any]]:
    labels = []
    for row in range(len(detections)):
        x1, y1, x2, y2 = (float(edge) for edge in detections.xyxy[row])
        assert detections.tracker_id is not None
        label: dict[str, Any] = {
            "instance_id": int(detections.tracker_id[row]),
            "class_name": str(detections.data["class_name"][row]),
            "x1": x1,
            "y1": y1,
            "x2": x2,
            "y2": y2,
            "logit": None if detections.confidence is None else float(detections.confidence[row]),
            "class_id": None if detections.class_id is None else int(detections.class_id[row]),
        }
        for score in ("mask_score", "object_score"):
            if score in detections.data:
                label[score] = float(detections.data[score][row])
        labels.append(label)
    return labels


def read_id_map(folder: str | os.PathLike[str], frame_idx: int) -> sv.Detections:
    """Read back one frame that `IdMapWriter` wrote.

    Returns:
        The frame's objects: `mask` (N, H, W), without what other objects hid, `xyxy`, `tracker_id`, `class_id`,
        `confidence`, `data` with `class_name` and the scores that were written. Files of other programs may lack
        `class_id`; then it counts the class names in order of appearance.

    Raises:
        FileNotFoundError: no such frame.
        ValueError: the map and the labels do not fit together.
    """
    name = f"mask_{frame_idx:05d}"
    try:
        ids = np.load(Path(folder) / "mask_data" / f"{name}.npy", allow_pickle=False)
        entry = plain_json.loads((Path(folder) / "json_data" / f"{name}.json").read_text(encoding="utf-8"))
        return _objects_of(ids, entry, name)
    except OSError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, EOFError, OverflowError) as error:
        raise ValueError(f"{name} in {folder} is no map of ids with its labels: {error}") from error


def _objects_of(ids: npt.NDArray[np.integer], entry: dict[str, Any], name: str) -> sv.Detections:
    if ids.shape != (entry["mask_height"], entry["mask_width"]):
        raise ValueError(
            f"{name}: the map is {ids.shape}, its labels say {(entry['mask_height'], entry['mask_width'])}"
        )
    labels = list(entry["labels"].values())
    names = list(dict.fromkeys(label["class_name"] for label in labels))
    columns = {score for label in labels for score in ("mask_score", "object_score") if score in label}
    return sv.Detections(
        xyxy=np.array([[label[edge] for edge in ("x1", "y1", "x2", "y2")] for label in labels], np.float32).reshape(
            -1, 4
        ),
        mask=np.array([ids == label["instance_id"] for label in labels], dtype=bool).reshape(-1, *ids.shape),
        confidence=np.array([label["logit"] for label in labels], dtype=np.float32),
        class_id=np.array(
            [label.get("class_id", names.index(label["class_name"])) for label in labels], dtype=np.int64
        ),
        tracker_id=np.array([label["instance_id"] for label in labels], dtype=np.int64),
        data={
            "class_name": np.array([label["class_name"] for label in labels], dtype=np.str_),
            **{score: np.array([label[score] for label in labels], dtype=np.float32) for score in sorted(columns)},
        },
    )
