"""Prompts for training the nano detector: phrases, their tokens, and which nouns each phrase means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from training.artwork import NOUNS
from training.detector_names import (
    ALIASES,
    COMMON,
    MAY_ALSO_BE_MATRIX,
    MEANINGS,
    NAME_INDEX,
    NAME_OF_LABEL,
    NAMES,
    UNSEEN_PHRASES,
    WORDS_SELDOM_SEEN,
)
from training.photos import Photo
from training.tokenizer import FIXED_IDS, OBJECT_WORDS

COLOURS: tuple[str, ...] = ("red", "green", "blue", "yellow", "purple", "black", "white", "orange", "pink", "brown")
COLOURED: tuple[str, ...] = (
    "apple",
    "car",
    "heart",
    "book",
)  # nouns told apart by colour: in drawings, other colours of them are absent
ALIASES_OF: dict[str, list[str]] = {
    name: [alias for alias, names in ALIASES.items() if name in names] for name in NAMES
}


@cache
def absent_phrases() -> tuple[str, ...]:
    """Phrases that no drawn scene shows: everyday words, and the coloured nouns in colours they never have."""
    known = {word for phrase in (*MEANINGS, *UNSEEN_PHRASES) for word in (phrase, *phrase.split())}
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


# ---- what an image says about phrases ----


def name_index(label: str) -> int | None:
    """The index in `NAMES` of what a photograph's label calls an object; None if the detector does not learn it."""
    return NAME_INDEX.get(NAME_OF_LABEL.get(label, label))


def absent_names(photo: Photo) -> np.ndarray:
    """(len(NAMES),) bool: names that a photograph surely does not show.

    They are the unlabelled ones of its vocabulary, what they include (no car, no red car), and things that would be
    its subject if it showed them.
    """
    vocabulary = np.array([index for index in map(name_index, sorted(photo.vocabulary)) if index is not None], int)
    absent = ~COMMON
    absent[vocabulary] = True
    labelled = labelled_names(photo)
    absent[labelled] = False
    # a part of a name is absent with it; it is unknown where an object of that name is labelled
    for index in vocabulary[~labelled[vocabulary]]:
        absent[MAY_ALSO_BE_MATRIX[index] & ~labelled & np.isin(np.arange(len(NAMES)), _DRAWN)] = True
    absent[MAY_ALSO_BE_MATRIX[labelled].any(0)] = False
    return absent


def labelled_names(photo: Photo) -> np.ndarray:
    """(len(NAMES),) bool: names of a photograph's objects, crowds included."""
    labelled = np.zeros(len(NAMES), bool)
    labelled[[index for index in map(name_index, photo.names) if index is not None]] = True
    return labelled


_DRAWN = np.arange(len(NOUNS))


@cache
def meaning_matrix(phrases: tuple[str, ...]) -> np.ndarray:
    """(P, len(NAMES)) bool: which names each phrase means; none for a phrase that is always absent."""
    matrix = np.zeros((len(phrases), len(NAMES)), bool)
    for row, phrase in enumerate(phrases):
        matrix[row, [NAME_INDEX[name] for name in MEANINGS.get(phrase, ())]] = True
    return matrix


def answerable(phrases: tuple[str, ...], labelled: np.ndarray, absent: np.ndarray | None) -> np.ndarray:
    """Which phrases have a certain answer on an image.

    Args:
        phrases: P phrases.
        labelled: (len(NAMES),) bool, names of the image's objects.
        absent: (len(NAMES),) bool, names it surely does not show; None for a drawn scene, about which all is known.

    Returns:
        (P,) bool: every name the phrase means is labelled or surely absent, and no labelled object of another name
        may also be what the phrase means. A phrase without a meaning has an answer where all is known, and if it
        names something that is seldom seen.
    """
    if absent is None:
        return np.ones(len(phrases), bool)
    means = meaning_matrix(phrases)
    known = labelled | absent
    included = (means & known).astype(np.float32) @ MAY_ALSO_BE_MATRIX > 0  # a red car, where "car" is meant too
    unknown = (means & ~known & ~included).any(1)
    may_be_meant = means.astype(np.float32) @ MAY_ALSO_BE_MATRIX.T > 0
    doubtful = (may_be_meant & labelled & ~means).any(1)
    seldom = np.array([phrase in _SELDOM for phrase in phrases], bool)
    return np.where(means.any(1), ~unknown & ~doubtful, seldom)


_SELDOM = frozenset(WORDS_SELDOM_SEEN)


def random_phrases(
    rng: np.random.Generator, present: Sequence[str], most: int = 18, absent: np.ndarray | None = None
) -> list[str]:
    """Draw a prompt for an image that shows the names `present`: some of them, some that are absent, in any order.

    One prompt in ten is a single phrase; one name in six is called by an alias, which then speaks for all the names
    it means.

    Args:
        rng: decides.
        present: names of the image's objects.
        most: phrases of the prompt at most.
        absent: (len(NAMES),) bool, names it surely does not show; None for a drawn scene, about which all is known.
    """
    shown = list(dict.fromkeys(present))
    surely_absent = [
        name for index, name in enumerate(NAMES) if name not in shown and (absent is None or absent[index])
    ]
    if rng.random() < 0.1:
        chosen = [str(rng.choice(shown))] if shown and rng.random() < 0.7 else [str(rng.choice(surely_absent))]
    else:
        chosen = [noun for noun in shown if rng.random() < 0.85]
        count = min(int(rng.integers(1, 10)), len(surely_absent))
        chosen += [str(noun) for noun in rng.choice(surely_absent, count, replace=False)]
    phrases: list[str] = []
    for name in chosen:
        aliases = ALIASES_OF[name]
        phrases.append(str(rng.choice(aliases)) if aliases and rng.random() < 1 / 6 else name)
    never_shown = absent_phrases() if absent is None else WORDS_SELDOM_SEEN
    if len(phrases) > 1:
        phrases += [never_shown[index] for index in rng.integers(0, len(never_shown), int(rng.integers(0, 4)))]
    # a name may be an alias of others, "apple" for one: what a wider phrase ("fruit") means is not asked for beside it
    aliased = {name for phrase in phrases for name in ALIASES.get(phrase, ()) if name != phrase}
    phrases = [phrase for phrase in dict.fromkeys(phrases) if phrase not in aliased]
    labelled = np.zeros(len(NAMES), bool)
    labelled[[NAME_INDEX[name] for name in shown]] = True
    known = answerable(tuple(phrases), labelled, absent)
    phrases = [phrase for phrase, is_known in zip(phrases, known, strict=True) if is_known]
    rng.shuffle(phrases)
    return phrases[:most] or [str(rng.choice(WORDS_SELDOM_SEEN))]
