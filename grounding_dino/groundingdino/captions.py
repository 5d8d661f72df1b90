"""Captions as other programs hand them to the tokenizer, and captions longer than the text encoder reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tokenizers
import torch


@dataclass(frozen=True)
class CaptionPass:
    """A part of a caption that is read by itself.

    Attributes:
        input_ids: [CLS], whole phrases, [SEP].
        positions: where each of these tokens is in the caption.
    """

    input_ids: list[int]
    positions: list[int]


def caption_passes(input_ids: Sequence[int], capacity: int, closing_ids: Sequence[int]) -> list[CaptionPass]:
    """Cut a caption between phrases into as few parts as can be.

    Args:
        input_ids: of the whole caption, [CLS] and [SEP] included.
        capacity: most tokens of a part, [CLS] and [SEP] included; a phrase that is longer is a part of its own.
        closing_ids: tokens that end a phrase.
    """
    if len(input_ids) <= capacity:
        return [CaptionPass(list(input_ids), list(range(len(input_ids))))]
    last = len(input_ids) - 1
    ends = [i + 1 for i in range(1, last) if input_ids[i] in closing_ids]
    parts: list[list[int]] = [[]]
    start = 1
    for end in dict.fromkeys([*ends, last]):
        phrase = list(range(start, end))
        if parts[-1] and len(parts[-1]) + len(phrase) > capacity - 2:
            parts.append([])
        parts[-1] += phrase
        start = end
    positions = [[0, *part, last] for part in parts if part]
    return [CaptionPass([input_ids[i] for i in part], part) for part in positions]


class Tokenized(dict[str, Any]):
    """What a tokenizer says of one text or several, under the keys of Hugging Face's tokenizers."""

    def __init__(self, input_ids: list[list[int]], encodings: list[tokenizers.Encoding], is_batch: bool) -> None:
        self.encodings = encodings
        rows = {
            "input_ids": input_ids,
            "token_type_ids": [[0] * len(ids) for ids in input_ids],
            "attention_mask": [[1] * len(ids) for ids in input_ids],
        }
        super().__init__(rows if is_batch else {key: values[0] for key, values in rows.items()})

    def as_tensors(self) -> Tokenized:
        """The same with (B, T) int64 tensors, padded with zeros at the right."""
        for key, value in self.items():
            rows = value if value and isinstance(value[0], list) else [value]
            padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
            self[key] = padded
        return self

    def to(self, device: torch.device | str) -> Tokenized:
        """Move the tensors."""
        for key, value in self.items():
            self[key] = value.to(device)
        return self

    def char_to_token(self, *index: int) -> int | None:
        """Position of the token that a character, of a text (the first), belongs to; None between words."""
        row, char = index if len(index) == 2 else (0, index[0])
        position = self.encodings[row].char_to_token(char)
        return None if position is None else position + 1  # [CLS]

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None
