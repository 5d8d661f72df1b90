"""What a video predictor remembers: per object, its prompts and the outputs that memory attention can still read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from sam2.modeling.sam2_base import NO_OBJ_SCORE, ImageFeatures

History = Literal["recent", "all"]


@dataclass
class FrameOutput:
    """One object on one frame."""

    low_res_masks: Tensor  # (1, 1, 4h, 4w) float32 logits
    obj_ptr: Tensor  # (1, C)
    object_score_logits: Tensor  # (1, 1)
    mask_score: Tensor  # (1,) predicted quality of the mask
    maskmem: Tensor | None = None  # (1, mem_dim, h, w) bfloat16; None until encoded, or once out of reach
    reverse: bool | None = None  # direction in which tracking passed over the frame; None before it did

    def to_dict(self, with_mask: bool) -> dict[str, Any]:
        """Tensors and plain values, the mask only if asked for; the inverse of `from_dict`."""
        return {**vars(self), "low_res_masks": self.low_res_masks if with_mask else None}

    @classmethod
    def from_dict(cls, saved: dict[str, Any], side: int) -> FrameOutput:
        """An output whose mask, where it was not saved, is empty and takes no memory; `side`: of the mask."""
        masks = saved["low_res_masks"]
        if masks is None:
            masks = torch.full((1, 1, 1, 1), NO_OBJ_SCORE, device=saved["obj_ptr"].device).expand(1, 1, side, side)
        return cls(**{**saved, "low_res_masks": masks})


@dataclass
class ObjectState:
    """Everything known of one object. An object never reads or writes another object's state."""

    points: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)  # frame → coords (1, P, 2), labels (1, P)
    masks: dict[int, Tensor] = field(default_factory=dict)  # frame → (1, 1, S, S) mask prompt
    cond: dict[int, FrameOutput] = field(default_factory=dict)  # conditioning frames, always kept
    non_cond: dict[int, FrameOutput] = field(default_factory=dict)
    pending: dict[int, tuple[FrameOutput, bool]] = field(default_factory=dict)  # prompted, memory not yet encoded;
    # with whether the frame becomes a conditioning frame

    def output_at(self, frame_idx: int) -> FrameOutput | None:
        """The newest output on a frame, or None."""
        if frame_idx in self.pending:
            return self.pending[frame_idx][0]
        return self.cond.get(frame_idx) or self.non_cond.get(frame_idx)

    def forget(self, frame_idx: int, spatial_reach: int, pointer_reach: int, keep_around_cond: bool) -> None:
        """Drop what no later step can read.

        Args:
            frame_idx: the frame just tracked.
            spatial_reach: how many frames away a spatial memory is read at most.
            pointer_reach: the same for object pointers.
            keep_around_cond: tracking may start again, in either direction, from any conditioning frame.
        """
        anchors = [frame_idx, *self.cond] if keep_around_cond else [frame_idx]
        for t in list(self.non_cond):
            distance = min(abs(t - anchor) for anchor in anchors)
            if distance > max(spatial_reach, pointer_reach):
                del self.non_cond[t]
            elif distance > spatial_reach:
                self.non_cond[t].maskmem = None
        if not keep_around_cond:  # a stream, whose passed frames are not prompted again
            for prompts in (self.points, self.masks):
                for t in [t for t in prompts if t < frame_idx]:
                    del prompts[t]


@dataclass
class InferenceState:
    """One video, or one stream, and the objects followed in it.

    The keys that scripts written for facebookresearch/sam2 read (`inference_state["obj_ids"]`, `"num_frames"`,
    `"video_height"`, `"video_width"`, `"images"`) work as well.
    """

    images: Sequence[Tensor] | None  # None: a stream, of which only the newest frame exists
    num_frames: int | None  # None: unknown, a stream
    video_height: int
    video_width: int
    storage_device: torch.device  # where masks and spatial memories lie
    history: History
    objects: dict[int, ObjectState] = field(default_factory=dict)  # by object id, in the order they were added
    newest_frame: Tensor | None = None  # (3, S, S), streams only
    newest_frame_idx: int = -1
    features: tuple[int, ImageFeatures] | None = None  # of the frame last looked at

    def to_dict(self) -> dict[str, Any]:
        """What the steps after the newest frame read, as tensors and plain values; the inverse of `stream_from_dict`.

        Prompts and masks of frames that have passed are not among it, nor is anything that waits to enter memory.
        """
        return {
            "num_frames": self.num_frames,
            "video_height": self.video_height,
            "video_width": self.video_width,
            "newest_frame_idx": self.newest_frame_idx,
            "objects": {
                obj_id: {
                    "cond": {t: output.to_dict(t == self.newest_frame_idx) for t, output in obj.cond.items()},
                    "non_cond": {t: output.to_dict(t == self.newest_frame_idx) for t, output in obj.non_cond.items()},
                }
                for obj_id, obj in self.objects.items()
            },
        }

    @property
    def obj_ids(self) -> list[int]:
        """Object ids in the order of the masks that the predictor returns."""
        return list(self.objects)

    @property
    def is_stream(self) -> bool:
        return self.images is None

    def __getitem__(self, key: str) -> Any:
        if key in ("images", "num_frames", "video_height", "video_width", "obj_ids", "storage_device"):
            return getattr(self, key)
        raise KeyError(key)


def stream_from_dict(saved: dict[str, Any], storage_device: torch.device, side: int) -> InferenceState:
    """A stream as `InferenceState.to_dict` saw it; `side`: of low-resolution masks, in cells."""
    state = InferenceState(
        None, saved["num_frames"], saved["video_height"], saved["video_width"], storage_device, "recent"
    )
    state.newest_frame_idx = saved["newest_frame_idx"]
    for obj_id, outputs in saved["objects"].items():
        cond, non_cond = (
            {t: FrameOutput.from_dict(output, side) for t, output in outputs[kind].items()}
            for kind in ("cond", "non_cond")
        )
        state.objects[obj_id] = ObjectState(cond=cond, non_cond=non_cond)
    return state
