"""Images as the model reads them: resized to a range of sides, scaled and normalised."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from checkpoint_files.configs import brief

_SETTINGS_FILES = ("preprocessor_config.json", "processor_config.json")
_LONGEST_EDGE = 10_000  # pixels
_BILINEAR = 2  # as Pillow numbers its filters


@dataclass(frozen=True)
class ImageTransform:
    """The size and scale of a model's input; the defaults are those of all official models.

    Attributes:
        shortest_edge: pixels the shorter side gets.
        longest_edge: pixels the longer side may have; a more elongated image gets a shorter short side.
        mean: of each RGB channel, in [0, 1].
        std: of each RGB channel.
    """

    shortest_edge: int = 800
    longest_edge: int = 1333
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __call__(self, image: npt.NDArray[np.uint8]) -> Tensor:
        """Prepare an image with the numerics of transformers' image processor, to the last bit.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            (3, h, w) float32, normalised.
        """
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        height, width = self._size(image.shape[0], image.shape[1], long_side_of_rounded=False)
        return self._normalize(_resized(pixels, (height, width)), unit=255.0)

    def from_pillow(self, image: Image.Image) -> Tensor:
        """Prepare an image with the numerics of upstream's `load_image`, whose size may differ by a pixel.

        Args:
            image: in mode "RGB".

        Returns:
            (3, h, w) float32, normalised.
        """
        height, width = self._size(image.height, image.width, long_side_of_rounded=True)
        resized = np.array(image.resize((width, height), Image.Resampling.BILINEAR))
        return self._normalize(torch.from_numpy(resized.transpose(2, 0, 1)).float().div(255), unit=1.0)

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image after `from_pillow`."""
        return self._size(height, width, long_side_of_rounded=True)

    def shrink(self, image: Tensor) -> Tensor:
        """A prepared image (3, h, w) that is larger than this transform makes them, at that size; others as they are.

        So an image that was prepared for the official models suits one that reads smaller images.
        """
        height, width = image.shape[-2:]
        size = self.size_of(height, width)
        if min(size) + 1 >= min(height, width):
            return image
        return torch.nn.functional.interpolate(image[None].float(), size, mode="bilinear", antialias=True)[0]

    def _normalize(self, pixels: Tensor, unit: float) -> Tensor:
        mean, std = (pixels.new_tensor(values).mul(unit)[:, None, None] for values in (self.mean, self.std))
        return pixels.sub(mean).div_(std).contiguous()

    def _size(self, height: int, width: int, long_side_of_rounded: bool) -> tuple[int, int]:
        """Height and width after resizing.

        Where the longest edge limits the size, the shorter side is rounded to whole pixels; the longer follows from
        that (upstream), or from what it was before (transformers).
        """
        short, long = min(height, width), max(height, width)
        exact = float(self.shortest_edge)
        if long / short * self.shortest_edge > self.longest_edge:
            exact = self.longest_edge * short / long
        new_short = round(exact)
        if short == new_short:
            return height, width
        new_long = int((new_short if long_side_of_rounded else exact) * long / short)
        return (new_short, new_long) if height <= width else (new_long, new_short)


def _resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels (3, H, W) uint8 as (3, h, w) float32 whole numbers, with the numerics of torchvision's `resize`."""
    if pixels.shape[1:] == size:
        return pixels.float()
    is_fast = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() in (
        "aarch64",
        "arm64",
    )
    image = pixels[None] if is_fast else pixels[None].float()  # elsewhere PyTorch has no fast kernel of whole numbers
    resized = torch.nn.functional.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)
    return resized[0].float().round()


def image_transform_for(path: str | Path) -> ImageTransform:
    """The transform a checkpoint was made for.

    Args:
        path: a Hugging Face folder, or a file in one, whose `preprocessor_config.json` or `processor_config.json` is
            read; a checkpoint without them is taken for an official one.

    Raises:
        ValueError: when the folder asks for something other than resizing to a range of sides and normalising.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    settings_path = next((folder / name for name in _SETTINGS_FILES if (folder / name).is_file()), None)
    if settings_path is None:
        return ImageTransform()
    try:
        settings = json.loads(settings_path.read_text(encoding="utf-8"))
        settings = settings.get("image_processor", settings)
        return _read(settings)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as problem:
        raise ValueError(
            f"{settings_path} is not read: expected an image processor of Grounding DINO with shortest_edge and "
            f"longest_edge, bilinear resizing, image_mean and image_std ({type(problem).__name__}: {problem!s:.200})"
        ) from problem


def _read(settings: Mapping[str, Any]) -> ImageTransform:
    unsupported = {
        name: settings[name]
        for name, expected in (
            ("do_resize", True),
            ("do_rescale", True),
            ("do_normalize", True),
            ("resample", _BILINEAR),
        )
        if settings.get(name, expected) != expected
    }
    if abs(settings.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-9:
        unsupported["rescale_factor"] = settings["rescale_factor"]
    if unsupported:
        raise ValueError(f"unsupported: {unsupported}")
    official, size = ImageTransform(), settings["size"]
    return ImageTransform(
        shortest_edge=_edge(size["shortest_edge"]),
        longest_edge=_edge(size["longest_edge"]),
        mean=_of_channels(settings.get("image_mean", official.mean)),
        std=_of_channels(settings.get("image_std", official.std), least=1e-6),
    )


def _edge(pixels: Any) -> int:
    if not isinstance(pixels, int) or not 1 <= pixels <= _LONGEST_EDGE:
        raise ValueError(f"an edge of {brief(pixels)} pixels, expected 1 to {_LONGEST_EDGE}")
    return pixels


def _of_channels(values: Any, least: float = 0.0) -> tuple[float, float, float]:
    red, green, blue = values
    if not all(isinstance(value, (int, float)) and least <= value <= 1 for value in (red, green, blue)):
        raise ValueError(f"expected three numbers from {least:g} to 1, got {brief(values)}")
    return float(red), float(green), float(blue)
