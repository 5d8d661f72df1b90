"""A follower that needs no model: an object is the pixels of its colour, which no two objects in a picture share."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from grounded_sam2.track.follower import Proposed, Seen

Boxes = dict[int, tuple[int, int, int, int]]  # colour, 1 to 255 → xyxy


def picture(boxes: Boxes, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """A black image of (width, height) with filled boxes; later ones hide earlier ones."""
    image = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    for colour, (left, top, right, bottom) in boxes.items():
        image[top:bottom, left:right] = colour
    return image


class FakeFollower:
    """Args: scores_masks: with predicted qualities; describes: with descriptors."""

    def __init__(self, scores_masks: bool = True, describes: bool = True) -> None:
        self.scores_masks = scores_masks
        self.describes = describes

    def open_stream(self, num_frames: int | None = None) -> "FakeFollowed":
        return FakeFollowed(self)

    def open_video(self, frames: Sequence[np.ndarray]) -> "FakeFollowed":
        return FakeFollowed(self, frames)

    def load_stream(self, saved: dict[str, Any]) -> "FakeFollowed":
        stream = FakeFollowed(self, [picture({}, saved["size"])] * (saved["newest"] + 1))
        stream.colours = saved["colours"]
        return stream

    def load_video(self, saved: dict[str, Any], frames: Sequence[np.ndarray]) -> "FakeFollowed":
        video = FakeFollowed(self, frames)
        video.colours = saved["colours"]
        return video


class FakeFollowed:
    """A stream, or a video when it is given frames; of a stream, `calls` tells what was asked of it."""

    def __init__(self, follower: FakeFollower, frames: Sequence[np.ndarray] = ()) -> None:
        self.follower, self.frames = follower, list(frames)
        self.colours: dict[int, int] = {}
        self.calls: list[tuple[Any, ...]] = []

    @property
    def size(self) -> tuple[int, int]:
        return (self.frames[0].shape[1], self.frames[0].shape[0]) if self.frames else (0, 0)

    @property
    def obj_ids(self) -> list[int]:
        return list(self.colours)

    @property
    def num_frames(self) -> int:
        return len(self.frames)

    def append(self, image: np.ndarray) -> int:
        self.frames.append(image)
        return len(self.frames) - 1

    def step(self) -> Seen:
        return self._seen(len(self.frames) - 1, self.obj_ids)

    def follow(self, frame_idx: int, reverse: bool = False) -> Iterator[tuple[int, Seen]]:
        for index in range(frame_idx, -1, -1) if reverse else range(frame_idx, len(self.frames)):
            yield index, self._seen(index, self.obj_ids)

    def propose(self, frame_idx: int, boxes: np.ndarray) -> Proposed:
        colours = [self._colour_in(frame_idx, box) for box in boxes]
        masks = np.array([self.frames[frame_idx][..., 0] == colour for colour in colours], dtype=bool)
        return Proposed(masks.reshape(-1, *self.size[::-1]), self._qualities(len(colours)), self._describe(colours))

    def add(self, frame_idx, obj_id, *, box=None, points=None, labels=None, mask=None) -> Seen:  # type: ignore[no-untyped-def]
        self.calls.append(("add", frame_idx, obj_id))
        if mask is not None:
            self.colours[obj_id] = int(self.frames[frame_idx][mask][0, 0])
        elif box is not None:
            self.colours[obj_id] = self._colour_in(frame_idx, box)
        else:
            self.colours[obj_id] = int(self.frames[frame_idx][int(points[0][1]), int(points[0][0]), 0])
        return self._seen(frame_idx, [obj_id])

    def refine(self, frame_idx: int, obj_id: int, points: np.ndarray, labels: np.ndarray) -> Seen:
        return self._seen(frame_idx, [obj_id])

    def correct(self, frame_idx: int, obj_id: int, mask: np.ndarray) -> Seen:
        seen = self.add(frame_idx, obj_id, mask=mask)
        self.calls[-1] = ("correct", frame_idx, obj_id)
        return seen

    def exchange(self, obj_id: int, other_id: int) -> None:
        self.calls.append(("exchange", obj_id, other_id))
        self.colours[obj_id], self.colours[other_id] = self.colours[other_id], self.colours[obj_id]

    def forget(self, frame_idx: int, obj_ids: Sequence[int]) -> None:
        self.calls += [("forget", frame_idx, obj_id) for obj_id in obj_ids]

    def remove(self, obj_id: int) -> None:
        self.calls.append(("remove", obj_id))
        self.colours.pop(obj_id, None)

    def save(self) -> dict[str, Any]:
        return {"size": self.size, "newest": len(self.frames) - 1, "colours": dict(self.colours)}

    def _colour_in(self, frame_idx: int, box: np.ndarray) -> int:
        left, top, right, bottom = np.asarray(box).astype(int)
        counts = np.bincount(self.frames[frame_idx][top:bottom, left:right, 0].ravel(), minlength=256)
        return int(counts[1:].argmax()) + 1

    def _seen(self, frame_idx: int, obj_ids: list[int]) -> Seen:
        colours = [self.colours[obj_id] for obj_id in obj_ids]
        masks = np.array([self.frames[frame_idx][..., 0] == colour for colour in colours], dtype=bool)
        masks = masks.reshape(-1, *self.size[::-1])
        presence = np.where(masks.any(axis=(1, 2)), 8.0, -8.0)
        return Seen(list(obj_ids), masks, presence, self._qualities(len(colours)), self._describe(colours))

    def _qualities(self, count: int) -> np.ndarray | None:
        return np.full(count, 0.75) if self.follower.scores_masks else None

    def _describe(self, colours: list[int]) -> np.ndarray | None:
        return np.eye(256, dtype=np.float32)[colours] if self.follower.describes else None
