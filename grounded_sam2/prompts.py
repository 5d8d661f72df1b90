"""Text prompts: what a prompt asks for, and which phrase a detector's token scores speak for.

The notation of a prompt that is one text:

| text | asks for |
|---|---|
| `car. red apple.` | cars and red apples; a phrase ends at a dot, comma, semicolon or line break |
| `car@0.4.` | cars whose boxes have a confidence of 0.4 or more, whatever threshold the others have |
| `e-scooter=kick scooter=scooter.` | e-scooters, also by the two other names; all are labelled "e-scooter" |
| `e-scooter@0.3=kick scooter.` | both; the threshold holds for all names |
| `car. not a toy car.` | cars, but no box that is more surely a toy car; "toy car" is never a label |

A dot between two digits belongs to its phrase ("3.5 inch disk"). In a list of phrases, each entry is one phrase, and
"@", "=" and all marks within it are plain characters (`["a@b.com", "E=mc2"]`); only "not " at its start means what it
does in a text. A `Prompt` made by hand is taken as it is: `Prompt(("not for sale sign",))`.

The wanted phrases are what a user gets back as labels. A phrase's position among them is its `class_id`.
"""

import re
import reprlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias, overload

import numpy as np
import numpy.typing as npt

# A dot inside a number ("3.5 inch disk", "@.5") belongs to the phrase; every other dot ends one.
_SEPARATORS = re.compile(r"(?<![\d@])\.|\.(?!\d)|[,;\n\r。，、；]")
_SPACES = re.compile(r"\s+")
_NEGATION = re.compile(r"not(?: (?:an?|the)(?= ))?(?: |$)")


@dataclass(frozen=True)
class Prompt(Sequence[str]):
    """What a prompt asks for; as a sequence, its wanted phrases, and so no more than a list for who wants no more.

    All phrases are trimmed and in lower case; none appears twice.

    Attributes:
        phrases: what is wanted, at least one; they become labels, and `class_id` is the index here.
        unwanted: what is looked for only to tell it from the wanted: a box of a wanted phrase is dropped where one of
            these is surer.
        aliases: phrase, wanted or unwanted → other phrases for the same thing.
        thresholds: phrase, wanted or unwanted → least confidence of its boxes, in [0, 1]; others have the detector's.

    Raises:
        ValueError: nothing wanted, a phrase that is both wanted and unwanted or an alias of two, an alias or threshold
            of another phrase, or a threshold outside [0, 1].
    """

    phrases: tuple[str, ...]
    unwanted: tuple[str, ...] = ()
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    thresholds: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not self.phrases:
            raise ValueError("expected at least one phrase that does not begin with 'not'")
        for phrase in self.unwanted:
            if phrase in self.phrases:
                raise ValueError(f"the prompt both wants {phrase!r} and does not")
        expand_aliases(self.looked_for, self.aliases)
        for name, threshold in self.thresholds.items():
            find_phrase(name, self.looked_for)
            if not 0 <= threshold <= 1:
                raise ValueError(f"expected a threshold in [0, 1] for {name!r}, got {threshold}")

    def __len__(self) -> int:
        return len(self.phrases)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...

    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return self.phrases[index]

    @property
    def looked_for(self) -> list[str]:
        """The wanted phrases, then the unwanted ones."""
        return [*self.phrases, *self.unwanted]

    def with_unwanted_found(self) -> "Prompt":
        """The same prompt with the unwanted phrases among the wanted, behind them, so that their boxes are found."""
        return Prompt(tuple(self.looked_for), (), self.aliases, self.thresholds)

    def __str__(self) -> str:
        """The prompt in the notation of a text: `read_prompt` reads it back, unless a phrase holds marks of it."""
        terms = []
        for phrase in self.looked_for:
            start = "not " if phrase in self.unwanted else ""
            threshold = f"@{self.thresholds[phrase]:g}" if phrase in self.thresholds else ""
            terms.append("=".join([start + phrase + threshold, *self.aliases.get(phrase, ())]))
        return join_phrases(terms)


# A text, a list of phrases, or the `Prompt` that one of them was read as.
TextPrompt: TypeAlias = str | Sequence[str]


def read_prompt(text_prompt: TextPrompt) -> Prompt:
    """Read a prompt; one that was read before is given back as it is.

    Phrases are trimmed and written in lower case, as text encoders of detectors expect; repetitions and entries without
    any letter or digit are dropped.

    Args:
        text_prompt: in the notation of this module, a list of phrases, or a `Prompt`.

    Raises:
        ValueError: a prompt that names nothing, or nothing that is wanted; "@" without a number in [0, 1] behind it or
            without a phrase before it; "=" without a phrase on each side; "not" without a phrase behind it; what a
            `Prompt` cannot hold; or neither text nor a list of texts.
    """
    if isinstance(text_prompt, Prompt):
        return text_prompt
    parts = _split(text_prompt)
    if not parts:
        raise ValueError(f'the text prompt names nothing: expected phrases such as "car. tire.", got {text_prompt!r}')
    read = _read_marked if isinstance(text_prompt, str) else _read_plain
    terms = [read(part) for part in parts]
    if not any(term.is_wanted for term in terms):
        raise ValueError(f"expected at least one phrase that does not begin with 'not', got {text_prompt!r}")
    return _collect(terms)


def parse_prompt(text_prompt: TextPrompt) -> list[str]:
    """The wanted phrases of a prompt, which become labels; see `read_prompt`.

    Args:
        text_prompt: such as ``"Car. Tire"``, ``"a red apple, dog, not a toy dog"`` or ``["car", "tire"]``.

    Returns:
        The phrases, each once, in the prompt's order: ``["car", "tire"]``. A phrase's index is its `class_id`.

    Raises:
        ValueError: as of `read_prompt`.
    """
    return list(read_prompt(text_prompt).phrases)


def merge_prompts(prompts: Sequence[Prompt]) -> Prompt:
    """One prompt that asks for all that one or more prompts ask for.

    Raises:
        ValueError: they contradict each other: one wants what another does not, or thresholds differ.
    """
    terms = []
    for prompt in prompts:
        for phrase in prompt.looked_for:
            is_wanted = phrase not in prompt.unwanted
            terms.append(_Term(phrase, is_wanted, prompt.aliases.get(phrase, ()), prompt.thresholds.get(phrase)))
    return _collect(terms)


class _Term(NamedTuple):
    """What one entry of a prompt says."""

    phrase: str
    is_wanted: bool
    aliases: tuple[str, ...] = ()
    threshold: float | None = None


def _split(text_prompt: str | Sequence[str]) -> list[str]:
    """The entries of a text or list, trimmed and in lower case; those without any letter or digit are left out."""
    if isinstance(text_prompt, str):
        parts = _SEPARATORS.split(_decoded(text_prompt))
    elif all(isinstance(part, str) for part in text_prompt):
        parts = [_decoded(part).strip(". \t\r\n") for part in text_prompt]
    else:
        raise ValueError(f"a prompt is text or a list of texts, got {reprlib.repr(text_prompt)}")
    return [_trimmed(part) for part in parts if any(map(str.isalnum, part))]


def _decoded(text: str) -> str:
    """A text in which bytes of the command line that the locale could not decode (LC_ALL=C) are read as UTF-8."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _trimmed(text: str) -> str:
    """A text in lower case, with no space around it and single ones within."""
    return _SPACES.sub(" ", unicodedata.normalize("NFC", text)).strip().lower()


def _read_marked(part: str) -> _Term:
    """Read an entry of a text, in which "@" and "=" are marks."""
    named, *aliases = part.split("=")
    name, mark, number = named.partition("@")
    if any("@" in alias for alias in aliases):
        raise ValueError(f"expected the threshold behind the first name, as in 'e-scooter@0.3=scooter', got {part!r}")
    if not all(any(map(str.isalnum, side)) for side in (name, *aliases)):
        raise ValueError(f"expected a phrase before '@' and on each side of '=', got {part!r}")
    return _read_plain(name.strip())._replace(
        aliases=tuple(alias.strip() for alias in aliases), threshold=_read_threshold(number, part) if mark else None
    )


def _read_threshold(number: str, part: str) -> float:
    try:
        threshold = float(number)
    except ValueError:
        threshold = -1.0
    if not 0 <= threshold <= 1:
        cure = "a phrase with '@' in it goes in a list"
        raise ValueError(f"expected a number in [0, 1] behind '@', got {part!r}; {cure}")
    return threshold


def _read_plain(part: str) -> _Term:
    """Read an entry of a list, in which only "not" at the start has a meaning."""
    negation = _NEGATION.match(part)
    phrase = part[negation.end() :] if negation else part
    if not phrase or (negation and _NEGATION.match(phrase)):
        raise ValueError(f"expected one phrase behind 'not', got {part!r}")
    return _Term(phrase, is_wanted=negation is None)


def _collect(terms: Iterable[_Term]) -> Prompt:
    """Put together what the entries of one or more prompts say; what they say of the same phrase has to agree."""
    wanted, unwanted = dict[str, None](), dict[str, None]()
    aliases, thresholds = dict[str, tuple[str, ...]](), dict[str, float]()
    for term in terms:
        (wanted if term.is_wanted else unwanted)[term.phrase] = None
        if term.aliases:
            aliases[term.phrase] = tuple(dict.fromkeys(aliases.get(term.phrase, ()) + term.aliases))
        if term.threshold is not None and thresholds.setdefault(term.phrase, term.threshold) != term.threshold:
            raise ValueError(f"{term.phrase!r} has two thresholds: {thresholds[term.phrase]:g} and {term.threshold:g}")
    return Prompt(tuple(wanted), tuple(unwanted), aliases, thresholds)


def join_phrases(phrases: Sequence[str]) -> str:
    """Write phrases as one prompt, each ended by a dot: ``["car", "tire"]`` → ``"car. tire."``."""
    return " ".join(f"{phrase}." for phrase in phrases)


def find_phrase(name: str, phrases: Sequence[str]) -> int:
    """The index of the phrase that a setting names, written as in a prompt ("Dog." for "dog").

    Raises:
        ValueError: when it is none of the phrases.
    """
    phrase = next(iter(_split([name])), "")
    if phrase not in phrases:
        shown = ", ".join(phrases[:8]) + (", …" if len(phrases) > 8 else "")
        raise ValueError(f"{name!r} is no phrase of the prompt, expected one of: {shown}")
    return phrases.index(phrase)


def expand_aliases(
    phrases: Sequence[str], *alias_maps: Mapping[str, str | Sequence[str]] | None
) -> tuple[list[str], list[int]]:
    """Add to phrases the other words for the same things.

    Args:
        phrases: of a prompt, see `Prompt.looked_for`.
        alias_maps: phrase → other phrases, such as ``{"e-scooter": ["kick scooter"]}``, or "kick scooter. scooter" in
            place of the list; "@" and "=" are no marks here.

    Returns:
        texts: all that is to be looked for, the phrases first.
        class_id: per text, the index of the phrase it stands for.

    Raises:
        ValueError: when a key is no phrase of the prompt, or one alias stands for two phrases.
    """
    class_id_of = {phrase: index for index, phrase in enumerate(phrases)}
    for name, named in ((name, named) for aliases in alias_maps for name, named in (aliases or {}).items()):
        class_id = find_phrase(name, phrases)
        found = _split(named)
        if not found:
            raise ValueError(f"the list of aliases of {phrases[class_id]!r} names nothing, got {named!r}")
        for alias in found:
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
