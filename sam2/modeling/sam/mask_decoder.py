"""The mask decoder under facebookresearch/sam2's name and arguments."""

from __future__ import annotations

from typing import Any

from torch import nn

from sam2.config import config_of_settings
from sam2.modeling import mask_decoder
from sam2.modeling.mask_decoder import DecodedMasks
from sam2.modeling.memory_attention import check_wiring

__all__ = ["DecodedMasks", "MaskDecoder"]

_FIXED = {"num_multimask_outputs": 3, "iou_head_depth": 3, "iou_head_hidden_dim": 256}


class MaskDecoder(mask_decoder.MaskDecoder):
    """`sam2.modeling.mask_decoder.MaskDecoder` by upstream's arguments.

    Args:
        transformer_dim: channels of the image embedding.
        transformer: see `TwoWayTransformer`.
        use_high_res_features: the decoder reads features at strides 4 and 8 as well.
        arguments: upstream's others.

    Raises:
        ValueError: an argument that upstream does not have, or that has another value in all SAM 2 models.
    """

    def __init__(
        self,
        *,
        transformer_dim: int,
        transformer: nn.Module,
        use_high_res_features: bool = False,
        **arguments: Any,
    ) -> None:
        fixed = {key: arguments.pop(key) for key in _FIXED if key in arguments}
        check_wiring("MaskDecoder", fixed, _FIXED)
        settings = {"d_model": transformer_dim, "use_high_res_features_in_sam": use_high_res_features, **arguments}
        super().__init__(config_of_settings(settings, "MaskDecoder", is_upstream=True))
        self.transformer = transformer  # type: ignore[assignment]  # any that is called as ours is
