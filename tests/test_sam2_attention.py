"""Rotary attention: blocks give what the fused kernel gives, with and without gradients."""

import pytest
import torch
import torch.nn.functional as F

from sam2.modeling import attention as attention_module
from sam2.modeling.attention import (
    KEYS_AT_ONCE,
    QUERIES_AT_ONCE,
    Attention,
    RoPEAttention,
    attend_in_blocks,
    attend_to_narrow,
)


@pytest.mark.parametrize(("num_queries", "num_keys"), [(1, 1), (16, 37), (300, 20)])
@pytest.mark.parametrize("max_scores", [1, 2**23], ids=["smallest blocks", "one block"])
def test_blocks_equal_the_fused_kernel(num_queries: int, num_keys: int, max_scores: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(length, width, generator=generator)
        for length, width in ((num_queries, 8), (num_keys, 8), (num_keys, 3))
    )
    with torch.inference_mode():
        blocks = attend_in_blocks(q, k, v, max_scores)
        torch.testing.assert_close(blocks, F.scaled_dot_product_attention(q[None], k[None], v[None])[0])


@pytest.mark.parametrize(
    ("num_queries", "num_keys"),
    [
        (1, 1),
        (16, 37),
        (QUERIES_AT_ONCE[torch.float32] + 3, KEYS_AT_ONCE),
        (QUERIES_AT_ONCE[torch.bfloat16] + 3, 2),
        (40, 2 * KEYS_AT_ONCE + 5),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 40.0], ids=["usual scores", "scores that overflow"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_narrow_values_equal_the_fused_kernel(
    num_queries: int, num_keys: int, scale: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_softmax = []
    monkeypatch.setattr(
        attention_module,
        "attend_in_blocks",
        lambda *args, **kwargs: by_softmax.append(True) or attend_in_blocks(*args, **kwargs),
    )
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(length, width, generator=generator)
        for length, width in ((num_queries, 8), (num_keys, 8), (num_keys, 3))
    )
    q[0], k[0] = 3 * scale, scale  # 8 · 3 · 40² / √8 is far beyond what float32 has exponentials for
    q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    with torch.inference_mode():
        narrow = attend_to_narrow(q, k, v)
        expected = F.scaled_dot_product_attention(q.float()[None], k.float()[None], v.float()[None])[0]
        is_exact = dtype == torch.float32
        torch.testing.assert_close(narrow, expected.to(dtype), **({} if is_exact else {"atol": 0.03, "rtol": 0.03}))
    assert bool(by_softmax) == (scale > 1 and is_exact)


def test_scores_that_are_too_coarse_in_bfloat16_are_left_to_the_fused_kernel() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(length, width, generator=generator).bfloat16() for length, width in ((64, 32), (96, 32), (96, 8))
    )
    q *= 20
    exact = F.scaled_dot_product_attention(q.double()[None], k.double()[None], v.double()[None])[0]
    fused = F.scaled_dot_product_attention(q[None], k[None], F.pad(v, (0, 24))[None])[0, :, :8]
    with torch.inference_mode():
        narrow = attend_to_narrow(q, k, v)
    assert (narrow - exact).square().mean() < 1.5 * (fused - exact).square().mean()


def test_values_of_another_precision_are_read_under_autocast() -> None:
    attention = RoPEAttention(dim=32, theta=10000.0, kv_dim=8)
    q, memory = 40 * torch.randn(1, 16, 32), torch.randn(1, 48, 8)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert attention(q, 40 * memory, memory).isfinite().all()


def test_scores_that_all_vanish_are_not_lost() -> None:
    q, k, v = torch.full((2, 8), -20.0), torch.full((5, 8), 20.0), torch.arange(5.0)[:, None]
    with torch.inference_mode():
        torch.testing.assert_close(attend_to_narrow(q, k, v), torch.full((2, 1), 2.0))


@pytest.mark.parametrize("num_pointers", [0, 4])
@pytest.mark.parametrize(("num_queries", "num_memories"), [(1, 1), (1, 3), (2, 2)])
def test_inference_equals_training(num_queries: int, num_memories: int, num_pointers: int) -> None:
    torch.manual_seed(0)
    attention = RoPEAttention(dim=32, theta=10000.0, kv_dim=8)
    q, memory = torch.randn(num_queries, 16, 32), torch.randn(num_memories, 3 * 16 + num_pointers, 8)
    with_gradients = attention(q, memory + 1, memory, num_pointers)
    assert with_gradients.requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(attention(q, memory + 1, memory, num_pointers), with_gradients.detach())


@pytest.mark.parametrize(("num_queries", "num_keys"), [(3, 40), (40, 3), (1, 1), (20, 40)])
@pytest.mark.parametrize("batch", [1, 2])
def test_few_tokens_are_projected_instead_of_many_cells(batch: int, num_queries: int, num_keys: int) -> None:
    torch.manual_seed(0)
    attention = Attention(dim=32, num_heads=2, downsample_rate=2, kv_dim=24)
    q, k, v = torch.randn(batch, num_queries, 32), torch.randn(batch, num_keys, 24), torch.randn(batch, num_keys, 24)
    with_gradients = attention(q, k, v)
    assert with_gradients.requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(attention(q, k, v), with_gradients.detach(), atol=1e-5, rtol=1e-5)
