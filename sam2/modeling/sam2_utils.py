"""Small layers, and points sampled for training, under facebookresearch/sam2's names."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2.config import SAM2Config
from sam2.mask_ops import mask_to_box_xyxy
from sam2.memory_policy import MemoryPolicy
from sam2.modeling.layers import MLP, LayerNorm2d
from sam2.modeling.position_encoding import sine_time_encoding
from sam2.video_state import ObjectState

__all__ = [
    "MLP",
    "DropPath",
    "LayerNorm2d",
    "get_1d_sine_pe",
    "get_activation_fn",
    "get_clones",
    "get_next_point",
    "sample_box_points",
    "sample_one_point_from_error_center",
    "sample_random_points_from_errors",
    "select_closest_cond_frames",
]


class DropPath(nn.Module):
    """In training, leaves out a residual branch for a random part of the batch (Huang et al., 2016).

    Args:
        drop_prob: of each sample.
        scale_by_keep: the others are scaled up, so that the mean stays.
    """

    def __init__(self, drop_prob: float = 0.0, scale_by_keep: bool = True) -> None:
        super().__init__()
        self.drop_prob = drop_prob
        self.scale_by_keep = scale_by_keep

    def forward(self, x: Tensor) -> Tensor:
        if self.drop_prob == 0.0 or not self.training:
            return x
        kept = 1 - self.drop_prob
        stays = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) < kept
        return x * stays.to(x.dtype) / (kept if self.scale_by_keep and kept > 0 else 1.0)


def get_activation_fn(activation: str) -> Callable[[Tensor], Tensor]:
    """`"relu"`, `"gelu"` or `"glu"`.

    Raises:
        RuntimeError: another name.
    """
    functions: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "glu": F.glu}
    if activation not in functions:
        raise RuntimeError(f"expected the activation {', '.join(functions)}, got {activation!r}")
    return functions[activation]


def get_clones(module: nn.Module, N: int) -> nn.ModuleList:
    """N copies."""
    return nn.ModuleList(deepcopy(module) for _ in range(N))


def get_1d_sine_pe(pos_inds: Tensor, dim: int, temperature: float = 10000) -> Tensor:
    """See `sine_time_encoding`.

    Raises:
        ValueError: another temperature.
    """
    if temperature != 10000:
        raise ValueError(f"expected the temperature 10000, got {temperature}")
    return sine_time_encoding(pos_inds, dim)


def select_closest_cond_frames(
    frame_idx: int, cond_frame_outputs: dict[int, Any], max_cond_frame_num: int
) -> tuple[dict[int, Any], dict[int, Any]]:
    """Conditioning frames that are read as such, and the others; see `MemoryPolicy.conditioning_frames`."""
    policy = MemoryPolicy(replace(SAM2Config(), max_cond_frames_in_attn=max_cond_frame_num))
    return policy.conditioning_frames(ObjectState(cond=cond_frame_outputs), frame_idx)


def sample_box_points(
    masks: Tensor, noise: float = 0.1, noise_bound: int = 20, top_left_label: int = 2, bottom_right_label: int = 3
) -> tuple[Tensor, Tensor]:
    """The corners of masks' boxes, moved at random, as two points each.

    Args:
        masks: (B, 1, H, W) bool.
        noise: how far at most, as a share of the box's width and height; 0 moves nothing.
        noise_bound: how far at most, in pixels.
        top_left_label, bottom_right_label: of the two points.

    Returns:
        (B, 2, 2) float32 xy and (B, 2) int32.
    """
    height, width = masks.shape[-2:]
    corners = mask_to_box_xyxy(masks[:, 0].bool()).float().reshape(-1, 2, 2)
    if noise > 0:
        reach = ((corners[:, 1:] - corners[:, :1]) * noise).clamp(max=noise_bound)
        corners = corners + (2 * torch.rand_like(corners) - 1) * reach
        corners = corners.clamp(min=corners.new_zeros(2), max=corners.new_tensor([width - 1, height - 1]))
    labels = torch.tensor([top_left_label, bottom_right_label], dtype=torch.int32, device=masks.device)
    return corners, labels.expand(len(masks), 2)


def sample_random_points_from_errors(
    gt_masks: Tensor, pred_masks: Tensor | None, num_pt: int = 1
) -> tuple[Tensor, Tensor]:
    """Points where predictions are wrong, each pixel as likely; beside the object where nothing is wrong.

    Args:
        gt_masks: (B, 1, H, W) bool, the truth.
        pred_masks: (B, 1, H, W) bool; None for nothing predicted.
        num_pt: points of each mask.

    Returns:
        (B, num_pt, 2) float32 xy, and (B, num_pt) int32: 1 on a pixel of the object that was missed, else 0.
    """
    truth = gt_masks.bool()
    wrong = truth if pred_masks is None else truth ^ pred_masks.bool()
    where = torch.where(wrong.flatten(1).any(dim=1)[:, None, None, None], wrong, ~truth)
    chance = where.flatten(1).float()
    chance[~where.flatten(1).any(dim=1)] = 1.0  # the object fills the image and all of it was found
    index = torch.multinomial(chance, num_pt, replacement=True)
    width = gt_masks.shape[-1]
    points = torch.stack((index % width, torch.div(index, width, rounding_mode="floor")), dim=2).float()
    return points, (truth & wrong).flatten(1).gather(1, index).to(torch.int32)


def sample_one_point_from_error_center(
    gt_masks: Tensor, pred_masks: Tensor | None, padding: bool = True
) -> tuple[Tensor, Tensor]:
    """The middle of the largest error, the pixel that is furthest from its edge.

    Args:
        gt_masks, pred_masks: see `sample_random_points_from_errors`.
        padding: the image's border counts as an edge.

    Returns:
        (B, 1, 2) float32 xy, and (B, 1) int32: 1 where the object was missed, else 0.
    """
    truth = gt_masks[:, 0].bool().cpu().numpy()
    predicted = np.zeros_like(truth) if pred_masks is None else pred_masks[:, 0].bool().cpu().numpy()
    points, labels = [], []
    for own, found in zip(truth, predicted, strict=True):
        missed, extra = (_distance_to_edge(errors, padding) for errors in (own & ~found, found & ~own))
        is_missed = missed.max() > extra.max()
        y, x = np.unravel_index((missed if is_missed else extra).argmax(), own.shape)
        points.append([[float(x), float(y)]])
        labels.append([int(is_missed)])
    device = gt_masks.device
    return torch.tensor(points, device=device), torch.tensor(labels, dtype=torch.int32, device=device)


def _distance_to_edge(errors: np.ndarray, padding: bool) -> np.ndarray:
    plane = np.pad(errors, 1) if padding else errors
    distance = cv2.distanceTransform(plane.astype(np.uint8), cv2.DIST_L2, 0)
    return distance[1:-1, 1:-1] if padding else distance


def get_next_point(gt_masks: Tensor, pred_masks: Tensor | None, method: str) -> tuple[Tensor, Tensor]:
    """One point to correct predictions: at random, `"uniform"`, or in the middle of the largest error, `"center"`.

    Raises:
        ValueError: another method.
    """
    if method == "uniform":
        return sample_random_points_from_errors(gt_masks, pred_masks)
    if method == "center":
        return sample_one_point_from_error_center(gt_masks, pred_masks)
    raise ValueError(f"expected the method 'uniform' or 'center', got {method!r}")
