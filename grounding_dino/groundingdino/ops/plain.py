"""Deformable attention in plain PyTorch: every head of a query is one weighted bag of value rows.

A bilinear sample is four rows of the value map with four weights. What a head reads for a query, all levels and points
together, is therefore one bag of 4 * L * P rows, and `embedding_bag` sums such bags in one pass. Nothing of the size
(queries x samples x channels) is ever written. In the table of rows every map has a border of zeros, so that a sample
at or beyond an edge needs no case of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLES_AT_ONCE = 2**18  # per thread in the forward pass: indices and weights of a block stay near the cache
GATHERED_AT_ONCE = 2**21  # elements of the rows that the backward pass gathers at a time


class Corners(NamedTuple):
    """The four cells around each sample. K = H * L * P samples per query, flattened in this order.

    rows: (Q, H, 2, 2, L * P) int32, rows of one image's table; lower and higher y, then x.
    weights: (2, 2, Q, K), along x and along y, of the lower and the higher cell.
    slopes: (2, 2, Q, K), how each of these weights grows with the sample's coordinate in cells, or None.
    """

    rows: Tensor
    weights: Tensor
    slopes: Tensor | None


class Samples:
    """What is the same for every query of a call: where the table has each level, spread over the K samples of a query.

    An image's table has R = sum of (height + 3) * (width + 3) rows for each head: a sample within a cell of the edge
    reads the border, and one farther out is moved to the border's far side, beyond which there is one more cell.
    """

    def __init__(
        self, spatial_shapes: Sequence[tuple[int, int]], num_heads: int, num_points: int, like: Tensor
    ) -> None:
        self.spatial_shapes = spatial_shapes
        self.num_heads = num_heads
        self.starts = [0]
        for height, width in spatial_shapes:
            self.starts.append(self.starts[-1] + (height + 3) * (width + 3))
        # one row per sample: width, height, rows of the table from one line of cells to the next, first row of the map
        samples = [
            (width, height, width + 3, head * self.starts[-1] + start)
            for head in range(num_heads)
            for (height, width), start in zip(spatial_shapes, self.starts, strict=False)
            for _ in range(num_points)
        ]
        integers = torch.tensor(samples, dtype=torch.int32, device=like.device)
        self.sizes = integers[:, :2].to(like.dtype).contiguous()  # (K, 2), x first, as in the locations
        self.farthest = self.sizes + 1
        self.line, self.first_row = integers[:, 2:].T.contiguous()
        to_next_line = self.line.view(num_heads, 1, 1, -1)
        to_corner = torch.cat((torch.zeros_like(to_next_line), to_next_line), dim=1)
        self.to_corners = torch.cat((to_corner, to_corner + 1), dim=2)  # (H, 2, 2, L * P)

    def table(self, value: Tensor) -> Tensor:
        """(B, S, H, D) → (B, H * R, D): the maps of each head with their borders, in the dtype of the samples."""
        table = self.sizes.new_zeros(len(value), self.num_heads, self.starts[-1], value.shape[3])
        for maps, cells in zip(self._inner(table), self._split(value), strict=True):
            maps.copy_(cells)
        return table.flatten(1, 2)

    def from_table(self, table: Tensor) -> Tensor:
        """(B, H * R, D) → (B, S, H, D): the maps without their borders."""
        maps = self._inner(table.unflatten(1, (self.num_heads, -1)))
        return torch.cat([cells.permute(0, 2, 3, 1, 4).flatten(1, 2) for cells in maps], dim=1)

    def _inner(self, table: Tensor) -> list[Tensor]:
        return [
            table[:, :, start:end].unflatten(2, (height + 3, width + 3))[:, :, 1:-2, 1:-2]
            for (height, width), (start, end) in zip(self.spatial_shapes, pairwise(self.starts), strict=True)
        ]

    def _split(self, value: Tensor) -> list[Tensor]:
        levels = value.split([height * width for height, width in self.spatial_shapes], dim=1)
        return [
            level.unflatten(1, shape).permute(0, 3, 1, 2, 4)
            for level, shape in zip(levels, self.spatial_shapes, strict=True)
        ]

    def corners(self, locations: Tensor, with_slopes: bool = False) -> Corners:
        """The cells that samples at `locations` (Q, H, L, P, 2) read, and their bilinear weights."""
        num_queries = len(locations)
        # Counted from the border: its own cells are those before 1 and from size + 1 on. x stays beside y as long as
        # both are treated alike, because one long run of numbers is much faster than many short ones.
        cells = (locations.reshape(num_queries, -1, 2) * self.sizes).add_(0.5).clamp_(min=0)
        torch.minimum(cells, self.farthest, out=cells)
        x, y = cells.to(torch.int32).clamp_(min=0).unbind(-1)  # what is not a number must not become an address
        first = (y * self.line).add_(x).add_(self.first_row).view(num_queries, self.num_heads, 1, 1, -1)
        rows = torch.add(first, self.to_corners, out=first.new_empty(num_queries, *self.to_corners.shape))

        weights = cells.new_empty(2, 2, num_queries, len(self.line))
        higher = weights[:, 1].copy_(cells.frac().movedim(-1, 0))
        torch.sub(1, higher, out=weights[:, 0])
        slopes = None
        if with_slopes:
            slope = ((cells > 0) & (cells < self.farthest)).to(cells.dtype).movedim(-1, 0)
            slopes = torch.stack((-slope, slope), dim=1)
        return Corners(rows, weights, slopes)

    def outer(self, along_y: Tensor, along_x: Tensor) -> Tensor:
        """Products for the four cells (Q, H, 2, 2, L * P) of two factors (2, Q, K) for the lower and higher cell."""
        along_y, along_x = (pair.unflatten(2, (self.num_heads, -1)).permute(1, 2, 0, 3) for pair in (along_y, along_x))
        # The layout is asked for: left to itself, PyTorch would keep that of the factors, and a bag must be one run.
        products = along_y.new_empty((*along_y.shape[:3], *along_x.shape[2:]))
        return torch.mul(along_y.unsqueeze(3), along_x.unsqueeze(2), out=products)


def forward(
    value: Tensor, spatial_shapes: Sequence[tuple[int, int]], sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Deformable attention without a gradient; arguments as `grounding_dino.groundingdino.ops.deformable_attention`,
    but locations and weights in float32 (float64 with a float64 value), which is also what sums are kept in."""
    batch_size, _, num_heads, head_dim = value.shape
    num_queries, num_points = sampling_locations.shape[1], sampling_locations.shape[4]
    samples = Samples(spatial_shapes, num_heads, num_points, sampling_locations)
    table = samples.table(value)
    samples_per_query = attention_weights[0, 0].numel() if attention_weights.numel() else 1
    step = max(1, SAMPLES_AT_ONCE * torch.get_num_threads() // samples_per_query)
    attended = table.new_empty(batch_size, num_queries, num_heads * head_dim)
    for image in range(batch_size):
        for start in range(0, num_queries, step):
            block = slice(start, start + step)
            corners = samples.corners(sampling_locations[image, block])
            along_x, along_y = corners.weights
            along_y.mul_(attention_weights[image, block].flatten(1))
            bags = corners.rows.flatten(2).flatten(0, 1)
            weights = samples.outer(along_y, along_x).view(bags.shape)
            summed = F.embedding_bag(bags, table[image], mode="sum", per_sample_weights=weights)
            attended[image, block] = summed.view(-1, num_heads * head_dim)
    return attended.to(value.dtype)


def backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `forward` for value, locations and weights, given that for its output, (B, Q, H * D)."""
    batch_size, _, num_heads, head_dim = value.shape
    num_queries, num_points = sampling_locations.shape[1], sampling_locations.shape[4]
    samples = Samples(spatial_shapes, num_heads, num_points, sampling_locations)
    table = samples.table(value)
    grad_table = torch.zeros_like(table)
    grad_locations = torch.empty_like(sampling_locations, memory_format=torch.contiguous_format)
    grad_weights = torch.empty_like(attention_weights, memory_format=torch.contiguous_format)
    gathered_per_query = max(1, 4 * head_dim * (attention_weights[0, 0].numel() if attention_weights.numel() else 1))
    step = max(1, GATHERED_AT_ONCE // gathered_per_query)
    for image in range(batch_size):
        for start in range(0, num_queries, step):
            block = slice(start, start + step)
            attention = attention_weights[image, block].flatten(1)
            grad = grad_output[image, block].to(table.dtype).reshape(-1, 1, head_dim)  # (Q * H, 1, D)
            corners = samples.corners(sampling_locations[image, block], with_slopes=True)
            assert corners.slopes is not None
            (along_x, along_y), (slope_x, slope_y) = corners.weights, corners.slopes
            rows = corners.rows.flatten()
            products = (table[image][rows].view(len(grad), -1, head_dim) * grad).sum(-1).view(corners.rows.shape)
            grad_weights[image, block] = _over_cells(samples.outer(along_y, along_x) * products, grad_weights)
            for axis, factors in enumerate(((along_y, slope_x), (slope_y, along_x))):
                grad_cells = _over_cells(samples.outer(*factors) * products, grad_weights).flatten(1)
                grad_locations[image, block][..., axis] = (
                    grad_cells.mul_(attention)
                    .mul_(samples.sizes[:, axis])
                    .view(grad_locations[image, block].shape[:-1])
                )
            scale = samples.outer(along_y * attention, along_x).view(len(grad), -1, 1)
            grad_table[image].index_add_(0, rows, (scale * grad).view(-1, head_dim))
    return samples.from_table(grad_table).to(value.dtype), grad_locations, grad_weights


def _over_cells(products: Tensor, like: Tensor) -> Tensor:
    """Sum (Q, H, 2, 2, L * P) over the four cells, as (Q, H, L, P)."""
    return products.sum((2, 3)).unflatten(-1, like.shape[3:])
