"""Still images, read from files and folders as upright RGB uint8."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage
from PIL import ImageOps

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "RGBImage",
    "check_image",
    "check_regular_file",
    "images_in",
    "read_image",
    "rgb_of_picture",
]

RGBImage = npt.NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
# An image or a video frame of more is refused before memory is taken for it; Pillow refuses no less by itself.
MAX_PIXELS = 178_000_000


def read_image(path: str | os.PathLike[str]) -> RGBImage:
    """Read any still image as upright RGB.

    EXIF rotation is applied; grey is repeated over the channels; 16-bit values are scaled to 8 bits (65535 becomes
    255); what is transparent shows white, as on a page.

    Returns:
        `(H, W, 3)` uint8 RGB.

    Raises:
        FileNotFoundError: there is no such file.
        PermissionError: it may not be read.
        ValueError: it is no image file, is damaged, or has more than `MAX_PIXELS` pixels. Whatever the decoder of a
            format raises becomes this, in one line with the file's name.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such image: {path}")
    check_regular_file(path, "an image file")
    try:
        with PILImage.open(path) as picture:
            problem = _reason_to_refuse(picture)
            if problem is None:
                return rgb_of_picture(ImageOps.exif_transpose(picture))
    except PILImage.UnidentifiedImageError:
        problem = f"is not an image that can be read ({path.stat().st_size} bytes)"
    except PermissionError:
        raise
    except PILImage.DecompressionBombError:
        problem = f"has too many pixels, expected at most {MAX_PIXELS}"
    except Exception as error:  # decoders of damaged files raise nearly everything, AttributeError and MemoryError too
        problem = f"is a damaged image: {' '.join(str(error).split()) or type(error).__name__}"
    raise ValueError(f"{path} {problem}")


def _reason_to_refuse(picture: PILImage.Image) -> str | None:
    """Why the pixels of an opened image are not to be decoded; None where they are."""
    if picture.width * picture.height > MAX_PIXELS:
        return f"has {picture.width}x{picture.height} pixels, expected at most {MAX_PIXELS} in all"
    if picture.mode == "F":
        return "has floating-point pixels, expected 8 or 16 bits a channel"
    if picture.format == "EPS":  # Pillow would hand it to another program to run
        return "is PostScript, which is a program to run and not an image"
    return None


def rgb_of_picture(picture: PILImage.Image) -> RGBImage:
    """The pixels of a PIL image of any mode as `(H, W, 3)` uint8 RGB."""
    if picture.mode.startswith("I"):  # 16-bit grey, which PIL would clip at 255 instead of scaling
        grey = (np.clip(np.asarray(picture), 0, 65535) // 257).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.mode == "F":
        raise ValueError("floating-point pixels, expected 8 or 16 bits a channel")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        page = PILImage.new("RGBA", picture.size, "white")
        picture = PILImage.alpha_composite(page, picture)
    return np.array(picture.convert("RGB"))


def check_image(image: object, name: str, size: tuple[int, int] | None = None) -> RGBImage:
    """Raise ValueError unless `image` is RGB uint8 `(H, W, 3)` of `size` (width, height)."""
    if not isinstance(image, np.ndarray):
        raise ValueError(f"{name}: expected an RGB uint8 array (H, W, 3), got {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"{name}: expected RGB uint8 (H, W, 3), got {image.dtype} {image.shape}")
    if size is not None and (image.shape[1], image.shape[0]) != size:
        raise ValueError(f"{name}: expected {size[0]}x{size[1]} pixels, got {image.shape[1]}x{image.shape[0]}")
    return image


def check_regular_file(path: Path, expected: str) -> None:
    """Raise ValueError for a folder, and for a pipe or a device, which would be waited for without end."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder, expected {expected}")
    if not path.is_file():
        raise ValueError(f"{path} is a pipe, a socket or a device, expected {expected}")


def images_in(folder: Path) -> list[Path]:
    """The images of a folder in natural order of their names: 2.jpg before 10.jpg.

    Hidden files and whatever is no file are left out.

    Raises:
        ValueError: there are none.
    """
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise ValueError(
            f"no images in {folder}: expected {', '.join(sorted(IMAGE_SUFFIXES))}, found {len(files)} other files"
        )
    return sorted(images, key=_natural_key)


def _natural_key(path: Path) -> tuple[list[str | int], str]:
    """Sort key by which frame2 comes before frame10; never the same for two names of a folder."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [int(part) if position % 2 else part for position, part in enumerate(parts)], path.name
