"""New objects are looked for while known ones are followed: ids go on, and nobody is added twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import supervision as sv
from fake_follower import picture
from session_parts import SIZE, DriftingFollower, box_mask, forward, make_session

from grounded_sam2.images import write_image
from grounded_sam2.masks import boxes_around
from grounded_sam2.session import (
    Session,
    add_object,
    create_session,
    follow_and_find,
    lock,
    open_session,
    propagate,
    set_search,
)

pytestmark = pytest.mark.usefixtures("quick_disk")

DOG, CAT, LATE = 40, 90, 5  # colours, and the frame on which the cat comes in
NUM_FRAMES = 12


class ByColour:
    """Finds the colours of `make_video`; notes on how many images it looked."""

    def __init__(self) -> None:
        self.num_looks = 0

    def detect(self, image: np.ndarray, text_prompt: str, **options: Any) -> list[sv.Detections]:
        self.num_looks += 1
        names = {DOG: "dog", CAT: "cat"}
        there = [colour for colour in names if (image == colour).all(-1).any()]
        masks = np.array([(image == colour).all(-1) for colour in there], bool).reshape(-1, *image.shape[:2])
        class_id = np.array([list(names).index(colour) for colour in there], int)
        class_name = np.array([names[colour] for colour in there], str)
        xyxy = boxes_around(masks) if there else np.zeros((0, 4), np.float32)
        confidence = np.full(len(there), 0.8, np.float32)
        return [sv.Detections(xyxy, confidence=confidence, class_id=class_id, data={"class_name": class_name})]


def dog_on(t: int) -> tuple[int, int, int, int]:
    return (2 + t, 4, 12 + t, 14)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """A dog that walks to the right as `DriftingFollower` moves masks, and a cat that does so from frame 5 on."""
    for t in range(NUM_FRAMES):
        boxes = {DOG: dog_on(t), **({CAT: (t, 30, t + 9, 40)} if t >= LATE else {})}
        write_image(tmp_path / "frames" / f"{t}.png", picture(boxes, SIZE))
    made = create_session(tmp_path / "clip.session", tmp_path / "frames", DriftingFollower())
    set_search(made, text_prompt="dog. cat.")
    return made


def test_each_object_is_added_once_and_followed_to_the_end(session: Session) -> None:
    detector = ByColour()
    steps = list(follow_and_find(session, detector, every=4))
    assert detector.num_looks == 3  # frames 0, 4 and 8
    assert [(step.frame_idx, step.new_ids) for step in steps if step.new_ids] == [(0, [1]), (8, [2])]
    assert [obj.class_name for obj in session.objects.values()] == ["dog", "cat"]
    assert (steps[-1].frame_idx, steps[-1].num_done, steps[-1].num_total) == (11, 12, 12)
    np.testing.assert_array_equal(session.mask(1, 11), box_mask(*dog_on(11)))
    np.testing.assert_array_equal(session.mask(2, 11), forward(box_mask(8, 30, 17, 40), 3))
    assert session.mask(2, 7) is None and session.given_frames(1) == [0]
    assert session.unfinished is None


def test_it_is_undone_command_by_command(session: Session) -> None:
    list(follow_and_find(session, ByColour(), every=4))
    assert [command.kind for command in session.history.done] == ["search", *["accept", "propagate"] * 2]
    for _ in range(4):
        session.undo()
    assert session.objects == {}


def test_whom_a_person_gave_on_a_later_frame_is_known_before(session: Session) -> None:
    add_object(session, 9, mask=box_mask(*dog_on(9)), class_name="dog")
    steps = list(follow_and_find(session, ByColour(), every=20, first=8))
    assert [(step.frame_idx, step.obj_ids) for step in steps[:2]] == [(9, []), (8, [1])]
    assert [step.new_ids for step in steps if step.new_ids] == [[2]]  # the cat


def test_a_span_a_locked_object_and_going_on(session: Session) -> None:
    list(follow_and_find(session, ByColour(), every=4, last=3))
    lock(session, 1)
    steps = list(follow_and_find(session, ByColour(), every=1, first=3, last=6))
    assert [step.new_ids for step in steps] == [[], [2], [3], []]  # nobody follows the locked dog
    assert session.mask(1, 4) is None


def test_leaving_early_keeps_what_was_done(session: Session, tmp_path: Path) -> None:
    for step in follow_and_find(session, ByColour(), every=4):
        if step.frame_idx == 6:
            break
    session.close()
    with open_session(tmp_path / "clip.session", DriftingFollower()) as again:
        assert again.mask(1, 6) is not None and again.mask(1, 7) is None and again.unfinished is None
        list(propagate(again, direction="forward"))
        assert again.mask(1, 11) is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "rarely, got every 0"),
        ({"every": 1, "first": 5, "last": 4}, "5 to 4"),
        ({"every": 1, "last": 12}, "from 0 to 11, got 12"),
    ],
)
def test_bad_arguments_change_nothing(session: Session, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        follow_and_find(session, ByColour(), **options)
    assert [command.kind for command in session.history.done] == ["search"]


def test_without_a_prompt_it_is_refused(tmp_path: Path) -> None:
    with make_session(tmp_path) as made, pytest.raises(ValueError, match="set_search"):
        follow_and_find(made, ByColour(), every=1)
