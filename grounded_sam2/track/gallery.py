"""Ids across videos: what the objects of earlier runs looked like, in a file, so that they get their ids again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from grounded_sam2 import plain_json
from grounded_sam2.files import check_writable, replacing
from grounded_sam2.locks import locked
from grounded_sam2.track.keeper import IdentityKeeper
from grounded_sam2.track.looks import Descriptor
from grounded_sam2.track.object_track import Descriptors, TrackState, unit

__all__ = ["Gallery", "KnownObject"]

_FORMAT = "objects of grounded_sam2"
_VERSION = 1
_MOST_BYTES = 2**28  # of a file that is read
_MOST_LOOKS = 1024  # of one object
_DIGITS = 4  # behind the point, of numbers up to 1


@dataclass(frozen=True)
class KnownObject:
    """An object of earlier videos.

    Attributes:
        obj_id: the one that it always has.
        class_name: what it was called, and always is.
        looks: (K, C) float32 of length 1, K ≥ 1; see `Track.looks`.
    """

    obj_id: int
    class_name: str
    looks: Descriptors


class Gallery:
    """The objects of earlier runs, and of this one once it has ended well.

        with Gallery("people.json", descriptor) as gallery:
            tracker = ContinuousTracker(detector, predictor, "person.", descriptor=descriptor, gallery=gallery)
            ...                                            # all frames
            gallery.keep(tracker.keeper, tracker.phrases)

    No other run may use the file meanwhile, for both would give out the same new ids. A run that is interrupted changes
    nothing in it. As many objects are kept as `IdentityRules.max_lost` says, those seen last.

    Args:
        path: of the file, made by the first run; None: there is no gallery, and nothing is done.
        descriptor: describes the looks of this run, by which objects are known again; None: nothing does.

    Attributes:
        objects: those of the earlier runs, the last seen first.
        next_obj_id: the id that the next new object gets.
        fingerprint: of the file as it was read; "" where there was none.

    Raises:
        ValueError: the file is damaged, is something else, or holds looks of another descriptor; or there is no
            descriptor.
        OSError: it cannot be read or written, or another run uses it.
    """

    def __init__(self, path: str | os.PathLike[str] | None, descriptor: Descriptor | None) -> None:
        self.path = None if path is None else Path(path)
        self.objects: list[KnownObject] = []
        self.next_obj_id = 1
        self.fingerprint = ""
        self._looks_name = "" if descriptor is None else descriptor.name
        self._to_write: dict[str, Any] | None = None
        self._lock = ExitStack()
        if self.path is not None:
            if descriptor is None:
                raise ValueError("objects of other videos are known again by their looks, and these are off")
            target = check_writable(self.path)
            self._lock.enter_context(locked(target.with_name(f".{target.name}.lock"), self._refuse))
            try:
                self._read(target)
            except BaseException:
                self._lock.close()
                raise

    def _refuse(self) -> None:
        raise BlockingIOError(f"another run uses {self.path}: wait until it ends, or choose another gallery")

    def mark(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of a run with what is in the file: no run is resumed after another one has changed it."""
        return {**settings, "GALLERY (its content)": self.fingerprint}

    def recall(self, keeper: IdentityKeeper, class_of: Callable[[str], int]) -> None:
        """Let a keeper that has no object yet know those of the earlier runs.

        Args:
            keeper: gets them, and goes on with their ids.
            class_of: the class id of a name.
        """
        for known in self.objects:
            keeper.recall(known.obj_id, class_of(known.class_name), known.looks)
        keeper.next_obj_id = max(keeper.next_obj_id, self.next_obj_id)

    def _read(self, target: Path) -> None:
        if not target.exists():
            return
        if not target.is_file() or target.stat().st_size > _MOST_BYTES:
            raise ValueError(f"{self.path} is no gallery: expected a file of at most {_MOST_BYTES >> 20} MiB")
        content = target.read_bytes()
        try:
            saved = plain_json.loads(content)
            is_gallery = saved["format"] == _FORMAT
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} is no gallery, or is damaged: {type(error).__name__}: {error}") from error
        if not is_gallery or saved.get("version") != _VERSION:
            raise ValueError(f"{self.path} is no gallery of this version ({_VERSION})")
        if saved.get("looks") != self._looks_name:
            raise ValueError(
                f"{self.path} holds looks by {saved.get('looks')!r}, this run describes them by {self._looks_name!r}: "
                "choose the same looks, or another gallery"
            )
        try:
            self.objects = _read_objects(saved["objects"])
            self.next_obj_id = plain_json.check_whole(saved["next_obj_id"], "next_obj_id", least=1)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} is damaged: {type(error).__name__}: {error}") from error
        if self.next_obj_id <= max((known.obj_id for known in self.objects), default=0):
            raise ValueError(f"{self.path} is damaged: its next id, {self.next_obj_id}, is one that it has already")
        self.fingerprint = hashlib.sha256(content).hexdigest()

    def keep(self, keeper: IdentityKeeper, phrases: Sequence[str], renamed: Mapping[int, int] | None = None) -> None:
        """Note what a run has seen; it is written when the `with` block ends well.

        Args:
            keeper: of the run, after its last frame.
            phrases: what its class ids mean.
            renamed: later id → earlier id, of objects that turned out to be one; see `ReverseTracker.renamed`.
        """
        if self.path is None:
            return
        looks: dict[int, list[Descriptors]] = {}
        names: dict[int, str] = {}
        for track in sorted(keeper.tracks.values(), key=lambda track: -track.last_seen_frame_idx):
            if track.state is not TrackState.TENTATIVE and track.looks is not None:
                obj_id = _first_id(track.obj_id, renamed or {})
                looks.setdefault(obj_id, []).append(track.looks)
                if obj_id == track.obj_id or obj_id not in names:
                    names[obj_id] = phrases[track.class_id]
        self._to_write = {
            "format": _FORMAT,
            "version": _VERSION,
            "looks": self._looks_name,
            "next_obj_id": keeper.next_obj_id,
            "objects": [
                {
                    "obj_id": obj_id,
                    "class_name": names[obj_id],
                    "looks": np.concatenate(parts)[: keeper.rules.max_looks].round(_DIGITS).tolist(),
                }
                for obj_id, parts in looks.items()
            ],
        }

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if kind is None and self.path is not None and self._to_write is not None:
                with replacing(self.path) as temporary, temporary.open("w", encoding="ascii") as file:
                    json.dump(self._to_write, file)
                    file.flush()
                    os.fsync(file.fileno())


def _read_objects(entries: Any) -> list[KnownObject]:
    objects: dict[int, KnownObject] = {}
    if not isinstance(entries, list):
        raise ValueError("expected a list of objects")
    for entry in entries:
        obj_id = plain_json.check_whole(entry["obj_id"], "obj_id", least=1)
        looks = entry["looks"]
        if obj_id in objects or not isinstance(looks, list) or not 1 <= len(looks) <= _MOST_LOOKS:
            raise ValueError(f"object {obj_id} is there twice, or has no looks that can be read")
        values = np.array([[plain_json.check_number(value, "looks", 1.0) for value in look] for look in looks])
        objects[obj_id] = KnownObject(obj_id, plain_json.check_text(entry["class_name"], "class_name"), unit(values))
    if len({known.looks.shape[1:] for known in objects.values()}) > 1:
        raise ValueError("looks differ in length")
    return list(objects.values())


def _first_id(obj_id: int, renamed: Mapping[int, int]) -> int:
    while obj_id in renamed:
        obj_id = renamed[obj_id]
    return obj_id
