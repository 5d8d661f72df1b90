"""Upstream's function that reads a tokenizer, under its name there."""

from __future__ import annotations

from typing import Any

from grounding_dino.groundingdino.text import PromptTokenizer, tokenizer_for


def get_tokenlizer(text_encoder_type: Any) -> PromptTokenizer:
    """The tokenizer of a folder, a hub name, or a config's `text_encoder_type`; errors of `load_tokenizer`."""
    name = getattr(text_encoder_type, "text_encoder_type", text_encoder_type)
    return tokenizer_for("gdino_checkpoints/model.pth", None if name == "bert-base-uncased" else name)
