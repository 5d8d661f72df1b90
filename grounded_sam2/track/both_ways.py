"""Objects that are found on one frame of a video are followed from it to both ends.

tracker = TwoWayTracker(predictor, frames, frame_idx)
objects = tracker.start(detections)             # the detector's boxes on that frame get masks and ids
for _ in tracker.go_back():                     # from there to the first frame
    ...
for image in frames:                            # from the first frame to the last
    objects = tracker.step(image)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import supervision as sv

from grounded_sam2.images import RGBImage
from grounded_sam2.track.events import IdentityEvent
from grounded_sam2.track.follower import Follower, Seen, as_follower
from grounded_sam2.track.tracking import (
    PromptType,
    add_objects,
    no_objects,
    objects_in_sight,
    pack_objects,
    segment_on_frame,
    unpack_objects,
)
from grounded_sam2.video.frame_source import IndexedFrameSource

if TYPE_CHECKING:
    from sam2.sam2_video_predictor import SAM2VideoPredictor

__all__ = ["TwoWayTracker"]


class TwoWayTracker:
    """One object for each detection of one frame, followed back to the first frame and on to the last.

    Both passes can be saved between any two frames. What is followed back is kept as run-length encodings until `step`
    gives it.

    Args:
        follower: follows the objects.
        frames: the video.
        start_frame_idx: 0-based frame on which the objects are found.

    Attributes:
        objects: what `start` returned; None before.
        frame_idx: 0-based, of the frame that `step` gave last; -1 before the first.
    """

    def __init__(
        self, follower: Follower | SAM2VideoPredictor, frames: IndexedFrameSource, start_frame_idx: int
    ) -> None:
        self.objects: sv.Detections | None = None
        self.frame_idx = -1
        self._frames = frames
        self._start_frame_idx = start_frame_idx
        self._follower = as_follower(follower)
        self._video = self._follower.open_video(frames)
        self._reached = start_frame_idx  # the frame down to which the objects have been followed back
        self._before: list[dict[str, Any]] = []  # objects of the frames before the start, the earliest frame last
        self._ahead: Iterator[tuple[int, Seen]] | None = None  # what is seen from the next frame on

    def start(self, detections: sv.Detections, prompt_type: PromptType = "box") -> sv.Detections:
        """Make the objects.

        Args:
            detections: N ≥ 0 boxes in pixels of the start frame.
            prompt_type: what the follower is told about an object: its box, points inside its mask, or its mask.

        Returns:
            The detections with masks and `tracker_id` 1 … N; see `add_objects`.
        """
        detections = segment_on_frame(self._video, self._start_frame_idx, detections)
        self.objects = add_objects(self._video, self._start_frame_idx, detections, prompt_type)
        return self.objects

    def go_back(self) -> Iterator[int]:
        """Follow the objects back, or the rest of the way back; to be gone through before the first `step`.

        Yields:
            The 0-based index of each frame that was followed onto.
        """
        if not self.objects or self._reached == 0:
            return
        reached = self._reached
        for frame_idx, seen in self._video.follow(reached, reverse=True):
            if frame_idx < reached:
                self._before.append(pack_objects(objects_in_sight(seen, self.objects)))
                self._reached = frame_idx
                yield frame_idx

    def step(self, image: RGBImage) -> sv.Detections:
        """The objects of the next frame, from the first one on.

        Args:
            image: (H, W, 3) uint8 RGB, the frame; the follower has read it by itself.

        Returns:
            As `objects_in_sight` gives them.

        Raises:
            RuntimeError: before `start`, or frames before it have not been followed back.
        """
        if self.objects is None or (self.objects and self._reached > 0):
            raise RuntimeError("the way back has not been followed: call start(...) and go through go_back() first")
        self.frame_idx += 1
        if not self.objects:
            return no_objects(self._video.size)
        if self.frame_idx < self._start_frame_idx:
            return unpack_objects(self._before.pop(), self._video.size)
        if self._ahead is None:
            self._ahead = self._video.follow(self.frame_idx)
        _, seen = next(self._ahead)
        return objects_in_sight(seen, self.objects)

    def take_events(self) -> list[IdentityEvent]:
        """Nothing: all objects are found at once, and none is ever given up or taken for another."""
        return []

    def save(self) -> dict[str, Any]:
        """All that is left to do builds on, as tensors and plain values; inverse of `restore`."""
        return {
            "objects": None if self.objects is None else pack_objects(self.objects),
            "video": self._video.save(),
            "reached": self._reached,
            "before": list(self._before),
            "frame_idx": self.frame_idx,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on where a tracker of the same video, with the same models and settings, was saved."""
        self._video = self._follower.load_video(saved["video"], self._frames)
        self.objects = None if saved["objects"] is None else unpack_objects(saved["objects"], self._video.size)
        self._reached, self._before = saved["reached"], saved["before"]
        self.frame_idx, self._ahead = saved["frame_idx"], None
