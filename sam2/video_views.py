"""What the keys of facebookresearch/sam2's `inference_state` hold, read from our `InferenceState`.

Memories and masks are the state's own: what is deleted from, or written into, `output_dict_per_obj`, an entry of it, or
`mask_inputs_per_obj` is so in the state. All else is a picture of the moment, which changes nothing when it is changed.
Frames that no later step can read are forgotten, unless the state was opened with `history="all"`, so their outputs are
not there either.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

if TYPE_CHECKING:
    from sam2.video_state import FrameOutput, InferenceState, ObjectState


class StreamFrames(Sequence[Tensor]):
    """The frames of a stream as the model reads them, of which only the newest is there."""

    def __init__(self, state: InferenceState) -> None:
        self.state = state

    def __len__(self) -> int:
        return self.state.newest_frame_idx + 1

    @property
    def shape(self) -> torch.Size:
        """(frames so far, 3, S, S)."""
        size = (3, 0, 0) if self.state.newest_frame is None else self.state.newest_frame.shape
        return torch.Size((len(self), *size))

    @overload  # type: ignore[override]  # a slice is stacked, as of a tensor
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Tensor: ...
    def __getitem__(self, index: int | slice) -> Tensor:
        wanted = range(len(self))[index]
        if isinstance(wanted, range):
            return torch.stack([self[i] for i in wanted])
        if wanted != len(self) - 1 or self.state.newest_frame is None:
            raise IndexError(f"a stream keeps its newest frame ({len(self) - 1}) only, not frame {wanted}")
        return self.state.newest_frame


class ConsolidatedOutputs(MutableMapping[int, dict[str, Any]]):
    """Outputs of all objects on each frame, stacked when they are read; deleting a frame deletes each object's.

    On frames that an object has no output on its mask is empty and its pointer zero, as upstream's placeholders are.
    """

    def __init__(self, state: InferenceState, kind: str) -> None:
        self.state = state
        self.kind = kind  # "cond" or "non_cond"

    def _of(self, obj: ObjectState) -> dict[int, FrameOutput]:
        return obj.cond if self.kind == "cond" else obj.non_cond

    def __iter__(self) -> Iterator[int]:
        return iter(sorted({t for obj in self.state.objects.values() for t in self._of(obj)}))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __getitem__(self, frame_idx: int) -> dict[str, Any]:
        outputs = [self._of(obj).get(frame_idx) or obj.output_at(frame_idx) for obj in self.state.objects.values()]
        known = next(
            (self._of(obj)[frame_idx] for obj in self.state.objects.values() if frame_idx in self._of(obj)), None
        )
        if known is None:
            raise KeyError(frame_idx)
        empty = {"pred_masks": -1024.0, "object_score_logits": -10.0}
        stacked: dict[str, Any] = {}
        for key in ("pred_masks", "obj_ptr", "object_score_logits", "maskmem_features"):
            like = known[key]
            if like is None:
                stacked[key] = None
                continue
            found = [None if output is None else output[key] for output in outputs]
            filled = [torch.full_like(like, empty.get(key, 0.0)) if x is None else x for x in found]
            stacked[key] = torch.cat(filled)
        stacked["maskmem_pos_enc"] = known["maskmem_pos_enc"]
        return stacked

    def __setitem__(self, frame_idx: int, value: dict[str, Any]) -> None:
        raise TypeError("outputs of all objects cannot be written at once; write into output_dict_per_obj")

    def __delitem__(self, frame_idx: int) -> None:
        if frame_idx not in set(self):
            raise KeyError(frame_idx)
        for obj in self.state.objects.values():
            self._of(obj).pop(frame_idx, None)


def _by_index(read: Callable[[ObjectState], Any]) -> Callable[[InferenceState], dict[int, Any]]:
    return lambda state: {idx: read(obj) for idx, obj in enumerate(state.objects.values())}


def _points(obj: ObjectState) -> dict[int, dict[str, Tensor]]:
    found = {t: {"point_coords": coords, "point_labels": labels} for t, (coords, labels) in obj.points.items()}
    if not found and not obj.masks:  # a stream forgets prompts once they are in memory; where they were is known
        nothing = {"point_coords": torch.zeros(1, 0, 2), "point_labels": torch.zeros(1, 0, dtype=torch.int32)}
        found = dict.fromkeys(obj.cond, nothing)
    return found


def _pending(obj: ObjectState) -> dict[str, dict[int, FrameOutput]]:
    kinds = {"cond_frame_outputs": True, "non_cond_frame_outputs": False}
    return {
        name: {t: output for t, (output, is_cond) in obj.pending.items() if is_cond == wanted}
        for name, wanted in kinds.items()
    }


def _tracked(obj: ObjectState) -> dict[int, dict[str, bool]]:
    outputs = {**obj.carried, **obj.non_cond, **obj.cond}
    return {t: {"reverse": output.reverse} for t, output in sorted(outputs.items()) if output.reverse is not None}


def _tracked_by_any(state: InferenceState) -> dict[int, dict[str, bool]]:
    return {t: how for obj in state.objects.values() for t, how in _tracked(obj).items()}


def _keyed_frames(state: InferenceState) -> dict[str, set[int]]:
    kinds = {"cond_frame_outputs": "cond", "non_cond_frame_outputs": "non_cond"}
    return {name: {t for obj in state.objects.values() for t in getattr(obj, kind)} for name, kind in kinds.items()}


STATE_VIEWS: dict[str, Callable[[InferenceState], Any]] = {
    "images": lambda state: StreamFrames(state) if state.images is None else state.images,
    "num_frames": lambda state: state.newest_frame_idx + 1 if state.is_stream else state.num_frames,
    "offload_video_to_cpu": lambda state: True,  # frames are decoded when needed and never all kept
    "offload_state_to_cpu": lambda state: state.storage_device != (state.device or state.storage_device),
    "point_inputs_per_obj": _by_index(_points),
    "mask_inputs_per_obj": _by_index(lambda obj: obj.masks),
    "cached_features": lambda state: {},
    "constants": lambda state: {},
    "obj_id_to_idx": lambda state: OrderedDict((obj_id, idx) for idx, obj_id in enumerate(state.objects)),
    "obj_idx_to_id": lambda state: OrderedDict(enumerate(state.objects)),
    "obj_ids": lambda state: state.obj_ids,
    "output_dict": lambda state: {
        "cond_frame_outputs": ConsolidatedOutputs(state, "cond"),
        "non_cond_frame_outputs": ConsolidatedOutputs(state, "non_cond"),
    },
    "output_dict_per_obj": _by_index(
        lambda obj: {"cond_frame_outputs": obj.cond, "non_cond_frame_outputs": obj.non_cond}
    ),
    "temp_output_dict_per_obj": _by_index(_pending),
    "consolidated_frame_inds": _keyed_frames,
    "tracking_has_started": lambda state: bool(_tracked_by_any(state)),
    "frames_tracked_per_obj": _by_index(_tracked),
    "frames_already_tracked": _tracked_by_any,
}
