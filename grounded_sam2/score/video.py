"""One video's objects, whatever file they come from: read one frame at a time, masks left encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from grounded_sam2.masks import encode_rle

__all__ = [
    "ASIDE",
    "COUNTS",
    "DISTRACTOR",
    "NOBODY",
    "REGION",
    "FrameObjects",
    "Rle",
    "Video",
    "boxes_of",
    "compressed",
    "frames_of",
    "held_video",
    "video_of",
]

Rle = dict[str, Any]  # {"size": [h, w], "counts": str}, checked
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# What a truth's object is there for.
COUNTS = 0
ASIDE = 1  # it counts neither way
DISTRACTOR = 2  # the same, and nor does what matches it in a run
REGION = 3  # not an object: what in a run matches none and lies in it for the most part does not count


@dataclass(frozen=True)
class FrameObjects:
    """The N ≥ 0 objects of one frame.

    Attributes:
        ids: (N,) int64, each once.
        boxes: (N, 4) float64 xyxy in pixels, right and bottom exclusive.
        masks: N encoded masks, none of them empty; None: there are boxes only.
        scores: (N,) float64, how sure each is; 1 where the file does not say.
        names: of the classes, (N,); None where the file has none.
        numbers: of the categories, (N,) int64, from 1; None where the file has none.
        roles: (N,) of a truth: COUNTS, ASIDE, DISTRACTOR or REGION.
        is_crowd: (N,) bool of a truth: matches of it are neither right nor wrong in average precision.
        void: encoded mask, of a truth: pixels that belong to nobody in either; None: there are none.
        mask_scores: (N,) float64, SAM 2's predicted IoU; NaN where there is none.
        object_scores: (N,) float64, SAM 2's presence logit; NaN where there is none.
    """

    ids: Ints
    boxes: Floats
    masks: Sequence[Rle] | None
    scores: Floats
    names: npt.NDArray[np.str_] | None
    numbers: Ints | None
    roles: npt.NDArray[np.int8]
    is_crowd: npt.NDArray[np.bool_]
    void: Rle | None
    mask_scores: Floats
    object_scores: Floats

    @classmethod
    def of(
        cls,
        ids: npt.ArrayLike,
        boxes: npt.ArrayLike | None = None,
        masks: Sequence[Rle] | None = None,
        scores: npt.ArrayLike | None = None,
        names: Sequence[str] | None = None,
        numbers: npt.ArrayLike | None = None,
        roles: npt.ArrayLike | None = None,
        is_crowd: npt.ArrayLike | None = None,
        void: Rle | None = None,
        mask_scores: npt.ArrayLike | None = None,
        object_scores: npt.ArrayLike | None = None,
    ) -> FrameObjects:
        """Fill in what a file does not say; objects with an empty mask are not seen, and left out.

        Raises:
            ValueError: an id is there twice.
        """
        obj_ids = np.asarray(ids, np.int64)
        num, nan = len(obj_ids), np.full(len(obj_ids), np.nan)
        if len(np.unique(obj_ids)) < num:
            raise ValueError(f"expected each id once on a frame, got {obj_ids.tolist()}")
        objects = cls(
            obj_ids,
            boxes_of(masks or []) if boxes is None else np.asarray(boxes, np.float64).reshape(-1, 4),
            masks,
            np.ones(num) if scores is None else np.nan_to_num(np.asarray(scores, np.float64), nan=1.0),
            None if names is None else np.asarray(names, np.str_),
            None if numbers is None else np.asarray(numbers, np.int64),
            np.zeros(num, np.int8) if roles is None else np.asarray(roles, np.int8),
            np.zeros(num, bool) if is_crowd is None else np.asarray(is_crowd, bool),
            void,
            nan if mask_scores is None else np.asarray(mask_scores, np.float64),
            nan if object_scores is None else np.asarray(object_scores, np.float64),
        )
        return objects if not masks else objects.take(coco_mask.area(list(masks)) > 0)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: npt.NDArray[np.bool_]) -> FrameObjects:
        """The objects of these rows, (N,) bool."""
        if rows.all():
            return self
        return replace(
            self,
            ids=self.ids[rows],
            boxes=self.boxes[rows],
            masks=None if self.masks is None else [self.masks[row] for row in np.flatnonzero(rows).tolist()],
            scores=self.scores[rows],
            names=None if self.names is None else self.names[rows],
            numbers=None if self.numbers is None else self.numbers[rows],
            roles=self.roles[rows],
            is_crowd=self.is_crowd[rows],
            mask_scores=self.mask_scores[rows],
            object_scores=self.object_scores[rows],
        )


@dataclass(frozen=True)
class Video:
    """What a file says of one video.

    Attributes:
        origin: where it comes from, for messages.
        size: (width, height) in pixels; None where the file does not say.
        frame_indices: of the frames that the file has, 0-based and rising.
        lists_frames: whether frames without objects are among them; otherwise any frame may be there.
        has_masks: whether no object lacks a mask; otherwise there are boxes only.
        has_names: whether no object lacks the name of its class.
        has_numbers: whether no object lacks the number of its category.
        frames: gives the objects on each of some rising frame indices, one frame after another; nothing on those that
            the file does not have.
    """

    origin: str
    size: tuple[int, int] | None
    frame_indices: tuple[int, ...]
    lists_frames: bool
    has_masks: bool
    has_names: bool
    has_numbers: bool
    frames: Callable[[Sequence[int]], Iterator[FrameObjects]]


def frames_of(video: Video, indices: Sequence[int], by_mask: bool) -> Iterator[FrameObjects]:
    """The objects on each of some frames of a video.

    Raises:
        ValueError: masks are asked for, and an object has none; or a file is damaged.
        OSError: a file cannot be read.
    """
    for frame_idx, objects in zip(indices, video.frames(indices), strict=True):
        if by_mask and len(objects) and objects.masks is None:
            raise ValueError(f"{video.origin}: frame {frame_idx} has objects without masks: compare boxes (--boxes)")
        yield objects


def compressed(runs: Sequence[int], height: int, width: int) -> Rle:
    """A mask from the lengths of its runs, which cover it, beginning with those outside of it."""
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": list(runs)}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def boxes_of(masks: Sequence[Rle]) -> Floats:
    """(N, 4) tight boxes xyxy of encoded masks, right and bottom exclusive."""
    xywh = np.asarray(coco_mask.toBbox(list(masks)) if masks else [], np.float64).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def video_of(
    frames: Iterable[tuple[npt.ArrayLike, npt.NDArray[np.bool_]]],
    origin: str = "masks",
    names: Mapping[int, str] | None = None,
) -> Video:
    """Masks in memory as a video, frame after frame.

    Args:
        frames: ids (N,) and masks (N, H, W) of each frame; where N is 0 their size does not matter.
        origin: what messages call it.
        names: of the classes, by id of the object; None: there are none.
    """
    objects, size = {}, None
    for frame_idx, (ids, masks) in enumerate(frames):
        named = None if names is None else [names[int(obj_id)] for obj_id in np.asarray(ids)]
        objects[frame_idx] = FrameObjects.of(ids, masks=encode_rle(masks), names=named)
        if len(objects[frame_idx]):
            size = (masks.shape[2], masks.shape[1])
    return held_video(origin, size, objects, lists_frames=True)


def held_video(
    origin: str, size: tuple[int, int] | None, objects: Mapping[int, FrameObjects], lists_frames: bool
) -> Video:
    """A video whose objects are held, by frame index."""

    def frames(indices: Sequence[int]) -> Iterator[FrameObjects]:
        return (objects.get(frame_idx, NOBODY) for frame_idx in indices)

    return Video(
        origin,
        size,
        tuple(sorted(objects)),
        lists_frames,
        has_masks=all(frame.masks is not None for frame in objects.values() if len(frame)),
        has_names=all(frame.names is not None for frame in objects.values() if len(frame)),
        has_numbers=all(frame.numbers is not None for frame in objects.values() if len(frame)),
        frames=frames,
    )


NOBODY = FrameObjects.of([], masks=[])
