"""Deformable attention as a PyTorch operator: what it computes, its gradient, and who computes it.

`torch.compile` and `torch.export` see the operator `grounding_dino::deformable_attention` with its shapes and gradient,
not what is inside; whether the C++ or CUDA kernel or plain PyTorch does the work is decided when it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from grounding_dino.groundingdino.ops import extension, plain
from grounding_dino.groundingdino.ops.kernel import Kernel


def deformable_attention(
    value: Tensor, spatial_shapes: Sequence[tuple[int, int]], sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Weighted sums of bilinear samples from maps of several sizes (Deformable DETR, arXiv:2010.04159, eq. 3).

    Args:
        value: (B, S, H, D), the maps of all levels flattened row by row and put one after another; S is their area.
        spatial_shapes: (height, width) of each of the L levels.
        sampling_locations: (B, Q, H, L, P, 2) as x, y; 0 and 1 are the outer edges of a level, so that the centre of
            its first cell is at 0.5 / width. What lies outside reads zeros.
        attention_weights: (B, Q, H, L, P), factors of the samples; usually they sum to 1 over L and P.

    Returns:
        (B, Q, H * D) in the dtype of `value`; Q = 0 gives (B, 0, H * D). Locations and weights may have a wider dtype
        and should: in bfloat16 a location is off by up to a cell. Sums are kept in float32, or float64 for a float64
        value.

    Raises:
        ValueError: shapes that do not fit together.
    """
    dtype = _wide(value)
    flat_shapes = [size for shape in spatial_shapes for size in shape]
    # as an operator it costs a first call seconds, for which PyTorch loads its compiler
    compute = _operator if torch.is_grad_enabled() or torch.compiler.is_compiling() else _forward
    return compute(value, flat_shapes, sampling_locations.to(dtype), attention_weights.to(dtype))


def _wide(value: Tensor) -> torch.dtype:
    return torch.float64 if value.dtype == torch.float64 else torch.float32


def _kernel_for(value: Tensor) -> Kernel | None:
    device_type = value.device.type
    if device_type == "cpu":
        return extension.kernel("cpu") if value.dtype != torch.float16 else None
    return extension.kernel("cuda") if device_type == "cuda" else None


def _checked_shapes(
    value: Tensor, flat_shapes: Sequence[int], sampling_locations: Tensor, attention_weights: Tensor
) -> list[tuple[int, int]]:
    """The levels' (height, width), once all shapes and dtypes fit together: compiled code relies on every one."""
    spatial_shapes = list(zip(flat_shapes[::2], flat_shapes[1::2], strict=True))
    if value.dim() != 4:
        raise ValueError(f"value must be (B, S, H, D), got {tuple(value.shape)}")
    batch_size, length, num_heads, _ = value.shape
    num_levels = len(spatial_shapes)
    area = sum(height * width for height, width in spatial_shapes)
    if length != area:
        raise ValueError(f"value has {length} cells, but spatial_shapes {spatial_shapes} have {area}")
    expected = (batch_size, sampling_locations.shape[1], num_heads, num_levels)
    if sampling_locations.dim() != 6 or sampling_locations.shape[:4] != expected or sampling_locations.shape[5] != 2:
        raise ValueError(
            f"sampling_locations must be (B, Q, H, L, P, 2) with (B, Q, H, L) = {tuple(expected)}, "
            f"got {tuple(sampling_locations.shape)}"
        )
    if attention_weights.shape != sampling_locations.shape[:5]:
        raise ValueError(
            f"attention_weights must be {tuple(sampling_locations.shape[:5])}, got {tuple(attention_weights.shape)}"
        )
    dtypes = (sampling_locations.dtype, attention_weights.dtype)
    if dtypes != (_wide(value), _wide(value)):
        raise ValueError(f"sampling_locations and attention_weights must be {_wide(value)}, got {dtypes}")
    if batch_size * length * num_heads >= 2**31:
        raise ValueError(f"value has {batch_size} x {length} x {num_heads} rows, more than 32 bits count")
    return spatial_shapes


def _forward(
    value: Tensor, spatial_shapes: Sequence[int], sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    shapes = _checked_shapes(value, spatial_shapes, sampling_locations, attention_weights)
    forward = (_kernel_for(value) or plain).forward
    return forward(value, shapes, sampling_locations, attention_weights)


_operator = torch.library.custom_op(
    "grounding_dino::deformable_attention",
    _forward,
    mutates_args=(),
    schema="(Tensor value, SymInt[] spatial_shapes, Tensor sampling_locations, Tensor attention_weights) -> Tensor",
)


@_operator.register_fake
def _(value: Tensor, spatial_shapes: Sequence[int], sampling_locations: Tensor, attention_weights: Tensor) -> Tensor:
    batch_size, _, num_heads, head_dim = value.shape
    return value.new_empty(batch_size, sampling_locations.shape[1], num_heads * head_dim)


@torch.library.custom_op(
    "grounding_dino::deformable_attention_backward",
    mutates_args=(),
    schema="(Tensor grad_output, Tensor value, SymInt[] spatial_shapes, Tensor sampling_locations, "
    "Tensor attention_weights) -> (Tensor, Tensor, Tensor)",
)
def _backward_operator(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Sequence[int],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    shapes = _checked_shapes(value, spatial_shapes, sampling_locations, attention_weights)
    backward = (_kernel_for(value) or plain).backward
    return backward(grad_output, value, shapes, sampling_locations, attention_weights)


@_backward_operator.register_fake
def _(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Sequence[int],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    arguments = (value, sampling_locations, attention_weights)
    grad_value, grad_locations, grad_weights = (argument.new_empty(argument.shape) for argument in arguments)
    return grad_value, grad_locations, grad_weights


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    value, ctx.spatial_shapes, sampling_locations, attention_weights = inputs
    ctx.save_for_backward(value, sampling_locations, attention_weights)


def _gradients(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
    value, sampling_locations, attention_weights = ctx.saved_tensors
    grad_value, grad_locations, grad_weights = _backward_operator(
        grad_output, value, ctx.spatial_shapes, sampling_locations, attention_weights
    )
    return grad_value, None, grad_locations, grad_weights


_operator.register_autograd(_gradients, setup_context=_save_for_backward)
