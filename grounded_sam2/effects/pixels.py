"""What an effect does to the pixels of one frame.

Blurring and pixelating throw detail away: an object becomes a few coarse cells, each the mean of its own pixels, and
nothing finer remains in the picture. What many frames show together is more than one frame does, so that only a cover
is beyond all doubt. All colours are taken from the pixels of the mask alone, so that none bleed in from beside it.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from grounded_sam2.images import RGBImage
from grounded_sam2.masks import Masks, corners_of

__all__ = ["RGBAImage", "blurred", "covered", "cut_out", "grown", "longest_side", "pixelated"]

RGBAImage = npt.NDArray[np.uint8]  # (H, W, 4), alpha not multiplied in


def longest_side(mask: Masks) -> int:
    """The longer side in pixels of the box around a mask (H, W); 0 for an empty one."""
    left, top, right, bottom = corners_of(mask)
    return max(right - left, bottom - top)


def grown(mask: Masks, margin: float) -> Masks:
    """A mask (H, W) with all pixels that are at most `margin` pixels from it; the same mask for a margin below 1."""
    left, top, right, bottom = corners_of(mask)
    if margin < 1 or right == 0:
        return mask
    reach = math.ceil(margin)
    window = np.s_[max(0, top - reach) : bottom + reach, max(0, left - reach) : right + reach]
    distance = cv2.distanceTransform((~mask[window]).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    larger = mask.copy()
    larger[window] = distance <= margin
    return larger


def pixelated(image: RGBImage, mask: Masks, cell: float) -> RGBImage:
    """An image (H, W, 3) whose masked pixels are squares of one colour, about `cell` pixels wide.

    All other pixels stay as they are; N = 0 pixels in the mask give an equal image.
    """
    return _coarse(image, mask, cell, cv2.INTER_NEAREST)


def blurred(image: RGBImage, mask: Masks, cell: float) -> RGBImage:
    """As `pixelated`, with smooth transitions between the squares; no finer detail is left than there."""
    return _coarse(image, mask, cell, cv2.INTER_CUBIC)


def _coarse(image: RGBImage, mask: Masks, cell: float, interpolation: int) -> RGBImage:
    changed = image.copy()
    left, top, right, bottom = corners_of(mask)
    if right == 0:
        return changed
    window = np.s_[top:bottom, left:right]
    inside = mask[window]
    size = (right - left, bottom - top)
    grid = (max(1, math.ceil(size[0] / cell)), max(1, math.ceil(size[1] / cell)))
    weights = inside.astype(np.float32)
    sums = cv2.resize(image[window] * weights[..., None], grid, interpolation=cv2.INTER_AREA).reshape(*grid[::-1], 3)
    shares = cv2.resize(weights, grid, interpolation=cv2.INTER_AREA).reshape(*grid[::-1], 1)
    mean = image[window][inside].mean(axis=0)  # where a cell has no pixel of the mask
    cells = np.where(shares > 0, sums / np.maximum(shares, np.float32(1e-6)), mean).astype(np.float32)
    coarse = cv2.resize(cells, size, interpolation=interpolation).reshape(*size[::-1], 3)
    changed[window][inside] = np.clip(np.rint(coarse), 0, 255).astype(np.uint8)[inside]
    return changed


def covered(image: RGBImage, mask: Masks, color: tuple[int, int, int]) -> RGBImage:
    """An image (H, W, 3) whose masked pixels have one RGB colour."""
    changed = image.copy()
    changed[mask] = color
    return changed


def cut_out(image: RGBImage, mask: Masks) -> RGBAImage:
    """The masked pixels of an image (H, W, 3) as (H, W, 4), the others transparent and black: nothing hides there."""
    alpha = np.where(mask, np.uint8(255), np.uint8(0))
    return np.dstack([image * mask[..., None], alpha])
