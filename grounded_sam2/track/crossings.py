"""Which of two objects of one phrase is which after their ways crossed: each goes on as it came.

While two look-alikes are in each other's way, SAM 2 may change them over, and neither masks nor looks tell. Their ways
do: from where one is beside the other before they meet follows, at a steady pace, where it is beside the other when
they have parted. A camera that moves moves both, and does not matter. Where a detector sees both while they meet, their
ways go on from there, so that a turn is seen.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
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
        """Take in the objects on a frame, in any state; returns pairs that have parted changed over."""
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
        changed = []
        for pair, since in list(self.meetings.items()):
            if pair in touching or (followed_ids.issuperset(pair) and not boxes.keys() >= set(pair)):
                continue
            del self.meetings[pair]
            if followed_ids.issuperset(pair) and frame_idx - since <= rules.crossing_frames:
                offset = _centre(boxes[pair[0]]) - _centre(boxes[pair[1]])
                if _is_like(self._expected(pair, frame_idx), -offset):
                    changed.append(pair)
        is_met = {obj_id for pair in self.meetings for obj_id in pair}
        for obj_id in boxes.keys() - is_met:
            trail = self._trail(obj_id)
            x, y = _centre(boxes[obj_id])
            trail.append((frame_idx, float(x), float(y)))
        return changed

    def sort_found(
        self, frame_idx: int, found: Mapping[int, npt.NDArray[np.float64]], rules: IdentityRules
    ) -> list[Pair]:
        """Take in where a detector found objects, each under the id of the mask it fits; returns pairs that are in each
        other's way and were found changed over.

        Args:
            frame_idx: 0-based, the frame after the last that `see` was told about.
            found: boxes, xyxy in pixels, by object id.
            rules: `crossing_frames`, and `stay_for`: a way is known for so many frames.
        """
        changed = []
        for pair in self.meetings:
            if not found.keys() >= set(pair) or not rules.crossing_frames:
                continue
            boxes = [found[obj_id] for obj_id in pair]
            centres = [_centre(box) for box in boxes]
            offset = centres[0] - centres[1]
            least = _APART * np.sqrt(np.mean([np.prod(box[2:] - box[:2]) for box in boxes]))
            if np.linalg.norm(offset) < least:
                continue
            trails = [self._trail(obj_id) for obj_id in pair]
            is_fresh = all(trail and frame_idx - trail[-1][0] <= rules.stay_for for trail in trails)
            expected = self._expected(pair, frame_idx) if is_fresh else None
            if _is_like(expected, -offset):
                changed.append(pair)
                centres.reverse()
            elif _overlap(*boxes) and not _is_like(expected, offset):
                continue  # one may hide the other, and either be taken for it
            for trail, (x, y) in zip(trails, centres, strict=True):
                if not trail or trail[-1][0] < frame_idx:
                    trail.append((frame_idx, float(x), float(y)))
        return changed

    def _trail(self, obj_id: int) -> deque[tuple[int, float, float]]:
        """The trail of an object, begun where it has none."""
        return self.trails.setdefault(obj_id, deque(maxlen=2 * _LONGEST_TRAIL))

    def _expected(self, pair: Pair, frame_idx: int) -> npt.NDArray[np.float64] | None:
        """(2,) from the second object's centre to the first's on a frame, if both went on as they came; None: it is not
        known how they came."""
        one, other = ({frame: np.array((x, y)) for frame, x, y in self.trails.get(obj_id, ())} for obj_id in pair)
        frames = sorted(one.keys() & other.keys())[-_LONGEST_TRAIL:]
        if len(frames) < _SHORTEST_TRAIL:
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
