"""A Kalman filter of moving boxes, of many objects at once.

The state of a box is its centre, its width over its height, its height, and the change of each from one frame to the
next (Wojke et al., 2017). How far a box may be off, and how much its motion may change, goes with its height.
"""

from __future__ import annotations

import torch
from torch import Tensor

POSITION_STD = 1 / 20  # of a box's height
VELOCITY_STD = 1 / 160  # of a box's height, for each frame
ASPECT_STD = 1e-2  # of width over height: at the beginning, and from one frame to the next
MEASURED_ASPECT_STD = 1e-1
ASPECT_VELOCITY_STD = 1e-5

# the position after a frame is the one before and the velocity
_MOTION = torch.eye(8, dtype=torch.float64) + torch.diag(torch.ones(4, dtype=torch.float64), 4)


def to_measurement(boxes: Tensor) -> Tensor:
    """Centre x, centre y, width over height, and height of boxes (N, 4) xyxy; a height of 0 counts as 1."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    height = torch.where(y1 == y0, 1.0, y1 - y0)
    return torch.stack(((x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / height, height), dim=-1)


def to_box_xyxy(mean: Tensor) -> Tensor:
    """Boxes (N, 4) xyxy of states (N, 8) or measurements (N, 4)."""
    x, y, aspect, height = mean[..., :4].unbind(-1)
    width = aspect * height
    return torch.stack((x - width / 2, y - height / 2, x + width / 2, y + height / 2), dim=-1)


def initiate(measured: Tensor) -> tuple[Tensor, Tensor]:
    """States of boxes seen for the first time, at rest.

    Args:
        measured: (N, 4) float64, see `to_measurement`.

    Returns:
        Means (N, 8) and covariances (N, 8, 8).
    """
    mean = torch.cat((measured, torch.zeros_like(measured)), dim=-1)
    return mean, _diagonal(measured[..., 3], 2 * POSITION_STD, ASPECT_STD, 10 * VELOCITY_STD)


def predict(mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """States one frame later, as far as motion tells."""
    noise = _diagonal(mean[..., 3], POSITION_STD, ASPECT_STD, VELOCITY_STD)
    return mean @ _MOTION.T, _MOTION @ covariance @ _MOTION.T + noise


def project(mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Which measurements (N, 4) states let expect, and with which covariance (N, 4, 4)."""
    noise = _diagonal(mean[..., 3], POSITION_STD, MEASURED_ASPECT_STD, 0.0)[..., :4, :4]
    return mean[..., :4], covariance[..., :4, :4] + noise


def update(mean: Tensor, covariance: Tensor, measured: Tensor) -> tuple[Tensor, Tensor]:
    """States after a measurement (N, 4) of each."""
    expected, spread = project(mean, covariance)
    gain = torch.linalg.solve(spread, covariance[..., :4, :]).mT  # (N, 8, 4)
    mean = mean + (gain @ (measured - expected).unsqueeze(-1)).squeeze(-1)
    return mean, covariance - gain @ spread @ gain.mT


def _diagonal(height: Tensor, position_std: float, aspect_std: float, velocity_std: float) -> Tensor:
    """Covariances (N, 8, 8) of independent errors; the first and the last go with the heights (N,) of the boxes."""
    position, velocity = position_std * height, velocity_std * height
    aspect, aspect_velocity = (torch.full_like(height, std) for std in (aspect_std, ASPECT_VELOCITY_STD))
    std = torch.stack(
        (position, position, aspect, position, velocity, velocity, aspect_velocity, velocity), dim=-1
    )  # fmt: skip
    return torch.diag_embed(std.square())
