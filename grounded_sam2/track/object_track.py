"""One object's life: where it is in it, what it looks like, and where it was seen."""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from grounded_sam2.masks import Corners, Masks, decode_rle, encode_rle
from grounded_sam2.track.rules import IdentityRules

__all__ = ["FOLLOWED", "Descriptors", "Track", "TrackState", "unit"]

Descriptors: TypeAlias = npt.NDArray[np.floating]


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
        descriptor: (C,) unit float32 appearance, averaged over its life; None if never given.
        usual_area: pixels, averaged over the last frames.
        jumped_frames: consecutive frames on which its area was far from that.
        astray_rounds: rounds of detection in a row in which its mask was on what belongs to another object.
        in_doubt: whether what SAM 2 sees of it only counts once a detection agrees.
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
    descriptor: Descriptors | None = None
    usual_area: float = 0.0
    jumped_frames: int = 0
    astray_rounds: int = 0
    in_doubt: bool = False
    is_guess: bool = False
    place: Corners | None = None
    apart: set[int] = field(default_factory=set)
    mask: Masks | None = None

    @property
    def class_id(self) -> int:
        """The phrase that most of its detections, weighed by confidence, gave it."""
        return max(self.class_votes, key=lambda class_id: self.class_votes[class_id])

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
            "descriptor": None if self.descriptor is None else self.descriptor.tolist(),
            "mask": None if self.mask is None else encode_rle(self.mask[None])[0],
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any], rules: IdentityRules) -> "Track":
        """A track as `to_dict` saw it, under the same rules."""
        descriptor, mask = saved["descriptor"], saved["mask"]
        return cls(
            **{
                **saved,
                "state": TrackState(saved["state"]),
                "rounds": deque(saved["rounds"], maxlen=rules.confirm_window),
                "place": None if saved["place"] is None else tuple(saved["place"]),
                "apart": set(saved["apart"]),
                "descriptor": None if descriptor is None else np.array(descriptor, dtype=np.float32),
                "mask": None if mask is None else decode_rle([mask])[0],
            }
        )

    def vote(self, class_id: int, confidence: float) -> None:
        """Count one detection of the object."""
        self.class_votes[class_id] = self.class_votes.get(class_id, 0.0) + confidence
        self.confidence = confidence

    def resemble(self, descriptor: Descriptors | None, rate: float) -> None:
        """Move the average appearance towards a new one."""
        if descriptor is not None:
            former = np.zeros_like(descriptor) if self.descriptor is None else self.descriptor
            self.descriptor = unit((1 - rate) * former + rate * unit(descriptor))


def unit(descriptor: Descriptors) -> Descriptors:
    """A descriptor (C,) or descriptors (N, C) as float32 of length 1; zeros stay zeros."""
    descriptor = np.asarray(descriptor, dtype=np.float32)
    return descriptor / np.maximum(np.linalg.norm(descriptor, axis=-1, keepdims=True), 1e-12)
