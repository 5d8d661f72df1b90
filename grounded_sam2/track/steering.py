"""A person at objects that are followed: phrases typed, points clicked and boxes drawn while the frames go by."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import supervision as sv

from grounded_sam2.images import RGBImage
from grounded_sam2.object_prompts import ObjectPrompt
from grounded_sam2.prompts import merge_prompts, read_prompt
from grounded_sam2.render import annotate, in_corner
from grounded_sam2.track.continuous import ContinuousTracker
from grounded_sam2.track.discovery import TextDiscovery
from grounded_sam2.track.events import IdentityEvent
from grounded_sam2.video.window import Click, Drag, Event, InteractiveWindow, Key

__all__ = ["HELP", "FrameRate", "SteeredTracker"]

HELP = (
    "click: point on a new object   drag: box around one   right click: end the object there   space: pause   "
    "q: end   typed + Enter, on the terminal: look for it from now on: owl. red car."
)
_PAUSED_SECONDS = 0.03  # between two pictures while a frame stands still
_WHITE = (255, 255, 255)


class FrameRate:
    """Frames per second, of late and in the mean.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.num_frames = 0
        self._seconds = 0.0
        self._latest = deque[float](maxlen=20)

    def count(self, seconds: float) -> None:
        """Count a frame that took so long."""
        self.num_frames += 1
        self._seconds += seconds
        self._latest.append(seconds)

    @property
    def of_late(self) -> str:
        """That of the last 20 frames, "12.3 fps"; "" before the first."""
        return self._text(len(self._latest), sum(self._latest))

    @property
    def mean(self) -> str:
        """That of all frames; "" before the first."""
        return self._text(self.num_frames, self._seconds)

    @staticmethod
    def _text(count: int, seconds: float) -> str:
        return f"{count / max(seconds, 1e-6):.1f} fps" if count else ""


class SteeredTracker:
    """A `ContinuousTracker` that a person steers between the frames; a tracker for `SavedRun.follow` like the other.

        steered = SteeredTracker(tracker, discovery, typed_lines(), window)
        for image in frames:
            objects = steered.step(image)
            if steered.has_quit:
                break

    A typed line is looked for from the next frame on, beside what was looked for before. What is clicked or drawn on a
    frame becomes an object on that very frame, which stands still while the button is pressed.

    Args:
        tracker: follows the objects.
        discovery: what finds objects for it.
        lines: what is typed, see `grounded_sam2.script.typed_lines`.
        window: where frames are shown; None: nowhere.
        stop: ends a pause.
        say: tells the person what happened.

    Attributes:
        frame_idx: as that of the tracker.
        has_quit: the person has ended the run, or closed the window.
        rate: how fast frames are followed; reading and writing count, what a person takes their time for does not.
    """

    def __init__(
        self,
        tracker: ContinuousTracker,
        discovery: TextDiscovery,
        lines: queue.SimpleQueue[str],
        window: InteractiveWindow | None = None,
        *,
        stop: threading.Event | None = None,
        say: Callable[[str], object] = print,
    ) -> None:
        self.tracker = tracker
        self.has_quit = False
        self.rate = FrameRate()
        self._discovery = discovery
        self._lines = lines
        self._window = window
        self._stop = stop or threading.Event()
        self._say = say
        self._is_paused = False
        self._done_at: float | None = None  # when the frame before was done with
        if window is not None:
            say(HELP)

    @property
    def frame_idx(self) -> int:
        """0-based index of the last frame, -1 before the first."""
        return self.tracker.frame_idx

    def step(self, image: RGBImage) -> sv.Detections:
        """Take in the next frame, show it, and do what is typed, clicked and drawn; see `ContinuousTracker.step`."""
        started_at = self.rate.clock() if self._done_at is None else self._done_at
        self._look_for_lines()
        self.tracker.step(image)
        self.rate.count(self.rate.clock() - started_at)
        if self._window is not None:
            self._show(image, self._window)
        self._done_at = self.rate.clock()
        return self.tracker.objects

    def rate_at(self, frame_idx: int) -> str:
        """How fast frames are followed: of late on the newest frame, in the mean on others; "" where none was."""
        return self.rate.of_late if frame_idx == self.frame_idx else self.rate.mean

    def take_events(self) -> list[IdentityEvent]:
        """What happened to the objects since the last call."""
        return self.tracker.take_events()

    def save(self) -> dict[str, Any]:
        """All that the next `step` builds on; see `ContinuousTracker.save`."""
        return self.tracker.save()

    def restore(self, saved: dict[str, Any]) -> None:
        """Inverse of `save`."""
        self.tracker.restore(saved)

    def _look_for_lines(self) -> None:
        while not self._lines.empty():
            line = self._lines.get().strip()
            if not line:
                continue
            former = [] if self._discovery.prompt is None else [self._discovery.prompt]
            try:
                self.tracker.set_prompt(merge_prompts([*former, read_prompt(line)]))
            except ValueError as error:
                self._say(str(error))
            else:
                self._say(f'from frame {self.frame_idx + 1} on, looking for "{self._discovery.prompt}"')

    def _show(self, image: RGBImage, window: InteractiveWindow) -> None:
        """Show the newest frame, and do what happens in the window; a pause and a pressed button hold the frame."""
        while True:
            picture = in_corner(annotate(image, self.tracker.objects), self.rate.of_late)
            window.put(_with_box(picture, window.pointer.box))
            is_held = self._is_paused or window.pointer.is_down
            for event in window.events(_PAUSED_SECONDS if is_held else 0.0):
                self._handle(event)
            if self.has_quit or self._stop.is_set() or not (self._is_paused or window.pointer.is_down):
                return
            self._look_for_lines()

    def _handle(self, event: Event) -> None:
        """Do what a key, a click or a box asks for; what cannot be done is said."""
        try:
            if isinstance(event, Key):
                self.has_quit = self.has_quit or event.name in ("q", "escape")
                self._is_paused = self._is_paused != (event.name == "space")
            elif isinstance(event, Drag):
                self._add(ObjectPrompt(box=np.array(event.xyxy, np.float32)))
            elif event.is_right:
                self._end(event)
            elif self._is_inside(event):
                point = np.array([[event.x, event.y]], np.float32)
                self._add(ObjectPrompt(points=point, labels=np.ones(1, np.int32)))
        except ValueError as error:
            self._say(str(error))

    def _add(self, prompt: ObjectPrompt) -> None:
        num_born = self.tracker.keeper.next_obj_id
        obj_id = self.tracker.add(prompt)
        if obj_id == num_born:
            self._say(f"object {obj_id} on frame {self.frame_idx}, {prompt}")
        else:
            self._say(f"that is object {obj_id} already")

    def _end(self, click: Click) -> None:
        """Remove the object with the smallest mask at a place."""
        objects = self.tracker.objects
        assert objects.tracker_id is not None
        masks = np.asarray(objects.mask)
        is_inside = self._is_inside(click)
        there = [row for row, mask in enumerate(masks) if is_inside and mask[int(click.y), int(click.x)]]
        if there:
            obj_id = int(objects.tracker_id[min(there, key=lambda row: masks[row].sum())])
            self.tracker.remove(obj_id)
            self._say(f"object {obj_id} ended on frame {self.frame_idx}")

    def _is_inside(self, click: Click) -> bool:
        width, height = self.tracker.size
        return 0 <= click.x < width and 0 <= click.y < height


def _with_box(image: RGBImage, box: tuple[float, float, float, float] | None) -> RGBImage:
    """An image with the box that is being drawn, xyxy, in place."""
    if box is not None:
        left, top, right, bottom = (round(side) for side in box)
        cv2.rectangle(image, (left, top), (right, bottom), _WHITE, 1)
    return image
