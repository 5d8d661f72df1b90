"""When the frames of a source are shown, as a written video keeps it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from grounded_sam2.video.frame_source import FrameSource
from sam2.frames import VideoFile

__all__ = ["FrameTimes", "exact_fps", "frame_times"]


def exact_fps(fps: float | Fraction) -> Fraction:
    """`fps` as a fraction a video container can hold; 29.97002997 becomes 30000/1001. ValueError unless positive."""
    exact = Fraction(fps).limit_denominator(65535) if math.isfinite(fps) else Fraction(0)
    if exact <= 0:
        raise ValueError(f"expected more than 0 frames per second, got {fps}")
    return exact


@dataclass(frozen=True)
class FrameTimes:
    """When each frame is shown, from the first one on.

    Attributes:
        fps: frames per second, exact; the mean for a variable rate.
        time_base: seconds, in which times count.
        times: of the frames on the source's clock; None at a constant rate.
        start: time of the first frame on the source's clock, in seconds.
    """

    fps: Fraction
    time_base: Fraction
    times: Sequence[int] | None = None
    start: Fraction = Fraction(0)

    def shown_at(self, frame_idx: int) -> int:
        """When a frame is shown, in units of the time base; the one after the last as the mean rate has it."""
        if self.times is None:
            return frame_idx
        if frame_idx < len(self.times):
            return self.times[frame_idx] - self.times[0]
        return self.times[-1] - self.times[0] + max(1, round(1 / (self.fps * self.time_base)))


def frame_times(frames: FrameSource | None, fps: float | Fraction) -> FrameTimes:
    """The times of a source; constant but for a video file of a variable rate.

    Args:
        frames: the source; None for none.
        fps: frames per second of what is written.

    Raises:
        ValueError: `fps` is not positive.
    """
    fps = exact_fps(fps)
    if not isinstance(frames, VideoFile) or frames.times is None:
        return FrameTimes(fps, 1 / fps)
    start = frames.times[0] * frames.time_base
    if _is_steady(frames.times, frames.time_base, fps):
        return FrameTimes(fps, 1 / fps, start=start)
    return FrameTimes(fps, frames.time_base, frames.times, start)


def _is_steady(times: Sequence[int], time_base: Fraction, fps: Fraction) -> bool:
    """Whether frames come at a constant rate, but for the rounding of their times."""
    seconds = (np.asarray(times, dtype=np.float64) - times[0]) * float(time_base)
    deviation = np.abs(seconds - np.arange(len(times)) / float(fps))
    return bool(deviation.max() <= 1.01 * float(time_base))
