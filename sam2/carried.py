"""Masks carried from one frame to the next by optical flow, for frames on which the model does not run."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

FLOW_SIDE = 256  # pixels, of the images between which the flow is computed
IMAGE_MEAN, IMAGE_STD = 0.449, 0.226  # grey, of the frames as the model takes them


def grey_of(frame: Tensor) -> Tensor:
    """A frame (3, S, S), as the model takes it, as a grey image (FLOW_SIDE, FLOW_SIDE) uint8."""
    grey = (frame.float().mean(dim=0).cpu().numpy() * IMAGE_STD + IMAGE_MEAN) * 255
    small = cv2.resize(grey, (FLOW_SIDE, FLOW_SIDE), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small.round().clip(0, 255).astype(np.uint8))


def carry_masks(mask_logits: Tensor, before: Tensor, now: Tensor) -> Tensor:
    """Move masks along with the picture (dense inverse search, Kroeger et al., 2016).

    Args:
        mask_logits: (N, 1, h, w) float32 on the frame before.
        before, now: grey images of both frames, see `grey_of`.

    Returns:
        (N, 1, h, w) float32 on this frame, on the device of `mask_logits`.
    """
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    came_from = search.calc(now.numpy(), before.numpy(), np.zeros((*now.shape, 2), np.float32))
    height, width = mask_logits.shape[-2:]
    per_pixel = np.array([width, height], np.float32) / FLOW_SIDE
    x, y = (cv2.resize(came_from, (width, height)) * per_pixel).transpose(2, 0, 1)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    carried = [
        cv2.remap(mask, columns + x, rows + y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for mask in mask_logits[:, 0].cpu().numpy()
    ]
    return torch.from_numpy(np.stack(carried)).unsqueeze(1).to(mask_logits.device)
