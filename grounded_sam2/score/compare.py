"""A run and a truth of one video, compared frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import numpy as np

from grounded_sam2.score.clear import Clear, clear
from grounded_sam2.score.exclusion import counted
from grounded_sam2.score.hota import Hota, hota
from grounded_sam2.score.identity import Identity, identity
from grounded_sam2.score.overlap import Overlap, overlap_of
from grounded_sam2.score.precision import Ranked, average_precision, matched
from grounded_sam2.score.regions import Key, RegionScores, boundary_means, region_pairs
from grounded_sam2.score.tracks import Tracks
from grounded_sam2.score.video import FrameObjects, Rle, Video, frames_of
from sam2.frames.still_image import MAX_PIXELS

__all__ = ["Comparison", "Scores", "compare", "compared_by"]

MOST_PER_IMAGE = 100  # objects of a frame, the surest, that average precision looks at, as COCO does
ClassBy = Literal["names", "numbers"]
Scores = dict[str, float | int | None]


@dataclass
class Comparison:
    """What was counted in one video and class; those of several videos add up.

    Attributes:
        hota, clear, identity: of the tracks.
        regions: J and F; None where boxes were compared.
        images: for average precision frame by frame, one for each frame with objects.
        tracks: for average precision of whole tracks, one for each video.
        num_frames: compared.
    """

    hota: Hota
    clear: Clear
    identity: Identity
    regions: RegionScores | None
    images: list[Ranked]
    tracks: list[Ranked]
    num_frames: int

    def __add__(self, other: Comparison) -> Comparison:
        return Comparison(
            self.hota + other.hota,
            self.clear + other.clear,
            self.identity + other.identity,
            None if self.regions is None or other.regions is None else self.regions + other.regions,
            self.images + other.images,
            self.tracks + other.tracks,
            self.num_frames + other.num_frames,
        )

    def scores(self) -> Scores:
        """All measures by their names; None where one has no meaning, as J&F of boxes, or AP of nothing."""
        scores: Scores = {**self.hota.scores(), **self.clear.scores(), **self.identity.scores()}
        scores |= RegionScores().scores() if self.regions is None else self.regions.scores()
        for name, groups in (("AP", self.images), ("track AP", self.tracks)):
            precision = average_precision(groups)
            for suffix in ("", "50", "75"):
                scores[f"{name}{suffix}"] = None if precision is None else getattr(precision, f"ap{suffix}")
        return scores | {"frames": self.num_frames}


@dataclass
class _Part:
    """One class as it is read, or all objects."""

    tracks: Tracks = field(default_factory=Tracks)
    images: list[Ranked] = field(default_factory=list)
    scores: dict[int, list[float]] = field(default_factory=dict)  # of each id of the run, frame by frame
    crowds: set[int] = field(default_factory=set)  # ids of the truth

    def add(self, true: FrameObjects, found: FrameObjects, overlap: Overlap) -> None:
        self.tracks.add(true.ids, found.ids, overlap)
        if len(true) or len(found):
            self.images.append(matched(overlap.iou, found.scores, true.is_crowd, MOST_PER_IMAGE))
        for obj_id, score in zip(found.ids.tolist(), found.scores.tolist(), strict=True):
            self.scores.setdefault(obj_id, []).append(score)
        self.crowds.update(true.ids[true.is_crowd].tolist())

    def ranked_tracks(self) -> Ranked:
        # rounded, so that a score that is the same on all frames is that of the track
        means = [round(float(np.mean(self.scores[obj_id])), 12) for obj_id in self.tracks.found_ids]
        is_crowd = np.array([obj_id in self.crowds for obj_id in self.tracks.true_ids], bool)
        return matched(self.tracks.track_ious(), np.array(means, np.float64), is_crowd)


def compare(
    truth: Video,
    run: Video,
    class_by: ClassBy | None = None,
    by_mask: bool | None = None,
    threshold: float = 0.5,
    is_sparse: bool = False,
) -> dict[str, Comparison]:
    """Compare the objects of a run with those of a truth, whatever their ids.

    Both are read twice for masks, one frame at a time; besides, one (N, M) array a frame is held.

    Args:
        class_by: compare objects of one class only, by these: a result for each class, by name or number; None: all
            with all, under "".
        by_mask: whether masks are compared, or boxes; None: masks where both have them.
        threshold: the least IoU of a match, for CLEAR and IDF1.
        is_sparse: whether frames of the run that the truth does not have are left out.

    Raises:
        ValueError: the two do not fit together, or a file is damaged.
        OSError: a file cannot be read.
    """
    by_mask = compared_by(truth, run) if by_mask is None else by_mask
    size = _common_size(truth, run)
    indices = _common_frames(truth, run, is_sparse)
    parts: dict[str, _Part] = {} if class_by else {"": _Part()}
    for position, (true, found) in enumerate(_frames(truth, run, indices, by_mask)):
        overlap = overlap_of(true, found, by_mask)
        kinds = _classes(true, class_by), _classes(found, class_by)
        for name in dict.fromkeys([*kinds[0], *kinds[1]]):
            parts.setdefault(name, _Part())
        for name, part in parts.items():
            rows, columns = (np.array([kind == name for kind in side], bool) for side in kinds)
            part.tracks.num_frames = position
            part.add(true.take(rows), found.take(columns), overlap.take(rows, columns))
    regions = _regions(_frames(truth, run, indices, by_mask), parts, class_by, size) if by_mask else {}
    return {
        name: Comparison(
            hota(part.tracks),
            clear(part.tracks, threshold),
            identity(part.tracks, threshold),
            regions.get(name),
            part.images,
            [part.ranked_tracks()],
            len(indices),
        )
        for name, part in parts.items()
    }


def compared_by(truth: Video, run: Video) -> bool:
    """Whether masks are compared: both have them."""
    return truth.has_masks and run.has_masks


def _frames(
    truth: Video, run: Video, indices: Sequence[int], by_mask: bool
) -> Iterator[tuple[FrameObjects, FrameObjects]]:
    sides = (frames_of(video, indices, by_mask) for video in (truth, run))
    for true, found in zip(*sides, strict=True):
        yield counted(true, found, by_mask)


def _classes(objects: FrameObjects, class_by: ClassBy | None) -> list[str]:
    if class_by is None or len(objects) == 0:
        return [""] * len(objects)
    column = objects.names if class_by == "names" else objects.numbers
    if column is None:
        raise ValueError(f"expected objects with class {class_by}, got ids {objects.ids.tolist()} without")
    return [str(value) for value in column.tolist()]


def _regions(
    frames: Iterable[tuple[FrameObjects, FrameObjects]],
    parts: dict[str, _Part],
    class_by: ClassBy | None,
    size: tuple[int, int],
) -> dict[str, RegionScores]:
    """J and F of each class, from a second look at the masks, at all classes at once."""
    pairs = {name: region_pairs(part.tracks) for name, part in parts.items()}
    keys: list[tuple[Key, Key | None]] = [
        ((name, pair.true_id), None if pair.found_id is None else (name, pair.found_id))
        for name, of_class in pairs.items()
        for pair in of_class
    ]
    masks = ((_masks(true, class_by), _masks(found, class_by)) for true, found in frames)
    boundaries = iter(boundary_means(keys, masks, size) if keys else [])
    return {
        name: RegionScores(tuple(pair.region for pair in of_class), tuple(islice(boundaries, len(of_class))))
        for name, of_class in pairs.items()
    }


def _masks(objects: FrameObjects, class_by: ClassBy | None) -> dict[Key, Rle]:
    """Class and id → encoded mask."""
    keys = zip(_classes(objects, class_by), objects.ids.tolist(), strict=True)
    return dict(zip(keys, objects.masks or [], strict=True))


def _common_size(truth: Video, run: Video) -> tuple[int, int]:
    """(width, height) of the frames; zeros where neither says.

    Raises:
        ValueError: they differ, or are too large.
    """
    if truth.size is not None and run.size is not None and truth.size != run.size:
        (width, height), (other_width, other_height) = run.size, truth.size
        raise ValueError(
            f"{run.origin} is {width}x{height} pixels, and its truth {truth.origin} {other_width}x{other_height}"
        )
    size = truth.size or run.size or (0, 0)
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"{truth.origin}: expected at most {MAX_PIXELS} pixels, got {size[0]}x{size[1]}")
    return size


def _common_frames(truth: Video, run: Video, is_sparse: bool) -> list[int]:
    """The frames that are compared: those of the truth; of a truth that does not list them, up to the last of both.

    Raises:
        ValueError: one side has frames that the other one should have and has not.
    """
    true, found = set(truth.frame_indices), set(run.frame_indices)
    if truth.lists_frames:
        if run.lists_frames and true - found:
            raise ValueError(f"{run.origin} lacks {_named(true - found)} of its truth {truth.origin}")
        if found - true and not is_sparse:
            more = _named(found - true)
            raise ValueError(f"{run.origin} has {more}, its truth {truth.origin} has not (--sparse-truth leaves them)")
        return sorted(true)
    if run.lists_frames:
        if true - found:
            raise ValueError(f"{run.origin} lacks {_named(true - found)} of its truth {truth.origin}")
        return sorted(found)
    return list(range(max(true | found, default=-1) + 1))


def _named(frames: set[int]) -> str:
    first = sorted(frames)[:3]
    more = f" and {len(frames) - len(first)} more" if len(frames) > len(first) else ""
    return f"frame {', '.join(map(str, first))}{more}"
