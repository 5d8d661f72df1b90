"""What a prompt names, and which phrase token scores speak for."""

from dataclasses import asdict

import numpy as np
import pytest

from grounded_sam2.prompts import (
    Prompt,
    encoder_phrase,
    expand_aliases,
    find_phrase,
    join_phrases,
    merge_prompts,
    parse_prompt,
    read_prompt,
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


# ---- the notation ----


@pytest.mark.parametrize(
    ("text_prompt", "prompt"),
    [
        ("car@0.4. tire", Prompt(("car", "tire"), thresholds={"car": 0.4})),
        ("Car @ 0.4 , tire@1", Prompt(("car", "tire"), thresholds={"car": 0.4, "tire": 1.0})),
        ("car@.4.tire@0.", Prompt(("car", "tire"), thresholds={"car": 0.4, "tire": 0.0})),
        ("3.5 inch disk@0.25. floppy", Prompt(("3.5 inch disk", "floppy"), thresholds={"3.5 inch disk": 0.25})),
        ("e-scooter=Kick  scooter.", Prompt(("e-scooter",), aliases={"e-scooter": ("kick scooter",)})),
        ("dog = puppy = hound = puppy", Prompt(("dog",), aliases={"dog": ("puppy", "hound")})),
        ("dog=puppy. dog=hound", Prompt(("dog",), aliases={"dog": ("puppy", "hound")})),
        ("dog@0.3=puppy", Prompt(("dog",), aliases={"dog": ("puppy",)}, thresholds={"dog": 0.3})),
        ("car. car@0.4. car", Prompt(("car",), thresholds={"car": 0.4})),
        ("car. not a toy car.", Prompt(("car",), ("toy car",))),
        ("Not THE toy car; car", Prompt(("car",), ("toy car",))),
        ("car. not an apple. not apple. not pears", Prompt(("car",), ("apple", "pears"))),
        ("car. not a toy@0.5=doll", Prompt(("car",), ("toy",), {"toy": ("doll",)}, {"toy": 0.5})),
        ("not a. b", Prompt(("b",), ("a",))),
        ("notebook. nothing. not-a-car. a knot", Prompt(("notebook", "nothing", "not-a-car", "a knot"))),
        ("straße@0.5。犬=いぬ。", Prompt(("straße", "犬"), (), {"犬": ("いぬ",)}, {"straße": 0.5})),
        ("car. @. =. @=", Prompt(("car",))),
        # in a list only "not" means something
        (["a@b.com", "E=mc2", "car@2", "car@", "=x"], Prompt(("a@b.com", "e=mc2", "car@2", "car@", "=x"))),
        (["car", "not a toy car"], Prompt(("car",), ("toy car",))),
        (["car@0.4"], Prompt(("car@0.4",))),
        (Prompt(("not for sale sign",)), Prompt(("not for sale sign",))),
    ],
)  # fmt: skip
def test_notation(text_prompt: str | list[str] | Prompt, prompt: Prompt) -> None:
    read = read_prompt(text_prompt)
    assert read == prompt and hash(read) == hash(prompt)
    assert read_prompt(read) is read
    assert parse_prompt(text_prompt) == list(prompt.phrases)
    if not isinstance(text_prompt, str):
        return
    assert read_prompt(str(prompt)) == prompt
    assert Prompt(**asdict(read)) == prompt


@pytest.mark.parametrize(
    ("text_prompt", "says"),
    [
        ("a@b.com", r"expected a number in \[0, 1\] behind '@', got 'a@b'; a phrase with '@' in it goes in a list"),
        ("car@2", r"expected a number in \[0, 1\] behind '@', got 'car@2'"),
        ("car@-0.1", "got 'car@-0.1'"),
        ("car@", "got 'car@'"),
        ("car@. dog", "got 'car@'"),
        ("car@nan", "got 'car@nan'"),
        ("car@0.4@0.5", "got 'car@0.4@0.5'"),
        ("car@0.4.5", "got 'car@0.4.5'"),
        ("@0.4", "expected a phrase before '@' and on each side of '=', got '@0.4'"),
        ("=x", "on each side of '=', got '=x'"),
        ("x=", "got 'x='"),
        ("x==y", "got 'x==y'"),
        ("dog=puppy@0.3", "threshold behind the first name, as in 'e-scooter@0.3=scooter', got 'dog=puppy@0.3'"),
        ("not", "expected one phrase behind 'not', got 'not'"),
        ("not not a car. car", "expected one phrase behind 'not', got 'not not a car'"),
        (["not", "car"], "expected one phrase behind 'not', got 'not'"),
        ("not a car", "at least one phrase that does not begin with 'not', got 'not a car'"),
        ("car. not a car", "both wants 'car' and does not"),
        ("car@0.4. car@0.5", "'car' has two thresholds: 0.4 and 0.5"),
        ("dog=wolf. wolf", "the alias 'wolf' of 'dog' already stands for 'wolf'"),
        ("dog=hound. not a wolf=hound", "the alias 'hound' of 'wolf' already stands for 'dog'"),
        ("dog=wolf. not a wolf", "the alias 'wolf' of 'dog' already stands for 'wolf'"),
    ],
)
def test_wrong_notation_is_one_clear_line(text_prompt: str | list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        read_prompt(text_prompt)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"phrases": ()}, "at least one phrase"),
        ({"phrases": ("car",), "thresholds": {"dog": 0.5}}, "'dog' is no phrase of the prompt"),
        ({"phrases": ("car",), "thresholds": {"car": 1.5}}, r"threshold in \[0, 1\] for 'car', got 1.5"),
        ({"phrases": ("car",), "aliases": {"dog": ("puppy",)}}, "'dog' is no phrase of the prompt"),
        ({"phrases": ("car", "dog"), "unwanted": ("dog",)}, "both wants 'dog' and does not"),
    ],
)
def test_a_prompt_made_by_hand_is_checked(parts: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Prompt(**parts)


def test_merged_prompts_ask_for_all() -> None:
    prompts = ["dog@0.3. tree", "tree=oak. not a bush", "dog. not a shrub. not a bush@0.5"]
    merged = merge_prompts([read_prompt(prompt) for prompt in prompts])
    assert merged == Prompt(("dog", "tree"), ("bush", "shrub"), {"tree": ("oak",)}, {"dog": 0.3, "bush": 0.5})
    alone = read_prompt(["a@b", "not c=d"])
    assert merge_prompts([alone]) == alone
    with pytest.raises(ValueError, match="both wants 'dog' and does not"):
        merge_prompts([read_prompt("dog"), read_prompt("cat. not a dog")])


def test_as_a_sequence_a_prompt_is_its_wanted_phrases() -> None:
    prompt = read_prompt("car@0.2=auto. not a toy car. truck")
    assert list(prompt) == ["car", "truck"] and len(prompt) == 2
    assert (prompt[1], prompt[-2], prompt[:1], prompt.index("truck")) == ("truck", "car", ("car",), 1)
    assert "car" in prompt and "toy car" not in prompt and "auto" not in prompt


def test_unwanted_phrases_are_found_behind_the_wanted() -> None:
    prompt = read_prompt("car@0.2=auto. not a toy car@0.5. truck")
    found = prompt.with_unwanted_found()
    assert found.phrases == ("car", "truck", "toy car") and found.unwanted == ()
    assert (found.aliases, found.thresholds) == (prompt.aliases, prompt.thresholds)


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


def test_words_that_the_locale_could_not_decode_are_utf8() -> None:
    """As with LC_ALL=C; a byte that is no UTF-8 is no letter, and harms none beside it."""
    as_given = "猫. straße\udcff.".encode("utf-8", "surrogateescape").decode("ascii", "surrogateescape")
    assert parse_prompt(as_given) == ["猫", "straße\ufffd"]


def test_a_prompt_of_another_type_is_named_in_few_words() -> None:
    with pytest.raises(ValueError, match="a prompt is text or a list of texts, got") as refused:
        read_prompt([{"category": "x" * 10_000}])  # type: ignore[list-item]
    assert len(str(refused.value)) < 200
