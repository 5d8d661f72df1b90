"""Objects that a person shows: the notation of settings, and every way to get it wrong."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grounded_sam2.object_prompts import ObjectPrompt, read_object_prompts

SIZE = (80, 60)  # width, height


def test_nothing_is_shown() -> None:
    assert read_object_prompts("", " ;\n", "", SIZE) == []


def test_points() -> None:
    owl, unnamed = read_object_prompts("Snowy  Owl: 23 18, 25.5 20, not 6 6; 40 30", "", "", SIZE)
    assert owl.name == "snowy owl" and owl.points.tolist() == [[23, 18], [25.5, 20], [6, 6]]
    assert owl.labels.tolist() == [1, 1, 0] and owl.box is owl.mask is None
    assert unnamed.name == "object" and unnamed.points.tolist() == [[40, 30]] and unnamed.labels.tolist() == [1]
    assert owl.points.dtype == np.float32 and owl.labels.dtype == np.int32


def test_boxes() -> None:
    cup, unnamed = read_object_prompts("", "cup: 10 20 30 40\n-5 0 90 60;", "", SIZE)
    assert (cup.name, cup.box.tolist()) == ("cup", [10, 20, 30, 40]) and cup.points is cup.mask is None
    assert (unnamed.name, unnamed.box.tolist()) == ("object", [0, 0, 80, 60])  # as far as the frame goes


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "P"])
def test_masks(tmp_path: Path, mode: str) -> None:
    mask = np.zeros(SIZE[::-1], bool)
    mask[5:20, 10:30] = True
    image = Image.fromarray(mask.astype(np.uint8)).convert("L")  # faint: 1 of 255
    if mode == "P":
        image.putpalette([0, 0, 0, 64, 0, 0])
    elif mode != "L":
        image = Image.fromarray(np.uint8(255) * mask).convert(mode)
    image.save(tmp_path / "Owl.png")
    named, by_file = read_object_prompts("", "", f"red car: {tmp_path / 'Owl.png'}; {tmp_path / 'Owl.png'}", SIZE)
    assert (named.name, by_file.name) == ("red car", "owl")
    assert np.array_equal(named.mask, mask) and named.mask.dtype == bool and named.points is named.box is None


def test_what_compression_adds_to_a_mask_is_black(tmp_path: Path) -> None:
    mask = np.zeros(SIZE[::-1], bool)
    mask[5:20, 10:30] = True
    Image.fromarray(np.uint8(255) * mask).save(tmp_path / "a.jpg", quality=50)
    [prompt] = read_object_prompts("", "", str(tmp_path / "a.jpg"), SIZE)
    assert np.array_equal(prompt.mask, mask)


def test_points_come_before_boxes_and_boxes_before_masks(tmp_path: Path) -> None:
    Image.fromarray(np.eye(60, 80, dtype=np.uint8)).save(tmp_path / "c.png")
    prompts = read_object_prompts("a: 1 1; b: 2 2", "d: 0 0 9 9", str(tmp_path / "c.png"), SIZE)
    assert [str(prompt) for prompt in prompts] == [
        "a, by its points",
        "b, by its points",
        "d, by its box",
        "c, by its mask",
    ]
    assert str(ObjectPrompt(box=np.zeros(4, np.float32))) == "object, by its box"


@pytest.mark.parametrize(
    ("points", "boxes", "message"),
    [
        ("owl: 5", "", "expected points such as '230 180, 250 200, not 60 60', got '5'"),
        ("owl 5 6", "", "expected points such as"),
        ("5 nan", "", "expected points such as"),
        ("not 5 6", "", "expected a point on the object among 'not 5 6'"),
        ("80 5", "", "the point 80 5 is outside the frame of 80x60 pixels"),
        ("5 5, -1 5", "", "the point -1 5 is outside"),
        ("", "1 2 3", "expected a box such as '184 112 284 246', left top right bottom, got '1 2 3'"),
        ("", "1,2,3,4", "expected a box such as"),
        ("", "owl: 1 2 inf 4", "expected a box such as"),
        ("", "30 10 20 20", "expected a box whose left and top are below its right and bottom, got '30 10 20 20'"),
        ("", "90 10 120 20", "the box '90 10 120 20' is outside the frame of 80x60 pixels"),
    ],
)
def test_what_is_no_object_is_told(points: str, boxes: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_object_prompts(points, boxes, "", SIZE)


def test_images_that_are_no_masks(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such image: nowhere\.png"):
        read_object_prompts("", "", "nowhere.png", SIZE)
    for size, value, message in [
        ((40, 30), 255, "has 40x30 pixels, expected a mask of 80x60 as the frames"),
        (SIZE, 0, "shows no object: expected a mask that is black but for one"),
        (SIZE, 255, "shows no object"),
    ]:
        Image.new("L", size, value).save(tmp_path / "m.png")
        with pytest.raises(ValueError, match=message):
            read_object_prompts("", "", str(tmp_path / "m.png"), SIZE)
