"""Swin Transformer (Liu et al., 2021): self-attention in windows, shifted by half a window in every other block.

Shifting, padding and cutting into windows are one gather of tokens here, and their undoing another; which token goes
where depends only on the size of the map and is worked out once per size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grounding_dino.groundingdino.models.checks import check_images

PATCH_SIZE = 4


def tokens_at_a_time(device: torch.device) -> int:
    """How many tokens go through a layer together: on a CPU as many as its cache holds, elsewhere (nearly) all."""
    return 2**13 if device.type == "cpu" else 2**18


class WindowGroup(NamedTuple):
    """Windows whose cells may see each other alike.

    Attributes:
        edge: which of `edge_masks` they take.
        source: (windows · cells,) int32, the token in each cell; 0 for padding.
        padding: int64, the cells that hold no token.
    """

    edge: int
    source: Tensor
    padding: Tensor


class WindowLayout(NamedTuple):
    """Where the tokens of a (B, H, W) batch of maps go when they are cut into windows.

    Attributes:
        groups: all windows of all maps.
        cell: (B · H · W,) int32, the cell that holds each token, counted through all groups.
    """

    groups: tuple[WindowGroup, ...]
    cell: Tensor


# Cached tensors are made outside inference mode, so that training may use them after inference has.
@lru_cache(maxsize=32)
@torch.inference_mode(False)
def window_layout(
    batch: int, height: int, width: int, window: int, shift: int, group_size: int, device: torch.device
) -> WindowLayout:
    """Layout of maps padded right and bottom to multiples of `window`, then moved up and left by `shift` cyclically.

    Windows are ordered by what their cells may see once the map has been shifted: those inside the map, those of the
    right edge, those of the bottom edge and the one in the corner. A group has about `group_size` cells at most.
    """
    rows, columns, cells = -(-height // window), -(-width // window), window**2
    y = (torch.arange(rows * window, device="cpu") + shift) % (rows * window)
    x = (torch.arange(columns * window, device="cpu") + shift) % (columns * window)
    token = torch.where((y[:, None] < height) & (x < width), y[:, None] * width + x, -1)
    token = token.view(rows, window, columns, window).transpose(1, 2).reshape(rows, columns, cells)
    if shift:
        by_edge = [token[:-1, :-1].flatten(0, 1), token[:-1, -1], token[-1, :-1], token[-1, -1:]]
    else:
        by_edge = [token.flatten(0, 1)]
    first_token = height * width * torch.arange(batch, device="cpu")[:, None, None]
    by_edge = [torch.where(token < 0, -1, token + first_token).flatten(0, 1) for token in by_edge]
    groups = tuple(
        WindowGroup(edge, source.clamp(min=0).to(device, torch.int32), (source < 0).nonzero()[:, 0].to(device))
        for edge, windows in enumerate(by_edge)
        for source in windows.flatten().split(max(1, group_size // cells) * cells)
        if len(source) or batch == 0
    )
    num_padding = sum(len(group.padding) for group in groups)
    cell = torch.cat(by_edge).flatten().argsort(stable=True)[num_padding:]  # padding, being -1, comes first
    return WindowLayout(groups, cell.to(device, torch.int32))


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def relative_position_index(window: int, device: torch.device) -> Tensor:
    """Row of the bias table for each query and key of a window, (cells · cells,) int64."""
    cell = torch.arange(window * window, device=device)
    y, x = cell // window, cell % window
    dy, dx = y[:, None] - y + window - 1, x[:, None] - x + window - 1  # counted from 0
    return (dy * (2 * window - 1) + dx).flatten()


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def edge_masks(window: int, shift: int, device: torch.device) -> Tensor:
    """What is added to the scores in windows inside, at the right edge, at the bottom edge and in the corner.

    Returns:
        (4, cells, cells) float32: 0 where query and key were neighbours before the shift, -100 (as trained) elsewhere.
    """
    cell = torch.arange(window * window, device=device)
    came_around_y, came_around_x = cell // window >= window - shift, cell % window >= window - shift
    crosses_y = came_around_y[:, None] != came_around_y
    crosses_x = came_around_x[:, None] != came_around_x
    return -100.0 * torch.stack((torch.zeros_like(crosses_x), crosses_x, crosses_y, crosses_x | crosses_y)).float()


class PatchEmbed(nn.Module):
    """Image → (B, H/4, W/4, C), one token for each 4×4 patch; images are padded right and bottom with zeros."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=PATCH_SIZE, stride=PATCH_SIZE)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        pad_h, pad_w = -images.shape[2] % PATCH_SIZE, -images.shape[3] % PATCH_SIZE
        if pad_h or pad_w:
            images = F.pad(images, (0, pad_w, 0, pad_h))
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """(B, H, W, C) → (B, H/2, W/2, 2·C): each 2×2 square becomes one token; odd sides are padded with zeros."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        pad_h, pad_w = x.shape[1] % 2, x.shape[2] % 2
        if pad_h or pad_w:
            x = F.pad(x, (0, 0, 0, pad_w, 0, pad_h))
        squares = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (B, H/2, 2, W/2, 2, C)
        return self.reduction(self.norm(squares.permute(0, 1, 3, 4, 2, 5).flatten(3)))  # left column before right


class WindowAttention(nn.Module):
    """Self-attention within windows, with a learned bias for each offset between query and key."""

    def __init__(self, dim: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def score_biases(self, shift: int) -> Tensor:
        """What is added to the scores: (1, heads, cells, cells), with a shift one for each of `edge_masks`."""
        device, cells = self.relative_position_bias_table.device, self.window_size**2
        index = relative_position_index(self.window_size, device)
        bias = self.relative_position_bias_table.T.index_select(1, index).view(1, -1, cells, cells)
        return bias + edge_masks(self.window_size, shift, device)[:, None].to(bias.dtype) if shift else bias

    def forward(self, windows: Tensor, bias: Tensor) -> Tensor:
        """(windows · cells, C) and one of `score_biases` → (windows · cells, C)."""
        qkv = self.qkv(windows).view(-1, self.window_size**2, 3, self.num_heads, windows.shape[1] // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (windows, heads, cells, head_dim)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
        return self.proj(attended.transpose(1, 2).reshape(windows.shape))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SwinBlock(nn.Module):
    """Window attention and an MLP, each behind a layer norm and around a residual connection."""

    def __init__(self, dim: int, num_heads: int, window_size: int, shift: int, mlp_ratio: float) -> None:
        super().__init__()
        self.window_size = window_size
        self.shift = shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, window_size)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(mlp_ratio * dim))

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        group_size = tokens_at_a_time(x.device)
        layout = window_layout(batch, height, width, self.window_size, self.shift, group_size, x.device)
        tokens = x.reshape(-1, channels)
        biases = self.attn.score_biases(self.shift)
        # Padding is put in after the norm: its keys and values are the bias of the projection, and are attended to.
        attended = torch.cat(
            [
                self.attn(
                    self.norm1(tokens.index_select(0, group.source)).index_fill_(0, group.padding, 0.0),
                    biases[group.edge],
                )
                for group in layout.groups
            ]
        )
        tokens = attended.index_select(0, layout.cell).add_(tokens)
        return self.add_mlp_(tokens, group_size).view(x.shape)

    def add_mlp_(self, tokens: Tensor, group_size: int) -> Tensor:
        """The MLP and its residual on (N, C) tokens, which without gradients are changed in place, group by group."""
        if torch.is_grad_enabled():
            return self.mlp(self.norm2(tokens)).add_(tokens)
        for group in tokens.split(group_size):
            group += self.mlp(self.norm2(group))
        return tokens


class SwinStage(nn.Module):
    """Blocks at one resolution, every other one shifted, and the merging that leads to the next stage."""

    def __init__(
        self, dim: int, depth: int, num_heads: int, window_size: int, mlp_ratio: float, has_downsample: bool
    ) -> None:
        super().__init__()
        shifts = [0 if i % 2 == 0 else window_size // 2 for i in range(depth)]
        self.blocks = nn.ModuleList(SwinBlock(dim, num_heads, window_size, shift, mlp_ratio) for shift in shifts)
        self.downsample = PatchMerging(dim) if has_downsample else None

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class SwinTransformer(nn.Module):
    """The image backbone of Grounding DINO: stages at strides 4, 8, 16, 32, …

    Args:
        embed_dim: channels of the first stage; they double from stage to stage.
        depths: blocks of each stage.
        num_heads: attention heads of each stage.
        window_size: side of a window, in tokens.
        out_indices: stages whose maps are returned, 0-based and ascending.
        mlp_ratio: hidden width of the MLPs relative to their stage's channels.

    Attributes:
        num_channels: channels of each returned map.

    Raises:
        ValueError: `depths` and `num_heads` differ in length, a stage's channels do not split into its heads, or
            `out_indices` are not ascending stages.
    """

    def __init__(
        self,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        out_indices: Sequence[int] = (1, 2, 3),
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        widths = [embed_dim * 2**i for i in range(len(depths))]
        if len(depths) != len(num_heads):
            raise ValueError(f"Expected as many num_heads as depths, got {tuple(num_heads)} and {tuple(depths)}.")
        if any(width % heads for width, heads in zip(widths, num_heads, strict=True)):
            raise ValueError(f"Stages of {widths} channels do not split into {tuple(num_heads)} attention heads.")
        if not out_indices or list(out_indices) != sorted(set(out_indices) & set(range(len(depths)))):
            raise ValueError(f"Expected ascending out_indices from 0 to {len(depths) - 1}, got {tuple(out_indices)}.")
        self.out_indices = tuple(out_indices)
        self.num_channels = tuple(widths[i] for i in out_indices)
        self.patch_embed = PatchEmbed(embed_dim)
        self.layers = nn.ModuleList(
            SwinStage(width, depth, heads, window_size, mlp_ratio, has_downsample=width != widths[-1])
            for width, depth, heads in zip(widths, depths, num_heads, strict=True)
        )
        for i in out_indices:
            self.add_module(f"norm{i}", nn.LayerNorm(widths[i]))

    def forward(self, images: Tensor) -> list[Tensor]:
        """
        Args:
            images: (B, 3, H, W) normalised, of any size.

        Returns:
            One (B, C, h, w) map for each of `out_indices`, finest first, with h = ⌈H / stride⌉; its memory is
            (B, h, w, C).

        Raises:
            ValueError: `images` has another shape.
        """
        check_images(images)
        x = self.patch_embed(images)
        levels = []
        for i, stage in enumerate(self.layers):
            x = stage(x)
            if i in self.out_indices:
                levels.append(self.get_submodule(f"norm{i}")(x).permute(0, 3, 1, 2))
            if i == self.out_indices[-1]:
                break
            x = stage.get_submodule("downsample")(x)
        return levels
