"""A detector of one's own, without touching another file: a class that says where the texts of a search are."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tiny_sam2 import make_tiny_model

from grounded_sam2.batch import ImageBatch, detect_batch, list_images
from grounded_sam2.detectors.base import Image, PhraseDetector, RawBoxes, Search
from grounded_sam2.detectors.tiled import in_tiles
from grounded_sam2.segment import segment
from sam2.sam2_image_predictor import SAM2ImagePredictor


class ConstantDetector(PhraseDetector):
    """Finds every text in the same place, each with 0.1 less confidence than the one before."""

    def find(self, images: Sequence[Image], search: Search) -> list[RawBoxes]:
        confidence = np.linspace(0.9, 1.0 - 0.1 * len(search.texts), len(search.texts), dtype=np.float32)
        kept = confidence >= search.box_threshold
        boxes = np.full((kept.sum(), 4), [4, 6, 24, 20], np.float32)
        return [RawBoxes(boxes, confidence[kept], search.class_id[kept]) for _ in images]


@pytest.mark.parametrize(
    ("text_prompt", "options", "expected"),
    [
        ("dog. cat. cow.", {}, ["dog", "cat", "cow"]),
        ("dog. cat@0.85. cow", {}, ["dog", "cow"]),
        ("dog. cat. cow", {"box_threshold": {"Dog.": 0.95}}, ["cat", "cow"]),
        ("dog. cat. cow@0.65", {"box_threshold": 0.85}, ["dog", "cow"]),
        ("dog=puppy. cat=kitten", {}, ["dog", "cat", "dog", "cat"]),
        ("dog=puppy. cat", {"top_k": 1}, ["dog", "cat"]),
        ("dog. cat=kitten. not a toy", {}, ["dog", "cat"]),  # the kitten is more surely a toy
        (["dog@0.85", "a=b"], {}, ["dog@0.85", "a=b"]),
        ("dog@0.95", {}, []),
    ],
)
def test_a_toy_does_what_every_detector_does(text_prompt: str | list[str], options: dict, expected: list[str]) -> None:
    detector, image = ConstantDetector(nms_threshold=None), np.zeros((60, 80, 3), np.uint8)
    (detections,) = detector.detect(image, text_prompt, **options)
    assert detections.data["class_name"].tolist() == expected
    segmented = segment(SAM2ImagePredictor(make_tiny_model()), image, detections)
    assert segmented.mask.shape == (len(expected), 60, 80)
    (in_one_tile,) = in_tiles(detector, (80, 60)).detect(image, text_prompt, **options)
    assert in_one_tile.data["class_name"].tolist() == expected
    (in_two_tiles,) = in_tiles(detector, (40, 60), (0, 0)).detect(image, text_prompt, **options)
    assert len(in_two_tiles) == (options.get("top_k", 2) if expected else 0)  # once in each tile


def test_a_toy_in_a_batch(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.jpg\tdog@0.95. cat\nb.jpg\tcow. not a cat\n", encoding="utf-8")
    batch = ImageBatch(list_images(tmp_path / "list.txt", ""), [np.zeros((60, 80, 3), np.uint8)] * 2)
    names = [detections.data["class_name"].tolist() for detections in detect_batch(ConstantDetector(), batch)]
    assert names == [["cat"], ["cow"]]
