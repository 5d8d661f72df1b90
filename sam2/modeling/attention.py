"""Multi-head attention as SAM uses it: separate projections, an inner width of its own, optional rotary positions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2.modeling.layers import is_plain_inference
from sam2.modeling.position_encoding import rope_rotations, rotate

# scores that stay in a CPU's caches until they have been used; in bfloat16 units for matrices want longer products
QUERIES_AT_ONCE = {torch.float32: 512, torch.bfloat16: 4096}
KEYS_AT_ONCE = 1024
ROWS_AT_ONCE = 128  # of each grid of keys that are turned together, for the same reason
# of a query's exponentials: far from where float32 loses digits; in bfloat16 scores stay below 17, rounded by 0.03
SMALLEST_TOTAL = 1e-20
LARGEST_TOTAL = {torch.float32: 1e30, torch.bfloat16: 2.0**24}


class Attention(nn.Module):
    """Queries (B, Q, C) attend to keys and values (B, K, C_kv); the inner width is C / `downsample_rate`."""

    def __init__(self, dim: int, num_heads: int, downsample_rate: int = 1, kv_dim: int | None = None) -> None:
        super().__init__()
        inner_dim = dim // downsample_rate
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, inner_dim)
        self.k_proj = nn.Linear(kv_dim or dim, inner_dim)
        self.v_proj = nn.Linear(kv_dim or dim, inner_dim)
        self.out_proj = nn.Linear(inner_dim, dim)

    def split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, L, head_dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if q.dtype == torch.float32 and is_plain_inference(q):
            # Projecting many cells to be compared with few tokens is the same as projecting the tokens back.
            num_probes, inner_dim = self.num_heads * min(q.shape[1], k.shape[1]), self.q_proj.out_features
            if num_probes <= inner_dim and q.shape[1] < k.shape[1]:
                return self._few_read_many(q, k, v)
            if num_probes <= inner_dim and k.shape[1] < q.shape[1]:
                return self._many_read_few(q, k, v)
        q, k, v = self.split_heads(self.q_proj(q)), self.split_heads(self.k_proj(k)), self.split_heads(self.v_proj(v))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def _few_read_many(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of few queries: no key and no value is projected, only what is read of them."""
        heads = self.num_heads
        head_dim = self.q_proj.out_features // heads
        probes = self.split_heads(self.q_proj(q)) * head_dim**-0.5  # (B, heads, Q, head_dim)
        probes = probes @ self.k_proj.weight.unflatten(0, (heads, -1))  # (B, heads, Q, C_kv)
        # the bias of the keys adds as much to all scores of a query
        weights = torch.softmax(probes.flatten(1, 2) @ k.transpose(1, 2), dim=-1)  # (B, heads · Q, K)
        read = (weights @ v).unflatten(1, (heads, -1))  # (B, heads, Q, C_kv)
        read = read @ self.v_proj.weight.unflatten(0, (heads, -1)).transpose(1, 2)
        return self.out_proj(read.transpose(1, 2).flatten(2) + self.v_proj.bias)

    def _many_read_few(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention to few keys: no query is projected, and each value only once through both projections."""
        heads = self.num_heads
        head_dim = self.q_proj.out_features // heads
        keys = self.split_heads(self.k_proj(k)) * head_dim**-0.5  # (B, heads, K, head_dim)
        probes = (keys @ self.q_proj.weight.unflatten(0, (heads, -1))).flatten(1, 2)  # (B, heads · K, C)
        offsets = (keys @ self.q_proj.bias.view(heads, head_dim, 1)).flatten(1)  # (B, heads · K)
        scores = torch.baddbmm(offsets[:, :, None], probes, q.transpose(1, 2))  # (B, heads · K, Q)
        weights = torch.softmax(scores.unflatten(1, (heads, -1)), dim=2).flatten(1, 2)
        values = self.split_heads(self.v_proj(v)) @ self.out_proj.weight.T.unflatten(0, (heads, -1))
        return torch.baddbmm(self.out_proj.bias, weights.transpose(1, 2), values.flatten(1, 2))


class RoPEAttention(Attention):
    """Attention with one head whose queries and keys are cells of a square grid, or several such grids one after
    another, turned by their position; a tail of keys (object pointers) has no position."""

    def __init__(self, dim: int, theta: float, kv_dim: int | None = None) -> None:
        super().__init__(dim, num_heads=1, kv_dim=kv_dim)
        self.theta = theta

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        num_keys_without_position: int = 0,
        key_rotations: Tensor | None = None,
        received: Tensor | None = None,
    ) -> Tensor:
        """Queries (1 or B, Q, C), keys and values (B, K, C_kv) → (B, Q, C).

        Args:
            q, k, v: see above.
            num_keys_without_position: how many keys at the end are not turned.
            key_rotations: (T, C / 2) or (B, T, C / 2) complex, how the others are turned, T by T; None: as the queries.
            received: (B, K) float32, to which the attention that each key gets, summed over the queries, is added.
        """
        q = self.q_proj(q)
        side = math.isqrt(q.shape[1])
        rotations = rope_rotations(q.shape[2], side, side, self.theta, q.device)
        q = rotate(q, rotations).expand(len(k), -1, -1)
        if key_rotations is not None:
            rotations = key_rotations
        if received is not None or (v.shape[2] < q.shape[2] and is_plain_inference(q)):
            # An average of projected values is the projected average of the values, which are narrower.
            turns = rotations.expand(len(k), -1, -1)
            attended = [
                attend_to_narrow(
                    q[i],
                    self._turned_keys(k[i], num_keys_without_position, turns[i]),
                    v[i],
                    received=None if received is None else received[i],
                )
                for i in range(len(k))
            ]
            return self.out_proj(self.v_proj(torch.stack(attended)))
        k = self._turned_keys(k, num_keys_without_position, rotations)
        return self.out_proj(F.scaled_dot_product_attention(q, k, self.v_proj(v)))

    def _turned_keys(self, k: Tensor, num_without_position: int, rotations: Tensor) -> Tensor:
        """Projected keys (..., K, C) of (..., K, C_kv), all but the last few turned."""
        k = self.k_proj(k)
        num_turned = k.shape[-2] - num_without_position
        grids = k[..., :num_turned, :].unflatten(-2, (-1, rotations.shape[-2]))  # (..., grids, T, C)
        if is_plain_inference(k):
            parts = zip(grids.split(ROWS_AT_ONCE, -2), rotations.unsqueeze(-3).split(ROWS_AT_ONCE, -2), strict=True)
            for part, turns in parts:
                turned = part.float()  # of float32 no copy
                torch.view_as_complex(turned.unflatten(-1, (-1, 2))).mul_(turns)
                if turned.dtype != k.dtype:
                    part.copy_(turned)
            return k
        turned = rotate(grids, rotations.unsqueeze(-3)).flatten(-3, -2)
        return turned if num_without_position == 0 else torch.cat((turned, k[..., num_turned:, :]), dim=-2)


def attend_to_narrow(q: Tensor, k: Tensor, v: Tensor, received: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention for values narrower than the keys, which PyTorch's fused CPU kernel cannot take.

    Args:
        q: (Q, C).
        k: (K, C).
        v: (K, C_v).
        received: (K,) float32, to which the weight of each key, summed over the queries, is added.

    Returns:
        (Q, C_v).
    """
    v = v.to(q.dtype)  # under autocast it may have another
    if received is None:
        totals = exponential_totals(q, k, v)
        total = totals[:, -1:]
        if total.min() > SMALLEST_TOTAL and total.max() < LARGEST_TOTAL[q.dtype]:
            return (totals[:, :-1] / total).to(q.dtype)
        if q.dtype != torch.float32:
            wide = F.pad(v, (0, k.shape[1] - v.shape[1]))
            return F.scaled_dot_product_attention(q[None, None], k[None, None], wide[None, None])[0, 0, :, : v.shape[1]]
    return attend_in_blocks(q, k, v, received=received)


def exponential_totals(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(Q, C_v + 1) float32: for each query the sum of the values times the exponentials of their scores, and that of
    the exponentials; their ratio is attention.

    A softmax takes the largest score from the others first, so that no exponential overflows, which is two more passes
    over all scores. Scores are rarely so large; where they are, a total says so.
    """
    is_half = q.dtype == torch.bfloat16
    # In bfloat16 powers of two are computed faster. A tile's scores and products are rounded, the tiles' sum is not.
    q = q * (q.shape[1] ** -0.5 * math.log2(math.e) if is_half else q.shape[1] ** -0.5)
    values_and_one = F.pad(v, (0, 1), value=1.0)
    totals = q.new_zeros(len(q), v.shape[1] + 1, dtype=torch.float32)
    num_queries = QUERIES_AT_ONCE[q.dtype]
    scores = q.new_empty(num_queries * KEYS_AT_ONCE)
    for queries, sums in zip(q.split(num_queries), totals.split(num_queries), strict=True):
        for keys, values in zip(k.split(KEYS_AT_ONCE), values_and_one.split(KEYS_AT_ONCE), strict=True):
            tile = scores[: len(queries) * len(keys)].view(len(queries), len(keys))
            torch.mm(queries, keys.T, out=tile)
            if is_half:
                sums += tile.exp2_() @ values
            else:
                sums.addmm_(tile.exp_(), values)
    return totals


def attend_in_blocks(
    q: Tensor, k: Tensor, v: Tensor, max_scores: int = 2**23, received: Tensor | None = None
) -> Tensor:
    """The same by softmax, of so many scores at a time; arguments as in `attend_to_narrow`."""
    num_queries, num_keys = len(q), len(k)
    block = min(num_queries, 256, max(16, max_scores // num_keys))
    q = q * q.shape[1] ** -0.5
    scores = q.new_empty(block, num_keys)
    out = q.new_empty(num_queries, v.shape[1])
    for start in range(0, num_queries, block):
        rows = slice(start, start + block)
        weights = scores[: len(q[rows])]
        torch.mm(q[rows], k.T, out=weights)
        torch.softmax(weights, dim=-1, out=weights)
        if received is not None:
            received += weights.sum(dim=0, dtype=torch.float32)
        torch.mm(weights, v, out=out[rows])
    return out
