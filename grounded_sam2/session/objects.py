"""What a session knows beside masks: its objects, what it looks for, and the commands that changed them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

__all__ = ["Command", "Search", "SessionObject"]


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


@dataclass
class Command:
    """One thing that a person did, and what it changed.

    Attributes:
        seq: counts from 1.
        kind: "add", "refine", "rename", …
        args: what was asked for, as plain values.
        objects: object id → what it was (None: not there) and what it is.
        search: what the search was and is; None: not changed.
        first: number of its first record.
        stop: number after its last one; None while it is open.
    """

    seq: int
    kind: str
    args: dict[str, Any]
    objects: dict[int, tuple[SessionObject | None, SessionObject]] = field(default_factory=dict)
    search: tuple[Search, Search] | None = None
    first: int = 0
    stop: int | None = None

    def to_line(self) -> str:
        """As a line of the log; inverse of `from_entry`."""
        objects = {
            int(obj_id): [before and asdict(before), asdict(after)] for obj_id, (before, after) in self.objects.items()
        }
        entry = {"seq": self.seq, "kind": self.kind, "args": self.args, "objects": objects}
        search = None if self.search is None else [asdict(search) for search in self.search]
        return json.dumps({**entry, "search": search, "cells": [self.first, self.stop]}, default=np.generic.item) + "\n"

    @classmethod
    def from_entry(cls, entry: dict[str, Any]) -> Command:
        objects = {
            int(obj_id): (before and SessionObject(**before), SessionObject(**after))
            for obj_id, (before, after) in entry["objects"].items()
        }
        search = None if entry["search"] is None else (Search(**entry["search"][0]), Search(**entry["search"][1]))
        first, stop = entry["cells"]
        return cls(int(entry["seq"]), str(entry["kind"]), dict(entry["args"]), objects, search, first, stop)
