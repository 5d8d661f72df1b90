"""One object's life: where it is in it, what it looks like, and where it was seen."""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from grounded_sam2.masks import Corners, Masks, corners_of, decode_rle, encode_rle
from grounded_sam2.track.rules import IdentityRules

__all__ = ["FOLLOWED", "Descriptors", "Track", "TrackState", "unit"]

Descriptors: TypeAlias = npt.NDArray[np.floating]


# of a track, what is about the thing that is followed at the moment, not about who it is
_OF_SIGHT = (
    *("last_seen_frame_idx", "usual_area", "jumped_frames", "astray_rounds", "in_doubt", "is_guess", "place", "mask"),
)
_SAME_LOOK = 0.98  # cosine of two sightings of which the older one says nothing more


class TrackState(str, Enum):
    """Where an object is in its life."""

    TENTATIVE = "tentative"  # detected, not yet often enough to be shown
    ACTIVE = "active"  # seen on the last frame
    OCCLUDED = "occluded"  # not seen, SAM 2 still looks for it
    LOST = "lost"  # not seen for long; SAM 2 has let go, the detector can bring it back
    ENDED = "ended"  # its id is never used again


FOLLOWED = (TrackState.TENTATIVE, TrackState.ACTIVE, TrackState.OCCLUDED)  # states in which SAM 2 follows an object


@dataclass
class Track:
    """One object's life so far.

    Attributes:
        obj_id: at least 1, never used for another object.
        state: where it is in its life.
        class_votes: summed confidence of its detections, by phrase index.
        confidence: of its last detection.
        first_frame_idx: frame of its first detection.
        last_seen_frame_idx: last frame with a mask.
        rounds: whether each of the last rounds of detection found it.
        looks: (K, C) unit float32, what it has looked like, as different sightings as there were; None if never given.
        is_rough: whether these are of a poor view only, which the first good one replaces.
        usual_area: pixels, averaged over the last frames.
        jumped_frames: consecutive frames on which its area was far from that.
        astray_rounds: rounds of detection in a row in which its mask was on what belongs to another object.
        in_doubt: whether what SAM 2 sees of it only counts once a detection agrees.
        is_given: whether a person has shown and named it: no detection renames it or changes its outline while it is
            in sight, it is looked for however long it is hidden, and what SAM 2 sees of it counts.
        is_known: whether its id is from an earlier video, in which it was named for good; until it is seen in this
            one, its frames are -1 and only its looks can bring it back.
        is_guess: whether SAM 2 alone brought it back into sight, and no detection has agreed yet.
        place: left, top, right, bottom in pixels of its mask when it was last in sight, the last two exclusive; None
            while it is in sight, and when that was in another scene or astray.
        apart: objects that were detected beside it in one round, so that they cannot be the same.
        mask: (H, W) bool on the last frame if SAM 2 sees it there, else None.
    """

    obj_id: int
    state: TrackState
    class_votes: dict[int, float]
    confidence: float
    first_frame_idx: int
    last_seen_frame_idx: int
    rounds: deque[bool]
    looks: Descriptors | None = None
    is_rough: bool = True
    usual_area: float = 0.0
    jumped_frames: int = 0
    astray_rounds: int = 0
    in_doubt: bool = False
    is_given: bool = False
    is_known: bool = False
    is_guess: bool = False
    place: Corners | None = None
    apart: set[int] = field(default_factory=set)
    mask: Masks | None = None

    @property
    def class_id(self) -> int:
        """The phrase that most of its detections, weighed by confidence, gave it."""
        return max(self.class_votes, key=lambda class_id: self.class_votes[class_id])

    @property
    def is_from_before(self) -> bool:
        """Whether it was seen in an earlier video, and not yet in this one."""
        return self.is_known and self.last_seen_frame_idx < 0

    @property
    def in_sight(self) -> bool:
        """Whether SAM 2 sees it on the last frame, and that counts."""
        return self.mask is not None and not self.in_doubt

    def to_dict(self) -> dict[str, Any]:
        """Plain values; the inverse of `from_dict`."""
        return {
            **vars(self),
            "state": self.state.value,
            "rounds": list(self.rounds),
            "apart": sorted(self.apart),
            "looks": None if self.looks is None else self.looks.tolist(),
            "mask": None if self.mask is None else encode_rle(self.mask[None])[0],
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any], rules: IdentityRules) -> "Track":
        """The inverse of `to_dict`, under the same rules."""
        looks, mask = saved["looks"], saved["mask"]
        return cls(
            **{
                **saved,
                "state": TrackState(saved["state"]),
                "rounds": deque(saved["rounds"], maxlen=rules.confirm_window),
                "place": None if saved["place"] is None else tuple(saved["place"]),
                "apart": set(saved["apart"]),
                "looks": None if looks is None else np.array(looks, dtype=np.float32),
                "mask": None if mask is None else decode_rle([mask])[0],
            }
        )

    def vote(self, class_id: int, confidence: float) -> None:
        """Count one detection of the object."""
        if not self.is_given and not self.is_known:
            self.class_votes[class_id] = self.class_votes.get(class_id, 0.0) + confidence
        self.confidence = confidence

    def learn_look(self, look: Descriptors, is_clear: bool, rules: IdentityRules) -> None:
        """Remember what it looks like (C,); one of a poor view only as long as there is no better one."""
        if self.is_rough:
            self.looks, self.is_rough = unit(look)[None], not is_clear
        elif is_clear and self.looks is not None:
            looks = np.vstack([self.looks, unit(look)])
            alike = looks @ looks.T
            alike[np.tril_indices(len(looks))] = -np.inf
            if len(looks) > rules.max_looks or alike.max() >= _SAME_LOOK:  # of the two most alike the older one goes
                looks = np.delete(looks, alike.argmax() // len(looks), axis=0)
            self.looks = looks

    def learn_area(self, area: int, rules: IdentityRules) -> bool:
        """Take in a mask's area in pixels; False when it jumped, so that the mask is not to be remembered."""
        ratio = area / self.usual_area if self.usual_area else 1.0
        is_jump = max(ratio, 1 / ratio) > rules.max_area_ratio
        self.jumped_frames = self.jumped_frames + 1 if is_jump else 0
        if is_jump and self.jumped_frames <= rules.jump_patience:
            return False
        self.usual_area = float(area) if is_jump or not self.usual_area else 0.8 * self.usual_area + 0.2 * area
        return True

    def show(self, mask: Masks, frame_idx: int) -> None:
        """Be in sight, beyond doubt, where a detection shows the object."""
        self.mask, self.place, self.last_seen_frame_idx = mask, None, frame_idx
        self.usual_area, self.jumped_frames, self.astray_rounds = float(mask.sum()), 0, 0
        self.in_doubt = self.is_guess = False

    def exchange_sight(self, other: "Track") -> None:
        """Take over from another object where it is followed, and give it what this one had; who they are stays."""
        for name in _OF_SIGHT:
            mine, its = getattr(self, name), getattr(other, name)
            setattr(self, name, its)
            setattr(other, name, mine)

    def hide(self) -> None:
        """Be out of sight; the place where it was in sight is kept."""
        if self.in_sight and self.mask is not None:
            self.place = corners_of(self.mask)
        self.mask = None

    def is_long_hidden(self, frame_idx: int, rules: IdentityRules) -> bool:
        """Whether it was out of sight for so long that SAM 2 alone cannot bring it back."""
        hidden = frame_idx - self.last_seen_frame_idx
        may_be_another = self.mask is None and not self.is_given
        return may_be_another and rules.doubt_after is not None and hidden > rules.doubt_after


def unit(descriptor: Descriptors) -> Descriptors:
    """A descriptor (C,) or descriptors (N, C) as float32 of length 1; zeros stay zeros."""
    descriptor = np.asarray(descriptor, dtype=np.float32)
    return descriptor / np.maximum(np.linalg.norm(descriptor, axis=-1, keepdims=True), 1e-12)
