"""What both predictors and the mask generator do to masks: small regions, boxes, stability, run lengths.

Mask logits are floats of any leading shape, (…, H, W); binary masks are bool (…, H, W). Everything runs on the
device of its input except connected components, which OpenCV finds on the CPU, so no extension has to be compiled.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypedDict

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# A mask with fewer pixels than this to each change along its rows is looked at pixel by pixel at once.
_PIXELS_PER_EDGE = 100


class UncompressedRLE(TypedDict):
    """Run lengths of a mask read column by column, the first run being background (COCO's uncompressed form)."""

    size: list[int]  # height, width
    counts: list[int]


class CompressedRLE(TypedDict):
    """The same runs as COCO's compressed string."""

    size: list[int]
    counts: str


def small_components(masks: Tensor, max_area: float, least_share: float = 0.0) -> Tensor:
    """Mark the 8-connected components of at most `max_area` pixels, or of less than a share of their mask's largest.

    Args:
        masks: (…, H, W) bool.
        max_area: pixels; 0 or less marks nothing by this rule.
        least_share: of the pixels of the largest component; 0 marks nothing by this rule.

    Returns:
        (…, H, W) bool on the device of `masks`, True where a pixel of `masks` belongs to a small component.
    """
    if (max_area <= 0 and least_share <= 0) or masks.numel() == 0:
        return torch.zeros_like(masks)
    planes = masks.detach().cpu().contiguous().view(torch.uint8).reshape(-1, *masks.shape[-2:]).numpy()
    small = np.zeros(planes.shape, dtype=bool)
    for plane, marked in zip(planes, small, strict=True):
        _mark_small_components(plane, max_area, least_share, marked)
    return torch.from_numpy(small).reshape(masks.shape).to(masks.device)


def _mark_small_components(plane: np.ndarray, max_area: float, least_share: float, marked: np.ndarray) -> None:
    """Set `marked` (H, W) bool, False on entry, where `plane` (H, W) uint8 of 0 and 1 has a small component."""
    left, top, width, height = cv2.boundingRect(plane)
    if width == 0:
        return
    around = slice(top, top + height), slice(left, left + width)
    plane, marked = plane[around], marked[around]
    # Tracing outlines is several times faster than labelling every pixel, and most masks have no small region at all,
    # which their outlines tell. Not so for noise: too many outlines.
    edges = np.count_nonzero(plane[:, 1:] != plane[:, :-1])
    if edges * _PIXELS_PER_EDGE < plane.size:
        outlines, hierarchy = cv2.findContours(plane, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        is_outer = hierarchy.reshape(-1, 4)[:, 3] < 0  # the others are outlines of holes in a component
        # an outline passes each pixel at most four times, once for each of its sides
        most = max(max_area, least_share * np.count_nonzero(plane))
        if not any(outer and len(line) <= 4 * most for line, outer in zip(outlines, is_outer, strict=True)):
            return
    _, components, statistics, _ = cv2.connectedComponentsWithStats(plane, connectivity=8)
    areas = statistics[:, cv2.CC_STAT_AREA]
    is_small = (areas <= max_area) | (areas < least_share * areas[1:].max())
    is_small[0] = False  # the zeros of the plane
    if is_small.any():
        np.take(is_small, components, out=marked)


def fill_holes(mask_logits: Tensor, max_area: float, threshold: float = 0.0, fill_logit: float = 0.1) -> Tensor:
    """Turn small holes of masks into foreground.

    A hole is an 8-connected component of background of at most `max_area` pixels, one at the border included.

    Args:
        mask_logits: (…, H, W) float; above `threshold` is foreground.
        max_area: pixels; 0 or less fills nothing.
        threshold: logit that separates background from foreground.
        fill_logit: what a filled pixel becomes; above `threshold`.

    Returns:
        Logits of the same shape and dtype: the input itself where there is nothing to change, else a copy.
    """
    return _fill(mask_logits, small_components(mask_logits <= threshold, max_area), fill_logit)


def remove_small_components(
    mask_logits: Tensor, max_area: float, threshold: float = 0.0, fill_logit: float = -0.1
) -> Tensor:
    """Turn small islands ("sprinkles") of masks into background.

    Args:
        mask_logits: (…, H, W) float; above `threshold` is foreground.
        max_area: pixels of an 8-connected component that goes; 0 or less removes nothing.
        threshold: logit that separates background from foreground.
        fill_logit: what a removed pixel becomes; at most `threshold`.

    Returns:
        Logits of the same shape and dtype: the input itself where there is nothing to change, else a copy.
    """
    return _fill(mask_logits, small_components(mask_logits > threshold, max_area), fill_logit)


def clean_masks(
    mask_logits: Tensor, max_hole_area: float, max_sprinkle_area: float, threshold: float = 0.0, margin: float = 10.0
) -> Tensor:
    """Fill the small holes and remove the small islands of masks, both judged on the masks as they came.

    So an island within a hole is removed even where the hole around it is filled.

    Args:
        mask_logits: (…, H, W) float; above `threshold` is foreground.
        max_hole_area: see `fill_holes`.
        max_sprinkle_area: see `remove_small_components`.
        threshold: logit that separates background from foreground.
        margin: changed pixels become `threshold` plus or minus this.

    Returns:
        Logits of the same shape and dtype: the input itself where there is nothing to change, else a copy.
    """
    filled = fill_holes(mask_logits, max_hole_area, threshold, threshold + margin)
    return _fill(filled, small_components(mask_logits > threshold, max_sprinkle_area), threshold - margin)


def _fill(mask_logits: Tensor, where: Tensor, logit: float) -> Tensor:
    # copying the logits of many objects costs more than finding out that nothing is to be changed
    return mask_logits.masked_fill(where, logit) if where.any() else mask_logits


def upscaled_masks(mask_logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Where logits resized bilinearly to (H, W) are above 0, without a plane of logits for each mask.

    Only the surroundings of the positive logits are resized, since nothing between negative ones is positive.

    Args:
        mask_logits: (N, 1, h, w) float on the CPU.
        size: (H, W).

    Returns:
        (N, H, W) bool: `F.interpolate(mask_logits, size, mode="bilinear")[:, 0] > 0`, up to the rounding of a 0.
    """
    masks = torch.zeros(len(mask_logits), *size, dtype=torch.bool)
    weights = [_bilinear_weights(*lengths) for lengths in zip(mask_logits.shape[-2:], size, strict=True)]
    for logits, mask in zip(mask_logits[:, 0].float(), masks, strict=True):
        left, top, width, height = cv2.boundingRect((logits > 0).view(torch.uint8).numpy())
        if width == 0:
            continue
        rows, columns = slice(max(top - 1, 0), top + height + 1), slice(max(left - 1, 0), left + width + 1)
        (down, where_down), (across, where_across) = (
            _reached(weight, part) for weight, part in zip(weights, (rows, columns), strict=True)
        )
        torch.gt(down @ logits[rows, columns] @ across.T, 0, out=mask[where_down, where_across])
    return masks


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _bilinear_weights(length: int, resized: int) -> Tensor:
    """The matrix (resized, length) float32 that resizes one axis; cached, not to be changed."""
    unit = torch.eye(length)[None, None]  # resized along its rows alone
    return F.interpolate(unit, size=(resized, length), mode="bilinear", align_corners=False)[0, 0]


def _reached(weights: Tensor, part: slice) -> tuple[Tensor, slice]:
    """The rows of `weights` that read these columns and no other, and which they are; the rest get nothing of them."""
    is_reached = weights[:, part].sum(dim=1) > 0.999
    first, last = int(is_reached.int().argmax()), len(is_reached) - int(is_reached.flip(0).int().argmax())
    return weights[first:last, part], slice(first, last)


def stability_score(mask_logits: Tensor, threshold: float = 0.0, offset: float = 1.0) -> Tensor:
    """How little a mask changes with its threshold: IoU of the masks cut `offset` above and below it.

    Args:
        mask_logits: (…, H, W) float.
        threshold: logit in the middle.
        offset: logits, at least 0.

    Returns:
        (…) float32 in [0, 1]; 0 for a mask that is empty even at the lower cut.
    """
    inner = (mask_logits > threshold + offset).flatten(-2).sum(dim=-1, dtype=torch.int32)
    outer = (mask_logits > threshold - offset).flatten(-2).sum(dim=-1, dtype=torch.int32)
    return inner / outer.clamp(min=1)


def mask_to_box_xyxy(masks: Tensor) -> Tensor:
    """Tight boxes around masks.

    Args:
        masks: (…, H, W) bool.

    Returns:
        (…, 4) int64: first and last column and row that the mask touches, x0, y0, x1, y1, the last ones included;
        zeros for an empty mask.
    """
    corners = []
    for touched in (masks.any(dim=-2), masks.any(dim=-1)):  # (…, W) columns, (…, H) rows
        index = torch.arange(touched.shape[-1], device=masks.device)
        last = torch.where(touched, index, 0).amax(dim=-1)
        first = torch.where(touched, index, last.unsqueeze(-1)).amin(dim=-1)
        corners.append((first, last))
    (x0, x1), (y0, y1) = corners
    return torch.stack((x0, y0, x1, y1), dim=-1)


def mask_to_rle(masks: Tensor) -> list[UncompressedRLE]:
    """Run lengths of N masks.

    Args:
        masks: (N, H, W) bool.
    """
    height, width = masks.shape[-2:]
    encoded: list[UncompressedRLE] = []
    for column_major in masks.transpose(1, 2).flatten(1).cpu().numpy():
        starts = np.flatnonzero(column_major[1:] != column_major[:-1]) + 1
        counts = np.diff(starts, prepend=0, append=column_major.size).tolist()
        if column_major.size and column_major[0]:
            counts.insert(0, 0)
        encoded.append(UncompressedRLE(size=[height, width], counts=counts))
    return encoded


def rle_to_mask(rle: UncompressedRLE) -> np.ndarray:
    """The mask (H, W) bool of its run lengths.

    Raises:
        ValueError: the runs do not add up to the number of pixels.
    """
    height, width = rle["size"]
    counts = np.asarray(rle["counts"], dtype=np.int64)
    if counts.sum() != height * width:
        raise ValueError(f"run lengths of a {width}x{height} mask must add up to {height * width}, got {counts.sum()}")
    is_foreground = np.arange(len(counts)) % 2 == 1
    return np.repeat(is_foreground, counts).reshape(width, height).T


def rle_area(rle: UncompressedRLE) -> int:
    """Foreground pixels of a mask."""
    return sum(rle["counts"][1::2])


def compress_rle(rle: UncompressedRLE) -> CompressedRLE:
    """Run lengths as COCO writes them in JSON files."""
    from pycocotools import mask as coco_mask

    height, width = rle["size"]
    compressed = coco_mask.frPyObjects(rle, height, width)
    return CompressedRLE(size=[height, width], counts=compressed["counts"].decode("ascii"))
