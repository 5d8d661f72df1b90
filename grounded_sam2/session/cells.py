"""The masks of a session on disk: one cell for each object and frame, and every cell that was there before it.

Two files grow and are never changed in place: `masks.bin` holds run-length encodings (COCO's compressed text), and
`cells.bin` one fixed record (`CELL`) for each change of a cell, with the number of the record that it replaced. So a
change is taken back by going back to what each of its records replaced, exactly, and made again by going forward.

In memory there is one number for each object and frame, that of the current record: 4 bytes, and no mask.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from grounded_sam2.files import writing_to
from grounded_sam2.masks import Masks, corners_of, decode_rle, encode_rle

__all__ = [
    "CELL",
    "GIVEN",
    "NOTHING",
    "TRACKED",
    "CellStore",
    "NewCell",
    "copied_cell",
    "new_cell",
    "no_cell",
    "revert_rows",
]

NOTHING, TRACKED, GIVEN = 0, 1, 2  # no mask is known; a mask by propagation; a conditioning frame, by a person
FORWARD, BACKWARD = 0, 1

CELL = np.dtype(
    [
        ("obj_id", "<i4"),
        ("frame_idx", "<i4"),
        ("before", "<i4"),  # number of the record that this one replaced; -1 for none
        ("kind", "u1"),  # NOTHING, TRACKED or GIVEN
        ("side", "u1"),  # of a propagation: FORWARD or BACKWARD
        ("offset", "<i8"),  # of the encoded mask in masks.bin; -1 of NOTHING
        ("length", "<i4"),  # of it in bytes
        ("crc", "<u4"),  # CRC-32 of it
        ("area", "<i4"),  # pixels; 0 where the object is not seen
        ("box", "<i4", 4),  # left, top, right, bottom, the last two exclusive; zeros for an empty mask
        ("mask_score", "<f4"),  # predicted quality in [0, 1]; NaN where there is none
        ("object_score", "<f4"),  # presence, above 0 for there; NaN where there is none
        ("agreement", "<f4"),  # IoU of both sides where two propagations meet; NaN elsewhere
    ]
)


class NewCell(NamedTuple):
    """A cell to be written: its record, and its encoded mask where that is not on disk already."""

    record: npt.NDArray[np.void]
    counts: bytes | None


def new_cell(
    obj_id: int,
    frame_idx: int,
    kind: int,
    mask: Masks,
    scores: tuple[float | None, float | None] = (None, None),
    side: int = FORWARD,
) -> NewCell:
    """A cell with a mask (H, W), which may be empty, and its `mask_score` and `object_score`."""
    record = np.zeros((), CELL)
    mask_score, object_score = (np.nan if score is None else score for score in scores)
    values = {"kind": kind, "side": side, "area": int(mask.sum()), "box": corners_of(mask)}
    for name, value in {**values, "mask_score": mask_score, "object_score": object_score}.items():
        record[name] = value
    record["obj_id"], record["frame_idx"], record["agreement"] = obj_id, frame_idx, np.nan
    [encoded] = encode_rle(mask[None])
    return NewCell(record, encoded["counts"].encode("ascii"))


def copied_cell(record: npt.NDArray[np.void] | np.void, **changes: float) -> NewCell:
    """A cell with the mask of another one, which is not written again."""
    copied = np.array(record, CELL)
    for name, value in changes.items():
        copied[name] = value
    return NewCell(copied, None)


def no_cell(obj_id: int, frame_idx: int) -> NewCell:
    """A cell of which nothing is known."""
    record = np.zeros((), CELL)
    record["obj_id"], record["frame_idx"], record["offset"] = obj_id, frame_idx, -1
    return NewCell(record, None)


class CellStore:
    """The two files of a folder, opened to read and to append; see the module.

    Args:
        folder: is there.
        size: (width, height) of the masks in pixels.
        num_frames: of the video.

    Attributes:
        current: object id → (num_frames,) int32, the number of each frame's record; -1 for none.
        num_records: on disk.

    Raises:
        OSError: the files cannot be written.
    """

    def __init__(self, folder: Path, size: tuple[int, int], num_frames: int) -> None:
        self.folder = folder
        self.size = size
        self.num_frames = num_frames
        self.current: dict[int, npt.NDArray[np.int32]] = {}
        self._cells = _open_to_append(folder / "cells.bin")
        self._masks = _open_to_append(folder / "masks.bin")
        self._cells_read = (folder / "cells.bin").open("rb", buffering=0)
        self._masks_read = (folder / "masks.bin").open("rb", buffering=0)
        self.num_records = os.fstat(self._cells.fileno()).st_size // CELL.itemsize
        self.num_bytes = os.fstat(self._masks.fileno()).st_size

    # ---- writing ----

    def append(self, cells: Sequence[NewCell]) -> None:
        """Write cells of distinct objects or frames, which become the current ones. All are written, or none.

        Raises:
            OSError: a full disk.
        """
        if not cells:
            return
        records = np.array([cell.record for cell in cells], CELL)
        encoded = bytearray()
        for record, cell in zip(records, cells, strict=True):
            record["before"] = self._rows_of(int(record["obj_id"]))[record["frame_idx"]]
            if cell.counts is not None:
                record["offset"], record["length"] = self.num_bytes + len(encoded), len(cell.counts)
                record["crc"] = zlib.crc32(cell.counts)
                encoded += cell.counts
        try:
            with writing_to(self.folder):
                _write_all(self._masks, encoded)
                _write_all(self._cells, records.tobytes())
        except BaseException:
            self._cut_files()
            raise
        for row, record in enumerate(records, start=self.num_records):
            self.current[int(record["obj_id"])][record["frame_idx"]] = row
        self.num_records += len(records)
        self.num_bytes += len(encoded)

    def sync(self) -> None:
        """Wait until what was written would survive a loss of power."""
        with writing_to(self.folder):
            os.fsync(self._masks.fileno())
            os.fsync(self._cells.fileno())

    def cut(self, num_records: int) -> None:
        """Drop what was written after the first records, which must not be current any more.

        Raises:
            ValueError: there are fewer.
        """
        if num_records > self.num_records:
            raise ValueError(
                f"{self.folder / 'cells.bin'} is damaged: expected {num_records} records, found {self.num_records}"
            )
        self.num_records = num_records
        table = self.records()
        self.num_bytes = int((table["offset"] + table["length"]).max(initial=0))
        if self.num_bytes > os.fstat(self._masks.fileno()).st_size:
            raise ValueError(f"{self.folder / 'masks.bin'} is damaged: expected {self.num_bytes} bytes or more")
        self._cut_files()

    def count_intact(self, first: int) -> int:
        """How many records there are up to the first one, from `first` on, whose mask is not whole on disk."""
        for row, record in enumerate(self.records()[first:], start=first):
            is_placed = int(record["obj_id"]) > 0 and 0 <= record["frame_idx"] < self.num_frames
            if not is_placed or int(record["before"]) >= row or zlib.crc32(self._bytes_of(record)) != record["crc"]:
                return row
        return self.num_records

    def apply(self, first: int, stop: int) -> None:
        """Make the records of a range the current ones of their cells."""
        records = self.records()[first:stop]
        for obj_id in np.unique(records["obj_id"]).tolist():
            of_object = np.flatnonzero(records["obj_id"] == obj_id)
            self._rows_of(obj_id)[records["frame_idx"][of_object]] = of_object + first

    def revert(self, first: int, stop: int) -> None:
        """Make what the records of a range replaced current again."""
        revert_rows(self.current, self.records()[first:stop])

    # ---- reading ----

    def records(self) -> npt.NDArray[np.void]:
        """All records, (num_records,) of `CELL`, read from the file where they are looked at."""
        if self.num_records == 0:
            return np.zeros(0, CELL)
        return np.memmap(self.folder / "cells.bin", CELL, "r", shape=(self.num_records,))

    def of_object(self, obj_id: int) -> npt.NDArray[np.void]:
        """The current records of an object, (num_frames,) of `CELL`; NOTHING where there is none."""
        found = np.zeros(self.num_frames, CELL)
        found["obj_id"], found["frame_idx"], found["offset"] = obj_id, np.arange(self.num_frames), -1
        rows = self.current.get(obj_id)
        if rows is not None:
            known = rows >= 0
            found[known] = self.records()[rows[known]]
        return found

    def at(self, obj_id: int, frame_idx: int) -> np.void | None:
        """The current record of a cell; None for NOTHING."""
        row = self.row_at(obj_id, frame_idx)
        if row < 0:
            return None
        self._cells_read.seek(row * CELL.itemsize)
        [record] = np.frombuffer(self._cells_read.read(CELL.itemsize), CELL)
        return None if record["kind"] == NOTHING else record

    def row_at(self, obj_id: int, frame_idx: int) -> int:
        """The number of a cell's current record; -1 for none."""
        rows = self.current.get(obj_id)
        return -1 if rows is None else int(rows[frame_idx])

    def rle(self, record: npt.NDArray[np.void] | np.void) -> dict[str, object]:
        """The run-length encoding of a record that is not NOTHING.

        Raises:
            ValueError: it is not on disk as it was written.
        """
        counts = self._bytes_of(record)
        if zlib.crc32(counts) != record["crc"]:
            place = f"object {record['obj_id']} on frame {record['frame_idx']}"
            raise ValueError(f"{self.folder / 'masks.bin'} is damaged: the mask of {place} is not as it was written")
        return {"size": [self.size[1], self.size[0]], "counts": counts.decode("ascii")}

    def mask(self, record: npt.NDArray[np.void] | np.void) -> Masks:
        """The mask (H, W) of a record that is not NOTHING; ValueError as `rle`."""
        return decode_rle([self.rle(record)])[0]

    def close(self) -> None:
        """Close the files."""
        for file in (self._cells, self._masks, self._cells_read, self._masks_read):
            file.close()

    def _rows_of(self, obj_id: int) -> npt.NDArray[np.int32]:
        if obj_id not in self.current:
            self.current[obj_id] = np.full(self.num_frames, -1, np.int32)
        return self.current[obj_id]

    def _bytes_of(self, record: npt.NDArray[np.void] | np.void) -> bytes:
        if record["length"] == 0:
            return b""
        self._masks_read.seek(int(record["offset"]))
        return self._masks_read.read(int(record["length"]))

    def _cut_files(self) -> None:
        self._cells.truncate(self.num_records * CELL.itemsize)
        self._masks.truncate(self.num_bytes)


def revert_rows(rows: dict[int, npt.NDArray[np.int32]], records: npt.NDArray[np.void]) -> None:
    """Make what records replaced current again in `rows`, which is as `CellStore.current`."""
    records = records[::-1]  # of a frame that is there twice, the first record has the last word
    for obj_id in np.unique(records["obj_id"]).tolist():
        of_object = records[records["obj_id"] == obj_id]
        rows[obj_id][of_object["frame_idx"]] = of_object["before"]


def _open_to_append(path: Path) -> BinaryIO:
    return path.open("ab", buffering=0)


def _write_all(file: BinaryIO, content: bytes | bytearray) -> None:
    remaining = memoryview(content)
    while remaining:
        remaining = remaining[file.write(remaining) :]
