"""A memory of frames on which an object is surely itself: seen, sure, where it may be, and not on another's mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sam2.mask_ops import mask_to_box_xyxy
from sam2.memory_policies import kalman
from sam2.memory_policies.boxes import box_ious
from sam2.memory_policies.selected import SelectedFrames, latest_state, passed
from sam2.modeling.core import SamOutput
from sam2.video_state import FrameOutput, FrameTime, ObjectState

LEAST_QUALITY = 0.3  # predicted, of a mask that is remembered
STRONG_OVERLAP = 0.5  # IoU of two objects' masks of which only the surer is remembered
LEAST_AGREEMENT = 0.1  # IoU of a mask's box with where motion leads; below, the mask jumped
CELL = 4  # pixels of the model's input to a pixel of its masks
MOST_REJECTED = 5  # frames in a row that may be jumps; after them the object is where it is


class Robust(SelectedFrames):
    """SAM 2's masks, of which only some are remembered; the newest of those are read, however long ago.

    Not remembered are a frame without the object, a mask of low predicted quality, the less sure of two masks that
    overlap strongly, and a mask that jumped. So an object that lies on another one can keep that from being remembered;
    apart from this, objects know nothing of each other.

    In a frame's `policy_state`: `is_good`: remembered; `mean` (8,) and `covariance` (8, 8) of the box in pixels of
    the model's input, once it was seen; `rejected`: jumps in a row up to this frame.
    """

    def remember_all(
        self,
        objects: Sequence[ObjectState],
        outputs: Sequence[FrameOutput],
        decoded: Sequence[SamOutput],
        time: FrameTime,
    ) -> list[bool]:
        masks = torch.cat([output.low_res_masks for output in decoded])[:, 0] > 0
        quality = torch.cat([output.mask_score for output in outputs])
        is_seen = masks.flatten(1).any(dim=1)
        is_own = ~hidden_by_surer(masks, quality)
        is_judged = (is_seen & is_own & (quality >= LEAST_QUALITY)).cpu()
        is_near = self._follow([latest_state(obj, time) for obj in objects], outputs, masks, is_judged)
        is_good = (is_judged & is_near).tolist()
        for output, good in zip(outputs, is_good, strict=True):
            output.policy_state["is_good"] = good
        return is_good

    def remember(
        self, obj: ObjectState, output: FrameOutput, decoded: SamOutput, time: FrameTime, is_prompted: bool
    ) -> bool:
        """Of a prompt's answer, from which motion starts anew; see `remember_all` for tracked frames."""
        masks = decoded.low_res_masks[:, 0] > 0
        self._follow([{}], [output], masks, masks.flatten(1).any(dim=1).cpu())
        output.policy_state["is_good"] = True
        return True

    @staticmethod
    def _follow(
        former: Sequence[dict[str, Any]], outputs: Sequence[FrameOutput], masks: Tensor, is_judged: Tensor
    ) -> Tensor:
        """Put the motion of N objects after this frame into its outputs.

        Args:
            former: their states before it.
            masks: (N, 4h, 4w) bool.
            is_judged: (N,) bool on the CPU; the masks of the others tell nothing of motion.

        Returns:
            (N,) bool on the CPU, False for a mask that jumped.
        """
        boxes = mask_to_box_xyxy(masks).double().cpu()
        boxes[:, 2:] += 1  # the last column and row are included
        boxes *= CELL
        measured = kalman.to_measurement(boxes)
        initial = kalman.initiate(measured)
        is_new = torch.tensor(["mean" not in state for state in former])
        stored = [
            {"mean": mean, "covariance": covariance} | state
            for state, mean, covariance in zip(former, *initial, strict=True)
        ]
        expected = kalman.predict(
            torch.stack([state["mean"] for state in stored]).cpu(),
            torch.stack([state["covariance"] for state in stored]).cpu(),
        )
        is_near = is_new | (box_ious(kalman.to_box_xyxy(expected[0]), boxes) >= LEAST_AGREEMENT)
        updated = kalman.update(*expected, measured)
        for i, (state, output) in enumerate(zip(former, outputs, strict=True)):
            judged, new, near = bool(is_judged[i]), bool(is_new[i]), bool(is_near[i])
            rejected = state.get("rejected", 0)
            if judged:
                rejected = 0 if near else rejected + 1
            begins = judged and (new or rejected > MOST_REJECTED)
            is_near[i] = near or begins
            output.policy_state["rejected"] = 0 if begins else rejected
            mean, covariance = initial if begins else updated if judged and near else expected
            if begins or not new:
                output.policy_state |= {"mean": mean[i].clone(), "covariance": covariance[i].clone()}
        return is_near

    def worth_reading(self, tracked: Mapping[int, FrameOutput], time: FrameTime) -> list[int]:
        good = [t for t in passed(tracked, time) if tracked[t].policy_state.get("is_good", True)]
        return good[: self.config.num_maskmem - 1]

    def pointers(self, obj: ObjectState, time: FrameTime) -> list[tuple[int, FrameOutput]]:
        return [
            (elapsed, output)
            for elapsed, output in super().pointers(obj, time)
            if output.policy_state.get("is_good", True)
        ]


def hidden_by_surer(masks: Tensor, quality: Tensor) -> Tensor:
    """Which of N masks overlap strongly with one of higher quality.

    Args:
        masks: (N, H, W) bool.
        quality: (N,) predicted.

    Returns:
        (N,) bool.
    """
    pixels = masks.flatten(1).float()
    intersection = pixels @ pixels.T
    area = pixels.sum(dim=1)
    overlaps_strongly = intersection > STRONG_OVERLAP * (area[:, None] + area - intersection)
    return (overlaps_strongly & (quality[:, None] < quality)).any(dim=1)
