"""Values of configuration files, checked before a model is built with them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

__all__ = ["brief", "check_fields", "read_json_object"]

_LARGEST = 2**20  # of a whole number; no width, size or count of a model comes near


def read_json_object(file: Path) -> dict[str, Any]:
    """What a JSON file holds.

    Raises:
        OSError: it cannot be opened.
        ValueError: it holds no JSON object.
    """
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not a JSON file: {error}") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{file} is not a config: expected an object, found {type(tree).__name__}")
    return tree


def check_fields(defaults: Any, values: Mapping[str, Any], source: str) -> None:
    """Make sure that values are of the kinds that the fields of a configuration have.

    Args:
        defaults: the configuration, a dataclass, with values of the right kinds.
        values: name of a field → value.
        source: what errors call the file.

    Raises:
        ValueError: another kind of value, or a number out of all reason; names the field.
    """
    kinds = {field.name: getattr(defaults, field.name) for field in fields(defaults)}
    for name, value in values.items():
        expected = _expectation(kinds[name], value)
        if expected is not None:
            raise ValueError(f"{source}: {name}: expected {expected}, found {brief(value)}")


def brief(value: Any) -> str:
    """A value for a message, cut to a bearable length."""
    try:
        return f"{value!r:.80}"
    except (ValueError, RecursionError):  # Python writes no number of more than 4300 digits
        return f"a {type(value).__name__} too large to show"


def _expectation(default: Any, value: Any) -> str | None:
    """What a value should be; None where it is that."""
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(default, int):
        return None if _is_whole(value) else f"a whole number up to {_LARGEST}"
    if isinstance(default, float):
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return None if is_number and abs(value) < 1e30 and math.isfinite(value) else "a number"
    if isinstance(default, tuple):
        is_list = isinstance(value, tuple) and 0 < len(value) <= 1000 and all(map(_is_whole, value))
        return None if is_list else "a list of whole numbers"
    return None if isinstance(value, type(default)) else f"a {type(default).__name__}"


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST
