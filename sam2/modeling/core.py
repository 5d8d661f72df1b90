"""SAM 2 as one module: image encoder, prompt encoder, mask decoder, memory attention and memory encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2.config import SAM2Config
from sam2.keyed import Keyed
from sam2.modeling.image_encoder import ImageEncoder
from sam2.modeling.layers import MLP, is_plain_inference
from sam2.modeling.mask_decoder import MaskDecoder
from sam2.modeling.memory_attention import build_memory_attention
from sam2.modeling.memory_encoder import build_memory_encoder
from sam2.modeling.perceiver import build_memory_compressor
from sam2.modeling.position_encoding import (
    positions,
    rope_rotations,
    sine_position_encoding,
    sine_time_encoding,
)
from sam2.modeling.prompt_encoder import PromptEncoder

Method = TypeVar("Method", bound=Callable[..., Any])

NO_OBJ_SCORE = -1024.0  # mask logit everywhere when the object is not in the frame


@dataclass
class ImageFeatures(Keyed):
    """What the image encoder says of B frames; also the dictionaries that facebookresearch/sam2 has in its place."""

    vision: Tensor  # (B, C, h, w) at stride 16, no memory in it yet
    high_res: list[Tensor]  # (B, C/8, 4h, 4w) and (B, C/4, 2h, 2w); empty when the model does not use them
    extra: dict[str, Any] = field(default_factory=dict)  # what other programs put beside it

    keys_of_attributes: ClassVar[Mapping[str, str]] = {
        "vision_features": "vision",
        "image_embed": "vision",
        "high_res_feats": "high_res",
    }
    keys_computed: ClassVar[Mapping[str, Any]] = {
        "backbone_fpn": lambda self: [*self.high_res, self.vision],
        "vision_pos_enc": lambda self: [positions(level) for level in (*self.high_res, self.vision)],
    }

    def row(self, i: int) -> ImageFeatures:
        """The features of frame `i` alone, batch dimension kept."""
        return ImageFeatures(self.vision[i : i + 1], [level[i : i + 1] for level in self.high_res])


@dataclass
class MaskCandidates:
    """What the mask decoder offers for B objects on a frame, M candidates each (M = 1 or 3), before one is taken."""

    mask_logits: Tensor  # (B, M, 4h, 4w) float32; `NO_OBJ_SCORE` everywhere for an object that is not in the frame
    ious: Tensor  # (B, M) float32, predicted quality of each
    object_score_logits: Tensor  # (B, 1) float32, above 0: the object is in the frame
    tokens: Tensor  # (B, M or 1, C), what object pointers are made from


@dataclass
class SamOutput:
    """Masks, quality, presence and pointer of B objects on a frame, all float32 but the pointer."""

    low_res_multimasks: Tensor  # (B, M, 4h, 4w) logits of every candidate
    ious: Tensor  # (B, M) predicted quality of each
    low_res_masks: Tensor  # (B, 1, 4h, 4w) logits of the candidate taken
    obj_ptr: Tensor  # (B, C)
    object_score_logits: Tensor  # (B, 1)
    chosen: Tensor  # (B,) int64, which candidate was taken

    @property
    def mask_scores(self) -> Tensor:
        """(B,) predicted quality of the candidate taken."""
        return self.ious.gather(1, self.chosen[:, None]).squeeze(1)

    def row(self, i: int) -> SamOutput:
        """Object `i` alone, batch dimension kept."""
        return SamOutput(**{name: tensor[i : i + 1] for name, tensor in vars(self).items()})


def in_own_precision(method: Method) -> Method:
    """A method of a model, or of what holds one as `model`, that autocast of another half precision does not reach."""

    @wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        model = self if isinstance(self, SAM2Core) else self.model
        with model.own_precision():
            return method(self, *args, **kwargs)

    return run  # type: ignore[return-value]


class SAM2Core(nn.Module):
    """The model without the bookkeeping of images or videos (that is the predictors').

    Parameter names are those of the official checkpoints. Inputs are cast to the dtype of the weights; masks and
    scores come back as float32.

    Args:
        config: the architecture.
        parts: modules to take as they are instead of building them, by attribute; see `PARTS`.
    """

    PARTS = ("image_encoder", "memory_attention", "memory_encoder")

    def __init__(self, config: SAM2Config, parts: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__()
        given = parts or {}
        self.config = config
        self.image_size = config.image_size
        dim, mem_dim = config.d_model, config.mem_dim

        self.image_encoder: Any = given.get("image_encoder") or ImageEncoder(config)
        self.memory_attention: Any = given.get("memory_attention") or build_memory_attention(config)
        self.memory_encoder: Any = given.get("memory_encoder") or build_memory_encoder(dim, mem_dim)
        self.spatial_perceiver = build_memory_compressor(config)
        self.sam_prompt_encoder = PromptEncoder(dim, config.image_size, self.embedding_size, config.prompt_map)
        self.sam_mask_decoder = MaskDecoder(config)

        self.maskmem_tpos_enc = nn.Parameter(torch.zeros(config.num_maskmem, 1, 1, mem_dim))
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, dim))
        self.no_mem_pos_enc = nn.Parameter(torch.zeros(1, 1, dim))
        for parameter in (self.maskmem_tpos_enc, self.no_mem_embed, self.no_mem_pos_enc):
            nn.init.trunc_normal_(parameter, std=0.02)
        self.obj_ptr_proj: nn.Module = nn.Identity()
        self.obj_ptr_tpos_proj: nn.Module = nn.Identity()
        if config.use_obj_ptrs_in_encoder:
            self.mask_downsample = nn.Conv2d(1, 1, kernel_size=4, stride=4)
            self.obj_ptr_proj = MLP(dim, dim, dim, 3) if config.use_mlp_for_obj_ptr_proj else nn.Linear(dim, dim)
            if config.proj_tpos_enc_in_obj_ptrs:
                self.obj_ptr_tpos_proj = nn.Linear(dim, mem_dim)
        if config.pred_obj_scores and config.use_obj_ptrs_in_encoder:
            self.no_obj_ptr = nn.Parameter(torch.zeros(1, dim))
            nn.init.trunc_normal_(self.no_obj_ptr, std=0.02)
        if config.no_obj_embed_spatial:
            self.no_obj_embed_spatial = nn.Parameter(torch.zeros(1, mem_dim))
            nn.init.trunc_normal_(self.no_obj_embed_spatial, std=0.02)

    @property
    def embedding_size(self) -> int:
        """Side of the image embedding, in cells of 16 pixels."""
        return self.image_size // 16

    @property
    def device(self) -> torch.device:
        return self.no_mem_embed.device

    @property
    def dtype(self) -> torch.dtype:
        return self.no_mem_embed.dtype

    @property
    def present_above(self) -> float:
        """Object score above which an object is taken to be in the frame."""
        return 0.0

    def own_precision(self) -> AbstractContextManager[Any]:
        """Switches autocast off where the weights have one half precision and autocast another: no layer takes both."""
        kind = self.device.type
        is_reached = self.dtype in (torch.float16, torch.bfloat16) and torch.is_autocast_enabled(kind)
        if not is_reached or torch.get_autocast_dtype(kind) == self.dtype:
            return nullcontext()
        return torch.autocast(kind, enabled=False)

    @in_own_precision
    def forward_image(self, images: Tensor) -> ImageFeatures:
        """Encode (B, 3, S, S) normalised RGB images."""
        images = images.to(self.device, self.dtype)
        if not self.config.use_high_res_features_in_sam:
            return ImageFeatures(self.image_encoder(images)["backbone_fpn"][-1], [])
        heads = (self.sam_mask_decoder.conv_s0, self.sam_mask_decoder.conv_s1)
        if type(self.image_encoder) is ImageEncoder and is_plain_inference(images):
            *high_res, vision = self.image_encoder(images, heads)["backbone_fpn"]
        else:
            *levels, vision = self.image_encoder(images)["backbone_fpn"]
            high_res = [head(level) for head, level in zip(heads, levels, strict=True)]
        return ImageFeatures(vision, high_res)

    @in_own_precision
    def add_no_memory(self, vision: Tensor) -> Tensor:
        """Features (B, C, h, w) as the mask decoder reads them on an image or a frame without memory."""
        if self.config.directly_add_no_mem_embed:
            return vision + self.no_mem_embed.reshape(1, -1, 1, 1)
        memory = self.no_mem_embed[..., : self.config.mem_dim].expand(len(vision), 1, -1)
        memory_pe = self.no_mem_pos_enc[..., : self.config.mem_dim]
        return self.condition_on_memory(self.attend_to_frame(vision), memory, memory_pe, num_pointer_tokens=1)

    def uses_multimask(self, is_init_cond_frame: bool, num_points: int) -> bool:
        """Whether a frame of a video is decoded into three candidates of which the best is taken."""
        config = self.config
        return (
            config.multimask_output_in_sam
            and (is_init_cond_frame or config.multimask_output_for_tracking)
            and config.multimask_min_pt_num <= num_points <= config.multimask_max_pt_num
        )

    def sam_heads(
        self,
        vision: Tensor,
        high_res: list[Tensor],
        points: tuple[Tensor, Tensor] | None = None,
        masks: Tensor | None = None,
        multimask_output: bool = False,
    ) -> SamOutput:
        """`mask_candidates`, of which the one that the model rates best is taken."""
        candidates = self.mask_candidates(vision, high_res, points, masks, multimask_output)
        return self.take(candidates, candidates.ious.argmax(dim=1))

    @in_own_precision
    def mask_candidates(
        self,
        vision: Tensor,
        high_res: list[Tensor],
        points: tuple[Tensor, Tensor] | None = None,
        masks: Tensor | None = None,
        multimask_output: bool = False,
    ) -> MaskCandidates:
        """Decode the masks of B objects from features that memory, or `add_no_memory`, has been added to.

        Args:
            vision: (B, C, h, w).
            high_res: see `ImageFeatures`; batch 1 or B.
            points: coords (B, P, 2) px of the model's input and labels (B, P); None for no prompt.
            masks: (B, 1, H, W) mask prompt logits, resized to (4h, 4w) if they are not.
            multimask_output: see `MaskDecoder`.
        """
        batch = len(vision)
        if points is None:
            points = (vision.new_zeros(batch, 1, 2), -torch.ones(batch, 1, dtype=torch.int32, device=vision.device))
        size = self.sam_prompt_encoder.mask_input_size
        if masks is not None and masks.shape[-2:] != size:
            masks = F.interpolate(masks.float(), size=size, mode="bilinear", antialias=True)
        sparse, dense = self.sam_prompt_encoder(points, None, masks)
        image_pe = self.sam_prompt_encoder.get_dense_pe()
        decoded = self.sam_mask_decoder(vision, image_pe, sparse, dense, multimask_output, high_res_features=high_res)
        scores = decoded.object_score_logits.float()
        mask_logits = decoded.mask_logits.float()
        if self.config.pred_obj_scores:
            mask_logits = torch.where(scores[:, :, None, None] > self.present_above, mask_logits, NO_OBJ_SCORE)
        return MaskCandidates(mask_logits, decoded.ious.float(), scores, decoded.tokens)

    @in_own_precision
    def take(self, candidates: MaskCandidates, chosen: Tensor) -> SamOutput:
        """Make an object's mask and pointer of the candidate that was chosen for it.

        Args:
            candidates: of B objects.
            chosen: (B,) int64, below M.
        """
        rows = torch.arange(len(chosen), device=chosen.device)
        tokens = candidates.tokens[rows, chosen if candidates.tokens.shape[1] > 1 else 0]
        scores = candidates.object_score_logits
        obj_ptr = self._pointer(tokens, scores) if self.config.use_obj_ptrs_in_encoder else tokens
        masks = candidates.mask_logits[rows, chosen].unsqueeze(1)
        return SamOutput(candidates.mask_logits, candidates.ious, masks, obj_ptr, scores, chosen)

    def _pointer(self, tokens: Tensor, object_score_logits: Tensor) -> Tensor:
        """Object pointers (B, C) of decoder tokens (B, C); an absent object's is (mixed with) `no_obj_ptr`."""
        obj_ptr = self.obj_ptr_proj(tokens)
        if not self.config.pred_obj_scores:
            return obj_ptr
        if self.config.soft_no_obj_ptr:
            presence = object_score_logits.sigmoid().to(obj_ptr.dtype)
        else:
            presence = (object_score_logits > self.present_above).to(obj_ptr.dtype)
        if self.config.fixed_no_obj_ptr:
            obj_ptr = presence * obj_ptr
        return obj_ptr + (1 - presence) * self.no_obj_ptr

    @in_own_precision
    def use_mask_as_output(self, features: ImageFeatures, masks: Tensor) -> SamOutput:
        """A mask prompt (B, 1, S, S) of zeros and ones taken as the result itself; only the pointer is computed."""
        masks = masks.float()
        logits = masks * 20.0 - 10.0
        low_res = F.interpolate(logits, size=(self.image_size // 4,) * 2, mode="bilinear", antialias=True)
        batch = len(masks)
        if self.config.use_obj_ptrs_in_encoder:
            prompt = self.mask_downsample(masks.to(self.dtype))
            vision = features.vision.expand(batch, -1, -1, -1)
            obj_ptr = self.sam_heads(vision, features.high_res, masks=prompt).obj_ptr
        else:
            obj_ptr = masks.new_zeros(batch, self.config.d_model, dtype=self.dtype)
        presence = (masks.flatten(1) > 0).any(dim=1, keepdim=True)
        if self.config.pred_obj_scores and self.config.use_obj_ptrs_in_encoder:
            weight = presence.to(obj_ptr.dtype)
            if self.config.fixed_no_obj_ptr:
                obj_ptr = weight * obj_ptr
            obj_ptr = obj_ptr + (1 - weight) * self.no_obj_ptr
        ious = masks.new_ones(batch, 1)
        chosen = torch.zeros(batch, dtype=torch.int64, device=masks.device)
        return SamOutput(low_res, ious, low_res, obj_ptr, presence.float() * 20.0 - 10.0, chosen)

    def upscale(self, low_res_masks: Tensor) -> Tensor:
        """Low-resolution logits (N, 1, 4h, 4w) at the size of the model's input, (N, 1, S, S)."""
        return F.interpolate(low_res_masks.float(), size=(self.image_size,) * 2, mode="bilinear", align_corners=False)

    @in_own_precision
    def encode_memory(
        self, vision: Tensor, high_res_masks: Tensor, object_score_logits: Tensor, is_mask_from_points: bool
    ) -> Tensor:
        """The memories of N objects on a frame.

        Args:
            vision: (1 or N, C, h, w) features of the frame, without memory.
            high_res_masks: (N, 1, S, S) logits.
            object_score_logits: (N, 1).
            is_mask_from_points: the mask was prompted on this frame (by points, a box or a mask).

        Returns:
            (N, mem_dim, h, w), or what the model's memory compressor makes of it.
        """
        config = self.config
        if config.binarize_mask_from_pts_for_mem_enc and is_mask_from_points and not self.training:
            masks = (high_res_masks > 0).float()
        else:
            masks = high_res_masks.float().sigmoid()
        masks = masks * config.sigmoid_scale_for_mem_enc + config.sigmoid_bias_for_mem_enc
        memory = self.memory_encoder(vision, masks.to(self.dtype), skip_mask_sigmoid=True)["vision_features"]
        if config.no_obj_embed_spatial:
            absent = (object_score_logits <= 0).to(memory.dtype)[:, :, None, None]
            memory = memory + absent * self.no_obj_embed_spatial[:, :, None, None]
        return self.spatial_perceiver(memory)

    @in_own_precision
    def assemble_memory(
        self,
        spatial: Tensor,
        spatial_age: Tensor,
        pointers: Tensor,
        pointer_time: Tensor,
        kept: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, int]:
        """Lay the memories of N objects out as tokens for `condition_on_memory`.

        Args:
            spatial: (N, K, mem_dim, h, w) memories of K frames; see `encode_memory`.
            spatial_age: (N, K) long, 0 for a conditioning frame, else how many frames ago, at most `num_maskmem` - 1.
            pointers: (N, P, C) object pointers of P frames.
            pointer_time: (N, P) float, frames between pointer and now, divided by the furthest that is looked back.
            kept: (N, L) long, which of the K·h·w spatial tokens are read, memory after memory; None: all.

        Returns:
            tokens (N, L, mem_dim), their position encoding (N, L, mem_dim), and how many of them are pointers.
        """
        mem_dim = self.config.mem_dim
        tokens = spatial.to(self.dtype).flatten(3).permute(0, 1, 3, 2).flatten(1, 2)  # (N, K·h·w, mem_dim)
        grid = self.spatial_perceiver.position_encoding(spatial.shape[2:], self.device, self.dtype)
        # row 0 of the table is the previous frame, the last row a conditioning frame
        age = self.maskmem_tpos_enc[(spatial_age - 1) % self.config.num_maskmem].squeeze(2)  # (N, K, 1, mem_dim)
        encoding = (grid.unsqueeze(1) + age).flatten(1, 2)
        if kept is not None:
            index = kept.unsqueeze(2).expand(-1, -1, mem_dim)
            tokens, encoding = tokens.gather(1, index), encoding.gather(1, index)
        if pointers.shape[1] == 0:
            return tokens, encoding, 0
        pieces = self.config.d_model // mem_dim
        pointer_tokens = pointers.unflatten(2, (pieces, mem_dim)).flatten(1, 2)
        if self.config.add_tpos_enc_to_obj_ptrs:
            if self.config.proj_tpos_enc_in_obj_ptrs:
                time = sine_time_encoding(pointer_time, self.config.d_model).to(self.dtype)
                time = self.obj_ptr_tpos_proj(time)
            else:
                time = sine_time_encoding(pointer_time, mem_dim).to(self.dtype)
        else:
            time = tokens.new_zeros(len(tokens), pointers.shape[1], mem_dim)
        encoding = torch.cat((encoding, time.repeat_interleave(pieces, dim=1)), dim=1)
        return torch.cat((tokens, pointer_tokens.to(self.dtype)), dim=1), encoding, pointer_tokens.shape[1]

    @in_own_precision
    def attend_to_frame(self, vision: Tensor) -> Tensor:
        """Tokens (B, h·w, C) of features (B, C, h, w) after what memory attention does before it reads memories."""
        height, width = vision.shape[-2:]
        frame_pe = sine_position_encoding(self.config.d_model, height, width, self.device, self.dtype)
        tokens, encoding = (x.flatten(2).transpose(1, 2) for x in (vision, frame_pe))
        return self.memory_attention.attend_to_frame(tokens, encoding)

    @in_own_precision
    def condition_on_memory(
        self,
        attended: Tensor,
        memory: Tensor,
        memory_pe: Tensor,
        num_pointer_tokens: int,
        kept: Tensor | None = None,
        received: Tensor | None = None,
        key_scales: Tensor | None = None,
    ) -> Tensor:
        """Features (N, C, h, w) of frames (1 or N, h·w, C), see `attend_to_frame`, after reading the memories of N
        objects, see `assemble_memory`; `received`, `key_scales`: see `MemoryAttention.forward`."""
        dim, theta, side = self.config.d_model, self.config.rope_theta, self.embedding_size
        rotations = self.spatial_perceiver.rotations(dim, theta, self.device)
        if kept is not None:
            rotations = rope_rotations(dim, side, side, theta, self.device)[kept % side**2]
        scales = None if key_scales is None else key_scales.to(self.dtype)
        conditioned = self.memory_attention(
            attended, memory, memory_pe, num_pointer_tokens, rotations, received, scales
        )
        return conditioned.transpose(1, 2).unflatten(2, (self.embedding_size, self.embedding_size))


def non_overlapping(mask_logits: Tensor) -> Tensor:
    """Keep each pixel for the object with the highest logit; the others are pushed to -10 or below there.

    Args:
        mask_logits: (N, 1, H, W).
    """
    if len(mask_logits) < 2:
        return mask_logits
    winner = mask_logits.argmax(dim=0, keepdim=True)
    own = torch.arange(len(mask_logits), device=mask_logits.device)[:, None, None, None]
    return torch.where(winner == own, mask_logits, mask_logits.clamp(max=-10.0))
