"""Names under which forks of facebookresearch/sam2, and scripts that reach into it, know what a stream does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sam2.video_state import InferenceState

RELEASED_AFTER = 60  # frames that `release_old_frames` keeps


class ForkMethods:
    """Thin adapters of `SAM2VideoPredictor`'s streams, which inherits them.

    Of Grounded-SAM-2: `init_state()` without a path, `add_new_frame`, `infer_single_frame`. Of Lang2SegTrack:
    `init_state_from_numpy_frames`, `append_frame_to_inference_state`, `propagate_in_frame`,
    `append_frame_as_cond_frame`, `release_old_frames`. Frames are RGB here, as everywhere; nothing is swapped.
    """

    def add_new_frame(self: Any, inference_state: InferenceState, image: np.ndarray) -> int:
        """See `append_frame`."""
        return self.append_frame(inference_state, image)

    def infer_single_frame(self: Any, inference_state: InferenceState, frame_idx: int) -> tuple[int, list[int], Tensor]:
        """`step` on the newest frame: its index, object ids and (N, 1, H, W) float32 logits.

        Raises:
            ValueError: `frame_idx` is not the newest.
        """
        self._check_frame(inference_state, frame_idx)
        return frame_idx, *self.step(inference_state)

    def init_state_from_numpy_frames(
        self: Any, frames: Sequence[np.ndarray], offload_state_to_cpu: bool = False, **ignored: Any
    ) -> InferenceState:
        """A stream whose first frames are there already; prompts go on the last of them."""
        state = self.init_stream(offload_state_to_cpu=offload_state_to_cpu)
        for frame in frames:
            self.append_frame(state, frame)
        return state

    append_frame_to_inference_state = add_new_frame
    propagate_in_frame = infer_single_frame

    def append_frame_as_cond_frame(self, inference_state: InferenceState, frame_idx: int) -> None:
        """Make what was tracked on a frame, where it is still remembered, a conditioning frame of every object."""
        for obj in inference_state.objects.values():
            output = obj.non_cond.get(frame_idx)
            if output is not None and output.maskmem is not None:
                obj.cond[frame_idx] = obj.non_cond.pop(frame_idx)

    def release_old_frames(
        self,
        inference_state: InferenceState,
        frame_idx: int | None = None,
        max_inference_state_frames: int = RELEASED_AFTER,
        pre_frames: int = 0,
        release_images: bool = False,
    ) -> None:
        """Forget conditioning frames long past, but each object's newest; all else that is old is forgotten anyway.

        Args:
            frame_idx: now; None is the newest frame.
            max_inference_state_frames: how many frames before it are kept.
            pre_frames: how many frames at the beginning are kept.
            release_images: accepted for compatibility; images are not kept.
        """
        now = inference_state["num_frames"] - 1 if frame_idx is None else frame_idx
        for obj in inference_state.objects.values():
            newest = max(obj.cond, default=-1)
            for t in list(obj.cond):
                if pre_frames <= t < now - max_inference_state_frames and t != newest:
                    del obj.cond[t]

    # ---- facebookresearch/sam2's own helpers ----

    def _obj_id_to_idx(self, inference_state: InferenceState, obj_id: int) -> int:
        return inference_state.obj_ids.index(obj_id)

    def _obj_idx_to_id(self, inference_state: InferenceState, obj_idx: int) -> int:
        return inference_state.obj_ids[obj_idx]

    def _get_obj_num(self, inference_state: InferenceState) -> int:
        return len(inference_state.objects)

    def _reset_tracking_results(self: Any, inference_state: InferenceState) -> None:
        self.reset_state(inference_state)

    @torch.inference_mode()
    def _get_orig_video_res_output(
        self: Any, inference_state: InferenceState, any_res_masks: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits (N, 1, h, w) as they are, and at the video's size without overlaps if the model allows none."""
        masks = any_res_masks.to(self.device)
        video_res = self._at_video_size(inference_state, masks)
        return masks, self._apply_non_overlapping_constraints(video_res) if self.non_overlap_masks else video_res

    @torch.inference_mode()
    def _get_image_feature(self: Any, inference_state: InferenceState, frame_idx: int, batch_size: int) -> tuple:
        """A frame (B, 3, S, S), and of B copies of it what `_prepare_backbone_features` returns."""
        features = self._features(inference_state, frame_idx)
        image = inference_state["images"][frame_idx].to(self.device).expand(batch_size, -1, -1, -1)
        keys = ("backbone_fpn", "vision_pos_enc")
        repeated = {key: [level.expand(batch_size, -1, -1, -1) for level in features[key]] for key in keys}
        return image, *self._prepare_backbone_features(repeated)
