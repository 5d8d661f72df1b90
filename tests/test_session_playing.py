"""Following while a video is played: the masks of a propagation, with edits on the way that cost nothing twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from session_parts import (
    NUM_FRAMES,
    DriftingFollower,
    DriftingVideo,
    box_mask,
    everything,
    forward,
    make_session,
    write_frames,
)
from tiny_sam2 import make_image, make_tiny_model

from grounded_sam2.images import write_image
from grounded_sam2.session import (
    Session,
    add_object,
    create_session,
    lock,
    open_session,
    propagate,
    refine,
    remove,
    resume,
    set_mask,
)
from grounded_sam2.session.playing import Player
from sam2.sam2_video_predictor import SAM2VideoPredictor

pytestmark = pytest.mark.usefixtures("quick_disk")

MASK, OTHER = box_mask(4, 4, 12, 12), box_mask(30, 20, 40, 30)


class Counting(DriftingFollower):
    """Counts how often a video is opened, and which frames are followed."""

    def __init__(self) -> None:
        self.followed: list[list[int]] = []

    def open_video(self, frames: Any) -> DriftingVideo:
        video, reached = super().open_video(frames), []
        self.followed.append(reached)
        follow = video.follow

        def noted(frame_idx: int, reverse: bool = False) -> Any:
            for t, seen in follow(frame_idx, reverse):
                reached.append(t)
                yield t, seen

        video.follow = noted  # type: ignore[method-assign]
        return video


def play(player: Player, first: int, last: int) -> int:
    """Play the frames after the first one; returns the frames of work."""
    num_steps = 0
    for t in range(first + 1, last + 1):
        while not player.step(t):
            num_steps += 1
        num_steps += 1
    return num_steps


@pytest.fixture
def follower() -> Counting:
    return Counting()


@pytest.fixture
def session(tmp_path: Path, follower: Counting) -> Session:
    session = make_session(tmp_path, follower)
    assert session.num_frames == NUM_FRAMES
    return session


def fresh(tmp_path: Path) -> Session:
    return create_session(tmp_path / "fresh.session", write_frames(tmp_path / "again"), DriftingFollower())


def test_playing_gives_the_masks_of_a_propagation(session: Session, tmp_path: Path) -> None:
    other = fresh(tmp_path)
    for each in (session, other):
        add_object(each, 0, mask=MASK)
        add_object(each, 3, mask=OTHER)
    assert play(Player(session), 0, NUM_FRAMES - 1) == NUM_FRAMES - 1
    list(propagate(other, direction="forward"))
    assert everything(session) == everything(other)
    assert session.unfinished is None and [command.kind for command in session.history.done][2:] == ["propagate"]


def test_edits_on_the_way_follow_nobody_anew(session: Session, follower: Counting, tmp_path: Path) -> None:
    player = Player(session)
    add_object(session, 0, mask=MASK)
    play(player, 0, 5)
    second = add_object(session, 5, mask=OTHER)
    play(player, 5, 7)
    set_mask(session, 1, 7, OTHER)
    play(player, 7, NUM_FRAMES - 1)
    assert follower.followed == [list(range(NUM_FRAMES))]

    np.testing.assert_array_equal(session.mask(1, 6), forward(MASK, 6))
    np.testing.assert_array_equal(session.mask(1, 9), forward(OTHER, 2))
    np.testing.assert_array_equal(session.mask(second, 9), forward(OTHER, 4))
    before = everything(session)
    list(propagate(session, 8, direction="forward"))
    assert everything(session) == before


def test_an_object_that_is_removed_locked_or_new_after_all_were_removed(session: Session, follower: Counting) -> None:
    player = Player(session)
    for mask in (MASK, OTHER, MASK):
        add_object(session, 0, mask=mask)
    play(player, 0, 2)
    remove(session, 1)
    lock(session, 3)
    play(player, 2, 4)
    assert session.cells.at(1, 3) is None and session.mask(3, 3) is None
    np.testing.assert_array_equal(session.mask(2, 4), forward(OTHER, 4))
    remove(session, 2)
    assert play(player, 4, 5) == 1
    fourth = add_object(session, 5, mask=MASK)
    play(player, 5, 6)
    np.testing.assert_array_equal(session.mask(fourth, 6), forward(MASK, 1))
    assert follower.followed == [[0, 1, 2, 3, 4], [5, 6]]


def test_going_back_plays_what_is_known_and_follows_again_what_is_not(session: Session, follower: Counting) -> None:
    player = Player(session)
    add_object(session, 0, mask=MASK)
    play(player, 0, 6)
    assert player.step(2) and follower.followed == [[0, 1, 2, 3, 4, 5, 6]]
    second = add_object(session, 2, mask=OTHER)
    play(player, 2, 8)
    assert follower.followed[1:] == [[0, 1, 2, 3, 4, 5, 6, 7, 8]]  # the first one is needed from frame 7 on
    np.testing.assert_array_equal(session.mask(1, 8), forward(MASK, 8))
    np.testing.assert_array_equal(session.mask(second, 8), forward(OTHER, 6))


def test_after_an_undo_the_masks_are_as_if_it_had_not_been_done(session: Session, tmp_path: Path) -> None:
    player = Player(session)
    add_object(session, 0, mask=MASK)
    play(player, 0, 4)
    set_mask(session, 1, 4, OTHER)
    play(player, 4, 6)
    assert (session.undo(), session.undo()) == ("propagate", "set_mask")
    play(player, 4, NUM_FRAMES - 1)
    other = fresh(tmp_path)
    add_object(other, 0, mask=MASK)
    list(propagate(other, direction="forward"))
    assert everything(session) == everything(other)


def test_frames_before_a_conditioning_frame_are_left_to_propagate(session: Session) -> None:
    add_object(session, 6, mask=MASK)
    set_mask(session, 1, 9, OTHER)
    player = Player(session)
    assert player.step(5) and player.step(8) and player.step(9)
    assert len(session.history.done) == 2
    assert player.step(10)
    np.testing.assert_array_equal(session.mask(1, 10), forward(OTHER, 1))


def test_a_kill_keeps_what_was_played(session: Session, follower: Counting) -> None:
    player = Player(session)
    add_object(session, 0, mask=MASK)
    refine(session, 1, 0, [[20, 20]])
    play(player, 0, 4)
    before = everything(session)
    session.close()
    with open_session(session.folder, follower) as again:
        assert everything(again) == before
        play(Player(again), 4, 6)
        assert again.mask(1, 6) is not None
        before = everything(again)
        list(resume(again))
        after = everything(again)
        assert before["masks"].items() <= after["masks"].items() and len(after["masks"]) == NUM_FRAMES


def test_sam2_played_with_edits_gives_the_masks_of_a_propagation(tmp_path: Path) -> None:
    predictor = make_tiny_model(model_class=SAM2VideoPredictor)
    for t in range(9):
        write_image(tmp_path / f"frames/{t}.png", make_image(48, 64, seed=t))
    with create_session(tmp_path / "clip.session", tmp_path / "frames", predictor) as session:
        player = Player(session)
        add_object(session, 1, box=[8, 8, 40, 40])
        play(player, 0, 3)
        add_object(session, 3, points=[[50, 20], [5, 40]], labels=[1, 0])
        play(player, 3, 5)
        refine(session, 1, 5, [[20, 30]])
        play(player, 5, 8)
        played = {(i, t): session.mask(i, t) for i in (1, 2) for t in range(6, 9)}
        list(propagate(session, direction="forward"))
        for (obj_id, t), mask in played.items():
            assert mask is not None and (mask == session.mask(obj_id, t)).mean() > 0.999, (obj_id, t)
