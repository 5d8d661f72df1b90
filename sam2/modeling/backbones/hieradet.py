"""Hiera under facebookresearch/sam2's name and arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sam2.modeling import hiera
from sam2.modeling.hiera import MultiScaleAttention, MultiScaleBlock, PatchEmbed
from sam2.modeling.memory_attention import check_wiring

__all__ = ["Hiera", "MultiScaleAttention", "MultiScaleBlock", "PatchEmbed"]

_FIXED = {"q_pool": 3, "q_stride": (2, 2), "dim_mul": 2.0, "head_mul": 2.0, "weights_path": None}


class Hiera(hiera.Hiera):
    """`sam2.modeling.hiera.Hiera` with upstream's defaults.

    Args:
        drop_path_rate: accepted for compatibility; no path is dropped, in training either.
        return_interm_layers: accepted for compatibility; all four levels are returned.
        wiring: upstream's other arguments, which have one value in all SAM 2 models.

    Raises:
        ValueError: another wiring.
    """

    def __init__(
        self,
        embed_dim: int = 96,
        num_heads: int = 1,
        drop_path_rate: float = 0.0,
        stages: Sequence[int] = (2, 3, 16, 3),
        window_pos_embed_bkg_spatial_size: Sequence[int] = (14, 14),
        window_spec: Sequence[int] = (8, 4, 14, 7),
        global_att_blocks: Sequence[int] = (12, 16, 20),
        return_interm_layers: bool = True,
        **wiring: Any,
    ) -> None:
        wiring = {key: tuple(value) if key == "q_stride" else value for key, value in wiring.items()}
        check_wiring("Hiera", wiring, _FIXED)
        height, width = window_pos_embed_bkg_spatial_size
        super().__init__(
            embed_dim, num_heads, tuple(stages), tuple(global_att_blocks), tuple(window_spec), (height, width)
        )

    @property
    def channel_list(self) -> list[int]:
        """Channels of the levels, coarsest first."""
        return list(reversed(self.level_channels))

    def get_num_layers(self) -> int:
        """How many blocks there are."""
        return len(self.blocks)

    def get_layer_id(self, layer_name: str) -> int:
        """Depth of a parameter of the trunk, 0 for what comes before the blocks, for learning rates by depth."""
        name = layer_name.partition("trunk.")[2] or layer_name
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return 0 if name.startswith(("pos_embed", "patch_embed")) else len(self.blocks) + 1
