"""The attention layer around the operator: projections, where to look, how much each sample counts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from grounding_dino.groundingdino.ops.functional import deformable_attention


class MSDeformAttn(nn.Module):
    """Multi-scale deformable attention (Deformable DETR, arXiv:2010.04159, section 4.1)."""

    def __init__(self, embed_dim: int = 256, num_levels: int = 4, num_heads: int = 8, num_points: int = 4) -> None:
        super().__init__()
        if embed_dim % num_heads != 0:
            raise ValueError(f"embed_dim must be a multiple of num_heads, got {embed_dim} and {num_heads}")
        self.embed_dim = embed_dim
        self.num_levels = num_levels
        self.num_heads = num_heads
        self.num_points = num_points
        samples = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(embed_dim, samples * 2)
        self.attention_weights = nn.Linear(embed_dim, samples)
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.output_proj = nn.Linear(embed_dim, embed_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as in the paper: a head looks in a direction of its own, point p at p + 1 cells, all weights equal."""
        angles = torch.arange(self.num_heads, dtype=torch.float32) * (2 * math.pi / self.num_heads)
        directions = torch.stack((angles.cos(), angles.sin()), dim=-1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        distances = torch.arange(1, self.num_points + 1, dtype=torch.float32)
        offsets = directions[:, None, None] * distances[:, None]  # (H, 1, P, 2)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.num_levels, -1, -1).flatten())
        for weights in (self.sampling_offsets.weight, self.attention_weights.weight, self.attention_weights.bias):
            nn.init.zeros_(weights)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: Tensor,
        reference_points: Tensor,
        value_input: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Let each query look at `value_input` around its reference points.

        Args:
            query: (B, Q, C), positions added already.
            reference_points: (B, Q, L, 2) as x, y or (B, Q, L, 4) as cx, cy, w, h, in 0..1 of each level. Offsets count
                cells of the level around a point, and 1 / (2 P) of its size around a box. float32 also when the layer
                is in half precision: locations are computed in the dtype of these points.
            value_input: (B, S, C), the levels' maps flattened row by row, one after another.
            spatial_shapes: (height, width) of each of the L levels.
            padding_mask: (B, S) bool, True where `value_input` is padding and reads as zeros.

        Returns:
            (B, Q, C), `attend` and the last projection.

        Raises:
            ValueError: reference points that are neither points nor boxes for L levels, or shapes that do not fit.
        """
        return self.output_proj(self.attend(query, reference_points, value_input, spatial_shapes, padding_mask))

    def attend(
        self,
        query: Tensor,
        reference_points: Tensor,
        value_input: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """What `output_proj` is then applied to, (B, Q, C); arguments and errors as `forward`."""
        if reference_points.shape[2] != self.num_levels or reference_points.shape[3] not in (2, 4):
            raise ValueError(
                f"reference_points must be (B, Q, {self.num_levels}, 2 or 4), got {tuple(reference_points.shape)}"
            )
        value = self.value_proj(value_input)
        if padding_mask is not None:
            value = value.masked_fill_(padding_mask.unsqueeze(-1), 0)
        return deformable_attention(
            value.unflatten(-1, (self.num_heads, -1)),
            spatial_shapes,
            self._sampling_locations(self.sampling_offsets(query), reference_points, spatial_shapes),
            self._softmax_over_samples(self.attention_weights(query)),
        )

    def _softmax_over_samples(self, logits: Tensor) -> Tensor:
        samples = logits.unflatten(-1, (self.num_heads, self.num_levels * self.num_points))
        weights = samples.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
        return weights.unflatten(-1, (self.num_levels, self.num_points))

    def _sampling_locations(
        self, offsets: Tensor, reference_points: Tensor, spatial_shapes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """(B, Q, H, L, P, 2) in 0..1 from offsets (B, Q, H * L * P * 2), combined in runs of L * P * 2."""
        dtype = reference_points.dtype
        offsets = offsets.to(dtype).unflatten(-1, (self.num_heads, -1))  # (B, Q, H, L * P * 2)
        centres = self._for_every_point(reference_points[..., :2])
        if reference_points.shape[-1] == 4:
            scale = self._for_every_point(reference_points[..., 2:]) * (0.5 / self.num_points)
        else:
            sizes = [(1 / width, 1 / height) for height, width in spatial_shapes for _ in range(self.num_points)]
            scale = torch.tensor(sizes, dtype=dtype, device=offsets.device).flatten()
        locations = torch.addcmul(centres, offsets, scale)
        return locations.unflatten(-1, (self.num_levels, self.num_points, 2))

    def _for_every_point(self, per_level: Tensor) -> Tensor:
        return per_level.unsqueeze(3).expand(-1, -1, -1, self.num_points, -1).flatten(2).unsqueeze(2)  # (B, Q, 1, LP2)
