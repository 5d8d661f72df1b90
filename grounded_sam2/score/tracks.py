"""What the measures of tracking are made from: whose ids were where, and how much they overlapped, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grounded_sam2.score.overlap import Overlap

__all__ = ["FrameMatch", "Tracks"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FrameMatch:
    """One frame: the N objects of the truth and the M of the run that are on it.

    Attributes:
        true: (N,) positions in `Tracks.true_ids`.
        found: (M,) positions in `Tracks.found_ids`.
        iou: (N, M).
    """

    true: Ints
    found: Ints
    iou: Floats


class Tracks:
    """The objects of one video (and class), added frame by frame; masks are not held.

    Attributes:
        true_ids: of the truth, in order of appearance.
        found_ids: of the run, likewise.
        frames: those that have objects of either side.
        num_frames: all frames of the video, with those that have none.
    """

    def __init__(self) -> None:
        self._true: dict[int, int] = {}
        self._found: dict[int, int] = {}
        self.frames: list[FrameMatch] = []
        self.num_frames = 0
        self._shared: dict[tuple[int, int], float] = {}
        self._areas: tuple[dict[int, float], dict[int, float]] = {}, {}

    def add(self, true_ids: Sequence[int] | Ints, found_ids: Sequence[int] | Ints, overlap: Overlap) -> None:
        """Add the next frame, N ≥ 0 objects of the truth and M ≥ 0 of the run."""
        self.num_frames += 1
        if not len(true_ids) and not len(found_ids):
            return
        true, found = (
            np.array([known.setdefault(int(obj_id), len(known)) for obj_id in ids], np.int64)
            for known, ids in ((self._true, true_ids), (self._found, found_ids))
        )
        self.frames.append(FrameMatch(true, found, overlap.iou))
        for sums, positions, areas in zip(
            self._areas, (true, found), (overlap.areas, overlap.other_areas), strict=True
        ):
            for position, area in zip(positions.tolist(), areas.tolist(), strict=True):
                sums[position] = sums.get(position, 0.0) + area
        for row, column in zip(*np.nonzero(overlap.shared), strict=True):
            pair = int(true[row]), int(found[column])
            self._shared[pair] = self._shared.get(pair, 0.0) + float(overlap.shared[row, column])

    @property
    def true_ids(self) -> list[int]:
        return list(self._true)

    @property
    def found_ids(self) -> list[int]:
        return list(self._found)

    @property
    def shape(self) -> tuple[int, int]:
        """How many objects the truth has, and how many the run."""
        return len(self._true), len(self._found)

    def appearances(self) -> tuple[Ints, Ints]:
        """On how many frames each object of the truth is, and each of the run."""
        sides = [frame.true for frame in self.frames], [frame.found for frame in self.frames]
        true, found = (
            np.bincount(np.concatenate(side), minlength=number) if side else np.zeros(number, np.int64)
            for side, number in zip(sides, self.shape, strict=True)
        )
        return true, found

    def track_ious(self) -> Floats:
        """IoU of whole tracks, (true, found): all they share over all that either covers."""
        true_areas, found_areas = (
            np.array([areas[position] for position in range(number)], np.float64)
            for areas, number in zip(self._areas, self.shape, strict=True)
        )
        shared = np.zeros(self.shape)
        for pair, area in self._shared.items():
            shared[pair] = area
        return Overlap(shared, true_areas, found_areas).iou
