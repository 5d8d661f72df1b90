"""Give a nano SAM 2.1 the decoder and the memory of an earlier one that has another trunk.

The neck, which is linear, is fitted to make of the new trunk's maps what the earlier encoder made of the same images.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2.modeling.sam2_base import SAM2Base

RIDGE = 1e-6  # of the fit, in parts of the mean square of the inputs


@torch.no_grad()
def take_over(model: SAM2Base, earlier: SAM2Base, batches: Iterable[Tensor]) -> list[float]:
    """Copy all weights but the image encoder's, and fit the neck.

    Args:
        model: changed in place; its trunk keeps its weights.
        earlier: of the same widths behind the image encoder.
        batches: images (B, 3, S, S), normalised, to fit the neck on.

    Returns:
        What share of the earlier features' variance the new ones explain, finest level first.
    """
    kept = {name: value for name, value in earlier.state_dict().items() if not name.startswith("image_encoder.")}
    missing = model.load_state_dict(kept, strict=False)
    assert not missing.unexpected_keys
    fits = [Fit(), Fit(), Fit()]  # strides 4, 8 and 16; the last one of two maps, the coarser one enlarged
    for images in batches:
        finest, fine, middle, coarse = model.image_encoder.trunk(images)
        inputs = (finest, fine, torch.cat((middle, F.interpolate(coarse, scale_factor=2.0, mode="nearest")), 1))
        for fit, maps, wanted in zip(fits, inputs, earlier.image_encoder(images)["backbone_fpn"], strict=True):
            fit.add(maps, wanted)
    solved = [fit.solve() for fit in fits]
    coarsest, top, fine_lateral, finest_lateral = (lateral.conv for lateral in model.image_encoder.neck.convs)
    num_top = top.weight.shape[1]
    for convolution, (weight, bias, _) in ((finest_lateral, solved[0]), (fine_lateral, solved[1]), (top, solved[2])):
        convolution.weight.copy_(weight[:, :num_top] if convolution is top else weight)
        convolution.bias.copy_(bias)
    coarsest.weight.copy_(solved[2][0][:, num_top:])
    coarsest.bias.zero_()
    return [explained for _, _, explained in solved]


class Fit:
    """A linear map from one map's channels to another's, by least squares over all cells seen."""

    def __init__(self) -> None:
        self.squares: Tensor | float = 0.0
        self.products: Tensor | float = 0.0
        self.wanted_squares: Tensor | float = 0.0
        self.wanted_sum: Tensor | float = 0.0
        self.count = 0

    def add(self, maps: Tensor, wanted: Tensor) -> None:
        """Take in the cells of maps (B, C, h, w) and what they should become (B, D, h, w)."""
        cells = F.pad(maps.permute(0, 2, 3, 1).flatten(0, 2).double(), (0, 1), value=1.0)
        targets = wanted.permute(0, 2, 3, 1).flatten(0, 2).double()
        self.squares = self.squares + cells.T @ cells
        self.products = self.products + cells.T @ targets
        self.wanted_squares = self.wanted_squares + targets.square().sum(0)
        self.wanted_sum = self.wanted_sum + targets.sum(0)
        self.count += len(cells)

    def solve(self) -> tuple[Tensor, Tensor, float]:
        """(D, C, 1, 1) weight and (D,) bias of the 1×1 convolution, and the share of variance that it explains."""
        squares, products = torch.as_tensor(self.squares), torch.as_tensor(self.products)
        ridge = RIDGE * squares.diagonal().mean() * torch.eye(len(squares), dtype=squares.dtype)
        solution = torch.linalg.solve(squares + ridge, products)  # (C + 1, D)
        error = self.wanted_squares - 2 * (solution * products).sum(0) + (solution * (squares @ solution)).sum(0)
        variance = self.wanted_squares - torch.as_tensor(self.wanted_sum).square() / self.count
        return solution[:-1].T[:, :, None, None], solution[-1], float(1 - (error / variance).mean())
