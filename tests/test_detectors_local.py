"""The local detector: the contract, the same boxes as transformers' model, and what only it offers."""

import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import supervision as sv
import torch
from conftest import REPOSITORY, write_tiny_detector

from grounded_sam2.detectors.huggingface import HuggingFaceDetector
from grounded_sam2.detectors.local import LocalDetector
from grounded_sam2.images import read_image
from grounded_sam2.prompts import parse_prompt
from grounding_dino.groundingdino.weights import load_state_dict

NANO = REPOSITORY / "gdino_checkpoints/nano"
PROMPT = "red apple. Green apple. dog"
# More phrases than one text holds, some of them of several tokens.
MANY = [f"{first}{second} dog" for first in "abcdefghijklmno" for second in "abcdefghijklmnopqrst"]
ALL = {"box_threshold": 0.0, "text_threshold": 0.0}


@pytest.fixture(scope="module")
def detector(tiny_detector: Path) -> LocalDetector:
    return LocalDetector(tiny_detector, nms_threshold=None)


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    return read_image(REPOSITORY / "assets/scene.jpg")


def assert_same(actual: sv.Detections, expected: sv.Detections) -> None:
    """The same boxes; those with scores that differ by rounding alone may come in another order."""
    assert len(actual) == len(expected)
    orders = [np.lexsort((found.xyxy[:, 0].round(1), found.class_id)) for found in (actual, expected)]
    actual, expected = (found[order] for found, order in zip((actual, expected), orders, strict=True))
    np.testing.assert_array_equal(actual.class_id, expected.class_id)
    np.testing.assert_array_equal(actual.data["class_name"], expected.data["class_name"])
    np.testing.assert_allclose(actual.confidence, expected.confidence, atol=2e-5)
    np.testing.assert_allclose(actual.xyxy, expected.xyxy, atol=2e-2)


def count_calls(monkeypatch: pytest.MonkeyPatch, detector: LocalDetector, name: str) -> list[object]:
    """A list that grows by the first argument of each call of a method of the model."""
    calls: list[object] = []
    method = getattr(detector.model, name)

    def counted(argument: object) -> object:
        calls.append(argument)
        return method(argument)

    monkeypatch.setattr(detector.model, name, counted)
    return calls


def test_fields_and_order(detector: LocalDetector, images: list[np.ndarray]) -> None:
    (detections,) = detector.detect(images[0], PROMPT, **ALL)
    phrases = parse_prompt(PROMPT)
    assert len(detections) > 10
    assert detections.xyxy.dtype == detections.confidence.dtype == np.float32
    assert np.issubdtype(detections.class_id.dtype, np.integer)
    assert (np.diff(detections.confidence) <= 0).all()
    assert (detections.xyxy >= 0).all() and (detections.xyxy <= [80, 60, 80, 60]).all()
    assert len(set(detections.class_id)) > 1
    assert [phrases[index] for index in detections.class_id] == list(detections.data["class_name"])


@pytest.mark.parametrize("threshold", [0.35, 0.05])
def test_nano_finds_what_transformers_finds(scene: np.ndarray, threshold: float) -> None:
    ours, theirs = (kind(NANO, nms_threshold=None) for kind in (LocalDetector, HuggingFaceDetector))
    prompt = "owl. red apple. car. bus. pizza. banana. umbrella."
    (actual,) = ours.detect(scene, prompt, box_threshold=threshold, text_threshold=threshold)
    (expected,) = theirs.detect(scene, prompt, box_threshold=threshold, text_threshold=threshold)
    assert len(actual) > 0
    assert_same(actual, expected)


@pytest.mark.parametrize("kind", ["GroundingDino", "MMGroundingDino"])
def test_boxes_are_those_of_transformers(tmp_path: Path, images: list[np.ndarray], kind: str) -> None:
    write_tiny_detector(tmp_path, kind)
    ours, theirs = (made(tmp_path, nms_threshold=None) for made in (LocalDetector, HuggingFaceDetector))
    wide = np.random.default_rng(1).integers(0, 256, (9, 200, 3), dtype=np.uint8)
    for prompt in ("dog", PROMPT, ["St. Bernard?", "straße 犬", "x" * 120]):
        found, reference = (made.detect([*images, wide], prompt, **ALL) for made in (ours, theirs))
        for actual, expected in zip(found, reference, strict=True):
            assert len(actual) > 0
            assert_same(actual, expected)


def test_many_phrases_are_those_of_transformers(tiny_detector: Path, images: list[np.ndarray]) -> None:
    prompt = [letter * 8 for letter in "abcdefgh"] + MANY[:20]
    (actual,) = LocalDetector(tiny_detector, nms_threshold=None).detect(images[0], prompt, box_threshold=0.3)
    (expected,) = HuggingFaceDetector(tiny_detector, nms_threshold=None).detect(images[0], prompt, box_threshold=0.3)
    assert len(actual) > 20
    assert_same(actual, expected)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_several_images_equal_one_by_one(tiny_detector: Path, images: list[np.ndarray], batch_size: int) -> None:
    detector = LocalDetector(tiny_detector, nms_threshold=None, batch_size=batch_size)
    together = detector.detect(images, PROMPT, box_threshold=0.3)
    assert len(together) == len(images)
    for image, detections in zip(images, together, strict=True):
        assert len(detections) > 0
        assert_same(detections, detector.detect([image], PROMPT, box_threshold=0.3)[0])


def test_images_with_a_prompt_each_equal_one_by_one(detector: LocalDetector, images: list[np.ndarray]) -> None:
    prompts = ["dog", [letter * 8 for letter in "abcdefgh"], "red apple. a green apple. cat. tire."]
    together = detector.detect_each(images, prompts, box_threshold=0.3)
    for image, prompt, detections in zip(images, prompts, together, strict=True):
        assert len(detections) > 0
        assert_same(detections, detector.detect(image, prompt, box_threshold=0.3)[0])
    assert detector.detect_each([], []) == []


@pytest.mark.parametrize(("prompts", "got"), [(["dog"], "got 1"), ("dog. cat. cow", "got one text"), ([], "got 0")])
def test_not_one_prompt_per_image_is_a_value_error(
    detector: LocalDetector, images: list[np.ndarray], prompts: list[str] | str, got: str
) -> None:
    with pytest.raises(ValueError, match=f"one prompt for each of 3 images, {got}"):
        detector.detect_each(images, prompts)


def test_no_images_and_nothing_found(detector: LocalDetector, images: list[np.ndarray]) -> None:
    assert detector.detect([], PROMPT) == []
    (detections,) = detector.detect(images[0], PROMPT, box_threshold=1.0)
    assert detections.xyxy.shape == (0, 4)
    assert len(detections.confidence) == len(detections.class_id) == len(detections.data["class_name"]) == 0


@pytest.mark.parametrize(
    "prompt",
    [
        "Car",
        "red apple dog",
        ["a man, sitting", "St. Bernard?"],
        "straße. 犬。xyzzy",
        ["y" * 40, "z" * 500],
        "dog. Dog.",
    ],
)
def test_label_is_always_a_phrase_of_the_prompt(
    detector: LocalDetector, images: list[np.ndarray], prompt: str | list[str]
) -> None:
    (detections,) = detector.detect(images[0], prompt, **ALL)
    phrases = parse_prompt(prompt)
    assert len(detections) > 0
    assert list(detections.data["class_name"]) == [phrases[index] for index in detections.class_id]


def test_three_hundred_phrases(
    detector: LocalDetector, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifteen phrases fit the tiny model's text; the image is encoded once, and every phrase is looked for."""
    image_calls = count_calls(monkeypatch, detector, "encode_images")
    text_calls = count_calls(monkeypatch, detector, "encode_text")
    (together,) = detector.detect(images[0], MANY, **ALL)
    assert len(MANY) == 300 and len(image_calls) == 1
    assert all(text.input_ids.shape[1] <= 48 for text in text_calls)  # type: ignore[attr-defined]
    assert len(together) == 20 * len(text_calls)
    assert [MANY[index] for index in together.class_id] == list(together.data["class_name"])
    assert together.class_id.max() > 280


def test_suppression_merges_the_passes(tiny_detector: Path, images: list[np.ndarray]) -> None:
    (detections,) = LocalDetector(tiny_detector, nms_threshold=0.5).detect(images[0], MANY[:60], **ALL)
    overlaps = sv.box_iou_batch(detections.xyxy, detections.xyxy)
    assert 0 < len(detections) < 40
    assert (overlaps[~np.eye(len(overlaps), dtype=bool)] <= 0.5).all()

    of_one_class = LocalDetector(tiny_detector, nms_threshold=0.5, class_agnostic_nms=False)
    (kept,) = of_one_class.detect(images[0], MANY[:60], **ALL)
    overlaps = sv.box_iou_batch(kept.xyxy, kept.xyxy) * (kept.class_id[:, None] == kept.class_id)
    assert len(kept) > len(detections)
    assert (overlaps[~np.eye(len(overlaps), dtype=bool)] <= 0.5).all()


@pytest.mark.parametrize("made", [LocalDetector, HuggingFaceDetector])
class TestOptionsOfBothDetectors:
    @pytest.fixture
    def detector(self, made: type[LocalDetector], tiny_detector: Path) -> LocalDetector:
        return made(tiny_detector, nms_threshold=None)

    def test_what_an_alias_finds_carries_the_phrase(self, detector: LocalDetector, images: list[np.ndarray]) -> None:
        (plain,) = detector.detect(images[0], "dog. red apple. cat.", **ALL)
        (found,) = detector.detect(images[0], "dog. red apple", aliases={"dog": ["cat"]}, **ALL)
        assert set(plain.class_id) == {0, 1, 2} and set(found.class_id) == {0, 1}
        np.testing.assert_array_equal(found.class_id, np.where(plain.class_id == 2, 0, plain.class_id))
        np.testing.assert_allclose(found.xyxy, plain.xyxy, atol=1e-3)
        assert list(found.data["class_name"]) == [["dog", "red apple"][index] for index in found.class_id]

    def test_thresholds_of_phrases(self, detector: LocalDetector, images: list[np.ndarray]) -> None:
        (plain,) = detector.detect(images[0], PROMPT, box_threshold=0.35, text_threshold=0.0)
        threshold = float(np.median(plain.confidence[plain.class_id == 0]))
        (found,) = detector.detect(images[0], PROMPT, box_threshold={"Red apple.": threshold}, text_threshold=0.0)
        kept = (plain.class_id != 0) | (plain.confidence >= np.float32(threshold))
        assert 0 < kept.sum() < len(plain)
        np.testing.assert_array_equal(found.xyxy, plain.xyxy[kept])

    def test_top_k(self, detector: LocalDetector, images: list[np.ndarray]) -> None:
        (plain,) = detector.detect(images[0], PROMPT, **ALL)
        (found,) = detector.detect(images[0], PROMPT, top_k=1, **ALL)
        assert sorted(found.class_id) == sorted(set(plain.class_id))
        for index, confidence in zip(found.class_id, found.confidence, strict=True):
            assert confidence == plain.confidence[plain.class_id == index].max()


def test_texts_are_encoded_once_and_few_are_kept(
    tiny_detector: Path, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = LocalDetector(tiny_detector, text_cache_size=2)
    calls = count_calls(monkeypatch, detector, "encode_text")
    first = detector.detect(images[0], PROMPT, **ALL)[0]
    assert_same(detector.detect(images[0], PROMPT, **ALL)[0], first)
    detector.detect(images, PROMPT)
    assert len(calls) == 1
    for prompt in ("dog", PROMPT, "cat", PROMPT):  # the one used longest ago is dropped
        detector.detect(images[0], prompt)
    assert len(calls) == 3
    detector.detect(images[0], "dog")
    assert len(calls) == 4


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (3, 7)])
def test_images_of_any_size(detector: LocalDetector, size: tuple[int, int]) -> None:
    (detections,) = detector.detect(np.zeros((*size, 3), np.uint8), PROMPT, box_threshold=0.0)
    height, width = size
    assert (detections.xyxy <= [width, height, width, height]).all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"text_prompt": ""}, "names nothing"),
        ({"text_prompt": []}, "names nothing"),
        ({"text_prompt": "dog", "box_threshold": 35}, r"box_threshold in \[0, 1\], got 35"),
        ({"text_prompt": "dog", "text_threshold": {"cat": 0.1}}, "'cat' is no phrase of the prompt"),
        ({"text_prompt": "dog", "aliases": {"cat": ["kitten"]}}, "'cat' is no phrase of the prompt"),
        ({"text_prompt": "dog", "top_k": 0}, "top_k of at least 1, or None, got 0"),
        ({"text_prompt": "x" * 60}, "phrase 0 of the prompt takes 61 tokens, the text encoder holds 46"),
        ({"text_prompt": "dog", "images": np.zeros((4, 4), np.uint8)}, "image 0: expected"),
    ],
)
def test_wrong_arguments_are_value_errors(
    detector: LocalDetector, images: list[np.ndarray], arguments: dict, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        detector.detect(**{"images": images[0], **arguments})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"nms_threshold": 2}, r"nms_threshold in \[0, 1\], got 2"),
        ({"batch_size": 0}, "batch_size of at least 1, got 0"),
        ({"text_cache_size": 0}, "text_cache_size of at least 1, got 0"),
        ({"dtype": torch.float16}, "dtype of float32, bfloat16 on cpu, got float16"),
        ({"dtype": torch.int8}, "got int8"),
    ],
)
def test_wrong_options_are_value_errors(tiny_detector: Path, options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        LocalDetector(tiny_detector, **options)


def test_other_precision_is_a_property_of_the_model(scene: np.ndarray) -> None:
    exact, half = (LocalDetector(NANO, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    assert half.model.dtype == torch.bfloat16
    (first,), (second,) = (half.detect(scene, "owl", top_k=1, **ALL) for _ in range(2))
    np.testing.assert_array_equal(first.xyxy, second.xyxy)
    (expected,) = exact.detect(scene, "owl", top_k=1, **ALL)
    assert sv.box_iou_batch(first.xyxy, expected.xyxy).item() > 0.9
    assert abs(first.confidence - expected.confidence).item() < 0.05


def test_local_files_need_no_network(
    tiny_detector: Path, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"network access: {args}")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    LocalDetector(tiny_detector).detect(images[0], PROMPT)


def test_official_checkpoint_with_a_tokenizer_folder(
    tiny_detector: Path, tmp_path: Path, images: list[np.ndarray]
) -> None:
    """Sizes of the image come from beside the checkpoint, or are the official ones."""
    checkpoint = tmp_path / "groundingdino_tiny.pth"
    torch.save({"model": load_state_dict(tiny_detector)}, checkpoint)
    with pytest.raises(FileNotFoundError, match=r"download_ckpts\.sh bert-tokenizer"):
        LocalDetector(checkpoint, config=tiny_detector)
    detector = LocalDetector(checkpoint, config=tiny_detector, tokenizer=tiny_detector, nms_threshold=None)
    assert (detector.image_transform.shortest_edge, detector.image_transform.longest_edge) == (800, 1333)

    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer.json"):
        if (tiny_detector / name).is_file():
            shutil.copy(tiny_detector / name, tmp_path)
    beside = LocalDetector(checkpoint, config=tiny_detector, nms_threshold=None)
    folder = LocalDetector(tiny_detector, nms_threshold=None)
    assert_same(beside.detect(images[0], PROMPT, **ALL)[0], folder.detect(images[0], PROMPT, **ALL)[0])


def test_missing_and_wrong_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gdino_checkpoints/download_ckpts\.sh"):
        LocalDetector(tmp_path / "groundingdino_swint_ogc.pth")
    with pytest.raises(FileNotFoundError, match=r"holds no model\.safetensors"):
        LocalDetector(tmp_path)
    with pytest.raises(ValueError, match="SAM 2 weights"):
        LocalDetector(REPOSITORY / "checkpoints/sam2.1_nano.pt", tokenizer=NANO)
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        LocalDetector(tmp_path, tokenizer=NANO)
