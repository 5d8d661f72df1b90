"""The one step that offline and streaming tracking share: all objects of a frame in batches, each with its own
memory."""

from __future__ import annotations

from collections import defaultdict

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2.mask_ops import fill_holes
from sam2.modeling.sam2_base import NO_OBJ_SCORE, ImageFeatures, SAM2Base, SamOutput, non_overlapping
from sam2.video_state import FrameOutput, InferenceState, ObjectState

MAX_BATCH = 16  # objects that go through the model together; more are taken in turns
CPU_BATCH_CELLS = 1024  # on a CPU, cells of the image embedding in a batch; larger ones fall out of its caches

Readable = tuple[list[tuple[int, Tensor]], list[tuple[int, Tensor]]]  # spatial memories and pointers, with their times


class VideoEngine(SAM2Base):
    """SAM 2 with memory over time; `SAM2VideoPredictor` puts sessions and prompts on top."""

    @property
    def max_batch(self) -> int:
        """How many objects go through the model together."""
        if self.device.type != "cpu":
            return MAX_BATCH
        return max(1, min(MAX_BATCH, CPU_BATCH_CELLS // self.embedding_size**2))

    def _step(self, state: InferenceState, frame_idx: int, reverse: bool) -> Tensor:
        """Track every object onto one frame; prompted frames keep their masks. Returns video-resolution logits."""
        to_track = [obj for obj in state.objects.values() if frame_idx not in obj.cond and obj.cond]
        if to_track:
            self._track(state, to_track, frame_idx, reverse)
        config = self.config
        spatial_reach = (config.num_maskmem - 1) * config.memory_temporal_stride_for_eval
        for obj in state.objects.values():
            if frame_idx in obj.cond:
                obj.cond[frame_idx].reverse = reverse
                if config.clear_non_cond_mem_around_input:
                    self._clear_around(obj, frame_idx)
            if state.history == "recent":
                obj.forget(frame_idx, spatial_reach, config.max_obj_ptrs_in_encoder - 1, not state.is_stream)
        return self._masks_on(state, frame_idx)

    def _track(self, state: InferenceState, objects: list[ObjectState], frame_idx: int, reverse: bool) -> None:
        features = self._features(state, frame_idx)
        multimask = self.uses_multimask(is_init_cond_frame=False, num_points=0)
        outputs: dict[int, tuple[SamOutput, int]] = {}  # position in `objects` → batch and row in it
        readable = [self._readable(state, obj, frame_idx, reverse) for obj in objects]
        attended = self.attend_to_frame(features.vision)
        for batch in self._same_shaped(readable):
            vision = self._read_memory(state, [readable[i] for i in batch], features.vision, attended)
            output = self.sam_heads(vision, features.high_res, multimask_output=multimask)
            outputs.update({i: (output, row) for row, i in enumerate(batch)})

        in_order = [outputs[i] for i in range(len(objects))]
        masks = torch.cat([output.low_res_masks[row : row + 1] for output, row in in_order])
        scores = torch.cat([output.object_score_logits[row : row + 1] for output, row in in_order])
        high_res_masks = self.upscale(masks)
        if self.config.non_overlap_masks_for_mem_enc:
            high_res_masks = non_overlapping(high_res_masks)
        stored_masks = fill_holes(masks, self.config.fill_hole_area) if self.config.fill_hole_area > 0 else masks
        for start in range(0, len(objects), self.max_batch):
            rows = slice(start, start + self.max_batch)
            maskmem = self.encode_memory(features.vision, high_res_masks[rows], scores[rows], False)
            for i, memory in enumerate(maskmem.to(state.storage_device, torch.bfloat16).split(1), start):
                output, row = outputs[i]
                frame_output = self._frame_output(state, output, row, stored_masks[i : i + 1])
                frame_output.maskmem, frame_output.reverse = memory.clone(), reverse
                objects[i].non_cond[frame_idx] = frame_output

    # ---- reading memory ----

    def _same_shaped(self, readable: list[Readable]) -> list[list[int]]:
        """Positions of the objects whose memories hold as much, in batches of at most `max_batch`."""
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, (spatial, pointers) in enumerate(readable):
            groups[len(spatial), len(pointers)].append(i)
        return [
            group[i : i + self.max_batch] for group in groups.values() for i in range(0, len(group), self.max_batch)
        ]

    def _readable(self, state: InferenceState, obj: ObjectState, frame_idx: int, reverse: bool) -> Readable:
        """The memories an object's tracking on `frame_idx` reads (Ravi et al., 2024, section 4, memory bank).

        Returns:
            Spatial memories with their age (0 for a conditioning frame, else 1 to `num_maskmem` - 1), and object
            pointers with the frames between them and now.
        """
        config = self.config
        forward = -1 if reverse else 1
        selected, unselected = self._closest_cond_frames(obj, frame_idx)
        spatial = [(0, output.maskmem) for output in selected.values() if output.maskmem is not None]
        stride = config.memory_temporal_stride_for_eval
        for age in range(config.num_maskmem - 1, 0, -1):
            if age == 1:
                t = frame_idx - forward
            else:  # frames on the grid of the stride, the first of them at least two frames back
                t = forward * ((forward * frame_idx - 2) // stride * stride - (age - 2) * stride)
            output = obj.non_cond.get(t) or unselected.get(t)
            if output is not None and output.maskmem is not None:
                spatial.append((age, output.maskmem))

        if not config.use_obj_ptrs_in_encoder:
            return spatial, []
        pointers = []
        for t, output in selected.items():
            elapsed = (frame_idx - t) * forward
            if elapsed >= 0 or not config.only_obj_ptrs_in_the_past_for_eval:
                pointers.append((elapsed if config.use_signed_tpos_enc_to_obj_ptrs else abs(elapsed), output.obj_ptr))
        for elapsed in range(1, self._pointer_span(state)):
            output = obj.non_cond.get(frame_idx - forward * elapsed) or unselected.get(frame_idx - forward * elapsed)
            if output is not None:
                pointers.append((elapsed, output.obj_ptr))
        return spatial, pointers

    def _pointer_span(self, state: InferenceState) -> int:
        limit = self.config.max_obj_ptrs_in_encoder
        return limit if state.num_frames is None else min(state.num_frames, limit)

    def _closest_cond_frames(
        self, obj: ObjectState, frame_idx: int
    ) -> tuple[dict[int, FrameOutput], dict[int, FrameOutput]]:
        """Conditioning frames that are read as such, and the others: the nearest on each side, then by distance."""
        limit = self.config.max_cond_frames_in_attn
        if limit == -1 or len(obj.cond) <= limit:
            return obj.cond, {}
        before = [t for t in obj.cond if t < frame_idx]
        after = [t for t in obj.cond if t >= frame_idx]
        nearest = ([max(before)] if before else []) + ([min(after)] if after else [])
        others = sorted((t for t in obj.cond if t not in nearest), key=lambda t: abs(t - frame_idx))
        chosen = {*nearest, *others[: limit - len(nearest)]}
        selected = {t: output for t, output in obj.cond.items() if t in chosen}
        return selected, {t: output for t, output in obj.cond.items() if t not in chosen}

    def _read_memory(self, state: InferenceState, readable: list[Readable], vision: Tensor, attended: Tensor) -> Tensor:
        """Features (N, C, h, w) of a frame conditioned on the memories of N objects that hold as much."""
        if not readable[0][0]:
            return self.add_no_memory(vision).expand(len(readable), -1, -1, -1)
        device = self.device
        spatial = torch.stack([torch.cat([m for _, m in memories]) for memories, _ in readable]).to(device)
        ages = torch.tensor([[age for age, _ in memories] for memories, _ in readable], device=device)
        if readable[0][1]:
            pointers = torch.stack([torch.cat([p for _, p in found]) for _, found in readable])
        else:
            pointers = torch.zeros(len(readable), 0, self.config.d_model, device=device, dtype=self.dtype)
        elapsed = torch.tensor([[t for t, _ in found] for _, found in readable], device=device, dtype=torch.float32)
        times = elapsed / max(self._pointer_span(state) - 1, 1)
        memory, memory_pe, num_pointer_tokens = self.assemble_memory(spatial, ages, pointers, times)
        return self.condition_on_memory(attended, memory, memory_pe, num_pointer_tokens)

    # ---- writing memory ----

    def _encode_pending(self, state: InferenceState) -> None:
        """Turn the outputs of prompts into memory; objects prompted on one frame go together."""
        by_frame: dict[int, list[ObjectState]] = defaultdict(list)
        for obj in state.objects.values():
            for frame_idx in obj.pending:
                by_frame[frame_idx].append(obj)
        for frame_idx, objects in by_frame.items():
            vision = self._features(state, frame_idx).vision
            for start in range(0, len(objects), self.max_batch):
                self._encode_prompted(state, objects[start : start + self.max_batch], frame_idx, vision)

    def _encode_prompted(
        self, state: InferenceState, objects: list[ObjectState], frame_idx: int, vision: Tensor
    ) -> None:
        prompted = [obj.pending.pop(frame_idx) for obj in objects]
        masks = torch.cat([output.low_res_masks for output, _ in prompted]).to(self.device)
        scores = torch.cat([output.object_score_logits for output, _ in prompted])
        maskmem = self.encode_memory(vision, self.upscale(masks), scores, is_mask_from_points=True)
        memories = maskmem.to(state.storage_device, torch.bfloat16).split(1)
        for obj, memory, (output, is_cond) in zip(objects, memories, prompted, strict=True):
            output.maskmem = memory.clone()
            if self.config.clear_non_cond_mem_around_input:
                self._clear_around(obj, frame_idx)
            if is_cond:
                obj.non_cond.pop(frame_idx, None)
                obj.cond[frame_idx] = output
            else:
                obj.non_cond[frame_idx] = output

    def _clear_around(self, obj: ObjectState, frame_idx: int) -> None:
        reach = self.config.memory_temporal_stride_for_eval * self.config.num_maskmem
        for t in range(frame_idx - reach, frame_idx + reach + 1):
            obj.non_cond.pop(t, None)

    # ---- frames and outputs ----

    def _features(self, state: InferenceState, frame_idx: int) -> ImageFeatures:
        if state.features is None or state.features[0] != frame_idx:
            frame = state.newest_frame if state.images is None else state.images[frame_idx]
            assert frame is not None
            state.features = (frame_idx, self.forward_image(frame.unsqueeze(0)))
        return state.features[1]

    def _frame_output(self, state: InferenceState, output: SamOutput, row: int, masks: Tensor) -> FrameOutput:
        """One object's part of a batch, copied so that it does not keep the batch alive."""
        rows = slice(row, row + 1)
        return FrameOutput(
            low_res_masks=masks.to(state.storage_device).clone(),
            obj_ptr=output.obj_ptr[rows].clone(),
            object_score_logits=output.object_score_logits[rows].clone(),
            mask_score=output.ious[rows].amax(dim=1),
        )

    def _masks_on(self, state: InferenceState, frame_idx: int) -> Tensor:
        """Newest masks of all objects on a frame, (N, 1, H, W) float32 logits; `NO_OBJ_SCORE` where there is none."""
        side = self.image_size // 4
        nothing = torch.full((1, 1, side, side), NO_OBJ_SCORE, device=self.device)
        outputs = [obj.output_at(frame_idx) for obj in state.objects.values()]
        masks = [nothing if output is None else output.low_res_masks.to(self.device) for output in outputs]
        stacked = torch.cat(masks) if masks else nothing[:0]
        video_res = self._at_video_size(state, stacked)
        return non_overlapping(video_res) if self.config.non_overlap_masks else video_res

    def _at_video_size(self, state: InferenceState, masks: Tensor) -> Tensor:
        """Logits (N, 1, 4h, 4w) as (N, 1, H, W) of the video; N = 0 is fine."""
        size = (state.video_height, state.video_width)
        if len(masks) == 0:
            return masks.new_zeros(0, 1, *size)
        return F.interpolate(masks, size=size, mode="bilinear", align_corners=False)
