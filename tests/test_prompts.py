"""What a prompt names, and which phrase token scores speak for."""

import numpy as np
import pytest

from grounded_sam2.prompts import (
    encoder_phrase,
    expand_aliases,
    find_phrase,
    join_phrases,
    parse_prompt,
    score_phrases,
    split_passes,
)


@pytest.mark.parametrize(
    ("text_prompt", "phrases"),
    [
        ("car. tire.", ["car", "tire"]),
        ("Car. Tire", ["car", "tire"]),
        ("car.tire", ["car", "tire"]),
        ("CAR", ["car"]),
        ("  a  red\tapple . ", ["a red apple"]),
        ("dog, cat;bird\nfish\r\nfrog", ["dog", "cat", "bird", "fish", "frog"]),
        ("car. car. Car. tire", ["car", "tire"]),
        ("...car...", ["car"]),
        ("3.5 inch disk. floppy.", ["3.5 inch disk", "floppy"]),
        ("Straße. ÉCLAIR. 犬。猫", ["straße", "éclair", "犬", "猫"]),
        ("e\u0301clair. \u00e9clair", ["\u00e9clair"]),
        ("car. !!. ?", ["car"]),
        (["Car", "tire."], ["car", "tire"]),
        (["a man, sitting", "St. Bernard"], ["a man, sitting", "st. bernard"]),
        (("car",), ["car"]),
        (["car", "", "car"], ["car"]),
    ],
)
def test_parse_prompt(text_prompt: str | list[str], phrases: list[str]) -> None:
    assert parse_prompt(text_prompt) == phrases


@pytest.mark.parametrize("text_prompt", ["", "   ", " . . ", "\n", [], [""], ["."], "?!"])
def test_empty_prompt_is_a_value_error(text_prompt: str | list[str]) -> None:
    with pytest.raises(ValueError, match="names nothing"):
        parse_prompt(text_prompt)


def test_prompt_of_another_type_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="text or a list of texts"):
        parse_prompt([1, 2])  # type: ignore[list-item]


def test_join_is_the_inverse_of_parse() -> None:
    phrases = ["car", "red apple"]
    assert join_phrases(phrases) == "car. red apple."
    assert parse_prompt(join_phrases(phrases)) == phrases


@pytest.mark.parametrize(
    ("aliases", "texts", "class_id"),
    [
        (None, ["dog", "e-scooter"], [0, 1]),
        ({}, ["dog", "e-scooter"], [0, 1]),
        ({"E-Scooter.": ["Kick scooter", "scooter"]}, ["dog", "e-scooter", "kick scooter", "scooter"], [0, 1, 1, 1]),
        (
            {"e-scooter": "scooter. e-scooter", "dog": ("puppy",)},
            ["dog", "e-scooter", "scooter", "puppy"],
            [0, 1, 1, 0],
        ),
    ],
)
def test_aliases_stand_for_their_phrase(aliases: dict | None, texts: list[str], class_id: list[int]) -> None:
    assert expand_aliases(["dog", "e-scooter"], aliases) == (texts, class_id)


@pytest.mark.parametrize(
    ("aliases", "says"),
    [
        ({"cat": ["kitten"]}, "'cat' is no phrase of the prompt, expected one of: dog, wolf"),
        ({"dog": ["wolf"]}, "the alias 'wolf' of 'dog' already stands for 'wolf'"),
        ({"dog": ["hound"], "wolf": ["hound"]}, "the alias 'hound' of 'wolf' already stands for 'dog'"),
        ({"dog": []}, "names nothing"),
    ],
)
def test_wrong_aliases_are_value_errors(aliases: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        expand_aliases(["dog", "wolf"], aliases)


def test_find_phrase_shows_few_of_many() -> None:
    assert find_phrase(" Dog. ", ["cat", "dog"]) == 1
    with pytest.raises(ValueError, match=r"expected one of: a0, a1, a2, a3, a4, a5, a6, a7, …"):
        find_phrase("dog", [f"a{index}" for index in range(300)])


def test_encoder_phrase_holds_no_ending_mark() -> None:
    assert encoder_phrase("st. bernard?") == "st bernard"
    assert encoder_phrase("red apple") == "red apple"


@pytest.mark.parametrize(
    ("token_counts", "capacity", "expected"),
    [
        ([3], 10, [[0]]),
        ([3, 3, 3], 9, [[0, 1, 2]]),
        ([3, 3, 3], 8, [[0, 1], [2]]),
        ([8, 1, 8], 8, [[0], [1], [2]]),
    ],
)
def test_split_passes(token_counts: list[int], capacity: int, expected: list[list[int]]) -> None:
    assert [list(indices) for indices in split_passes(token_counts, capacity)] == expected


def test_split_passes_names_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="phrase 1 of the prompt takes 9 tokens, the text encoder holds 8"):
        split_passes([1, 9], 8)


# tokens: [CLS] red apple . green apple . dog . [SEP]
SPANS = [(1, 3), (4, 6), (7, 8)]


@pytest.mark.parametrize(
    ("token_scores", "phrase_index", "confidence"),
    [
        ([0, 0.8, 0.6, 0, 0.1, 0.6, 0, 0.0, 0, 0], 0, 0.8),
        # the shared word scores higher in the wrong phrase; the attribute decides
        ([0, 0.5, 0.60, 0, 0.1, 0.65, 0, 0.0, 0, 0], 0, 0.6),
        # marks and special tokens never count
        ([0.9, 0, 0, 0.9, 0, 0, 0.9, 0.5, 0.9, 0.9], 2, 0.5),
        # no phrase reaches the threshold
        ([0.9, 0.2, 0.2, 0.9, 0.1, 0.1, 0, 0.0, 0, 0], 0, 0.0),
        # a phrase whose best token is under the threshold is no choice, however even its tokens are
        ([0, 0.24, 0.24, 0, 0.0, 0.30, 0, 0.0, 0, 0], 1, 0.3),
    ],
)
def test_score_phrases(token_scores: list[float], phrase_index: int, confidence: float) -> None:
    index, score = score_phrases(np.array([token_scores], dtype=np.float32), SPANS, 0.25)
    assert (index[0], score[0]) == (phrase_index, pytest.approx(confidence))
    assert score.dtype == np.float32


def test_score_phrases_without_queries() -> None:
    index, score = score_phrases(np.zeros((0, 10), dtype=np.float32), SPANS, 0.25)
    assert index.shape == score.shape == (0,)


def test_each_phrase_may_have_its_own_threshold() -> None:
    token_scores = np.array([[0.0, 0.6, 0.0, 0.5, 0.0]], np.float32)
    spans = [(1, 2), (3, 4)]
    for thresholds, expected in (([0.3, 0.3], (0, 0.6)), ([0.7, 0.3], (1, 0.5)), ([0.7, 0.7], (0, 0.0))):
        phrase_index, confidence = score_phrases(token_scores, spans, np.array(thresholds, np.float32))
        assert (phrase_index[0], pytest.approx(confidence[0])) == expected
