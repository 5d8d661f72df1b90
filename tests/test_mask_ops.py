"""Small regions, boxes, stability and run lengths of masks."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from scipy import ndimage

from sam2 import mask_ops


def plane(*rows: str) -> torch.Tensor:
    """(1, 1, H, W) bool from rows of "." and "#"."""
    return torch.tensor([[character == "#" for character in row] for row in rows])[None, None]


def logits_of(masks: torch.Tensor) -> torch.Tensor:
    return torch.where(masks, 3.0, -3.0)


def small_by_labels(mask: np.ndarray, max_area: float) -> np.ndarray:
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    is_small = np.bincount(labels.ravel(), minlength=count + 1) <= max_area
    is_small[0] = False
    return is_small[labels]


@pytest.mark.parametrize("pixels_per_edge", [0, 100, 10**9], ids=["outlines", "default", "labels"])
@pytest.mark.parametrize("density", [0.02, 0.3, 0.5, 0.9])
def test_small_components_are_those_of_labelling_every_pixel(
    pixels_per_edge: int, density: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_ops, "_PIXELS_PER_EDGE", pixels_per_edge)
    rng = np.random.default_rng(0)
    for max_area in (1, 2, 5, 20, 1000) * 8:
        height, width = rng.integers(1, 40, 2)
        masks = rng.random((2, 1, height, width)) < density
        small = mask_ops.small_components(torch.from_numpy(masks), max_area).numpy()
        for mask, found in zip(masks[:, 0], small[:, 0], strict=True):
            np.testing.assert_array_equal(found, small_by_labels(mask, max_area))


@pytest.mark.parametrize("pixels_per_edge", [0, 10**9], ids=["outlines", "labels"])
@pytest.mark.parametrize("least_share", [0.02, 0.3, 1.0])
def test_components_are_small_beside_the_largest(
    least_share: float, pixels_per_edge: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_ops, "_PIXELS_PER_EDGE", pixels_per_edge)
    masks = ndimage.gaussian_filter(np.random.default_rng(2).standard_normal((3, 60, 80)), (0, 2, 2)) > 0.08
    masks[2] = False
    small = mask_ops.small_components(torch.from_numpy(masks), 0, least_share).numpy()
    for mask, marked in zip(masks[:2], small, strict=False):
        areas = np.bincount(ndimage.label(mask, np.ones((3, 3)))[0].ravel())[1:]
        expected = small_by_labels(mask, np.ceil(least_share * areas.max()) - 1)
        assert np.array_equal(marked, expected) and expected.any()
    assert not small[2].any()


@pytest.mark.parametrize(("max_area", "filled"), [(0, 0), (1, 2), (2, 4), (3, 4)])
def test_fill_holes(max_area: int, filled: int) -> None:
    masks = plane(
        "########.",  # a corner pixel, a pixel inside, and two pixels that touch by a corner
        "#.####.##",
        "#####.###",
        "#########",
    )
    logits = logits_of(masks)
    before = logits.clone()
    after = mask_ops.fill_holes(logits, max_area)
    assert torch.equal(logits, before)
    assert ((after > 0) & ~masks).sum() == filled
    assert torch.equal(after[after != before].unique(), torch.tensor([0.1] if filled else []))


@pytest.mark.parametrize(("max_area", "removed"), [(0, 0), (1, 1), (3, 4), (100, 16)])
def test_remove_small_components(max_area: int, removed: int) -> None:
    masks = plane(
        "####...#.",
        "#..#..#..",
        "#..#.#...",
        "####....#",
    )
    logits = logits_of(masks)
    before = logits.clone()
    after = mask_ops.remove_small_components(logits, max_area)
    assert torch.equal(logits, before)
    assert (masks & ~(after > 0)).sum() == removed
    assert torch.equal(after[after != before].unique(), torch.tensor([-0.1] if removed else []))


def test_clean_masks_judges_both_on_the_masks_as_they_came() -> None:
    masks = plane(
        "#######",
        "#.....#",
        "#..#..#",
        "#.....#",
        "#######",
    )
    cleaned = mask_ops.clean_masks(logits_of(masks), max_hole_area=14, max_sprinkle_area=1, threshold=0.5)
    expected = torch.full((5, 7), 3.0)
    expected[1:4, 1:6] = 10.5
    expected[2, 3] = -9.5
    assert torch.equal(cleaned[0, 0], expected)


def test_the_threshold_itself_is_background() -> None:
    logits = torch.full((1, 1, 3, 3), 2.0)
    logits[0, 0, 1, 1] = 0.5
    assert mask_ops.fill_holes(logits, 1, threshold=0.5, fill_logit=0.6)[0, 0, 1, 1] == pytest.approx(0.6)
    assert torch.equal(mask_ops.fill_holes(logits, 1), logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(0, 1, 8, 8), (1, 1, 8, 8), (3, 1, 8, 8), (2, 3, 8, 8), (8, 8)])
def test_shapes_and_dtypes_are_kept(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    for cleaned in (mask_ops.fill_holes(logits, 4), mask_ops.remove_small_components(logits, 4)):
        assert cleaned.shape == shape
        assert cleaned.dtype == dtype


def test_stability_score() -> None:
    logits = torch.tensor([[[5.0, 0.5, -0.5, -5.0]], [[5.0, 5.0, 5.0, -5.0]], [[-5.0, -5.0, -5.0, -5.0]]])
    torch.testing.assert_close(mask_ops.stability_score(logits, 0.0, 1.0), torch.tensor([1 / 3, 1.0, 0.0]))
    torch.testing.assert_close(mask_ops.stability_score(logits, 0.0, 0.4), torch.tensor([1.0, 1.0, 0.0]))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_mask_to_box(count: int) -> None:
    masks = torch.zeros(count, 6, 9, dtype=torch.bool)
    masks[:, 2:5, 3:8] = True
    masks[2:] = False  # an empty mask
    expected = torch.tensor([[3, 2, 7, 4], [3, 2, 7, 4], [0, 0, 0, 0]])[:count]
    assert torch.equal(mask_ops.mask_to_box_xyxy(masks), expected)
    assert mask_ops.mask_to_box_xyxy(masks.unsqueeze(1)).shape == (count, 1, 4)


@pytest.mark.parametrize("density", [0.0, 0.1, 0.9, 1.0])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_rle_round_trip(count: int, density: float) -> None:
    masks = np.random.default_rng(0).random((count, 7, 5)) < density
    encoded = mask_ops.mask_to_rle(torch.from_numpy(masks))
    assert len(encoded) == count
    for rle, mask in zip(encoded, masks, strict=True):
        np.testing.assert_array_equal(mask_ops.rle_to_mask(rle), mask)
        assert mask_ops.rle_area(rle) == mask.sum()
        np.testing.assert_array_equal(coco_mask.decode(mask_ops.compress_rle(rle)).astype(bool), mask)


def test_rle_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="add up to 12, got 11"):
        mask_ops.rle_to_mask({"size": [3, 4], "counts": [5, 6]})


@pytest.mark.parametrize("size", [(31, 50), (9, 7), (4, 5), (90, 8)])
@pytest.mark.parametrize("shift", [-4.0, -1.0, 1.0])
def test_upscaled_masks_are_the_positive_logits_of_the_whole_plane(size: tuple[int, int], shift: float) -> None:
    logits = torch.randn(4, 1, 9, 7, generator=torch.Generator().manual_seed(0)) + shift
    logits[0] = -1024.0
    logits[1, 0, 0, 6] = 5.0
    expected = torch.nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)[:, 0] > 0
    assert torch.equal(mask_ops.upscaled_masks(logits, size), expected)
    assert mask_ops.upscaled_masks(logits[:0], size).shape == (0, *size)
