"""Sine encodings of what has a place: cells of an image's maps, boxes, and tokens of a sub-sentence."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Each coordinate becomes pairs (sin, cos) of angles that fall geometrically from 2π times the coordinate.


def sine_encoding(coordinates: Tensor, num_features: int, temperature: float = 10000.0) -> Tensor:
    """(...) → (..., num_features) float32, num_features even."""
    steps = torch.arange(num_features // 2, dtype=torch.float32, device=coordinates.device)
    periods = temperature ** (2 * steps / num_features)
    angles = coordinates.float()[..., None] * (2 * math.pi) / periods
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


def encode_cells(
    height: int, width: int, num_features: int, temperatures: tuple[float, float], device: torch.device
) -> Tensor:
    """Encode the cells of a map, whose rows and columns count from 1 and are divided by how many there are.

    Args:
        height: rows of the map.
        width: columns of the map.
        num_features: half of them encode the row, the other half the column.
        temperatures: for rows and for columns.
        device: where the encoding goes.

    Returns:
        (height, width, num_features) float32.
    """
    rows, columns = (
        sine_encoding(torch.arange(1, size + 1, device=device) / (size + 1e-6), num_features // 2, temperature)
        for size, temperature in zip((height, width), temperatures, strict=True)
    )
    half = (height, width, num_features // 2)
    return torch.cat((rows[:, None].expand(half), columns[None].expand(half)), dim=-1)


def encode_boxes(boxes_cxcywh: Tensor, num_features: int) -> Tensor:
    """(..., 4) in 0..1 → (..., 4 · num_features) float32, in the order cy, cx, w, h."""
    cx, cy, width, height = boxes_cxcywh.unbind(-1)
    return sine_encoding(torch.stack((cy, cx, width, height), dim=-1), num_features).flatten(-2)
