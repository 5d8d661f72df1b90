"""Follow prompted objects through a video, or through a stream that is still going on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sam2.mask_ops import fill_holes
from sam2.modeling.sam2_base import ImageFeatures, SamOutput
from sam2.video_engine import MAX_BATCH, VideoEngine
from sam2.video_frames import LazyFrames, RGBFrames, open_rgb_frames, to_model_input
from sam2.video_state import History, InferenceState, ObjectState, stream_from_dict


class SAM2VideoPredictor(VideoEngine):
    """The public methods of facebookresearch/sam2 (release of 2024-12), and streams.

    All objects of a frame go through memory attention, mask decoder and memory encoder together; none reads
    another's memory, so objects may be added, refined and removed on any frame without a change to the others.

    A stream: `state = init_stream()`, then for every image `append_frame(state, image)`, prompts on that frame if
    there are any, and `step(state)` for the masks. Offline propagation runs the same step.
    """

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: object) -> SAM2VideoPredictor:
        """Build from a Hugging Face hub name (`"facebook/sam2.1-hiera-large"`) or a local folder."""
        from sam2.build_sam import build_sam2_video_predictor_hf

        return build_sam2_video_predictor_hf(model_id, **kwargs)

    # ---- sessions ----

    def init_state(
        self,
        video_path: str | Path | RGBFrames,
        offload_video_to_cpu: bool = False,
        offload_state_to_cpu: bool = False,
        async_loading_frames: bool = False,
        history: History = "recent",
    ) -> InferenceState:
        """Open a video.

        Args:
            video_path: a video file, a folder of images, or a sequence of RGB uint8 (H, W, 3) arrays.
            offload_video_to_cpu: accepted for compatibility; frames are decoded when needed and never all kept.
            offload_state_to_cpu: keep masks and spatial memories in main memory instead of the GPU's.
            async_loading_frames: accepted for compatibility; the next frames are always prepared in the background.
            history: `"recent"` keeps what tracking from here, or from any prompted frame, can read; a frame further
                away is prompted afresh. `"all"` keeps every frame's output, so that any frame can be refined.

        Raises:
            FileNotFoundError: no such file or folder.
            ValueError: no frames in it.
        """
        images = LazyFrames(open_rgb_frames(video_path), self.image_size)
        storage = torch.device("cpu") if offload_state_to_cpu else self.device
        return InferenceState(images, len(images), images.height, images.width, storage, history)

    def init_stream(self, num_frames: int | None = None, offload_state_to_cpu: bool = False) -> InferenceState:
        """Open a stream with no frame yet.

        Args:
            num_frames: the length, if known. It only matters below `max_obj_ptrs_in_encoder` (16) frames, where the
                model measures time in video lengths; with it, streaming and offline masks are equal there too.
            offload_state_to_cpu: see `init_state`.
        """
        storage = torch.device("cpu") if offload_state_to_cpu else self.device
        return InferenceState(None, num_frames, 0, 0, storage, "recent")

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
        """
        state = inference_state
        if state.newest_frame is None:
            raise RuntimeError("the stream has no frame yet; call append_frame(state, image) first")
        self._encode_pending(state)
        return state.obj_ids, self._step(state, state.newest_frame_idx, reverse=False)

    @torch.inference_mode()
    def save_stream(self, inference_state: InferenceState) -> dict[str, Any]:
        """What `load_stream` needs to go on behind the stream's newest frame as if nothing had happened.

        Prompts on the newest frame enter memory now, as the next `append_frame` would have them do.

        Returns:
            Tensors and plain values, which `torch.load(..., weights_only=True)` reads; no more than memory attention
            can read, so its size does not grow with the stream.

        Raises:
            RuntimeError: the state is a video's.
        """
        if not inference_state.is_stream:
            raise RuntimeError("save_stream needs a state from init_stream(); this one came from init_state()")
        self._encode_pending(inference_state)
        return inference_state.to_dict()

    def load_stream(self, saved: dict[str, Any], offload_state_to_cpu: bool = False) -> InferenceState:
        """A stream that waits for the frame after the one on which `save_stream` was called.

        Args:
            saved: what it returned, on any device.
            offload_state_to_cpu: see `init_state`.
        """
        storage = torch.device("cpu") if offload_state_to_cpu else self.device
        state = stream_from_dict(saved, storage, self.image_size // 4)
        for obj in state.objects.values():
            for output in (*obj.cond.values(), *obj.non_cond.values()):
                output.obj_ptr = output.obj_ptr.to(self.device)
                output.object_score_logits = output.object_score_logits.to(self.device)
                output.mask_score = output.mask_score.to(self.device)
                output.low_res_masks = output.low_res_masks.to(storage)
                output.maskmem = None if output.maskmem is None else output.maskmem.to(storage)
        return state

    @torch.inference_mode()
    def reset_state(self, inference_state: InferenceState) -> None:
        """Forget all objects and prompts; the video, or the stream's newest frame, stays."""
        inference_state.objects.clear()

    # ---- prompts ----

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
            ValueError: points without labels or the reverse, neither points nor box, wrong shapes, a box added
                to old points, or a frame outside the video.
        """
        state = inference_state
        self._check_frame(state, frame_idx)
        if (points is None) != (labels is None):
            raise ValueError("points and labels must be given together")
        if points is None and box is None:
            raise ValueError("give points with labels, a box, or both")
        if box is not None and not clear_old_points:
            raise ValueError("a box comes before any point: use clear_old_points=True, and give the points again")
        coords = torch.as_tensor([] if points is None else points, dtype=torch.float32).reshape(1, -1, 2)
        kinds = torch.as_tensor([] if labels is None else labels, dtype=torch.int32).reshape(1, -1)
        if coords.shape[1] != kinds.shape[1]:
            raise ValueError(f"{coords.shape[1]} points but {kinds.shape[1]} labels")
        if box is not None:
            corners = torch.as_tensor(box, dtype=torch.float32)
            if corners.numel() != 4:
                raise ValueError(f"a box has 4 numbers (xyxy), got shape {tuple(corners.shape)}")
            coords = torch.cat((corners.reshape(1, 2, 2).to(coords.device), coords), dim=1)
            kinds = torch.cat((torch.tensor([[2, 3]], dtype=torch.int32, device=kinds.device), kinds), dim=1)
        if normalize_coords:
            coords = coords / coords.new_tensor([state.video_width, state.video_height])
        coords, kinds = (coords * self.image_size).to(self.device), kinds.to(self.device)

        obj = state.objects.setdefault(obj_id, ObjectState())
        if not clear_old_points and frame_idx in obj.points:
            old_coords, old_kinds = obj.points[frame_idx]
            coords, kinds = torch.cat((old_coords, coords), dim=1), torch.cat((old_kinds, kinds), dim=1)
        obj.points[frame_idx] = (coords, kinds)
        obj.masks.pop(frame_idx, None)

        previous = obj.output_at(frame_idx)
        prior = None if previous is None else previous.low_res_masks.to(self.device).clamp(-32.0, 32.0)
        features = self._features(state, frame_idx)
        vision, is_init_cond_frame = self._vision_for_prompt(state, obj, frame_idx, features)
        multimask = self.uses_multimask(is_init_cond_frame, kinds.shape[1])
        output = self.sam_heads(vision, features.high_res, (coords, kinds), prior, multimask)
        self._set_pending(state, obj, frame_idx, output)
        return frame_idx, state.obj_ids, self._masks_on(state, frame_idx)

    def add_new_points(self, *args, **kwargs) -> tuple[int, list[int], Tensor]:  # type: ignore[no-untyped-def]
        """The older name of `add_new_points_or_box`."""
        return self.add_new_points_or_box(*args, **kwargs)

    @torch.inference_mode()
    def add_new_mask(
        self, inference_state: InferenceState, frame_idx: int, obj_id: int, mask: np.ndarray | Tensor
    ) -> tuple[int, list[int], Tensor]:
        """Give an object's mask (H, W) on one frame; returns and errors as in `add_new_points_or_box`."""
        state = inference_state
        self._check_frame(state, frame_idx)
        prompt = self._mask_prompt(mask)

        obj = state.objects.setdefault(obj_id, ObjectState())
        obj.masks[frame_idx] = prompt
        obj.points.pop(frame_idx, None)
        features = self._features(state, frame_idx)
        if self.config.use_mask_input_as_output_without_sam:
            output = self.use_mask_as_output(features, prompt)
        else:
            vision, is_init_cond_frame = self._vision_for_prompt(state, obj, frame_idx, features)
            multimask = self.uses_multimask(is_init_cond_frame, num_points=0)
            output = self.sam_heads(vision, features.high_res, None, prompt, multimask)
        self._set_pending(state, obj, frame_idx, output)
        return frame_idx, state.obj_ids, self._masks_on(state, frame_idx)

    @torch.inference_mode()
    def clear_all_prompts_in_frame(
        self, inference_state: InferenceState, frame_idx: int, obj_id: int, need_output: bool = True
    ) -> tuple[int, list[int], Tensor] | None:
        """Take back an object's prompts on a frame; its mask there, if any, stays as an ordinary tracked one."""
        obj = inference_state.objects.setdefault(obj_id, ObjectState())
        obj.points.pop(frame_idx, None)
        obj.masks.pop(frame_idx, None)
        obj.pending.pop(frame_idx, None)
        output = obj.cond.pop(frame_idx, None)
        if output is not None:
            output.reverse = None
            obj.non_cond[frame_idx] = output
        if not need_output:
            return None
        return frame_idx, inference_state.obj_ids, self._masks_on(inference_state, frame_idx)

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

        Args:
            start_frame_idx: first frame; None starts on the earliest prompted one.
            max_frame_num_to_track: how many frames beyond the first; None goes to the end of the video.
            reverse: towards frame 0. Starting on frame 0 then yields nothing.

        Yields:
            frame_idx, object ids, and (N, 1, H, W) float32 logits at the video's resolution.

        Raises:
            RuntimeError: nothing to track, or the state is a stream's.
        """
        state = inference_state
        if state.num_frames is None or state.is_stream:
            raise RuntimeError("a stream is tracked with append_frame(state, image) and step(state)")
        self.propagate_in_video_preflight(state)
        if start_frame_idx is None:
            start_frame_idx = min(frame_idx for obj in state.objects.values() for frame_idx in obj.cond)
        count = state.num_frames if max_frame_num_to_track is None else max_frame_num_to_track
        if reverse:
            stop = max(start_frame_idx - count, 0) - 1 if start_frame_idx > 0 else 0
            order = range(start_frame_idx, stop, -1)
        else:
            order = range(start_frame_idx, min(start_frame_idx + count, state.num_frames - 1) + 1)
        for frame_idx in order:
            self._encode_pending(state)  # prompts given between two frames
            yield frame_idx, state.obj_ids, self._step(state, frame_idx, reverse)

    def frame_scores(self, inference_state: InferenceState, frame_idx: int) -> dict[int, tuple[float, float]]:
        """Per object id on a frame just tracked or prompted: predicted mask quality (0 to 1) and presence logit."""
        scores = {}
        for obj_id, obj in inference_state.objects.items():
            output = obj.output_at(frame_idx)
            if output is not None:
                scores[obj_id] = (output.mask_score.item(), output.object_score_logits.item())
        return scores

    # ---- for those who decide which object is which ----

    @torch.inference_mode()
    def segment_boxes(
        self, inference_state: InferenceState, frame_idx: int, boxes: np.ndarray | Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What prompts with these boxes would give on a frame, without any object being made.

        Args:
            boxes: (N, 4) xyxy in pixels of the video; N = 0 is fine.

        Returns:
            (N, 1, H, W) float32 mask logits, (N,) predicted mask qualities (0 to 1) and (N, C) object pointers.
        """
        state = inference_state
        self._check_frame(state, frame_idx)
        corners = torch.as_tensor(boxes, dtype=torch.float32, device=self.device).reshape(-1, 2, 2)
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
        qualities = torch.cat([output.ious.amax(dim=1) for output in outputs])
        return self._at_video_size(state, masks), qualities, torch.cat([output.obj_ptr for output in outputs])

    def object_pointers(self, inference_state: InferenceState, frame_idx: int) -> dict[int, Tensor]:
        """Per object id on a frame just tracked or prompted: its pointer (C,), which tells how the object looks."""
        outputs = {obj_id: obj.output_at(frame_idx) for obj_id, obj in inference_state.objects.items()}
        return {obj_id: output.obj_ptr[0] for obj_id, output in outputs.items() if output is not None}

    def forget_frame(self, inference_state: InferenceState, frame_idx: int, obj_ids: Sequence[int]) -> None:
        """Take what was tracked on a frame, and is doubtful, out of these objects' memories; prompts stay."""
        for obj_id in obj_ids:
            inference_state.objects[obj_id].non_cond.pop(frame_idx, None)

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
        self.add_new_mask(inference_state, frame_idx, obj_id, prompt)

    # ---- frames and outputs ----

    def _mask_prompt(self, mask: np.ndarray | Tensor) -> Tensor:
        """A mask (H, W) as the model takes it: (1, 1, image_size, image_size) float32 of zeros and ones."""
        prompt = torch.as_tensor(mask)
        if prompt.ndim != 2:
            raise ValueError(f"a mask prompt has shape (H, W), got {tuple(prompt.shape)}")
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
        readable = self._readable(state, obj, frame_idx, previous.reverse)
        return self._read_memory(state, [readable], features.vision, self.attend_to_frame(features.vision)), False

    def _set_pending(self, state: InferenceState, obj: ObjectState, frame_idx: int, output: SamOutput) -> None:
        """Keep the answer to a prompt until `_encode_pending` puts it into memory."""
        previous = obj.output_at(frame_idx)
        reverse = None if previous is None else previous.reverse
        is_cond = reverse is None or frame_idx in obj.cond or self.config.add_all_frames_to_correct_as_cond
        masks = output.low_res_masks
        if self.config.fill_hole_area > 0:
            masks = fill_holes(masks, self.config.fill_hole_area)
        frame_output = self._frame_output(state, output, 0, masks)
        frame_output.reverse = reverse
        obj.pending[frame_idx] = (frame_output, is_cond)
