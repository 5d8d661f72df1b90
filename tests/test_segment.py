"""Boxes become masks, and masks points."""

import numpy as np
import pytest
import supervision as sv
from tiny_sam2 import make_image, make_tiny_model

from grounded_sam2.detectors.base import make_detections
from grounded_sam2.segment import points_in_mask, segment
from sam2.sam2_image_predictor import SAM2ImagePredictor

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


def test_boxes_do_not_depend_on_each_other(predictor: SAM2ImagePredictor) -> None:
    """Nested boxes together give what each gives alone."""
    image, detections = make_image(60, 80), boxes(3)
    together = segment(predictor, image, detections)
    for index in range(3):
        alone = segment(predictor, image, detections[[index]])
        np.testing.assert_array_equal(alone.mask[0], together.mask[index])
        assert alone.data["mask_score"][0] == pytest.approx(together.data["mask_score"][index], abs=1e-5)


def test_points_lie_inside_and_apart() -> None:
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:30, 5:55] = True
    points = points_in_mask(mask, 4)
    assert points.shape == (4, 2) and points.dtype == np.float32
    assert all(mask[int(y), int(x)] for x, y in points)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)[~np.eye(4, dtype=bool)]
    assert distances.min() > 5
    np.testing.assert_array_equal(points, points_in_mask(mask, 4))


@pytest.mark.parametrize(("pixels", "expected"), [([], 0), ([(0, 0)], 1), ([(0, 0), (0, 1)], 2), ([(3, 3)] * 2, 1)])
def test_small_masks_give_fewer_points(pixels: list[tuple[int, int]], expected: int) -> None:
    mask = np.zeros((4, 4), dtype=bool)
    for row, column in pixels:
        mask[row, column] = True
    points = points_in_mask(mask, 10)
    assert points.shape == (expected, 2)
    assert {(int(y), int(x)) for x, y in points} == set(pixels)
