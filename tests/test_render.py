"""Drawing: every combination of what detections may hold, the right colours, the input untouched."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import supervision as sv

from grounded_sam2 import render
from grounded_sam2.render import PALETTE, annotate, in_corner, label_texts, spotlight

SIZE = (160, 120)  # width, height


def some_detections(count: int, with_masks: bool = True, with_ids: bool = True) -> sv.Detections:
    masks = np.zeros((count, SIZE[1], SIZE[0]), bool)
    for position in range(count):
        masks[position, 40 + 20 * position : 60 + 20 * position, 40:100] = True
    return sv.Detections(
        xyxy=np.array([[40, 40 + 20 * position, 100, 60 + 20 * position] for position in range(count)]).reshape(-1, 4),
        mask=masks if with_masks else None,
        confidence=np.linspace(0.5, 0.9, count, dtype=np.float32),
        class_id=np.arange(count),
        tracker_id=np.arange(1, count + 1) if with_ids else None,
        data={"class_name": np.array(["red apple"] * count)},
    )


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("with_masks", [True, False])
@pytest.mark.parametrize("with_ids", [True, False])
def test_annotate(count: int, with_masks: bool, with_ids: bool) -> None:
    image = np.full((SIZE[1], SIZE[0], 3), (10, 20, 30), np.uint8)
    before = image.copy()
    annotated = annotate(image, some_detections(count, with_masks, with_ids))
    np.testing.assert_array_equal(image, before)
    assert annotated is not image and annotated.shape == image.shape and annotated.dtype == np.uint8
    assert (annotated != image).any() == (count > 0)


def test_nothing_known_but_boxes() -> None:
    image = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    assert annotate(image, sv.Detections(xyxy=np.array([[40.0, 40, 100, 100]]))).any()
    np.testing.assert_array_equal(annotate(image, sv.Detections.empty()), image)


def test_colours_are_rgb() -> None:
    image = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    detections = some_detections(1, with_ids=False)
    annotated = annotate(image, detections)
    expected = PALETTE.by_idx(0).as_rgb()
    assert expected[0] != expected[2]
    assert annotated[50, 100].tolist() == list(expected)  # on the box's right edge
    assert np.abs(annotated[50, 70].astype(int) * 2 - expected).max() <= 2  # inside the half-transparent mask


def test_colour_follows_the_id_and_not_the_position() -> None:
    image = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    detections = some_detections(3)
    alone = annotate(image, detections[2])
    together = annotate(image, detections)
    np.testing.assert_array_equal(alone[90, 100], together[90, 100])


def test_colours_that_are_given_go_by_position() -> None:
    image = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    annotated = annotate(image, some_detections(3)[[1]], ["#00ff00"])
    assert annotated[70, 100].tolist() == [0, 255, 0]
    with pytest.raises(ValueError, match="colors: expected 2, got 1"):
        annotate(image, some_detections(2), ["#00ff00"])


@pytest.mark.parametrize("size", [(1, 1), (20, 2000), (1920, 1080)])
def test_any_image_size(size: tuple[int, int]) -> None:
    image = np.zeros((size[1], size[0], 3), np.uint8)
    mask = np.ones((1, size[1], size[0]), bool)
    detections = sv.Detections(
        xyxy=np.array([[-5.0, 0, size[0] + 50, size[1]]]), mask=mask, class_id=np.array([0]), confidence=np.array([0.5])
    )
    assert annotate(image, detections).shape == image.shape


def test_label_texts() -> None:
    detections = some_detections(3)
    assert label_texts(detections) == ["#1 red apple 0.50", "#2 red apple 0.70", "#3 red apple 0.90"]
    detections.tracker_id = None
    detections.confidence = np.array([0.5, np.nan, 0.9])
    assert label_texts(detections) == ["red apple 0.50", "red apple", "red apple 0.90"]
    assert label_texts(sv.Detections(xyxy=np.zeros((1, 4)))) == [""]
    assert label_texts(sv.Detections.empty()) == []


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"image: expected RGB uint8 \(H, W, 3\), got uint8 \(4, 4\)"):
        annotate(np.zeros((4, 4), np.uint8), sv.Detections.empty())
    with pytest.raises(ValueError, match=r"masks: expected \(1, 10, 10\), got \(1, 120, 160\)"):
        annotate(np.zeros((10, 10, 3), np.uint8), some_detections(1))


# ---- labels that are not ASCII ----


def labelled(name: str) -> np.ndarray:
    detections = some_detections(1, with_masks=False)
    detections.data["class_name"] = np.array([name])
    return annotate(np.zeros((SIZE[1], SIZE[0], 3), np.uint8), detections)


@pytest.mark.parametrize("version", ["4.10.0", cv2.__version__])
def test_labels_differ_by_every_character(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """OpenCV 4 shows "??" for each; a byte of the command line that is no UTF-8 is shown as an escape."""
    monkeypatch.setattr(cv2, "__version__", version)
    pictures = [labelled(name).tobytes() for name in ("猫", "狗", "straße", "strasse", "Ж", "\udcff", "??")]
    assert len(set(pictures)) == len(pictures)


def test_a_font_is_taken_that_has_the_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of these has what the other has; a character that no font has is an escape."""
    has = {"latin.ttf": "ßé", "all.ttf": "ßé猫"}
    monkeypatch.setattr(render, "FONTS", list(has))
    monkeypatch.setattr(render, "_characters_among", lambda font, wanted: set(has[font]) & wanted)
    render._font_for.cache_clear()
    assert [render._font_for(frozenset(text)) for text in ("ß", "猫ß", "犬", "")] == [
        "latin.ttf", "all.ttf", None, "latin.ttf",
    ]  # fmt: skip
    render._font_for.cache_clear()


def test_text_in_the_corner_changes_nothing_else() -> None:
    image = np.full((240, 320, 3), 90, np.uint8)
    drawn = in_corner(image, "12.3 fps")
    rows, columns = np.nonzero((drawn != image).any(axis=2))
    assert rows.min() == columns.min() == 0 and rows.max() < 30 and 40 < columns.max() < 120
    assert drawn.max() == 255 and drawn.min() == 0 and (image == 90).all()
    assert np.array_equal(in_corner(image, ""), image)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_spotlight(count: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
    objects = some_detections(count)
    lit = np.zeros(SIZE[::-1], bool) if count == 0 else objects.mask.any(axis=0)
    for brightness in (0.0, 0.5, 1.0):
        drawn = spotlight(image, objects, brightness)
        assert drawn.dtype == np.uint8 and np.array_equal(drawn[lit], image[lit])
        assert np.array_equal(drawn[~lit], (image[~lit] * brightness).astype(np.uint8))


def test_a_spotlight_needs_masks() -> None:
    image = np.zeros((*SIZE[::-1], 3), np.uint8)
    with pytest.raises(ValueError, match=r"masks: expected \(1, 120, 160\), got None"):
        spotlight(image, some_detections(1, with_masks=False))
    with pytest.raises(ValueError, match=r"masks: expected \(1, 50, 160\), got \(1, 120, 160\)"):
        spotlight(image[:50], some_detections(1))
