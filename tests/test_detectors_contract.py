"""What every detector does with a prompt and options, whatever finds the boxes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import supervision as sv
from dds_stand_in import TOKEN, Truth, running

from grounded_sam2.detectors import Detector, base, build_detector
from grounded_sam2.detectors.base import make_detections, pad_elongated
from grounded_sam2.prompts import Prompt, read_prompt

WANTED = ("red apple", "dog")
UNWANTED = "green apple"
LIMITS = {"box_threshold": 0.0, "text_threshold": 0.0}  # the random models are sure of nothing


def make_truth(image: np.ndarray) -> Truth:
    """For the stand-in of the cloud: three boxes nearly in one place, one elsewhere."""
    boxes = np.array([[2, 2, 40, 40], [3, 2, 40, 40], [2, 3, 40, 41], [45, 5, 70, 50]], np.float32)
    names = [UNWANTED, *WANTED, WANTED[0]]
    return Truth(image, boxes, np.zeros((4, *image.shape[:2]), bool), names, [0.8, 0.9, 0.7, 0.6])


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=["hf", "local", "florence2", "dds", "tiled"])
def detector(
    request: pytest.FixtureRequest, tiny_detector: Path, tiny_florence2: Path, image: np.ndarray
) -> Iterator[Detector]:
    """Each kind, without suppression of overlapping boxes."""
    if request.param == "dds":
        with running([make_truth(image)]) as server, pytest.MonkeyPatch.context() as patch:
            patch.setenv("no_proxy", "127.0.0.1")
            yield build_detector("dds:DINO-X-1.0", token=TOKEN, endpoint=server.url, cache_dir=None, nms_threshold=None)
        return
    if request.param == "florence2":
        settings = {"num_beams": 1, "max_new_tokens": 110, "batch_size": 2}
        yield build_detector(f"florence2:{tiny_florence2}", nms_threshold=None, **settings)
        return
    tiles = (90, 70) if request.param == "tiled" else None  # the image fits in one tile, what is in pieces is elsewhere
    kind = "hf" if request.param == "tiled" else request.param
    yield build_detector(f"{kind}:{tiny_detector}", nms_threshold=None, slice_wh=tiles)


def assert_same(actual: sv.Detections, expected: sv.Detections) -> None:
    np.testing.assert_allclose(actual.xyxy, expected.xyxy, atol=1e-3)
    np.testing.assert_allclose(actual.confidence, expected.confidence, atol=1e-5)
    np.testing.assert_array_equal(actual.class_id, expected.class_id)
    np.testing.assert_array_equal(actual.data["class_name"], expected.data["class_name"])


def find(detector: Detector, image: np.ndarray, text_prompt: Any, **options: Any) -> sv.Detections:
    (detections,) = detector.detect(image, text_prompt, **{**LIMITS, **options})
    return detections


def test_what_is_more_surely_unwanted_is_dropped(
    detector: Detector, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the boxes lie does not count here, since those of random models lie apart; how sure they are does."""
    monkeypatch.setattr(base, "UNWANTED_IOU", 0.0)
    names, num_dropped = (*WANTED, UNWANTED), []
    for index, unwanted in enumerate(names):
        wanted = names[:index] + names[index + 1 :]
        everything = find(detector, image, [*wanted, unwanted])
        surest = max(everything.confidence[everything.class_id == 2], default=0.0)
        is_left = (everything.class_id < 2) & (everything.confidence >= surest)
        found = find(detector, image, f"{wanted[0]}. {wanted[1]}. not a {unwanted}.")
        assert_same(found, everything[is_left])
        assert_same(find(detector, image, [wanted[0], f"not the {unwanted}", wanted[1]]), found)
        num_dropped.append(int((everything.class_id < 2).sum()) - len(found))
    assert max(num_dropped) > 0


def test_a_threshold_in_the_text_is_one_of_the_phrase(detector: Detector, image: np.ndarray) -> None:
    found = find(detector, image, ". ".join(WANTED))
    of_first = found.confidence[found.class_id == 0]
    limit = round(float(np.median(of_first)), 3)
    in_text = find(detector, image, f"{WANTED[0]}@{limit}. {WANTED[1]}.")
    assert_same(in_text, found[(found.class_id == 1) | (found.confidence >= np.float32(limit))])
    assert len(in_text) < len(found)
    assert_same(find(detector, image, Prompt(WANTED, thresholds={WANTED[0]: limit})), in_text)


def test_a_low_threshold_in_the_text_goes_before_the_others(detector: Detector, image: np.ndarray) -> None:
    low = find(detector, image, f"{WANTED[0]}@0.", box_threshold=0.9, text_threshold=0.9)
    assert_same(low, find(detector, image, WANTED[0]))
    assert len(low) > 0


def test_aliases_in_the_text_are_the_option(detector: Detector, image: np.ndarray) -> None:
    in_text = find(detector, image, f"cat={UNWANTED}. {WANTED[1]}.")
    option = find(detector, image, f"cat. {WANTED[1]}.", aliases={"cat": [UNWANTED]})
    assert_same(in_text, option)
    assert "cat" in in_text.data["class_name"] and UNWANTED not in in_text.data["class_name"]


def test_top_k_counts_what_is_left(detector: Detector, image: np.ndarray) -> None:
    prompt = f"{WANTED[0]}. {WANTED[1]}. not a {UNWANTED}."
    everything, best = find(detector, image, prompt), find(detector, image, prompt, top_k=1)
    first_of_each = np.sort(np.unique(everything.class_id, return_index=True)[1])
    assert_same(best, everything[first_of_each])


def test_several_images_and_none(detector: Detector, image: np.ndarray) -> None:
    prompt = read_prompt(f"{WANTED[0]}@0.2. {WANTED[1]}. not a {UNWANTED}.")
    together = detector.detect([image, image], prompt, **LIMITS)
    for detections in together:
        assert_same(detections, find(detector, image, prompt))
    assert detector.detect([], prompt) == []
    nothing = find(detector, image, prompt, box_threshold=1.0)
    assert nothing.xyxy.shape == (0, 4) or set(nothing.data["class_name"]) == {WANTED[0]}


@pytest.mark.parametrize(
    ("prompt", "options", "says"),
    [
        ("dog@2", {}, r"a number in \[0, 1\] behind '@', got 'dog@2'"),
        ("not a dog", {}, "at least one phrase that does not begin with 'not'"),
        ("dog", {"aliases": {"cat": "kitten"}}, "'cat' is no phrase of the prompt"),
        ("dog=hound", {"aliases": {"dog": "puppy. wolf"}, "box_threshold": {"wolf": 0.5}}, "'wolf' is no phrase"),
        ("dog. not a wolf", {"aliases": {"dog": "wolf"}}, "the alias 'wolf' of 'dog' already stands for 'wolf'"),
        ("dog", {"top_k": 0}, "top_k of at least 1, or None, got 0"),
    ],
)
def test_wrong_options_are_value_errors(
    detector: Detector, image: np.ndarray, prompt: str, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        detector.detect(image, prompt, **options)


@pytest.mark.parametrize(
    ("unwanted", "kept"),
    [
        ((0.9, 0), [1]),  # as sure of the unwanted box as can be, and right on the wanted one
        ((0.5, 0), [0, 1]),  # less sure
        ((0.8, 0), [0, 1]),  # just as sure
        ((0.9, 1), [1]),  # an IoU of 9/11
        ((0.9, 2), [0, 1]),  # an IoU of 8/12
    ],
)
def test_the_rule_of_unwanted_boxes(unwanted: tuple[float, int], kept: list[int]) -> None:
    confidence, shift = unwanted
    xyxy = np.array([[0, 0, 10, 10], [30, 30, 40, 40], [shift, 0, 10 + shift, 10]], np.float32)
    masks = np.arange(3)[:, None, None] * np.ones((1, 50, 50), int) == 1
    scores = np.array([0.8, 0.7, confidence])
    detections = make_detections(xyxy, scores, np.array([0, 0, 1]), ["car"], (50, 50), masks=masks)
    assert sorted(detections.xyxy[:, 0].tolist()) == [xyxy[row, 0] for row in kept]
    assert detections.data["class_name"].tolist() == ["car"] * len(kept)
    assert [mask.any() for mask in detections.mask] == [bool(box[0] == 30) for box in detections.xyxy]
    only_unwanted = make_detections(xyxy[2:], np.ones(1), np.array([1]), ["car"], (50, 50), masks=masks[2:])
    assert len(only_unwanted) == 0 and only_unwanted.mask.shape == (0, 50, 50)
    assert only_unwanted.data["class_name"].shape == (0,)


# ---- elongated images ----


@pytest.mark.parametrize(
    ("shape", "padded_shape", "shown"),
    [
        ((30, 40), (30, 40), (40, 30)),
        ((10, 60), (10, 60), (60, 10)),
        ((10, 120), (20, 120), (120, 20)),
        ((700, 7), (700, 117), (117, 700)),
        ((1, 65000), (683, 4096), (65000, 683)),  # padded at full size it would take 2 GB
        ((81920, 40), (4096, 683), (40 * 683 / 2, 81920)),
    ],
)
def test_elongated_images_are_padded_when_they_are_small(
    shape: tuple[int, int], padded_shape: tuple[int, int], shown: tuple[float, float]
) -> None:
    image = np.full((*shape, 3), 200, np.uint8)
    padded, size = pad_elongated(image)
    assert padded.shape == (*padded_shape, 3) and size == pytest.approx(shown) and padded[0, 0].tolist() == [200] * 3
    assert padded is image or padded[-1, -1].tolist() == [0] * 3
