"""Memory attention: the current frame's features read an object's memory (Ravi et al., 2024, section 4)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sam2.config import SAM2Config
from sam2.modeling.attention import RoPEAttention


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

    def forward(self, frame: Tensor, keys: Tensor, memory: Tensor, num_pointer_tokens: int) -> Tensor:
        """Frame (1 or N, h·w, C), keys and memory (N, L, mem_dim) → (N, h·w, C)."""
        q = self.norm1(frame)
        frame = (frame + self.self_attn(q, q, q)).expand(len(memory), -1, -1)
        frame = frame + self.cross_attn_image(self.norm2(frame), keys, memory, num_pointer_tokens)
        return frame + self.linear2(F.relu(self.linear1(self.norm3(frame))))


class MemoryAttention(nn.Module):
    """A stack of layers; objects are the batch."""

    def __init__(self, config: SAM2Config) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            MemoryAttentionLayer(config.d_model, config.mem_dim, config.memory_attention_mlp_dim, config.rope_theta)
            for _ in range(config.memory_attention_layers)
        )
        self.norm = nn.LayerNorm(config.d_model)

    def forward(
        self, frame: Tensor, frame_pe: Tensor, memory: Tensor, memory_pe: Tensor, num_pointer_tokens: int
    ) -> Tensor:
        """Condition a frame on the memories of N objects.

        Args:
            frame: (1 or N, h·w, C) features; 1 when the objects share the frame, whose first self-attention is then
                computed once.
            frame_pe: (1, h·w, C) position encoding.
            memory: (N, L, mem_dim), spatial memories of h·w tokens each, then the pointer tokens.
            memory_pe: (1 or N, L, mem_dim).
            num_pointer_tokens: how many tokens at the end are pointers.

        Returns:
            (N, h·w, C).
        """
        x = frame + 0.1 * frame_pe
        keys = memory + memory_pe
        for layer in self.layers:
            x = layer(x, keys, memory, num_pointer_tokens)
        return self.norm(x)
