"""Florence-2 under the detectors' contract."""

from pathlib import Path

import numpy as np
import pytest
import supervision as sv
from tiny_florence2 import say

from grounded_sam2.detectors.florence2 import Florence2, Florence2Detector
from grounded_sam2.prompts import parse_prompt

PROMPT = "red apple. Green apple. dog"
DOG, CAT, COW = (
    "<loc_100><loc_200><loc_300><loc_400>",
    "<loc_500><loc_510><loc_900><loc_910>",
    "<loc_5><loc_6><loc_40><loc_50>",
)
OUTLINE = (
    "<poly><loc_10><loc_20><loc_110><loc_21><loc_60><loc_220>"
    "<sep><loc_300><loc_31><loc_310><loc_32><loc_311><loc_33></poly>"
)
SIZE = (80, 60)  # of the first image


@pytest.fixture(scope="module")
def detector(tiny_florence2: Path) -> Florence2Detector:
    """Over a model whose answers are random; not to be changed."""
    florence2 = Florence2(tiny_florence2, num_beams=1, max_new_tokens=110, batch_size=2)
    return Florence2Detector(florence2, nms_threshold=None)


@pytest.fixture
def parrot(tiny_florence2: Path) -> Florence2:
    return Florence2(tiny_florence2)


def pixels(*bins: int) -> list[float]:
    return [(number + 0.5) / 1000 * side for number, side in zip(bins, SIZE * 2, strict=True)]


def assert_same(actual: sv.Detections, expected: sv.Detections) -> None:
    np.testing.assert_allclose(actual.xyxy, expected.xyxy, atol=1e-3)
    np.testing.assert_allclose(actual.confidence, expected.confidence, atol=1e-5)
    np.testing.assert_array_equal(actual.class_id, expected.class_id)
    np.testing.assert_array_equal(actual.data["class_name"], expected.data["class_name"])


@pytest.mark.parametrize("task", ["open_vocabulary", "phrase_grounding"])
def test_fields_and_order(detector: Florence2Detector, images: list[np.ndarray], task: str) -> None:
    detector = Florence2Detector(detector.florence2, task=task, nms_threshold=None)
    (detections,) = detector.detect(images[0], PROMPT, box_threshold=0.0, text_threshold=0.0)
    phrases = parse_prompt(PROMPT)
    assert len(detections) > 0
    assert detections.xyxy.dtype == detections.confidence.dtype == np.float32
    assert (np.diff(detections.confidence) <= 0).all() and (detections.confidence <= 1).all()
    assert (detections.xyxy >= 0).all() and (detections.xyxy <= SIZE * 2).all()
    assert (detections.xyxy[:, 2:] > detections.xyxy[:, :2]).all()
    assert [phrases[index] for index in detections.class_id] == list(detections.data["class_name"])


def test_several_images_equal_one_by_one(detector: Florence2Detector, images: list[np.ndarray]) -> None:
    together = detector.detect(images, PROMPT, box_threshold=0.0)
    assert len(together) == 3 and sum(map(len, together)) > 3
    for image, detections in zip(images, together, strict=True):
        assert_same(detections, detector.detect([image], PROMPT, box_threshold=0.0)[0])


def test_no_images(detector: Florence2Detector) -> None:
    assert detector.detect([], PROMPT) == []


def test_threshold(detector: Florence2Detector, images: list[np.ndarray]) -> None:
    (found,) = detector.detect(images[0], PROMPT, box_threshold=0.0)
    limit = float(np.median(found.confidence))
    (kept,) = detector.detect(images[0], PROMPT, box_threshold=limit)
    assert 0 < len(kept) == (found.confidence >= limit).sum() < len(found)
    (none,) = detector.detect(images[0], PROMPT, box_threshold=1.0)
    assert none.xyxy.shape == (0, 4)
    assert len(none.confidence) == len(none.class_id) == len(none.data["class_name"]) == 0


@pytest.mark.parametrize("task", ["open_vocabulary", "phrase_grounding"])
@pytest.mark.parametrize(
    ("answer", "boxes"),
    [
        ("", []),
        ("there is none", []),
        (f"dog{DOG}", [(100, 200, 300, 400)]),
        (f"a dog{DOG}{CAT}{COW}", [(100, 200, 300, 400), (500, 510, 900, 910), (5, 6, 40, 50)]),
    ],
)
def test_none_one_and_three(
    parrot: Florence2, images: list[np.ndarray], task: str, answer: str, boxes: list[tuple[int, ...]]
) -> None:
    say(parrot, answer)
    (detections,) = Florence2Detector(parrot, task=task).detect(images[0], "Dog.")
    expected = np.array([pixels(*bins) for bins in boxes]).reshape(-1, 4)
    assert len(detections) == len(boxes)
    np.testing.assert_allclose(sorted(map(tuple, detections.xyxy)), sorted(map(tuple, expected)), rtol=1e-5)
    assert list(detections.data["class_name"]) == ["dog"] * len(boxes)
    assert detections.class_id.tolist() == [0] * len(boxes)


@pytest.mark.parametrize(
    ("phrase", "task", "bins"),
    [
        # whatever open-vocabulary detection calls it, it was asked for the phrase
        ("man on a horse", "open_vocabulary", [(100, 200, 300, 400), (500, 510, 900, 910)]),
        # grounding takes a phrase apart: its head comes first, and a part that is the phrase itself goes before
        ("man on a horse", "phrase_grounding", [(100, 200, 300, 400)]),
        ("horse", "phrase_grounding", [(500, 510, 900, 910)]),
        ("a horse", "phrase_grounding", [(500, 510, 900, 910)]),
        ("the man", "phrase_grounding", [(100, 200, 300, 400)]),
    ],
)
def test_parts_of_a_phrase(
    parrot: Florence2, images: list[np.ndarray], phrase: str, task: str, bins: list[tuple[int, ...]]
) -> None:
    say(parrot, f"Man{DOG}a horse{CAT}")
    (detections,) = Florence2Detector(parrot, task=task).detect(images[0], [phrase])
    assert sorted(detections.xyxy.round(3).tolist()) == [pytest.approx(pixels(*row), rel=1e-4) for row in bins]
    assert set(detections.data["class_name"]) == {phrase}


def test_outline_gives_its_box(parrot: Florence2, images: list[np.ndarray]) -> None:
    say(parrot, f"dog{OUTLINE}")
    (detections,) = Florence2Detector(parrot).detect(images[0], "dog")
    np.testing.assert_allclose(detections.xyxy, [pixels(10, 20, 311, 220)], rtol=1e-5)
    assert detections.mask is None


def test_outlines_are_masks_where_they_are_asked_for(parrot: Florence2, images: list[np.ndarray]) -> None:
    """In its pixels; an answer that is a box has a mask without pixels."""
    detector = Florence2Detector(parrot, masks=True)
    say(parrot, f"dog{OUTLINE}")
    (detections,) = detector.detect(images[0], "dog")
    assert detections.mask.shape == (1, *SIZE[::-1]) and detections.mask.dtype == bool
    assert detections.mask[0, 3:12, 3:7].any() and not detections.mask[0, 20:].any()
    say(parrot, f"dog{DOG}{CAT}")
    (detections,) = detector.detect(images[0], "dog")
    assert detections.mask.shape == (2, *SIZE[::-1]) and not detections.mask.any()
    say(parrot, "")
    assert detector.detect(images[0], "dog")[0].mask.shape == (0, *SIZE[::-1])
    with pytest.raises(ValueError, match="phrase_grounding finds boxes only"):
        Florence2Detector(parrot, task="phrase_grounding", masks=True)


@pytest.mark.parametrize(
    ("settings", "names"),
    [({}, ["cat"]), ({"class_agnostic_nms": False}, ["cat", "dog"]), ({"nms_threshold": None}, ["cat", "dog"])],
)
def test_one_box_for_two_phrases(
    parrot: Florence2, images: list[np.ndarray], settings: dict[str, object], names: list[str]
) -> None:
    say(parrot, f"pet{DOG}")
    (detections,) = Florence2Detector(parrot, **settings).detect(images[0], "cat. dog.")
    assert sorted(detections.data["class_name"]) == names or (len(names) == 1 == len(detections))


def test_a_threshold_for_each_phrase(detector: Florence2Detector, images: list[np.ndarray]) -> None:
    (detections,) = detector.detect(images[0], PROMPT, box_threshold=0.0)
    name = str(detections.data["class_name"][0])
    (others,) = detector.detect(images[0], PROMPT, box_threshold=dict.fromkeys(parse_prompt(PROMPT), 0.0) | {name: 1.0})
    assert len(others) == (detections.data["class_name"] != name).sum()
    assert name not in others.data["class_name"]


def test_aliases_and_top_k(parrot: Florence2, images: list[np.ndarray]) -> None:
    say(parrot, f"x{DOG}{CAT}")
    detector = Florence2Detector(parrot, nms_threshold=None)
    (detections,) = detector.detect(images[0], "cat. dog.", aliases={"dog": "hound"})
    assert sorted(detections.data["class_name"]) == ["cat"] * 2 + ["dog"] * 4
    (detections,) = detector.detect(images[0], "cat. dog.", top_k=1)
    assert sorted(detections.data["class_name"]) == ["cat", "dog"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text_prompt": " . "}, "names nothing"),
        ({"text_prompt": "dog <loc_5>"}, "takes words only, got <loc_5>"),
        ({"box_threshold": 1.5}, "box_threshold"),
        ({"text_threshold": -1}, "text_threshold"),
        ({"top_k": 0}, "top_k"),
        ({"images": [np.zeros((4, 4, 3))]}, "uint8"),
    ],
)
def test_bad_arguments(
    detector: Florence2Detector, images: list[np.ndarray], arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        detector.detect(**({"images": images[0], "text_prompt": "dog"} | arguments))


@pytest.mark.parametrize(
    ("settings", "message"), [({"task": "ocr"}, "expected a task of open_vocabulary"), ({"nms_threshold": 2}, "nms")]
)
def test_bad_settings(detector: Florence2Detector, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Florence2Detector(detector.florence2, **settings)
