"""Memory encoder: a frame's features and one object's mask → the memory of that object on that frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from sam2.modeling.layers import LayerNorm2d
from sam2.modeling.position_encoding import sine_position_encoding


class MaskDownSampler(nn.Module):
    """Strided convolutions, each multiplying the channels from 1 by stride², and a projection.

    SAM 2's has four of stride 2; the arguments, and what they are when left out, are facebookresearch/sam2's.
    """

    def __init__(
        self, embed_dim: int = 256, kernel_size: int = 4, stride: int = 4, padding: int = 0, total_stride: int = 16
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for _ in range(round(math.log(total_stride, stride))):
            wider = stride**2 * channels
            layers += [nn.Conv2d(channels, wider, kernel_size, stride, padding), LayerNorm2d(wider), nn.GELU()]
            channels = wider
        self.encoder = nn.Sequential(*layers, nn.Conv2d(channels, embed_dim, kernel_size=1))

    def forward(self, masks: Tensor) -> Tensor:
        return self.encoder(masks)


class CXBlock(nn.Module):
    """A ConvNeXt block (Liu et al., 2022): depthwise 7×7, then an MLP per cell, scaled per channel.

    The arguments are facebookresearch/sam2's; `drop_path` is accepted for compatibility and does nothing.
    """

    def __init__(
        self,
        dim: int,
        kernel_size: int = 7,
        padding: int = 3,
        drop_path: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        use_dwconv: bool = True,
    ) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size, padding=padding, groups=dim if use_dwconv else 1)
        self.norm = LayerNorm2d(dim)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), layer_scale_init_value))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        y = self.gamma * self.pwconv2(self.act(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class Fuser(nn.Module):
    """`num_layers` blocks after another, `layer` and copies of it."""

    def __init__(self, layer: nn.Module, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([layer, *(deepcopy(layer) for _ in range(num_layers - 1))])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class MemoryEncoder(nn.Module):
    """Adds the downsampled mask to the frame's features and compresses the sum to `out_dim` channels.

    Args:
        out_dim: channels of a memory.
        mask_downsampler: masks (N, 1, 16h, 16w) → (N, `in_dim`, h, w).
        fuser: (N, `in_dim`, h, w) → the same shape.
        position_encoding: accepted for compatibility; the model knows where the cells of its memories are.
        in_dim: channels of the frame's features.
    """

    def __init__(
        self,
        out_dim: int,
        mask_downsampler: nn.Module,
        fuser: nn.Module,
        position_encoding: nn.Module | None = None,
        in_dim: int = 256,
    ) -> None:
        super().__init__()
        self.mask_downsampler = mask_downsampler
        self.pix_feat_proj = nn.Conv2d(in_dim, in_dim, kernel_size=1)
        self.fuser = fuser
        self.out_proj = nn.Conv2d(in_dim, out_dim, kernel_size=1) if out_dim != in_dim else nn.Identity()

    def forward(self, pix_feat: Tensor, masks: Tensor, skip_mask_sigmoid: bool = False) -> dict[str, Any]:
        """Encode N masks on a frame; arguments and values are those of facebookresearch/sam2.

        Args:
            pix_feat: (1 or N, C, h, w) features of the frame.
            masks: (N, 1, 16h, 16w).
            skip_mask_sigmoid: the masks are scaled already, not logits.

        Returns:
            vision_features: (N, out_dim, h, w).
            vision_pos_enc: a list of one (1, out_dim, h, w), where the cells are.
        """
        masks = self.mask_downsampler(masks if skip_mask_sigmoid else masks.sigmoid())
        memory = self.out_proj(self.fuser(self.pix_feat_proj(pix_feat) + masks))
        where = sine_position_encoding(*memory.shape[1:], memory.device, memory.dtype)
        return {"vision_features": memory, "vision_pos_enc": [where]}


def build_memory_encoder(dim: int, mem_dim: int) -> MemoryEncoder:
    """SAM 2's encoder of memories of `mem_dim` channels from features of `dim` channels."""
    fuser = Fuser(CXBlock(dim), num_layers=1)
    fuser.layers.append(CXBlock(dim))
    downsampler = MaskDownSampler(dim, kernel_size=3, stride=2, padding=1)
    return MemoryEncoder(mem_dim, downsampler, fuser, in_dim=dim)


class WholeMemory(nn.Module):
    """What every memory compressor offers, by the one that compresses nothing: each cell becomes a token.

    A compressor turns memories (N, mem_dim, h, w) into fewer cells or tokens, (N, mem_dim, ...), and places them.
    """

    def forward(self, memory: Tensor) -> Tensor:
        """(N, mem_dim, h, w) → (N, mem_dim, ...), as memories are stored."""
        return memory

    def position_encoding(self, shape: Sequence[int], device: torch.device, dtype: torch.dtype) -> Tensor:
        """Where the L tokens of one stored memory of shape (mem_dim, ...) are: (1, L, mem_dim)."""
        mem_dim, height, width = shape
        return sine_position_encoding(mem_dim, height, width, device, dtype).flatten(2).transpose(1, 2)

    def rotations(self, channels: int, theta: float, device: torch.device) -> Tensor | None:
        """How memory attention turns the L tokens, (L, channels / 2) complex, see `rope_rotations`; 1 leaves a token as
        it is. None: the tokens are the cells of the frame."""
        return None
