"""Find, accept, click, box, paint, rename, and ids put right: what each does to objects and masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import supervision as sv
from fake_follower import FakeFollower
from session_parts import SIZE, box_mask, make_session

from grounded_sam2.detectors.base import make_detections
from grounded_sam2.prompts import parse_prompt
from grounded_sam2.session import (
    Session,
    accept,
    add_object,
    clear,
    edits,
    find,
    hide,
    lock,
    merge,
    paint,
    pin,
    preview,
    recolor,
    refine,
    remove,
    rename,
    set_mask,
    set_search,
    split,
    states,
    swap,
)
from grounded_sam2.track.follower import Seen

pytestmark = pytest.mark.usefixtures("quick_disk")

MASK, OTHER = box_mask(4, 4, 12, 12), box_mask(30, 20, 40, 30)
EMPTY = np.zeros_like(MASK)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return make_session(tmp_path)


class TwoBoxes:
    """Finds the boxes of frame 0, and remembers what it was asked."""

    asked: dict[str, Any]

    def detect(self, images: np.ndarray, text_prompt: str, **options: Any) -> list[sv.Detections]:
        self.asked = {"text_prompt": text_prompt, **options}
        boxes, phrases = np.array([[2, 4, 12, 14], [2, 30, 14, 40]]), parse_prompt(text_prompt)
        return [make_detections(boxes, np.array([0.9, 0.6]), np.array([0, 1]), phrases, SIZE)]


# ---- by text ----


def test_what_is_found_is_added_only_when_it_is_accepted(tmp_path: Path) -> None:
    with make_session(tmp_path, FakeFollower()) as session:
        with pytest.raises(ValueError, match=r"call set_search\(session"):
            find(session, TwoBoxes(), 0)
        set_search(session, text_prompt="dog. ball.", box_threshold={"dog": 0.5})
        set_search(session, text_threshold=0.1)
        detector = TwoBoxes()
        found = find(session, detector, 0)
        assert detector.asked == {"text_prompt": "dog. ball.", "box_threshold": {"dog": 0.5}, "text_threshold": 0.1}
        assert session.objects == {} and found.data["known_as"].tolist() == [0, 0]
        assert accept(session, 0, found[[1]]) == [1]
        [obj] = session.objects.values()
        assert (obj.name, obj.class_name, obj.home_frame) == ("ball 1", "ball", 0)
        assert obj.confidence == pytest.approx(0.6)
        np.testing.assert_array_equal(session.mask(1, 0), box_mask(2, 30, 14, 40))
        assert session.cells.at(1, 0)["mask_score"] == 0.75  # type: ignore[index]
        found = find(session, detector, 0)
        assert found.data["known_as"].tolist() == [0, 1]
        assert accept(session, 0, found[[]]) == [] and accept(session, 0, sv.Detections.empty()) == []
        assert accept(session, 0, found[found.data["known_as"] == 0]) == [2]
        session.undo()
        assert list(session.objects) == [1]


@pytest.mark.parametrize("changes", [{"text_prompt": "not a dog"}, {"text_prompt": "dog", "box_threshold": 2.0}])
def test_a_search_for_nothing_is_refused(session: Session, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected"):
        set_search(session, **changes)
    assert session.search.text_prompt == "" and session.undo() is None


# ---- by clicks, boxes, masks ----


def test_objects_of_clicks_boxes_and_masks(session: Session) -> None:
    points = [[20, 20], [30, 30]]
    assert add_object(session, 3, points=points, class_name="dog", name="Rex") == 1
    np.testing.assert_array_equal(session.mask(1, 3), box_mask(18, 18, 23, 23) | box_mask(28, 28, 33, 33))
    assert add_object(session, 3, box=[10, 10, 40, 40], points=[[20, 20]], labels=[0]) == 2
    np.testing.assert_array_equal(session.mask(2, 3), box_mask(10, 10, 40, 40) & ~box_mask(18, 18, 23, 23))
    assert add_object(session, 4, mask=MASK) == 3
    assert [obj.name for obj in session.objects.values()] == ["Rex", "object 2", "object 3"]
    assert len({obj.color for obj in session.objects.values()}) == 3
    assert session.mask(1, 4) is None and session.given_frames(1) == [3]


def test_names_are_what_can_be_seen(session: Session) -> None:
    add_object(session, 3, mask=MASK, class_name="\u202edog\n", name="\u200e")
    [obj] = session.objects.values()
    assert (obj.name, obj.class_name) == ("dog 1", "dog")
    rename(session, 1, "Rex\u202e\r\nthe first", "\ud800")
    [obj] = session.objects.values()
    assert (obj.name, obj.class_name) == ("Rex the first", "dog")


def test_more_clicks_than_the_model_is_asked_with(session: Session) -> None:
    points = [[20, 20]] * 300
    add_object(session, 3, points=points)
    with pytest.raises(ValueError, match="at most 500 clicks on an object of a frame, got 600: paint it"):
        refine(session, 1, 3, points)
    with pytest.raises(ValueError, match="at most 500 clicks"):
        preview(session, 3, points=points * 2)
    paint(session, 1, 3, points * 2, 1)


def test_a_stroke_that_would_take_minutes(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    add_object(session, 3, mask=MASK)
    monkeypatch.setattr(edits, "MOST_BRUSHED", 100 * 20 * 20)
    with pytest.raises(ValueError, match="a shorter stroke or a smaller brush, got 101 places of a radius of 10"):
        paint(session, 1, 3, [[20, 20]] * 101, 10)
    assert paint(session, 1, 3, [[20, 20]] * 100, 10)[20, 20]
    monkeypatch.setattr(edits, "MOST_BRUSHED", 3 * 64 * 48)  # a brush larger than the frame paints no more than it
    assert paint(session, 1, 3, [[20, 20]] * 3, 60).all()


def test_refinement_goes_on_from_the_mask_and_its_clicks(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    add_object(session, 3, points=[[20, 20]])
    asked: list[list[list[float]]] = []
    refined = type(session.scratch).refine

    def noted(video: Any, frame_idx: int, obj_id: int, points: np.ndarray, labels: Any) -> Any:
        asked.append(np.asarray(points).tolist())
        return refined(video, frame_idx, obj_id, points, labels)

    monkeypatch.setattr(type(session.scratch), "refine", noted)
    assert preview(session, 3, obj_id=1, points=[[30, 30]]).mask.sum() == 50
    assert session.mask(1, 3).sum() == 25  # type: ignore[union-attr]
    asked.clear()
    refine(session, 1, 3, [[30, 30]])
    answer = refine(session, 1, 3, [[20, 20]], [0])
    assert asked[1::2] == [[[20, 20], [30, 30]], [[20, 20], [30, 30], [20, 20]]]  # a mask is added by none, and refined
    np.testing.assert_array_equal(answer.mask, box_mask(28, 28, 33, 33))
    np.testing.assert_array_equal(session.mask(1, 3), answer.mask)
    paint(session, 1, 3, [[40, 10]], 1)
    refine(session, 1, 3, [[50, 40]])
    # what made the mask before it was painted is in the mask, of which the middle is given
    assert asked[-1] == [[30, 30], [50, 40]]
    refine(session, 1, 3, [[60, 40]])
    assert len(asked[-1]) == 3 and asked[-1][1:] == [[50, 40], [60, 40]]
    session.undo()
    session.undo()
    session.undo()
    refine(session, 1, 3, [[5, 5]])
    assert asked[-1] == [[20, 20], [30, 30], [20, 20], [5, 5]]
    refine(session, 1, 8, [[50, 40]])  # where nothing is known
    np.testing.assert_array_equal(session.mask(1, 8), box_mask(48, 38, 53, 43))
    assert session.given_frames(1) == [3, 8] and session.scratch.obj_ids == []


def test_a_click_beside_a_mask_that_no_click_made_comes_with_one_inside(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_object(session, 3, mask=box_mask(10, 10, 41, 21))
    asked = []
    monkeypatch.setattr(type(session.scratch), "refine", lambda *args: asked.append(args[3:]) or args[0]._seen(3, [1]))
    monkeypatch.setattr(type(session.scratch), "_seen", lambda *_: Seen([1], MASK[None], np.ones(1)))
    refine(session, 1, 3, [[16, 15], [63, 48]], [0, 0])
    points, labels = asked[-1]
    assert labels.tolist() == [1, 0, 0] and points[1:].tolist() == [[16, 15], [63, 48]]
    x, y = points[0]
    assert 20 < x < 40 and y == 15


def test_a_brush_adds_and_takes_away(session: Session) -> None:
    add_object(session, 0, mask=EMPTY)
    mask = paint(session, 1, 0, [[20, 20], [40, 20]], 3)
    assert mask[20, 18:43].all() and not mask[20, 44:].any() and not mask[25].any()
    assert abs(int(mask.sum()) - (20 * 7 + 29)) < 30
    mask = paint(session, 1, 0, [[30, 20]], 2, erase=True)
    assert not mask[20, 29:32].any() and mask[20, 20] and mask[20, 40]
    np.testing.assert_array_equal(session.mask(1, 0), mask)
    assert not paint(session, 1, 5, [[30, 20]], 2, erase=True).any()
    assert states(session, 1).tolist()[:6] == ["corrected", "", "", "", "", "corrected"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: add_object(s, 0), "either a mask, or a box or points"),
        (lambda s: add_object(s, 0, mask=MASK, box=[0, 0, 5, 5]), "either a mask, or a box or points"),
        (lambda s: add_object(s, 12, mask=MASK), "frame index from 0 to 11, got 12"),
        (lambda s: add_object(s, -1, mask=MASK), "frame index from 0 to 11, got -1"),
        (lambda s: add_object(s, 0, mask=MASK.T), r"expected a bool mask \(48, 64\), got bool \(64, 48\)"),
        (lambda s: add_object(s, 0, mask=MASK * 0.5), "expected a bool mask"),
        (lambda s: add_object(s, 0, box=[0, 0, np.nan, 5]), "4 finite numbers"),
        (lambda s: add_object(s, 0, points=[[70, 5]]), "points in a frame of 64x48"),
        (lambda s: add_object(s, 0, points=[[5, np.inf]]), "points in a frame of 64x48"),
        (lambda s: add_object(s, 0, points=[]), r"points \(P, 2\)"),
        (lambda s: refine(s, 1, 0, [[5, 5]], [2]), "1 labels of 0 or 1"),
        (lambda s: refine(s, 1, 0, [[5, 5]], [1, 0]), "1 labels of 0 or 1"),
        (lambda s: refine(s, 3, 0, [[5, 5]]), r"one of the objects \[1, 2\], got 3"),
        (lambda s: paint(s, 1, 0, [[5, 5]], 0), "radius from 0.5 to 64"),
        (lambda s: set_mask(s, 1, 99, MASK), "got 99"),
        (lambda s: merge(s, 1, 1), "two objects, got 1 twice"),
        (lambda s: split(s, 1, 5), "not seen on frames 5 to 11"),
        (lambda s: pin(s, 1, 5), "nothing is known of object 1 on frame 5"),
        (lambda s: recolor(s, 1, "reddish"), "hex|color|colour"),
        (lambda s: session_mask(s, 5), "got 5"),
    ],
)
def test_bad_arguments_change_nothing(session: Session, change: Any, message: str) -> None:
    add_object(session, 0, mask=MASK)
    add_object(session, 0, mask=OTHER)
    seq = session.history.done[-1].seq
    with pytest.raises(ValueError, match=message):
        change(session)
    assert session.history.done[-1].seq == seq and session.scratch.obj_ids == []


def session_mask(session: Session, obj_id: int) -> None:
    session.mask(obj_id, 0)


# ---- the object itself ----


def test_objects_are_renamed_recoloured_hidden_locked_and_removed(session: Session) -> None:
    add_object(session, 0, mask=MASK)
    add_object(session, 0, mask=OTHER)
    rename(session, 1, "Rex", "dog")
    rename(session, 1, class_name="wolf")
    recolor(session, 1, "#00ff00")
    hide(session, 1)
    lock(session, 1)
    obj = session.object(1)
    assert (obj.name, obj.class_name, obj.color.lower(), obj.is_hidden) == ("Rex", "wolf", "#00ff00", True)
    for change in (
        lambda: rename(session, 1, "x"), lambda: remove(session, 1), lambda: set_mask(session, 1, 0, MASK),
        lambda: merge(session, 2, 1), lambda: swap(session, 2, 1), lambda: clear(session, 1),
        lambda: split(session, 1, 0), lambda: pin(session, 1, 0),
        lambda: refine(session, 1, 0, [[1, 1]]), lambda: paint(session, 1, 0, [[1, 1]], 1),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"object 1 \(Rex\) is locked"):
            change()
    lock(session, 1, False)
    remove(session, 1)
    assert list(session.objects) == [2]
    session.undo()
    assert list(session.objects) == [1, 2]
    np.testing.assert_array_equal(session.mask(1, 0), MASK)


# ---- ids ----


def filled(session: Session, obj_id: int, frames: range) -> None:
    """Masks that are not conditioning frames, of which each has its own size."""
    from grounded_sam2.session.cells import TRACKED, new_cell

    with session.command("fill") as draft:
        draft.put(*(new_cell(obj_id, t, TRACKED, own_mask(obj_id, t), (0.5, 3.0)) for t in frames))


def own_mask(obj_id: int, t: int) -> np.ndarray:
    return box_mask(20 * obj_id, 5, 20 * obj_id + 5 + t, 10)


def kinds(session: Session, obj_id: int) -> str:
    """ "." nothing, "t" tracked, "G" a conditioning frame."""
    return "".join(".tG"[kind] for kind in session.cells.of_object(obj_id)["kind"])


@pytest.fixture
def two(session: Session) -> Session:
    """Object 1 on frames 0 to 8, object 2 on frames 4 to 11."""
    add_object(session, 0, mask=own_mask(1, 0))
    add_object(session, 11, mask=own_mask(2, 11))
    filled(session, 1, range(1, 9))
    filled(session, 2, range(4, 11))
    assert kinds(session, 1) == "Gtttttttt..." and kinds(session, 2) == "....tttttttG"
    return session


def test_merge(two: Session) -> None:
    merge(two, 1, 2)
    assert list(two.objects) == [1] and kinds(two, 1) == "GtttGttttttG"
    np.testing.assert_array_equal(two.mask(1, 3), own_mask(1, 3))
    np.testing.assert_array_equal(two.mask(1, 6), own_mask(1, 6) | own_mask(2, 6))
    np.testing.assert_array_equal(two.mask(1, 10), own_mask(2, 10))


def test_merge_over_a_span(two: Session) -> None:
    merge(two, 1, 2, 6, 9)
    assert kinds(two, 1) == "GtttttGttG.." and kinds(two, 2) == "....tt....tG"
    np.testing.assert_array_equal(two.mask(1, 9), own_mask(2, 9))


def test_split(two: Session) -> None:
    rename(two, 1, class_name="dog")
    assert split(two, 1, 5, 7) == 3
    assert kinds(two, 1) == "Gtttt...t..." and kinds(two, 3) == ".....GtG...."
    assert two.object(3).class_name == "dog" and two.object(3).home_frame == 5
    np.testing.assert_array_equal(two.mask(3, 6), own_mask(1, 6))


def test_swap(two: Session) -> None:
    swap(two, 1, 2, 2)
    assert kinds(two, 1) == "Gt..GttttttG" and kinds(two, 2) == "..GtttttG..."
    np.testing.assert_array_equal(two.mask(1, 9), own_mask(2, 9))
    np.testing.assert_array_equal(two.mask(2, 3), own_mask(1, 3))
    np.testing.assert_array_equal(two.mask(1, 1), own_mask(1, 1))
    swap(two, 1, 2, 2)
    np.testing.assert_array_equal(two.mask(2, 9), own_mask(2, 9))


def test_clear_and_pin(two: Session) -> None:
    clear(two, 1, 0, 3)
    pin(two, 1, 6)
    assert kinds(two, 1) == "....ttGtt..."
    assert two.cells.at(1, 6)["mask_score"] == 0.5  # type: ignore[index]
