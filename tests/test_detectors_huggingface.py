"""The detectors' contract, on tiny random models in the real file formats."""

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import supervision as sv
import torch
from conftest import write_tiny_detector

from grounded_sam2.detectors.base import as_image_list, make_detections, read_search
from grounded_sam2.detectors.huggingface import HuggingFaceDetector
from grounded_sam2.prompts import parse_prompt

PROMPT = "red apple. Green apple. dog"


@pytest.fixture(scope="module")
def detector(tiny_detector: Path) -> HuggingFaceDetector:
    return HuggingFaceDetector(tiny_detector, nms_threshold=None)


def assert_same(actual: sv.Detections, expected: sv.Detections) -> None:
    np.testing.assert_allclose(actual.xyxy, expected.xyxy, atol=1e-3)
    np.testing.assert_allclose(actual.confidence, expected.confidence, atol=1e-5)
    np.testing.assert_array_equal(actual.class_id, expected.class_id)
    np.testing.assert_array_equal(actual.data["class_name"], expected.data["class_name"])


def test_fields_and_order(detector: HuggingFaceDetector, images: list[np.ndarray]) -> None:
    (detections,) = detector.detect(images[0], PROMPT, box_threshold=0.0, text_threshold=0.0)
    phrases = parse_prompt(PROMPT)
    assert len(detections) > 10
    assert detections.xyxy.dtype == detections.confidence.dtype == np.float32
    assert (np.diff(detections.confidence) <= 0).all()
    assert (detections.xyxy >= 0).all() and (detections.xyxy <= [80, 60, 80, 60]).all()
    assert len(set(detections.class_id)) > 1
    assert [phrases[index] for index in detections.class_id] == list(detections.data["class_name"])


@pytest.mark.parametrize("prompt", ["Car", "red apple dog", ["a man, sitting", "St. Bernard?"], "straße. 犬。xyzzy"])
def test_label_is_always_a_phrase_of_the_prompt(
    detector: HuggingFaceDetector, images: list[np.ndarray], prompt: str | list[str]
) -> None:
    (detections,) = detector.detect(images[0], prompt, box_threshold=0.0, text_threshold=0.0)
    phrases = parse_prompt(prompt)
    assert len(detections) > 0
    assert list(detections.data["class_name"]) == [phrases[index] for index in detections.class_id]


def test_several_images_equal_one_by_one(detector: HuggingFaceDetector, images: list[np.ndarray]) -> None:
    together = detector.detect(images, PROMPT, box_threshold=0.3)
    assert len(together) == len(images)
    for image, detections in zip(images, together, strict=True):
        assert len(detections) > 0
        assert_same(detections, detector.detect([image], PROMPT, box_threshold=0.3)[0])


def test_no_images(detector: HuggingFaceDetector) -> None:
    assert detector.detect([], PROMPT) == []


def test_nothing_found_keeps_the_fields(detector: HuggingFaceDetector, images: list[np.ndarray]) -> None:
    (detections,) = detector.detect(images[0], PROMPT, box_threshold=1.0)
    assert len(detections) == 0
    assert detections.xyxy.shape == (0, 4)
    assert len(detections.confidence) == len(detections.class_id) == len(detections.data["class_name"]) == 0


def test_boxes_and_scores_are_the_models(detector: HuggingFaceDetector, images: list[np.ndarray]) -> None:
    """One phrase of one word: the boxes of the model's own post-processing, the score of that word's token."""
    (detections,) = detector.detect(images[0], "dog", box_threshold=0.3, text_threshold=0.0)
    inputs = detector.processor(images=images[0], text="dog.", return_tensors="pt")
    with torch.inference_mode():
        output = detector.model(**inputs)
    scores = output.logits[0, :, 1].sigmoid().numpy()
    processed = detector.processor.post_process_grounded_object_detection(
        output, inputs.input_ids, threshold=0.0, target_sizes=[(60, 80)]
    )[0]
    order = np.argsort(-scores)[: (scores >= 0.3).sum()]
    np.testing.assert_allclose(detections.confidence, scores[order], atol=1e-5)
    np.testing.assert_allclose(
        detections.xyxy, processed["boxes"].numpy()[order].clip(0, [80, 60, 80, 60]), rtol=0, atol=1e-3
    )


def test_tokens_are_those_of_the_processor(
    detector: HuggingFaceDetector, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    forward = detector.model.forward

    def spy(*args: object, **kwargs: torch.Tensor) -> object:
        seen.append(kwargs["input_ids"])
        return forward(*args, **kwargs)

    monkeypatch.setattr(detector.model, "forward", spy)
    detector.detect(images[0], "Red apple, St. Bernard")
    expected = detector.processor(images=images[0], text="red apple. st. bernard.", return_tensors="pt").input_ids
    torch.testing.assert_close(seen[0], expected)


def test_long_prompt_takes_several_passes(detector: HuggingFaceDetector, images: list[np.ndarray]) -> None:
    """Eight phrases of eight tokens exceed the 48 tokens of the tiny model; each pass gives what it gives alone."""
    phrases = [letter * 8 for letter in "abcdefgh"]
    (together,) = detector.detect(images[0], phrases, box_threshold=0.3)
    halves = [detector.detect(images[0], part, box_threshold=0.3)[0] for part in (phrases[:5], phrases[5:])]
    assert len(together) == sum(map(len, halves))
    merged = sorted(
        (float(score), str(name))
        for part in halves
        for score, name in zip(part.confidence, part.data["class_name"], strict=True)
    )
    found = sorted(
        (float(score), str(name)) for score, name in zip(together.confidence, together.data["class_name"], strict=True)
    )
    assert [name for _, name in found] == [name for _, name in merged]
    assert [phrases[index] for index in together.class_id] == list(together.data["class_name"])


def test_nms_drops_what_two_passes_both_found(tiny_detector: Path, images: list[np.ndarray]) -> None:
    detector = HuggingFaceDetector(tiny_detector, nms_threshold=0.5)
    (detections,) = detector.detect(images[0], [letter * 8 for letter in "abcdefgh"], box_threshold=0.1)
    overlaps = sv.box_iou_batch(detections.xyxy, detections.xyxy)
    assert len(detections) > 0
    assert (overlaps[~np.eye(len(overlaps), dtype=bool)] <= 0.5).all()


def test_phrase_longer_than_the_encoder_is_a_value_error(
    detector: HuggingFaceDetector, images: list[np.ndarray]
) -> None:
    with pytest.raises(ValueError, match="phrase 0 of the prompt takes 51 tokens, the text encoder holds 46"):
        detector.detect(images[0], "x" * 50)


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (3, 7)])
def test_images_of_any_size(detector: HuggingFaceDetector, size: tuple[int, int]) -> None:
    (detections,) = detector.detect(np.zeros((*size, 3), np.uint8), PROMPT, box_threshold=0.0)
    height, width = size
    assert (detections.xyxy <= [width, height, width, height]).all()


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((4, 4), np.uint8), r"shape \(4,\)"),
        (np.zeros((4, 4, 4), np.uint8), r"shape \(4, 4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        ([np.zeros((4, 4, 3), np.uint8), "image.jpg"], "image 1"),
    ],
)
def test_wrong_image_is_a_value_error(image: np.ndarray, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        as_image_list(image)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"text_prompt": " "}, "names nothing"),
        ({"text_prompt": "dog", "box_threshold": 35}, r"box_threshold in \[0, 1\], got 35"),
        ({"text_prompt": "dog", "text_threshold": -1}, r"text_threshold in \[0, 1\], got -1"),
        ({"text_prompt": "dog", "text_threshold": {"dog": 2}}, r"text_threshold of 'dog' in \[0, 1\], got 2"),
        ({"text_prompt": "dog", "box_threshold": {"cat": 0.5}}, "'cat' is no phrase of the prompt"),
        ({"text_prompt": "dog", "top_k": 0}, "top_k of at least 1, or None, got 0"),
    ],
)
def test_wrong_arguments_are_value_errors(
    detector: HuggingFaceDetector, images: list[np.ndarray], arguments: dict, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        detector.detect(images[0], **arguments)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_make_detections(count: int) -> None:
    xyxy = np.array([[0, 0, 5, 5], [-5, -5, 50, 50], [8, 8, 8, 9]], np.float32)[:count]
    detections = make_detections(
        xyxy, np.array([0.5, 0.9, 0.7])[:count], np.array([0, 1, 1])[:count], ["a", "b"], (10, 8), nms_threshold=0.5
    )
    assert list(detections.data["class_name"]) == [[], ["a"], ["b", "a"]][min(count, 2)]
    assert (detections.xyxy <= [10, 8, 10, 8]).all() and (detections.xyxy >= 0).all()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [(0, 0.9), (1, 0.8), (0, 0.7), (1, 0.6)]),
        ({"nms_threshold": 0.5}, [(0, 0.9), (0, 0.7)]),
        ({"nms_threshold": 0.5, "class_agnostic": False}, [(0, 0.9), (1, 0.8), (0, 0.7)]),
        ({"top_k": 1}, [(0, 0.9), (1, 0.8)]),
        ({"top_k": 3}, [(0, 0.9), (1, 0.8), (0, 0.7), (1, 0.6)]),
        ({"nms_threshold": 0.5, "top_k": 1}, [(0, 0.9)]),
    ],
)
def test_suppression_and_top_k(options: dict, expected: list[tuple[int, float]]) -> None:
    """Three boxes nearly in one place, and one elsewhere."""
    xyxy = np.array([[0, 0, 8, 8], [0, 0, 8, 7.9], [10, 10, 18, 18], [0, 0, 8, 7.8]], np.float32)
    scores, class_id = np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 1, 0, 1])
    detections = make_detections(xyxy, scores, class_id, ["a", "b"], (20, 20), **options)
    assert list(zip(detections.class_id, detections.confidence.round(6).tolist(), strict=True)) == [
        (class_id, pytest.approx(score)) for class_id, score in expected
    ]
    assert list(detections.data["class_name"]) == ["ab"[index] for index in detections.class_id]


def test_thresholds_of_phrases_also_hold_for_their_aliases() -> None:
    search = read_search("dog. cat. cow", {"Cat.": 0.5, "dog": 0.2}, 0.1, {"cat": ["kitten"]})
    assert search.texts == ["dog", "cat", "cow", "kitten"]
    np.testing.assert_allclose(search.box_threshold, [0.2, 0.5, 0.35, 0.5], rtol=1e-6)
    np.testing.assert_allclose(search.text_threshold, [0.1] * 4, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_other_precision_is_a_property_of_the_model(
    tiny_detector: Path, images: list[np.ndarray], dtype: torch.dtype
) -> None:
    detector = HuggingFaceDetector(tiny_detector, dtype=dtype)
    assert next(detector.model.parameters()).dtype == dtype
    first, second = (detector.detect(images[0], PROMPT, box_threshold=0.3)[0] for _ in range(2))
    assert_same(first, second)


def test_local_folder_needs_no_network(
    tiny_detector: Path, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"network access: {args}")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    HuggingFaceDetector(tiny_detector).detect(images[0], PROMPT)


def test_missing_folder_names_the_cure(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="hf download IDEA-Research/grounding-dino-tiny"):
        HuggingFaceDetector(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        HuggingFaceDetector(tmp_path)


def test_hub_model_that_cannot_be_reached_names_the_cure() -> None:
    with pytest.raises(FileNotFoundError, match="hf download nobody/no-such-model --local-dir"):
        HuggingFaceDetector("nobody/no-such-model")


def test_folder_of_another_model_is_a_value_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}), encoding="utf-8")
    with pytest.raises(ValueError, match="holds a model of type 'bert', expected a detector"):
        HuggingFaceDetector(tmp_path)


def test_folder_without_weights_names_what_is_missing(tiny_detector: Path, tmp_path: Path) -> None:
    folder = tmp_path / "incomplete"
    shutil.copytree(tiny_detector, folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="not a complete detector folder"):
        HuggingFaceDetector(folder)


def test_weights_that_lack_tensors_are_a_value_error(tiny_detector: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "lacking"
    shutil.copytree(tiny_detector, folder)
    tensors = load_file(folder / "model.safetensors")
    removed = next(name for name in tensors if "encoder.layers.0" in name)
    del tensors[removed]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lack 1 tensors of the model"):
        HuggingFaceDetector(folder)


def test_mm_grounding_dino(tmp_path: Path, images: list[np.ndarray]) -> None:
    write_tiny_detector(tmp_path, "MMGroundingDino")
    detector = HuggingFaceDetector(tmp_path, nms_threshold=None)
    assert detector.scores_tokens
    (detections,) = detector.detect(images[0], PROMPT, box_threshold=0.0, text_threshold=0.0)
    phrases = parse_prompt(PROMPT)
    assert len(detections) > 0
    assert list(detections.data["class_name"]) == [phrases[index] for index in detections.class_id]


def test_phrase_scoring_models(tmp_path: Path, images: list[np.ndarray]) -> None:
    """OWL-ViT takes a list of phrases where Grounding DINO takes one text; the contract is the same."""
    from transformers import OwlViTConfig, OwlViTForObjectDetection, OwlViTImageProcessor, OwlViTProcessor

    torch.manual_seed(0)
    tower = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = OwlViTConfig(
        text_config={**tower, "vocab_size": 600, "max_position_embeddings": 16, "eos_token_id": 1, "bos_token_id": 2},
        vision_config={**tower, "image_size": 64, "patch_size": 16},
        projection_dim=32,
    )
    model = OwlViTForObjectDetection(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.1)
    model.save_pretrained(tmp_path)
    processor = OwlViTProcessor(OwlViTImageProcessor(size={"height": 64, "width": 64}), _clip_tokenizer(tmp_path))
    processor.save_pretrained(tmp_path)

    detector = HuggingFaceDetector(tmp_path, nms_threshold=None)
    assert not detector.scores_tokens
    together = detector.detect(images, PROMPT, box_threshold=0.0)
    for image, detections in zip(images, together, strict=True):
        assert len(detections) > 0
        assert list(detections.data["class_name"]) == [parse_prompt(PROMPT)[index] for index in detections.class_id]
        assert_same(detections, detector.detect(image, PROMPT, box_threshold=0.0)[0])
    assert len(detector.detect(images[0], PROMPT, box_threshold=1.0)[0]) == 0


def _clip_tokenizer(folder: Path) -> object:
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(33, 127)]
    tokens = ["<unused>", "<|endoftext|>", "<|startoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)
