"""What those ask who decide which object is which: scores, pointers, masks of boxes, and memories put right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sam2.prompt_checks import finite_tensor
from sam2.video_engine import MAX_BATCH
from sam2.video_prompts import VideoPrompts
from sam2.video_state import InferenceState


class IdentityHooks(VideoPrompts):
    """The part of `SAM2VideoPredictor` that knows how sure and how alike its objects are."""

    def frame_scores(self, inference_state: InferenceState, frame_idx: int) -> dict[int, tuple[float, float]]:
        """Per object id on a frame just tracked or prompted: predicted mask quality (0 to 1) and presence logit."""
        scores = {}
        for obj_id, obj in inference_state.objects.items():
            output = obj.output_at(frame_idx)
            if output is not None:
                scores[obj_id] = (output.mask_score.item(), output.object_score_logits.item())
        return scores

    @torch.inference_mode()
    def segment_boxes(
        self, inference_state: InferenceState, frame_idx: int, boxes: np.ndarray | Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What prompts with these boxes would give on a frame, without any object being made.

        Args:
            boxes: (N, 4) xyxy in pixels of the video; N = 0 is fine.

        Returns:
            (N, 1, H, W) float32 mask logits, (N,) predicted mask qualities (0 to 1) and (N, C) object pointers.

        Raises:
            ValueError: boxes of a wrong shape or not finite, or a frame outside the video.
        """
        state = inference_state
        self._check_frame(state, frame_idx)
        corners = finite_tensor(boxes, "boxes", self.device)
        if corners.numel() > 0 and corners.shape[-1:] != (4,):
            raise ValueError(f"expected boxes xyxy of shape (N, 4), got {tuple(corners.shape)}")
        corners = corners.reshape(-1, 2, 2)
        coords = corners / corners.new_tensor([state.video_width, state.video_height]) * self.image_size
        kinds = torch.tensor([[2, 3]], dtype=torch.int32, device=self.device).expand(len(coords), -1)
        features = self._features(state, frame_idx)
        vision = self.add_no_memory(features.vision)
        multimask = self.uses_multimask(is_init_cond_frame=True, num_points=2)
        outputs = []
        for batch in coords.split(MAX_BATCH) if len(coords) else ():
            seen = vision.expand(len(batch), -1, -1, -1)
            outputs.append(self.sam_heads(seen, features.high_res, (batch, kinds[: len(batch)]), None, multimask))
        if not outputs:
            side = self.image_size // 4
            empty = torch.zeros(0, device=self.device)
            return (
                self._at_video_size(state, empty.reshape(0, 1, side, side)),
                empty,
                empty.reshape(0, self.config.d_model),
            )
        masks = torch.cat([output.low_res_masks for output in outputs])
        qualities = torch.cat([output.mask_scores for output in outputs])
        return self._at_video_size(state, masks), qualities, torch.cat([output.obj_ptr for output in outputs])

    def object_pointers(self, inference_state: InferenceState, frame_idx: int) -> dict[int, Tensor]:
        """Per object id on a frame just tracked or prompted: its pointer (C,), which tells how the object looks."""
        outputs = {obj_id: obj.output_at(frame_idx) for obj_id, obj in inference_state.objects.items()}
        return {obj_id: output.obj_ptr[0] for obj_id, output in outputs.items() if output is not None}

    def exchange_objects(self, inference_state: InferenceState, obj_id: int, other_id: int) -> None:
        """Let two objects change over: prompts, masks and memories of each are the other's from now on.

        Raises:
            ValueError: no such object.
        """
        objects = inference_state.objects
        for each in (obj_id, other_id):
            if each not in objects:
                raise ValueError(f"expected one of the objects {inference_state.obj_ids}, got {each}")
        objects[obj_id], objects[other_id] = objects[other_id], objects[obj_id]

    def forget_frame(self, inference_state: InferenceState, frame_idx: int, obj_ids: Sequence[int]) -> None:
        """Take what was tracked on a frame, and is doubtful, out of these objects' memories; prompts stay."""
        for obj_id in obj_ids:
            obj = inference_state.objects[obj_id]
            obj.non_cond.pop(frame_idx, None)
            obj.carried.pop(frame_idx, None)

    @torch.inference_mode()
    def correct_object(
        self, inference_state: InferenceState, frame_idx: int, obj_id: int, mask: np.ndarray | Tensor
    ) -> None:
        """Put an object right that was followed wrongly: its true mask on a frame.

        Its memory then holds its first conditioning frame and this one; all that was tracked since, and earlier
        corrections, may have been of something else and are forgotten, as `add_new_mask` does not.

        Args:
            mask: (H, W).

        Raises:
            ValueError: no such object with a conditioning frame, or as in `add_new_points_or_box`.
        """
        self._check_frame(inference_state, frame_idx)
        obj = inference_state.objects.get(obj_id)
        if obj is None or not obj.cond:
            raise ValueError(f"object {obj_id} has no conditioning frame; objects: {inference_state.obj_ids}")
        prompt = self._mask_prompt(mask)[0, 0]  # a bad mask is refused before anything is forgotten
        first_idx = min(obj.cond)
        obj.cond = {first_idx: obj.cond[first_idx]}
        obj.non_cond.clear()
        obj.carried.clear()
        obj.keep_only_prompts_on(first_idx)
        self.add_new_mask(inference_state, frame_idx, obj_id, prompt)
