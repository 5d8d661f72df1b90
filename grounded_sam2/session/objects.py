"""What a session knows of its objects beside their masks, and what it looks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Search", "SessionObject"]


@dataclass(frozen=True)
class SessionObject:
    """One object; a command that changes it makes another one.

    Attributes:
        obj_id: at least 1, never used again.
        name: what it is called, for people.
        class_name: what kind of thing it is: the phrase it was found by.
        color: "#rrggbb".
        home_frame: 0-based frame on which it was added.
        confidence: of the detector; 1 where a person showed it.
        is_hidden: not drawn; it is tracked and exported all the same.
        is_locked: refuses every command that changes its masks or itself, but `lock`.
        is_removed: gone, until an undo.
    """

    obj_id: int
    name: str
    class_name: str
    color: str
    home_frame: int
    confidence: float = 1.0
    is_hidden: bool = False
    is_locked: bool = False
    is_removed: bool = False


@dataclass(frozen=True)
class Search:
    """What is looked for by `find`; see `grounded_sam2.detectors.base.Detector.detect`.

    Attributes:
        text_prompt: the phrases, "dog. red apple."; "" for none yet.
        box_threshold: the least confidence of a box; a mapping gives phrases their own.
        text_threshold: the least score of a label, likewise.
    """

    text_prompt: str = ""
    box_threshold: float | Mapping[str, float] = 0.35
    text_threshold: float | Mapping[str, float] = 0.25
