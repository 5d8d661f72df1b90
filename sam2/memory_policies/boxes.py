"""Boxes around the masks that policies judge, as float64 on the CPU, where policies reckon."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2.mask_ops import mask_to_box_xyxy


def mask_boxes(mask_logits: Tensor, side: int) -> Tensor:
    """The first and last column and row that masks touch, in pixels of the model's input.

    Args:
        mask_logits: (N, 4h, 4w) float32.
        side: of the model's input.

    Returns:
        (N, 4) xyxy float64 on the CPU; zeros for an empty mask.
    """
    boxes = [  # one at a time: at full size, the candidates of many objects are gigabytes
        mask_to_box_xyxy(F.interpolate(mask[None, None], (side, side), mode="bilinear", align_corners=False)[0, 0] > 0)
        for mask in mask_logits
    ]
    return torch.stack(boxes).double().cpu() if boxes else torch.zeros(0, 4, dtype=torch.float64)


def box_ious(one: Tensor, other: Tensor) -> Tensor:
    """IoU of boxes (…, 4) xyxy with boxes of the same shape; 0 where neither has an area."""
    overlap = torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(one[..., :2], other[..., :2])
    intersection = overlap.clamp(min=0).prod(dim=-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(dim=-1) for boxes in (one, other)]
    union = areas[0] + areas[1] - intersection
    return torch.where(union > 0, intersection / torch.where(union > 0, union, 1), 0)
