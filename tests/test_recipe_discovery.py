"""Recipe: another source of objects. This one needs no prompt, and finds one fixed box on every frame."""

from typing import Any

import numpy as np
import pytest
import supervision as sv
from fake_follower import FakeFollower, picture

from grounded_sam2.detectors.base import Image, make_detections
from grounded_sam2.prompts import TextPrompt
from grounded_sam2.track.continuous import ContinuousTracker


class Gate:
    """Whatever stands in one place, such as before a gate, is an object."""

    def __init__(self, box: tuple[int, int, int, int]) -> None:
        self.box = np.array([box])
        self.phrases = ["visitor"]

    def find(self, image: Image, frame_idx: int) -> sv.Detections:
        size = (image.shape[1], image.shape[0])
        return make_detections(self.box, np.array([0.9]), np.array([0]), self.phrases, size)

    def set_prompt(self, text_prompt: TextPrompt) -> None:
        if text_prompt:
            raise ValueError(f"a gate takes no prompt, got {text_prompt!r}")

    def save(self) -> dict[str, Any]:
        return {}

    def restore(self, saved: dict[str, Any]) -> None:
        assert saved == {}


def test_who_stands_there_becomes_an_object_once() -> None:
    tracker = ContinuousTracker(Gate((8, 8, 24, 24)), FakeFollower(), detect_every=1, scene_cut=None)
    found = [tracker.step(picture({7: (8 + 4 * t, 8, 24 + 4 * t, 24)})) for t in range(4)]
    assert [objects.tracker_id.tolist() for objects in found] == [[1]] * 4
    assert found[3].xyxy.tolist() == [[20, 8, 36, 24]] and found[3].data["class_name"].tolist() == ["visitor"]
    assert tracker.step(picture({7: (40, 8, 56, 24), 9: (8, 8, 24, 24)})).tracker_id.tolist() == [1, 2]


def test_it_takes_the_empty_prompt_only() -> None:
    tracker = ContinuousTracker(Gate((8, 8, 24, 24)), FakeFollower(), "")
    tracker.set_prompt("")
    with pytest.raises(ValueError, match="a gate takes no prompt, got 'dog'"):
        tracker.set_prompt("dog")
    with pytest.raises(ValueError, match="a gate takes no prompt, got 'dog'"):
        ContinuousTracker(Gate((8, 8, 24, 24)), FakeFollower(), "dog")
