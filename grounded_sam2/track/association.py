"""Which detection shows which object."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import supervision as sv
from scipy.optimize import linear_sum_assignment

from grounded_sam2.masks import Masks
from grounded_sam2.track.object_track import Descriptors, Track, unit

__all__ = ["assign", "check_lengths", "similarities"]

_IMPOSSIBLE = 1e6  # the cost of a pair that must not be matched


def check_lengths(expected: int, **arrays: npt.NDArray[np.generic] | None) -> None:
    """Raise a ValueError for an array, other than None, whose first axis is not `expected` long."""
    for name, array in arrays.items():
        if array is not None and len(array) != expected:
            raise ValueError(f"expected {name} for {expected} objects, got {len(array)}")


def fields_of(
    detections: sv.Detections,
) -> tuple[list[Masks], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    if len(detections) == 0:
        return [], np.zeros(0, np.int64), np.zeros(0, np.float32)
    for name in ("mask", "class_id", "confidence"):
        if getattr(detections, name) is None:
            raise ValueError(f"expected detections with mask, class_id and confidence, got none of {name}")
    class_ids = np.asarray(detections.class_id, dtype=np.int64)
    return list(np.asarray(detections.mask)), class_ids, np.asarray(detections.confidence, dtype=np.float32)


def similarities(
    descriptors: Descriptors | None, num_detections: int, tracks: Sequence[Track]
) -> npt.NDArray[np.float64]:
    """(N, M) cosines of N detections' descriptors and M objects' appearances; NaN where either is unknown."""
    cosines = np.full((num_detections, len(tracks)), np.nan)
    known = [column for column, track in enumerate(tracks) if track.descriptor is not None]
    if descriptors is not None and known and num_detections:
        appearances = np.stack([np.asarray(tracks[column].descriptor) for column in known])
        cosines[:, known] = unit(descriptors) @ appearances.T
    return cosines


def assign(scores: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
    """One-to-one pairs (row, column) with the highest total score; a negative score forbids a pair."""
    rows, columns = linear_sum_assignment(np.where(scores >= 0, -scores, _IMPOSSIBLE))
    return [(int(row), int(column)) for row, column in zip(rows, columns, strict=True) if scores[row, column] >= 0]
