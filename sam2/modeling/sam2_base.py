"""The methods and attributes by which other programs work on the model of facebookresearch/sam2, on top of ours.

There, features lie in (h·w, B, C), what a frame gave is a dictionary, and settings are attributes of the model. These
methods translate; the computation is that of `SAM2Base`. Training code written for upstream runs on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from sam2.config import SAM2Config, config_of_settings
from sam2.memory_policy import MemoryPolicy, pointer_span
from sam2.modeling.core import (
    NO_OBJ_SCORE,
    ImageFeatures,
    MaskCandidates,
    SAM2Core,
    SamOutput,
    non_overlapping,
)
from sam2.video_state import FrameOutput, FrameTime, ObjectState

__all__ = ["NO_OBJ_SCORE", "ImageFeatures", "MaskCandidates", "SAM2Base", "SamOutput", "non_overlapping"]

# fields whose names the model has for something else: a parameter, a number that training code changes
_NOT_SETTINGS = ("no_obj_embed_spatial", "image_size")


class SAM2Base(SAM2Core):
    """The model, with the constructor, methods and attributes of facebookresearch/sam2.

    Args:
        first: a configuration; or, with keywords alone, its fields; or the image encoder, with `memory_attention`,
            `memory_encoder` and upstream's settings, which then have upstream's values where they are left out.

    Raises:
        TypeError: a configuration and other arguments.
        ValueError: an argument that neither package has.
    """

    backbone_stride = 16

    def __init__(
        self,
        first: SAM2Config | nn.Module | None = None,
        memory_attention: nn.Module | None = None,
        memory_encoder: nn.Module | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(*_config_and_parts(first, memory_attention, memory_encoder, settings))

    @property
    def hidden_dim(self) -> int:
        return self.config.d_model

    @property
    def sam_prompt_embed_dim(self) -> int:
        return self.config.d_model

    @property
    def sam_image_embedding_size(self) -> int:
        return self.embedding_size

    @property
    def num_feature_levels(self) -> int:
        return 3 if self.config.use_high_res_features_in_sam else 1

    def change_settings(self, **changes: Any) -> None:
        """Replace fields of the configuration, wherever the model holds it."""
        self.config = self.sam_mask_decoder.config = replace(self.config, **changes)

    # ---- one frame ----

    def _prepare_backbone_features(
        self, backbone_out: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[Tensor], list[Tensor], list[tuple[int, int]]]:
        """What `forward_image` returned, its levels and their positions as (h·w, B, C), and the levels' sizes."""
        levels = backbone_out["backbone_fpn"][-self.num_feature_levels :]
        where = backbone_out["vision_pos_enc"][-self.num_feature_levels :]
        sizes = [(level.shape[-2], level.shape[-1]) for level in levels]
        tokens, positions = ([x.flatten(2).permute(2, 0, 1) for x in maps] for maps in (levels, where))
        return dict(backbone_out), tokens, positions, sizes

    def _prepare_memory_conditioned_features(
        self,
        frame_idx: int,
        is_init_cond_frame: bool,
        current_vision_feats: Sequence[Tensor],
        current_vision_pos_embeds: Sequence[Tensor],
        feat_sizes: Sequence[tuple[int, int]],
        output_dict: Mapping[str, Mapping[int, Mapping[str, Any]]],
        num_frames: int | None,
        track_in_reverse: bool = False,
    ) -> Tensor:
        """Features (B, C, h, w) of a frame after reading the memories in `output_dict`, or none on a first frame."""
        vision = _as_map(current_vision_feats[-1], feat_sizes[-1])
        config = self.config
        if self.training:
            config = replace(config, only_obj_ptrs_in_the_past_for_eval=False, memory_temporal_stride_for_eval=1)
        outputs = (output_dict["cond_frame_outputs"], output_dict["non_cond_frame_outputs"])
        cond, non_cond = ({t: _frame_output(out) for t, out in by_frame.items()} for by_frame in outputs)
        obj, time = ObjectState(cond=cond, non_cond=non_cond), FrameTime(frame_idx, track_in_reverse, num_frames)
        policy = MemoryPolicy(config)
        found = [] if is_init_cond_frame else policy.spatial_memories(obj, time)
        spatial = [(place, output.maskmem) for place, output in found if output.maskmem is not None]
        if not spatial:
            return self.add_no_memory(vision)
        pointers = policy.pointers(obj, time) if config.use_obj_ptrs_in_encoder else []
        batch, device = len(vision), vision.device
        ages = torch.tensor([place for place, _ in spatial], device=device).expand(batch, -1)
        elapsed = torch.tensor([t for t, _ in pointers], device=device, dtype=torch.float32)
        times = (elapsed / max(pointer_span(config, num_frames) - 1, 1)).expand(batch, -1)
        if pointers:
            tokens = torch.stack([output.obj_ptr for _, output in pointers], dim=1)
        else:
            tokens = vision.new_zeros(batch, 0, config.d_model)
        memories = torch.stack([memory.to(device) for _, memory in spatial], dim=1)
        memory, memory_pe, num_pointer_tokens = self.assemble_memory(memories, ages, tokens, times)
        return self.condition_on_memory(self.attend_to_frame(vision), memory, memory_pe, num_pointer_tokens)

    def _use_multimask(self, is_init_cond_frame: bool, point_inputs: Mapping[str, Tensor] | None) -> bool:
        num_points = 0 if point_inputs is None else point_inputs["point_labels"].shape[1]
        return self.uses_multimask(is_init_cond_frame, num_points)

    def _forward_sam_heads(
        self,
        backbone_features: Tensor,
        point_inputs: Mapping[str, Tensor] | None = None,
        mask_inputs: Tensor | None = None,
        high_res_features: Sequence[Tensor] | None = None,
        multimask_output: bool = False,
    ) -> tuple[Tensor, ...]:
        """Decode the masks of B objects, see `SAM2Base.mask_candidates`.

        Returns:
            (B, M, 4h, 4w) logits of all candidates, the same at the input's size, their (B, M) predicted qualities;
            (B, 1, 4h, 4w) of the best, the same at the input's size, its pointer (B, C), presence logits (B, 1).
        """
        points = None if point_inputs is None else (point_inputs["point_coords"], point_inputs["point_labels"])
        output = self.sam_heads(backbone_features, list(high_res_features or ()), points, mask_inputs, multimask_output)
        return self._as_tuple(output)

    def _use_mask_as_output(
        self, backbone_features: Tensor, high_res_features: Sequence[Tensor] | None, mask_inputs: Tensor
    ) -> tuple[Tensor, ...]:
        """`_forward_sam_heads` for masks (B, 1, S, S) that are themselves the result."""
        features = ImageFeatures(backbone_features, list(high_res_features or ()))
        output = self._as_tuple(self.use_mask_as_output(features, mask_inputs))
        high_res = mask_inputs.float() * 20.0 - 10.0
        return output[0], high_res, output[2], output[3], high_res, output[5], output[6]

    def _as_tuple(self, output: SamOutput) -> tuple[Tensor, ...]:
        multimasks, masks = output.low_res_multimasks, output.low_res_masks
        high_res = self.upscale(multimasks), self.upscale(masks)
        scores = output.object_score_logits
        return multimasks, high_res[0], output.ious, masks, high_res[1], output.obj_ptr, scores

    def _encode_new_memory(
        self,
        current_vision_feats: Sequence[Tensor],
        feat_sizes: Sequence[tuple[int, int]],
        pred_masks_high_res: Tensor,
        object_score_logits: Tensor,
        is_mask_from_pts: bool,
    ) -> tuple[Tensor, list[Tensor]]:
        """The memories (B, mem_dim, ...) of masks (B, 1, S, S) logits on a frame, and where their cells are."""
        vision = _as_map(current_vision_feats[-1], feat_sizes[-1])
        if self.config.non_overlap_masks_for_mem_enc and not self.training:
            pred_masks_high_res = self._apply_non_overlapping_constraints(pred_masks_high_res)
        memory = self.encode_memory(vision, pred_masks_high_res, object_score_logits, is_mask_from_pts)
        tokens = self.spatial_perceiver.position_encoding(memory.shape[1:], memory.device, memory.dtype)
        return memory, [tokens.transpose(1, 2).reshape(1, *memory.shape[1:]).expand_as(memory)]

    def _track_step(
        self,
        frame_idx: int,
        is_init_cond_frame: bool,
        current_vision_feats: Sequence[Tensor],
        current_vision_pos_embeds: Sequence[Tensor],
        feat_sizes: Sequence[tuple[int, int]],
        point_inputs: Mapping[str, Tensor] | None,
        mask_inputs: Tensor | None,
        output_dict: Mapping[str, Any],
        num_frames: int | None,
        track_in_reverse: bool,
        prev_sam_mask_logits: Tensor | None,
    ) -> tuple[dict[str, Any], tuple[Tensor, ...], list[Tensor] | None, Tensor]:
        """Masks of B objects on a frame, before they enter memory.

        Returns:
            A dictionary for what the frame gives, `_forward_sam_heads`'s answer, the features at strides 4 and 8, and
            those at stride 16 that the masks were decoded from.
        """
        levels = [_as_map(x, size) for x, size in zip(current_vision_feats, feat_sizes, strict=True)]
        high_res = levels[:-1] or None
        current_out = {"point_inputs": point_inputs, "mask_inputs": mask_inputs}
        if mask_inputs is not None and self.config.use_mask_input_as_output_without_sam:
            return current_out, self._use_mask_as_output(levels[-1], high_res, mask_inputs), high_res, levels[-1]
        vision = self._prepare_memory_conditioned_features(
            frame_idx,
            is_init_cond_frame,
            current_vision_feats[-1:],
            current_vision_pos_embeds[-1:],
            feat_sizes[-1:],
            output_dict,
            num_frames,
            track_in_reverse,
        )
        prior = mask_inputs if prev_sam_mask_logits is None else prev_sam_mask_logits
        multimask = self._use_multimask(is_init_cond_frame, point_inputs)
        return current_out, self._forward_sam_heads(vision, point_inputs, prior, high_res, multimask), high_res, vision

    def _encode_memory_in_output(
        self,
        current_vision_feats: Sequence[Tensor],
        feat_sizes: Sequence[tuple[int, int]],
        point_inputs: Mapping[str, Tensor] | None,
        run_mem_encoder: bool,
        high_res_masks: Tensor,
        object_score_logits: Tensor,
        current_out: dict[str, Any],
    ) -> None:
        """Put the memory of what `_track_step` found into its dictionary, None if no memory is wanted."""
        memory, where = None, None
        if run_mem_encoder and self.config.num_maskmem > 0:
            memory, where = self._encode_new_memory(
                current_vision_feats, feat_sizes, high_res_masks, object_score_logits, point_inputs is not None
            )
        current_out.update(maskmem_features=memory, maskmem_pos_enc=where)

    def track_step(
        self,
        frame_idx: int,
        is_init_cond_frame: bool,
        current_vision_feats: Sequence[Tensor],
        current_vision_pos_embeds: Sequence[Tensor],
        feat_sizes: Sequence[tuple[int, int]],
        point_inputs: Mapping[str, Tensor] | None,
        mask_inputs: Tensor | None,
        output_dict: Mapping[str, Any],
        num_frames: int | None,
        track_in_reverse: bool = False,
        run_mem_encoder: bool = True,
        prev_sam_mask_logits: Tensor | None = None,
    ) -> dict[str, Any]:
        """Masks, pointers and memories of B objects on a frame, as an entry for `output_dict`."""
        current_out, sam_outputs, _, _ = self._track_step(
            frame_idx,
            is_init_cond_frame,
            current_vision_feats,
            current_vision_pos_embeds,
            feat_sizes,
            point_inputs,
            mask_inputs,
            output_dict,
            num_frames,
            track_in_reverse,
            prev_sam_mask_logits,
        )
        _, _, _, low_res_masks, high_res_masks, obj_ptr, scores = sam_outputs
        current_out.update(pred_masks=low_res_masks, pred_masks_high_res=high_res_masks, obj_ptr=obj_ptr)
        if not self.training:
            current_out["object_score_logits"] = scores
        self._encode_memory_in_output(
            current_vision_feats, feat_sizes, point_inputs, run_mem_encoder, high_res_masks, scores, current_out
        )
        return current_out

    def _apply_non_overlapping_constraints(self, pred_masks: Tensor) -> Tensor:
        """Keep each pixel of logits (N, 1, H, W) for the object with the highest."""
        return non_overlapping(pred_masks)


def _setting(name: str) -> property:
    """An attribute that reads, and replaces, a field of the model's configuration."""

    def read(model: SAM2Base) -> Any:
        return getattr(model.config, name)

    def write(model: SAM2Base, value: Any) -> None:
        model.change_settings(**{name: value})

    return property(read, write)


for _field in fields(SAM2Config):
    if _field.name not in _NOT_SETTINGS:
        setattr(SAM2Base, _field.name, _setting(_field.name))


def _config_and_parts(
    first: SAM2Config | nn.Module | None,
    memory_attention: nn.Module | None,
    memory_encoder: nn.Module | None,
    settings: dict[str, Any],
) -> tuple[SAM2Config, dict[str, nn.Module]]:
    """What `SAM2Base` was called with: our configuration, its fields, or upstream's modules and settings.

    Args:
        first: a configuration, or upstream's first argument, the image encoder.
        memory_attention, memory_encoder: upstream's.
        settings: all other arguments.

    Returns:
        The configuration, and those parts that are given rather than to be built from it.

    Raises:
        TypeError: a configuration and other arguments.
        ValueError: an argument that neither package has.
    """
    if isinstance(first, SAM2Config):
        if settings or memory_attention is not None or memory_encoder is not None:
            raise TypeError(f"expected a SAM2Config alone, got other arguments as well: {', '.join(settings)}")
        return first, {}
    image_encoder = settings.pop("image_encoder", first)
    if image_encoder is None:  # the fields of a configuration
        return config_of_settings(settings, "SAM2Base", is_upstream=False), {}
    given = {"image_encoder": image_encoder, "memory_attention": memory_attention, "memory_encoder": memory_encoder}
    widths = {"d_model": image_encoder.neck.d_model, "mem_dim": image_encoder.neck.d_model}
    if memory_encoder is not None and isinstance(memory_encoder.out_proj, nn.Conv2d):
        widths["mem_dim"] = memory_encoder.out_proj.out_channels
    config = replace(config_of_settings(settings, "SAM2Base", is_upstream=True), **widths)
    return config, {name: part for name, part in given.items() if part is not None}


def _as_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    return tokens.permute(1, 2, 0).unflatten(2, tuple(size))  # (h·w, B, C) → (B, C, h, w)


def _frame_output(entry: Mapping[str, Any]) -> FrameOutput:
    """Upstream's dictionary of B objects on a frame as our record; what reading memory does not need is left out."""
    absent = torch.empty(0)
    return FrameOutput(absent, entry["obj_ptr"], absent, absent, entry["maskmem_features"])
