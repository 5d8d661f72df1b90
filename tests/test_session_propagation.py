"""Which masks a propagation writes, which it never touches, and that cancelling and going on change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from session_parts import (
    NUM_FRAMES,
    DriftingFollower,
    backward,
    box_mask,
    everything,
    forward,
    make_session,
)
from tiny_sam2 import make_image, make_tiny_model

from grounded_sam2.images import write_image
from grounded_sam2.session import (
    Session,
    add_object,
    create_session,
    gap_around,
    lock,
    open_session,
    paint,
    propagate,
    refine,
    release,
    resume,
    set_mask,
)
from grounded_sam2.session.cells import BACKWARD, FORWARD
from grounded_sam2.session.plan import Stretch, plan
from sam2.sam2_video_predictor import SAM2VideoPredictor

pytestmark = pytest.mark.usefixtures("quick_disk")

MASK, OTHER, THIRD = box_mask(4, 4, 12, 12), box_mask(30, 20, 40, 30), box_mask(40, 6, 44, 16)
LAST = NUM_FRAMES - 1


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """With object 1 on frame 2."""
    session = make_session(tmp_path)
    add_object(session, 2, mask=MASK)
    return session


def run(session: Session, *args: object, **kwargs: object) -> list[int]:
    return [progress.frame_idx for progress in propagate(session, *args, **kwargs) if progress.obj_ids]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("direction", "span", "expected"),
    [
        ("forward", (0, LAST), [*range(3, 12)]),
        ("backward", (0, LAST), [1, 0]),
        ("both", (0, LAST), [*range(3, 12), 1, 0]),
        ("both", (1, 5), [3, 4, 5, 1]),
        ("forward", (6, 8), [6, 7, 8]),  # tracked from frame 2 all the same
        ("both", (2, 2), []),
    ],
)
def test_one_conditioning_frame(session: Session, direction: str, span: tuple[int, int], expected: list[int]) -> None:
    assert run(session, *span, direction) == expected
    for t in range(NUM_FRAMES):
        mask = session.mask(1, t)
        if t == 2:
            np.testing.assert_array_equal(mask, MASK)
        elif t in expected:
            np.testing.assert_array_equal(mask, forward(MASK, t - 2) if t > 2 else backward(MASK, 2 - t))
        else:
            assert mask is None


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
def test_between_two_conditioning_frames_each_takes_the_nearer(session: Session, direction: str) -> None:
    set_mask(session, 1, 9, OTHER)
    run(session, 0, LAST, direction)
    for t in range(3, 6):  # frame 5 is three frames from the earlier one, and four from the later one
        np.testing.assert_array_equal(session.mask(1, t), forward(MASK, t - 2))
    for t in range(6, 9):
        np.testing.assert_array_equal(session.mask(1, t), backward(OTHER, 9 - t))
    np.testing.assert_array_equal(session.mask(1, 9), OTHER)
    assert (session.mask(1, 11) is None) == (direction == "backward")
    assert session.cells.at(1, 5)["agreement"] == 0  # type: ignore[index]
    assert np.isnan(session.cells.at(1, 6)["agreement"])  # type: ignore[index]


def test_stretches_of_gaps_and_ends(session: Session) -> None:
    set_mask(session, 1, 6, MASK)
    set_mask(session, 1, 7, MASK)
    assert plan(session, 1, 0, LAST, "both") == [
        Stretch(1, FORWARD, 2, 4, None, (2, 6)),
        Stretch(1, BACKWARD, 6, 4, 4, (2, 6)),
        Stretch(1, FORWARD, 7, 11, None, (2, 7)),
        Stretch(1, BACKWARD, 2, 0, None, (2,)),
    ]
    assert plan(session, 1, 5, 6, "both") == [Stretch(1, BACKWARD, 6, 5, None, (2, 6))]
    assert plan(session, 1, 3, 3, "both") == [Stretch(1, FORWARD, 2, 3, None, (2, 6))]
    assert plan(session, 1, 6, 7, "both") == []


def test_every_span_of_every_gap_is_written_once_and_whole(tmp_path: Path) -> None:
    with make_session(tmp_path, num_frames=8) as session:
        add_object(session, 1, mask=MASK)
        set_mask(session, 1, 6, OTHER)
        run(session)
        whole = everything(session)["masks"]
        session.undo()
        for first in range(8):
            for last in range(first, 8):
                progress = list(propagate(session, first, last))
                written = everything(session)["masks"]
                expected = {key: value for key, value in whole.items() if first <= key[1] <= last or key[1] in (1, 6)}
                assert {key: value[0] for key, value in written.items()} == {
                    key: value[0] for key, value in expected.items()
                }
                assert not progress or progress[-1].num_done == progress[-1].num_total
                session.undo()


def test_a_correction_concerns_its_gap_and_its_object_only(session: Session) -> None:
    other = add_object(session, 0, mask=THIRD)
    run(session)
    before = everything(session)["masks"]
    paint(session, 1, 7, [[50, 40]], 3)
    assert gap_around(session, 1, 7) == (2, LAST) and gap_around(session, 1, 1) == (0, 2)
    run(session, *gap_around(session, 1, 7), obj_ids=[1])
    after = everything(session)["masks"]
    assert {key for key in before if before[key] != after[key]} <= {(1, t) for t in range(3, 12)}
    assert {key: value for key, value in before.items() if key[0] == other} == {
        key: value for key, value in after.items() if key[0] == other
    }
    run(session)
    assert everything(session)["masks"] == after  # tracking all again gives the same
    for _ in range(3):
        session.undo()
    assert everything(session)["masks"] == before


def test_locked_objects_stay(session: Session) -> None:
    lock(session, 1)
    assert run(session) == []
    with pytest.raises(ValueError, match=r"object 1 \(object 1\) is locked"):
        propagate(session, obj_ids=[1])


def test_a_released_frame_is_tracked_over(session: Session) -> None:
    set_mask(session, 1, 6, OTHER)
    release(session, 1, 6)
    run(session)
    np.testing.assert_array_equal(session.mask(1, 6), forward(MASK, 4))


@pytest.mark.parametrize("num_done", [0, 1, 4, 9, 15])
@pytest.mark.parametrize("save_every", [0.0, 1e9])
def test_cancelled_and_gone_on_equals_uninterrupted(tmp_path: Path, num_done: int, save_every: float) -> None:
    def prepared(folder: Path) -> Session:
        session = make_session(folder)
        add_object(session, 2, mask=MASK)
        set_mask(session, 1, 8, OTHER)
        add_object(session, 5, mask=THIRD)
        return session

    with prepared(tmp_path / "a") as session:
        run(session)
        expected = everything(session)
    with prepared(tmp_path / "b") as session:
        for count, _ in enumerate(propagate(session, save_every=save_every), start=1):
            if count > num_done:
                break
        kept = everything(session)["masks"]
        assert len(kept) >= num_done
    with open_session(tmp_path / "b/clip.session", DriftingFollower()) as session:
        assert everything(session)["masks"] == kept
        assert session.unfinished is not None
        *_, progress = resume(session, save_every)
        assert progress.num_done == progress.num_total
        assert everything(session) == expected and session.unfinished is None
        files = [[path.read_bytes() for path in sorted((tmp_path / run).glob("*/history-*/*.bin"))] for run in "ab"]
        assert files[0] == files[1]
        session.undo()
        assert len(everything(session)["masks"]) == 3
        assert not (session.folder / "propagation.state").exists()


@pytest.mark.parametrize("harm", ["damaged", "of another model", "of another propagation"])
def test_a_saved_state_that_is_of_no_use_costs_time_only(
    session: Session, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    set_mask(session, 1, 8, OTHER)
    run(session)
    expected = everything(session)
    session.undo()
    running = propagate(session, save_every=0)
    for _ in range(5):
        next(running)
    path = session.folder / "propagation.state"
    if harm == "damaged":
        path.write_bytes(path.read_bytes()[:-9])
    elif harm == "of another model":
        monkeypatch.setattr(DriftingFollower, "load_video", lambda *_: {}["masks"])
    else:
        session.undo()
        propagate(session)
    for _ in resume(session):
        pass
    assert everything(session) == expected


def test_a_disk_that_fills_up_in_the_middle(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    run(session)
    expected = everything(session)
    session.undo()
    written = []

    def fills_up(file: BinaryIO, content: bytes) -> None:
        written.append(content)
        if len(written) in (9, 12):  # in masks.bin, and in cells.bin
            file.write(content[: len(content) // 2])
            raise OSError(28, "No space left on device")
        file.write(content)

    running = propagate(session)
    monkeypatch.setattr("grounded_sam2.session.cells._write_all", fills_up)
    for _ in range(2):
        with pytest.raises(OSError, match=r"history-00000000: No space left"):
            list(running)
        running = resume(session)
    list(running)
    assert everything(session) == expected
    session.close()
    assert everything(open_session(session.folder)) == expected


def test_a_session_may_be_closed_in_the_middle(session: Session) -> None:
    running = propagate(session)
    next(running), next(running)
    session.close()
    del running
    session.close()
    with open_session(session.folder) as opened:
        assert opened.unfinished is not None and opened.mask(1, 3) is not None


def test_another_command_ends_a_cancelled_propagation(session: Session) -> None:
    running = propagate(session)
    next(running), next(running)
    assert session.mask(1, 3) is not None
    set_mask(session, 1, 11, OTHER)
    with pytest.raises(RuntimeError, match="another command was given"):
        next(running)
    with pytest.raises(RuntimeError, match="no propagation was interrupted"):
        resume(session)
    session.undo()
    session.undo()
    assert session.mask(1, 3) is None and session.mask(1, 2) is not None
    session.redo()
    np.testing.assert_array_equal(session.mask(1, 3), forward(MASK, 1))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((5, 4), "first frame is not after its last one, got 5 to 4"),
        ((0, 12), "expected a frame index from 0 to 11, got 12"),
        ((0, 5, "up"), "expected a direction of forward, backward, both, got 'up'"),
        ((0, 5, "both", [7]), r"expected one of the objects \[1\], got 7"),
    ],
)
def test_bad_arguments(session: Session, args: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        propagate(session, *args)
    assert session.unfinished is None


# ---- over SAM 2 ----


@pytest.fixture(scope="module")
def predictor() -> SAM2VideoPredictor:
    return make_tiny_model(model_class=SAM2VideoPredictor)


def random_session(folder: Path, predictor: SAM2VideoPredictor) -> Session:
    """Two objects in a video of noise, the first one corrected on frame 6."""
    for t in range(9):
        write_image(folder / f"frames/{t}.png", make_image(48, 64, seed=t))
    session = create_session(folder / "clip.session", folder / "frames", predictor)
    add_object(session, 1, box=[8, 8, 40, 40])
    add_object(session, 4, points=[[50, 20], [5, 40]], labels=[1, 0])
    refine(session, 1, 6, [[20, 30]])
    return session


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, predictor: SAM2VideoPredictor) -> dict:
    with random_session(tmp_path_factory.mktemp("whole"), predictor) as session:
        run(session)
        return everything(session)


@pytest.mark.parametrize("num_done", [2, 10])
def test_sam2_goes_on_from_a_saved_state(
    tmp_path: Path, predictor: SAM2VideoPredictor, uninterrupted: dict, num_done: int
) -> None:
    with random_session(tmp_path, predictor) as session:
        running = propagate(session, save_every=0)
        for _ in range(num_done):
            next(running)
        running.close()
        assert (session.folder / "propagation.state").exists()
    with open_session(tmp_path / "clip.session", predictor) as session:
        for _ in resume(session):
            pass
        assert everything(session) == uninterrupted


def test_sam2_tracks_a_gap_again_as_it_tracks_all(
    tmp_path: Path, predictor: SAM2VideoPredictor, uninterrupted: dict
) -> None:
    with random_session(tmp_path, predictor) as session:
        for span in ((0, 3), (5, 8), (4, 4)):
            run(session, *span)
        apart = everything(session)["masks"]
        assert apart.keys() == uninterrupted["masks"].keys()
        assert [apart[key][0] for key in sorted(apart)] == [uninterrupted["masks"][key][0] for key in sorted(apart)]


def test_sam2_takes_frames_on_which_an_object_is_not(tmp_path: Path, predictor: SAM2VideoPredictor) -> None:
    with random_session(tmp_path, predictor) as session:
        run(session)
        second = [session.mask(2, t) for t in range(9)]
        set_mask(session, 1, 4, np.zeros((48, 64), bool))
        set_mask(session, 1, 1, np.zeros((48, 64), bool))
        run(session, obj_ids=[1])
        assert not session.mask(1, 4).any() and session.mask(1, 8) is not None  # type: ignore[union-attr]
        np.testing.assert_array_equal(np.array(second), np.array([session.mask(2, t) for t in range(9)]))
