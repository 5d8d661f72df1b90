"""Memory attention: the current frame's features read an object's memory (Ravi et al., 2024, section 4)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2.config import SAM2Config
from sam2.modeling.attention import RoPEAttention

MLP_ROWS = 512  # on a CPU, tokens that go through the MLP together: its wide middle then stays in the caches


class MemoryAttentionLayer(nn.Module):
    """Self-attention over the frame, cross-attention to the memory, MLP; normalised before each."""

    def __init__(self, dim: int, mem_dim: int, mlp_dim: int, rope_theta: float) -> None:
        super().__init__()
        self.self_attn = RoPEAttention(dim, theta=rope_theta)
        self.cross_attn_image = RoPEAttention(dim, theta=rope_theta, kv_dim=mem_dim)
        self.linear1 = nn.Linear(dim, mlp_dim)
        self.linear2 = nn.Linear(mlp_dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)

    def attend_to_itself(self, frame: Tensor) -> Tensor:
        """The self-attention alone: (N, h·w, C) → (N, h·w, C)."""
        q = self.norm1(frame)
        return frame + self.self_attn(q, q, q)

    def attend_to_memory(
        self, frame: Tensor, keys: Tensor, memory: Tensor, num_pointer_tokens: int, rotations: Tensor | None
    ) -> Tensor:
        """The rest: frame (1 or N, h·w, C), keys and memory (N, L, mem_dim) → (N, h·w, C)."""
        frame = frame + self.cross_attn_image(self.norm2(frame), keys, memory, num_pointer_tokens, rotations)
        return frame + self._mlp(self.norm3(frame))

    def _mlp(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return self.linear2(F.relu(self.linear1(x)))
        rows = x.flatten(0, 1).split(MLP_ROWS)
        return torch.cat([self.linear2(self.linear1(part).relu_()) for part in rows]).view_as(x)


class MemoryAttention(nn.Module):
    """A stack of layers; objects are the batch."""

    def __init__(self, config: SAM2Config) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            MemoryAttentionLayer(config.d_model, config.mem_dim, config.memory_attention_mlp_dim, config.rope_theta)
            for _ in range(config.memory_attention_layers)
        )
        self.norm = nn.LayerNorm(config.d_model)

    def attend_to_frame(self, frame: Tensor, frame_pe: Tensor) -> Tensor:
        """What comes before any memory is read, the first self-attention: the same for all objects on a frame.

        Args:
            frame: (B, h·w, C) features.
            frame_pe: (1, h·w, C) position encoding.

        Returns:
            (B, h·w, C), for `forward`.
        """
        return self._stack()[0].attend_to_itself(frame + 0.1 * frame_pe)

    def forward(
        self,
        attended: Tensor,
        memory: Tensor,
        memory_pe: Tensor,
        num_pointer_tokens: int,
        rotations: Tensor | None = None,
    ) -> Tensor:
        """Condition a frame on the memories of N objects.

        Args:
            attended: (1 or N, h·w, C) from `attend_to_frame`; 1 when the objects share the frame.
            memory: (N, L, mem_dim), spatial memories of T tokens each, then the pointer tokens.
            memory_pe: (1 or N, L, mem_dim).
            num_pointer_tokens: how many tokens at the end are pointers.
            rotations: (T, C / 2) complex, how the tokens of a spatial memory are turned; None: as the frame's cells.

        Returns:
            (N, h·w, C).
        """
        keys = memory + memory_pe
        first, *others = self._stack()
        x = first.attend_to_memory(attended, keys, memory, num_pointer_tokens, rotations)
        for layer in others:
            x = layer.attend_to_memory(layer.attend_to_itself(x), keys, memory, num_pointer_tokens, rotations)
        return self.norm(x)

    def _stack(self) -> list[MemoryAttentionLayer]:
        return cast(list[MemoryAttentionLayer], list(self.layers))
