"""SAM 2 as a `grounded_sam2.track.follower.Follower`; nothing else in this folder knows its states and logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from grounded_sam2.images import RGBImage
from grounded_sam2.masks import smoothed
from grounded_sam2.track.seen import Proposed, Seen
from grounded_sam2.video.frame_source import IndexedFrameSource
from sam2.mask_ops import small_components
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.video_state import InferenceState

__all__ = ["LEAST_PART", "MaskCleaning", "Sam2Follower", "Sam2Stream", "Sam2Video", "masks_of"]

LEAST_PART = 0.02  # of a mask's largest part, in pixels, that another part has to have; specks far off widen its box
_LEAST_SMOOTHED_PART = 0.01  # the same after "morphology", which takes the smallest specks by itself

# What is done to SAM 2's masks. "specks": parts of less than `LEAST_PART` go, and no other pixel changes. "morphology":
# closed and opened by 3×3 pixels, which smooths outlines; parts of less than 1 % of the largest go. "none": nothing.
MaskCleaning: TypeAlias = Literal["specks", "morphology", "none"]


def masks_of(mask_logits: Tensor, cleaning: MaskCleaning = "specks") -> npt.NDArray[np.bool_]:
    """Masks (N, H, W) bool of the video predictor's logits (N, 1, H, W), cleaned."""
    return _cleaned((mask_logits[:, 0] > 0).cpu(), cleaning)


def _cleaned(masks: Tensor, cleaning: MaskCleaning) -> npt.NDArray[np.bool_]:
    if cleaning == "none":
        return masks.numpy()
    if cleaning == "morphology":
        masks = torch.from_numpy(smoothed(masks.numpy()))
    least_part = LEAST_PART if cleaning == "specks" else _LEAST_SMOOTHED_PART
    return (masks & ~small_components(masks, 0, least_part)).numpy()


class Sam2Follower:
    """Follows objects with SAM 2 or 2.1; the methods are those of `Follower`.

    Args:
        predictor: the model; may be shared with other followers and other code.
        cleaning: what is done to its masks, see `MaskCleaning`; its memory holds them as they were.

    Raises:
        ValueError: no such way of cleaning.
    """

    def __init__(self, predictor: SAM2VideoPredictor, cleaning: MaskCleaning = "specks") -> None:
        if cleaning not in get_args(MaskCleaning):
            raise ValueError(f"expected cleaning of masks by {', '.join(get_args(MaskCleaning))}, got {cleaning!r}")
        self.predictor = predictor
        self.cleaning = cleaning

    def open_stream(self, num_frames: int | None = None) -> Sam2Stream:
        state = self.predictor.init_stream(num_frames, corrections_stick=True)
        return Sam2Stream(self.predictor, state, self.cleaning)

    def open_video(self, frames: IndexedFrameSource) -> Sam2Video:
        state = self.predictor.init_state(frames, corrections_stick=True)
        return Sam2Video(self.predictor, state, self.cleaning)

    def load_stream(self, saved: dict[str, Any]) -> Sam2Stream:
        return Sam2Stream(self.predictor, self.predictor.load_stream(saved), self.cleaning)

    def load_video(self, saved: dict[str, Any], frames: IndexedFrameSource) -> Sam2Video:
        return Sam2Video(self.predictor, self.predictor.load_state(saved, frames), self.cleaning)


class _Sam2Followed:
    """What streams and videos share; the methods are those of `Followed`.

    Args:
        predictor: whose state `inference_state` is.
        inference_state: holds the objects; nobody else is to change it meanwhile.
        cleaning: what is done to masks.
    """

    def __init__(
        self, predictor: SAM2VideoPredictor, inference_state: InferenceState, cleaning: MaskCleaning = "specks"
    ) -> None:
        self._predictor = predictor
        self._state = inference_state
        self._cleaning = cleaning
        self._masks_of = partial(masks_of, cleaning=cleaning)

    @property
    def size(self) -> tuple[int, int]:
        return self._state.video_width, self._state.video_height

    @property
    def obj_ids(self) -> list[int]:
        return self._state.obj_ids

    def propose(self, frame_idx: int, boxes: npt.NDArray[np.number]) -> Proposed:
        if len(boxes) == 0:  # a frame on which nothing is found or followed is not even encoded
            width, height = self.size
            masks = np.zeros((0, height, width), dtype=bool)
            return Proposed(masks, np.zeros(0, dtype=np.float32), self._no_descriptors())
        mask_logits, qualities, pointers = self._predictor.segment_boxes(self._state, frame_idx, boxes)
        return Proposed(self._masks_of(mask_logits), qualities.float().cpu().numpy(), pointers.float().cpu().numpy())

    def add(
        self,
        frame_idx: int,
        obj_id: int,
        *,
        box: npt.NDArray[np.number] | None = None,
        points: npt.NDArray[np.number] | None = None,
        labels: npt.NDArray[np.integer] | None = None,
        mask: npt.NDArray[np.bool_] | None = None,
    ) -> Seen:
        if (mask is None) == (box is None and points is None):
            given = "none of them" if mask is None else "both"
            raise ValueError(f"expected a mask, or a box or points, of object {obj_id}, got {given}")
        if mask is not None:
            self._check_mask(mask)
            _, obj_ids, mask_logits = self._predictor.add_new_mask(self._state, frame_idx, obj_id, mask)
        else:
            if points is not None and labels is None:
                labels = np.ones(len(points), dtype=np.int32)
            _, obj_ids, mask_logits = self._predictor.add_new_points_or_box(
                self._state, frame_idx, obj_id, points=points, labels=labels, box=box
            )
        return self._seen_of(obj_id, frame_idx, obj_ids, mask_logits)

    def refine(
        self, frame_idx: int, obj_id: int, points: npt.NDArray[np.number], labels: npt.NDArray[np.integer]
    ) -> Seen:
        if obj_id not in self.obj_ids:
            raise ValueError(f"expected one of the objects {self.obj_ids}, got {obj_id}")
        _, obj_ids, mask_logits = self._predictor.add_new_points_or_box(
            self._state, frame_idx, obj_id, points=points, labels=labels, clear_old_points=False
        )
        return self._seen_of(obj_id, frame_idx, obj_ids, mask_logits)

    def correct(self, frame_idx: int, obj_id: int, mask: npt.NDArray[np.bool_]) -> Seen:
        self._check_mask(mask)
        self._predictor.correct_object(self._state, frame_idx, obj_id, mask)
        return self._seen(frame_idx, [obj_id], np.asarray(mask, dtype=bool)[None])

    def exchange(self, obj_id: int, other_id: int) -> None:
        self._predictor.exchange_objects(self._state, obj_id, other_id)

    def forget(self, frame_idx: int, obj_ids: Sequence[int]) -> None:
        self._predictor.forget_frame(self._state, frame_idx, obj_ids)

    def remove(self, obj_id: int) -> None:
        self._predictor.remove_object(self._state, obj_id, need_output=False)

    def _check_mask(self, mask: npt.NDArray[np.bool_]) -> None:
        width, height = self.size
        if np.shape(mask) != (height, width):
            raise ValueError(f"expected a mask of shape {(height, width)}, as the frame has, got {np.shape(mask)}")

    def _seen_of(self, obj_id: int, frame_idx: int, obj_ids: list[int], mask_logits: Tensor) -> Seen:
        """One of the objects whose logits (N, 1, H, W) are given."""
        row = obj_ids.index(obj_id)
        return self._seen(frame_idx, [obj_id], self._masks_of(mask_logits[row : row + 1]))

    def _seen(self, frame_idx: int, obj_ids: list[int], masks: npt.NDArray[np.bool_]) -> Seen:
        """Objects with their masks (N, H, W), and what the predictor knows of them on a frame just tracked."""
        scores = self._predictor.frame_scores(self._state, frame_idx)
        pointers = self._predictor.object_pointers(self._state, frame_idx)
        descriptors = self._no_descriptors()
        if obj_ids:
            descriptors = torch.stack([pointers[obj_id] for obj_id in obj_ids]).float().cpu().numpy()
        return Seen(
            obj_ids,
            masks,
            object_scores=np.array([scores[obj_id][1] for obj_id in obj_ids], dtype=np.float64),
            mask_scores=np.array([scores[obj_id][0] for obj_id in obj_ids], dtype=np.float64),
            descriptors=descriptors,
        )

    def _no_descriptors(self) -> npt.NDArray[np.float32]:
        return np.zeros((0, self._predictor.config.d_model), dtype=np.float32)


class Sam2Stream(_Sam2Followed):
    """Objects that SAM 2 follows through a stream, a `FollowedStream`."""

    def append(self, image: RGBImage) -> int:
        return self._predictor.append_frame(self._state, image)

    def step(self) -> Seen:
        obj_ids, masks = self._predictor.step_masks(self._state)
        return self._seen(self._state.newest_frame_idx, obj_ids, _cleaned(masks, self._cleaning))

    def save(self) -> dict[str, Any]:
        return self._predictor.save_stream(self._state)


class Sam2Video(_Sam2Followed):
    """Objects that SAM 2 follows through a video, a `FollowedVideo`."""

    @property
    def num_frames(self) -> int:
        assert self._state.num_frames is not None
        return self._state.num_frames

    def follow(self, frame_idx: int, reverse: bool = False) -> Iterator[tuple[int, Seen]]:
        for reached, obj_ids, mask_logits in self._predictor.propagate_in_video(
            self._state, start_frame_idx=frame_idx, reverse=reverse
        ):
            yield reached, self._seen(reached, obj_ids, self._masks_of(mask_logits))

    def save(self) -> dict[str, Any]:
        return self._predictor.save_state(self._state)
