"""Which frame of a session is shown: played, stepped, or tracked backward, a little work at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from grounded_sam2.session.playing import Player
from grounded_sam2.session.propagation import Progress, propagate
from grounded_sam2.session.session import Session

__all__ = ["Playback"]

IDLE_SECONDS = 0.02
MOST_STEPS = 5


class Playback:
    """Plays a session no faster than its video, following the objects as it goes.

    Args:
        session: is changed.
        say: tells the person what happened.

    Attributes:
        frame_idx: the frame that is shown.
        goal: the frame that is played to; None: paused.
        progress: what goes on between two frames, "" for nothing.
    """

    def __init__(self, session: Session, say: Callable[[str], object]) -> None:
        self.frame_idx = 0
        self.goal: int | None = None
        self.progress = ""
        self._session = session
        self._say = say
        self._player = Player(session)
        self._backward: Iterator[Progress] | None = None  # a pass that goes on
        self._home = 0  # the frame from which it was started
        self._wants_backward = False
        self._due = 0.0  # when the next frame may be shown

    def describe(self) -> str:
        """What goes on: "playing", "playing, then backward", "paused" or "tracking backward"."""
        if self._backward is not None:
            return "tracking backward"
        return "paused" if self.goal is None else "playing, then backward" if self._wants_backward else "playing"

    # ---- what a person asks for ----

    def show(self, frame_idx: int) -> None:
        """Pause on a frame."""
        self.stop_backward()
        self.goal, self.frame_idx, self.progress = None, frame_idx, ""

    def toggle(self) -> None:
        """Play to the end, or pause."""
        self.stop_backward()
        last = self._session.num_frames - 1
        is_at_end = self.frame_idx == last
        self.goal = None if self.goal is not None or is_at_end else last
        self.progress = ""
        self._say("the video ends here" if is_at_end else self.describe())

    def step(self, num_frames: int) -> None:
        """Pause, so many frames back (below 0) or on; on the way on objects are followed."""
        last = self._session.num_frames - 1
        is_stepping = self.goal is not None and self.goal < last and num_frames > 0
        start = self.goal if self.goal is not None and is_stepping else self.frame_idx
        self.show(max(self.frame_idx + min(num_frames, 0), 0))
        if num_frames > 0:  # a key that is held down does not get far ahead of a slow model
            self.goal = min(start + num_frames, self.frame_idx + MOST_STEPS, last)

    def toggle_backward(self) -> None:
        """Track backward now, or at the end of what is played; or do so no longer."""
        if self._backward is not None:
            self.stop_backward()
        elif self.goal is not None:
            self._wants_backward = not self._wants_backward
            self._say("tracks backward at the end" if self._wants_backward else "does not track backward")
        else:
            self._start_backward()

    def stop_backward(self) -> None:
        """End a pass that goes on, on the frame that it has reached; what was done stays."""
        if self._backward is not None:
            self._backward, self.progress = None, ""
            self._say("tracking backward was stopped; what was done stays")

    # ---- work ----

    def advance(self) -> None:
        """Do the work of one frame at most, where there is some and it is due.

        Raises:
            OSError: a full disk; what was done stays.
        """
        if self._backward is not None:
            self._go_backward(self._backward)
        elif self.goal is not None and time.monotonic() >= self._due:
            self._play(self.goal)

    def seconds_to_wait(self) -> float:
        """How long a person may be waited for: until the next frame is due, or a moment."""
        if self._backward is not None:
            return 0.0
        return IDLE_SECONDS if self.goal is None else min(max(self._due - time.monotonic(), 0.0), IDLE_SECONDS)

    def _play(self, goal: int) -> None:
        started = time.monotonic()
        if self.frame_idx < goal:
            if self._player.step(self.frame_idx + 1):
                self.frame_idx, self.progress = self.frame_idx + 1, ""
                self._due = started + 1 / float(self._session.frames.fps)
            else:
                self.progress = f"following again: frame {self._player.reached} of {self.frame_idx + 1}"
        if self.frame_idx >= goal:
            self.goal = None
            if self._wants_backward:
                self._start_backward()
            elif self.frame_idx == self._session.num_frames - 1:
                self._say("the video ends here")

    def _start_backward(self) -> None:
        self._wants_backward, self._home = False, self.frame_idx
        self._backward = propagate(self._session, direction="backward")

    def _go_backward(self, backward: Iterator[Progress]) -> None:
        progress = next(backward, None)
        if progress is None:
            self._backward, self.frame_idx, self.progress = None, self._home, ""
            self._say("tracked backward")
        else:
            self.frame_idx = progress.frame_idx
            self.progress = f"tracking backward: {progress.num_done} of {progress.num_total} (b: stop)"
