"""Text with a row for each object on each frame, as MOTChallenge and MOTS have it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from grounded_sam2.export.annotations import LARGEST_FRAME_IDX

__all__ = ["frame_index", "read_rows"]


def read_rows(path: Path, separator: str | None) -> Iterator[tuple[str, list[str]]]:
    """File and line, for messages, and the words of each row that is not empty.

    Args:
        separator: of words; None: any white space.

    Raises:
        ValueError: the file is no text.
        OSError: it cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{path}, line {number}", line.strip().split(separator)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text: {error}") from error


def frame_index(word: str, first_frame: int, origin: str) -> int:
    """The 0-based index of a frame from what the file calls it.

    Args:
        first_frame: what it calls the first one.

    Raises:
        ValueError: it is no whole number, or one before the first frame, or out of range.
    """
    try:
        number = float(word)
        frame_idx = int(number) - first_frame
        if number != int(number) or not 0 <= frame_idx <= LARGEST_FRAME_IDX:
            raise ValueError
    except (ValueError, OverflowError):
        raise ValueError(f"{origin}: expected a frame from {first_frame} on, got {word!r}") from None
    return frame_idx
