"""Prompts as the text encoder reads them: token ids, sub-sentence masks and positions, and each phrase's own tokens.

A text is laid out as ``[CLS] phrase . phrase . [SEP]``. Between two of the marks [CLS], [SEP], "." and "?" lies a
sub-sentence; words see the words of their own sub-sentence only, and positions restart in each (Grounding DINO paper,
section 3.4), so that a phrase means the same whatever stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch
from torch import Tensor

from checkpoint_files.configs import read_json_object
from grounding_dino.groundingdino.captions import Tokenized

DEFAULT_TOKENIZER = "bert-base-uncased"
_MARKS = ("[CLS]", "[SEP]", ".", "?")
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")


@dataclass(frozen=True)
class TextInputs:
    """A batch of B token sequences, padded at the right to the longest of T tokens.

    Attributes:
        input_ids: (B, T) int64, 0 on padding.
        token_mask: (B, T) bool, False on padding.
        self_attention_mask: (B, T, T) bool, True where the token of row i may attend to the token of column j.
        position_ids: (B, T) int64, 0-based within each sub-sentence.
    """

    input_ids: Tensor
    token_mask: Tensor
    self_attention_mask: Tensor
    position_ids: Tensor

    def to(self, device: torch.device | str) -> TextInputs:
        """The same inputs on another device."""
        return TextInputs(
            self.input_ids.to(device),
            self.token_mask.to(device),
            self.self_attention_mask.to(device),
            self.position_ids.to(device),
        )


def text_inputs(input_ids: Sequence[Sequence[int]], special_ids: Sequence[int]) -> TextInputs:
    """Pad token sequences and work out what may attend to what.

    A sub-sentence ends with the mark that closes it, and its tokens see each other. The tokens of the last one,
    normally [SEP] alone, see only themselves, as does padding. Each row is what it would be without the others.

    Args:
        input_ids: B sequences of at least one token id each.
        special_ids: the ids that close a sub-sentence, see `PromptTokenizer.special_ids`.

    Raises:
        ValueError: when a sequence is empty.
    """
    on_cpu: dict[str, Any] = {"device": "cpu", "dtype": torch.int64}  # whatever the default device is
    lengths = torch.tensor([len(row) for row in input_ids], **on_cpu)
    if (lengths == 0).any():
        raise ValueError(f"expected at least one token in each row, got rows of {lengths.tolist()} tokens")
    length = max((len(row) for row in input_ids), default=0)
    padded = torch.tensor([[*row, *[0] * (length - len(row))] for row in input_ids], **on_cpu)
    padded = padded.reshape(len(input_ids), length)
    column = torch.arange(length, **on_cpu)
    token_mask = column < lengths[:, None]

    closes = torch.isin(padded, torch.tensor(list(special_ids), **on_cpu)) & token_mask
    block = closes.cumsum(dim=1) - closes.long()  # (B, T) number of the sub-sentence a token belongs to
    last_block = block.gather(1, lengths[:, None] - 1)
    is_closed = (block < last_block) & token_mask
    same_block = (block[:, :, None] == block[:, None, :]) & is_closed[:, :, None]  # (B, T, T)

    opens = torch.ones_like(closes)
    opens[:, 1:] = closes[:, :-1]
    first_of_block = torch.where(opens, column, 0)
    if length:
        first_of_block = first_of_block.cummax(dim=1).values
    return TextInputs(
        input_ids=padded,
        token_mask=token_mask,
        self_attention_mask=same_block | torch.eye(length, dtype=torch.bool, device="cpu"),
        position_ids=torch.where(is_closed, column - first_of_block, 0),
    )


class PromptTokenizer:
    """A BERT word-piece tokenizer that lays out phrases for Grounding DINO.

    Args:
        tokenizer: of any BERT vocabulary that has the tokens [CLS], [SEP], "." and "?".

    Raises:
        ValueError: when it lacks one of those tokens.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        vocabulary = tokenizer.get_vocab()
        ids = {mark: vocabulary[mark] for mark in _MARKS if mark in vocabulary}
        missing = [mark for mark in _MARKS if mark not in ids]
        if missing:
            raise ValueError(f"expected a BERT tokenizer, got one without the tokens {' '.join(missing)}")
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.cls_id, self.sep_id, self.stop_id, self.question_id = (ids[mark] for mark in _MARKS)

    @property
    def special_ids(self) -> tuple[int, int, int, int]:
        """Ids of the marks that close a sub-sentence: [CLS], [SEP], "." and "?"."""
        return self.cls_id, self.sep_id, self.stop_id, self.question_id

    def phrase_ids(self, phrase: str) -> list[int]:
        """Token ids of one phrase, without the marks that would split it in two ("st. bernard" → "st bernard").

        Raises:
            ValueError: when nothing is left of the phrase.
        """
        encoded = self._tokenizer.encode(phrase, add_special_tokens=False)
        ids = [token_id for token_id in encoded.ids if token_id not in self.special_ids]
        if not ids:
            raise ValueError(f"the phrase {phrase!r} has nothing a text encoder could read")
        return ids

    def layout(self, phrases: Sequence[Sequence[int]]) -> tuple[list[int], list[tuple[int, int]]]:
        """Put phrases in one text.

        Args:
            phrases: token ids of each phrase, see `phrase_ids`. Each takes one token more, for the "." behind it, and
                the text two more, for [CLS] and [SEP].

        Returns:
            input_ids: ``[CLS] phrase . phrase . [SEP]``.
            spans: per phrase, its first and past-the-last position in `input_ids`, the "." left out.
        """
        input_ids, spans = [self.cls_id], []
        for ids in phrases:
            spans.append((len(input_ids), len(input_ids) + len(ids)))
            input_ids += [*ids, self.stop_id]
        return [*input_ids, self.sep_id], spans

    def caption_ids(self, caption: str) -> list[int]:
        """Token ids of a text taken as it is, marks included, between [CLS] and [SEP]."""
        return [self.cls_id, *self._tokenizer.encode(caption, add_special_tokens=False).ids, self.sep_id]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, word pieces joined; [CLS], [SEP] and the like are left out."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def __call__(self, text: str | Sequence[str], return_tensors: str | None = None, **ignored: object) -> Tokenized:
        """Tokens as Hugging Face's tokenizers give them: lists, or with `return_tensors="pt"` padded tensors.

        Args:
            text: one or several, taken as they are.
            return_tensors: None or "pt".
            ignored: other arguments of those tokenizers (padding, truncation): nothing is cut, tensors are padded.
        """
        texts = [text] if isinstance(text, str) else list(text)
        encodings = [self._tokenizer.encode(one, add_special_tokens=False) for one in texts]
        ids = [[self.cls_id, *encoding.ids, self.sep_id] for encoding in encodings]
        tokenized = Tokenized(ids, encodings, is_batch=not isinstance(text, str))
        return tokenized if return_tensors is None else tokenized.as_tensors()

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> int | list[int]:
        """Ids of tokens of the vocabulary; those of [UNK] for others."""
        vocabulary = self._tokenizer.get_vocab()
        ids = [
            vocabulary.get(token, vocabulary["[UNK]"]) for token in ([tokens] if isinstance(tokens, str) else tokens)
        ]
        return ids[0] if isinstance(tokens, str) else ids


def load_tokenizer(folder: str | Path | None = None) -> PromptTokenizer:
    """Read a tokenizer from a folder, or the one of the official models.

    Args:
        folder: a local folder with `tokenizer.json` or `vocab.txt`, which is read with no network access; or the name
            of a BERT model on the Hugging Face hub, which is looked for in the hub's cache on this machine first. None
            is "bert-base-uncased", which all official Grounding DINO models use.

    Raises:
        FileNotFoundError: when the files are not there, or the hub cannot be reached; names the command that brings
            them.
        ValueError: when the files hold no BERT tokenizer.
    """
    name = DEFAULT_TOKENIZER if folder is None else str(folder)
    path = find_tokenizer(name) if Path(name).is_dir() else None
    if path is None:
        if Path(name).is_dir():
            raise FileNotFoundError(f"{name} holds neither {' nor '.join(_TOKENIZER_FILES)}; {_cure(name)}")
        path = _fetch(name)
    try:
        tokenizer = _read(path)
    except OSError:
        raise
    except Exception as problem:  # `tokenizers` raises nothing narrower
        raise ValueError(f"{path}: not a tokenizer file: {problem}") from problem
    try:
        return PromptTokenizer(tokenizer)
    except ValueError as problem:
        raise ValueError(f"{path}: {problem}") from problem


def tokenizer_for(checkpoint: str | Path, folder: str | Path | None = None) -> PromptTokenizer:
    """Read the tokenizer that goes with a checkpoint; arguments and errors as in `load_tokenizer`.

    Where no folder is given, the checkpoint's own folder is looked in, then a folder "bert-base-uncased" beside the
    checkpoint.
    """
    own_folder = Path(checkpoint) if Path(checkpoint).is_dir() else Path(checkpoint).parent
    beside = [own_folder, own_folder / DEFAULT_TOKENIZER, own_folder.parent / DEFAULT_TOKENIZER]
    found = next((candidate for candidate in beside if find_tokenizer(candidate)), None)
    return load_tokenizer(found if folder is None else folder)


def find_tokenizer(folder: str | Path) -> Path | None:
    """The tokenizer's file in a folder, or None."""
    candidates = [Path(folder) / file_name for file_name in _TOKENIZER_FILES]
    return next((path for path in candidates if path.is_file()), None)


def _read(path: Path) -> tokenizers.Tokenizer:
    if path.suffix == ".json":
        return tokenizers.Tokenizer.from_file(str(path))
    settings_path = path.with_name("tokenizer_config.json")
    settings = read_json_object(settings_path) if settings_path.is_file() else {}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece.from_file(str(path), unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=settings.get("do_lower_case", True))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return tokenizer


def _fetch(name: str) -> Path:
    """Path of the tokenizer's file of a hub model, from the hub's cache if it is there."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        for file_name in _TOKENIZER_FILES:
            try:
                return Path(hf_hub_download(name, file_name, local_files_only=True))
            except LocalEntryNotFoundError:
                continue
        return Path(hf_hub_download(name, _TOKENIZER_FILES[0]))
    except (OSError, ValueError) as problem:  # ValueError: not a name the hub could have
        raise FileNotFoundError(
            f"the tokenizer {name!r} is no local folder, not in the cache of this machine, and could not be fetched "
            f"({type(problem).__name__}); {_cure(name)}"
        ) from problem


def _cure(name: str) -> str:
    if name == DEFAULT_TOKENIZER or Path(name).is_dir() or name.startswith((".", "/", "~")):
        return (
            "where there is a network, run: gdino_checkpoints/download_ckpts.sh bert-tokenizer, and give the folder "
            "gdino_checkpoints as the tokenizer if the checkpoint lies elsewhere"
        )
    folder = f"gdino_checkpoints/{Path(name).name}"
    return (
        f"where there is a network, run: hf download {name} tokenizer.json --local-dir {folder}, and give the folder "
        f"{folder} as the tokenizer"
    )
