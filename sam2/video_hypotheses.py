"""Tracking in several hypotheses: which mask an object takes on a frame is decided by how the frames after it go.

A policy that looks ahead (`MemoryPolicy.looks_ahead`) is asked by `branch` which mask candidates of a frame become the
hypotheses of an object. Each of these remembers what it would if it were right; all share the conditioning frames.

Hypotheses run ahead of the frames that are given out. A frame is decided when all hypotheses of an object come from the
same mask on it, which may be a few frames later or never before the last frame of the pass; there the best hypothesis
is right. Then the object itself is tracked onto the frame, as by any policy, but takes the mask that was decided. So
each frame is looked at twice, and in turn no masks of whole videos are kept, only choices: numbers. What an object
remembers is at any time what it would if the frames that were given out had been all.

Between two frames a pass may be left, and go on from there, also after the state was saved and loaded, if it ends on
the same frame. An object may be prompted, added or removed: the hypotheses of one whose memories were changed begin
anew from them, and those of the others go on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from sam2.modeling.core import MaskCandidates
from sam2.video_state import Ahead, FrameOutput, FrameTime, Hypothesis, InferenceState, ObjectState

if TYPE_CHECKING:
    from sam2.video_engine import VideoEngine

BLOCK = 30  # frames that are decided before they are given out; going to and fro in a video file takes time


def was_just_tracked(obj: ObjectState, time: FrameTime) -> bool:
    """Whether a frame is the one that was given out last of an object whose hypotheses are those after it."""
    ahead = obj.ahead_of_memories
    return ahead is not None and ahead.reverse == time.reverse and time.frame_before(-1) == ahead.next_idx


def look_ahead(engine: VideoEngine, state: InferenceState, time: FrameTime, last_idx: int) -> None:
    """Track hypotheses until it is decided which mask each object takes on a frame.

    Objects go through the video together; one that was added or prompted meanwhile catches up by itself.

    Args:
        time: of the frame.
        last_idx: the frame on which this pass ends.

    Raises:
        ValueError: a configuration by which masks in memory may not overlap, as those of hypotheses do.
    """
    if engine.config.non_overlap_masks_for_mem_enc:
        raise ValueError(f"{type(engine.memory_policy).__name__} needs non_overlap_masks_for_mem_enc=false")
    num_left = 1 - time.elapsed_since(last_idx)
    objects = [obj for obj in state.objects.values() if obj.cond and not was_just_tracked(obj, time)]
    aheads = [_ahead_from(obj, time, last_idx) for obj in objects]
    if all(ahead.decided for ahead in aheads):
        return
    try:
        while min(len(ahead.decided) for ahead in aheads) < min(BLOCK, num_left):
            num_tracked = min(ahead.num_frames for ahead in aheads)
            now = replace(time, frame_idx=time.frame_before(-num_tracked))
            pairs = [pair for pair in zip(objects, aheads, strict=True) if pair[1].num_frames == num_tracked]
            _track_hypotheses(engine, state, pairs, now)
            for _, ahead in pairs:
                ahead.decide(is_last=now.frame_idx == last_idx)
    except BaseException:  # of a person too; what is half done is of no use
        for obj in objects:
            obj.ahead = None
        raise


def _ahead_from(obj: ObjectState, time: FrameTime, last_idx: int) -> Ahead:
    """The hypotheses of an object from a frame on: those that it has, or one that remembers what it does."""
    ahead = obj.ahead_of_memories
    if ahead is None or (ahead.next_idx, ahead.last_idx, ahead.reverse) != (time.frame_idx, last_idx, time.reverse):
        hypothesis = Hypothesis(_copied(obj.non_cond))
        ahead = obj.ahead = Ahead(time.frame_idx, last_idx, time.reverse, [hypothesis], basis=obj.memories())
    return ahead


def give_out(obj: ObjectState, time: FrameTime) -> None:
    """Let an object's hypotheses be those after a frame, which it was tracked onto as they decided."""
    ahead = obj.ahead
    if ahead is None:
        return
    if ahead.next_idx == time.frame_idx:
        ahead.next_idx, ahead.decided = time.frame_before(-1), ahead.decided[1:]
    ahead.basis = obj.memories()
    if ahead.num_frames == 0:
        obj.ahead = None


def _track_hypotheses(
    engine: VideoEngine, state: InferenceState, pairs: list[tuple[ObjectState, Ahead]], time: FrameTime
) -> None:
    """Track all hypotheses of objects onto a frame, in one batch, and let the policy say which go on."""
    policy = engine.memory_policy
    to_track = [(obj, ahead) for obj, ahead in pairs if time.frame_idx not in obj.cond]
    if to_track:
        views = [_view(obj, hypothesis) for obj, ahead in to_track for hypothesis in ahead.hypotheses]
        candidates = _in_order(engine.decode_candidates(state, views, time))
        ious, object_scores = candidates.ious.tolist(), candidates.object_score_logits[:, 0].tolist()
        views, rows, chosen, first = [], [], [], 0
        for obj, ahead in to_track:
            former, own = ahead.hypotheses, slice(first, first + len(ahead.hypotheses))
            ahead.hypotheses = []
            for i, candidate, score in policy.branch([each.score for each in former], ious[own], object_scores[own]):
                non_cond = _copied(former[i].non_cond)
                ahead.hypotheses.append(Hypothesis(non_cond, score, (*former[i].choices, candidate)))
                views.append(_view(obj, ahead.hypotheses[-1]))
                rows.append(first + i)
                chosen.append(candidate)
            first = own.stop
        picked = MaskCandidates(**{name: tensor[rows] for name, tensor in vars(candidates).items()})
        taken = engine.take(picked, torch.tensor(chosen, device=candidates.ious.device))
        engine.remember_decoded(state, views, [taken.row(i) for i in range(len(rows))], time)
    for obj, ahead in pairs:
        for hypothesis in ahead.hypotheses:
            view = _view(obj, hypothesis)
            if time.frame_idx in obj.cond:
                hypothesis.choices += (0,)
                policy.forget_around(view, time.frame_idx)
            policy.forget(view, time, may_restart=False)
            hypothesis.non_cond = view.non_cond


def _view(obj: ObjectState, hypothesis: Hypothesis) -> ObjectState:
    """An object as it would be if a hypothesis were right; what is written into its memory is so in the hypothesis."""
    return ObjectState(cond=obj.cond, non_cond=hypothesis.non_cond)


def _copied(non_cond: dict[int, FrameOutput]) -> dict[int, FrameOutput]:
    """The same outputs, of which each hypothesis may forget parts by itself; their tensors are shared."""
    return {t: replace(output) for t, output in non_cond.items()}


def _in_order(batches: Iterable[tuple[list[int], MaskCandidates]]) -> MaskCandidates:
    """Candidates of batches in the order of the positions that come with them."""
    positions, parts = zip(*batches, strict=True)
    order = torch.tensor([i for batch in positions for i in batch]).argsort()
    joined = {name: torch.cat([vars(part)[name] for part in parts]) for name in vars(parts[0])}
    return MaskCandidates(**{name: tensor[order.to(tensor.device)] for name, tensor in joined.items()})
