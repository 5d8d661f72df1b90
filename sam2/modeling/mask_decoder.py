"""Mask decoder: image embedding and prompt embeddings → masks, their quality and the object's presence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2.config import SAM2Config
from sam2.modeling.attention import Attention
from sam2.modeling.layers import MLP, LayerNorm2d, is_plain_inference


class TwoWayAttentionBlock(nn.Module):
    """Tokens attend to themselves, then to the image; the image attends back to the tokens."""

    def __init__(self, dim: int, num_heads: int, mlp_dim: int, first: bool) -> None:
        super().__init__()
        self.first = first  # the first block's tokens are still their own position encoding
        self.self_attn = Attention(dim, num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, num_heads, downsample_rate=2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, mlp_dim, dim, num_layers=2)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, num_heads, downsample_rate=2)

    def forward(self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor) -> tuple[Tensor, Tensor]:
        if self.first:
            tokens = self.norm1(self.self_attn(tokens, tokens, tokens))
        else:
            q = tokens + token_pe
            tokens = self.norm1(tokens + self.self_attn(q, q, tokens))
        image_keys = image + image_pe
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pe, image_keys, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(image_keys, tokens + token_pe, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """Two blocks and a last look of the tokens at the image."""

    def __init__(self, dim: int, mlp_dim: int, num_heads: int = 8, depth: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayAttentionBlock(dim, num_heads, mlp_dim, first=i == 0) for i in range(depth))
        self.final_attn_token_to_image = Attention(dim, num_heads, downsample_rate=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, image: Tensor, image_pe: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Image (B, C, h, w), its encoding (1, C, h, w), tokens (B, T, C) → tokens (B, T, C), image (B, h·w, C)."""
        image = image.flatten(2).transpose(1, 2)
        image_pe = image_pe.flatten(2).transpose(1, 2)
        token_pe = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe)
        attended = self.final_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        return self.norm_final_attn(tokens + attended), image


class DecodedMasks(NamedTuple):
    """What the decoder says of B prompts, with M mask candidates each (M = 1 or 3)."""

    mask_logits: Tensor  # (B, M, 4h, 4w)
    ious: Tensor  # (B, M) predicted quality
    tokens: Tensor  # (B, M or 1, C) what object pointers are made from
    object_score_logits: Tensor  # (B, 1), above 0: the object is in the frame


class MaskDecoder(nn.Module):
    """Four mask candidates: number 0 for unambiguous prompts, 1 to 3 for whole, part and sub-part."""

    num_mask_tokens = 4
    num_multimask_outputs = 3

    def __init__(self, config: SAM2Config) -> None:
        super().__init__()
        dim = config.d_model
        self.config = config
        self.transformer = TwoWayTransformer(dim, config.decoder_mlp_dim)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(self.num_mask_tokens, dim)
        if config.pred_obj_scores:
            self.obj_score_token = nn.Embedding(1, dim)
            self.pred_obj_score_head = MLP(dim, dim, 1, 3) if config.pred_obj_scores_mlp else nn.Linear(dim, 1)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        if config.use_high_res_features_in_sam:
            self.conv_s0 = nn.Conv2d(dim, dim // 8, kernel_size=1)
            self.conv_s1 = nn.Conv2d(dim, dim // 4, kernel_size=1)
        if config.prompt_map:
            self.prompt_skip = nn.Conv2d(dim, 16 * (dim // 8), kernel_size=1)  # of each cell's 2×2 times 2×2 pixels
            for parameter in self.prompt_skip.parameters():
                nn.init.zeros_(parameter)  # see `PromptMap`
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim // 8, 3) for _ in range(self.num_mask_tokens))
        self.iou_prediction_head = MLP(
            dim, 256, self.num_mask_tokens, 3, sigmoid_output=config.iou_prediction_use_sigmoid
        )

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
        repeat_image: bool = True,
        high_res_features: Sequence[Tensor] | None = None,
    ) -> DecodedMasks:
        """Decode B prompts on one image or on B images; arguments and values are those of facebookresearch/sam2.

        Args:
            image_embeddings: (1 or B, C, h, w).
            image_pe: (1, C, h, w) position encoding of an image embedding.
            sparse_prompt_embeddings: (B, T, C) of points and boxes.
            dense_prompt_embeddings: (B, C, h, w) of masks, and of prompts drawn as maps.
            multimask_output: the three candidates of an ambiguous prompt instead of the single mask.
            repeat_image: accepted for compatibility; one image serves all prompts whatever it says.
            high_res_features: at strides 4 and 8, (1 or B, C/8, 4h, 4w) and (1 or B, C/4, 2h, 2w); none if unused.
        """
        masks, ious, mask_tokens, object_score_logits = self.predict_all(
            image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings, high_res_features
        )
        if multimask_output:
            tokens = mask_tokens[:, 1:] if self.config.use_multimask_token_for_obj_ptr else mask_tokens[:, :1]
            return DecodedMasks(masks[:, 1:], ious[:, 1:], tokens, object_score_logits)
        if self.config.dynamic_multimask_via_stability and not self.training:
            masks, ious = self.replace_unstable(masks, ious)
        return DecodedMasks(masks[:, :1], ious[:, :1], mask_tokens[:, :1], object_score_logits)

    def predict_all(
        self, image: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor, high_res: Sequence[Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All four candidates: masks (B, 4, 4h, 4w), qualities (B, 4), tokens (B, 4, C), presence (B, 1)."""
        batch, _, height, width = dense.shape
        own_tokens = [self.iou_token.weight, self.mask_tokens.weight]
        if self.config.pred_obj_scores:
            own_tokens.insert(0, self.obj_score_token.weight)
        output_tokens = torch.cat(own_tokens).unsqueeze(0).expand(batch, -1, -1)
        tokens, image = self.transformer(image + dense, image_pe, torch.cat((output_tokens, sparse), dim=1))
        first = 1 if self.config.pred_obj_scores else 0
        iou_token = tokens[:, first]
        mask_tokens = tokens[:, first + 1 : first + 1 + self.num_mask_tokens]

        filters = torch.stack([mlp(mask_tokens[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        skipped = self.prompt_skip(dense) if self.config.prompt_map else None
        if is_plain_inference(image):
            masks = self._masks_in_blocks(image.unflatten(1, (height, width)), filters, high_res, skipped)
        else:
            upscaled = self._upscale(image.transpose(1, 2).unflatten(2, (height, width)), high_res, skipped)
            masks = (filters @ upscaled.flatten(2)).unflatten(2, upscaled.shape[-2:])
        if self.config.pred_obj_scores:
            object_score_logits = self.pred_obj_score_head(tokens[:, 0])
        else:
            object_score_logits = masks.new_full((batch, 1), 10.0)
        return masks, self.iou_prediction_head(iou_token), mask_tokens, object_score_logits

    def _upscale(self, image: Tensor, high_res: Sequence[Tensor] | None, skipped: Tensor | None) -> Tensor:
        """(B, C, h, w) → (B, C/8, 4h, 4w); what `prompt_skip` makes of the dense embedding is added at the end."""
        deconv1, norm, act1, deconv2, act2 = self.output_upscaling
        upscaled = deconv1(image)
        if high_res:
            upscaled = upscaled + high_res[1]
        upscaled = deconv2(act1(norm(upscaled)))
        if high_res:
            upscaled = upscaled + high_res[0]
        if skipped is not None:
            pixels = skipped.unflatten(1, (2, 2, 2, 2, -1)).permute(0, 5, 6, 1, 3, 7, 2, 4)
            upscaled = upscaled + pixels.reshape(upscaled.shape)
        return act2(upscaled)

    def _masks_in_blocks(
        self, image: Tensor, filters: Tensor, high_res: Sequence[Tensor] | None, skipped: Tensor | None
    ) -> Tensor:
        """The products of `filters` (B, M, C/8) and the upscaled `image` (B, h, w, C): (B, M, 4h, 4w); see `_upscale`.

        A cell's 2×2 and then 4×4 pixels stay together, channels last, until they are pixels of a mask: so the strided
        convolutions are matrix products, and nothing is copied from one layout to another.
        """
        deconv1, norm, act1, deconv2, act2 = cast(Any, self.output_upscaling)
        batch, height, width, _ = image.shape
        x = _deconv_in_blocks(deconv1, image.flatten(0, 2)).view(batch, height, width, 2, 2, deconv1.out_channels)
        if high_res:
            fine = high_res[1].unflatten(3, (width, 2)).unflatten(2, (height, 2))
            x += fine.permute(0, 2, 4, 3, 5, 1).contiguous()  # (1 or B, h, w, 2, 2, C/4)
        x = act1(F.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, norm.eps))
        x = _deconv_in_blocks(deconv2, x.flatten(0, 4))
        x = x.view(batch, height, width, 2, 2, 2, 2, deconv2.out_channels)
        if high_res:
            fine = high_res[0].unflatten(3, (width, 2, 2)).unflatten(2, (height, 2, 2))
            x += fine.permute(0, 2, 5, 3, 6, 4, 7, 1).contiguous()  # (1 or B, h, w, 2, 2, 2, 2, C/8)
        if skipped is not None:
            x += skipped.permute(0, 2, 3, 1).reshape(x.shape)
        masks = filters @ act2(x).flatten(1, 6).transpose(1, 2)  # (B, M, 16·h·w)
        masks = masks.view(batch, filters.shape[1], height, width, 2, 2, 2, 2).permute(0, 1, 2, 4, 6, 3, 5, 7)
        return masks.reshape(batch, filters.shape[1], 4 * height, 4 * width)

    def predict_masks(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        repeat_image: bool = True,
        high_res_features: Sequence[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`predict_all` with the arguments of `forward`."""
        return self.predict_all(
            image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings, high_res_features
        )

    def replace_unstable(self, masks: Tensor, ious: Tensor) -> tuple[Tensor, Tensor]:
        """Where the single mask changes much with the threshold, take the best of the other three instead.

        Args:
            masks: (B, 4, H, W) logits.
            ious: (B, 4).

        Returns:
            (B, 1, H, W) and (B, 1).
        """
        best = ious[:, 1:].argmax(dim=1) + 1
        rows = torch.arange(len(masks), device=masks.device)
        delta = self.config.dynamic_multimask_stability_delta
        single = masks[:, 0].flatten(1)
        inner, outer = (single > delta).sum(1).float(), (single > -delta).sum(1).float()
        stability = torch.where(outer > 0, inner / outer, 1.0)
        chosen = torch.where(stability >= self.config.dynamic_multimask_stability_thresh, 0, best)
        return masks[rows, chosen].unsqueeze(1), ious[rows, chosen].unsqueeze(1)


def _deconv_in_blocks(deconv: nn.ConvTranspose2d, cells: Tensor) -> Tensor:
    """A transposed convolution of kernel and stride 2 on single cells: (N, C) → (N, 4 · C'), row by row of the 2×2."""
    weight = deconv.weight.permute(2, 3, 1, 0).flatten(0, 2)
    bias = None if deconv.bias is None else deconv.bias.repeat(4)
    return F.linear(cells, weight, bias)
