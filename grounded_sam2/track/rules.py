"""When two sightings are one object, and when an object comes and goes."""

from dataclasses import dataclass

__all__ = ["COLOURS_MARGIN", "COLOURS_THRESHOLD", "IdentityRules"]

# Cosines of `grounded_sam2.track.looks.Colours`.
COLOURS_THRESHOLD = 0.7
COLOURS_MARGIN = 0.05


@dataclass(frozen=True)
class IdentityRules:
    """When two sightings are one object, and when an object comes and goes.

    Attributes:
        iou_threshold: the least mask IoU, in [0, 1], of a detection and a followed object that can be the same.
        other_class_iou: the same where their phrases differ; detectors take one thing for another now and then.
        appearance_weight: share of the appearance in a match's score, in [0, 1]; the rest is the mask IoU.
        covered_fraction: of a detection and an object of one phrase, when this share, in [0, 1], of the smaller mask
            lies on the larger one, they are the same whatever their IoU; a second detection of that kind is ignored.
        sure_confidence: a detection with this confidence is shown at once, without waiting for others.
        confirm_hits: detections, out of the last `confirm_window` rounds of detection, that a new object needs.
        confirm_window: rounds of detection; a new object that cannot reach `confirm_hits` in them any more is dropped.
        reprompt_iou: an object whose mask has a lower IoU with its detection has drifted, and is corrected: SAM 2
            forgets what it tracked of it.
        lost_after: frames without a sighting after which SAM 2 stops looking for an object.
        doubt_after: frames without a sighting after which SAM 2 alone cannot bring an object back: a mask it sees then
            counts once a detection agrees; None: it always counts.
        stay_for: frames without a sighting for which an object is taken to be about where it was seen last: a detection
            of its phrase whose box has `iou_threshold` with the box it had there is it, whatever it looks like.
        forget_after: frames without a sighting after which a lost object cannot come back; None: it always can.
        max_lost: lost objects that are remembered, the most recently seen ones.
        similarity_threshold: the least cosine of two descriptors, in [-1, 1], with which an unseen object is found
            again; None: what the descriptor says.
        similarity_margin: how much closer than the second-best unseen object of its phrase it must be; None: likewise.
        known_caution: added to that threshold, and half of it to that margin, for an object that was not seen in this
            video yet but in an earlier one: many more could be meant, in another light.
        max_looks: how many sightings of an object are remembered to know it again by, those that differ most.
        merge_iou: two objects of one phrase whose masks have this IoU in `merge_rounds` rounds of detection are one,
            unless they were once found beside each other. Two detections of a phrase with this IoU are one at once.
        astray_iou: an object has gone astray when its mask has this IoU with a detection that belongs to another
            object, of another phrase or once found beside it, in `merge_rounds` rounds; SAM 2 lets go of it, and it
            can be found again. Nor does a hidden object come back where SAM 2 sees another one with this IoU.
        merge_rounds: rounds of detection in a row.
        crossing_frames: frames in which two objects of one phrase that get in each other's way have to part again for
            their ways to tell which is which; 0: SAM 2 alone tells.
        min_object_score: SAM 2's presence logit above which a mask counts as seen.
        max_area_ratio: a mask that is this many times larger or smaller than the object's usual area is kept out of
            its memory, as long as that lasts no more than `jump_patience` frames.
        jump_patience: frames.
        max_objects: objects followed at a time; None: any number. More detections are ignored, the least confident
            first.
    """

    iou_threshold: float = 0.3
    other_class_iou: float = 0.7
    appearance_weight: float = 0.3
    covered_fraction: float = 0.8
    sure_confidence: float = 0.5
    confirm_hits: int = 2
    confirm_window: int = 3
    reprompt_iou: float = 0.9
    lost_after: int = 60
    doubt_after: int | None = 10
    stay_for: int = 10
    forget_after: int | None = None
    max_lost: int = 256
    similarity_threshold: float | None = None
    similarity_margin: float | None = None
    known_caution: float = 0.1
    max_looks: int = 8
    merge_iou: float = 0.6
    astray_iou: float = 0.5
    merge_rounds: int = 2
    crossing_frames: int = 60
    min_object_score: float = 0.0
    max_area_ratio: float = 3.0
    jump_patience: int = 5
    max_objects: int | None = None

    def __post_init__(self) -> None:
        fractions = ("iou_threshold", "other_class_iou", "appearance_weight", "covered_fraction", "sure_confidence")
        for name in (*fractions, "reprompt_iou", "merge_iou", "astray_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"expected {name} in [0, 1], got {getattr(self, name)}")
        for name in ("confirm_hits", "confirm_window", "lost_after", "merge_rounds", "max_looks"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} of at least 1, got {getattr(self, name)}")
        if self.crossing_frames < 0:
            raise ValueError(f"expected crossing_frames of at least 0, got {self.crossing_frames}")
        if self.confirm_hits > self.confirm_window:
            raise ValueError(
                f"expected confirm_hits of at most confirm_window, got {self.confirm_hits} of {self.confirm_window}"
            )
        if self.max_area_ratio <= 1:
            raise ValueError(f"expected max_area_ratio above 1, got {self.max_area_ratio}")
        if self.max_objects is not None and self.max_objects < 0:
            raise ValueError(f"expected max_objects of at least 0 or None, got {self.max_objects}")

    @property
    def least_likeness(self) -> tuple[float, float]:
        """The threshold and the margin of similarity; where none is given, those that fit colours."""
        threshold, margin = self.similarity_threshold, self.similarity_margin
        return COLOURS_THRESHOLD if threshold is None else threshold, COLOURS_MARGIN if margin is None else margin
