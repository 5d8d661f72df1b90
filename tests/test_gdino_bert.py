"""The text encoder of Grounding DINO: equal to transformers' BERT, with a mask and a position for every token."""

import pytest
import torch
from torch import Tensor, nn

from grounding_dino.groundingdino.models.bert import BertEncoder

TINY = {
    "vocab_size": 50,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 16,
}
Prompt = tuple[Tensor, Tensor, Tensor]


def make_encoder(**changes: int) -> BertEncoder:
    torch.manual_seed(0)
    model = BertEncoder(**(TINY | changes)).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def make_prompt(block_lengths: list[list[int]]) -> Prompt:
    """Random tokens in blocks that see only themselves, with positions counted from each block's start.

    Returns:
        (B, T) ids, (B, T, T) mask and (B, T) positions; rows are padded with tokens that see only themselves.
    """
    longest = max(sum(lengths) for lengths in block_lengths)
    ids = torch.zeros(len(block_lengths), longest, dtype=torch.int64)
    positions = torch.zeros_like(ids)
    mask = torch.eye(longest, dtype=torch.bool).repeat(len(ids), 1, 1)
    for row, lengths in enumerate(block_lengths):
        generator = torch.Generator().manual_seed(sum(lengths))
        ids[row, : sum(lengths)] = torch.randint(1, 50, (sum(lengths),), generator=generator)
        start = 0
        for length in lengths:
            block = slice(start, start + length)
            mask[row, block, block] = True
            positions[row, block] = torch.arange(length)
            start += length
    return ids, mask, positions


@pytest.fixture(scope="module")
def pair() -> tuple[BertEncoder, nn.Module]:
    """Our encoder and transformers' with the same weights; all names of the official files are the same."""
    import transformers

    ours = make_encoder()
    theirs = transformers.BertModel(transformers.BertConfig(**TINY), add_pooling_layer=False).eval()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize(
    "block_lengths", [[[1]], [[1, 4, 1]], [[16]], [[1, 9, 1], [1, 2, 3, 1]], [[1, 1], [1, 7, 12, 1], [5]]]
)
def test_equals_transformers(pair: tuple[BertEncoder, nn.Module], block_lengths: list[list[int]]) -> None:
    ours, theirs = pair
    ids, mask, positions = make_prompt(block_lengths)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask[:, None], position_ids=positions).last_hidden_state
        features = ours(ids, mask, positions)
    assert features.shape == expected.shape
    assert (features - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_batched_equals_single() -> None:
    model = make_encoder()
    block_lengths = [[1, 1], [1, 7, 5, 1], [1, 3, 1]]
    with torch.inference_mode():
        batched = model(*make_prompt(block_lengths))
        for row, lengths in enumerate(block_lengths):
            torch.testing.assert_close(batched[row : row + 1, : sum(lengths)], model(*make_prompt([lengths])))


def test_no_prompt_at_all() -> None:
    ids, mask, positions = (x[:0] for x in make_prompt([[1, 3]]))
    assert make_encoder()(ids, mask, positions).shape == (0, 4, TINY["hidden_size"])


@pytest.mark.parametrize("is_training", [False, True])
def test_tokens_that_see_nothing_are_numbers_and_change_no_other(is_training: bool) -> None:
    model = make_encoder()
    ids, mask, positions = make_prompt([[1, 4, 1], [1, 1]])
    blind = mask.clone()
    blind[1, 2:] = False
    with torch.set_grad_enabled(is_training):
        features = model(ids, blind, positions)
        torch.testing.assert_close(features, model(ids, mask, positions))
    if is_training:
        features.sum().backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_every_row_has_its_own_mask() -> None:
    model = make_encoder()
    ids, mask, positions = make_prompt([[1, 4, 1], [1, 4, 1]])
    mask[1] = True
    with torch.inference_mode():
        first, second = model(ids, mask, positions)
    assert not torch.allclose(first, second, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_close(dtype: torch.dtype) -> None:
    model = make_encoder()
    ids, mask, positions = make_prompt([[1, 4, 1], [1, 1]])
    with torch.inference_mode():
        exact = model(ids, mask, positions)
        rounded = model.to(dtype)(ids, mask, positions)
    assert rounded.dtype == dtype
    assert (rounded.float() - exact).abs().max() <= 0.05 * exact.abs().max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids, mask, positions: (ids[0], mask, positions), r"one shape \(B, T\), got \(5,\) and \(1, 5\)"),
        (lambda ids, mask, positions: (ids, mask, positions[:, :3]), r"got \(1, 5\) and \(1, 3\)"),
        (lambda ids, mask, positions: (ids, mask[0], positions), r"shape \(1, 5, 5\), got torch.bool \(5, 5\)"),
        (lambda ids, mask, positions: (ids, mask.float(), positions), r"got torch.float32 \(1, 5, 5\)"),
    ],
)
def test_what_does_not_fit_is_refused(change: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_encoder()(*change(*make_prompt([[1, 4]])))  # type: ignore[operator]


def test_heads_must_split_the_channels() -> None:
    with pytest.raises(ValueError, match="24 channels do not split into 5"):
        make_encoder(num_attention_heads=5)
