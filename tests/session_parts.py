"""A small video in a folder, and a follower whose masks tell from which frame and which side they came."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fake_follower import picture
from PIL import Image

from grounded_sam2.images import write_image
from grounded_sam2.masks import Masks, decode_rle, encode_rle
from grounded_sam2.session import Session, create_session
from grounded_sam2.track.follower import Proposed, Seen

SIZE = (64, 48)  # width, height
NUM_FRAMES = 12


def write_frames(folder: Path, num_frames: int = NUM_FRAMES) -> Path:
    """A folder of PNG images: colours 40 and 90 move to the right, and never meet."""
    for t in range(num_frames):
        write_image(folder / f"{t}.png", picture({40: (2 + t, 4, 12 + t, 14), 90: (2 + t, 30, 14 + t, 40)}, SIZE))
    return folder


def make_session(tmp_path: Path, follower: Any = None, num_frames: int = NUM_FRAMES) -> Session:
    """A session in `tmp_path/clip.session`."""
    frames = write_frames(tmp_path / "frames", num_frames)
    return create_session(tmp_path / "clip.session", frames, follower or DriftingFollower())


def box_mask(left: int, top: int, right: int, bottom: int) -> Masks:
    mask = np.zeros(SIZE[::-1], bool)
    mask[top:bottom, left:right] = True
    return mask


def forward(mask: Masks, num_frames: int) -> Masks:
    """What `DriftingFollower` makes of a mask so many frames later."""
    return np.roll(mask, num_frames, axis=1)


def backward(mask: Masks, num_frames: int) -> Masks:
    """What `DriftingFollower` makes of a mask so many frames earlier."""
    return np.roll(mask, num_frames, axis=0)


def everything(session: Session) -> dict[str, Any]:
    """All that a person could see of a session: objects, search, and each mask with its kind and scores."""
    masks = {}
    for obj_id in session.objects:
        for t in range(session.num_frames):
            if (record := session.cells.at(obj_id, t)) is not None:
                scores = [str(record[name]) for name in ("kind", "mask_score", "object_score", "agreement")]
                masks[obj_id, t] = (session.cells.rle(record)["counts"], *scores)
    return {"objects": session.objects, "search": session.search, "masks": masks}


class DriftingFollower:
    """Moves a mask by one pixel a frame, to the right when it goes forward, down when it goes backward."""

    video_class: type[DriftingVideo]  # set below, where the class is known

    def open_video(self, frames: Sequence[np.ndarray]) -> DriftingVideo:
        return self.video_class(frames)

    def load_video(self, saved: dict[str, Any], frames: Sequence[np.ndarray]) -> DriftingVideo:
        video = self.video_class(frames)
        for name in ("given", "masks"):
            by_object = {
                obj_id: {t: decode_rle([rle])[0] for t, rle in own.items()} for obj_id, own in saved[name].items()
            }
            setattr(video, name, by_object)
        return video

    def open_stream(self, num_frames: int | None = None) -> Any:
        raise NotImplementedError

    def load_stream(self, saved: dict[str, Any]) -> Any:
        raise NotImplementedError


class DriftingVideo:
    """Attributes: given: object → frame → mask that it was told; masks: object → frame → mask that it remembers."""

    def __init__(self, frames: Sequence[np.ndarray]) -> None:
        self.num_frames = len(frames)
        self.size = (frames[0].shape[1], frames[0].shape[0])
        self.given: dict[int, dict[int, Masks]] = {}
        self.masks: dict[int, dict[int, Masks]] = {}

    @property
    def obj_ids(self) -> list[int]:
        return list(self.given)

    def propose(self, frame_idx: int, boxes: np.ndarray) -> Proposed:
        masks = np.array([box_mask(*box.astype(int)) for box in boxes], bool).reshape(-1, *self.size[::-1])
        return Proposed(masks, np.full(len(boxes), 0.75))

    def add(self, frame_idx: int, obj_id: int, *, box=None, points=None, labels=None, mask=None) -> Seen:  # type: ignore[no-untyped-def]
        if mask is None:
            mask = np.zeros(self.size[::-1], bool) if box is None else box_mask(*np.asarray(box, int))
        self.given.setdefault(obj_id, {})[frame_idx] = mask.copy()
        return self.refine(frame_idx, obj_id, np.zeros((0, 2)) if points is None else points, labels)

    def refine(self, frame_idx: int, obj_id: int, points: np.ndarray, labels: Any) -> Seen:
        """A click on the object adds a square, and one beside it takes a square away."""
        mask = self.given[obj_id][frame_idx]
        for (x, y), label in zip(np.asarray(points, int), [1] * len(points) if labels is None else labels, strict=True):
            mask[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] = label == 1
        self.masks.setdefault(obj_id, {})[frame_idx] = mask
        return self._seen(frame_idx, [obj_id])

    def remove(self, obj_id: int) -> None:
        self.given.pop(obj_id, None)
        self.masks.pop(obj_id, None)

    def follow(self, frame_idx: int, reverse: bool = False) -> Iterator[tuple[int, Seen]]:
        if reverse and frame_idx == 0:
            return
        drift, step = (backward, 1) if reverse else (forward, -1)
        for t in range(frame_idx, -1, -1) if reverse else range(frame_idx, self.num_frames):
            for obj_id, masks in self.masks.items():
                if t not in self.given[obj_id]:
                    masks[t] = drift(masks[t + step], 1)
            yield t, self._seen(t, self.obj_ids)

    def save(self) -> dict[str, Any]:
        def packed(masks: dict[int, dict[int, Masks]]) -> dict[int, dict[int, Any]]:
            return {obj_id: {t: encode_rle(mask[None])[0] for t, mask in own.items()} for obj_id, own in masks.items()}

        return {"given": packed(self.given), "masks": packed(self.masks)}

    def _seen(self, frame_idx: int, obj_ids: list[int]) -> Seen:
        masks = np.array([self.masks[obj_id][frame_idx] for obj_id in obj_ids], bool).reshape(-1, *self.size[::-1])
        presence = np.where(masks.any(axis=(1, 2)), 8.0, -8.0)
        return Seen(list(obj_ids), masks, presence, np.full(len(obj_ids), 0.9))


DriftingFollower.video_class = DriftingVideo


def write_png(path: Path, size: tuple[int, int] = (8, 6)) -> bytes:
    """A small PNG file; also gives its bytes."""
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(path)
    return path.read_bytes()
