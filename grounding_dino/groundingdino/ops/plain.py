"""Deformable attention in plain PyTorch: every head of a query is one weighted bag of value rows.

A bilinear sample is four rows of the value map with four weights, so what a head reads for a query, all levels and
points together, is one bag of 4 * L * P rows. `embedding_bag` sums such bags in one pass over the value as it lies in
memory; nothing of the size (queries x samples x channels) is ever written, and the map is neither split nor permuted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLES_AT_ONCE = 2**17  # per thread in the forward pass: indices and weights of a block stay in the cache
GATHERED_AT_ONCE = 2**21  # elements of the rows that the backward pass gathers at a time


class Corners(NamedTuple):
    """The four cells around each sample. K = H * L * P samples per query, flattened in this order.

    rows: (Q, H, 2, 2, L * P) int32, rows of one image's value seen as (S * H, D); lower and higher y, then x.
    weights: (2, 2, Q, K), along x and along y, of the lower and the higher cell; 0 for a cell outside of the level.
    slopes: (2, 2, Q, K), how each of these weights grows with the sample's coordinate in cells, or None.
    """

    rows: Tensor
    weights: Tensor
    slopes: Tensor | None


class Samples:
    """What is the same for every query of a call: level sizes and offsets, spread over the K samples of a query."""

    def __init__(
        self, spatial_shapes: Sequence[tuple[int, int]], num_heads: int, num_points: int, like: Tensor
    ) -> None:
        starts = [0]
        for height, width in spatial_shapes:
            starts.append(starts[-1] + height * width)
        # one row per sample: width, height, rows of the table from one line of cells to the next, first row of the head
        table = [
            (width, height, width * num_heads, start * num_heads + head)
            for head in range(num_heads)
            for (height, width), start in zip(spatial_shapes, starts, strict=False)
            for _ in range(num_points)
        ]
        integers = torch.tensor(table, dtype=torch.int32, device=like.device).T.contiguous()
        self.num_heads = num_heads
        self.sizes = integers[:2, None].to(like.dtype)  # (2, 1, K), x first
        self.last = integers[:2, None] - 1
        self.last_cells = self.last.to(like.dtype)
        self.line, self.first_row = integers[2:]

    def corners(self, locations: Tensor, with_slopes: bool = False) -> Corners:
        """The cells that samples at `locations` (Q, H, L, P, 2) read, and their bilinear weights."""
        num_queries = len(locations)
        # Within a cell of the border a sample reads the border; farther out it is moved to where it reads nothing.
        cells = (locations.reshape(num_queries, -1, 2).movedim(-1, 0) * self.sizes).sub_(0.5).clamp_(min=-1)
        torch.minimum(cells, self.sizes, out=cells)
        low = torch.minimum(cells.floor(), self.last_cells)
        to_last = self.last_cells - low

        weights = torch.empty((2, *cells.shape), dtype=cells.dtype, device=cells.device)
        torch.sub(cells, low, out=weights[1])
        torch.sub(1, weights[1], out=weights[0])
        # low is in -1..last, so these limits are 0 for a cell outside of the level and at least 1 for others
        torch.minimum(weights[0], low + 1, out=weights[0])
        torch.minimum(weights[1], to_last, out=weights[1])

        indices = torch.empty(weights.shape, dtype=torch.int32, device=cells.device)
        indices[1] = low  # the lower cell itself until the higher one is made of it
        indices[1].clamp_(min=-1)  # what is not a number must not become an address
        torch.clamp(indices[1], min=0, out=indices[0])
        torch.minimum(indices[1].add_(1), self.last, out=indices[1])
        indices[:, 0].mul_(self.num_heads)
        indices[:, 1].mul_(self.line).add_(self.first_row)
        rows = self._combine(torch.add, indices[:, 1], indices[:, 0])

        slopes = None
        if with_slopes:
            is_inside = (cells > -1).logical_and_(cells < self.sizes)
            slopes = torch.stack((-1.0 * (is_inside & (low >= 0)), 1.0 * (is_inside & (to_last > 0)))).to(cells.dtype)
        return Corners(rows, weights.transpose(0, 1), slopes.transpose(0, 1) if slopes is not None else None)

    def outer(self, along_y: Tensor, along_x: Tensor) -> Tensor:
        """Products for the four cells (Q, H, 2, 2, L * P) of two factors (2, Q, K) for the lower and higher cell."""
        return self._combine(torch.mul, along_y, along_x)

    def _combine(self, combine: Callable[..., Tensor], along_y: Tensor, along_x: Tensor) -> Tensor:
        along_y, along_x = (pair.unflatten(2, (self.num_heads, -1)).permute(1, 2, 0, 3) for pair in (along_y, along_x))
        # The layout is asked for: left to itself, PyTorch would keep that of the factors, and a bag must be one run.
        combined = along_y.new_empty((*along_y.shape[:3], *along_x.shape[2:]))
        return combine(along_y.unsqueeze(3), along_x.unsqueeze(2), out=combined)


def forward(
    value: Tensor, spatial_shapes: Sequence[tuple[int, int]], sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Deformable attention without a gradient; arguments as `grounding_dino.groundingdino.ops.deformable_attention`,
    but locations and weights in float32 (float64 with a float64 value), which is also what sums are kept in."""
    batch_size, length, num_heads, head_dim = value.shape
    num_queries, num_points = sampling_locations.shape[1], sampling_locations.shape[4]
    table = value.to(sampling_locations.dtype).reshape(batch_size, length * num_heads, head_dim)
    samples = Samples(spatial_shapes, num_heads, num_points, sampling_locations)
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
    batch_size, length, num_heads, head_dim = value.shape
    num_queries, num_points = sampling_locations.shape[1], sampling_locations.shape[4]
    table = value.to(sampling_locations.dtype).reshape(batch_size, length * num_heads, head_dim)
    samples = Samples(spatial_shapes, num_heads, num_points, sampling_locations)
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
                    grad_cells.mul_(attention).mul_(samples.sizes[axis]).view(grad_locations[image, block].shape[:-1])
                )
            scale = samples.outer(along_y * attention, along_x).view(len(grad), -1, 1)
            grad_table[image].index_add_(0, rows, (scale * grad).view(-1, head_dim))
    return grad_table.view(value.shape).to(value.dtype), grad_locations, grad_weights


def _over_cells(products: Tensor, like: Tensor) -> Tensor:
    """Sum (Q, H, 2, 2, L * P) over the four cells, as (Q, H, L, P)."""
    return products.sum((2, 3)).unflatten(-1, like.shape[3:])
