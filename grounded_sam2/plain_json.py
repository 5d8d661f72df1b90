"""JSON that others may have written: read as the plain values that files of ours hold, or refused."""

from __future__ import annotations

import json
import math
from typing import Any

from checkpoint_files.configs import brief
from sam2.frames.still_image import MAX_PIXELS

__all__ = ["check_box", "check_number", "check_size", "check_text", "check_whole", "loads"]

LARGEST_WHOLE = 2**31 - 1  # of an id or an index


def loads(text: str | bytes) -> Any:
    """What JSON text says; `json.loads` without what JSON itself does not know.

    Raises:
        ValueError: it is not JSON, or says NaN or Infinity, or is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def check_whole(value: Any, name: str, least: int = 0, largest: int = LARGEST_WHOLE) -> int:
    """`value`, if it is a whole number of a range.

    Raises:
        ValueError: it is something else; says what `name` should be.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= largest:
        raise ValueError(f"{name}: expected a whole number from {least} to {largest}, got {brief(value)}")
    return value


def check_number(value: Any, name: str, largest: float = 1e9) -> float:
    """`value`, if it is a finite number of at most this size; errors as of `check_whole`."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not (abs(value) <= largest and math.isfinite(value)):
        raise ValueError(f"{name}: expected a number up to {largest:g}, got {brief(value)}")
    return float(value)


def check_box(value: Any) -> list[float]:
    """`value`, if it is a list of four numbers; errors as of `check_whole`."""
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError(f"bbox: expected four numbers, got {brief(value)}")
    return [check_number(side, "bbox") for side in value]


def check_size(entry: Any) -> tuple[int, int]:
    """Width and height in pixels that annotations state; KeyError, or errors as of `check_whole`."""
    width, height = (check_whole(entry[key], key, least=1) for key in ("img_width", "img_height"))
    if width * height > MAX_PIXELS:
        raise ValueError(f"img_width, img_height: expected at most {MAX_PIXELS} pixels in all, got {width}x{height}")
    return width, height


def check_text(value: Any, name: str) -> str:
    """`value`, if it is text; errors as of `check_whole`."""
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected text, got {brief(value)}")
    return value
