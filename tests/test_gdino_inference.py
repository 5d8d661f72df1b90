"""Around the Grounding DINO model: prompts in, boxes and phrases out as scripts written for upstream expect them."""

import shutil
import socket
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, write_tokenizer

from grounding_dino.groundingdino.text import PromptTokenizer, load_tokenizer, text_inputs

NANO = REPOSITORY / "gdino_checkpoints/nano"
MARKS = (101, 102, 1012, 1029)


@pytest.fixture(scope="module")
def tokenizer() -> PromptTokenizer:
    return load_tokenizer(NANO)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(f"network access: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize(
    "rows",
    [
        [[101, 7, 8, 1012, 9, 1012, 102]],
        [[101, 7, 1012, 102], [101, 7, 8, 9, 1029, 5, 1012, 6, 6, 1012, 102]],
        [[101, 1012, 1012, 7, 1012, 102]],
        [[101, 102]],
        [[101, 7, 8, 102]],  # nothing closes the phrase before [SEP]
        [[101, 7, 8]],
        [[7, 8, 1012, 9, 102]],
        [[7]],
    ],
)
def test_masks_and_positions_are_those_of_the_reference(rows: list[list[int]]) -> None:
    from transformers.models.grounding_dino.modeling_grounding_dino import (
        generate_masks_with_special_tokens_and_transfer_map as reference,
    )

    inputs = text_inputs(rows, MARKS)
    mask, positions = reference(inputs.input_ids, torch.tensor(MARKS))
    torch.testing.assert_close(inputs.self_attention_mask, mask)
    torch.testing.assert_close(inputs.position_ids, positions)
    assert inputs.token_mask.sum(dim=1).tolist() == [len(row) for row in rows]


def test_masks_and_positions_of_two_phrases() -> None:
    inputs = text_inputs([[101, 7, 8, 1012, 9, 1012, 102]], MARKS)
    assert inputs.position_ids.tolist() == [[0, 0, 1, 2, 0, 1, 0]]
    assert [row.nonzero().flatten().tolist() for row in inputs.self_attention_mask[0]] == [
        [0], [1, 2, 3], [1, 2, 3], [1, 2, 3], [4, 5], [4, 5], [6],
    ]  # fmt: skip


def test_a_row_does_not_depend_on_the_others() -> None:
    rows = [[101, 7, 8, 102], [101, 7, 1012, 8, 1012, 102], [101, 102]]
    together = text_inputs(rows, MARKS)
    for index, row in enumerate(rows):
        alone, length = text_inputs([row], MARKS), len(row)
        torch.testing.assert_close(together.self_attention_mask[index, :length, :length], alone.self_attention_mask[0])
        torch.testing.assert_close(together.position_ids[index, :length], alone.position_ids[0])
        assert not together.self_attention_mask[index, :length, length:].any()
        assert together.input_ids[index, length:].tolist() == [0] * (together.input_ids.shape[1] - length)


def test_no_rows_and_empty_rows() -> None:
    assert text_inputs([], MARKS).self_attention_mask.shape == (0, 0, 0)
    with pytest.raises(ValueError, match=r"at least one token in each row, got rows of \[2, 0\]"):
        text_inputs([[101, 102], []], MARKS)


def test_layout_spans_are_the_phrases_tokens(tokenizer: PromptTokenizer) -> None:
    words = [tokenizer.phrase_ids(phrase) for phrase in ("red apple", "dog", "xyzzy")]
    input_ids, spans = tokenizer.layout(words)
    assert [input_ids[start:stop] for start, stop in spans] == words
    assert input_ids == tokenizer.caption_ids("red apple. dog. xyzzy.")
    assert (input_ids[0], input_ids[-1]) == (101, 102)
    assert [input_ids[stop] for _, stop in spans] == [1012] * 3
    assert tokenizer.layout([]) == ([101, 102], [])


@pytest.mark.parametrize(
    "phrase", ["dog", "St. Bernard", "what? a dog", "[SEP] dog", "straße", "犬", "x" * 300, "3.5 inch", "🍎 apple"]
)
def test_a_phrase_never_splits_in_two(tokenizer: PromptTokenizer, phrase: str) -> None:
    ids = tokenizer.phrase_ids(phrase)
    assert ids
    assert not set(ids) & set(tokenizer.special_ids)


@pytest.mark.parametrize("phrase", ["", "?", "[SEP]", " . "])
def test_a_phrase_of_nothing_is_a_value_error(tokenizer: PromptTokenizer, phrase: str) -> None:
    with pytest.raises(ValueError, match="nothing a text encoder could read"):
        tokenizer.phrase_ids(phrase)


TEXTS = ["a red apple. dog.", "St. Bernard? Yes, it's!", "Straße É 犬", "x" * 120 + " dog", "don't [SEP] a-b"]


@pytest.mark.parametrize("source", ["tokenizer.json", "vocab.txt"])
def test_tokens_are_those_of_transformers(tmp_path: Path, source: str, no_network: None) -> None:
    from transformers import AutoTokenizer

    if source == "vocab.txt":
        write_tokenizer(tmp_path)
    else:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(NANO / name, tmp_path)
    ours, theirs = load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    for text in TEXTS:
        assert ours.caption_ids(text) == theirs(text)["input_ids"]
        assert ours.decode(ours.caption_ids(text)) == theirs.decode(theirs(text)["input_ids"], skip_special_tokens=True)


def test_missing_tokenizer_names_the_cure(tmp_path: Path, no_network: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for folder in (None, tmp_path, tmp_path / "nowhere", "nobody/no-such-model"):
        with pytest.raises(FileNotFoundError, match=r"hf download .* tokenizer\.json --local-dir gdino_checkpoints/"):
            load_tokenizer(folder)


@pytest.mark.parametrize("content", ["{}", "no json"])
def test_another_file_is_a_value_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer\.json: not a tokenizer file"):
        load_tokenizer(tmp_path)


def test_tokenizer_of_another_model_is_a_value_error(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[UNK]\na\n.\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"expected a BERT tokenizer, got one without the tokens .*\?"):
        load_tokenizer(tmp_path)
