"""Prompts for training the nano detector: phrases, their tokens, and which nouns each phrase means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from training.artwork import NOUNS
from training.tokenizer import FIXED_IDS, OBJECT_WORDS

ALIASES: dict[str, tuple[str, ...]] = {  # what people also type, and the nouns it means
    "apple": ("red apple", "green apple"),
    "ball": ("soccer ball", "basketball"),
    "bear": ("teddy bear",),
    "boat": ("sailboat",),
    "book": ("blue book", "green book"),
    "bunny": ("rabbit",),
    "burger": ("hamburger",),
    "car": ("red car", "blue car"),
    "cherry": ("cherries",),
    "clock": ("alarm clock",),
    "donut": ("doughnut",),
    "flower": ("sunflower", "rose"),
    "football": ("soccer ball",),
    "grape": ("grapes",),
    "heart": ("red heart", "blue heart", "green heart"),
    "motorbike": ("motorcycle",),
    "plane": ("airplane",),
    "tree": ("palm tree",),
}
COLOURS: tuple[str, ...] = ("red", "green", "blue", "yellow", "purple", "black", "white", "orange", "pink", "brown")
COLOURED: tuple[str, ...] = (
    "apple",
    "car",
    "heart",
    "book",
)  # nouns told apart by colour: other colours of them are absent
MEANINGS: dict[str, tuple[str, ...]] = {**{noun: (noun,) for noun in NOUNS}, **ALIASES}


@cache
def absent_phrases() -> tuple[str, ...]:
    """Phrases that no scene shows: everyday words, and the coloured nouns in colours they never have."""
    known = set(MEANINGS) | {word for phrase in MEANINGS for word in phrase.split()}
    words = [word for word in OBJECT_WORDS if word not in known and word.rstrip("s") not in known]
    coloured = [f"{colour} {noun}" for noun in COLOURED for colour in COLOURS if f"{colour} {noun}" not in MEANINGS]
    return tuple(sorted({*words, *coloured}))


@dataclass(frozen=True)
class Prompt:
    """One prompt as the model reads it.

    Attributes:
        input_ids: (T,) int64, "[CLS] phrase . phrase . [SEP]".
        spans: for each phrase the half-open range of its tokens.
        phrases: the phrases in their order.
    """

    input_ids: np.ndarray
    spans: list[tuple[int, int]]
    phrases: list[str]


def assemble_prompt(phrases: Sequence[str], token_ids: Mapping[str, Sequence[int]]) -> Prompt:
    """Join phrases into one prompt; `token_ids` maps each phrase to the ids of its own tokens.

    The ids are those the tokenizer gives for `". ".join(phrases) + "."`.
    """
    input_ids, spans = [FIXED_IDS["[CLS]"]], []
    for phrase in phrases:
        spans.append((len(input_ids), len(input_ids) + len(token_ids[phrase])))
        input_ids += [*token_ids[phrase], FIXED_IDS["."]]
    return Prompt(np.array([*input_ids, FIXED_IDS["[SEP]"]], np.int64), spans, list(phrases))


def random_phrases(rng: np.random.Generator, present: Sequence[str], most: int = 18) -> list[str]:
    """Draw a prompt for a scene that shows the nouns `present`: some of them, some that are absent, in any order.

    One prompt in ten is a single phrase; one noun in six is called by an alias, which then speaks for all the nouns
    it means.
    """
    shown = list(dict.fromkeys(present))
    if rng.random() < 0.1:
        chosen = [str(rng.choice(shown))] if shown and rng.random() < 0.7 else [str(rng.choice(NOUNS))]
    else:
        chosen = [noun for noun in shown if rng.random() < 0.85]
        others = [noun for noun in NOUNS if noun not in shown]
        chosen += [str(noun) for noun in rng.choice(others, int(rng.integers(1, 10)), replace=False)]
    phrases: list[str] = []
    for noun in chosen:
        names = [alias for alias, nouns in ALIASES.items() if noun in nouns]
        phrases.append(str(rng.choice(names)) if names and rng.random() < 1 / 6 else noun)
    absent = absent_phrases()
    if len(phrases) > 1:
        phrases += [absent[index] for index in rng.integers(0, len(absent), int(rng.integers(0, 4)))]
    aliased = {noun for phrase in phrases if phrase in ALIASES for noun in ALIASES[phrase]}
    phrases = [phrase for phrase in dict.fromkeys(phrases) if phrase in ALIASES or phrase not in aliased]
    rng.shuffle(phrases)
    return phrases[:most]
