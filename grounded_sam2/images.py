"""Still images, read, scaled and written as RGB uint8."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as PILImage

from grounded_sam2.files import replacing
from sam2.frames.still_image import IMAGE_SUFFIXES, RGBImage, check_image, read_image, rgb_of_picture

__all__ = ["IMAGE_SUFFIXES", "RGBImage", "check_image", "letterboxed", "read_image", "rgb_of_picture", "write_image"]


def write_image(path: str | os.PathLike[str], image: RGBImage) -> None:
    """Write an RGB image in the format that the suffix of `path` names; an older file is replaced in one step.

    Args:
        path: ends in one of `IMAGE_SUFFIXES`; missing folders are made.
        image: `(H, W, 3)` uint8 RGB.

    Raises:
        ValueError: an unknown suffix, or `image` is not RGB uint8.
        OSError: `path` cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise ValueError(f"cannot write {path}: expected one of {', '.join(sorted(IMAGE_SUFFIXES))}, got '{suffix}'")
    check_image(image, "image")
    with replacing(path) as temporary:
        PILImage.fromarray(image).save(temporary, quality=95)


def letterboxed(image: RGBImage, size: tuple[int, int]) -> RGBImage:
    """Scale an image to fit within a size whole and undistorted, in the middle of black.

    Args:
        image: RGB uint8 `(H, W, 3)`.
        size: (width, height) in pixels.

    Returns:
        RGB uint8 `(height, width, 3)`; `image` itself when it has that size.
    """
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    scale = min(size[0] / width, size[1] / height)
    inner_width, inner_height = max(1, round(width * scale)), max(1, round(height * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    left, top = (size[0] - inner_width) // 2, (size[1] - inner_height) // 2
    framed = np.zeros((size[1], size[0], 3), np.uint8)
    framed[top : top + inner_height, left : left + inner_width] = cv2.resize(
        image, (inner_width, inner_height), interpolation=interpolation
    )
    return framed
