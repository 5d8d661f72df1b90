"""How often to detect, so that a stream is kept up with."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING

import supervision as sv

from grounded_sam2.detectors.base import DetectOptions, Detector, Image
from grounded_sam2.prompts import TextPrompt

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["FrameBudget"]

_DETECTIONS_WEIGHED = 5  # the last frames with detection, whose median counts
_FOLLOWED_WEIGHED = 20  # the last frames without
_FRAMES_REPORTED = 1000  # the last frames, whose latencies are reported


class FrameBudget:
    """Measures what frames cost with and without detection, and detects as often as the target rate leaves time for.

        budget = FrameBudget(target_fps=10)
        tracker = ContinuousTracker(budget.watch(detector), predictor, prompt, detect_every=budget.detect_every)
        for image in frames:
            with budget.frame(frames.captured_at):
                objects = tracker.step(image)
                ...  # all else that a frame costs
            tracker.detect_every = budget.detect_every

    A frame with detection takes `d` seconds, one without takes `f`. Detecting on every n-th frame then takes
    `(d + (n - 1) f) / n` seconds a frame; n is the smallest number that keeps this within `1 / target_fps`. Both
    times are medians of the last frames, so that one slow frame changes nothing. The first frame of each kind does
    not count: it also pays for what is done only once. n changes only after a detection.

    Attributes:
        detect_every: frames from one detection to the next, for the frames to come.
        num_frames: measured so far.
    """

    def __init__(
        self,
        target_fps: float | None,
        detect_every: int = 10,
        max_detect_every: int = 100,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            target_fps: frames per second to hold; None only measures.
            detect_every: frames from one detection to the next as long as there is time; it never gets less.
            max_detect_every: the most it may become.
            clock: seconds, the same clock as that of the frames' capture times.

        Raises:
            ValueError: a rate that is not positive, or intervals that are below 1 or in the wrong order.
        """
        if target_fps is not None and not target_fps > 0:
            raise ValueError(f"expected target_fps above 0, got {target_fps}")
        if not 1 <= detect_every <= max_detect_every:
            raise ValueError(f"expected 1 <= detect_every <= max_detect_every, got {detect_every}, {max_detect_every}")
        self.target_fps = target_fps
        self.detect_every = detect_every
        self.num_frames = 0
        self._bounds = (detect_every, max_detect_every)
        self._chosen = (detect_every, detect_every)  # least and most so far
        self._clock = clock
        self._has_detected = False
        self._is_first = {True: True, False: True}  # of the frames with and without detection
        self._seconds = {True: deque[float](maxlen=_DETECTIONS_WEIGHED), False: deque[float](maxlen=_FOLLOWED_WEIGHED)}
        self._latencies = deque[float](maxlen=_FRAMES_REPORTED)
        self._started_at: float | None = None
        self._ended_at = 0.0

    def watch(self, detector: Detector) -> Detector:
        """The same detector, whose calls tell this budget which frames it looked at."""
        return _WatchedDetector(detector, self)

    @contextmanager
    def frame(self, captured_at: float | None = None) -> Iterator[None]:
        """Measure all that is done about one frame; one that raises is not counted.

        Args:
            captured_at: when the frame was captured, on this budget's clock; None does not measure latency.
        """
        started_at = self._clock()
        if self._started_at is None:
            self._started_at = started_at
        self._has_detected = False
        yield
        self._ended_at = self._clock()
        self.num_frames += 1
        if captured_at is not None:
            self._latencies.append(self._ended_at - captured_at)
        self._weigh(self._ended_at - started_at)

    def _weigh(self, seconds: float) -> None:
        if self._is_first[self._has_detected]:
            self._is_first[self._has_detected] = False
            return
        self._seconds[self._has_detected].append(seconds)
        if self._has_detected and self.target_fps is not None:
            self.detect_every = min(
                max(self._affordable_interval(1 / self.target_fps), self._bounds[0]), self._bounds[1]
            )
            self._chosen = (min(self._chosen[0], self.detect_every), max(self._chosen[1], self.detect_every))

    def _affordable_interval(self, budget: float) -> int:
        """The least interval at which a frame costs `budget` seconds in the mean."""
        detecting = median(self._seconds[True])
        if detecting <= budget:
            return 1
        if not self._seconds[False]:  # every frame was looked at: twice the interval shows what the others cost
            return 2 * self.detect_every
        following = median(self._seconds[False])
        if following >= budget:
            return self._bounds[1]
        # rounded before: 3.0000000000000004 is 3
        return math.ceil(round((detecting - following) / (budget - following), 6))

    @property
    def fps(self) -> float:
        """Frames per second so far, waiting for frames included; 0 before the first."""
        seconds = self._ended_at - self._started_at if self._started_at is not None else 0.0
        return self.num_frames / seconds if seconds > 0 else 0.0

    @property
    def latency(self) -> tuple[float, float]:
        """Median and longest time in seconds from a frame's capture until it was done with; of the last 1000 frames."""
        return (median(self._latencies), max(self._latencies)) if self._latencies else (math.nan, math.nan)

    def report(self) -> str:
        """One line on what was reached."""
        parts = [f"{self.fps:.1f} frames per second"]
        if self.target_fps is not None:
            parts[0] += f" (target {self.target_fps:g})"
        least, most = self._chosen
        parts.append(
            f"detection every {least} frames" if least == most else f"detection every {least} to {most} frames"
        )
        if self._latencies:
            parts.append("latency {:.2f} s, at most {:.2f} s".format(*self.latency))
        return ", ".join(parts)


class _WatchedDetector:
    """A detector that says when it is called."""

    def __init__(self, detector: Detector, budget: FrameBudget) -> None:
        self._detector = detector
        self._budget = budget

    def detect(
        self, images: Image | Sequence[Image], text_prompt: TextPrompt, **options: Unpack[DetectOptions]
    ) -> list[sv.Detections]:
        self._budget._has_detected = True
        return self._detector.detect(images, text_prompt, **options)
