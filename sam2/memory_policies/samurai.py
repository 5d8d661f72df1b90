"""SAMURAI's memory (Yang et al., 2024): masks that move as the object did, memories of frames that were sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sam2.memory_policies import kalman
from sam2.memory_policies.boxes import box_ious, mask_boxes
from sam2.memory_policies.selected import SelectedFrames, latest_state, passed
from sam2.modeling.core import MaskCandidates, SamOutput
from sam2.video_state import FrameOutput, FrameTime, ObjectState

LARGE_EMBED_DIM = 144  # of the large image encoder
FIRST_READ = 2  # frames after a prompt; the one right after it is read on the next frame only


class Samurai(SelectedFrames):
    """SAMURAI's rules with the settings of the model's configuration, for each object by itself.

    An object's motion is known once `stable_frames_threshold` frames in a row had a predicted quality above
    `stable_ious_threshold`. From then on, the candidate is taken whose quality and whose box, compared with where the
    motion leads, are best together. A frame below that quality starts all over.

    A prompt decoded into one mask leaves the motion as it was, none at first; one decoded into several, a click, starts
    it from its mask. A model that decodes one mask for tracked frames has nothing to choose from: only its memories are
    selected.

    In a frame's `policy_state`: `stable_frames`, and unless that is 0 `mean` (8,) and `covariance` (8, 8) of the box in
    pixels of the model's input; `agreement`: IoU of the mask's box with where the motion led, NaN where none was known;
    `is_good`: worth reading later; `age`: frames since the prompt.
    """

    @property
    def present_above(self) -> float:
        return self.config.min_obj_score_logits

    @property
    def motion_weight(self) -> float:
        """How much the agreement of boxes counts beside the predicted quality, which counts the rest."""
        weight = self.config.kf_score_weight
        return weight if weight >= 0 else 0.15 if self.config.embed_dim >= LARGE_EMBED_DIM else 0.25

    def choose(self, objects: Sequence[ObjectState], candidates: MaskCandidates, time: FrameTime) -> Tensor:
        chosen = candidates.ious.argmax(dim=1)
        motions = [latest_state(obj, time) for obj in objects]
        is_known = [self._is_known(motion) for motion in motions]
        if candidates.ious.shape[1] == 1 or not any(is_known):
            return chosen
        rows = torch.tensor(is_known, device=chosen.device).nonzero()[:, 0]
        mean, _ = kalman.predict(*_stacked([motion for motion, known in zip(motions, is_known, strict=True) if known]))
        expected = kalman.to_box_xyxy(mean)[:, None].expand(-1, candidates.ious.shape[1], -1)
        boxes = mask_boxes(candidates.mask_logits[rows].flatten(0, 1), self.config.image_size).view(expected.shape)
        weight = self.motion_weight
        scores = weight * box_ious(expected, boxes) + (1 - weight) * candidates.ious[rows].cpu()
        chosen[rows] = scores.argmax(dim=1).to(chosen.device)
        return chosen

    def remember_all(
        self,
        objects: Sequence[ObjectState],
        outputs: Sequence[FrameOutput],
        decoded: Sequence[SamOutput],
        time: FrameTime,
    ) -> list[bool]:
        config = self.config
        former = [latest_state(obj, time) for obj in objects]
        quality = torch.cat([output.mask_score for output in outputs]).cpu()
        presence = torch.cat([output.object_score_logits for output in outputs])[:, 0].cpu()
        agreement = torch.full((len(objects),), torch.nan)
        if decoded[0].ious.shape[1] > 1:
            agreement = self._follow(former, outputs, torch.cat([output.low_res_masks for output in decoded]), quality)
        is_good = (
            (quality > config.memory_bank_iou_threshold)
            & (presence > config.memory_bank_obj_score_threshold)
            & ~(agreement <= config.memory_bank_kf_score_threshold)  # good where there is none
        )
        for i, (output, state) in enumerate(zip(outputs, former, strict=True)):
            output.policy_state |= {
                "agreement": agreement[i].item(),
                "is_good": is_good[i].item(),
                "age": state.get("age", 0) + 1,
            }
        return [True] * len(objects)  # the frame before is read whatever it is like

    def _follow(
        self, former: list[dict[str, Any]], outputs: Sequence[FrameOutput], masks: Tensor, quality: Tensor
    ) -> Tensor:
        """Put the motion of N objects after this frame into its outputs.

        Args:
            former: their states before it.
            masks: (N, 1, 4h, 4w) logits that were taken.
            quality: (N,) predicted, on the CPU.

        Returns:
            (N,) IoU of the masks' boxes with where the motion led; NaN where no motion was known.
        """
        config = self.config
        measured_boxes = mask_boxes(masks[:, 0], config.image_size)
        measured = kalman.to_measurement(measured_boxes)
        initial = kalman.initiate(measured)
        stable_frames = torch.tensor([state.get("stable_frames", 0) for state in former])
        is_new, is_known = stable_frames == 0, torch.tensor([self._is_known(state) for state in former])
        begun = [
            {"mean": mean, "covariance": covariance} if new else state
            for state, new, mean, covariance in zip(former, is_new.tolist(), *initial, strict=True)
        ]
        expected = kalman.predict(*_stacked(begun))
        updated = kalman.update(*expected, measured)
        is_sure = is_new | torch.where(
            is_known, quality >= config.stable_ious_threshold, quality > config.stable_ious_threshold
        )
        counts = torch.where(is_sure, torch.where(is_known, stable_frames, stable_frames + 1), 0).tolist()
        for i, (output, count) in enumerate(zip(outputs, counts, strict=True)):
            output.policy_state["stable_frames"] = count
            if count > 0:
                mean, covariance = initial if is_new[i] else updated
                output.policy_state |= {"mean": mean[i].clone(), "covariance": covariance[i].clone()}
        agreement = box_ious(kalman.to_box_xyxy(expected[0]), measured_boxes)
        return torch.where(is_known, agreement, torch.nan)

    def remember(
        self, obj: ObjectState, output: FrameOutput, decoded: SamOutput, time: FrameTime, is_prompted: bool
    ) -> bool:
        """Of a prompt's answer; see `remember_all` for tracked frames."""
        if decoded.ious.shape[1] > 1:
            self._follow([{}], [output], decoded.low_res_masks, decoded.mask_scores.cpu())
        elif (before := obj.output_at(time.frame_idx)) is not None:
            kept = ("stable_frames", "mean", "covariance")
            output.policy_state |= {key: value for key, value in before.policy_state.items() if key in kept}
        output.policy_state |= {"is_good": True, "age": 0}
        return True

    def worth_reading(self, tracked: Mapping[int, FrameOutput], time: FrameTime) -> list[int]:
        """The sure frames, as many as have pointers, and the frame before, whatever it is like."""
        newest = passed(tracked, time)
        good = [t for t in newest if self._is_good(tracked[t])][: max(self.config.max_obj_ptrs_in_encoder - 1, 1)]
        before = time.frame_before(1)
        chosen = good if before in good or before not in tracked else [before, *good]
        return chosen[: self.config.num_maskmem - 1]

    def _is_known(self, motion: dict[str, Any]) -> bool:
        return motion.get("stable_frames", 0) >= max(self.config.stable_frames_threshold, 1)

    @staticmethod
    def _is_good(output: FrameOutput) -> bool:
        age = output.policy_state.get("age", FIRST_READ)  # absent where another policy was at work
        return output.policy_state.get("is_good", True) and (age == 0 or age >= FIRST_READ)


def _stacked(states: Sequence[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """Means (N, 8) and covariances (N, 8, 8) on the CPU, wherever a saved stream was loaded to."""
    mean, covariance = (torch.stack([state[name] for state in states]).cpu() for name in ("mean", "covariance"))
    return mean, covariance
