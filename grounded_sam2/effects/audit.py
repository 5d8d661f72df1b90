"""The log of an effect: what was done to which frames of which file, and where to look again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from grounded_sam2 import __version__
from grounded_sam2.effects.effect import Effect, Picture
from grounded_sam2.effects.tracks import TrackedVideo, source_files

__all__ = ["AuditLog", "gap_warnings"]

BLOCK_BYTES = 2**20


class AuditLog:
    """Write the log as one JSON object, a frame at a time; `make_file` moves it to its place when all is done.

        {"program": "grounded_sam2.effects", "version": "0.1.0", "time": "2026-01-31T12:00:00+00:00",
         "effect": {"kind": "blur", "obj_ids": [3], "keeps_objects": false, "strength": 0.2, …},
         "output": {"name": "clip.blur.mp4", …}, "source": {"name": "clip.mp4", "num_bytes": …, "sha256": "…", …},
         "annotations": {…}, "objects": [{"obj_id": 3, "name": "#3 dog", …}], "warnings": [{…, "message": "…"}],
         "frames": [{"frame_idx": 0, "num_changed_pixels": 900, "objects": [{"obj_id": 3, "num_pixels": 900, …}]}]}

    `frames` lists those on which any pixel was changed. `num_pixels` of an object counts its margin.

    Args:
        path: of the file; what is there is written over.
        video: what the effect was on.
        effect: what was done.
        output: what the log is about: "name", and settings of the format.
        source_name: what to call the video; None: as it was opened.

    Raises:
        OSError: it cannot be written, or a source cannot be read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        video: TrackedVideo,
        effect: Effect,
        output: dict[str, Any],
        source_name: str | None = None,
    ) -> None:
        self._labels = {obj_id: obj.label for obj_id, obj in video.objects.items()}
        self._num_frames = 0
        self._file = Path(path).open("w", encoding="utf-8")  # noqa: SIM115 - closed by the with block
        frames = video.frames
        about = {
            "program": "grounded_sam2.effects",
            "version": __version__,
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "effect": effect.settings(),
            "output": output,
            "source": {
                "name": source_name or Path(frames.name).name,
                **_contents(source_files(frames)),
                "num_frames": len(frames),
                "width": frames.width,
                "height": frames.height,
                "fps": float(frames.fps),
            },
            "annotations": {"name": video.annotations.path.name, **_contents([video.annotations.path])},
            "objects": [_object_entry(video, obj_id) for obj_id in effect.obj_ids],
            "warnings": gap_warnings(video, effect),
        }
        self._file.write(json.dumps(about, ensure_ascii=False, indent=1)[:-2] + ',\n "frames": [')

    def add(self, picture: Picture) -> None:
        """Note what was changed on a frame; a frame without a changed pixel is left out."""
        if picture.num_changed == 0:
            return
        objects = [
            {"obj_id": obj_id, "name": self._labels[obj_id], "num_pixels": count}
            | ({"is_bridged": True} if obj_id in picture.bridged else {})
            for obj_id, count in picture.num_pixels.items()
        ]
        entry = {"frame_idx": picture.frame_idx, "num_changed_pixels": picture.num_changed, "objects": objects}
        self._file.write((",\n  " if self._num_frames else "\n  ") + json.dumps(entry, ensure_ascii=False))
        self._num_frames += 1

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is None:
                self._file.write("\n ]\n}\n")


def _object_entry(video: TrackedVideo, obj_id: int) -> dict[str, Any]:
    obj = video.objects[obj_id]
    span = {"first_frame": obj.frames[0], "last_frame": obj.frames[-1]} if obj.frames else {}
    return {"obj_id": obj_id, "name": obj.label, "class_names": obj.class_names, "num_frames": len(obj.frames), **span}


def gap_warnings(video: TrackedVideo, effect: Effect) -> list[dict[str, Any]]:
    """The spans on which a chosen object has no mask, though it has one before and after; a message for each."""
    warnings = []
    for obj_id in effect.obj_ids:
        obj = video.objects[obj_id]
        for first, last in obj.gaps:
            where = f"frame {first}" if first == last else f"frames {first} to {last}"
            is_bridged = effect.bridges((first, last))
            what = f"{obj.label} has no mask on {where}, but before and after"
            if effect.keeps_objects and not is_bridged:
                message = f"{what}: it is not in the picture there"
            elif is_bridged:
                message = f"{what}: both masks are used there, look whether they cover it"
            else:
                message = f"{what}: it may be seen there"
            gap = {"obj_id": obj_id, "name": obj.label, "first_frame": first, "last_frame": last}
            warnings.append({**gap, "is_bridged": is_bridged, "message": message})
    return warnings


def _contents(paths: Sequence[Path]) -> dict[str, Any]:
    """The bytes of files one after another: how many, and their SHA-256."""
    digest, num_bytes = hashlib.sha256(), 0
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
                num_bytes += len(block)
    return {"num_files": len(paths), "num_bytes": num_bytes, "sha256": digest.hexdigest()}
