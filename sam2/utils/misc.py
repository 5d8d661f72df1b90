"""Frames, holes and points under facebookresearch/sam2's names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from sam2.frames import read_image
from sam2.mask_ops import fill_holes, mask_to_box_xyxy
from sam2.transforms import PIXEL_MEAN, PIXEL_STD
from sam2.video_frames import LazyFrames, open_rgb_frames, to_model_input

__all__ = [
    "concat_points",
    "fill_holes_in_mask_scores",
    "get_connected_components",
    "load_video_frames",
    "load_video_frames_from_jpg_images",
    "load_video_frames_from_video_file",
    "mask_to_box",
]


def load_video_frames(video_path: Any, image_size: int, *ignored: Any, **also_ignored: Any) -> tuple[Any, int, int]:
    """Frames as the model reads them, decoded when asked for, with the video's height and width.

    Args:
        video_path: see `SAM2VideoPredictor.init_state`.
        image_size: side of the model's input.
        ignored, also_ignored: upstream's other arguments, which say where frames are kept and how they are loaded.

    Returns:
        `len`, `.shape` (N, 3, S, S), indices and slices as of a tensor, float32 on the CPU.
    """
    frames = LazyFrames(open_rgb_frames(video_path), image_size)
    return frames, frames.height, frames.width


load_video_frames_from_jpg_images = load_video_frames
load_video_frames_from_video_file = load_video_frames


def _load_img_as_tensor(img_path: str | Path, image_size: int) -> tuple[Tensor, int, int]:
    """An image file as (3, S, S) float32 in [0, 1], with its height and width."""
    image = read_image(img_path)
    mean, std = (torch.tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    return to_model_input(image, image_size) * std + mean, image.shape[0], image.shape[1]


def fill_holes_in_mask_scores(mask: Tensor, max_area: float) -> Tensor:
    """See `sam2.mask_ops.fill_holes`."""
    return fill_holes(mask, max_area)


def mask_to_box(masks: Tensor) -> Tensor:
    """Tight boxes (B, 1, 4) xyxy of masks (B, 1, H, W) bool; see `sam2.mask_ops.mask_to_box_xyxy`."""
    return mask_to_box_xyxy(masks.bool())


def get_connected_components(mask: Tensor) -> tuple[Tensor, Tensor]:
    """8-connected components of masks (N, 1, H, W).

    Returns:
        Numbers of components, 0 on the background, and areas of the component that each pixel belongs to; both of the
        masks' shape, int32.
    """
    labels, areas = [], []
    for plane in mask.flatten(0, 1).cpu().numpy().astype(np.uint8):
        _, numbers, statistics, _ = cv2.connectedComponentsWithStats(plane, connectivity=8)
        of_component = statistics[:, cv2.CC_STAT_AREA].copy()
        of_component[0] = 0
        labels.append(numbers)
        areas.append(of_component[numbers])
    stacked = (np.array(planes, dtype=np.int32).reshape(mask.shape) for planes in (labels, areas))
    numbers_of, areas_of = (torch.from_numpy(array).to(mask.device) for array in stacked)
    return numbers_of, areas_of


def concat_points(
    old_point_inputs: Mapping[str, Tensor] | None, new_points: Tensor, new_labels: Tensor
) -> dict[str, Tensor]:
    """Points (B, P, 2) with labels (B, P) behind those of before, if there were any."""
    if old_point_inputs is not None:
        new_points = torch.cat((old_point_inputs["point_coords"], new_points), dim=1)
        new_labels = torch.cat((old_point_inputs["point_labels"], new_labels), dim=1)
    return {"point_coords": new_points, "point_labels": new_labels}
