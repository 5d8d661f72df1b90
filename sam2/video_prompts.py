"""Prompts on a frame of a video: points, boxes and masks, given and taken back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sam2.mask_ops import fill_holes
from sam2.modeling.core import ImageFeatures, SamOutput
from sam2.prompt_checks import check_labels, finite_tensor
from sam2.video_engine import VideoEngine
from sam2.video_state import FrameTime, InferenceState, ObjectState


class VideoPrompts(VideoEngine):
    """The part of `SAM2VideoPredictor` that answers prompts."""

    @torch.inference_mode()
    def add_new_points_or_box(
        self,
        inference_state: InferenceState,
        frame_idx: int,
        obj_id: int,
        points: np.ndarray | Tensor | Sequence[Sequence[float]] | None = None,
        labels: np.ndarray | Tensor | Sequence[int] | None = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
        box: np.ndarray | Tensor | Sequence[float] | None = None,
    ) -> tuple[int, list[int], Tensor]:
        """Prompt an object, new or known, on one frame.

        On a frame that tracking has not passed, the mask comes from the prompts alone; on one that it has, they
        correct the tracked mask.

        Args:
            points: (P, 2) xy in pixels of the video, or in [0, 1] when `normalize_coords` is False.
            labels: (P,) 1 foreground, 0 background.
            clear_old_points: forget earlier points of this object on this frame.
            box: xyxy, in the same unit as the points.

        Returns:
            frame_idx, object ids, and (N, 1, H, W) float32 logits of all objects on this frame.

        Raises:
            ValueError: points without labels or the reverse, neither points nor box, wrong shapes or labels, numbers
                that are not finite, a box added to old points, or a frame outside the video.
        """
        state = inference_state
        self._check_frame(state, frame_idx)
        if (points is None) != (labels is None):
            raise ValueError("points and labels must be given together")
        if points is None and box is None:
            raise ValueError("give points with labels, a box, or both")
        if box is not None and not clear_old_points:
            raise ValueError("a box comes before any point: use clear_old_points=True, and give the points again")
        coords, kinds = self._point_prompts(points, labels)
        if box is not None:
            corners = finite_tensor(box, "box", torch.device("cpu"))
            if corners.numel() != 4:
                raise ValueError(f"a box has 4 numbers (xyxy), got shape {tuple(corners.shape)}")
            coords = torch.cat((corners.reshape(1, 2, 2).to(coords.device), coords), dim=1)
            kinds = torch.cat((torch.tensor([[2, 3]], dtype=torch.int32, device=kinds.device), kinds), dim=1)
        if normalize_coords:
            coords = coords / coords.new_tensor([state.video_width, state.video_height])
        coords, kinds = (coords * self.image_size).to(self.device), kinds.to(self.device)

        obj = state.objects.get(obj_id) or ObjectState()
        if not clear_old_points and frame_idx in obj.points:
            old_coords, old_kinds = obj.points[frame_idx]
            coords, kinds = torch.cat((old_coords, coords), dim=1), torch.cat((old_kinds, kinds), dim=1)
        previous = obj.output_at(frame_idx)
        prior = None if previous is None else previous.low_res_masks.to(self.device).clamp(-32.0, 32.0)
        features = self._features(state, frame_idx)
        vision, is_init_cond_frame = self._vision_for_prompt(state, obj, frame_idx, features)
        multimask = self.uses_multimask(is_init_cond_frame, kinds.shape[1])
        output = self.sam_heads(vision, features.high_res, (coords, kinds), prior, multimask)

        self._set_pending(state, obj, frame_idx, output)
        state.objects[obj_id] = obj
        obj.points[frame_idx] = (coords, kinds)
        obj.masks.pop(frame_idx, None)
        return frame_idx, state.obj_ids, self._masks_on(state, frame_idx)

    def add_new_points(self, *args, **kwargs) -> tuple[int, list[int], Tensor]:  # type: ignore[no-untyped-def]
        """The older name of `add_new_points_or_box`."""
        return self.add_new_points_or_box(*args, **kwargs)

    @torch.inference_mode()
    def add_new_mask(
        self, inference_state: InferenceState, frame_idx: int, obj_id: int, mask: np.ndarray | Tensor
    ) -> tuple[int, list[int], Tensor]:
        """Give an object's mask (H, W) on one frame; returns and errors as in `add_new_points_or_box`.

        Args:
            mask: bool or integers, what is not zero being the object; or floats: probabilities, all within [0, 1], are
                the object above 0.5, logits above 0.
        """
        state = inference_state
        self._check_frame(state, frame_idx)
        prompt = self._mask_prompt(mask)

        obj = state.objects.get(obj_id) or ObjectState()
        features = self._features(state, frame_idx)
        if self.config.use_mask_input_as_output_without_sam:
            output = self.use_mask_as_output(features, prompt)
        else:
            vision, is_init_cond_frame = self._vision_for_prompt(state, obj, frame_idx, features)
            multimask = self.uses_multimask(is_init_cond_frame, num_points=0)
            output = self.sam_heads(vision, features.high_res, None, prompt, multimask)

        self._set_pending(state, obj, frame_idx, output)
        state.objects[obj_id] = obj
        obj.masks[frame_idx] = prompt
        obj.points.pop(frame_idx, None)
        return frame_idx, state.obj_ids, self._masks_on(state, frame_idx)

    @torch.inference_mode()
    def clear_all_prompts_in_frame(
        self,
        inference_state: InferenceState,
        frame_idx: int,
        obj_id: int,
        need_output: bool = True,
        restore: bool = False,
    ) -> tuple[int, list[int], Tensor] | None:
        """Take back an object's prompts on a frame; nothing happens to an object that is not known.

        Args:
            need_output: return what `add_new_points_or_box` does, else None.
            restore: undo, exactly: what was on the frame before its first prompt is there again, the tracked mask or
                nothing, so that the same prompts give the same logits as they did then. Other frames, which may have
                been tracked from the prompts, stay as they are until they are tracked again. Where a stream has gone
                on to the next frame, what was before is not known any more. False, as facebookresearch/sam2 does: the
                mask of prompts that have entered memory stays on the frame, as if it had been tracked.
        """
        obj = inference_state.objects.get(obj_id)
        if obj is not None:
            self._clear_prompts(obj, frame_idx, restore)
        if not need_output:
            return None
        return frame_idx, inference_state.obj_ids, self._masks_on(inference_state, frame_idx)

    @staticmethod
    def _clear_prompts(obj: ObjectState, frame_idx: int, restore: bool) -> None:
        obj.points.pop(frame_idx, None)
        obj.masks.pop(frame_idx, None)
        obj.pending.pop(frame_idx, None)
        prompted = obj.cond.pop(frame_idx, None)
        is_before_known = frame_idx in obj.before_prompts
        before = obj.before_prompts.pop(frame_idx, None)
        if restore and is_before_known:
            obj.non_cond.pop(frame_idx, None)
            if before is not None:
                obj.non_cond[frame_idx] = before
        elif prompted is not None:
            prompted.reverse = None
            obj.non_cond[frame_idx] = prompted

    @staticmethod
    def _point_prompts(
        points: np.ndarray | Tensor | Sequence[Sequence[float]] | None,
        labels: np.ndarray | Tensor | Sequence[int] | None,
    ) -> tuple[Tensor, Tensor]:
        """Points (1, P, 2) and labels (1, P) on the CPU, P = 0 for None."""
        if points is None or labels is None:
            return torch.zeros(1, 0, 2), torch.zeros(1, 0, dtype=torch.int32)
        coords = finite_tensor(points, "points", torch.device("cpu"))
        kinds = torch.as_tensor(labels, dtype=torch.int32, device="cpu")
        if coords.numel() == 0 and kinds.numel() == 0:
            return torch.zeros(1, 0, 2), torch.zeros(1, 0, dtype=torch.int32)
        # one batch dimension, and the label of a single point without any, are as upstream takes them
        coords = coords[None] if coords.ndim == 1 else coords[0] if coords.ndim == 3 and len(coords) == 1 else coords
        kinds = kinds.reshape(-1) if kinds.ndim == 0 or (kinds.ndim == 2 and len(kinds) == 1) else kinds
        if coords.ndim != 2 or coords.shape[-1] != 2 or kinds.shape != coords.shape[:-1]:
            raise ValueError(
                f"expected points (P, 2) with labels (P), got {tuple(coords.shape)} with {tuple(kinds.shape)}"
            )
        check_labels(kinds, "labels")
        return coords[None], kinds[None]

    def _mask_prompt(self, mask: np.ndarray | Tensor) -> Tensor:
        """A mask (H, W) as the model takes it: (1, 1, image_size, image_size) float32 of zeros and ones."""
        prompt = torch.as_tensor(mask, device=self.device)
        if prompt.ndim != 2:
            raise ValueError(f"a mask prompt has shape (H, W), got {tuple(prompt.shape)}")
        if prompt.is_floating_point():
            if prompt.isnan().any():
                raise ValueError("expected numbers in a mask prompt, got NaN")
            is_probability = prompt.numel() > 0 and prompt.min() >= 0 and prompt.max() <= 1
            prompt = prompt > (0.5 if is_probability else 0.0)
        prompt = (prompt != 0).float()[None, None].to(self.device)
        if prompt.shape[-2:] != (self.image_size, self.image_size):
            prompt = F.interpolate(prompt, size=(self.image_size,) * 2, mode="bilinear", antialias=True)
            prompt = (prompt >= 0.5).float()
        return prompt

    def _check_frame(self, state: InferenceState, frame_idx: int) -> None:
        if state.is_stream:
            if frame_idx != state.newest_frame_idx or frame_idx < 0:
                raise ValueError(
                    f"a stream is prompted on its newest frame ({state.newest_frame_idx}), not on frame {frame_idx}"
                )
        elif not 0 <= frame_idx < (state.num_frames or 0):
            raise ValueError(f"frame {frame_idx} is outside the video's {state.num_frames} frames")

    def _vision_for_prompt(
        self, state: InferenceState, obj: ObjectState, frame_idx: int, features: ImageFeatures
    ) -> tuple[Tensor, bool]:
        """What a prompt is decoded on: the frame alone, or, once tracked, with the object's memory; and which it was.

        Returns:
            (1, C, h, w), and whether the frame becomes an initial conditioning frame.
        """
        previous = obj.output_at(frame_idx)
        if previous is None or previous.reverse is None:
            return self.add_no_memory(features.vision), True
        readable = self._readable(obj, FrameTime(frame_idx, previous.reverse, state.num_frames))
        return self._read_memory(state, [readable], features.vision, self.attend_to_frame(features.vision)), False

    def _set_pending(self, state: InferenceState, obj: ObjectState, frame_idx: int, output: SamOutput) -> None:
        """Keep the answer to a prompt until `_encode_pending` puts it into memory."""
        previous = obj.output_at(frame_idx)
        reverse = None if previous is None else previous.reverse
        corrections_stick = state.corrections_stick or self.config.add_all_frames_to_correct_as_cond
        is_cond = reverse is None or frame_idx in obj.cond or corrections_stick
        masks = output.low_res_masks
        if self.config.fill_hole_area > 0:
            masks = fill_holes(masks, self.config.fill_hole_area)
        frame_output = self._frame_output(state, output, masks, reverse)
        time = FrameTime(frame_idx, reverse or False, state.num_frames)
        self.memory_policy.remember(obj, frame_output, output, time, is_prompted=True)
        is_carried = previous is obj.carried.get(frame_idx)  # it stays where it is, below what the prompts give
        obj.before_prompts.setdefault(frame_idx, None if is_carried else previous)
        obj.pending[frame_idx] = (frame_output, is_cond)
