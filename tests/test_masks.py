"""Masks: encoded, compared, boxed, and points inside them."""

from __future__ import annotations

import json
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from discs import LEFT, RIGHT, disc
from pycocotools import mask as coco_mask
from scipy import ndimage

from grounded_sam2.masks import decode_rle, encode_rle, mask_overlaps, one_polygon, points_in_mask, smoothed


def test_overlaps_of_discs_and_nothing() -> None:
    masks = [disc(place) for place in (LEFT, RIGHT, (18.0, 15.0, 8.0), None)]
    ious, inside = mask_overlaps(masks, masks)
    for row, one in enumerate(masks):
        for column, other in enumerate(masks):
            union = (one | other).sum()
            assert ious[row, column] == pytest.approx((one & other).sum() / union if union else 0.0)
            smaller = min(one.sum(), other.sum())
            assert inside[row, column] == pytest.approx((one & other).sum() / smaller if smaller else 0.0)
    assert mask_overlaps([], masks)[0].shape == (0, 4) and mask_overlaps(masks, [])[1].shape == (4, 0)


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("fill", ["random", "empty", "full"])
def test_rle_round_trip(count: int, fill: str) -> None:
    masks = np.random.default_rng(1).random((count, 9, 14)) > 0.6
    if fill != "random":
        masks[:] = fill == "full"
    segmentations = encode_rle(masks)
    assert json.loads(json.dumps(segmentations)) == segmentations
    assert all(segmentation["size"] == [9, 14] for segmentation in segmentations)
    if count:
        np.testing.assert_array_equal(decode_rle(segmentations), masks)
        assert [int(coco_mask.area(segmentation)) for segmentation in segmentations] == masks.sum((1, 2)).tolist()
    else:
        assert decode_rle(segmentations).shape == (0, 0, 0)


def test_rle_refuses_what_is_none() -> None:
    with pytest.raises(ValueError, match=r"expected \(N, H, W\), got \(9, 14\)"):
        encode_rle(np.zeros((9, 14), bool))
    with pytest.raises(ValueError, match="expected"):
        decode_rle([{"size": [3, 3]}])
    with pytest.raises(ValueError, match="expected"):
        decode_rle([{"size": [3, 3], "counts": [9]}])


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


# ---- one polygon ----


def drawn(lines: dict[str, list[tuple[slice, slice]]], size: tuple[int, int] = (60, 80)) -> np.ndarray:
    mask = np.zeros(size, bool)
    for area in lines["in"]:
        mask[area] = True
    for area in lines.get("out", []):
        mask[area] = False
    return mask


RING = drawn({"in": [np.s_[5:50, 10:60]], "out": [np.s_[15:40, 20:50]]})
SHAPES = {
    "bar": drawn({"in": [np.s_[5:20, 10:30]]}),
    "ring": RING,
    "two holes": drawn({"in": [np.s_[5:50, 10:60]], "out": [np.s_[10:20, 15:25], np.s_[30:31, 40:41]]}),
    "island in a ring": RING | drawn({"in": [np.s_[25:30, 30:40]]}),
    "two parts": drawn({"in": [np.s_[5:20, 10:30], np.s_[30:50, 40:70]]}),
    "a ring and a pixel": RING | drawn({"in": [np.s_[58:59, 75:76]]}),
    "one pixel": drawn({"in": [np.s_[59:60, 79:80]]}),
    "a line": drawn({"in": [np.s_[7:8, 3:60]]}),
    "a diagonal": np.eye(60, 80, dtype=bool) & drawn({"in": [np.s_[10:12, 10:12]]}),
    "everything": np.ones((60, 80), bool),
}


@pytest.mark.parametrize("to_pixels", [np.trunc, np.round])
@pytest.mark.parametrize("name", SHAPES)
def test_one_polygon_is_the_mask_but_for_bridges(name: str, to_pixels: Callable[[np.ndarray], np.ndarray]) -> None:
    """Read back as label files are: as shares of the size, with six digits, cut or rounded to pixels."""
    mask = SHAPES[name]
    polygon = one_polygon(mask)
    assert len(polygon) >= 3 and (np.ptp(polygon, axis=0) > 0).all()
    shares = (polygon / mask.shape[::-1]).round(6)
    filled = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(filled, [to_pixels(shares * mask.shape[::-1]).astype(np.int32)], 1)
    bridges = {"two parts": 18, "island in a ring": 12, "a ring and a pixel": 17}.get(name, 0)
    assert (filled.astype(bool) | ~mask).all() and (filled.astype(bool) & ~mask).sum() <= bridges


def test_no_mask_has_no_polygon() -> None:
    assert one_polygon(np.zeros((5, 7), bool)).shape == (0, 2)


def test_a_mask_in_many_pieces_is_one_polygon_in_no_time() -> None:
    mask = np.random.default_rng(0).random((80, 120)) > 0.6
    filled = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(filled, [one_polygon(mask).astype(np.int32)], 1)
    assert filled[mask].all()


def test_smoothing_is_a_closing_and_an_opening_of_the_whole_picture() -> None:
    """By SciPy's definitions, at the border too: beyond it, an erosion finds mask and a dilation none."""
    square = np.ones((3, 3), bool)
    masks = np.random.default_rng(0).random((4, 30, 40)) < np.array([0.02, 0.3, 0.6, 0.9])[:, None, None]
    masks = np.concatenate([masks, np.zeros((1, 30, 40), bool), np.ones((1, 30, 40), bool)])
    expected = []
    for mask in masks:
        closed = ndimage.binary_erosion(ndimage.binary_dilation(mask, square), square, border_value=1)
        expected.append(ndimage.binary_dilation(ndimage.binary_erosion(closed, square, border_value=1), square))
    smooth = smoothed(masks)
    assert smooth.dtype == bool and np.array_equal(smooth, expected)
    assert not np.array_equal(smooth[:4], masks[:4]) and smoothed(masks[:0]).shape == (0, 30, 40)
