"""Memory attention: the current frame's features read an object's memory (Ravi et al., 2024, section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2.config import SAM2Config
from sam2.modeling.attention import RoPEAttention

MLP_ROWS = 512  # on a CPU, tokens that go through the MLP together: its wide middle then stays in the caches


# how the layers of all SAM 2 models are wired, under the names of facebookresearch/sam2's arguments
_LAYER_FIXED = {
    "activation": "relu",
    "pos_enc_at_attn": False,
    "pos_enc_at_cross_attn_keys": True,
    "pos_enc_at_cross_attn_queries": False,
}
_STACK_FIXED = {"pos_enc_at_input": True, "batch_first": True}


class MemoryAttentionLayer(nn.Module):
    """Self-attention over the frame, cross-attention to the memory, MLP; normalised before each.

    Args:
        d_model: C, channels of the frame.
        dim_feedforward: width of the MLP.
        self_attention: of the frame's cells.
        cross_attention: of the frame's cells to the memory's tokens.
        dropout: accepted for compatibility; nothing is dropped, in training either.
        wiring: facebookresearch/sam2's other arguments, which have one value in all models.

    Raises:
        ValueError: another wiring.
    """

    def __init__(
        self,
        d_model: int,
        dim_feedforward: int,
        self_attention: nn.Module,
        cross_attention: nn.Module,
        dropout: float = 0.0,
        **wiring: Any,
    ) -> None:
        super().__init__()
        check_wiring(type(self).__name__, wiring, _LAYER_FIXED)
        self.self_attn = self_attention
        self.cross_attn_image = cross_attention
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.norm3 = nn.LayerNorm(d_model)

    def attend_to_itself(self, frame: Tensor) -> Tensor:
        """The self-attention alone: (N, h·w, C) → (N, h·w, C)."""
        q = self.norm1(frame)
        return frame + self.self_attn(q, q, q)

    def attend_to_memory(
        self,
        frame: Tensor,
        keys: Tensor,
        memory: Tensor,
        num_pointer_tokens: int,
        rotations: Tensor | None,
        received: Tensor | None = None,
    ) -> Tensor:
        """The rest: frame (1 or N, h·w, C), keys and memory (N, L, mem_dim) → (N, h·w, C)."""
        frame = frame + self.cross_attn_image(self.norm2(frame), keys, memory, num_pointer_tokens, rotations, received)
        return frame + self._mlp(self.norm3(frame))

    def _mlp(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return self.linear2(F.relu(self.linear1(x)))
        rows = x.flatten(0, 1).split(MLP_ROWS)
        return torch.cat([self.linear2(self.linear1(part).relu_()) for part in rows]).view_as(x)


class MemoryAttention(nn.Module):
    """A stack of layers; objects are the batch.

    Args:
        d_model: C, channels of the frame.
        layer: the first; the others are copies of it.
        num_layers: how many.
        wiring: facebookresearch/sam2's other arguments, which have one value in all models.

    Raises:
        ValueError: another wiring.
    """

    def __init__(self, d_model: int, layer: nn.Module, num_layers: int, **wiring: Any) -> None:
        super().__init__()
        check_wiring(type(self).__name__, wiring, _STACK_FIXED)
        self.layers = nn.ModuleList([layer, *(deepcopy(layer) for _ in range(num_layers - 1))])
        self.norm = nn.LayerNorm(d_model)

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
        received: Tensor | None = None,
        key_scales: Tensor | None = None,
    ) -> Tensor:
        """Condition a frame on the memories of N objects.

        Args:
            attended: (1 or N, h·w, C) from `attend_to_frame`; 1 when the objects share the frame.
            memory: (N, L, mem_dim), spatial memories of T tokens each, then the pointer tokens.
            memory_pe: (1 or N, L, mem_dim).
            num_pointer_tokens: how many tokens at the end are pointers.
            rotations: (T, C / 2) complex, how the tokens of a spatial memory are turned, or (N, L - pointers, C / 2) of
                all of them; None: as the frame's cells.
            received: (N, L) float32, to which the attention that each token gets in all layers is added.
            key_scales: (N, L), what each token is multiplied by as a key, its values staying; None: 1.

        Returns:
            (N, h·w, C).
        """
        keys = memory + memory_pe
        if key_scales is not None:
            keys = keys * key_scales.unsqueeze(-1)
        first, *others = self._stack()
        x = first.attend_to_memory(attended, keys, memory, num_pointer_tokens, rotations, received)
        for layer in others:
            x = layer.attend_to_memory(layer.attend_to_itself(x), keys, memory, num_pointer_tokens, rotations, received)
        return self.norm(x)

    def _stack(self) -> list[MemoryAttentionLayer]:
        return cast(list[MemoryAttentionLayer], list(self.layers))


def build_memory_attention(config: SAM2Config) -> MemoryAttention:
    """The stack that `config` describes, each layer with random weights of its own."""
    dim, theta = config.d_model, config.rope_theta
    layers = [
        MemoryAttentionLayer(
            dim,
            config.memory_attention_mlp_dim,
            self_attention=RoPEAttention(dim, theta=theta),
            cross_attention=RoPEAttention(dim, theta=theta, kv_dim=config.mem_dim),
        )
        for _ in range(config.memory_attention_layers)
    ]
    attention = MemoryAttention(dim, layers[0], num_layers=1)
    attention.layers.extend(layers[1:])
    return attention


def check_wiring(name: str, given: Mapping[str, Any], only: Mapping[str, Any]) -> None:
    """Raise ValueError for an argument that is not among `only`, or has another value than the one there."""
    for key, value in given.items():
        if key not in only or value != only[key]:
            allowed = f"only {key}={only[key]!r} is supported" if key in only else "there is no such argument"
            raise ValueError(f"{name}: {allowed}, got {key}={value!r}")
