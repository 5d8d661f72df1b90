"""Image encoder: a trunk and the feature pyramid that brings its levels to one width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from sam2.config import SAM2Config
from sam2.keyed import Keyed
from sam2.modeling.hiera import Hiera
from sam2.modeling.position_encoding import positions
from sam2.modeling.repvit import RepViT


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

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Trunk levels → pyramid levels (B, d_model, H, W), both finest first."""
        pyramid: list[Tensor] = []
        coarser = None
        for i in reversed(range(len(levels))):
            level = self.convs[len(levels) - 1 - i](levels[i])
            if coarser is not None and i in self.top_down_levels:
                level = level + F.interpolate(coarser.float(), scale_factor=2.0, mode="nearest").to(level.dtype)
            coarser = level
            pyramid.insert(0, level)
        return pyramid


class ImageEncoder(nn.Module):
    """Image → pyramid at strides 4, 8 and 16 (the coarsest `scalp` levels only feed the others)."""

    def __init__(self, config: SAM2Config) -> None:
        super().__init__()
        self.scalp = config.scalp
        self.trunk = build_trunk(config)
        self.neck = FpnNeck(config.d_model, self.trunk.level_channels, config.fpn_top_down_levels)

    def forward(self, images: Tensor) -> Pyramid:
        """Encode (B, 3, S, S) normalised images."""
        levels = self.neck(self.trunk(images))
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


def build_trunk(config: SAM2Config) -> Hiera | RepViT:
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
    raise ValueError(f"expected the backbone 'hiera' or 'repvit', got {config.backbone!r}")
