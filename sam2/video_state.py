"""What a video predictor remembers: per object, its prompts and the outputs that memory attention can still read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from sam2.keyed import Keyed
from sam2.modeling.core import NO_OBJ_SCORE, ImageFeatures
from sam2.modeling.position_encoding import positions
from sam2.video_views import STATE_VIEWS

History = Literal["recent", "all"]


@dataclass(frozen=True)
class FrameTime:
    """A frame being tracked or prompted, and the direction in which tracking goes through the video."""

    frame_idx: int
    reverse: bool
    num_frames: int | None  # of the video; None: unknown, a stream

    def frame_before(self, elapsed: int) -> int:
        """The frame that tracking in this direction passed `elapsed` frames ago."""
        return self.frame_idx + elapsed if self.reverse else self.frame_idx - elapsed

    def elapsed_since(self, frame_idx: int) -> int:
        """How many frames ago tracking in this direction passed a frame; negative for one that is still to come."""
        return frame_idx - self.frame_idx if self.reverse else self.frame_idx - frame_idx


@dataclass
class FrameOutput(Keyed):
    """One object on one frame; also the dictionary that facebookresearch/sam2 has in its place.

    What other programs write under keys of their own lies in `policy_state`.
    """

    low_res_masks: Tensor  # (1, 1, 4h, 4w) float32 logits
    obj_ptr: Tensor  # (1, C)
    object_score_logits: Tensor  # (1, 1)
    mask_score: Tensor  # (1,) predicted quality of the mask
    maskmem: Tensor | None = None  # (1, mem_dim, ...) bfloat16; None until encoded, if never, or once out of reach
    reverse: bool | None = None  # direction in which tracking passed over the frame; None before it did
    policy_state: dict[str, Any] = field(default_factory=dict)  # a memory policy's own: tensors and plain values
    kept_cells: Tensor | None = None  # (K,) int64, those of `maskmem` that sparse reading reads; None: not chosen yet

    keys_of_attributes: ClassVar[Mapping[str, str]] = {
        "maskmem_features": "maskmem",
        "pred_masks": "low_res_masks",
        "obj_ptr": "obj_ptr",
        "object_score_logits": "object_score_logits",
    }
    keys_computed: ClassVar[Mapping[str, Any]] = {
        # of a memory that is no map of cells, the model alone knows where its tokens are
        "maskmem_pos_enc": lambda self: (
            None if self.maskmem is None or self.maskmem.dim() != 4 else [positions(self.maskmem)]
        ),
    }

    @property
    def extra(self) -> dict[str, Any]:  # type: ignore[override]
        return self.policy_state

    def to(self, device: torch.device, storage_device: torch.device) -> FrameOutput:
        """The same output where a predictor on `device` looks for it; masks and memory on `storage_device`."""
        own = {
            key: value.to(device) if isinstance(value, Tensor) else value for key, value in self.policy_state.items()
        }
        return FrameOutput(
            self.low_res_masks.to(storage_device),
            self.obj_ptr.to(device),
            self.object_score_logits.to(device),
            self.mask_score.to(device),
            None if self.maskmem is None else self.maskmem.to(storage_device),
            self.reverse,
            own,
            None if self.kept_cells is None else self.kept_cells.to(device),
        )

    def to_dict(self, with_mask: bool = True) -> dict[str, Any]:
        """Tensors and plain values, the mask only if asked for; the inverse of `from_dict`."""
        masks = self.low_res_masks if with_mask else None
        return {**vars(self), "low_res_masks": masks, "policy_state": dict(self.policy_state)}

    @classmethod
    def from_dict(cls, saved: dict[str, Any], side: int) -> FrameOutput:
        """An output whose mask, where it was not saved, is empty and takes no memory; `side`: of the mask."""
        masks = saved["low_res_masks"]
        if masks is None:
            masks = torch.full((1, 1, 1, 1), NO_OBJ_SCORE, device=saved["obj_ptr"].device).expand(1, 1, side, side)
        return cls(**{**saved, "low_res_masks": masks})


@dataclass
class Hypothesis:
    """One way in which an object may have gone on."""

    non_cond: dict[int, FrameOutput]  # as `ObjectState.non_cond`; conditioning frames are shared by all hypotheses
    score: float = 0.0
    choices: tuple[int, ...] = ()  # the mask candidate taken on each frame of `Ahead` that is not decided


@dataclass
class Ahead:
    """What tracking in one direction has found of an object beyond the frames that were given out.

    Frames count from `next_idx` on. On the first `decided` ones all hypotheses agree; then come those in `choices`.
    """

    next_idx: int  # the frame to give out next
    last_idx: int  # the frame on which this pass ends
    reverse: bool
    hypotheses: list[Hypothesis]
    decided: tuple[int, ...] = ()  # the mask candidate of each frame; 0 for a conditioning frame
    basis: list[tuple[int, bool, FrameOutput]] = field(default_factory=list)  # what the object remembered

    @property
    def num_frames(self) -> int:
        return len(self.decided) + len(self.hypotheses[0].choices)

    def decide(self, is_last: bool) -> None:
        """Decide the frames on which all hypotheses agree, or on the last frame those of the best."""
        if is_last:
            self.hypotheses = self.hypotheses[:1]
        choices = zip(*(hypothesis.choices for hypothesis in self.hypotheses), strict=True)
        agreed = tuple(taken[0] for taken in takewhile(lambda taken: len(set(taken)) == 1, choices))
        self.decided += agreed
        for hypothesis in self.hypotheses:
            hypothesis.choices = hypothesis.choices[len(agreed) :]

    def to_dict(self) -> dict[str, Any]:
        """All but `basis` as tensors and plain values, without masks, which hypotheses do not read."""
        hypotheses = [
            {**vars(each), "non_cond": {t: output.to_dict(with_mask=False) for t, output in each.non_cond.items()}}
            for each in self.hypotheses
        ]
        saved = {name: getattr(self, name) for name in ("next_idx", "last_idx", "reverse", "decided")}
        return {**saved, "hypotheses": hypotheses}

    @classmethod
    def from_dict(cls, saved: dict[str, Any], side: int) -> Ahead:
        """The inverse of `to_dict`; `side`: of low-resolution masks, in cells."""
        hypotheses = [
            Hypothesis(
                {t: FrameOutput.from_dict(output, side) for t, output in each["non_cond"].items()},
                each["score"],
                each["choices"],
            )
            for each in saved["hypotheses"]
        ]
        return cls(**{**saved, "hypotheses": hypotheses})

    def to(self, device: torch.device, storage_device: torch.device) -> Ahead:
        """The same where a predictor on `device` looks for it; see `FrameOutput.to`."""
        moved = [
            replace(each, non_cond={t: output.to(device, storage_device) for t, output in each.non_cond.items()})
            for each in self.hypotheses
        ]
        return replace(self, hypotheses=moved)


@dataclass
class ObjectState:
    """Everything known of one object. An object never reads or writes another object's state."""

    points: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)  # frame → coords (1, P, 2), labels (1, P)
    masks: dict[int, Tensor] = field(default_factory=dict)  # frame → (1, 1, S, S) mask prompt
    cond: dict[int, FrameOutput] = field(default_factory=dict)  # conditioning frames, always kept
    non_cond: dict[int, FrameOutput] = field(default_factory=dict)
    pending: dict[int, tuple[FrameOutput, bool]] = field(default_factory=dict)  # prompted, memory not yet encoded;
    # with whether the frame becomes a conditioning frame
    before_prompts: dict[int, FrameOutput | None] = field(default_factory=dict)  # prompted frame → what was there
    carried: dict[int, FrameOutput] = field(default_factory=dict)  # masks moved there by optical flow; no memory
    ahead: Ahead | None = None  # of a memory policy that looks ahead, in the middle of a video

    def output_at(self, frame_idx: int) -> FrameOutput | None:
        """The newest output on a frame, or None."""
        if frame_idx in self.pending:
            return self.pending[frame_idx][0]
        return self.cond.get(frame_idx) or self.non_cond.get(frame_idx) or self.carried.get(frame_idx)

    def latest_before(self, time: FrameTime) -> FrameOutput | None:
        """The output in memory that tracking in the direction of `time` passed last before it, or None."""
        remembered = [t for t in (*self.cond, *self.non_cond) if time.elapsed_since(t) > 0]
        if not remembered:
            return None
        latest = min(remembered, key=time.elapsed_since)
        return self.cond.get(latest) or self.non_cond[latest]

    def memories(self) -> list[tuple[int, bool, FrameOutput]]:
        """The frames in memory, whether each is a conditioning frame, and their outputs."""
        return [(t, True, output) for t, output in self.cond.items()] + [
            (t, False, output) for t, output in self.non_cond.items()
        ]

    @property
    def ahead_of_memories(self) -> Ahead | None:
        """`ahead`, if the object still remembers what that was found from: no prompt came, nothing was forgotten."""
        if self.ahead is None:
            return None
        now, then = self.memories(), self.ahead.basis
        is_same = len(now) == len(then) and all(a[:2] == b[:2] and a[2] is b[2] for a, b in zip(now, then, strict=True))
        return self.ahead if is_same and not self.pending else None

    def outputs(self) -> Iterator[FrameOutput]:
        """All outputs held, in memory, on their way there, or put aside."""
        yield from (*self.cond.values(), *self.non_cond.values(), *self.carried.values())
        yield from (output for output, _ in self.pending.values())
        yield from (output for output in self.before_prompts.values() if output is not None)

    def drop_prompts_before(self, frame_idx: int) -> None:
        """Forget the prompts on earlier frames, as a stream does, whose passed frames are not prompted again."""
        for by_frame in (self.points, self.masks, self.before_prompts):
            for t in [t for t in by_frame if t < frame_idx]:
                del by_frame[t]

    def keep_only_prompts_on(self, frame_idx: int) -> None:
        """Forget the prompts on all other frames, with what they have not yet brought into memory."""
        for by_frame in (self.points, self.masks, self.before_prompts, self.pending):
            for t in [t for t in by_frame if t != frame_idx]:
                del by_frame[t]

    def to_dict(self) -> dict[str, Any]:
        """Everything as tensors and plain values; the inverse of `from_dict`."""
        return {
            "points": dict(self.points),
            "masks": {t: mask > 0 for t, mask in self.masks.items()},
            "cond": {t: output.to_dict() for t, output in self.cond.items()},
            "non_cond": {t: output.to_dict() for t, output in self.non_cond.items()},
            "pending": {t: (output.to_dict(), is_cond) for t, (output, is_cond) in self.pending.items()},
            "before_prompts": {t: output and output.to_dict() for t, output in self.before_prompts.items()},
            "carried": {t: output.to_dict() for t, output in self.carried.items()},
            "ahead": self.ahead_of_memories and self.ahead_of_memories.to_dict(),
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any], side: int) -> ObjectState:
        """What `to_dict` gave, or the memories alone of a stream; `side`: of low-resolution masks, in cells."""

        def read(output: dict[str, Any]) -> FrameOutput:
            return FrameOutput.from_dict(output, side)

        ahead = saved.get("ahead")
        return cls(
            points=dict(saved.get("points", {})),
            masks={t: mask.float() for t, mask in saved.get("masks", {}).items()},
            cond={t: read(output) for t, output in saved["cond"].items()},
            non_cond={t: read(output) for t, output in saved["non_cond"].items()},
            pending={t: (read(output), is_cond) for t, (output, is_cond) in saved.get("pending", {}).items()},
            before_prompts={t: output and read(output) for t, output in saved.get("before_prompts", {}).items()},
            carried={t: read(output) for t, output in saved.get("carried", {}).items()},
            ahead=None if ahead is None else Ahead.from_dict(ahead, side),
        )

    def to(self, device: torch.device, storage_device: torch.device) -> ObjectState:
        """The same object where a predictor on `device` looks for it; see `FrameOutput.to`."""

        def move(outputs: dict[int, FrameOutput]) -> dict[int, FrameOutput]:
            return {t: output.to(device, storage_device) for t, output in outputs.items()}

        moved = ObjectState(
            {t: (coords.to(device), labels.to(device)) for t, (coords, labels) in self.points.items()},
            {t: mask.to(device) for t, mask in self.masks.items()},
            move(self.cond),
            move(self.non_cond),
            {t: (output.to(device, storage_device), is_cond) for t, (output, is_cond) in self.pending.items()},
            {t: output and output.to(device, storage_device) for t, output in self.before_prompts.items()},
            move(self.carried),
            self.ahead and self.ahead.to(device, storage_device),
        )
        if moved.ahead is not None:
            moved.ahead.basis = moved.memories()
        return moved


@dataclass
class InferenceState(Keyed):
    """One video, or one stream, and the objects followed in it.

    Also the dictionary that facebookresearch/sam2 has in its place, with the keys of its present and its first release;
    `video_views` says what they hold. `deepcopy` and `pickle` work; a copy shares the frames, a pickle reopens them.
    """

    images: Sequence[Tensor] | None  # None: a stream, of which only the newest frame exists
    num_frames: int | None  # None: unknown, a stream
    video_height: int
    video_width: int
    storage_device: torch.device  # where masks and spatial memories lie
    history: History
    corrections_stick: bool = False  # a corrected frame becomes a conditioning frame
    objects: dict[int, ObjectState] = field(default_factory=dict)  # by object id, in the order they were added
    newest_frame: Tensor | None = None  # (3, S, S), streams only
    newest_frame_idx: int = -1
    features: tuple[int, ImageFeatures] | None = None  # of the frame last looked at
    device: torch.device | None = None  # of the predictor
    last_grey: tuple[int, Tensor] | None = None  # the frame last followed, from which masks are carried; see `grey_of`
    extra: dict[str, Any] = field(default_factory=dict)  # what other programs put beside it

    keys_of_attributes: ClassVar[Mapping[str, str]] = {
        "video_height": "video_height",
        "video_width": "video_width",
        "storage_device": "storage_device",
        "device": "device",
    }
    keys_computed: ClassVar[Mapping[str, Any]] = STATE_VIEWS

    def __setitem__(self, key: str, value: Any) -> None:
        if key not in ("images", "num_frames"):
            super().__setitem__(key, value)
        elif not self.is_stream:  # a stream knows its frames itself
            setattr(self, key, value)
            self.features = self.last_grey = None

    def __deepcopy__(self, memo: dict[int, Any]) -> InferenceState:
        copied = InferenceState.__new__(InferenceState)
        with torch.inference_mode():  # the tensors in it were made there
            for name, value in vars(self).items():
                setattr(copied, name, value if name == "images" else deepcopy(value, memo))
        return copied

    def stream_to_dict(self) -> dict[str, Any]:
        """What the steps after the newest frame read, as tensors and plain values; the inverse of `state_from_dict`.

        Prompts and masks of frames that have passed are not among it, nor is anything that waits to enter memory.
        """
        objects = {}
        for obj_id, obj in self.objects.items():
            objects[obj_id] = {
                "cond": {t: output.to_dict(t == self.newest_frame_idx) for t, output in obj.cond.items()},
                "non_cond": {t: output.to_dict(t == self.newest_frame_idx) for t, output in obj.non_cond.items()},
                "carried": {t: output.to_dict() for t, output in obj.carried.items() if t == self.newest_frame_idx},
            }
        return {**self._plain_fields(), "objects": objects}

    def video_to_dict(self) -> dict[str, Any]:
        """All but the frames, as tensors and plain values; the inverse of `state_from_dict`."""
        return {**self._plain_fields(), "objects": {obj_id: obj.to_dict() for obj_id, obj in self.objects.items()}}

    def _plain_fields(self) -> dict[str, Any]:
        names = (
            "num_frames",
            "video_height",
            "video_width",
            "history",
            "corrections_stick",
            "newest_frame_idx",
            "last_grey",
        )
        return {name: getattr(self, name) for name in names}

    @property
    def obj_ids(self) -> list[int]:
        """Object ids in the order of the masks that the predictor returns."""
        return list(self.objects)

    @property
    def is_stream(self) -> bool:
        return self.images is None


def state_from_dict(
    saved: dict[str, Any],
    images: Sequence[Tensor] | None,
    device: torch.device,
    storage_device: torch.device,
    side: int,
) -> InferenceState:
    """The stream, or with `images` the video session, that `stream_to_dict` or `video_to_dict` saw.

    Args:
        saved: on any device.
        images: the frames of the video, reopened.
        device: of the predictor.
        storage_device: where masks and spatial memories go.
        side: of low-resolution masks, in cells.
    """
    state = InferenceState(
        images,
        saved["num_frames"],
        saved["video_height"],
        saved["video_width"],
        storage_device,
        saved.get("history", "recent"),  # absent from streams saved before these two were
        saved.get("corrections_stick", False),
        device=device,
    )
    state.newest_frame_idx = saved["newest_frame_idx"]
    if saved.get("last_grey") is not None:
        state.last_grey = (saved["last_grey"][0], saved["last_grey"][1].cpu())
    for obj_id, obj in saved["objects"].items():
        state.objects[obj_id] = ObjectState.from_dict(obj, side).to(device, storage_device)
    return state
