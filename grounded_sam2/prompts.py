"""Text prompts: which phrases a prompt names, and which phrase a detector's token scores speak for.

The phrases of a prompt are what a user gets back as labels. A phrase's position in the prompt is its `class_id`.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

# A dot inside a number ("3.5 inch disk") belongs to the phrase; every other dot ends one.
_SEPARATORS = re.compile(r"(?<!\d)\.|\.(?!\d)|[,;\n\r。，、；]")
_SPACES = re.compile(r"\s+")


def parse_prompt(text_prompt: str | Sequence[str]) -> list[str]:
    """Split a prompt in its phrases.

    In a text, a phrase ends at a dot, comma, semicolon or line break; the last one needs no mark. In a list, each entry
    is one phrase whatever it contains, but for dots at its ends. Phrases are trimmed and written in lower case, as text
    encoders of detectors expect; repetitions and entries without any letter or digit are dropped.

    Args:
        text_prompt: such as ``"Car. Tire"``, ``"a red apple, dog"`` or ``["car", "tire"]``.

    Returns:
        The phrases, each once, in the prompt's order: ``["car", "tire"]``. A phrase's index is its `class_id`.

    Raises:
        ValueError: when no phrase is left, or the prompt is neither text nor a sequence of texts.
    """
    if isinstance(text_prompt, str):
        parts = _SEPARATORS.split(text_prompt)
    elif all(isinstance(part, str) for part in text_prompt):
        parts = [part.strip(". \t\r\n") for part in text_prompt]
    else:
        raise ValueError(f"a prompt is text or a list of texts, got {text_prompt!r}")
    phrases = [_SPACES.sub(" ", unicodedata.normalize("NFC", part)).strip().lower() for part in parts]
    phrases = list(dict.fromkeys(phrase for phrase in phrases if any(map(str.isalnum, phrase))))
    if not phrases:
        raise ValueError(f'the text prompt names nothing: expected phrases such as "car. tire.", got {text_prompt!r}')
    return phrases


def join_phrases(phrases: Sequence[str]) -> str:
    """Write phrases as one prompt, each ended by a dot: ``["car", "tire"]`` → ``"car. tire."``."""
    return " ".join(f"{phrase}." for phrase in phrases)


def find_phrase(name: str, phrases: Sequence[str]) -> int:
    """The index of the phrase that a setting names, written as in a prompt ("Dog." for "dog").

    Raises:
        ValueError: when it is none of the phrases.
    """
    phrase = parse_prompt([name])[0]
    if phrase not in phrases:
        shown = ", ".join(phrases[:8]) + (", …" if len(phrases) > 8 else "")
        raise ValueError(f"{name!r} is no phrase of the prompt, expected one of: {shown}")
    return phrases.index(phrase)


def expand_aliases(
    phrases: Sequence[str], aliases: Mapping[str, str | Sequence[str]] | None
) -> tuple[list[str], list[int]]:
    """Add to phrases the other words for the same things.

    Args:
        phrases: of a prompt, see `parse_prompt`.
        aliases: phrase → other phrases, such as ``{"e-scooter": ["kick scooter"]}``.

    Returns:
        texts: all that is to be looked for, the phrases first.
        class_id: per text, the index of the phrase it stands for.

    Raises:
        ValueError: when a key is no phrase of the prompt, or one alias stands for two phrases.
    """
    class_id_of = {phrase: index for index, phrase in enumerate(phrases)}
    for name, alias_prompt in (aliases or {}).items():
        class_id = find_phrase(name, phrases)
        for alias in parse_prompt(alias_prompt):
            if class_id_of.setdefault(alias, class_id) != class_id:
                other = phrases[class_id_of[alias]]
                raise ValueError(f"the alias {alias!r} of {phrases[class_id]!r} already stands for {other!r}")
    return list(class_id_of), list(class_id_of.values())


def encoder_phrase(phrase: str) -> str:
    """Rewrite a phrase for a text encoder in which "." and "?" end a phrase: those marks inside it become spaces."""
    return _SPACES.sub(" ", re.sub(r"[.?]", " ", phrase)).strip()


def split_passes(token_counts: Sequence[int], capacity: int) -> list[range]:
    """Cut a list of phrases in consecutive passes that a text encoder can hold.

    Args:
        token_counts: tokens each phrase takes, its ending mark included.
        capacity: tokens one pass may hold.

    Returns:
        Ranges of phrase indices that cover all phrases in order, as few as filling each pass in turn gives.

    Raises:
        ValueError: when one phrase alone is longer than `capacity`.
    """
    passes: list[range] = []
    start, used = 0, 0
    for index, count in enumerate(token_counts):
        if count > capacity:
            raise ValueError(f"phrase {index} of the prompt takes {count} tokens, the text encoder holds {capacity}")
        if used + count > capacity:
            passes.append(range(start, index))
            start, used = index, 0
        used += count
    passes.append(range(start, len(token_counts)))
    return passes


def score_phrases(
    token_scores: npt.NDArray[np.float32],
    spans: Sequence[tuple[int, int]],
    text_threshold: float | npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Give each query to the one phrase its token scores speak for.

    Each phrase is judged by the tokens of its own span only, so a label is never a fragment of a phrase or parts of
    two. A phrase can be chosen when its best token reaches `text_threshold`; among those, the one with the highest mean
    over its tokens is chosen, so that "red apple" loses to "green apple" by the word they do not share. The confidence
    is the best token of the chosen phrase.

    Args:
        token_scores: (Q, T) float32 in [0, 1], one score per query and token.
        spans: per phrase, the first and the past-the-last token of its words, the ending mark left out.
        text_threshold: the least score the best token of a phrase must have, in [0, 1]; one, or one per span.

    Returns:
        phrase_index: (Q,) int64 index in `spans`.
        confidence: (Q,) float32 in [0, 1]; 0 where no phrase reaches `text_threshold`.
    """
    best = np.stack([token_scores[:, start:stop].max(axis=1) for start, stop in spans], axis=1)  # (Q, P)
    mean = np.stack([token_scores[:, start:stop].mean(axis=1) for start, stop in spans], axis=1)  # (Q, P)
    eligible = best >= text_threshold
    phrase_index = np.where(eligible, mean, -1.0).argmax(axis=1)
    confidence = np.where(eligible, best, 0.0)[np.arange(len(best)), phrase_index]
    return phrase_index, confidence.astype(np.float32)
