"""Which of two objects of one phrase is which after their ways crossed: each goes on as it came.

While two look-alikes are in each other's way, SAM 2 may change them over, and neither masks nor looks tell. Their ways
do: from where one is beside the other before they meet follows, at a steady pace, where it is beside the other when
they have parted. A camera that moves moves both, and does not matter. Where a detector sees both while they meet, their
ways go on from there, so that a turn is seen.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from grounded_sam2.masks import corners_of
from grounded_sam2.track.object_track import Track
from grounded_sam2.track.rules import IdentityRules

__all__ = ["Crossings"]

_LONGEST_TRAIL = 8  # frames before a meeting from which a way is known
_SHORTEST_TRAIL = 4
_MARGIN = 0.1  # of a box, by which it is larger at each side: what lies before another object cuts it off at its edge
_MOST_OFF = 0.8  # of the way that is expected, the most by which one may differ from it to be taken for it
_SURENESS = 0.5  # of that difference, the most that what is taken for true may have of what is not
_APART = 0.3  # of the size of an object, the least way at which a detector's boxes tell which is where
_MOST_TOGETHER = 5  # objects that are changed over among each other; for more, all orders are too many

Pair = tuple[int, int]  # object ids, the lower one first


@dataclass
class Crossings:
    """Watches objects meet and part.

    Attributes:
        trails: the last frames, 0-based, on which an object was in nobody's way, and its centre there, x and y in
            pixels, by object id.
        meetings: the frame since which two objects are in each other's way, or were and one is out of sight.
    """

    trails: dict[int, deque[tuple[int, float, float]]] = field(default_factory=dict)
    meetings: dict[Pair, int] = field(default_factory=dict)

    def see(self, frame_idx: int, followed: Sequence[Track], rules: IdentityRules) -> list[Pair]:
        """Take in the objects on a frame, in any state; returns pairs to exchange, one after the other, of those that
        have parted changed over."""
        boxes = {
            track.obj_id: np.array(corners_of(track.mask), dtype=np.float64)
            for track in followed
            if track.in_sight and track.mask is not None and track.mask.any()
        }
        touching = _touching([track for track in followed if track.obj_id in boxes], boxes)
        followed_ids = {track.obj_id for track in followed}
        self.trails = {obj_id: trail for obj_id, trail in self.trails.items() if obj_id in followed_ids}
        for pair in touching:
            self.meetings.setdefault(pair, frame_idx)
        parted: dict[Pair, int] = {}
        for pair, since in list(self.meetings.items()):
            if pair in touching or (followed_ids.issuperset(pair) and not boxes.keys() >= set(pair)):
                continue
            del self.meetings[pair]
            if followed_ids.issuperset(pair) and frame_idx - since <= rules.crossing_frames:
                parted[pair] = since
        centres = {obj_id: _centre(box) for obj_id, box in boxes.items()}
        changed = [
            pair
            for pair, since in parted.items()
            if _is_like(self._expected(pair, frame_idx, since - rules.stay_for), centres[pair[1]] - centres[pair[0]])
        ]
        first = min((parted[pair] for pair in changed), default=frame_idx) - rules.stay_for
        takes = self._right_order(changed, list(parted), centres, frame_idx, first)
        is_met = {obj_id for pair in self.meetings for obj_id in pair}
        for obj_id in boxes.keys() - is_met:
            x, y = centres[takes.get(obj_id, obj_id)]
            self._trail(obj_id).append((frame_idx, float(x), float(y)))
        return _exchanges(takes)

    def sort_found(
        self, frame_idx: int, found: Mapping[int, npt.NDArray[np.float64]], rules: IdentityRules
    ) -> dict[int, int]:
        """Take in where a detector found objects, each under the id of the mask it fits; returns whose box is which's,
        by object id, for those that are in each other's way and were found changed over.

        Args:
            frame_idx: 0-based, the frame after the last that `see` was told about.
            found: boxes, xyxy in pixels, by object id.
            rules: `crossing_frames`, and `stay_for`: a way is known for so many frames.
        """
        centres = {obj_id: _centre(box) for obj_id, box in found.items()}
        changed: list[Pair] = []
        told: set[int] = set()
        met = [pair for pair in self.meetings if found.keys() >= set(pair) and rules.crossing_frames]
        for pair in met:
            boxes = [found[obj_id] for obj_id in pair]
            offset = centres[pair[0]] - centres[pair[1]]
            least = _APART * np.sqrt(np.mean([np.prod(box[2:] - box[:2]) for box in boxes]))
            if np.linalg.norm(offset) < least:
                continue
            expected = self._expected(pair, frame_idx, frame_idx - rules.stay_for)
            if _is_like(expected, -offset):
                changed.append(pair)
            elif not _overlap(*boxes) or _is_like(expected, offset):  # else one may hide the other and be taken for it
                told.update(pair)
        takes = self._right_order(changed, met, centres, frame_idx, frame_idx - rules.stay_for)
        told -= {obj_id for pair in changed for obj_id in pair}
        for obj_id in sorted(told | takes.keys()):
            trail, (x, y) = self._trail(obj_id), centres[takes.get(obj_id, obj_id)]
            if not trail or trail[-1][0] < frame_idx:
                trail.append((frame_idx, float(x), float(y)))
        return takes

    def _right_order(
        self,
        changed: Sequence[Pair],
        met: Sequence[Pair],
        centres: Mapping[int, npt.NDArray[np.float64]],
        frame_idx: int,
        not_before: int,
    ) -> dict[int, int]:
        """In whose place each object is to be that is not in its own, so that all go on as they came.

        Where pairs that are changed over have met others, that order of them all is taken which fits their ways best,
        if it fits them much better than the one that they are in.
        """
        takes: dict[int, int] = {}
        for group in _connected(met):
            if len(group) > _MOST_TOGETHER or not any(pair[0] in group for pair in changed):
                continue
            expected = {pair: self._expected(pair, frame_idx, not_before) for pair in combinations(group, 2)}
            order = _best_order(group, centres, expected)
            takes |= {obj_id: other for obj_id, other in zip(group, order, strict=True) if obj_id != other}
        return takes

    def _trail(self, obj_id: int) -> deque[tuple[int, float, float]]:
        """The trail of an object, begun where it has none."""
        return self.trails.setdefault(obj_id, deque(maxlen=2 * _LONGEST_TRAIL))

    def _expected(self, pair: Pair, frame_idx: int, not_before: int) -> npt.NDArray[np.float64] | None:
        """(2,) from the second object's centre to the first's on a frame, if both went on as they came; None: it is not
        known how they came, or only how they did before the frame `not_before`."""
        one, other = ({frame: np.array((x, y)) for frame, x, y in self.trails.get(obj_id, ())} for obj_id in pair)
        frames = sorted(one.keys() & other.keys())[-_LONGEST_TRAIL:]
        if len(frames) < _SHORTEST_TRAIL or frames[-1] < not_before:
            return None
        slope, start = np.polyfit(frames, np.stack([one[frame] - other[frame] for frame in frames]), 1)
        return np.asarray(start + slope * frame_idx)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; the inverse of `restore`."""
        return {
            "trails": {obj_id: [list(place) for place in trail] for obj_id, trail in self.trails.items()},
            "meetings": [[*pair, since] for pair, since in self.meetings.items()],
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Inverse of `to_dict`."""
        self.trails = {
            obj_id: deque(map(tuple, trail), maxlen=2 * _LONGEST_TRAIL) for obj_id, trail in saved["trails"].items()
        }
        self.meetings = {(one, other): since for one, other, since in saved["meetings"]}


def _is_like(expected: npt.NDArray[np.float64] | None, way: npt.NDArray[np.float64]) -> bool:
    """Whether a way (2,) is about the one that is expected, and surely not the opposite one."""
    if expected is None:
        return False
    error, opposite = np.linalg.norm(expected - way), np.linalg.norm(expected + way)
    return bool(error <= _MOST_OFF * np.linalg.norm(expected) and error <= _SURENESS * opposite)


def _connected(pairs: Sequence[Pair]) -> list[list[int]]:
    """The groups of ids that pairs hold together, each in ascending order."""
    groups: list[set[int]] = []
    for pair in pairs:
        joined = [group for group in groups if group & {*pair}]
        groups = [group for group in groups if not group & {*pair}] + [{*pair}.union(*joined)]
    return [sorted(group) for group in groups]


def _best_order(
    group: Sequence[int],
    centres: Mapping[int, npt.NDArray[np.float64]],
    expected: Mapping[Pair, npt.NDArray[np.float64] | None],
) -> Sequence[int]:
    """Whose place each of a group is to take, so that the ways between them are those expected; as they are, where no
    order is surely better."""

    def error(order: Sequence[int]) -> float:
        place = dict(zip(group, order, strict=True))
        return sum(
            float(np.linalg.norm(way - (centres[place[one]] - centres[place[other]])))
            for (one, other), way in expected.items()
            if way is not None
        )

    best = min(permutations(group), key=error)
    return best if error(best) <= _SURENESS * error(group) else group


def _exchanges(takes: Mapping[int, int]) -> list[Pair]:
    """Pairs that, exchanged one after another, bring each object to the place of which `takes` says it is its own."""
    holds = {obj_id: obj_id for obj_id in takes}
    pairs = []
    for obj_id, place in takes.items():
        holder = next(other for other, held in holds.items() if held == place)
        if holder != obj_id:
            holds[obj_id], holds[holder] = holds[holder], holds[obj_id]
            pairs.append((min(obj_id, holder), max(obj_id, holder)))
    return pairs


def _touching(seen: Sequence[Track], boxes: dict[int, npt.NDArray[np.float64]]) -> set[Pair]:
    """Pairs of one phrase, neither shown by a person, whose boxes, xyxy in pixels, overlap or nearly do."""
    grown = {}
    for obj_id, box in boxes.items():
        margin = _MARGIN * np.tile(box[2:] - box[:2], 2)
        grown[obj_id] = box + margin * (-1, -1, 1, 1)
    pairs: set[Pair] = set()
    for one, other in combinations(seen, 2):
        if one.class_id != other.class_id or one.is_given or other.is_given:
            continue
        if _overlap(grown[one.obj_id], grown[other.obj_id]):
            pairs.add((min(one.obj_id, other.obj_id), max(one.obj_id, other.obj_id)))
    return pairs


def _overlap(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> bool:
    """Whether two boxes, xyxy, have an area in common."""
    return bool((np.minimum(one[2:], other[2:]) > np.maximum(one[:2], other[:2])).all())


def _centre(box: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(x, y) of a box, xyxy."""
    return (box[:2] + box[2:]) / 2
