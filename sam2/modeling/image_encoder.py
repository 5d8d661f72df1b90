"""Image encoder: a trunk and the feature pyramid that brings its levels to one width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch.nn.functional as F
from torch import Tensor, nn

from sam2.config import SAM2Config
from sam2.keyed import Keyed
from sam2.modeling.hiera import Hiera
from sam2.modeling.layers import is_plain_inference
from sam2.modeling.position_encoding import positions
from sam2.modeling.repvit import RepViT
from trunks.efficientnet_lite import EfficientNetLite


class FpnNeck(nn.Module):
    """1×1 convolutions to `d_model` channels; at some levels the coarser level is added (Lin et al., 2017)."""

    def __init__(self, d_model: int, backbone_channels: tuple[int, ...], top_down_levels: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList()  # coarsest level first
        for channels in reversed(backbone_channels):
            lateral = nn.Sequential()
            lateral.add_module("conv", nn.Conv2d(channels, d_model, kernel_size=1))
            self.convs.append(lateral)
        self.top_down_levels = top_down_levels

    def forward(self, levels: list[Tensor], heads: Sequence[nn.Conv2d] = ()) -> list[Tensor]:
        """Trunk levels → pyramid levels (B, d_model, H, W), both finest first.

        Args:
            levels: see above.
            heads: 1×1 convolutions, of which the first is applied to the finest level of the pyramid, and so on. Where
                no other level has a part in it, it is one convolution with the lateral one, and the wide level between
                them is never made.
        """
        pyramid: list[Tensor] = []
        coarser = None
        for i in reversed(range(len(levels))):
            lateral = cast(nn.Conv2d, self.convs[len(levels) - 1 - i].conv)
            if i < len(heads) and not {i - 1, i} & {*self.top_down_levels}:
                level = pointwise(levels[i], *joined(lateral, heads[i]))
            else:
                level = pointwise(levels[i], lateral.weight, lateral.bias)
                if coarser is not None and i in self.top_down_levels:
                    level = level + F.interpolate(coarser.float(), scale_factor=2.0, mode="nearest").to(level.dtype)
                coarser = level
                level = heads[i](level) if i < len(heads) else level
            pyramid.insert(0, level)
        return pyramid


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1×1 convolution of (B, C, H, W); of a map whose channels lie together a matrix product, and so the result."""
    if x.is_contiguous() or not is_plain_inference(x):
        return F.conv2d(x, weight, bias)
    return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


def joined(first: nn.Conv2d, second: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the 1×1 convolution that does what two do one after another."""
    assert first.bias is not None and second.bias is not None
    weight = second.weight.flatten(1) @ first.weight.flatten(1)
    bias = second.weight.flatten(1) @ first.bias + second.bias
    return weight[:, :, None, None], bias


class ImageEncoder(nn.Module):
    """Image → pyramid at strides 4, 8 and 16 (the coarsest `scalp` levels only feed the others)."""

    def __init__(self, config: SAM2Config) -> None:
        super().__init__()
        self.scalp = config.scalp
        self.trunk = build_trunk(config)
        self.neck = FpnNeck(config.d_model, self.trunk.level_channels, config.fpn_top_down_levels)

    def forward(self, images: Tensor, heads: Sequence[nn.Conv2d] = ()) -> Pyramid:
        """Encode (B, 3, S, S) normalised images; `heads`: see `FpnNeck.forward`."""
        levels = self.neck(self.trunk(images), heads) if heads else self.neck(self.trunk(images))
        return Pyramid(levels[: len(levels) - self.scalp])


class Pyramid(Keyed):
    """What an image encoder returns, under facebookresearch/sam2's keys.

    "backbone_fpn": list of levels (B, d_model, H, W), finest first; "vision_features": the last of them;
    "vision_pos_enc": list of as many, where their cells are, made when it is asked for.
    """

    keys_of_attributes: ClassVar[Mapping[str, str]] = {"backbone_fpn": "levels"}
    keys_computed: ClassVar[Mapping[str, Any]] = {
        "vision_features": lambda self: self.levels[-1],
        "vision_pos_enc": lambda self: [positions(level) for level in self.levels],
    }

    def __init__(self, levels: list[Tensor]) -> None:
        self.levels = levels
        self.extra = {}


def build_trunk(config: SAM2Config) -> Hiera | RepViT | EfficientNetLite:
    """The backbone that `config.backbone` names.

    It turns (B, 3, S, S) images into maps (B, C, S / stride, S / stride) at strides 4, 8, 16 and 32, finest first, and
    says in `level_channels` how many channels they have.

    Raises:
        ValueError: there is none of that name.
    """
    match config.backbone:
        case "hiera":
            return Hiera(
                config.embed_dim,
                config.num_heads,
                config.stages,
                config.global_att_blocks,
                config.window_spec,
                config.window_pos_embed_bkg_spatial_size,
            )
        case "repvit":
            return RepViT(config.embed_dim, config.stages)
        case "efficientnet_lite":
            return EfficientNetLite()
    raise ValueError(f"expected the backbone 'hiera', 'repvit' or 'efficientnet_lite', got {config.backbone!r}")
