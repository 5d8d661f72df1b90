"""Hiera, the hierarchical vision transformer SAM 2 encodes images with (Ryali et al., 2023; Bolya et al., 2023)."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2.modeling.layers import MLP, is_plain_inference

TOKENS_AT_ONCE = 2048  # of whole windows that go through a block together on a CPU: all they become stays in the caches


def split_windows(x: Tensor, window: int) -> tuple[Tensor, tuple[int, int]]:
    """Cut (B, H, W, C) into square windows, padding right and bottom with zeros where they do not fit.

    Returns:
        (B · windows, window, window, C) and the padded height and width.
    """
    batch, height, width, channels = x.shape
    pad_h, pad_w = -height % window, -width % window
    if pad_h or pad_w:
        x = F.pad(x, (0, 0, 0, pad_w, 0, pad_h))
    padded_h, padded_w = height + pad_h, width + pad_w
    x = x.view(batch, padded_h // window, window, padded_w // window, window, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, window, window, channels), (padded_h, padded_w)


def join_windows(windows: Tensor, window: int, padded: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The inverse of `split_windows`: windows back to (B, H, W, C), without the padding."""
    padded_h, padded_w = padded
    channels = windows.shape[-1]
    x = windows.view(-1, padded_h // window, padded_w // window, window, window, channels)
    x = x.permute(0, 1, 3, 2, 4, 5).reshape(-1, padded_h, padded_w, channels)
    return x[:, : size[0], : size[1]]


def max_pool_2x2(x: Tensor) -> Tensor:
    """Halve height and width of (B, H, W, C) by the maximum of each 2×2 square."""
    return F.max_pool2d(x.permute(0, 3, 1, 2), kernel_size=2, stride=2).permute(0, 2, 3, 1)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def bicubic_weights(length: int, resized: int, device: torch.device) -> Tensor:
    """The matrix (resized, length) float32 that resizes one axis as `F.interpolate` does; cached, not to be changed."""
    unit = torch.eye(length, device=device)[None, None]  # resized along its rows alone
    return F.interpolate(unit, size=(resized, length), mode="bicubic")[0, 0]


class MultiScaleAttention(nn.Module):
    """Self-attention over a (B, H, W, C) map whose queries may be pooled to half the resolution."""

    def __init__(self, dim: int, dim_out: int, num_heads: int, pool_queries: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.pool_queries = pool_queries
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, _ = x.shape
        qkv = self.qkv(x).reshape(batch, height * width, 3, self.num_heads, -1)
        q, k, v = qkv.unbind(2)  # each (B, H·W, heads, head_dim)
        if self.pool_queries:
            q = max_pool_2x2(q.reshape(batch, height, width, -1))
            height, width = q.shape[1:3]
            q = q.reshape(batch, height * width, self.num_heads, -1)
        out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return self.proj(out.transpose(1, 2).reshape(batch, height, width, -1))


class MultiScaleBlock(nn.Module):
    """One transformer block: windowed (or, with `window` 0, global) attention and an MLP.

    The first block of a later stage widens the channels and halves the resolution; its windows are cut before
    pooling, so they come out at half the side.
    """

    def __init__(self, dim: int, dim_out: int, num_heads: int, window: int, pool_queries: bool) -> None:
        super().__init__()
        self.window = window
        self.pool_queries = pool_queries
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = MultiScaleAttention(dim, dim_out, num_heads, pool_queries)
        self.norm2 = nn.LayerNorm(dim_out, eps=1e-6)
        self.mlp = MLP(dim_out, 4 * dim_out, dim_out, num_layers=2, activation=nn.GELU)
        if dim != dim_out:
            self.proj = nn.Linear(dim, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        if self.window and is_plain_inference(x) and not (x.shape[1] % self.window or x.shape[2] % self.window):
            return self._by_windows(x)
        return self._whole(x, self.window)

    def _whole(self, x: Tensor, window: int) -> Tensor:
        shortcut = x
        x = self.norm1(x)
        if hasattr(self, "proj"):
            shortcut = self.proj(x)
            if self.pool_queries:
                shortcut = max_pool_2x2(shortcut)
        if window:
            windows, padded = split_windows(x, window)
            x = join_windows(
                self.attn(windows), *self._after_pooling(window, padded), (shortcut.shape[1], shortcut.shape[2])
            )
        else:
            x = self.attn(x)
        x = shortcut + x
        return x + self.mlp(self.norm2(x))

    def _by_windows(self, x: Tensor) -> Tensor:
        """The same, as no window knows of another: the whole block for some windows, then for the next."""
        windows, size = split_windows(x, self.window)
        side, size = self._after_pooling(self.window, size)
        out = x.new_empty(len(windows), side, side, self.attn.proj.out_features)
        at_once = max(1, TOKENS_AT_ONCE // self.window**2)
        for some, results in zip(windows.split(at_once), out.split(at_once), strict=True):
            results.copy_(self._whole(some, window=0))
        return join_windows(out, side, size, size)

    def _after_pooling(self, window: int, size: tuple[int, int]) -> tuple[int, tuple[int, int]]:
        """Side of a window, and height and width of a map, as the block gives them."""
        return (window // 2, (size[0] // 2, size[1] // 2)) if self.pool_queries else (window, size)


class PatchEmbed(nn.Module):
    """Image → (B, H/4, W/4, C) by one overlapping convolution."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=7, stride=4, padding=3)

    def forward(self, images: Tensor) -> Tensor:
        if is_plain_inference(images):
            images = images.contiguous(memory_format=torch.channels_last)
        return self.proj(images).permute(0, 2, 3, 1)


class Hiera(nn.Module):
    """The trunk: four stages at strides 4, 8, 16 and 32.

    A block's window is that of the stage before it when it opens a stage: the window is measured before the
    resolution halves.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        stages: tuple[int, ...],
        global_att_blocks: tuple[int, ...],
        window_spec: tuple[int, ...],
        window_pos_embed_bkg_spatial_size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.level_channels = tuple(embed_dim * 2**level for level in range(len(stages)))  # finest level first
        self.stage_ends = [sum(stages[: i + 1]) - 1 for i in range(len(stages))]
        self.patch_embed = PatchEmbed(embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, embed_dim, *window_pos_embed_bkg_spatial_size))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, embed_dim, window_spec[0], window_spec[0]))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.pos_embed_window, std=0.02)

        self.blocks = nn.ModuleList()
        dim, stage = embed_dim, 0
        for i in range(sum(stages)):
            opens_stage = i > 0 and i - 1 in self.stage_ends
            window = 0 if i in global_att_blocks else window_spec[stage]
            dim_out = dim
            if opens_stage:
                dim_out, num_heads, stage = 2 * dim, 2 * num_heads, stage + 1
            self.blocks.append(MultiScaleBlock(dim, dim_out, num_heads, window, pool_queries=opens_stage))
            dim = dim_out

    def position_embedding(self, height: int, width: int) -> Tensor:
        """Absolute position embedding (1, H, W, C): one for the whole map plus one repeated in every window."""
        rows = bicubic_weights(self.pos_embed.shape[2], height, self.pos_embed.device).to(self.pos_embed.dtype)
        columns = bicubic_weights(self.pos_embed.shape[3], width, self.pos_embed.device).to(self.pos_embed.dtype)
        whole = torch.einsum("hi,cij->hjc", rows, self.pos_embed[0])
        whole = columns @ whole  # (H, W, C): the channels of a cell lie together, as in the map it is added to
        side = self.pos_embed_window.shape[-1]
        window = self.pos_embed_window[0].permute(1, 2, 0)
        if height % side == 0 and width % side == 0:
            windows = whole.view(height // side, side, width // side, side, -1)
            return (windows + window[:, None]).view(1, height, width, -1)
        repeats = (-(-height // side), -(-width // side), 1)
        return (whole + window.tile(repeats)[:height, :width])[None]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, S, S) normalised → four (B, C, H, W) maps, finest first."""
        x = self.patch_embed(images)
        position = self.position_embedding(x.shape[1], x.shape[2])
        in_place = x.dtype == position.dtype and is_plain_inference(x)  # under autocast the sum is wider than `x`
        x = x.add_(position) if in_place else x + position
        levels = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.stage_ends:
                levels.append(x.permute(0, 3, 1, 2))
        return levels
