"""EfficientNet-Lite0, the convolutional trunk of the bundled nano pair: EfficientNet (Tan and Le, 2019) without
squeeze and excitation and with ReLU6, as its authors published it for small devices.

Batch normalisation is part of the convolutions here: training starts from published weights and keeps its statistics.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, channels_last, nn

STEM_CHANNELS = 32
# each level of the pyramid: groups of blocks as (how often wider inside, channels, blocks, stride, kernel size)
LEVELS = (
    ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3)),
    ((6, 40, 2, 2, 5),),
    ((6, 80, 3, 2, 3), (6, 112, 3, 1, 5)),
    ((6, 192, 4, 2, 5), (6, 320, 1, 1, 3)),
)


class InvertedBottleneck(nn.Module):
    """Widen, convolve each channel, narrow; added to its input where that has the same shape (Sandler et al., 2018)."""

    def __init__(self, channels_in: int, channels: int, expansion: int, stride: int, kernel_size: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        self.widen = nn.Conv2d(channels_in, wide, kernel_size=1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(wide, wide, kernel_size, stride, padding=kernel_size // 2, groups=wide)
        self.narrow = nn.Conv2d(wide, channels, kernel_size=1)
        self.is_residual = stride == 1 and channels_in == channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', H / stride, W / stride)."""
        wide = x if self.widen is None else F.relu6(self.widen(x), inplace=True)
        out = self.narrow(F.relu6(self.depthwise(wide), inplace=True))
        return x + out if self.is_residual else out


class EfficientNetLite(nn.Module):
    """The trunk: maps at strides 4, 8, 16 and 32, of sides that are rounded up.

    Args:
        out_indices: which of them are returned, 0-based and ascending.

    Attributes:
        num_channels: channels of each returned map.

    Raises:
        ValueError: `out_indices` are not ascending levels; from `forward`, images of another shape.
    """

    level_channels = tuple(groups[-1][1] for groups in LEVELS)  # finest level first

    def __init__(self, out_indices: Sequence[int] = (0, 1, 2, 3)) -> None:
        super().__init__()
        if not out_indices or list(out_indices) != sorted(set(out_indices) & set(range(len(LEVELS)))):
            raise ValueError(f"expected ascending out_indices from 0 to {len(LEVELS) - 1}, got {tuple(out_indices)}")
        self.out_indices = tuple(out_indices)
        self.num_channels = tuple(self.level_channels[index] for index in out_indices)
        self.stem = nn.Conv2d(3, STEM_CHANNELS, kernel_size=3, stride=2, padding=1)
        self.levels = nn.ModuleList()
        channels_in = STEM_CHANNELS
        for groups in LEVELS:
            blocks = nn.Sequential()
            for expansion, channels, num_blocks, stride, kernel_size in groups:
                for step in (stride, *[1] * (num_blocks - 1)):
                    blocks.append(InvertedBottleneck(channels_in, channels, expansion, step, kernel_size))
                    channels_in = channels
            self.levels.append(blocks)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised → one (B, C, h, w) for each of `out_indices`, finest first."""
        if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
            raise ValueError(f"expected images (B, 3, H, W), got {tuple(images.shape)}")
        x = F.relu6(self.stem(images.contiguous(memory_format=channels_last)), inplace=True)
        maps = []
        for level, blocks in enumerate(self.levels):
            x = blocks(x)
            if level in self.out_indices:
                maps.append(x)
        return maps
