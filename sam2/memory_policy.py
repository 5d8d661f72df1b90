"""What an object's memory is made of: which mask is taken, which frames are remembered, read and forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from sam2.config import SAM2Config
from sam2.modeling.core import MaskCandidates, SamOutput
from sam2.video_state import FrameOutput, FrameTime, ObjectState


class MemoryPolicy:
    """SAM 2's own rules (Ravi et al., 2024, section 4, memory bank); a subclass replaces those it wants otherwise.

    `sam2.memory_policies` has others by name. A policy holds nothing of any object, and decides for one at a time, or
    in `remember_all` for those of a frame. What it wants to know of an object on later frames it puts into
    `FrameOutput.policy_state` of the frame, as tensors and plain values. That goes with the frame: it is forgotten,
    saved, loaded and taken back with it, and a frame tracked backwards finds what the frame after it left.
    `ObjectState.latest_before(time)` is the output that tracking passed last, in either direction.

        class Cautious(MemoryPolicy):
            def remember(self, obj, output, decoded, time, is_prompted):
                return output.object_score_logits.item() > 0  # no memory of frames without the object

        predictor = build_sam2_video_predictor("sam2.1-large", checkpoint, memory_policy=Cautious)

    Attributes:
        config: of the model whose memory it is.
        looks_ahead: objects are tracked in several hypotheses, of which one is found right on later frames; see
            `branch` and `sam2.video_hypotheses`. Such a policy follows videos, not streams.
    """

    looks_ahead: ClassVar[bool] = False

    def __init__(self, config: SAM2Config) -> None:
        self.config = config

    @property
    def present_above(self) -> float:
        """Object score above which an object is taken to be in the frame; below, its mask is empty."""
        return 0.0

    def choose(self, objects: Sequence[ObjectState], candidates: MaskCandidates, time: FrameTime) -> Tensor:
        """Which mask candidate is each object's on a frame being tracked.

        A prompt's answer is always the candidate that the model rates best: the user sees it and decides.

        Args:
            objects: B objects with what they remember of earlier frames.
            candidates: of the B objects, in the same order, M each; M may be 1.
            time: of the frame.

        Returns:
            (B,) int64, below M, on the candidates' device.
        """
        return candidates.ious.argmax(dim=1)

    def branch(
        self, scores: Sequence[float], ious: Sequence[Sequence[float]], object_scores: Sequence[float]
    ) -> list[tuple[int, int, float]]:
        """Which candidates an object's hypotheses go on with; asked of policies that look ahead.

        Args:
            scores: of the H hypotheses so far; 0 for the one that an object begins with.
            ious: predicted qualities of the M candidates of each.
            object_scores: of the H hypotheses on this frame.

        Returns:
            For each hypothesis from now on: the one that it goes on from, the candidate that it takes, and its score.
            No two are alike; the best comes first, and is the one that is right where nothing follows.
        """
        raise NotImplementedError(f"{type(self).__name__} looks ahead, and has no rule for it")

    def remember(
        self, obj: ObjectState, output: FrameOutput, decoded: SamOutput, time: FrameTime, is_prompted: bool
    ) -> bool:
        """Whether the spatial memory of a frame just tracked is encoded and kept.

        The output itself is kept until `forget` drops it, with its mask, scores and object pointer.

        Args:
            obj: as it was before this frame.
            output: of this frame; `policy_state` may be filled in.
            decoded: this object's candidates (1, M, 4h, 4w) with their predicted qualities, and which was taken.
            time: of the frame.
            is_prompted: the mask answers a prompt. Its memory is encoded whatever is returned.
        """
        return True

    def remember_all(
        self,
        objects: Sequence[ObjectState],
        outputs: Sequence[FrameOutput],
        decoded: Sequence[SamOutput],
        time: FrameTime,
    ) -> list[bool]:
        """`remember` for all N objects tracked onto a frame, asked once a frame: for rules that compare objects.

        Args:
            objects, outputs, decoded: N of each, in the same order; see `remember`.
            time: of the frame.
        """
        return [
            self.remember(obj, output, row, time, is_prompted=False)
            for obj, output, row in zip(objects, outputs, decoded, strict=True)
        ]

    def spatial_memories(self, obj: ObjectState, time: FrameTime) -> list[tuple[int, FrameOutput]]:
        """The outputs whose spatial memories tracking on a frame reads; those without one (any more) are left out.

        Returns:
            The place each takes in the model's eyes, and the output: 0 for a conditioning frame, else 1 for the most
            recent frame to `num_maskmem` - 1. An empty list: the frame is decoded without memory.
        """
        selected, unselected = self.conditioning_frames(obj, time.frame_idx)
        spatial = [(0, output) for output in selected.values()]
        stride = self.config.memory_temporal_stride_for_eval
        forward = -1 if time.reverse else 1
        for place in range(self.config.num_maskmem - 1, 0, -1):
            if place == 1:
                t = time.frame_before(1)
            else:  # frames on the grid of the stride, the first of them at least two frames back
                t = forward * ((forward * time.frame_idx - 2) // stride * stride - (place - 2) * stride)
            if (tracked := obj.non_cond.get(t) or unselected.get(t)) is not None:
                spatial.append((place, tracked))
        return spatial

    def key_scales(self, memories: Sequence[FrameOutput]) -> list[float]:
        """What the keys of spatial memories, all that a step reads of an object, are multiplied by; 1: as they are."""
        return [1.0] * len(memories)

    def pointers(self, obj: ObjectState, time: FrameTime) -> list[tuple[int, FrameOutput]]:
        """The outputs whose object pointers tracking on a frame reads, each after the frames between it and now."""
        config = self.config
        selected, unselected = self.conditioning_frames(obj, time.frame_idx)
        found = []
        for t, output in selected.items():
            elapsed = time.elapsed_since(t)
            if elapsed >= 0 or not config.only_obj_ptrs_in_the_past_for_eval:
                found.append((elapsed if config.use_signed_tpos_enc_to_obj_ptrs else abs(elapsed), output))
        for elapsed in range(1, pointer_span(config, time.num_frames)):
            t = time.frame_before(elapsed)
            if (tracked := obj.non_cond.get(t) or unselected.get(t)) is not None:
                found.append((elapsed, tracked))
        return found

    def conditioning_frames(
        self, obj: ObjectState, frame_idx: int
    ) -> tuple[dict[int, FrameOutput], dict[int, FrameOutput]]:
        """Conditioning frames that are read as such, and the others: the nearest on each side, then by distance."""
        limit = self.config.max_cond_frames_in_attn
        if limit == -1 or len(obj.cond) <= limit:
            return obj.cond, {}
        before = [t for t in obj.cond if t < frame_idx]
        after = [t for t in obj.cond if t >= frame_idx]
        nearest = ([max(before)] if before else []) + ([min(after)] if after else [])
        others = sorted((t for t in obj.cond if t not in nearest), key=lambda t: abs(t - frame_idx))
        chosen = {*nearest, *others[: limit - len(nearest)]}
        selected = {t: output for t, output in obj.cond.items() if t in chosen}
        return selected, {t: output for t, output in obj.cond.items() if t not in chosen}

    def forget(self, obj: ObjectState, time: FrameTime, may_restart: bool) -> None:
        """Drop from `obj.non_cond` what no later step can read, after a frame was tracked; conditioning frames stay.

        Not called for states with `history="all"`.

        Args:
            obj: with its output on the frame.
            time: of the frame.
            may_restart: tracking may start again, in either direction, from any conditioning frame; not so in a stream.
        """
        config = self.config
        spatial_reach = (config.num_maskmem - 1) * config.memory_temporal_stride_for_eval
        pointer_reach = config.max_obj_ptrs_in_encoder - 1
        anchors = [time.frame_idx, *obj.cond] if may_restart else [time.frame_idx]
        for t in list(obj.non_cond):
            distance = min(abs(t - anchor) for anchor in anchors)
            if distance > max(spatial_reach, pointer_reach):
                del obj.non_cond[t]
            elif distance > spatial_reach:
                obj.non_cond[t].maskmem = None

    def forget_around(self, obj: ObjectState, frame_idx: int) -> None:
        """Drop what a prompt on a frame may contradict: with `clear_non_cond_mem_around_input`, the frames nearby."""
        if self.config.clear_non_cond_mem_around_input:
            reach = self.config.memory_temporal_stride_for_eval * self.config.num_maskmem
            for t in range(frame_idx - reach, frame_idx + reach + 1):
                obj.non_cond.pop(t, None)


def pointer_span(config: SAM2Config, num_frames: int | None) -> int:
    """How many frames back, the current one counted, pointers are looked for; also the model's unit of their time."""
    limit = config.max_obj_ptrs_in_encoder
    return limit if num_frames is None else min(num_frames, limit)
