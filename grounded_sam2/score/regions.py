"""J&F: each object of the truth with the one track that suits it best, over all frames (DAVIS, unsupervised)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from grounded_sam2.score.boundary import encoded_boundary_f
from grounded_sam2.score.tracks import Tracks
from grounded_sam2.score.video import Rle

__all__ = ["Key", "RegionPair", "RegionScores", "boundary_means", "region_pairs"]

Floats = npt.NDArray[np.float64]
Key = tuple[str, int]  # class and id


@dataclass(frozen=True)
class RegionPair:
    """An object of the truth, and the id that is compared with it.

    Attributes:
        true_id: the object.
        found_id: the id; None where there are none left.
        region: J, mean over all frames; 1 on a frame on which neither is.
    """

    true_id: int
    found_id: int | None
    region: float


@dataclass(frozen=True)
class RegionScores:
    """J and F of each object of the truth, of one video and class; those of several add up."""

    region: tuple[float, ...] = ()
    boundary: tuple[float, ...] = ()

    def __add__(self, other: RegionScores) -> RegionScores:
        return RegionScores(self.region + other.region, self.boundary + other.boundary)

    def scores(self) -> dict[str, float | None]:
        """Means over objects, in [0, 1]; None where the truth has none."""
        if not self.region:
            return {"J&F": None, "J": None, "F": None}
        region, boundary = float(np.mean(self.region)), float(np.mean(self.boundary))
        return {"J&F": (region + boundary) / 2, "J": region, "F": boundary}


def region_pairs(tracks: Tracks) -> list[RegionPair]:
    """Each object of the truth with an id of its own, so that the mean of J is largest."""
    by_pair = _region(tracks)
    true_order, found_order = np.argsort(tracks.true_ids), np.argsort(tracks.found_ids)  # equal ones by their ids
    columns, rows = linear_sum_assignment(-by_pair[np.ix_(true_order, found_order)].T)
    found_of = dict(zip(true_order[rows].tolist(), found_order[columns].tolist(), strict=True))
    absent = tracks.num_frames - tracks.appearances()[0]
    pairs = []
    for position, true_id in enumerate(tracks.true_ids):
        if position in found_of:
            column = found_of[position]
            pairs.append(RegionPair(true_id, tracks.found_ids[column], float(by_pair[position, column])))
        else:
            pairs.append(RegionPair(true_id, None, float(absent[position] / tracks.num_frames)))
    return pairs


def _region(tracks: Tracks) -> Floats:
    """J of each pair, (true, found), means over all frames."""
    iou_sum, together = np.zeros(tracks.shape), np.zeros(tracks.shape, np.int64)
    for frame in tracks.frames:
        pairs = np.ix_(frame.true, frame.found)
        iou_sum[pairs] += frame.iou
        together[pairs] += 1
    true_frames, found_frames = tracks.appearances()
    neither = tracks.num_frames - (true_frames[:, None] + found_frames[None] - together)
    return (iou_sum + neither) / max(tracks.num_frames, 1)


def boundary_means(
    pairs: Sequence[tuple[Key, Key | None]],
    frames: Iterable[tuple[dict[Key, Rle], dict[Key, Rle]]],
    size: tuple[int, int],
) -> list[float]:
    """F of each pair, means over all frames; 1 on a frame on which neither is.

    Args:
        pairs: class and id of the truth's object, and of the one that is compared with it; None: there is none.
        frames: class and id → encoded mask of the truth, and of the run, for every frame of the video.
        size: (width, height) of the frames in pixels.
    """
    sums, num_frames = [0.0] * len(pairs), 0
    for true, found in frames:
        num_frames += 1
        for position, (true_key, found_key) in enumerate(pairs):
            found_mask = None if found_key is None else found.get(found_key)
            sums[position] += encoded_boundary_f(found_mask, true.get(true_key), size)
    return [total / num_frames for total in sums]
