"""Reading what Florence-2 writes, on literal answers; reference: the processor's own reading where that is right."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from transformers import Florence2Processor

from grounded_sam2.detectors.florence2.answer import Answer, mask_of_polygons, parse_regions
from grounded_sam2.detectors.florence2.tasks import (
    CAPTIONS,
    DENSE_REGION_CAPTION,
    OBJECT_DETECTION,
    OPEN_VOCABULARY,
    PHRASE_GROUNDING,
    PIPELINES,
    REFERRING_EXPRESSION,
    REGION_PROPOSAL,
    Task,
    check_text,
)
from grounded_sam2.export import read_caption, read_json, write_json


@pytest.fixture(scope="module")
def processor(tiny_florence2: Path) -> Florence2Processor:
    return Florence2Processor.from_pretrained(tiny_florence2)


def locs(*bins: int) -> str:
    return "".join(f"<loc_{number}>" for number in bins)


CAR, DOOR = (54, 375, 906, 707), (710, 276, 908, 537)
TRIANGLE, SQUARE = (100, 100, 300, 100, 100, 300), (500, 500, 600, 500, 600, 600, 500, 600)

# task, what the model writes, label and bins of each box
BOXES: list[tuple[Task, str, list[tuple[str, Sequence[int]]]]] = [
    (OBJECT_DETECTION, f"</s><s>car{locs(*CAR)}door{locs(*DOOR)}</s><pad>", [("car", CAR), ("door", DOOR)]),
    (OBJECT_DETECTION, f"car{locs(*CAR, *DOOR)}", [("car", CAR), ("car", DOOR)]),
    (OBJECT_DETECTION, f" traffic light {locs(*CAR)}\n", [("traffic light", CAR)]),
    (DENSE_REGION_CAPTION, f"a sign, that says 5 < 6{locs(*CAR)}", [("a sign, that says 5 < 6", CAR)]),
    (DENSE_REGION_CAPTION, f"straße{locs(*CAR)}犬とねこ{locs(*DOOR)}", [("straße", CAR), ("犬とねこ", DOOR)]),
    (REGION_PROPOSAL, f"</s><s>{locs(*CAR, *DOOR)}</s>", [("", CAR), ("", DOOR)]),
    (PHRASE_GROUNDING, f"A green car{locs(*CAR)} a door{locs(*DOOR)}", [("A green car", CAR), ("a door", DOOR)]),
    (PHRASE_GROUNDING, f"The image{locs(0, 0, 999, 999)}it{locs(*CAR)}a door{locs(*DOOR)}", [("a door", DOOR)]),
    (OPEN_VOCABULARY, f"car{locs(*CAR)}<and>door{locs(*DOOR)}", [("car", CAR), ("door", DOOR)]),
    (OPEN_VOCABULARY, f"car<and>door{locs(*DOOR)}", [("door", DOOR)]),
    # nothing
    (OBJECT_DETECTION, "", []),
    (OBJECT_DETECTION, "</s><s></s>", []),
    (REGION_PROPOSAL, "<pad><pad>", []),
    (OPEN_VOCABULARY, "there is no car", []),
    # malformed: cut off, places without what they are of, what is no bin, the rest counts
    (OBJECT_DETECTION, f"car{locs(*CAR)}door{locs(710, 276, 908)}", [("car", CAR)]),
    (OBJECT_DETECTION, f"car{locs(*CAR, 1, 2)}door{locs(*DOOR)}", [("car", CAR), ("door", DOOR)]),
    (OBJECT_DETECTION, f"car{locs(*CAR)}<loc_7", [("car", CAR)]),
    (OBJECT_DETECTION, f"{locs(*CAR)}door{locs(*DOOR)}", [("door", DOOR)]),
    (OBJECT_DETECTION, f"car{locs(1, 2, 3)}<loc_1000>{locs(*CAR)}door{locs(*DOOR)}", [("door", DOOR)]),
    (OBJECT_DETECTION, f"car{locs(1, 2)} then{locs(*CAR)}", [("then", CAR)]),
    (OBJECT_DETECTION, f"car{locs(1, 2)}<sep>{locs(*CAR)}", [("car", CAR)]),
    (OBJECT_DETECTION, f"car<od>{locs(*CAR)}</od>", []),
]

# task, what the model writes, label and bins of each part of each outline
OUTLINES: list[tuple[Task, str, list[tuple[str, list[Sequence[int]]]]]] = [
    (REFERRING_EXPRESSION, f"</s><s>{locs(*TRIANGLE)}</s>", [("", [TRIANGLE])]),
    (REFERRING_EXPRESSION, f"{locs(*TRIANGLE)}<sep>{locs(*SQUARE)}", [("", [TRIANGLE, SQUARE])]),
    (REFERRING_EXPRESSION, f"<poly>{locs(*TRIANGLE)}</poly><poly>{locs(*SQUARE)}</poly>",
     [("", [TRIANGLE]), ("", [SQUARE])]),
    (OPEN_VOCABULARY, f"car<poly>{locs(*TRIANGLE)}<sep>{locs(*SQUARE)}</poly>", [("car", [TRIANGLE, SQUARE])]),
    (OPEN_VOCABULARY, f"car<poly>{locs(*TRIANGLE)}</poly><poly>{locs(*SQUARE)}</poly>",
     [("car", [TRIANGLE]), ("car", [SQUARE])]),
    (OPEN_VOCABULARY, f"緑の車<poly>{locs(*TRIANGLE)}</poly><and>door<poly>{locs(*SQUARE)}</poly>",
     [("緑の車", [TRIANGLE]), ("door", [SQUARE])]),
    # malformed: an odd number of bins, a part of fewer than three points, an end that is missing
    (REFERRING_EXPRESSION, locs(*TRIANGLE, 7), [("", [TRIANGLE])]),
    (REFERRING_EXPRESSION, f"{locs(1, 2, 3, 4)}<sep>{locs(*SQUARE)}<sep>", [("", [SQUARE])]),
    (REFERRING_EXPRESSION, locs(1, 2, 3, 4), []),
    (REFERRING_EXPRESSION, "the car on the left", []),
    (OPEN_VOCABULARY, f"car<poly>{locs(*TRIANGLE)}", [("car", [TRIANGLE])]),
    (OPEN_VOCABULARY, "car<poly></poly>", []),
]  # fmt: skip


def middles(bins: Sequence[int]) -> np.ndarray:
    """The middle of each bin, as a fraction of the image's side."""
    return (np.array(bins) + 0.5) / 1000


@pytest.mark.parametrize(("task", "text", "expected"), BOXES)
def test_boxes(task: Task, text: str, expected: list[tuple[str, Sequence[int]]]) -> None:
    regions = parse_regions(text, task, ignored={"it", "the image"})
    assert [region.label for region in regions] == [label for label, _ in expected]
    for region, (label, bins) in zip(regions, expected, strict=True):
        np.testing.assert_allclose(region.box, middles(bins), rtol=1e-6)
        assert region.polygons == ()
        assert text[slice(*region.label_span)].strip() == label
        assert text[slice(*region.place_span)] == locs(*bins)


@pytest.mark.parametrize(("task", "text", "expected"), OUTLINES)
def test_outlines(task: Task, text: str, expected: list[tuple[str, list[Sequence[int]]]]) -> None:
    regions = parse_regions(text, task)
    assert [region.label for region in regions] == [label for label, _ in expected]
    for region, (_, parts) in zip(regions, expected, strict=True):
        assert len(region.polygons) == len(parts)
        for polygon, bins in zip(region.polygons, parts, strict=True):
            np.testing.assert_allclose(polygon, middles(bins).reshape(-1, 2), rtol=1e-6)
        points = np.concatenate([middles(bins).reshape(-1, 2) for bins in parts])
        np.testing.assert_allclose(region.box, [*points.min(axis=0), *points.max(axis=0)], rtol=1e-6)


MALFORMED = ["<", "<loc_", "<loc_5", "loc_5>", "<loc_>", "<poly>", "</poly></poly>", "<sep>" * 9, "\x00�" + locs(*CAR)]


@pytest.mark.parametrize("text", [*MALFORMED, "a" + locs(*range(999)), locs(*[5] * 400) + "<poly>"])
@pytest.mark.parametrize("task", [*dict.fromkeys(PIPELINES.values()), *CAPTIONS.values()], ids=lambda task: task.name)
def test_no_answer_is_an_error(task: Task, text: str) -> None:
    regions = parse_regions(text, task)
    answer = Answer(text, regions, np.ones(len(regions), np.float32))
    detections = answer.detections((40, 30))
    assert len(detections) <= len(regions)
    assert len(detections.data["class_name"]) == len(detections)


# Well formed, in ASCII and without <and>, which is all that the processor reads. It cuts pixels to whole numbers.
BY_PROCESSOR = [
    (OBJECT_DETECTION, f"</s><s>car{locs(*CAR)}door{locs(*DOOR, *CAR)}</s>"),
    (DENSE_REGION_CAPTION, f"a green car, parked{locs(*CAR)} a door {locs(*DOOR)}"),
    (REGION_PROPOSAL, f"</s><s>{locs(*CAR, *DOOR)}</s>"),
    (PHRASE_GROUNDING, f"it{locs(*DOOR)}A green car{locs(*CAR)} a door{locs(*DOOR)}"),
    (OPEN_VOCABULARY, f"car{locs(*CAR)}door{locs(*DOOR)}"),
    (REFERRING_EXPRESSION, f"</s><s>{locs(*TRIANGLE)}<sep>{locs(*SQUARE)}</s>"),
    (OPEN_VOCABULARY, f"car<poly>{locs(*TRIANGLE)}<sep>{locs(*SQUARE)}</poly>door<poly>{locs(*SQUARE)}</poly>"),
]


@pytest.mark.parametrize(("task", "text"), BY_PROCESSOR)
def test_the_processor_reads_the_same(processor: Florence2Processor, task: Task, text: str) -> None:
    size = (640, 480)
    read = processor.post_process_generation(text, task=task.token, image_size=size)[task.token]
    regions = parse_regions(text, task, ignored={"it"})
    assert regions
    if regions[0].polygons:
        polygons = [[(part * size).astype(int).ravel().tolist() for part in region.polygons] for region in regions]
        assert polygons == read["polygons"]
    else:
        boxes = [(region.box * (size * 2)).astype(int).tolist() for region in regions]
        assert boxes == read["bboxes"]
    labels = (
        read["polygons_labels" if regions[0].polygons else "bboxes_labels"]
        if "bboxes_labels" in read
        else read["labels"]
    )
    assert [region.label for region in regions] == labels


def test_boxes_in_pixels_of_the_image() -> None:
    """1000 bins over 500 pixels are half a pixel wide; the middle of bin 0 is a quarter of a pixel in."""
    text = f"car{locs(0, 0, 999, 499)}"
    answer = Answer(text, parse_regions(text, OBJECT_DETECTION), np.ones(1, np.float32))
    detections = answer.detections((500, 1000))
    np.testing.assert_allclose(detections.xyxy, [[0.25, 0.5, 499.75, 499.5]])
    assert detections.xyxy.dtype == np.float32


def test_most_confident_first_and_no_box_without_area() -> None:
    text = f"cat{locs(*CAR)}dog{locs(5, 5, 5, 9)}cat{locs(*DOOR)}bee{locs(9, 9, 5, 20)}emu{locs(1, 1, 3, 3)}"
    answer = Answer(text, parse_regions(text, OBJECT_DETECTION), np.array([0.2, 0.9, 0.8, 0.7, 0.5], np.float32))
    detections = answer.detections((1000, 1000))
    assert list(detections.data["class_name"]) == ["cat", "emu", "cat"]
    assert detections.confidence.tolist() == pytest.approx([0.8, 0.5, 0.2])
    assert detections.class_id.tolist() == [0, 3, 0]  # cat, dog, bee, emu
    assert detections.mask is None


@pytest.mark.parametrize(("text", "label"), [("", "the red car"), ("car", "car")])
def test_what_has_no_label_is_named_after_the_question(text: str, label: str) -> None:
    answer = Answer("", parse_regions(f"{text}{locs(*TRIANGLE)}", REFERRING_EXPRESSION), np.ones(1, np.float32))
    assert list(answer.detections((10, 10), unlabelled="the red car").data["class_name"]) == [label]


def test_nothing_found_keeps_the_fields() -> None:
    detections = Answer("</s>", [], np.zeros(0, np.float32)).detections((20, 10))
    assert detections.xyxy.shape == (0, 4)
    assert len(detections.confidence) == len(detections.class_id) == len(detections.data["class_name"]) == 0


def test_parts_of_an_outline_are_one_mask() -> None:
    """Bins 95 to 195 of 1000 on 100 pixels: from 9.55 to 19.55, so pixels 10 to 19 have their middle inside."""
    one, other = (95, 95, 195, 95, 195, 195, 95, 195), (695, 695, 895, 695, 895, 895, 695, 895)
    text = f"{locs(*one)}<sep>{locs(*other)}"
    detections = Answer(text, parse_regions(text, REFERRING_EXPRESSION), np.ones(1, np.float32)).detections((100, 100))
    expected = np.zeros((100, 100), bool)
    expected[10:20, 10:20] = True
    expected[70:90, 70:90] = True
    np.testing.assert_array_equal(detections.mask[0], expected)
    np.testing.assert_allclose(detections.xyxy, [[9.55, 9.55, 89.55, 89.55]], rtol=1e-6)


def test_parts_that_overlap_leave_no_hole() -> None:
    whole = np.array([[0.0, 0.0], [1, 0], [1, 1], [0, 1]], np.float32)
    assert mask_of_polygons((whole, whole / 2), (8, 6)).all()
    assert mask_of_polygons((), (8, 6)).shape == (6, 8) and not mask_of_polygons((), (8, 6)).any()


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("</s><s>A green car in front of a yellow building.</s>", "A green car in front of a yellow building."),
        ("Ein Hund,\nzwei  Straßen und 犬.", "Ein Hund, zwei Straßen und 犬."),
        (f"A dog{locs(*CAR)} and a cat", "A dog and a cat"),
        ("3 < 5 and a <b", "3 < 5 and a <b"),
        ("", ""),
        ("</s><s></s><pad>", ""),
    ],
)  # fmt: skip
def test_captions(text: str, caption: str) -> None:
    assert Answer(text, [], np.zeros(0, np.float32)).caption == caption


@pytest.mark.parametrize("caption", ["", "Straße with a 犬"])
def test_caption_in_the_json(tmp_path: Path, caption: str) -> None:
    detections = Answer("", parse_regions(f"car{locs(*CAR)}", OBJECT_DETECTION), np.ones(1, np.float32)).detections(
        (9, 9)
    )
    path = tmp_path / "folder" / "image.json"
    write_json(path, "image.jpg", detections, size=(9, 9), caption=caption)
    assert read_caption(path) == caption
    np.testing.assert_array_equal(read_json(path).detections.xyxy, detections.xyxy)
    assert [file.name for file in path.parent.iterdir()] == ["image.json"]


@pytest.mark.parametrize(("content", "caption"), [("{}", None), ('{"caption": "a"}', "a")])
def test_caption_of_a_file(tmp_path: Path, content: str, caption: str | None) -> None:
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    assert read_caption(tmp_path / "a.json") == caption


@pytest.mark.parametrize("content", ["[]", "nothing"])
def test_no_image_json(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="not the JSON of an image"):
        read_caption(tmp_path / "a.json")


# ---- which task takes a text ----

WITH_TEXT = [PHRASE_GROUNDING, REFERRING_EXPRESSION, OPEN_VOCABULARY]
WITHOUT_TEXT = [OBJECT_DETECTION, DENSE_REGION_CAPTION, REGION_PROPOSAL, *CAPTIONS.values()]


@pytest.mark.parametrize("task", WITH_TEXT, ids=lambda task: task.name)
def test_a_text_that_is_needed(task: Task) -> None:
    assert check_text(task, " a red car ") == "a red car"
    for blank in (None, "", " \n"):
        with pytest.raises(ValueError, match=f"{task.name} needs a text, such as"):
            check_text(task, blank)


@pytest.mark.parametrize("task", WITHOUT_TEXT, ids=lambda task: task.name)
def test_a_text_that_is_not_wanted(task: Task) -> None:
    assert check_text(task, None) is check_text(task, " ") is None
    with pytest.raises(ValueError, match=f"{task.name} takes no text, got 'a car'"):
        check_text(task, "a car")


@pytest.mark.parametrize("text", ["<loc_5>", "a </s> car", "<image>", "car<sep>"])
@pytest.mark.parametrize("task", WITH_TEXT, ids=lambda task: task.name)
def test_marks_in_a_text(task: Task, text: str) -> None:
    with pytest.raises(ValueError, match="takes words only, got <"):
        check_text(task, text)


def test_and_belongs_to_open_vocabulary() -> None:
    assert check_text(OPEN_VOCABULARY, "car <and> building") == "car <and> building"
    with pytest.raises(ValueError, match="<and>"):
        check_text(PHRASE_GROUNDING, "car <and> building")
