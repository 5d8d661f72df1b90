"""Boxes become masks."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import supervision as sv
from tiny_sam2 import make_image, make_tiny_model

from grounded_sam2.detectors.base import make_detections
from grounded_sam2.images import read_image
from grounded_sam2.segment import SAM2BoxSegmenter, refine, segment, segment_batch, segment_missing
from sam2.build_sam import build_sam2
from sam2.sam2_image_predictor import SAM2ImagePredictor

REPOSITORY = Path(__file__).resolve().parent.parent
BOXES = np.array([[4, 4, 40, 30], [10, 8, 20, 18], [0, 0, 80, 60]], np.float32)


@pytest.fixture(scope="module")
def predictor() -> SAM2ImagePredictor:
    return SAM2ImagePredictor(make_tiny_model())


def boxes(count: int) -> sv.Detections:
    return make_detections(BOXES[:count], np.linspace(0.9, 0.5, count), np.arange(count), ["a", "b", "c"], (80, 60))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_each_box_gets_a_mask_and_a_score(predictor: SAM2ImagePredictor, count: int) -> None:
    detections = boxes(count)
    segmented = segment(predictor, make_image(60, 80), detections)
    assert segmented.mask.shape == (count, 60, 80) and segmented.mask.dtype == bool
    assert segmented.data["mask_score"].shape == (count,)
    assert segmented.data["mask_score"].dtype == np.float32
    np.testing.assert_array_equal(segmented.xyxy, detections.xyxy)
    np.testing.assert_array_equal(segmented.data["class_name"], detections.data["class_name"])
    assert detections.mask is None and "mask_score" not in detections.data


@pytest.mark.parametrize("mask_pixels", [2**27, 80 * 60 * 2, 1])
def test_masks_of_a_batch_are_those_of_each_image(monkeypatch: pytest.MonkeyPatch, mask_pixels: int) -> None:
    """Images of different sizes with 3, 0, 1 and 2 boxes, all masks of an image at once and a few at a time."""
    monkeypatch.setattr("grounded_sam2.segment._MASK_PIXELS", mask_pixels)
    predictor = SAM2ImagePredictor(make_tiny_model())
    images = [make_image(60, 80), make_image(50, 50), make_image(40, 90), make_image(60, 80)[::-1].copy()]
    boxes = np.array([[4, 4, 40, 30], [10, 8, 20, 18], [0, 0, 50, 40]], np.float32)
    found = [
        make_detections(boxes[:count], np.linspace(0.9, 0.5, count), np.zeros(count, int), ["a"], image.shape[1::-1])
        for count, image in zip((3, 0, 1, 2), images, strict=True)
    ]
    segmented = list(segment_batch(predictor, images, found))
    assert len(segmented) == 4
    for image, boxes_alone, together in zip(images, found, segmented, strict=True):
        assert together.mask.dtype == bool and together.mask.shape == (len(boxes_alone), *image.shape[:2])
        alone = segment(predictor, image, boxes_alone)
        assert (alone.mask != together.mask).sum() <= 1e-3 * alone.mask.size
        for box, mask, score in zip(boxes_alone.xyxy, together.mask, together.data["mask_score"], strict=True):
            predictor.set_image(image)
            masks, scores, _ = predictor.predict(box=box, multimask_output=False)
            assert (masks[0].astype(bool) != mask).sum() <= 1e-3 * mask.size
            assert scores[0] == pytest.approx(score, abs=1e-4)
        assert together.data["mask_score"].dtype == np.float32
        np.testing.assert_array_equal(together.xyxy, boxes_alone.xyxy)
        assert boxes_alone.mask is None


def test_no_boxes_at_all_need_no_segmenter() -> None:
    nothing = make_detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), ["a"], (80, 60))
    [segmented] = segment_batch(None, [make_image(60, 80)], [nothing])  # type: ignore[arg-type]
    assert segmented.mask.shape == (0, 60, 80)


class SquareSegmenter:
    """Another segmenter: the mask of a box is all in it, that of points a pixel each."""

    def __init__(self) -> None:
        self.images: list[np.ndarray] = []
        self.asked: list[tuple[int, int, bool]] = []  # image, objects, with rough masks

    def set_images(self, images: Sequence[np.ndarray]) -> None:
        self.images = list(images)

    def masks_of_boxes(
        self, image_idx: int, boxes_xyxy: np.ndarray, rough_masks: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        self.asked.append((image_idx, len(boxes_xyxy), rough_masks is not None))
        masks = np.zeros((len(boxes_xyxy), *self.images[image_idx].shape[:2]), bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes_xyxy.astype(int), strict=True):
            mask[top:bottom, left:right] = True
        return masks, np.full(len(masks), 0.5, np.float32)

    def masks_of_points(
        self, image_idx: int, points: np.ndarray, is_inside: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError("nothing here asks with points")


def test_another_segmenter_takes_the_place_of_sam_2() -> None:
    segmenter, image, detections = SquareSegmenter(), make_image(60, 80), boxes(3)
    segmented = segment(segmenter, image, detections)
    assert [mask.sum() for mask in segmented.mask] == [36 * 26, 100, 80 * 60]
    assert segmented.data["mask_score"].tolist() == [0.5] * 3
    [first, nothing, second] = segment_batch(segmenter, [image] * 3, [boxes(1), boxes(0), boxes(2)])
    assert (len(first), len(nothing), len(second)) == (1, 0, 2) and len(segmenter.images) == 2
    assert nothing.mask.shape == (0, 60, 80)
    masks = np.zeros((1, 60, 80), bool)
    masks[0, 5:9, 5:9] = masks[0, 20:30, 40:60] = True
    refined = refine(segmenter, image, replace(boxes(1), mask=masks))
    np.testing.assert_array_equal(refined.mask, masks)  # two parts, each the box around it
    assert segmenter.asked == [(0, 3, False), (0, 1, False), (1, 2, False), (0, 2, True)]


def test_masks_that_are_there_are_kept() -> None:
    segmenter, image = SquareSegmenter(), make_image(60, 80)
    masks = np.zeros((3, 60, 80), bool)
    masks[0, 5, 5] = masks[2, 7, 7] = True
    some = replace(boxes(3), mask=masks)
    kept = segment_missing(segmenter, image, some)
    assert [mask.sum() for mask in kept.mask] == [1, 100, 1] and masks.sum() == 2
    assert "mask_score" not in kept.data
    assert segmenter.asked == [(0, 1, False)]
    for count in (0, 1, 3):
        np.testing.assert_array_equal(
            segment_missing(segmenter, image, boxes(count)).mask, segment(segmenter, image, boxes(count)).mask
        )
    all_there = replace(boxes(3), mask=np.ones((3, 60, 80), bool))
    assert segment_missing(None, image, all_there) is all_there  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"masks: expected \(1, 60, 80\), got \(1, 80, 60\)"):
        segment_missing(segmenter, image, replace(boxes(1), mask=np.zeros((1, 80, 60), bool)))


@pytest.mark.parametrize("num_images", [1, 2])
def test_points_become_the_masks_of_the_predictor(predictor: SAM2ImagePredictor, num_images: int) -> None:
    images = [make_image(60, 80), make_image(50, 40)][:num_images]
    segmenter = SAM2BoxSegmenter(predictor)
    segmenter.set_images(images)
    points = np.array([[[10, 10], [30, 40]], [[20, 5], [1, 1]], [[3, 3], [4, 4]]], np.float32)
    is_inside = np.array([[True, False], [True, True], [True, False]])
    found = [segmenter.masks_of_points(row, points[:count], is_inside[:count]) for row, count in enumerate((3, 1))
             if row < num_images]  # fmt: skip
    for image, (masks, scores) in zip(images, found, strict=True):
        assert masks.shape == (len(scores), *image.shape[:2]) and masks.dtype == bool and scores.dtype == np.float32
        predictor.set_image(image)
        for mask, score, coords, inside in zip(masks, scores, points, is_inside, strict=False):
            expected, expected_score, _ = predictor.predict(coords, inside.astype(int), multimask_output=False)
            assert (expected[0].astype(bool) != mask).sum() <= 1e-3 * mask.size
            assert score == pytest.approx(expected_score[0], abs=1e-4)


def test_boxes_do_not_depend_on_each_other(predictor: SAM2ImagePredictor) -> None:
    """Nested boxes together give what each gives alone."""
    image, detections = make_image(60, 80), boxes(3)
    together = segment(predictor, image, detections)
    for index in range(3):
        alone = segment(predictor, image, detections[[index]])
        np.testing.assert_array_equal(alone.mask[0], together.mask[index])
        assert alone.data["mask_score"][0] == pytest.approx(together.data["mask_score"][index], abs=1e-5)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_refined_masks_have_the_form_of_segmented_ones(predictor: SAM2ImagePredictor, count: int) -> None:
    image, detections = make_image(60, 80), boxes(count)
    masks = np.zeros((count, 60, 80), bool)
    masks[:, 10:20, 10:30] = True
    refined = refine(predictor, image, replace(detections, mask=masks))
    assert refined.mask.shape == (count, 60, 80) and refined.mask.dtype == bool
    assert refined.data["mask_score"].shape == (count,) and refined.data["mask_score"].dtype == np.float32
    np.testing.assert_array_equal(refined.xyxy, detections.xyxy)
    without = refine(predictor, image, detections)
    np.testing.assert_array_equal(without.mask, segment(predictor, image, detections).mask)


def test_masks_to_refine_have_the_size_of_the_image(predictor: SAM2ImagePredictor) -> None:
    with pytest.raises(ValueError, match=r"masks: expected \(1, 60, 80\), got \(1, 80, 60\)"):
        refine(predictor, make_image(60, 80), replace(boxes(1), mask=np.zeros((1, 80, 60), bool)))


def test_a_rough_outline_becomes_the_object() -> None:
    """Of the bundled picture's owl: half of its box at first, afterwards what its box alone gives."""
    predictor = SAM2ImagePredictor(build_sam2(ckpt_path=REPOSITORY / "checkpoints" / "sam2.1_nano.pt"))
    image = read_image(REPOSITORY / "assets" / "scene.jpg")
    owl = make_detections(np.array([[537, 213, 622, 329]]), np.ones(1), np.zeros(1, int), ["owl"], (640, 360))
    expected = segment(predictor, image, owl).mask[0]
    rough = np.zeros((1, 360, 640), bool)
    rough[0, 230:310, 555:600] = True
    refined = refine(predictor, image, replace(owl, mask=rough)).mask[0]
    assert (rough[0] & expected).sum() < 0.7 * (rough[0] | expected).sum()
    assert (refined & expected).sum() > 0.9 * (refined | expected).sum()


def test_parts_that_do_not_touch_are_drawn_one_by_one() -> None:
    """Between the pizza and the owl is a pig, which the box around both takes in."""
    predictor = SAM2ImagePredictor(build_sam2(ckpt_path=REPOSITORY / "checkpoints" / "sam2.1_nano.pt"))
    image = read_image(REPOSITORY / "assets" / "scene.jpg")
    each = make_detections(np.array([[245, 45, 340, 136], [537, 213, 622, 329]]), np.ones(2), np.arange(2),
                           ["pizza", "owl"], (640, 360))  # fmt: skip
    expected = segment(predictor, image, each).mask.any(axis=0)
    both = make_detections(np.array([[245, 45, 622, 329]]), np.ones(1), np.zeros(1, int), ["pizza and owl"], (640, 360))
    rough = np.zeros((1, 360, 640), bool)
    rough[0, 45:136, 245:340] = rough[0, 213:329, 537:622] = True
    refined = refine(predictor, image, replace(both, mask=rough))
    assert (refined.mask[0] & expected).sum() > 0.9 * (refined.mask[0] | expected).sum()
    assert refined.data["mask_score"].shape == (1,)


def test_a_mask_without_pixels_counts_as_its_box(predictor: SAM2ImagePredictor) -> None:
    image, detections = make_image(60, 80), boxes(2)
    masks = np.zeros((2, 60, 80), bool)
    masks[1, 8:19, 10:21] = True
    refined = refine(predictor, image, replace(detections, mask=masks))
    assert refined.mask.shape == (2, 60, 80)
    masks[0, 4:31, 4:41] = True
    filled = refine(predictor, image, replace(detections, mask=masks))
    assert (refined.mask[0] ^ filled.mask[0]).sum() <= 0.02 * filled.mask[0].size  # the boxes differ by a pixel
