"""What every source of frames offers, and frames that come only once: those of a generator."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from sam2.frames.frame_source import FrameSource, ImageSequence, IndexedFrameSource, prefetched
from sam2.frames.still_image import RGBImage, check_image

__all__ = ["FrameSource", "FrameStream", "ImageSequence", "IndexedFrameSource", "prefetched"]


class FrameStream(FrameSource):
    """Frames that come once, in order, and whose number nobody knows: those of a generator.

    The first frame is taken at once, to learn the size. Iterating a second time is a RuntimeError.
    """

    def __init__(self, frames: Iterator[Any], name: str, fps: Fraction) -> None:
        self.name = name
        self.fps = fps
        self._frames = frames
        first = next(frames, None)
        if first is None:
            raise ValueError(f"{name}: expected at least one frame, got none")
        self.height, self.width = check_image(first, f"frame 0 of {name}").shape[:2]
        self._first: RGBImage | None = first

    def __iter__(self) -> Iterator[RGBImage]:
        first, self._first = self._first, None
        if first is None:
            raise RuntimeError(f"the frames of {self.name} come only once: call open_frames(...) again")
        return self._stream(first)

    def _stream(self, first: RGBImage) -> Iterator[RGBImage]:
        yield first
        for frame_idx, frame in enumerate(self._frames, start=1):
            yield check_image(frame, f"frame {frame_idx} of {self.name}", self.size)

    def close(self) -> None:
        """End the generator."""
        close = getattr(self._frames, "close", None)
        if close is not None:
            close()
