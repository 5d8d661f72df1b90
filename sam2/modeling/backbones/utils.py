"""Windows and patches under facebookresearch/sam2's names."""

from __future__ import annotations

from torch import Tensor

from sam2.modeling.hiera import PatchEmbed, join_windows, split_windows

__all__ = ["PatchEmbed", "window_partition", "window_unpartition"]


def window_partition(x: Tensor, window_size: int) -> tuple[Tensor, tuple[int, int]]:
    """See `split_windows`."""
    return split_windows(x, window_size)


def window_unpartition(windows: Tensor, window_size: int, pad_hw: tuple[int, int], hw: tuple[int, int]) -> Tensor:
    """See `join_windows`."""
    return join_windows(windows, window_size, pad_hw, hw)
