"""Objects are looked for until some are found; then those are followed, also by a run that goes on with another."""

import io
from typing import Any

import numpy as np
import pytest
import supervision as sv
import torch
from fake_follower import FakeFollower, picture

from grounded_sam2.detectors.base import make_detections
from grounded_sam2.prompts import parse_prompt
from grounded_sam2.track.first_sight import FirstSightTracker
from grounded_sam2.track.tracking import PromptType

SIZE = (64, 48)
# nothing for two frames, then two objects, of which one hides for a frame
FRAMES = [
    picture({}),
    picture({}),
    picture({50: (2, 3, 20, 22), 90: (30, 10, 50, 40)}),
    picture({90: (32, 10, 52, 40)}),
    picture({50: (8, 3, 26, 22), 90: (34, 10, 54, 40)}),
]


class ByColour:
    """Finds filled boxes, and counts how often it is asked."""

    def __init__(self) -> None:
        self.num_calls = 0

    def detect(self, images: np.ndarray, text_prompt: Any, **_: float) -> list[sv.Detections]:
        self.num_calls += 1
        phrases = parse_prompt(text_prompt)
        colours = [colour for colour in (90, 50) if (images[..., 0] == colour).any()]
        boxes = [sv.mask_to_xyxy((images[..., 0] == colour)[None])[0] + [0, 0, 1, 1] for colour in colours]
        class_id = np.array([{90: 1, 50: 0}[colour] for colour in colours], dtype=np.int64)
        confidence = np.linspace(0.9, 0.8, len(colours))
        return [make_detections(np.reshape(boxes, (-1, 4)), confidence, class_id, phrases, SIZE)]


def tracker(prompt_type: PromptType = "box", **options: Any) -> FirstSightTracker:
    return FirstSightTracker(ByColour(), FakeFollower(), "dog. red car.", prompt_type=prompt_type, **options)


@pytest.mark.parametrize("prompt_type", ["box", "point", "mask"])
def test_what_is_found_first_is_followed(prompt_type: PromptType) -> None:
    following = tracker(prompt_type)
    assert following.frame_idx == -1 and len(following.objects) == 0
    seen = [following.step(image) for image in FRAMES]
    assert following.detector.num_calls == 3 and following.frame_idx == 4
    assert [[] if not len(objects) else objects.tracker_id.tolist() for objects in seen] == [
        [],
        [],
        [1, 2],
        [1],
        [1, 2],
    ]
    assert following.objects.data["class_name"].tolist() == ["red car", "dog"] and following.objects.mask is None
    for image, objects in zip(FRAMES, seen, strict=True):
        assert objects.mask.shape == (len(objects), SIZE[1], SIZE[0])
        for mask, obj_id in zip(objects.mask, objects.tracker_id, strict=True):
            assert np.array_equal(mask, image[..., 0] == {1: 90, 2: 50}[int(obj_id)])
    assert seen[4].class_id.tolist() == [1, 0] and seen[4].confidence.tolist() == pytest.approx([0.9, 0.8])
    assert following.take_events() == []


@pytest.mark.parametrize("num_before", range(len(FRAMES) + 1))
def test_a_saved_tracker_goes_on_as_if_nothing_had_happened(num_before: int) -> None:
    whole, first, second = tracker(), tracker(), tracker()
    expected = [whole.step(image) for image in FRAMES]
    for image in FRAMES[:num_before]:
        first.step(image)
    buffer = io.BytesIO()
    torch.save(first.save(), buffer)
    buffer.seek(0)
    second.restore(torch.load(buffer, weights_only=True))
    assert second.frame_idx == num_before - 1
    for image, objects in zip(FRAMES[num_before:], expected[num_before:], strict=True):
        again = second.step(image)
        for name in ("xyxy", "mask", "confidence", "class_id", "tracker_id"):
            assert np.array_equal(getattr(again, name), getattr(objects, name)), name
        assert again.data["class_name"].tolist() == objects.data["class_name"].tolist()
    assert second.objects.data["class_name"].tolist() == whole.objects.data["class_name"].tolist()


def test_a_prompt_that_names_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="names nothing"):
        FirstSightTracker(ByColour(), FakeFollower(), " . ")
