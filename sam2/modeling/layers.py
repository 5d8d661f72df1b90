"""Small layers that several parts of SAM 2 share."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW_CHANNELS = 16  # up to so many are normalised plane by plane, which PyTorch's kernel does one cell at a time


def is_plain_inference(x: Tensor) -> bool:
    """Whether work on `x` may be arranged as suits a CPU: float32 or bfloat16, no gradient, nothing compiled."""
    is_plain = not (torch.is_grad_enabled() or torch.compiler.is_compiling())
    return is_plain and x.dtype in (torch.float32, torch.bfloat16) and x.device.type == "cpu"


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of an (N, C, H, W) map."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        is_exact = x.dtype == torch.float32
        if x.shape[1] <= FEW_CHANNELS and x.is_contiguous() and is_exact and is_plain_inference(x):
            centred = x - x.mean(dim=1, keepdim=True)
            scale = centred.square().mean(dim=1, keepdim=True).add_(self.eps).rsqrt_()
            return centred.mul_(scale).mul_(self.weight[:, None, None]).add_(self.bias[:, None, None])
        channels_last = x.permute(0, 2, 3, 1)
        return F.layer_norm(channels_last, self.weight.shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class MLP(nn.Module):
    """Linear layers with an activation between them, and a sigmoid at the end if asked for."""

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        output_dim: int,
        num_layers: int,
        activation: type[nn.Module] = nn.ReLU,
        sigmoid_output: bool = False,
    ) -> None:
        super().__init__()
        widths = [input_dim] + [hidden_dim] * (num_layers - 1) + [output_dim]
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(widths))
        self.act = activation()
        self.sigmoid_output = sigmoid_output

    def forward(self, x: Tensor) -> Tensor:
        in_place = isinstance(self.act, nn.GELU) and is_plain_inference(x)
        for layer in self.layers[:-1]:
            x = torch.ops.aten.gelu_(layer(x)) if in_place else self.act(layer(x))
        x = self.layers[-1](x)
        return x.sigmoid() if self.sigmoid_output else x
