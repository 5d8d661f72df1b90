"""Follow what is found first: objects are looked for on each frame until there are some, and those are followed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import supervision as sv

from grounded_sam2.detectors.base import DEFAULT_BOX_THRESHOLD, DEFAULT_TEXT_THRESHOLD, Detector, Image
from grounded_sam2.prompts import TextPrompt, read_prompt
from grounded_sam2.track.events import IdentityEvent
from grounded_sam2.track.follower import Follower, as_follower
from grounded_sam2.track.tracking import (
    PromptType,
    add_objects,
    follow_newest_frame,
    no_objects,
    pack_objects,
    segment_on_frame,
    unpack_objects,
)

if TYPE_CHECKING:
    from sam2.sam2_video_predictor import SAM2VideoPredictor

__all__ = ["FirstSightTracker"]


class FirstSightTracker:
    """Follows the objects of the first frame that has any through a stream, of whose frames none is kept.

        tracker = FirstSightTracker(detector, predictor, "person. dog.")
        for frame in frames:
            objects = tracker.step(frame)

    Attributes:
        objects: what was found first, without masks, under the ids 1 … N; N = 0 until something is.
        frame_idx: 0-based index of the last frame, -1 before the first.
    """

    def __init__(
        self,
        detector: Detector,
        follower: Follower | SAM2VideoPredictor,
        text_prompt: TextPrompt,
        *,
        prompt_type: PromptType = "box",
        box_threshold: float = DEFAULT_BOX_THRESHOLD,
        text_threshold: float = DEFAULT_TEXT_THRESHOLD,
    ) -> None:
        """
        Args:
            detector: finds the prompt's phrases in an image.
            follower: follows the objects.
            text_prompt: see `grounded_sam2.prompts.read_prompt`.
            prompt_type: what the follower is told about an object: its box, points inside its mask, or its mask.
            box_threshold: see `Detector.detect`.
            text_threshold: see `Detector.detect`.

        Raises:
            ValueError: a prompt that names nothing wanted.
        """
        self.detector = detector
        self.prompt = read_prompt(text_prompt)
        self.prompt_type = prompt_type
        self.box_threshold = box_threshold
        self.text_threshold = text_threshold
        self.objects = no_objects((0, 0))
        self.frame_idx = -1
        self._follower = as_follower(follower)
        self._stream = self._follower.open_stream()

    def step(self, image: Image) -> sv.Detections:
        """Take in the next frame.

        Args:
            image: (H, W, 3) uint8 RGB, of the same size as the frames before.

        Returns:
            The objects that are seen on it, as `grounded_sam2.track.tracking.objects_in_sight` gives them.

        Raises:
            ValueError: not an RGB uint8 image, or of another size.
        """
        self.frame_idx = self._stream.append(image)
        if len(self.objects) == 0:
            [detections] = self.detector.detect(
                image, self.prompt, box_threshold=self.box_threshold, text_threshold=self.text_threshold
            )
            detections = segment_on_frame(self._stream, self.frame_idx, detections)
            self.objects = add_objects(self._stream, self.frame_idx, detections, self.prompt_type)
            self.objects.mask = None
        return follow_newest_frame(self._stream, self.objects)

    def take_events(self) -> list[IdentityEvent]:
        """Nothing: all objects are found at once, and none is ever given up or taken for another."""
        return []

    def save(self) -> dict[str, Any]:
        """All that the next `step` builds on, as tensors and plain values; inverse of `restore`."""
        return {"stream": self._stream.save(), "frame_idx": self.frame_idx, "objects": pack_objects(self.objects)}

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on behind the frame on which a tracker with the same models and settings was saved."""
        self._stream = self._follower.load_stream(saved["stream"])
        self.frame_idx = saved["frame_idx"]
        self.objects = unpack_objects(saved["objects"], self._stream.size)
