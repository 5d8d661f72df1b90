"""Which images a folder, a pattern or a list names, and for which phrases."""

import json
from pathlib import Path

import pytest
from listed_images import PHRASES, PROMPT, write_images

from grounded_sam2.batch import (
    all_phrases,
    list_images,
)
from grounded_sam2.prompts import Prompt


def test_a_folder(tmp_path: Path) -> None:
    write_images(tmp_path, "b.jpg", "a.PNG", "c.webp", ".hidden.jpg", "deeper/d.jpg")
    (tmp_path / "notes.txt").write_text("no image", encoding="utf-8")
    (tmp_path / "e.jpg").mkdir()
    listed = list_images(tmp_path, PROMPT)
    assert [image.path for image in listed] == [tmp_path / name for name in ("a.PNG", "b.jpg", "c.webp")]
    assert [(image.name, image.stem) for image in listed] == [("a.PNG", "a"), ("b.jpg", "b"), ("c.webp", "c")]
    assert {image.phrases for image in listed} == {PHRASES}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.jpg", ["a.jpg", "b.jpg"]),
        ("**/*.jpg", ["a.jpg", "b.jpg", "deeper/a.jpg"]),
        ("deeper/*", ["a.jpg"]),
        ("a.jpg", ["a.jpg"]),
    ],
)
def test_a_pattern(tmp_path: Path, pattern: str, names: list[str]) -> None:
    write_images(tmp_path, "b.jpg", "a.jpg", "deeper/a.jpg", "c.png")
    (tmp_path / "deeper" / "notes.txt").write_text("no image", encoding="utf-8")
    listed = list_images(str(tmp_path / pattern), PROMPT)
    assert [image.name for image in listed] == names
    assert [image.stem for image in listed] == [name.removesuffix(".jpg") for name in names]


@pytest.mark.parametrize(
    ("file_name", "text", "expected"),
    [
        ("list.txt", "b.jpg\n\n# a comment\na.jpg\n", [("b.jpg", PHRASES), ("a.jpg", PHRASES)]),
        ("list.txt", "b.jpg\tred car.\na.jpg\t \n", [("b.jpg", ("red car",)), ("a.jpg", PHRASES)]),
        ("list.txt", "\ufeffa b.jpg\r\nstraße.jpg\tStraße", [("a b.jpg", PHRASES), ("straße.jpg", ("straße",))]),
        ("list.TXT", "a.jpg\tcat\na.jpg\tdog. cat", [("a.jpg", ("cat", "dog"))]),
        ("list.csv", "image\nb.jpg\na.jpg\n", [("b.jpg", PHRASES), ("a.jpg", PHRASES)]),
        (
            "list.csv",
            'prompt, image, other\n"red car, cat", b.jpg, 1\n, a.jpg, 2\n',
            [("b.jpg", ("red car", "cat")), ("a.jpg", PHRASES)],
        ),
        ("list.json", '["b.jpg", "a.jpg"]', [("b.jpg", PHRASES), ("a.jpg", PHRASES)]),
        (
            "list.json",
            '{"b.jpg": "Red Car.", "a.jpg": ["a man, sitting"], "c.jpg": null}',
            [("b.jpg", ("red car",)), ("a.jpg", ("a man, sitting",)), ("c.jpg", PHRASES)],
        ),
    ],
)
def test_a_list(tmp_path: Path, file_name: str, text: str, expected: list[tuple[str, tuple[str, ...]]]) -> None:
    """Paths are relative to the list's folder; the images need not be there yet."""
    (tmp_path / file_name).write_text(text, encoding="utf-8")
    listed = list_images(tmp_path / file_name, PROMPT)
    assert [(image.name, image.phrases) for image in listed] == expected
    assert [image.path for image in listed] == [tmp_path / name for name, _ in expected]


def test_prompts_of_a_list_say_all_that_a_prompt_can(tmp_path: Path) -> None:
    text = "a.jpg\tdog@0.3. not a wolf\na.jpg\tcat=kitten. not a toy wolf@0.5\nb.jpg"
    (tmp_path / "list.txt").write_text(text, encoding="utf-8")
    first, second = list_images(tmp_path / "list.txt", PROMPT)
    assert first.prompt == Prompt(
        ("dog", "cat"), ("wolf", "toy wolf"), {"cat": ("kitten",)}, {"dog": 0.3, "toy wolf": 0.5}
    )
    assert first.phrases == ("dog", "cat") and second.prompt == Prompt(PHRASES)
    assert all_phrases([first, second]) == ["dog", "cat", *(phrase for phrase in PHRASES if phrase != "dog")]
    (tmp_path / "list.txt").write_text("a.jpg\tdog\na.jpg\tcat. not a dog", encoding="utf-8")
    with pytest.raises(ValueError, match=r"prompt of .*a.jpg: the prompt both wants 'dog' and does not"):
        list_images(tmp_path / "list.txt", PROMPT)


def test_files_about_images_that_differ_in_their_suffix_have_different_names(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg", "a.png", "b.jpg", "B.webp", "c.jpg")
    stems = [image.stem for image in list_images(tmp_path, PROMPT)]
    assert stems == ["B.webp", "a.jpg", "a.png", "b.jpg", "c"]


def test_names_are_relative_to_what_all_paths_of_a_list_share(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "list.txt").write_text(f"../x/a.jpg\n{tmp_path}/x/y/b.jpg\n", encoding="utf-8")
    assert [image.name for image in list_images(tmp_path / "lists" / "list.txt", PROMPT)] == ["a.jpg", "y/b.jpg"]


def test_all_phrases_count_in_the_order_of_the_list(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.jpg\tcat. dog\nb.jpg\nc.jpg\tdog. car", encoding="utf-8")
    assert all_phrases(list_images(tmp_path / "list.txt", PROMPT)) == ["cat", "dog", "tree", "car"]


def test_a_prompt_for_all_is_needed_only_where_an_image_has_none(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.jpg\tcat", encoding="utf-8")
    assert list_images(tmp_path / "list.txt", "")[0].phrases == ("cat",)
    (tmp_path / "list.txt").write_text("a.jpg\tcat\nb.jpg", encoding="utf-8")
    with pytest.raises(ValueError, match=r"list.txt, prompt of .*b.jpg: the text prompt names nothing"):
        list_images(tmp_path / "list.txt", "")


@pytest.mark.parametrize(
    ("file_name", "text", "says"),
    [
        ("list.csv", "file,prompt\na.jpg,dog\n", "list.csv is no list of images"),
        ("list.csv", "prompt,image\ndog\n", "list.csv is no list of images"),
        ("list.json", "{", "list.json is no list of images"),
        ("list.json", "[1, 2]", "expected a list of paths"),
        ("list.json", '"a.jpg"', "expected a list of paths"),
        ("list.json", '{"a.jpg": 5}', "prompt of .*a.jpg"),
        ("list.json", '{"a.jpg": "..."}', "names nothing"),
        ("list.yaml", "a.jpg", r"expected a list of images \(.txt, .csv, .json\) or an image"),
    ],
)
def test_a_bad_list_is_a_value_error(tmp_path: Path, file_name: str, text: str, says: str) -> None:
    (tmp_path / file_name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        list_images(tmp_path / file_name, PROMPT)


def test_a_list_that_is_not_text_is_a_value_error(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ValueError, match="is no list of images"):
        list_images(tmp_path / "list.txt", PROMPT)


@pytest.mark.parametrize("source", ["nowhere", "*.jpg", "empty", "nowhere/list.txt", "empty.txt"])
def test_no_images_is_an_error(tmp_path: Path, source: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"no images in .*expected a folder of images, a pattern"):
        list_images(tmp_path / source, PROMPT)


def test_no_two_images_share_a_stem(tmp_path: Path) -> None:
    """Also not where the stem of one is the whole name of another, nor in lower case."""
    names = ["a.jpg", "a.png", "a.jpg.png", "B.jpg", "b.png", "c.jpg", "C.JPG"]
    paths = [tmp_path / name for name in names] + [tmp_path / "d" / "a.jpg", tmp_path / ".." / "e" / "a.jpg"]
    (tmp_path / "list.json").write_text(json.dumps([str(path) for path in paths]))
    stems = [image.stem.rpartition(f"{tmp_path.name}/")[2] for image in list_images(tmp_path / "list.json", PROMPT)]
    assert stems == ["a.jpg", "a.png", "a.jpg.png", "B.jpg", "b.png", "c.jpg", "C.JPG-2", "d/a", "e/a"]
