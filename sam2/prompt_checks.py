"""What both predictors ask of prompts."""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor

MAX_LABEL = 3  # 2 and 3 are the corners of a box


def finite_tensor(values: ArrayLike | Tensor, name: str, device: torch.device) -> Tensor:
    """Numbers as float32 on `device`.

    Raises:
        ValueError: NaN or infinity among them; `name` says of what.
    """
    tensor = torch.as_tensor(values, dtype=torch.float32, device=device)
    if not tensor.isfinite().all():
        raise ValueError(f"expected finite numbers in {name}, got NaN or infinity")
    return tensor


def check_labels(labels: Tensor, name: str) -> None:
    """Raise ValueError, with `name`, unless labels of points are 1, 0, -1, or the corners of boxes."""
    if ((labels < -1) | (labels > MAX_LABEL)).any():
        raise ValueError(f"expected {name} of 1, 0 or -1, got {labels.unique().tolist()}")
