"""What a request gives, checked: each function takes a name and a value, and gives the value, or a ValueError.

Only what JSON has comes in here; numbers that are not finite are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

__all__ = [
    "Check", "check_args", "encoded", "groups", "number", "numbers", "one_of", "options_of", "points", "text",
    "threshold", "whole", "whole_list", "yes_or_no",
]  # fmt: skip

Check = Callable[[str, Any], Any]

MOST_ITEMS = 10_000  # of a list
LONGEST_TEXT = 10_000  # characters


def check_args(
    command: str, args: Mapping[str, Any], known: Mapping[str, Check], required: Collection[str]
) -> dict[str, Any]:
    """The arguments that were given, each checked; None counts as not given.

    Raises:
        ValueError: one is missing, one too many, or of another kind.
    """
    unknown = [name for name in args if name not in known]
    if unknown:
        takes = ", ".join(known) or "nothing"
        raise ValueError(f"{command} takes {takes}, got {', '.join(map(repr, unknown))[:200]}")
    missing = [name for name in required if args.get(name) is None]
    if missing:
        raise ValueError(f"{command} needs {', '.join(missing)}")
    return {name: known[name](name, value) for name, value in args.items() if value is not None}


def whole(name: str, value: Any) -> int:
    """A whole number, also one that is written as 3.0."""
    if number(name, value) != int(value) or abs(value) >= 2**31:
        raise ValueError(f"{name}: expected a whole number, got {_brief(value)}")
    return int(value)


def number(name: str, value: Any) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    try:
        found = float(value) if is_number else math.nan
    except OverflowError:  # JSON has whole numbers of any length
        found = math.inf
    if not math.isfinite(found):
        raise ValueError(f"{name}: expected a number, got {_brief(value)}")
    return found


def yes_or_no(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name}: expected true or false, got {_brief(value)}")
    return value


def text(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise ValueError(f"{name}: expected a text of at most {LONGEST_TEXT} characters, got {_brief(value)}")
    if any("\ud800" <= character <= "\udfff" for character in value):  # JSON has those, UTF-8 does not
        raise ValueError(f"{name}: expected a text of whole characters, got {_brief(value)}")
    return value


def encoded(name: str, value: Any) -> str:
    """A mask as COCO's compressed text; whether it is one is found out when it is decoded."""
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected run-length encoding as a text, got {_brief(value)}")
    return value


def numbers(name: str, value: Any) -> list[float]:
    return [number(name, each) for each in _list(name, value)]


def whole_list(name: str, value: Any) -> list[int]:
    return [whole(name, each) for each in _list(name, value)]


def groups(name: str, value: Any) -> list[list[int]]:
    return [whole_list(name, each) for each in _list(name, value)]


def points(name: str, value: Any) -> list[list[float]]:
    """Points [x, y]."""
    found = [numbers(name, each) for each in _list(name, value)]
    if any(len(point) != 2 for point in found):
        raise ValueError(f"{name}: expected points [x, y], got {_brief(value)}")
    return found


def threshold(name: str, value: Any) -> float | dict[str, float]:
    """One number, or a number for each phrase."""
    if isinstance(value, dict):
        return {text(name, phrase): number(name, each) for phrase, each in value.items()}
    return number(name, value)


def options_of(name: str, value: Any) -> dict[str, Any]:
    """How a result is made: see `grounded_sam2.session.deliver.make_result`."""
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected a JSON object, got {_brief(value)}")
    known = {"strength": number, "margin": number, "color": text, "keep_sound": yes_or_no}
    return check_args(name, value, known, [])


def one_of(words: Collection[str]) -> Check:
    """A check for one of a few words."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"{name}: expected one of {', '.join(words)}, got {_brief(value)}")
        return value

    return check


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > MOST_ITEMS:
        raise ValueError(f"{name}: expected a list of at most {MOST_ITEMS}, got {_brief(value)}")
    return value


def _brief(value: Any) -> str:
    """A value in few characters."""
    said = repr(value)
    return said if len(said) <= 60 else said[:60] + " …"
