"""Weights and labels as upstream's scripts handle them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from grounding_dino.groundingdino.text import PromptTokenizer


def clean_state_dict(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The same without `module.` before the names."""
    return {name.removeprefix("module."): value for name, value in state_dict.items()}


def get_phrases_from_posmap(
    posmap: Tensor,
    tokenized: Mapping[str, Any],
    tokenizer: PromptTokenizer,
    left_idx: int = 0,
    right_idx: int | None = None,
) -> str:
    """The text of the tokens that a query goes with.

    Args:
        posmap: (T) bool, left as it is; T may be more than there are tokens.
        tokenized: what the tokenizer says of the caption.
        tokenizer: any with `decode`.
        left_idx: tokens up to this one are left out.
        right_idx: tokens from this one on are left out; None leaves out none.

    Raises:
        ValueError: `posmap` has more than one dimension.
    """
    if posmap.ndim != 1:
        raise ValueError(f"expected a posmap of one dimension, got shape {tuple(posmap.shape)}")
    input_ids = tokenized["input_ids"]
    stop = min(len(posmap) if right_idx is None else right_idx, len(input_ids))
    return tokenizer.decode([input_ids[i] for i in range(left_idx + 1, stop) if posmap[i]])
