"""Boxes and how they overlap, under upstream's names; those of torchvision where it has them."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_area, box_convert, generalized_box_iou, masks_to_boxes

__all__ = ["box_area", "box_cxcywh_to_xyxy", "box_iou", "box_xyxy_to_cxcywh", "generalized_box_iou", "masks_to_boxes"]


def box_cxcywh_to_xyxy(x: Tensor) -> Tensor:
    """Boxes (..., 4) by centre, width and height → by two corners."""
    return box_convert(x, "cxcywh", "xyxy")


def box_xyxy_to_cxcywh(x: Tensor) -> Tensor:
    """Boxes (..., 4) by two corners → by centre, width and height."""
    return box_convert(x, "xyxy", "cxcywh")


def box_iou(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and union, both (N, M), of boxes (N, 4) and (M, 4) xyxy."""
    corner = torch.maximum(boxes1[:, None, :2], boxes2[:, :2])
    opposite = torch.minimum(boxes1[:, None, 2:], boxes2[:, 2:])
    shared = (opposite - corner).clamp(min=0).prod(dim=2)
    union = box_area(boxes1)[:, None] + box_area(boxes2) - shared
    return shared / union.clamp(min=1e-6), union
