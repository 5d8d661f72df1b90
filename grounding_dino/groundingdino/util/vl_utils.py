"""Which tokens of a caption belong to which of its names, under upstream's functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from grounding_dino.groundingdino.captions import Tokenized

Spans = list[list[int]]  # [first character, past the last] of each word


def create_positive_map_from_span(
    tokenized: Tokenized, token_span: Sequence[Sequence[Sequence[int]]], max_text_len: int = 256
) -> Tensor:
    """Per name the tokens of its words.

    Args:
        tokenized: what a tokenizer says of the caption.
        token_span: of N names the words, each [first character, past the last].
        max_text_len: T.

    Returns:
        (N, T) float32, of each name's tokens equal parts that add up to 1; zeros for one without any.
    """
    positive = torch.zeros(len(token_span), max_text_len)
    for row, words in enumerate(token_span):
        for first, past in words:
            tokens = [tokenized.char_to_token(char) for char in range(first, past)]
            for token in {token for token in tokens if token is not None and token < max_text_len}:
                positive[row, token] = 1.0
    return positive / (positive.sum(dim=1, keepdim=True) + 1e-6)


def build_captions_and_token_span(cat_list: Sequence[str], force_lowercase: bool) -> tuple[str, dict[str, Spans]]:
    """One caption of all names, and where the words of each name, in lower case if asked for, are in it.

    The caption is "name . name .", in the order given; a name with slashes stays as it is written.
    """
    caption = ""
    spans: dict[str, Spans] = {}
    for name in cat_list:
        shown = name.lower() if force_lowercase else name
        words: Spans = []
        for word in shown.split():
            caption += " " if caption else ""
            words.append([len(caption), len(caption) + len(word)])
            caption += word
        if words:
            caption += " ."
            spans[shown] = words
    return caption, spans


def build_id2posspan_and_caption(category_dict: Sequence[Mapping[str, object]]) -> tuple[dict[int, Spans], str]:
    """The same by COCO's categories, each with "id" and "name"."""
    names = {int(str(category["id"])): str(category["name"]).lower() for category in category_dict}
    caption, spans = build_captions_and_token_span(list(names.values()), force_lowercase=True)
    return {number: spans[name] for number, name in names.items()}, caption
