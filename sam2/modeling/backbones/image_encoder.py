"""Image encoder and neck under facebookresearch/sam2's names and arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from sam2.modeling import image_encoder
from sam2.modeling.memory_attention import check_wiring

__all__ = ["FpnNeck", "ImageEncoder"]

_NECK_FIXED = {"kernel_size": 1, "stride": 1, "padding": 0, "fpn_interp_model": "nearest", "fuse_type": "sum"}


class FpnNeck(image_encoder.FpnNeck):
    """`sam2.modeling.image_encoder.FpnNeck` by upstream's arguments; gives positions beside the levels.

    Args:
        position_encoding: of a level, (B, d_model, H, W) → the same shape.
        backbone_channel_list: channels of the trunk's levels, coarsest first.
        fpn_top_down_levels: to which the coarser level is added; None is all.
        wiring: upstream's other arguments, which have one value in all SAM 2 models.

    Raises:
        ValueError: another wiring.
    """

    def __init__(
        self,
        position_encoding: nn.Module,
        d_model: int,
        backbone_channel_list: Sequence[int],
        fpn_top_down_levels: Sequence[int] | None = None,
        **wiring: Any,
    ) -> None:
        check_wiring("FpnNeck", wiring, _NECK_FIXED)
        levels = range(len(backbone_channel_list)) if fpn_top_down_levels is None else fpn_top_down_levels
        super().__init__(d_model, tuple(reversed(list(backbone_channel_list))), tuple(levels))
        self.position_encoding = position_encoding
        self.backbone_channel_list = list(backbone_channel_list)
        self.d_model = d_model

    def forward(self, xs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:  # type: ignore[override]
        """Trunk levels → pyramid levels (B, d_model, H, W), finest first, and where their cells are."""
        pyramid = super().forward(xs)
        return pyramid, [self.position_encoding(level).to(level.dtype) for level in pyramid]


class ImageEncoder(nn.Module):
    """A trunk and a neck that are given, of SAM 2 or not.

    Args:
        trunk: (B, 3, S, S) → levels, finest first.
        neck: levels → pyramid and positions, see `FpnNeck`.
        scalp: coarsest levels that only feed the others.
    """

    def __init__(self, trunk: nn.Module, neck: nn.Module, scalp: int = 0) -> None:
        super().__init__()
        self.trunk = trunk
        self.neck = neck
        self.scalp = scalp

    def forward(self, sample: Tensor) -> dict[str, Any]:
        """See `sam2.modeling.image_encoder.ImageEncoder.forward`."""
        pyramid, where = self.neck(self.trunk(sample))
        kept = slice(len(pyramid) - self.scalp)
        return {"vision_features": pyramid[kept][-1], "vision_pos_enc": where[kept], "backbone_fpn": pyramid[kept]}
