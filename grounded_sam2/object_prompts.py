"""Objects that a person shows on a frame: by points, a box or a mask, each with a name.

The notation of settings, in which ";" or a line break ends an object, and numbers are pixels of the frame:

| setting | text | shows |
|---|---|---|
| points | `owl: 230 180, 250 200, not 60 60; 400 300` | an owl by two points on it and one beside it; "object" by one |
| boxes | `owl: 184 112 284 246` | an owl by left, top, right and bottom |
| masks | `red car: masks/7.png; masks/owl.png` | a red car and an owl, by images that are black elsewhere |

Without a name, an object by points or a box is called "object", and one by a mask as its file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from grounded_sam2.images import read_image
from grounded_sam2.masks import Masks

__all__ = ["UNNAMED", "ObjectPrompt", "read_object_prompts"]

UNNAMED = "object"
_LOSSY_SUFFIXES = (".jpg", ".jpeg", ".webp")
_LOSSY_BLACK = 127  # up to here, of 255, the pixels of a lossy image count as black


@dataclass(frozen=True)
class ObjectPrompt:
    """Where an object is on a frame: by points, a box, or a mask.

    Attributes:
        name: what a person calls it, in lower case.
        points: (P, 2) float32 xy in pixels; None: there are none.
        labels: (P,) int32, 1 for points on the object, 0 for points beside it.
        box: (4,) float32 xyxy in pixels; None: there is none.
        mask: (H, W) bool; None: there is none.
    """

    name: str = UNNAMED
    points: npt.NDArray[np.float32] | None = None
    labels: npt.NDArray[np.int32] | None = None
    box: npt.NDArray[np.float32] | None = None
    mask: Masks | None = None

    def __str__(self) -> str:
        """For messages: "owl, by its box"."""
        way = "mask" if self.mask is not None else "box" if self.box is not None else "points"
        return f"{self.name}, by its {way}"


def read_object_prompts(points: str, boxes: str, masks: str, size: tuple[int, int]) -> list[ObjectPrompt]:
    """Read the objects that settings show on a frame; see this module for the notation.

    Args:
        points: objects by points; "" for none.
        boxes: objects by boxes; "" for none.
        masks: objects by images of their masks: what is not black is the object. "" for none.
        size: (width, height) of the frame in pixels.

    Returns:
        The objects by points, then those by boxes, then those by masks.

    Raises:
        FileNotFoundError: there is no such image.
        ValueError: not in the notation, outside the frame, or an image that is of another size or shows nothing.
    """
    readers: list[tuple[str, Callable[[str, str, tuple[int, int]], ObjectPrompt]]] = [
        (points, _by_points), (boxes, _by_box), (masks, _by_mask),
    ]  # fmt: skip
    return [read(*entry, size) for text, read in readers for entry in _entries(text)]


def _entries(text: str) -> list[tuple[str, str]]:
    """Name, "" where there is none, and the rest of each object."""
    parts = [part.strip() for part in re.split(r"[;\n]", text)]
    named = [re.fullmatch(r"(?:(.*?):\s+)?(.*)", part) for part in parts if part]
    return [(" ".join((entry[1] or "").lower().split()), entry[2]) for entry in named if entry is not None]


def _numbers(text: str, count: int, whole: str, example: str) -> list[float]:
    words = text.split()
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(f"expected {example}, got {whole!r}")
    return numbers


def _by_points(name: str, text: str, size: tuple[int, int]) -> ObjectPrompt:
    points, labels = [], []
    for part in text.split(","):
        where = part.strip().removeprefix("not ")
        points.append(_numbers(where, 2, text, "points such as '230 180, 250 200, not 60 60'"))
        labels.append(int(where == part.strip()))
    for x, y in points:
        if not (0 <= x < size[0] and 0 <= y < size[1]):
            raise ValueError(f"the point {x:g} {y:g} is outside the frame of {size[0]}x{size[1]} pixels")
    if not any(labels):
        raise ValueError(f"expected a point on the object among {text!r}")
    return ObjectPrompt(name or UNNAMED, np.array(points, np.float32), np.array(labels, np.int32))


def _by_box(name: str, text: str, size: tuple[int, int]) -> ObjectPrompt:
    left, top, right, bottom = _numbers(text, 4, text, "a box such as '184 112 284 246', left top right bottom")
    if not (left < right and top < bottom):
        raise ValueError(f"expected a box whose left and top are below its right and bottom, got {text!r}")
    if right <= 0 or bottom <= 0 or left >= size[0] or top >= size[1]:
        raise ValueError(f"the box {text!r} is outside the frame of {size[0]}x{size[1]} pixels")
    corners = np.array([left, top, right, bottom], np.float32)
    return ObjectPrompt(name or UNNAMED, box=np.clip(corners, 0, np.array([*size, *size], np.float32)))


def _by_mask(name: str, path: str, size: tuple[int, int]) -> ObjectPrompt:
    brightness = read_image(path).max(axis=2)
    height, width = brightness.shape
    if (width, height) != size:
        raise ValueError(f"{path} has {width}x{height} pixels, expected a mask of {size[0]}x{size[1]} as the frames")
    mask = brightness > (_LOSSY_BLACK if Path(path).suffix.lower() in _LOSSY_SUFFIXES else 0)
    if mask.all() or not mask.any():
        raise ValueError(f"{path} shows no object: expected a mask that is black but for one")
    return ObjectPrompt(name or Path(path).stem.lower(), mask=mask)
