"""What the backbones ask of their input."""

from __future__ import annotations

from torch import Tensor


def check_images(images: Tensor) -> None:
    """Raise ValueError unless `images` is (B, 3, H, W) with at least one pixel."""
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise ValueError(f"Expected images of shape (B, 3, H, W) with H and W at least 1, got {tuple(images.shape)}.")
