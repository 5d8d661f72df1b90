"""SAM2Long's memory (Ding et al., 2024): an object is tracked in several hypotheses, of which the best at the end is
right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from sam2.memory_policies.selected import SelectedFrames, passed
from sam2.modeling.core import MaskCandidates, SamOutput
from sam2.video_state import FrameOutput, FrameTime, ObjectState

NUM_HYPOTHESES = 3
LEAST_LOG = 1e-5  # is added to a quality before its logarithm is taken
SURE_ABOVE = 2.0  # absolute object score of a frame on which the best candidates may be alike
LEAST_QUALITY = 0.1  # predicted, of a mask that is remembered
KEY_SCALES = (0.95, 1.05)  # of the memory with the lowest object score, and of that with the highest


class Sam2Long(SelectedFrames):
    """Three hypotheses of each object, scored by the sum over all frames of the logarithm of their predicted quality.

    Each decodes three masks of a frame, and of these up to nine candidates the best go on. Where the model is not sure
    whether the object is in the frame, they shall be of different quality, so that not all are of one kind. At the end
    of a pass the best hypothesis is right on all frames; see `sam2.video_hypotheses` for when frames are given out.

    Remembered are frames with the object. What is read of them counts by how sure that is: keys of the memories, those
    of prompts too, are scaled in the order of object scores. All hypotheses share the prompted frames.

    A model that decodes one mask for tracked frames has one hypothesis: only its memories are selected and scaled.

    In a frame's `policy_state`: `is_good`: remembered.
    """

    looks_ahead: ClassVar[bool] = True

    def choose(self, objects: Sequence[ObjectState], candidates: MaskCandidates, time: FrameTime) -> Tensor:
        """Of each object the candidate that its hypotheses decided for."""
        decided = [obj.ahead.decided[0] if obj.ahead is not None else 0 for obj in objects]
        return torch.tensor(decided, device=candidates.ious.device)

    def branch(
        self, scores: Sequence[float], ious: Sequence[Sequence[float]], object_scores: Sequence[float]
    ) -> list[tuple[int, int, float]]:
        scored = [
            (i, candidate, score + math.log(max(iou, 0.0) + LEAST_LOG))
            for i, (score, of_hypothesis) in enumerate(zip(scores, ious, strict=True))
            for candidate, iou in enumerate(of_hypothesis)
        ]
        ranked = sorted(scored, key=lambda branch: -branch[2])  # of equal ones, the earlier hypothesis's first
        if max(map(abs, object_scores)) <= SURE_ABOVE:
            first_of_kind: dict[float, tuple[int, int, float]] = {}
            for branch in ranked:
                first_of_kind.setdefault(round(ious[branch[0]][branch[1]], 2), branch)
            ranked = list(first_of_kind.values())
        return ranked[:NUM_HYPOTHESES]

    def remember_all(
        self,
        objects: Sequence[ObjectState],
        outputs: Sequence[FrameOutput],
        decoded: Sequence[SamOutput],
        time: FrameTime,
    ) -> list[bool]:
        quality = torch.cat([output.mask_score for output in outputs])
        presence = torch.cat([output.object_score_logits for output in outputs])[:, 0]
        is_good = ((quality > LEAST_QUALITY) & (presence > 0)).tolist()
        for output, good in zip(outputs, is_good, strict=True):
            output.policy_state["is_good"] = good
        return is_good

    def worth_reading(self, tracked: Mapping[int, FrameOutput], time: FrameTime) -> list[int]:
        good = [t for t in passed(tracked, time) if tracked[t].policy_state.get("is_good", True)]
        return good[: self.config.num_maskmem - 1]

    def key_scales(self, memories: Sequence[FrameOutput]) -> list[float]:
        if len(memories) < 2:
            return [1.0] * len(memories)
        scores = torch.cat([output.object_score_logits for output in memories])[:, 0]
        ranks = scores.argsort(stable=True).argsort()
        return torch.linspace(*KEY_SCALES, len(memories))[ranks.cpu()].tolist()
