"""Calls into a compiled kernel: addresses of tensors for what csrc/deformable_attention.h declares."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TYPE_CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}


class Kernel:
    """The CPU or the CUDA kernel; arguments as for `plain.forward` and `plain.backward`, checked by the caller."""

    def __init__(self, library: Path) -> None:
        """Open a compiled library; OSError where the system cannot."""
        opened = ctypes.CDLL(str(library))
        numbers = ctypes.POINTER(ctypes.c_int64)
        leading: list[Any] = [numbers, numbers, ctypes.c_int32, ctypes.c_int64]
        self._forward, self._backward = opened.gdino_forward, opened.gdino_backward
        for function, num_tensors in ((self._forward, 4), (self._backward, 7)):
            function.restype = ctypes.c_char_p
            function.argtypes = leading + [ctypes.c_void_p] * num_tensors

    def forward(
        self,
        value: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        sampling_locations: Tensor,
        attention_weights: Tensor,
    ) -> Tensor:
        """See `plain.forward`."""
        batch_size, _, num_heads, head_dim = value.shape
        attended = value.new_empty(batch_size, sampling_locations.shape[1], num_heads * head_dim)
        read = [argument.contiguous() for argument in (value, sampling_locations, attention_weights)]
        self._run(self._forward, spatial_shapes, read, [attended])
        return attended

    def backward(
        self,
        grad_output: Tensor,
        value: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        sampling_locations: Tensor,
        attention_weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `plain.backward`."""
        arguments = (value, sampling_locations, attention_weights, grad_output.to(value.dtype))
        read = [argument.contiguous() for argument in arguments]
        grads = [torch.zeros(argument.shape, dtype=read[1].dtype, device=value.device) for argument in read[:3]]
        self._run(self._backward, spatial_shapes, read, grads)
        grad_value, grad_locations, grad_weights = grads
        return grad_value.to(value.dtype), grad_locations, grad_weights

    @staticmethod
    def _run(
        function: Callable[..., bytes | None],
        spatial_shapes: Sequence[tuple[int, int]],
        read: list[Tensor],
        written: list[Tensor],
    ) -> None:
        value, sampling_locations = read[:2]
        _, num_queries, _, num_levels, num_points, _ = sampling_locations.shape
        sizes = (ctypes.c_int64 * 7)(*value.shape, num_queries, num_levels, num_points)
        shapes = (ctypes.c_int64 * (2 * num_levels))(*(size for shape in spatial_shapes for size in shape))
        if value.device.type == "cuda":
            place: contextlib.AbstractContextManager[object] = torch.cuda.device(value.device)
            execution = torch.cuda.current_stream(value.device).cuda_stream
        else:
            place, execution = contextlib.nullcontext(), torch.get_num_threads()
        with place:
            addresses = [tensor.data_ptr() for tensor in (*read, *written)]
            error = function(sizes, shapes, TYPE_CODES[value.dtype], execution, *addresses)
        if error is not None:
            raise RuntimeError(f"deformable attention: {error.decode()}")
