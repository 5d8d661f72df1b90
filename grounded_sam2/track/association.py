"""Which detection shows which object: by where it is, by where it was a moment ago, by what it looks like."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import supervision as sv
from scipy.optimize import linear_sum_assignment

from grounded_sam2.masks import Masks, corners_of, mask_overlaps
from grounded_sam2.track.object_track import Descriptors, Track, unit
from grounded_sam2.track.rules import IdentityRules

__all__ = [
    "Association",
    "assign",
    "begin_association",
    "check_lengths",
    "find_astray",
    "match_by_looks",
    "match_by_overlap",
    "match_by_place",
    "similarities",
]

_TOUCHING_IOU = 0.02  # of two masks of which one may hold pixels of the other's object
_IMPOSSIBLE = 1e6  # the cost of a pair that must not be matched


@dataclass
class Association:
    """The N detections of one round, the M objects that SAM 2 sees, and which object each detection shows so far.

    Attributes:
        frame_idx: 0-based.
        masks: N masks (H, W) bool.
        class_ids: (N,) int64 phrase indices.
        confidences: (N,) float32.
        descriptors: (N, C) what the detections look like, or None.
        seen: the M objects.
        ious: (N, M) mask IoU of detections and seen objects.
        inside: (N, M) share of the smaller mask that lies on the larger one.
        mutual_ious: (N, N) mask IoU of the detections.
        obj_ids: (N,) int64, the object that each detection shows; 0 as long as that is open.
        prompt: detections, by position, whose object SAM 2 is to be prompted with.
    """

    frame_idx: int
    masks: list[Masks]
    class_ids: npt.NDArray[np.int64]
    confidences: npt.NDArray[np.float32]
    descriptors: Descriptors | None
    seen: list[Track]
    ious: npt.NDArray[np.float64]
    inside: npt.NDArray[np.float64]
    mutual_ious: npt.NDArray[np.float64]
    obj_ids: npt.NDArray[np.int64]
    prompt: list[int] = field(default_factory=list)

    def settle(self, index: int, track: Track, needs_prompt: bool) -> None:
        """Note that a detection shows an object."""
        self.obj_ids[index] = track.obj_id
        if needs_prompt and index not in self.prompt:
            self.prompt.append(index)

    def same_class(self, tracks: Sequence[Track]) -> npt.NDArray[np.bool_]:
        """(N, K) whether each detection and each of K objects have the same phrase."""
        return self.class_ids[:, None] == np.array([track.class_id for track in tracks], dtype=np.int64)[None]

    def parts(self, rules: IdentityRules) -> npt.NDArray[np.bool_]:
        """(N,) whether a detection is a part of an object of its phrase that is in sight, or holds it as a part."""
        in_sight = np.array([track.in_sight for track in self.seen], dtype=bool)
        is_part = in_sight & self.same_class(self.seen) & (self.inside >= rules.covered_fraction)
        return np.any(is_part, axis=1)

    def free(self, is_part: npt.NDArray[np.bool_], rules: IdentityRules) -> list[int]:
        """Detections, by position, that are open, no part of a seen object, and no double of one that is settled."""
        open_rows = map(int, np.flatnonzero(~is_part & (self.obj_ids == 0)))
        return [index for index in open_rows if not self.is_double(index, rules)]

    def clear_views(self, rules: IdentityRules) -> npt.NDArray[np.bool_]:
        """(N,) whether a detection shows the whole of its object, surely: SAM 2 sees it there too, nothing else that
        was detected touches it, and the frame does not cut it off."""
        is_agreed = self.obj_ids[:, None] == np.array([track.obj_id for track in self.seen], dtype=np.int64)[None]
        is_agreed &= self.ious >= rules.merge_iou
        is_alone = (self.mutual_ious - np.diag(np.diag(self.mutual_ious)) < _TOUCHING_IOU).all(axis=1)
        is_sure = self.confidences >= rules.sure_confidence
        is_whole = np.array([_is_whole(mask) for mask in self.masks], dtype=bool)
        return np.any(is_agreed, axis=1) & is_alone & is_sure & is_whole

    def is_double(self, index: int, rules: IdentityRules) -> bool:
        """Whether a detection lies on another one of its phrase that shows an object."""
        doubles = (self.mutual_ious[index] >= rules.merge_iou) & (self.class_ids[index] == self.class_ids)
        return bool(self.obj_ids[doubles].any())


def begin_association(
    frame_idx: int, detections: sv.Detections, descriptors: Descriptors | None, seen: list[Track]
) -> Association:
    """A round of detection of which nothing is settled yet.

    Args:
        frame_idx: 0-based.
        detections: N ≥ 0, with `mask` (N, H, W) bool, `class_id` and `confidence`.
        descriptors: (N, C) what the detections look like, or None.
        seen: objects with a mask on the frame.

    Raises:
        ValueError: detections without masks, classes or confidences, or with another number of descriptors.
    """
    masks: list[Masks] = []
    class_ids, confidences = np.zeros(0, np.int64), np.zeros(0, np.float32)
    if len(detections) > 0:
        for name in ("mask", "class_id", "confidence"):
            if getattr(detections, name) is None:
                raise ValueError(f"expected detections with mask, class_id and confidence, got none of {name}")
        masks = list(np.asarray(detections.mask))
        class_ids = np.asarray(detections.class_id, dtype=np.int64)
        confidences = np.asarray(detections.confidence, dtype=np.float32)
    check_lengths(len(masks), descriptors=descriptors)
    ious, inside = mask_overlaps(masks, [track.mask for track in seen if track.mask is not None])
    mutual_ious = mask_overlaps(masks, masks)[0]
    obj_ids = np.zeros(len(masks), dtype=np.int64)
    return Association(frame_idx, masks, class_ids, confidences, descriptors, seen, ious, inside, mutual_ious, obj_ids)


def match_by_overlap(association: Association, rules: IdentityRules) -> list[tuple[int, int]]:
    """Pairs of a detection and the position of the seen object that it shows: by masks, then by looks."""
    same_class = association.same_class(association.seen)
    needed = np.where(same_class, rules.iou_threshold, rules.other_class_iou)
    fits = (association.ious >= needed) | (same_class & (association.inside >= rules.covered_fraction))
    weight = rules.appearance_weight
    likeness = similarities(association.descriptors, len(association.masks), association.seen)
    scores = np.where(
        np.isnan(likeness), association.ious, (1 - weight) * association.ious + weight * (1 + likeness) / 2
    )
    in_sight = np.array([track.in_sight for track in association.seen], dtype=bool)
    fits &= in_sight | np.isnan(likeness) | (likeness >= rules.least_likeness[0])
    return assign(np.where(fits, scores + 2 * same_class + in_sight, -1.0))


def find_astray(association: Association, rules: IdentityRules) -> list[Track]:
    """Objects in sight whose mask is on a detection that belongs to what cannot be the same object."""
    astray = []
    for column, track in enumerate(association.seen):
        obj_ids = association.obj_ids
        strangers = (association.class_ids != track.class_id) | np.isin(obj_ids, list(track.apart))
        others = (obj_ids > 0) & strangers & (association.ious[:, column] >= rules.astray_iou)
        if track.in_sight and not track.is_given and track.obj_id not in obj_ids and others.any():
            astray.append(track)
    return astray


def match_by_place(
    association: Association, free: Sequence[int], unseen: Sequence[Track], rules: IdentityRules
) -> list[tuple[int, int]]:
    """Pairs of a free detection and the position of the object that was last seen there, a moment ago."""
    earliest = association.frame_idx - rules.stay_for
    recent = [
        column
        for column, track in enumerate(unseen)
        if track.place is not None and track.last_seen_frame_idx >= earliest
    ]
    if not free or not recent:
        return []
    boxes = np.array([corners_of(association.masks[index]) for index in free], dtype=np.float32)
    places = np.array([unseen[column].place for column in recent], dtype=np.float32)
    overlap = sv.box_iou_batch(boxes, places)
    same_class = association.same_class(unseen)[np.ix_(free, recent)]
    scores = np.where(same_class & (overlap >= rules.iou_threshold), overlap, -1.0)
    return [(free[row], recent[column]) for row, column in assign(scores)]


def match_by_looks(
    association: Association, free: Sequence[int], unseen: Sequence[Track], rules: IdentityRules
) -> list[tuple[int, int]]:
    """Pairs of a free detection and the position of the unseen object that it shows.

    Without descriptors only a phrase that one detection and one unseen object share decides.
    """
    descriptors = association.descriptors
    threshold, margin = rules.least_likeness
    same_class = association.same_class(unseen)[list(free)]
    likeness = similarities(None if descriptors is None else descriptors[list(free)], len(free), unseen)
    scores = np.full(likeness.shape, -1.0)
    for row, column in zip(*np.nonzero(same_class), strict=True):
        if np.isnan(likeness[row, column]):
            is_only = same_class[row].sum() == 1 and same_class[:, column].sum() == 1
            scores[row, column] = 0.0 if is_only and not unseen[column].is_from_before else -1.0
            continue
        rivals = np.delete(likeness[row], column)[np.delete(same_class[row], column)]
        second = np.nanmax(rivals, initial=-1.0) if len(rivals) else -1.0
        caution = rules.known_caution if unseen[column].is_from_before else 0.0
        is_clear = likeness[row, column] >= second + margin + caution / 2
        if likeness[row, column] >= threshold + caution and is_clear:
            scores[row, column] = 1 + likeness[row, column]
    return [(free[row], column) for row, column in assign(scores)]


def similarities(
    descriptors: Descriptors | None, num_detections: int, tracks: Sequence[Track]
) -> npt.NDArray[np.float64]:
    """(N, M) cosines of N detections and what each of M objects looked most alike; NaN where either is unknown."""
    cosines = np.full((num_detections, len(tracks)), np.nan)
    if descriptors is not None and num_detections:
        found = unit(descriptors)
        for column, track in enumerate(tracks):
            if track.looks is not None:
                cosines[:, column] = (found @ track.looks.T).max(axis=1)
    return cosines


def assign(scores: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
    """One-to-one pairs (row, column) with the highest total score; a negative score forbids a pair."""
    rows, columns = linear_sum_assignment(np.where(scores >= 0, -scores, _IMPOSSIBLE))
    return [(int(row), int(column)) for row, column in zip(rows, columns, strict=True) if scores[row, column] >= 0]


def _is_whole(mask: Masks) -> bool:
    """Whether a mask (H, W) leaves the border of the frame free."""
    left, top, right, bottom = corners_of(mask)
    return left > 0 and top > 0 and right < mask.shape[1] and bottom < mask.shape[0]


def check_lengths(expected: int, **arrays: npt.NDArray[np.generic] | None) -> None:
    """Raise a ValueError for an array, other than None, whose first axis is not `expected` long."""
    for name, array in arrays.items():
        if array is not None and len(array) != expected:
            raise ValueError(f"expected {name} for {expected} objects, got {len(array)}")
