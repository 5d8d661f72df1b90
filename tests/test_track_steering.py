"""A person at objects that are followed: typed lines, and what happens in a window that does what a test says."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import supervision as sv
from fake_follower import FakeFollower, picture

from grounded_sam2.detectors.base import make_detections
from grounded_sam2.images import RGBImage
from grounded_sam2.prompts import TextPrompt, read_prompt
from grounded_sam2.track.continuous import ContinuousTracker
from grounded_sam2.track.discovery import TextDiscovery
from grounded_sam2.track.steering import HELP, FrameRate, SteeredTracker
from grounded_sam2.video.window import Click, Drag, Event, Key, Pointer

COLOURS = {"red": 7, "blue": 200}
PLACES = {7: (2, 2, 18, 18), 200: (30, 20, 60, 40)}
SEEN = picture(PLACES)


class NamedColours:
    """Finds the colours that the prompt names."""

    def detect(self, images: np.ndarray, text_prompt: TextPrompt, **thresholds: float) -> list[sv.Detections]:
        prompt = read_prompt(text_prompt)
        there = [index for index, name in enumerate(prompt) if (images[..., 0] == COLOURS.get(name, 1)).any()]
        xyxy = np.array([PLACES[COLOURS[prompt[index]]] for index in there], np.float32).reshape(-1, 4)
        size = (images.shape[1], images.shape[0])
        return [make_detections(xyxy, np.full(len(there), 0.9), np.array(there, np.int64), prompt.phrases, size)]


class ScriptedWindow:
    """A window in which something happens, one list of events at a time; pictures and waits are noted."""

    def __init__(self, happening: Iterator[list[Event]] = iter([])) -> None:  # noqa: B008
        self.happening = happening
        self.pointer = Pointer()
        self.pictures: list[RGBImage] = []
        self.waits: list[float] = []

    def put(self, image: RGBImage) -> None:
        self.pictures.append(image)

    def events(self, seconds: float) -> list[Event]:
        self.waits.append(seconds)
        return next(self.happening, [])


def steered_by(
    text_prompt: str | None, window: ScriptedWindow | None = None
) -> tuple[SteeredTracker, queue.SimpleQueue[str], list[str]]:
    """A tracker with what is typed, and with what it says."""
    discovery = TextDiscovery(NamedColours(), text_prompt)
    tracker = ContinuousTracker(discovery, FakeFollower(), detect_every=10, scene_cut=None)
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    said: list[str] = []
    steered = SteeredTracker(tracker, discovery, lines, window, say=said.append)  # type: ignore[arg-type]
    return steered, lines, said


def ids(objects: sv.Detections) -> list[int]:
    return objects.tracker_id.tolist()


def test_what_is_typed_is_looked_for_beside_what_was() -> None:
    steered, lines, said = steered_by("red")
    assert ids(steered.step(SEEN)) == [1]
    lines.put("  ")
    lines.put("Blue.")
    assert ids(steered.step(SEEN)) == [1, 2]
    assert said == ['from frame 1 on, looking for "red. blue."']
    assert ids(steered.step(SEEN)) == [1, 2] and steered.frame_idx == 2 and not steered.has_quit
    assert steered.tracker.phrases == ["red", "blue"]


def test_the_first_line_where_nothing_was_looked_for() -> None:
    steered, lines, said = steered_by(None)
    assert ids(steered.step(SEEN)) == []
    lines.put("blue")
    assert ids(steered.step(SEEN)) == [1] and said == ['from frame 1 on, looking for "blue."']


@pytest.mark.parametrize(
    ("line", "message"),
    [("not blue", "at least one phrase that does not begin with 'not'"), ("owl. not red.", "both wants 'red'")],
)
def test_a_line_that_cannot_be_looked_for_is_told(line: str, message: str) -> None:
    steered, lines, said = steered_by("red")
    steered.step(SEEN)
    lines.put(line)
    assert ids(steered.step(SEEN)) == [1]
    assert len(said) == 1 and message in said[0] and steered.tracker.phrases == ["red"]


def test_a_restarted_run_looks_for_what_was_typed() -> None:
    first, lines, _ = steered_by("red")
    lines.put("blue")
    first.step(SEEN)
    second, lines, said = steered_by("red")
    second.restore(first.save())
    lines.put("owl")
    assert ids(second.step(SEEN)) == [1, 2] and said == ['from frame 1 on, looking for "red. blue. owl."']


def test_clicks_and_boxes_make_objects_on_the_frame_that_is_shown() -> None:
    happening = [[Click(5, 5), Drag((28, 18, 62, 42))], [Click(6, 6), Click(70, 5), Click(5, 5, is_right=True)]]
    window = ScriptedWindow(iter(happening))
    steered, _, said = steered_by(None, window)
    objects = steered.step(SEEN)
    assert ids(objects) == [1, 2] and objects.xyxy.tolist() == [list(box) for box in PLACES.values()]
    assert objects.data["class_name"].tolist() == ["object", "object"]
    assert [event.kind for event in steered.take_events()] == ["born", "confirmed"] * 2
    assert ids(steered.step(SEEN)) == [2]
    assert said == [
        HELP, "object 1 on frame 0, object, by its points", "object 2 on frame 0, object, by its box",
        "that is object 1 already", "object 1 ended on frame 1",
    ]  # fmt: skip
    assert window.waits == [0.0, 0.0]


def test_what_cannot_be_done_is_said() -> None:
    window = ScriptedWindow(iter([[Drag((20, 2, 28, 12)), Click(50, 5, is_right=True), Click(-1, 99, is_right=True)]]))
    steered, _, said = steered_by(None, window)
    assert ids(steered.step(SEEN)) == [] and said[1:] == ["nothing is seen of object, by its box on frame 0"]


@pytest.mark.parametrize("key", ["q", "escape"])
def test_a_key_ends_the_run(key: str) -> None:
    steered, _, _ = steered_by("red", ScriptedWindow(iter([[], [Key("x")], [Key(key), Key("x")]])))
    assert [steered.step(SEEN) and steered.has_quit for _ in range(3)] == [False, False, True]


def test_a_pause_holds_the_frame_and_lines_are_taken_meanwhile() -> None:
    def happening() -> Iterator[list[Event]]:
        yield [Key("space")]
        lines.put("red")
        yield [Click(40, 30)]
        yield []
        yield [Key("space")]

    window = ScriptedWindow(happening())
    steered, lines, said = steered_by(None, window)
    assert ids(steered.step(SEEN)) == [1] and len(window.pictures) == 4
    assert window.waits == [0.0, 0.03, 0.03, 0.03]
    assert said[1:] == ["object 1 on frame 0, object, by its points", 'from frame 1 on, looking for "red."']
    shown = [(image != SEEN)[24:36, 34:56].any() for image in window.pictures]
    assert shown == [False, False, True, True]  # the mask of what was clicked on
    assert ids(steered.step(SEEN)) == [1, 2]


def test_a_pressed_button_holds_the_frame_until_the_box_is_drawn() -> None:
    window = ScriptedWindow()
    mouse = window.pointer.on_mouse

    def happening() -> Iterator[list[Event]]:
        mouse(cv2.EVENT_LBUTTONDOWN, 30, 20, 0)
        yield []
        mouse(cv2.EVENT_MOUSEMOVE, 50, 30, 0)
        yield []
        mouse(cv2.EVENT_LBUTTONUP, 60, 40, 0)
        yield window.pointer.take_events()

    window.happening = happening()
    steered, _, _ = steered_by(None, window)
    assert ids(steered.step(SEEN)) == [1] and len(window.pictures) == 3
    [drawn] = [image for image in window.pictures if (image[20:31, 30] == 255).all()]
    assert drawn is window.pictures[2] and (drawn[30, 30:51] == 255).all()


def test_a_stop_ends_a_pause() -> None:
    stop = threading.Event()

    def happening() -> Iterator[list[Event]]:
        yield [Key("space")]
        stop.set()
        while True:
            yield []

    steered, _, _ = steered_by("red", ScriptedWindow(happening()))
    steered._stop = stop
    assert ids(steered.step(SEEN)) == [1] and not steered.has_quit


def test_the_rate_counts_all_but_what_a_person_takes_their_time_for() -> None:
    now = [0.0]

    def happening() -> Iterator[list[Event]]:
        while True:
            now[0] += 60  # a person looks at the frame
            yield []

    steered, _, _ = steered_by(None, ScriptedWindow(happening()))
    steered.rate.clock = lambda: now[0]
    follow = steered.tracker.step

    def follow_slowly(image: RGBImage) -> sv.Detections:
        now[0] += 0.1
        return follow(image)

    steered.tracker.step = follow_slowly  # type: ignore[method-assign]
    assert steered.rate_at(0) == ""
    for _ in range(3):
        steered.step(SEEN)
        now[0] += 0.15  # to write and to read
    assert steered.rate.mean == "5.0 fps"  # 0.1, 0.25 and 0.25 s
    assert steered.rate_at(2) == steered.rate.of_late and steered.rate_at(1) == steered.rate.mean


def test_the_rate_of_late() -> None:
    rate = FrameRate()
    assert rate.of_late == rate.mean == ""
    for seconds in [1.0] * 20 + [0.5] * 20:
        rate.count(seconds)
    assert (rate.of_late, rate.mean, rate.num_frames) == ("2.0 fps", "1.3 fps", 40)


def test_the_picture_shows_objects_and_the_rate() -> None:
    window = ScriptedWindow()
    steered, _, _ = steered_by("blue", window)
    steered.step(SEEN)
    [image] = window.pictures
    assert (image[24:36, 34:56] != 200).any() and (image[0, :30] == 0).all() and image[:14].max() == 255
