"""Attention of the mask decoder and the memory under facebookresearch/sam2's names and arguments."""

from __future__ import annotations

from typing import Any

from sam2.modeling import attention, mask_decoder
from sam2.modeling.mask_decoder import TwoWayAttentionBlock
from sam2.modeling.memory_attention import check_wiring

__all__ = ["Attention", "RoPEAttention", "TwoWayAttentionBlock", "TwoWayTransformer"]


class Attention(attention.Attention):
    """`sam2.modeling.attention.Attention` by upstream's arguments; `dropout` is accepted and does nothing."""

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int,
        downsample_rate: int = 1,
        dropout: float = 0.0,
        kv_in_dim: int | None = None,
    ) -> None:
        super().__init__(embedding_dim, num_heads, downsample_rate, kv_in_dim)


class RoPEAttention(attention.RoPEAttention):
    """`sam2.modeling.attention.RoPEAttention` by upstream's arguments.

    Args:
        embedding_dim: channels of the queries.
        dropout, rope_k_repeat, feat_sizes: accepted for compatibility: nothing is dropped, keys are turned as often as
            they need, and sizes follow from the input.

    Raises:
        ValueError: several heads, or an inner width of its own.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int = 1,
        downsample_rate: int = 1,
        dropout: float = 0.0,
        kv_in_dim: int | None = None,
        rope_theta: float = 10000.0,
        rope_k_repeat: bool = False,
        feat_sizes: Any = (64, 64),
    ) -> None:
        given = {"num_heads": num_heads, "downsample_rate": downsample_rate}
        check_wiring("RoPEAttention", given, {"num_heads": 1, "downsample_rate": 1})
        super().__init__(embedding_dim, rope_theta, kv_in_dim)


class TwoWayTransformer(mask_decoder.TwoWayTransformer):
    """`sam2.modeling.mask_decoder.TwoWayTransformer` by upstream's arguments.

    Raises:
        ValueError: an argument that has another value in all SAM 2 models.
    """

    def __init__(self, depth: int, embedding_dim: int, num_heads: int, mlp_dim: int, **wiring: Any) -> None:
        check_wiring("TwoWayTransformer", wiring, {"attention_downsample_rate": 2})
        super().__init__(embedding_dim, mlp_dim, num_heads, depth)
