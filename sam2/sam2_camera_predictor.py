"""The interface of forks of SAM 2 for cameras (`build_sam2_camera_predictor`): one stream, held by the predictor."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.video_frames import to_model_input
from sam2.video_state import InferenceState


class SAM2CameraPredictor(SAM2VideoPredictor):
    """Follows prompted objects through frames as they come.

        predictor = build_sam2_camera_predictor("sam2.1-large", checkpoint)
        predictor.load_first_frame(frame)
        predictor.add_new_prompt(frame_idx=0, obj_id=1, bbox=box_xyxy)
        for frame in camera:
            obj_ids, mask_logits = predictor.track(frame)

    Frames are RGB uint8 (H, W, 3). Prompts go on the newest frame and stick, whatever is tracked later.

    Attributes:
        condition_state: the stream; None before `load_first_frame`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.condition_state: InferenceState | None = None

    @property
    def frame_idx(self) -> int:
        """Index of the newest frame; -1 before the first."""
        return -1 if self.condition_state is None else self.condition_state.newest_frame_idx

    def load_first_frame(self, img: np.ndarray, *ignored: Any) -> None:
        """Forget all there was, and begin with this frame."""
        self.condition_state = self.init_stream(corrections_stick=True)
        self.append_frame(self.condition_state, img)

    def add_new_prompt(
        self,
        frame_idx: int,
        obj_id: int,
        points: Any = None,
        labels: Any = None,
        bbox: Any = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
    ) -> tuple[int, list[int], Tensor]:
        """`add_new_points_or_box` in the stream; labels that come with a box alone are passed over.

        Args:
            bbox: xyxy, or its two corners (2, 2).
        """
        labels = None if points is None else labels
        state = self._stream()
        return super().add_new_points_or_box(
            state, frame_idx, obj_id, points, labels, clear_old_points, normalize_coords, bbox
        )

    def add_new_points(self, *args: Any, **kwargs: Any) -> tuple[int, list[int], Tensor]:
        """The older name of `add_new_prompt`."""
        return self.add_new_prompt(*args, **kwargs)

    def add_new_mask(  # type: ignore[override]  # without the state, as the forks have it
        self, frame_idx: int, obj_id: int, mask: np.ndarray | Tensor
    ) -> tuple[int, list[int], Tensor]:
        """`SAM2VideoPredictor.add_new_mask` in the stream."""
        return super().add_new_mask(self._stream(), frame_idx, obj_id, mask)

    def add_conditioning_frame(self, img: np.ndarray) -> int:
        """Make a frame, which may be the one just tracked, ready for `add_new_prompt_during_track`; its index."""
        state = self._stream()
        is_newest = torch.equal(to_model_input(img, self.image_size), state["images"][-1])
        if not is_newest:
            self.track(img)
        return state.newest_frame_idx

    def add_new_prompt_during_track(
        self,
        point: Any = None,
        bbox: Any = None,
        mask: Any = None,
        labels: Any = None,
        obj_id: int | None = None,
        if_new_target: bool = True,
        clear_old_points: bool = True,
    ) -> tuple[int, list[int], Tensor]:
        """Prompt an object, new or known, on the newest frame; without an id a new one, or the one added last."""
        state = self._stream()
        if obj_id is None:
            last = max(state.obj_ids, default=0)
            obj_id = last + 1 if if_new_target or not state.obj_ids else state.obj_ids[-1]
        if mask is not None:
            return self.add_new_mask(state.newest_frame_idx, obj_id, mask)
        return self.add_new_prompt(state.newest_frame_idx, obj_id, point, labels, bbox, clear_old_points)

    def finalize_new_input(self) -> None:
        """Accepted for compatibility: prompts enter memory when the next frame comes."""

    def track(self, img: np.ndarray) -> tuple[list[int], Tensor]:
        """Append a frame: object ids and (N, 1, H, W) float32 logits on it; N = 0 is fine."""
        state = self._stream()
        self.append_frame(state, img)
        return self.step(state)

    def reset_state(self, inference_state: InferenceState | None = None) -> None:
        """Forget all objects; the newest frame stays."""
        super().reset_state(inference_state or self._stream())

    def _stream(self) -> InferenceState:
        if self.condition_state is None:
            raise RuntimeError("there is no frame yet; call load_first_frame(img) first")
        return self.condition_state
