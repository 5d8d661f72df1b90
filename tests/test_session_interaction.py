"""A session by hand, without a window: what clicks, boxes, keys and typed lines do, and what is shown."""

from __future__ import annotations

import functools
import http.server
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import supervision as sv
from fake_follower import FakeFollower
from session_parts import NUM_FRAMES, SIZE, everything, forward, make_session

from grounded_sam2.detectors.base import make_detections
from grounded_sam2.export import read_frame_annotations
from grounded_sam2.prompts import parse_prompt
from grounded_sam2.session import Session, add_object, lock, open_session, set_mask
from grounded_sam2.session.interaction import HELP, Interaction
from grounded_sam2.session.picture import with_lines, with_selection
from grounded_sam2.session.reopen import open_or_create, video_name
from grounded_sam2.video import live, open_frames
from grounded_sam2.video.capture import CapturedFrame
from grounded_sam2.video.window import Click, Drag, Key

pytestmark = pytest.mark.usefixtures("quick_disk")


class TwoBoxes:
    """Finds the two objects of the first frame."""

    def detect(self, images: np.ndarray, text_prompt: str, **_: Any) -> list[sv.Detections]:
        boxes, phrases = np.array([[2, 4, 12, 14], [2, 30, 14, 40]]), parse_prompt(text_prompt)
        return [make_detections(boxes, np.array([0.9, 0.6]), np.zeros(2, int), phrases, SIZE)]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and writes nothing about it."""

    def log_message(self, *_: object) -> None:
        pass


class Person:
    """Does things at a session, and notes what it is told."""

    def __init__(self, session: Session, folder: Path) -> None:
        self.told: list[str] = []
        self.session = session
        results = (folder / "frames.mp4", folder / "frames.jsonl")
        self.at = Interaction(session, TwoBoxes(), results, self.told.append)

    def point(self, x: float, y: float) -> None:
        self.at.handle(Click(x, y, with_ctrl=True))

    def select(self, x: float, y: float) -> None:
        self.at.handle(Click(x, y))

    def not_that(self, x: float, y: float) -> None:
        self.at.handle(Click(x, y, is_right=True))

    def draw(self, *xyxy: float) -> None:
        self.at.handle(Drag(xyxy))  # type: ignore[arg-type]

    def press(self, *names: str) -> None:
        for name in names:
            self.at.handle(Key(name))

    def play(self, num_frames: int) -> None:
        """Let so many frames of work be done, without waiting for the next one to be due."""
        for _ in range(num_frames):
            self.at.playback._due = 0.0
            self.at.playback.advance()


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(make_session(tmp_path), tmp_path / "out")


# ---- clicks and boxes ----


def test_points_build_an_object_and_correct_the_one_that_they_lie_in(person: Person) -> None:
    person.point(10, 10)
    assert (person.at.selected, person.at.is_open, person.told) == (1, True, ["added object 1 on frame 0"])
    person.point(20, 10)  # beside its mask, but it is under construction
    mask = person.session.mask(1, 0)
    assert mask is not None and mask[10, 10] and mask[10, 20] and mask.sum() == 50
    person.press("n")
    assert person.at.selected is None
    person.point(40, 40)
    assert (person.at.selected, list(person.session.objects)) == (2, [1, 2])
    person.point(9, 9)  # in the mask of the first one
    assert person.at.selected == 1 and list(person.session.objects) == [1, 2] and not person.at.is_open
    person.point(60, 5)  # that one was not begun just now
    assert person.at.selected == 3 and [c.kind for c in person.session.history.done] == [
        "add", "refine", "add", "refine", "add",
    ]  # fmt: skip


def test_an_object_that_was_clicked_on_takes_points_beside_its_mask(person: Person) -> None:
    person.draw(4, 4, 12, 12)
    assert not person.at.is_open
    person.point(30, 30)  # a box is an object by itself
    assert person.at.selected == 2 and person.at.is_open
    person.select(6, 6)
    assert person.at.is_open and "ctrl + click adds to it" in person.at.status()
    person.point(20, 8)
    assert person.session.mask(1, 0)[8, 20] and list(person.session.objects) == [1, 2]  # type: ignore[index]
    person.press(".")
    person.play(1)
    assert person.at.selected == 1 and not person.at.is_open


def test_a_box_is_a_new_object_and_a_right_click_takes_away(person: Person) -> None:
    person.draw(4, 4, 20, 20)
    person.draw(-5, 30, 100, 100)  # over the edge of the frame
    first, second = (person.session.mask(obj_id, 0) for obj_id in (1, 2))
    assert first is not None and second is not None
    assert first.sum() == 256 and second.sum() == SIZE[0] * (SIZE[1] - 30)
    person.select(10, 10)
    person.not_that(10, 10)
    assert person.session.mask(1, 0).sum() == 256 - 25  # type: ignore[union-attr]
    person.not_that(30, 40)  # where the other one is; but this one is selected
    assert person.at.selected == 1
    assert person.told[-1] == "corrected object 1 on frame 0: space follows it on"
    num_done = len(person.session.history.done)
    person.draw(70, 50, 80, 60)  # all of it outside
    person.point(10, 55)
    person.point(70, 10)
    assert len(person.session.history.done) == num_done


def test_what_is_selected(person: Person) -> None:
    person.not_that(5, 5)
    assert person.told[-1] == "no object is selected: click on one first"
    person.press("x")
    assert person.told[-1] == "no object is selected: click on one first"
    person.draw(4, 4, 40, 40)
    person.draw(10, 10, 20, 20)
    person.select(30, 30)
    assert person.at.selected == 1
    person.select(15, 15)  # in both: the one that is selected stays so
    assert person.at.selected == 1
    person.select(60, 45)
    assert person.at.selected is None and person.told[-1] == "nothing selected"
    person.select(15, 15)  # the smaller one
    assert person.at.selected == 2 and "selected: object 2" in person.at.status()
    person.select(60, 45)
    person.not_that(15, 15)
    assert person.at.selected == 2


def test_an_object_that_is_lost_is_shown_again_by_a_click(person: Person) -> None:
    person.draw(4, 4, 20, 20)
    set_mask(person.session, 1, 3, np.zeros(SIZE[::-1], bool))
    person.press(".", ".", ".")
    person.play(1)
    person.press(".")
    person.play(1)
    person.press(".")
    person.play(1)
    assert person.at.frame_idx == 3 and "not seen here" in person.at.status()
    person.not_that(30, 30)
    assert person.told[-1] == "object 1 is not seen on this frame: ctrl + click on it first"
    person.point(30, 30)
    assert list(person.session.objects) == [1] and person.session.mask(1, 3).any()  # type: ignore[union-attr]


def test_a_locked_object_is_said_and_nothing_is_done(person: Person) -> None:
    person.draw(4, 4, 20, 20)
    lock(person.session, 1)
    person.not_that(10, 10)
    person.press("x")
    assert person.told[-2:] == ["object 1 (object 1) is locked: unlock it first"] * 2
    assert person.at.selected == 1


# ---- text ----


def test_a_typed_line_adds_what_is_new(tmp_path: Path) -> None:
    person = Person(make_session(tmp_path, FakeFollower()), tmp_path)
    person.at.look_for("  ")
    assert person.told == []
    person.at.look_for("owl.")
    assert person.told == ['"owl." on frame 0: owl 1, owl 2']
    person.press("space")
    person.play(1)
    person.at.look_for("owl")
    assert person.told[-1].startswith('"owl" on frame 1: nothing new')
    person.at.look_for("not a owl.")
    assert "owl" in person.told[-1] and len(person.session.objects) == 2
    person.press("u")
    assert person.session.objects == {} and person.told[-1] == "undone: accept on frame 0"
    Interaction(person.session, None, (), person.told.append).look_for("owl.")
    assert person.told[-1] == "there is no detector to look for that"


# ---- playing ----


def test_objects_are_followed_as_it_plays_and_corrections_stick(person: Person) -> None:
    person.draw(4, 4, 12, 12)
    person.press("space")
    assert person.at.playback.describe() == "playing"
    person.play(5)
    assert person.at.frame_idx == 5 and not person.at.is_open
    mask = person.session.mask(1, 5)
    assert mask is not None
    person.not_that(10, 10)
    corrected = person.session.mask(1, 5)
    assert corrected is not None and corrected.sum() < mask.sum()
    assert person.told[-1].endswith("space follows it on, b tracks the frames before it again")
    person.press("b")
    assert person.told[-1] == "tracks backward at the end"
    person.play(NUM_FRAMES - 6)
    assert person.at.frame_idx == NUM_FRAMES - 1 and person.at.playback.describe() == "tracking backward"
    np.testing.assert_array_equal(person.session.mask(1, NUM_FRAMES - 1), forward(corrected, NUM_FRAMES - 6))
    person.play(40)
    assert person.told[-1] == "tracked backward" and person.at.frame_idx == NUM_FRAMES - 1
    np.testing.assert_array_equal(person.session.mask(1, 5), corrected)
    assert person.session.given_frames(1) == [0, 5]
    assert person.session.cells.at(1, 4)["side"] == 1  # type: ignore[index]  # the frames before it, from the correction
    person.press("space")
    assert person.told[-1] == "the video ends here"


def test_frames_come_no_faster_than_the_video_has_them(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("grounded_sam2.session.playback.time.monotonic", lambda: now[0])
    assert person.at.playback.seconds_to_wait() == 0.02
    person.press("space")
    person.at.playback.advance()
    person.at.playback.advance()
    assert person.at.frame_idx == 1 and 0 < person.at.playback.seconds_to_wait() <= 0.02
    now[0] += 1 / 30 + 1e-6
    assert person.at.playback.seconds_to_wait() == 0
    person.at.playback.advance()
    assert person.at.frame_idx == 2


def test_steps(person: Person) -> None:
    person.draw(4, 4, 12, 12)
    person.press("left")
    assert person.at.frame_idx == 0
    person.press("right")
    person.play(3)
    assert person.at.frame_idx == 1 and person.session.mask(1, 1) is not None and person.session.mask(1, 2) is None
    person.press("space")
    person.play(3)
    person.press(",")
    assert person.at.frame_idx == 3 and person.at.playback.describe() == "paused"
    person.press("space", "space")
    person.play(1)
    assert person.at.frame_idx == 3
    person.press("right", ".")
    person.play(9)
    assert person.at.frame_idx == 5
    person.press(*["right"] * 99)
    person.play(9)
    assert person.at.frame_idx == 10


def test_tracking_backward_now_is_stopped_by_what_comes_next(person: Person) -> None:
    for _ in range(6):
        person.press(".")
        person.play(1)
    person.draw(4, 4, 12, 12)
    person.press("b")
    assert person.at.playback.seconds_to_wait() == 0
    person.play(4)
    assert person.at.frame_idx == 3 and "tracking backward: 3 of 6" in person.at.playback.progress
    person.press("b")
    assert person.told[-1].startswith("tracking backward was stopped")
    assert person.at.frame_idx == 3 and person.session.mask(1, 3) is not None and person.session.mask(1, 2) is None
    person.press("b")
    person.play(2)
    person.draw(30, 30, 40, 40)
    assert person.at.playback.describe() == "paused" and person.at.selected == 2
    person.press("u", "u")
    assert person.told[-1] == "undone: propagate"


# ---- undo, remove, quit ----


def test_undo_takes_back_what_the_person_did(person: Person) -> None:
    person.press("u")
    assert person.told[-1] == "nothing to undo"
    person.draw(4, 4, 12, 12)
    person.press("space")
    person.play(3)
    before = everything(person.session)
    person.draw(30, 30, 40, 40)
    person.play(3)
    person.press("u")
    assert everything(person.session) == before and person.at.frame_idx == 3
    assert person.told[-1] == "undone: add on frame 3" and person.at.selected is None
    assert person.at.playback.describe() == "paused"
    person.press("u")
    assert person.session.objects == {} and person.at.frame_idx == 0


def test_remove_and_its_undo(person: Person) -> None:
    person.draw(4, 4, 12, 12)
    person.press("x")
    assert person.session.objects == {} and person.at.selected is None and person.told[-1] == "removed object 1"
    person.press("u")
    assert list(person.session.objects) == [1]


def test_quit_saves_and_the_session_is_opened_again(person: Person, tmp_path: Path) -> None:
    person.draw(4, 4, 12, 12)
    person.press("?", "y", "space")
    person.play(4)
    person.press("s", "q")
    assert set(HELP.splitlines()) <= set(person.told) and person.at.has_quit
    video, annotations = tmp_path / "out" / "frames.mp4", tmp_path / "out" / "frames.jsonl"
    assert person.told[-1] == f"wrote {video}, {annotations}"
    assert len(open_frames(video)) == NUM_FRAMES
    by_frame = list(read_frame_annotations(annotations))
    assert [len(frame.detections) for frame in by_frame] == [1] * 5 + [0] * (NUM_FRAMES - 5)
    before = everything(person.session)
    person.session.close()
    with open_session(person.session.folder) as session:
        assert everything(session) == before


def test_making_and_opening_again(tmp_path: Path) -> None:
    make_session(tmp_path).close()
    frames, folder = tmp_path / "frames", tmp_path / "out" / "frames.session"
    with open_or_create(folder, frames, resume=True) as session:
        assert session.name == "frames"
    with pytest.raises(FileExistsError, match="--resume goes on with it"):
        open_or_create(folder, frames)
    with open_or_create(folder, f"{frames}/", resume=True) as session:
        assert session.num_frames == NUM_FRAMES
    with pytest.raises(ValueError, match=r"is of frames, not of other\.mp4"):
        open_or_create(folder, "other.mp4", resume=True)
    for source in ("0", "rtsp://here/stream"):
        with pytest.raises(ValueError, match="record it as a file first"):
            open_or_create(tmp_path / "another", source)
    assert video_name("https://here/clips/a.mp4?size=large") == "a.mp4" and video_name("rtsp://here/") == "here"
    assert "12345" not in video_name("rtsp://here/user=admin&password=12345&channel=1.sdp")


def test_a_video_from_the_web(tmp_path: Path) -> None:
    handler = functools.partial(Quiet, directory=str(Path(__file__).resolve().parent.parent / "assets"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        with open_or_create(tmp_path / "a.session", f"{address}/parade.mp4?x=1") as session:
            assert (session.name, session.size) == ("parade.mp4", (640, 360))
        with pytest.raises(OSError, match=r"404 .*--video-path"):
            open_or_create(tmp_path / "b.session", f"{address}/nothing.mp4")
        server.shutdown()
    assert not (tmp_path / "b.session").exists()


class Camera:
    """A camera that gives frames, each of another grey, for ever."""

    fps = Fraction(10)
    is_live = True

    def __init__(self) -> None:
        self.num_read = 0

    def read(self) -> CapturedFrame:
        self.num_read += 1
        return CapturedFrame(np.full((48, 64, 3), 40 * self.num_read % 256, np.uint8), self.num_read / 10)

    def close(self) -> None:
        pass


def test_a_camera_is_recorded_as_long_as_it_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "open_capture", lambda source, timeout_seconds: Camera())
    watched: list[np.ndarray] = []

    def watch(image: np.ndarray) -> bool:
        watched.append(image)
        return len(watched) < 4

    with open_or_create(tmp_path / "a.session", "7", watch=watch) as session:
        assert (session.name, session.num_frames, session.size) == ("7", 4, SIZE)
        for t in range(4):
            assert np.abs(session.frames[t].astype(int) - watched[t]).mean() < 3
    with open_or_create(tmp_path / "a.session", "7", resume=True) as session:
        assert session.num_frames == 4


# ---- the picture ----


def test_the_picture_shows_the_objects_the_selected_one_and_two_lines(person: Person) -> None:
    plain = person.at.picture()
    assert plain.shape == (SIZE[1] + 32, SIZE[0], 3) and plain.dtype == np.uint8
    np.testing.assert_array_equal(plain[: SIZE[1]], person.session.frames[0])
    person.draw(20, 20, 40, 40)
    chosen = person.at.picture()
    assert (chosen[30, 20] == 255).all() and not (chosen[30, 30] == plain[30, 30]).all()
    person.select(1, 1)
    assert not (person.at.picture()[30, 20] == 255).all()
    assert (person.at.picture(box=(1, 1, 8, 8))[1, 4] == 255).all()
    add_object(person.session, 0, box=(2, 2, 9, 9))
    assert not (person.at.picture()[: SIZE[1]] == chosen[: SIZE[1]])[5, 5].all()


def test_parts_of_the_picture() -> None:
    image = np.full((20, 30, 3), 100, np.uint8)
    np.testing.assert_array_equal(with_selection(image, None), image)
    np.testing.assert_array_equal(with_selection(image, np.zeros((20, 30), bool)), image)
    assert with_lines(image, []).shape == (20, 30, 3)
    lines = with_lines(image, ["", "a line that is far too long for so small a picture"])
    assert lines.shape == (52, 30, 3) and (lines[:20] == image).all()
