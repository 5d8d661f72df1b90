"""Text as a source of objects: what a prompt wants, what it does not, and prompts that change."""

import numpy as np
import pytest
import supervision as sv

from grounded_sam2.detectors.base import make_detections
from grounded_sam2.prompts import Prompt, TextPrompt, read_prompt
from grounded_sam2.track.discovery import Discovery, TextDiscovery

IMAGE = np.zeros((60, 80, 3), np.uint8)
BOXES = {"car": [0, 0, 30, 30], "dog": [40, 0, 70, 30], "toy car": [0, 2, 30, 30]}


class Everywhere:
    """Finds every phrase that it is asked for, each in its own place, with its own confidence."""

    def __init__(self, **confidence: float) -> None:
        self.confidence = {name.replace("_", " "): value for name, value in confidence.items()}
        self.calls: list[tuple[Prompt, dict[str, float]]] = []

    def detect(self, images: np.ndarray, text_prompt: TextPrompt, **thresholds: float) -> list[sv.Detections]:
        prompt = read_prompt(text_prompt)
        self.calls.append((prompt, thresholds))
        names = prompt.looked_for
        xyxy = np.array([BOXES[name] for name in names], np.float32)
        confidence = np.array([self.confidence.get(name, 0.5) for name in names])
        return [make_detections(xyxy, confidence, np.arange(len(names)), prompt.phrases, (80, 60))]


def test_what_the_prompt_names_is_found() -> None:
    detector = Everywhere(car=0.6)
    discovery = TextDiscovery(detector, "dog. car", box_threshold=0.2, text_threshold=0.1)
    assert isinstance(discovery, Discovery) and not isinstance(detector, Discovery)
    found = discovery.find(IMAGE, 0)
    assert found.class_id.tolist() == [1, 0] and found.xyxy[0].tolist() == BOXES["car"]
    assert detector.calls == [(Prompt(("dog", "car")), {"box_threshold": 0.2, "text_threshold": 0.1})]


@pytest.mark.parametrize(("toy_car", "expected"), [(0.9, ["dog"]), (0.3, ["car", "dog"])])
def test_what_is_more_surely_unwanted_is_dropped(toy_car: float, expected: list[str]) -> None:
    discovery = TextDiscovery(Everywhere(car=0.6, toy_car=toy_car), "car. not a toy car. dog")
    found = discovery.find(IMAGE, 0)
    assert [discovery.phrases[class_id] for class_id in found.class_id] == expected


def test_class_ids_stay_when_the_prompt_changes() -> None:
    discovery = TextDiscovery(Everywhere(), "car")
    discovery.set_prompt("dog. car")
    assert discovery.phrases == ["car", "dog"]
    assert sorted(discovery.find(IMAGE, 1).class_id.tolist()) == [0, 1]
    discovery.set_prompt("dog")
    found = discovery.find(IMAGE, 2)
    assert found.class_id.tolist() == [1] and discovery.phrases == ["car", "dog"]


def test_a_saved_prompt_is_restored() -> None:
    saved = TextDiscovery(Everywhere(), "car")
    saved.set_prompt("dog@0.4=hound. not a toy car")
    detector = Everywhere()
    restored = TextDiscovery(detector, "car")
    restored.restore(saved.save())
    assert restored.phrases == ["car", "dog"] and restored.find(IMAGE, 0).class_id.tolist() == [1]
    assert detector.calls[0][0] == Prompt(("dog",), ("toy car",), {"dog": ("hound",)}, {"dog": 0.4})


@pytest.mark.parametrize(
    ("prompt", "message"),
    [("", "the text prompt names nothing"), ("not a dog.", "at least one phrase that does not begin with 'not'")],
)
def test_a_prompt_that_wants_nothing_is_refused(prompt: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextDiscovery(Everywhere(), prompt)
    discovery = TextDiscovery(Everywhere(), "car")
    with pytest.raises(ValueError, match=message):
        discovery.set_prompt(prompt)
    assert len(discovery.find(IMAGE, 0)) == 1


def test_nothing_is_looked_for_before_there_is_a_prompt() -> None:
    detector = Everywhere()
    discovery = TextDiscovery(detector, None)
    found = discovery.find(IMAGE, 0)
    assert len(found) == 0 and found.xyxy.shape == (0, 4) and found.class_id.tolist() == found.confidence.tolist() == []
    assert discovery.phrases == detector.calls == [] and discovery.prompt is None
    restored = TextDiscovery(detector, "car")
    restored.restore(discovery.save())
    assert restored.prompt is None and restored.phrases == []
    discovery.set_prompt("dog")
    assert len(discovery.find(IMAGE, 1)) == 1 and discovery.prompt == Prompt(("dog",))
