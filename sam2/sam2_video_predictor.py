"""Follow prompted objects through a video, or through a stream that is still going on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sam2.video_compat import ForkMethods
from sam2.video_frames import LazyFrames, RGBFrames, open_rgb_frames, to_model_input
from sam2.video_identity import IdentityHooks
from sam2.video_state import History, InferenceState, state_from_dict


class SAM2VideoPredictor(ForkMethods, IdentityHooks):
    """The public methods of facebookresearch/sam2 (release of 2024-12), and streams.

    All objects of a frame go through memory attention, mask decoder and memory encoder together; none reads
    another's memory, so objects may be added, refined and removed on any frame without a change to the others.

    A stream: `state = init_stream()`, then for every image `append_frame(state, image)`, prompts on that frame if
    there are any, and `step(state)` for the masks. Offline propagation runs the same step.

    Prompts are in `sam2/video_prompts.py`, what identity needs in `sam2/video_identity.py`, the step itself in
    `sam2/video_engine.py`, what is remembered in `sam2/memory_policy.py`, and how policies look ahead in
    `sam2/video_hypotheses.py`.
    """

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: object) -> SAM2VideoPredictor:
        """Build from a Hugging Face hub name (`"facebook/sam2.1-hiera-large"`) or a local folder."""
        from sam2.build_sam import build_sam2_video_predictor_hf

        return build_sam2_video_predictor_hf(model_id, **kwargs)

    # ---- sessions ----

    def init_state(
        self,
        video_path: str | Path | RGBFrames | None = None,
        offload_video_to_cpu: bool = False,
        offload_state_to_cpu: bool = False,
        async_loading_frames: bool = False,
        history: History = "recent",
        corrections_stick: bool = False,
    ) -> InferenceState:
        """Open a video.

        Args:
            video_path: a video file, a folder of images, or a sequence of RGB uint8 (H, W, 3) arrays; None opens a
                stream, see `init_stream`.
            offload_video_to_cpu: accepted for compatibility; frames are decoded when needed and never all kept.
            offload_state_to_cpu: keep masks and spatial memories in main memory instead of the GPU's.
            async_loading_frames: accepted for compatibility; the next frames are always prepared in the background.
            history: `"recent"` keeps what tracking from here, or from any prompted frame, can read; a frame further
                away is prompted afresh. `"all"` keeps every frame's output, so that any frame can be refined.
            corrections_stick: a prompt on a frame that tracking has passed makes it a conditioning frame: no later
                propagation, in either direction, changes its mask, and all read it. False, as facebookresearch/sam2
                does: the next propagation over the frame tracks it anew and the correction is lost.

        Raises:
            FileNotFoundError: no such file or folder.
            ValueError: no frames in it.
        """
        if video_path is None:
            return self.init_stream(None, offload_state_to_cpu, corrections_stick)
        images = LazyFrames(open_rgb_frames(video_path), self.image_size)
        storage = torch.device("cpu") if offload_state_to_cpu else self.device
        size = (images.height, images.width)
        return InferenceState(images, len(images), *size, storage, history, corrections_stick, device=self.device)

    def init_stream(
        self, num_frames: int | None = None, offload_state_to_cpu: bool = False, corrections_stick: bool = False
    ) -> InferenceState:
        """Open a stream with no frame yet.

        Args:
            num_frames: the length, if known. It only matters below `max_obj_ptrs_in_encoder` (16) frames, where the
                model measures time in video lengths; with it, streaming and offline masks are equal there too.
            offload_state_to_cpu, corrections_stick: see `init_state`.

        Raises:
            ValueError: the memory policy looks ahead, which only a video allows.
        """
        self._check_policy_of_streams()
        storage = torch.device("cpu") if offload_state_to_cpu else self.device
        return InferenceState(None, num_frames, 0, 0, storage, "recent", corrections_stick, device=self.device)

    @torch.inference_mode()
    def append_frame(self, inference_state: InferenceState, image: np.ndarray) -> int:
        """Make `image` (RGB uint8 (H, W, 3)) the stream's newest frame and return its index.

        Prompts on the frame before enter memory now; prompts are taken on the newest frame only.

        Raises:
            RuntimeError: the state is a video's.
            ValueError: not an RGB uint8 image, or of another size than the frames before.
        """
        state = inference_state
        if not state.is_stream:
            raise RuntimeError("append_frame needs a state from init_stream(); this one came from init_state()")
        frame = to_model_input(image, self.image_size)
        height, width = image.shape[:2]
        if state.newest_frame_idx < 0:
            state.video_height, state.video_width = height, width
        elif (height, width) != (state.video_height, state.video_width):
            raise ValueError(
                f"the new frame is {width}x{height} pixels, the stream {state.video_width}x{state.video_height}"
            )
        self._encode_pending(state)
        state.newest_frame, state.newest_frame_idx = frame, state.newest_frame_idx + 1
        return state.newest_frame_idx

    @torch.inference_mode()
    def step(self, inference_state: InferenceState) -> tuple[list[int], Tensor]:
        """Masks of all objects on the stream's newest frame.

        Returns:
            Object ids and (N, 1, H, W) float32 logits at the stream's resolution; N = 0 is fine.

        Raises:
            RuntimeError: no frame has been appended.
            ValueError: see `init_stream`.
        """
        self._advance_stream(inference_state)
        return inference_state.obj_ids, self._masks_on(inference_state, inference_state.newest_frame_idx)

    @torch.inference_mode()
    def step_masks(self, inference_state: InferenceState) -> tuple[list[int], Tensor]:
        """As `step`, but (N, H, W) bool masks on the CPU, for which no logits at the stream's resolution are made."""
        self._advance_stream(inference_state)
        return inference_state.obj_ids, self._binary_masks_on(inference_state, inference_state.newest_frame_idx)

    def _advance_stream(self, state: InferenceState) -> None:
        self._check_policy_of_streams()
        if state.newest_frame is None:
            raise RuntimeError("the stream has no frame yet; call append_frame(state, image) first")
        self._encode_pending(state)
        self._advance(state, state.newest_frame_idx, reverse=False, last_idx=state.newest_frame_idx)

    @torch.inference_mode()
    def save_stream(self, inference_state: InferenceState) -> dict[str, Any]:
        """What `load_stream` needs to go on behind the stream's newest frame as if nothing had happened.

        Prompts on the newest frame enter memory now, as the next `append_frame` would have them do.

        Returns:
            Tensors and plain values, which `torch.load(..., weights_only=True)` reads; no more than the memory policy
            keeps, so its size does not grow with the stream.

        Raises:
            RuntimeError: the state is a video's.
        """
        if not inference_state.is_stream:
            raise RuntimeError(
                "save_stream needs a state from init_stream(); this one came from init_state(): use save_state"
            )
        self._encode_pending(inference_state)
        return inference_state.stream_to_dict()

    def load_stream(self, saved: dict[str, Any], offload_state_to_cpu: bool = False) -> InferenceState:
        """A stream that waits for the frame after the one on which `save_stream` was called.

        Args:
            saved: what it returned, on any device.
            offload_state_to_cpu: see `init_state`.

        Raises:
            ValueError: not a saved stream, or one of another model; or see `init_stream`.
        """
        self._check_policy_of_streams()
        return self._restored(saved, None, offload_state_to_cpu)

    def _check_policy_of_streams(self) -> None:
        if self.memory_policy.looks_ahead:
            raise ValueError(
                f"the memory policy {type(self.memory_policy).__name__} decides masks by later frames, which a stream "
                "does not have: open a video with init_state(path), or take another policy"
            )

    def save_state(self, inference_state: InferenceState) -> dict[str, Any]:
        """All that is known of a video from `init_state` but its frames: prompts, masks and memories; see `load_state`.

        Returns:
            Tensors and plain values, which `torch.load(..., weights_only=True)` reads.

        Raises:
            RuntimeError: the state is a stream's.
        """
        if inference_state.is_stream:
            raise RuntimeError("save_state needs a state from init_state(); a stream is saved with save_stream")
        return inference_state.video_to_dict()

    def load_state(
        self, saved: dict[str, Any], video_path: str | Path | RGBFrames, offload_state_to_cpu: bool = False
    ) -> InferenceState:
        """A video with all that `save_state` kept: whatever is asked of it gives what it would have given then.

        Args:
            saved: what `save_state` returned, on any device.
            video_path: the video that was open then; see `init_state`.
            offload_state_to_cpu: see `init_state`.

        Raises:
            FileNotFoundError: no such file or folder.
            ValueError: a video of another size or length, not a saved session, or one of another model.
        """
        images = LazyFrames(open_rgb_frames(video_path), self.image_size)
        state = self._restored(saved, images, offload_state_to_cpu)
        expected = (state.num_frames, state.video_width, state.video_height)
        found = (len(images), images.width, images.height)
        if found != expected:
            described = ("{} frames of {}x{} pixels".format(*video) for video in (expected, found))
            raise ValueError("the session saved is of a video with {}, this one has {}".format(*described))
        return state

    def _restored(self, saved: dict[str, Any], images: LazyFrames | None, offload_state_to_cpu: bool) -> InferenceState:
        if not isinstance(saved, dict) or not {"num_frames", "video_height", "video_width", "objects"} <= saved.keys():
            raise ValueError("expected what save_state or save_stream returned, got something else")
        storage = torch.device("cpu") if offload_state_to_cpu else self.device
        side = self.image_size // 4
        state = state_from_dict(saved, images, self.device, storage, side)
        for output in (output for obj in state.objects.values() for output in obj.outputs()):
            found = (output.obj_ptr.shape[-1], output.low_res_masks.shape[-1])
            if found != (self.config.d_model, side):
                raise ValueError(
                    f"saved by a model of {found[0]} channels with masks of {found[1]} cells, "
                    f"this one has {self.config.d_model} and {side}"
                )
        return state

    @torch.inference_mode()
    def reset_state(self, inference_state: InferenceState) -> None:
        """Forget all objects and prompts; the video, or the stream's newest frame, stays."""
        inference_state.objects.clear()

    @torch.inference_mode()
    def remove_object(
        self, inference_state: InferenceState, obj_id: int, strict: bool = False, need_output: bool = True
    ) -> tuple[list[int], list[tuple[int, Tensor]]]:
        """Forget one object.

        Returns:
            The remaining ids, and (frame_idx, (N, 1, H, W) logits) of the frames the object was prompted on.

        Raises:
            RuntimeError: no such object and `strict`.
        """
        state = inference_state
        if obj_id not in state.objects:
            if strict:
                raise RuntimeError(f"cannot remove object {obj_id}: the objects are {state.obj_ids}")
            return state.obj_ids, []
        removed = state.objects.pop(obj_id)
        updated: list[tuple[int, Tensor]] = []
        if need_output and state.objects:
            prompted = sorted({*removed.points, *removed.masks})
            updated = [(frame_idx, self._masks_on(state, frame_idx)) for frame_idx in prompted]
        return state.obj_ids, updated

    # ---- tracking ----

    @torch.inference_mode()
    def propagate_in_video_preflight(self, inference_state: InferenceState) -> None:
        """Encode the prompts given since the last propagation into memory.

        Raises:
            RuntimeError: no object, or an object without a prompted frame.
        """
        state = inference_state
        if not state.objects:
            raise RuntimeError("no object to track; call add_new_points_or_box or add_new_mask first")
        self._encode_pending(state)
        for obj_id, obj in state.objects.items():
            if not obj.cond:
                raise RuntimeError(f"object {obj_id} has no prompt; call add_new_points_or_box or add_new_mask first")

    @torch.inference_mode()
    def propagate_in_video(
        self,
        inference_state: InferenceState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
    ) -> Iterator[tuple[int, list[int], Tensor]]:
        """Track all objects from frame to frame.

        With a memory policy that looks ahead ("sam2long"), a frame comes once it is known which of an object's
        hypotheses is right on it, at the latest when the last frame of this pass has been looked at; the first ones may
        so take as long as the whole pass. What is done between two frames is the same as with any other policy: see
        `sam2/video_hypotheses.py`.

        Args:
            start_frame_idx: first frame; None starts on the earliest prompted one.
            max_frame_num_to_track: how many frames beyond the first; None goes to the end of the video.
            reverse: towards frame 0. Starting on frame 0 then yields nothing.

        Yields:
            frame_idx, object ids, and (N, 1, H, W) float32 logits at the video's resolution.

        Raises:
            RuntimeError: nothing to track, or the state is a stream's.
            ValueError: `start_frame_idx` is outside the video, or `max_frame_num_to_track` negative.
        """
        state = inference_state
        if state.num_frames is None or state.is_stream:
            raise RuntimeError("a stream is tracked with append_frame(state, image) and step(state)")
        self.propagate_in_video_preflight(state)
        if start_frame_idx is None:
            start_frame_idx = min(frame_idx for obj in state.objects.values() for frame_idx in obj.cond)
        self._check_frame(state, start_frame_idx)
        count = state.num_frames if max_frame_num_to_track is None else max_frame_num_to_track
        if count < 0:
            raise ValueError(f"expected max_frame_num_to_track of at least 0, got {count}")
        if reverse:
            stop = max(start_frame_idx - count, 0) - 1 if start_frame_idx > 0 else 0
            order = range(start_frame_idx, stop, -1)
        else:
            order = range(start_frame_idx, min(start_frame_idx + count, state.num_frames - 1) + 1)
        for frame_idx in order:
            self._encode_pending(state)  # prompts given between two frames
            yield frame_idx, state.obj_ids, self._step(state, frame_idx, reverse, order[-1])


class SAM2VideoPredictorVOS(SAM2VideoPredictor):
    """The same with its large parts compiled by `torch.compile`: the first frames are slow, the others faster."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in (
            "image_encoder.trunk",
            "image_encoder.neck",
            "memory_attention",
            "memory_encoder.mask_downsampler",
            "memory_encoder.fuser",
            "sam_mask_decoder",
        ):
            self.get_submodule(name).compile()
