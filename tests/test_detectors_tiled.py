"""Tiles around a detector: what is found, once each, and what reaches the detector underneath."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import supervision as sv
from scipy import ndimage

from grounded_sam2.detectors.base import as_image_list, make_detections
from grounded_sam2.detectors.huggingface import HuggingFaceDetector
from grounded_sam2.detectors.tiled import TiledDetector, in_tiles
from grounded_sam2.prompts import parse_prompt

PROMPT = "car. tire."
COLOURS = {"car": (250, 0, 0), "tire": (0, 250, 0)}
TILE = (100, 100)
OVERLAP = (0.2, 0.2)  # 20 pixels
Box = tuple[int, int, int, int]


class ColourDetector:
    """Finds patches of the phrases' colours whose shorter side is at least `smallest` of the view's longer side.

    Larger patches are more confident, so a cut one is less confident than the whole.
    """

    def __init__(self, smallest: float = 0.05) -> None:
        self.smallest = smallest
        self.views: list[list[tuple[int, int]]] = []  # sizes (width, height) of each call's images
        self.options: list[dict[str, Any]] = []

    def detect(self, images: Any, text_prompt: str | Sequence[str], **options: Any) -> list[sv.Detections]:
        image_list = as_image_list(images)
        self.views.append([(image.shape[1], image.shape[0]) for image in image_list])
        self.options.append(options)
        return [self._find(image, parse_prompt(text_prompt)) for image in image_list]

    def _find(self, image: np.ndarray, phrases: list[str]) -> sv.Detections:
        xyxy, confidence, class_id = [], [], []
        for index, phrase in enumerate(phrases):
            patches, _ = ndimage.label((image == COLOURS[phrase]).all(axis=-1))
            for rows, columns in ndimage.find_objects(patches):
                width, height = columns.stop - columns.start, rows.stop - rows.start
                if min(width, height) >= self.smallest * max(image.shape[:2]):
                    xyxy.append((columns.start, rows.start, columns.stop, rows.stop))
                    confidence.append(0.5 + 0.4 * width * height / image[..., 0].size)
                    class_id.append(index)
        return make_detections(
            np.array(xyxy, np.float32), np.array(confidence), np.array(class_id, int), phrases, image.shape[1::-1]
        )


def draw(size: tuple[int, int], **boxes: list[Box]) -> np.ndarray:
    """An image of `size` (width, height) with boxes of each phrase."""
    image = np.zeros((size[1], size[0], 3), np.uint8)
    for phrase, of_phrase in boxes.items():
        for left, top, right, bottom in of_phrase:
            image[top:bottom, left:right] = COLOURS[phrase]
    return image


def found_boxes(detections: sv.Detections) -> list[tuple[str, Box]]:
    boxes = [tuple(int(side) for side in box) for box in detections.xyxy]
    return sorted(zip(detections.data["class_name"].tolist(), boxes, strict=True))


def find(image: np.ndarray, **options: Any) -> list[tuple[str, Box]]:
    tiled = TiledDetector(ColourDetector(), TILE, **{"overlap_ratio": OVERLAP, **options})
    return found_boxes(tiled.detect(image, PROMPT)[0])


# 340x260 with tiles of 100 and an overlap of 20: tiles start at 0, 80, 160, 240 across and 0, 80, 160 down.
# Patches of 17 pixels and more are seen in the whole image, of 5 and more in a tile.
SIZE = (340, 260)
WHOLE = {
    "small, inside one tile": [(30, 30, 40, 42)],
    "small, in an overlap, so in two tiles": [(82, 20, 96, 32)],
    "small, in a corner of four tiles": [(83, 83, 97, 97)],
    "small, cut by a border": [(90, 20, 108, 30)],
    "small, cut by a border on the other side": [(72, 20, 88, 30)],
    "small, cut by two borders": [(92, 70, 107, 86)],
    "touches the image's border": [(0, 0, 9, 9), (330, 250, 340, 260), (330, 0, 340, 10)],
    "many": [(x, y, x + 8, y + 8) for x in range(5, 330, 30) for y in range(5, 250, 30)],
    "large": [(20, 20, 320, 240)],
    "fills the image": [(0, 0, 340, 260)],
    "thin, through all tiles, seen in no view as a whole": [(10, 50, 330, 56)],
    "thin, from border to border": [(0, 50, 340, 56)],
    "thin, down through an overlap": [(85, 5, 92, 255)],
    "two thin ones, one under the other": [(10, 30, 330, 36), (10, 45, 330, 52)],
    "thin ones that end before each other": [(10, 50, 95, 56), (105, 50, 330, 56)],
    "small beside large": [(20, 20, 190, 240), (200, 40, 210, 50), (255, 85, 262, 93)],
}


@pytest.mark.parametrize("overlap", [OVERLAP, (0.5, 0.3), (0.7, 0.7)])
@pytest.mark.parametrize("merge", ["nms", "nmm"])
@pytest.mark.parametrize("boxes", WHOLE.values(), ids=WHOLE.keys())
def test_every_object_is_found_once_and_whole(boxes: list[Box], merge: str, overlap: tuple[float, float]) -> None:
    assert find(draw(SIZE, car=boxes), merge=merge, overlap_ratio=overlap) == [("car", box) for box in sorted(boxes)]


def test_without_overlap_pieces_meet_at_the_border() -> None:
    boxes = [(30, 30, 40, 40), (90, 60, 110, 66), (195, 95, 208, 107)]
    assert find(draw(SIZE, car=boxes), overlap_ratio=(0, 0)) == [("car", box) for box in sorted(boxes)]


def test_small_objects_are_not_found_without_tiles() -> None:
    image = draw(SIZE, car=WHOLE["many"])
    assert found_boxes(in_tiles(ColourDetector(), None).detect(image, PROMPT)[0]) == []
    assert len(find(image)) == len(WHOLE["many"]) == 11 * 9


def test_what_lies_on_another_thing_is_kept() -> None:
    """A tire on a car, cut by a border and not; neither is a piece of the car. The car has holes but one box."""
    cars, tires = [(20, 20, 320, 200)], [(40, 60, 60, 70), (90, 150, 107, 165), (150, 40, 250, 52)]
    expected = [("car", cars[0])] + [("tire", box) for box in sorted(tires)]
    assert find(draw(SIZE, car=cars, tire=tires)) == expected


def test_a_confident_piece_does_not_replace_the_whole() -> None:
    """The tile that cuts the object is surer of it than the one that shows all of it."""

    class Sure(ColourDetector):
        def _find(self, image: np.ndarray, phrases: list[str]) -> sv.Detections:
            detections = super()._find(image, phrases)
            is_cut = detections.xyxy[:, 2] >= image.shape[1]
            return make_detections(
                detections.xyxy, np.where(is_cut, 0.9, 0.4), detections.class_id, phrases, image.shape[1::-1]
            )

    (detections,) = TiledDetector(Sure(), TILE, overlap_ratio=OVERLAP).detect(
        draw(SIZE, car=[(86, 20, 103, 30)]), PROMPT
    )
    assert found_boxes(detections) == [("car", (86, 20, 103, 30))]
    assert detections.confidence.tolist() == pytest.approx([0.4])


def test_a_piece_that_nothing_completes_is_kept() -> None:
    class Shy(ColourDetector):
        """Does not see what touches the left border of its view."""

        def _find(self, image: np.ndarray, phrases: list[str]) -> sv.Detections:
            detections = super()._find(image, phrases)
            return detections[detections.xyxy[:, 0] > 0]

    (detections,) = TiledDetector(Shy(), TILE, overlap_ratio=OVERLAP).detect(
        draw(SIZE, car=[(60, 20, 330, 26)]), PROMPT
    )
    assert found_boxes(detections) == [("car", (60, 20, 100, 26))]


@pytest.mark.parametrize("class_agnostic", [True, False])
def test_a_piece_on_another_thing_is_kept_only_on_demand(class_agnostic: bool) -> None:
    """A tile shows half of something that no other view shows: a tire, or a part of the car taken for one."""

    class Once(ColourDetector):
        def _find(self, image: np.ndarray, phrases: list[str]) -> sv.Detections:
            detections = super()._find(image, phrases)
            return detections[(detections.class_id == 0) | (detections.xyxy[:, 0] > 0)]

    image = draw(SIZE, car=[(20, 20, 320, 200)], tire=[(60, 60, 150, 70)])
    tiled = TiledDetector(Once(), TILE, overlap_ratio=OVERLAP, class_agnostic=class_agnostic)
    expected = [("car", (20, 20, 320, 200))] + [("tire", (60, 60, 100, 70))] * (not class_agnostic)
    assert found_boxes(tiled.detect(image, PROMPT)[0]) == expected


@pytest.mark.parametrize(
    ("merge", "class_agnostic", "expected"),
    [
        ("nms", True, [("car", (30, 30, 50, 50))]),
        ("nms", False, [("car", (30, 30, 50, 50)), ("tire", (32, 30, 52, 50))]),
        ("nmm", True, [("car", (30, 30, 52, 50))]),
        ("nmm", False, [("car", (30, 30, 50, 50)), ("tire", (32, 30, 52, 50))]),
    ],
)
def test_merging_of_what_overlaps(merge: Any, class_agnostic: bool, expected: list[tuple[str, Box]]) -> None:
    """Two phrases for one thing, their boxes 2 of 20 pixels apart: an IoU of 18/22."""

    class Twofold:
        def detect(self, images: Any, text_prompt: Any, **options: Any) -> list[sv.Detections]:
            phrases = parse_prompt(text_prompt)
            xyxy = np.array([[30, 30, 50, 50], [32, 30, 52, 50]], np.float32)
            return [
                make_detections(xyxy, np.array([0.8, 0.6]), np.array([0, 1]), phrases, TILE)
                if image[30, 30].any()
                else make_detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), phrases, TILE)
                for image in as_image_list(images)
            ]

    tiled = TiledDetector(Twofold(), TILE, overlap_ratio=OVERLAP, merge=merge, class_agnostic=class_agnostic)
    (detections,) = tiled.detect(draw(SIZE, car=[(30, 30, 31, 31)]), PROMPT)
    assert found_boxes(detections) == expected
    assert detections.confidence[0] == pytest.approx(0.8)


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_tiles_go_to_the_detector_in_batches(batch_size: int) -> None:
    """4 x 3 tiles of the first image, none of the second, which is not larger than a tile."""
    detector = ColourDetector()
    images = [draw(SIZE, car=[(30, 30, 40, 40)]), draw(TILE, car=[(30, 30, 40, 40)])]
    found = TiledDetector(detector, TILE, overlap_ratio=OVERLAP, batch_size=batch_size).detect(images, PROMPT)
    assert [found_boxes(detections) for detections in found] == [[("car", (30, 30, 40, 40))]] * 2
    assert detector.views[0] == [SIZE, TILE]
    assert [len(batch) for batch in detector.views[1:]] == [batch_size] * (12 // batch_size) + [12 % batch_size] * (
        12 % batch_size > 0
    )
    assert all(view == TILE for batch in detector.views[1:] for view in batch)


@pytest.mark.parametrize("size", [(1, 1), (100, 100), (1, 400), (400, 1), (101, 60), (60, 101)])
def test_images_of_any_size(size: tuple[int, int]) -> None:
    detector = ColourDetector()
    image = draw(size, car=[(0, 0, *size)])
    (detections,) = TiledDetector(detector, TILE, overlap_ratio=OVERLAP).detect(image, PROMPT)
    seen_whole = min(size) >= 0.05 * max(size)
    assert found_boxes(detections) == ([("car", (0, 0, *size))] if seen_whole else [])
    assert (len(detector.views) == 1) == (max(size) <= 100)


def test_settings_reach_the_detector_unchanged() -> None:
    detector = ColourDetector()
    options = {"box_threshold": {"car": 0.5}, "text_threshold": {"tire": 0.1}, "aliases": {"car": "auto"}, "top_k": 3}
    TiledDetector(detector, TILE).detect(draw(SIZE), PROMPT, **options)
    assert len(detector.options) > 2
    assert all(given == options for given in detector.options)


def test_options_that_are_not_given_are_not_asked_of_the_detector() -> None:
    detector = ColourDetector()
    TiledDetector(detector, TILE).detect(draw(SIZE), PROMPT)
    assert all(given == {"box_threshold": 0.35, "text_threshold": 0.25} for given in detector.options)


def test_top_k_counts_in_the_image_and_not_in_the_tile() -> None:
    image = draw(SIZE, car=[(10, 10, 20, 20), (210, 10, 225, 25), (10, 210, 30, 230)], tire=[(110, 110, 120, 120)])
    (detections,) = TiledDetector(ColourDetector(), TILE).detect(image, PROMPT, top_k=1)
    assert found_boxes(detections) == [("car", (10, 210, 30, 230)), ("tire", (110, 110, 120, 120))]


@pytest.mark.parametrize("boxes", [[], [(30, 30, 40, 40)], WHOLE["many"]])
def test_fields_and_order(boxes: list[Box]) -> None:
    (detections,) = TiledDetector(ColourDetector(), TILE).detect(draw(SIZE, tire=boxes), PROMPT)
    assert len(detections) == len(boxes)
    assert detections.xyxy.shape == (len(boxes), 4)
    assert detections.xyxy.dtype == detections.confidence.dtype == np.float32
    assert detections.class_id.tolist() == [1] * len(boxes)
    assert detections.data.keys() == {"class_name"}
    assert detections.data["class_name"].tolist() == ["tire"] * len(boxes)
    assert (np.diff(detections.confidence) <= 0).all()


def test_no_images() -> None:
    assert TiledDetector(ColourDetector(), TILE).detect([], PROMPT) == []


class MaskingDetector(ColourDetector):
    """Gives as masks the pixels of the phrase's colour in each box."""

    def _find(self, image: np.ndarray, phrases: list[str]) -> sv.Detections:
        detections = super()._find(image, phrases)
        masks = np.zeros((len(detections), *image.shape[:2]), bool)
        for mask, box, class_id in zip(masks, detections.xyxy.astype(int), detections.class_id, strict=True):
            inside = (slice(box[1], box[3]), slice(box[0], box[2]))
            mask[inside] = (image[inside] == COLOURS[phrases[class_id]]).all(axis=-1)
        detections.mask = masks
        return detections


@pytest.mark.parametrize("merge", ["nms", "nmm"])
@pytest.mark.parametrize(
    "boxes",
    [[], [(30, 30, 40, 42)], [(10, 50, 330, 56)], [(330, 250, 340, 260), (90, 60, 110, 66), (20, 100, 300, 240)]],
    ids=["none", "inside one tile", "joined pieces", "three"],
)
def test_masks_of_the_detector_are_kept(boxes: list[Box], merge: str) -> None:
    """Each with a hole, so that it is not only the box filled."""
    image = draw(SIZE, car=boxes)
    for left, top, right, bottom in boxes:
        image[(top + bottom) // 2, (left + right) // 2] = 0
    (detections,) = TiledDetector(MaskingDetector(), TILE, overlap_ratio=OVERLAP, merge=merge).detect(image, PROMPT)
    assert found_boxes(detections) == [("car", box) for box in sorted(boxes)]
    assert detections.mask.shape == (len(boxes), 260, 340) and detections.mask.dtype == bool
    for (left, top, right, bottom), mask in zip(detections.xyxy.astype(int), detections.mask, strict=True):
        expected = np.zeros((260, 340), bool)
        expected[top:bottom, left:right] = (image[top:bottom, left:right] == COLOURS["car"]).all(axis=-1)
        np.testing.assert_array_equal(mask, expected)


class RepaintDetector(ColourDetector):
    """Takes a tire that is cut for a car, and a whole one less surely for a car than for a tire."""

    def _find(self, image: np.ndarray, phrases: list[str]) -> sv.Detections:
        found = super()._find(image, phrases)
        rows, xyxy = np.flatnonzero(found.data["class_name"] == "tire"), found.xyxy
        is_cut = (xyxy[rows, 0] == 0) | (xyxy[rows, 2] == image.shape[1])
        class_id = found.class_id.copy()
        class_id[rows[is_cut]] = phrases.index("car")
        whole = rows[~is_cut]
        return make_detections(
            np.concatenate([xyxy, xyxy[whole]]),
            np.concatenate([found.confidence, found.confidence[whole] - 0.1]),
            np.concatenate([class_id, np.full(len(whole), phrases.index("car"))]),
            phrases,
            image.shape[1::-1],
        )


@pytest.mark.parametrize("top_k", [None, 1])
@pytest.mark.parametrize("size", [SIZE, TILE])
def test_what_is_unwanted_as_a_whole_is_not_wanted_in_pieces(size: tuple[int, int], top_k: int | None) -> None:
    """In the whole image the tire is surely one; a tile that shows half of it says car."""
    boxes = {"car": [(10, 10, 30, 26)], "tire": [(40, 30, 60, 90)] if size == TILE else [(60, 100, 160, 180)]}
    tiled = TiledDetector(RepaintDetector(), TILE, overlap_ratio=OVERLAP)
    (detections,) = tiled.detect(draw(size, **boxes), "car. not a tire.", top_k=top_k)
    assert found_boxes(detections) == [("car", (10, 10, 30, 26))]
    assert detections.class_id.tolist() == [0]
    (both,) = tiled.detect(draw(size, **boxes), "car. tire.")
    assert set(both.data["class_name"]) == {"car", "tire"}


@pytest.mark.parametrize("merge", ["nms", "nmm"])
def test_several_images_equal_one_by_one(tiny_detector: Path, merge: Any) -> None:
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 256, size, dtype=np.uint8) for size in ((60, 80, 3), (90, 70, 3), (60, 80, 3), (30, 30, 3))
    ]
    detector = HuggingFaceDetector(tiny_detector)
    tiled = TiledDetector(detector, (48, 40), merge=merge)
    together = tiled.detect(images, "red apple. dog", box_threshold=0.3)
    for image, detections in zip(images, together, strict=True):
        (alone,) = tiled.detect(image, "red apple. dog", box_threshold=0.3)
        assert len(alone) > 0
        np.testing.assert_allclose(detections.xyxy, alone.xyxy, atol=1e-3)
        np.testing.assert_allclose(detections.confidence, alone.confidence, atol=1e-5)
        np.testing.assert_array_equal(detections.data["class_name"], alone.data["class_name"])
        assert (alone.xyxy >= 0).all() and (alone.xyxy <= [*image.shape[1::-1]] * 2).all()
    (plain,) = detector.detect(images[3], "red apple. dog", box_threshold=0.3)
    np.testing.assert_allclose(together[3].xyxy, plain.xyxy, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"slice_wh": (640,)}, r"slice_wh of two numbers, 32 or more, got \(640,\)"),
        ({"slice_wh": (640, 31)}, r"got \(640, 31\)"),
        ({"slice_wh": (-640, 640)}, r"got \(-640, 640\)"),
        ({"overlap_ratio": (0.2, 1.0)}, r"overlap_ratio of two numbers in \[0, 1\), got \(0.2, 1.0\)"),
        ({"overlap_ratio": (-0.1, 0.2)}, r"got \(-0.1, 0.2\)"),
        ({"merge": "wbf"}, "expected a merge of nms or nmm, got 'wbf'"),
        ({"merge_threshold": 2}, r"merge_threshold in \[0, 1\], got 2"),
        ({"batch_size": 0}, "batch_size of at least 1, got 0"),
    ],
)
def test_wrong_settings_are_value_errors(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        TiledDetector(ColourDetector(), **{"slice_wh": TILE, **settings})


def test_wrong_arguments_are_value_errors() -> None:
    with pytest.raises(ValueError, match="names nothing"):
        TiledDetector(ColourDetector(), TILE).detect(draw(SIZE), " ")
    with pytest.raises(ValueError, match="top_k of at least 1, or None, got 0"):
        TiledDetector(ColourDetector(), TILE).detect(draw(SIZE), PROMPT, top_k=0)
    with pytest.raises(ValueError, match="image 1"):
        TiledDetector(ColourDetector(), TILE).detect([draw(SIZE), np.zeros((4, 4), np.uint8)], PROMPT)
