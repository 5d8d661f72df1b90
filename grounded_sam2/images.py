"""Still images, read, scaled and written as RGB uint8."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage
from PIL import ImageOps

from grounded_sam2.files import replacing

__all__ = ["IMAGE_SUFFIXES", "RGBImage", "check_image", "letterboxed", "read_image", "rgb_of_picture", "write_image"]

RGBImage = npt.NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


def read_image(path: str | os.PathLike[str]) -> RGBImage:
    """Read any still image as upright RGB.

    EXIF rotation is applied; grey is repeated over the channels; 16-bit values are scaled to 8 bits (65535 becomes
    255); what is transparent shows white, as on a page.

    Returns:
        `(H, W, 3)` uint8 RGB.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an image, or is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such image: {path}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, expected an image file")
    try:
        with PILImage.open(path) as picture:
            return rgb_of_picture(ImageOps.exif_transpose(picture))
    except PILImage.UnidentifiedImageError:
        raise ValueError(f"{path} is not an image that can be read ({path.stat().st_size} bytes)") from None
    except PermissionError:
        raise
    except (OSError, SyntaxError, EOFError, PILImage.DecompressionBombError) as error:
        raise ValueError(f"{path} is a damaged image: {error}") from error


def rgb_of_picture(picture: PILImage.Image) -> RGBImage:
    """The pixels of a PIL image of any mode as `(H, W, 3)` uint8 RGB."""
    if picture.mode.startswith("I"):  # 16-bit grey, which PIL would clip at 255 instead of scaling
        values = np.asarray(picture).astype(np.int64)
        grey = (np.clip(values, 0, 65535) // 257).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.mode == "F":
        raise ValueError("floating-point pixels, expected 8 or 16 bits a channel")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        page = PILImage.new("RGBA", picture.size, "white")
        picture = PILImage.alpha_composite(page, picture)
    return np.array(picture.convert("RGB"))


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


def check_image(image: object, name: str, size: tuple[int, int] | None = None) -> RGBImage:
    """Raise ValueError unless `image` is RGB uint8 `(H, W, 3)` of `size` (width, height)."""
    if not isinstance(image, np.ndarray):
        raise ValueError(f"{name}: expected an RGB uint8 array (H, W, 3), got {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"{name}: expected RGB uint8 (H, W, 3), got {image.dtype} {image.shape}")
    if size is not None and (image.shape[1], image.shape[0]) != size:
        raise ValueError(f"{name}: expected {size[0]}x{size[1]} pixels, got {image.shape[1]}x{image.shape[0]}")
    return image


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
