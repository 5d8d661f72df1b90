"""The detection interval that holds a target rate, on a clock that the test moves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import supervision as sv

from grounded_sam2.detectors.base import Image
from grounded_sam2.track.frame_budget import FrameBudget

IMAGE = np.zeros((4, 4, 3), np.uint8)


class Clock:
    """Seconds that pass only when they are spent."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class SlowDetector:
    """Finds nothing and takes its time."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock = clock
        self.seconds = seconds
        self.thresholds: list[tuple[float, float]] = []

    def detect(
        self,
        images: Image | Sequence[Image],
        text_prompt: str | Sequence[str],
        *,
        box_threshold: float = 0.35,
        text_threshold: float = 0.25,
    ) -> list[sv.Detections]:
        self.clock.now += self.seconds
        self.thresholds.append((box_threshold, text_threshold))
        return [sv.Detections.empty()]


class Work:
    """Frames that cost `following` seconds, and those that are looked at `detecting` more."""

    def __init__(self, budget: FrameBudget, clock: Clock, detecting: float, following: float) -> None:
        self.budget, self.clock, self.following = budget, clock, following
        self.detector = SlowDetector(clock, detecting)
        self.watched = budget.watch(self.detector)
        self.frame_idx = 0
        self.detection_idx = -1000

    def run(self, num_frames: int, wait: float = 0.0) -> float:
        """Work on frames as `ContinuousTracker` does, waiting for each; returns the mean seconds of one."""
        started_at = self.clock.now
        for _ in range(num_frames):
            self.clock.now += wait
            captured_at = self.clock.now
            with self.budget.frame(captured_at):
                self.clock.now += self.following
                if self.frame_idx - self.detection_idx >= self.budget.detect_every:
                    self.detection_idx = self.frame_idx
                    self.watched.detect(IMAGE, "dog.", box_threshold=0.5, text_threshold=0.125)
            self.frame_idx += 1
        return (self.clock.now - started_at) / num_frames


@pytest.mark.parametrize(
    ("detecting", "following", "target_fps", "expected"),
    [
        (0.45, 0.05, 10, 9),  # (0.45 + 9 x 0.05) / 9 = 0.1
        (0.46, 0.05, 10, 10),  # a little more than every 9th frame can bear
        (0.04, 0.05, 10, 2),  # every frame could be looked at; the least is 2
        (9.0, 0.05, 10, 50),  # every 180th; the most is 50
        (0.1, 0.2, 10, 50),  # following alone is too slow
        (0.1, 0.1, 10, 50),  # following alone is all there is time for
        (0.9, 0.1, None, 2),  # only measured
    ],
)
def test_interval(detecting: float, following: float, target_fps: float | None, expected: int) -> None:
    clock = Clock()
    budget = FrameBudget(target_fps, detect_every=2, max_detect_every=50, clock=clock)
    work = Work(budget, clock, detecting, following)
    work.run(400)
    assert budget.detect_every == expected
    mean = work.run(expected * 40)
    assert mean == pytest.approx(following + detecting / expected)
    if target_fps is not None and expected not in (2, 50):
        assert 0.9 / target_fps < mean <= 1 / target_fps + 1e-9


def test_interval_follows_what_frames_cost() -> None:
    clock = Clock()
    budget = FrameBudget(10, detect_every=2, max_detect_every=50, clock=clock)
    work = Work(budget, clock, 0.45, 0.05)
    for following, expected in ((0.05, 9), (0.08, 23), (0.02, 6), (0.3, 50), (0.05, 9)):  # 0.45 / (0.1 - following)
        work.following = following
        work.run(500)
        assert budget.detect_every == expected
    assert "detection every 2 to 50 frames" in budget.report()


def test_one_slow_frame_changes_nothing() -> None:
    clock = Clock()
    budget = FrameBudget(10, detect_every=2, max_detect_every=50, clock=clock)
    work = Work(budget, clock, 0.45, 0.05)
    work.detector.seconds = 30  # the first call loads what the others use
    work.run(1)
    work.detector.seconds = 0.45
    work.run(300)
    assert budget.detect_every == 9
    while work.frame_idx - work.detection_idx < 9:
        work.run(1)
    work.detector.seconds = 5
    work.run(1)
    work.detector.seconds = 0.45
    assert budget.detect_every == 9


def test_when_every_frame_is_looked_at_the_rest_is_found_out() -> None:
    clock = Clock()
    budget = FrameBudget(10, detect_every=1, max_detect_every=50, clock=clock)
    Work(budget, clock, 0.45, 0.05).run(400)
    assert budget.detect_every == 9


def test_rate_and_latency() -> None:
    clock = Clock()
    budget = FrameBudget(None, detect_every=100, clock=clock)
    assert budget.fps == 0 and all(math.isnan(seconds) for seconds in budget.latency)
    work = Work(budget, clock, detecting=0.75, following=0.25)
    work.run(9, wait=0.25)
    # from the first frame's start to the last one's end: 9 x 0.25 + 0.75 at work and 8 x 0.25 between them
    assert budget.num_frames == 9 and budget.fps == pytest.approx(9 / 5)
    assert budget.latency == pytest.approx((0.25, 1.0))
    assert budget.report() == "1.8 frames per second, detection every 100 frames, latency 0.25 s, at most 1.00 s"


def test_a_frame_that_fails_is_not_counted() -> None:
    budget = FrameBudget(10, clock=Clock())
    with pytest.raises(ValueError, match="no"), budget.frame():
        raise ValueError("no")
    assert budget.num_frames == 0 and budget.report() == "0.0 frames per second (target 10), detection every 10 frames"


def test_the_watched_detector_passes_everything_on() -> None:
    clock = Clock()
    detector = SlowDetector(clock, 1)
    [detections] = FrameBudget(10, clock=clock).watch(detector).detect(IMAGE, "dog.", box_threshold=0.9)
    assert len(detections) == 0 and detector.thresholds == [(0.9, 0.25)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_fps": 0}, "expected target_fps above 0, got 0"),
        ({"target_fps": -1.5}, "got -1.5"),
        ({"target_fps": math.nan}, "got nan"),
        ({"target_fps": 5, "detect_every": 0}, "expected 1 <= detect_every <= max_detect_every, got 0, 100"),
        ({"target_fps": 5, "detect_every": 30, "max_detect_every": 20}, "got 30, 20"),
    ],
)
def test_bad_settings(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrameBudget(**settings)
