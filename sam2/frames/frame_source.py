"""What every source of frames offers, and the source that needs no decoder: images and arrays."""

from __future__ import annotations

import operator
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from sam2.after_fork import leave_behind
from sam2.frames.still_image import RGBImage, check_image, read_image, rgb_of_picture

__all__ = ["FrameSource", "ImageSequence", "IndexedFrameSource", "prefetched"]

T = TypeVar("T")

PREFETCHED_FRAMES = 4


class FrameSource(ABC):
    """Frames one after another, upright RGB uint8 `(H, W, 3)` of one size, decoded only when asked for.

    Attributes:
        name: what was opened, for messages and file names.
        fps: frames per second, exact (30000/1001, not 29.97); the mean for a variable frame rate.
        width: pixels, after rotation.
        height: pixels, after rotation.
        seconds: when the frame yielded last came, from the first one on, where frames come at uneven times; None where
            `fps` or the file tells.
    """

    name: str
    fps: Fraction
    width: int
    height: int
    seconds: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.width, self.height

    @property
    def num_frames(self) -> int | None:
        """How many frames there are; None where that is unknown (camera, live stream, generator)."""
        return None

    def image_path(self, frame_idx: int) -> str | None:
        """The file that a frame is, where each frame is an image in a file; None for others."""
        return None

    @abstractmethod
    def __iter__(self) -> Iterator[RGBImage]:
        """Yield the frames in order; each array belongs to the caller."""

    def close(self) -> None:  # noqa: B027 - most sources hold nothing open
        """Release a camera, a connection, a decoder."""

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class IndexedFrameSource(FrameSource):
    """A source of known length whose frames can be read in any order: `len(source)`, `source[frame_idx]`."""

    @property
    def num_frames(self) -> int:
        """How many frames there are, exactly."""
        return len(self)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, frame_idx: int) -> RGBImage:
        """Frame `frame_idx` (0-based; negative counts from the end); IndexError outside the source."""

    def _checked_index(self, frame_idx: int) -> int:
        position = operator.index(frame_idx)
        if position < 0:
            position += len(self)
        if not 0 <= position < len(self):
            raise IndexError(f"frame {frame_idx} of {self.name}: expected an index below {len(self)}")
        return position


class ImageSequence(IndexedFrameSource):
    """Images as the frames of a video: paths, RGB uint8 arrays or PIL images, all of the first one's size.

    Random access reads one image; iteration reads a few images ahead in the background.
    """

    def __init__(self, images: Sequence[Any] | npt.NDArray[np.uint8], name: str, fps: Fraction) -> None:
        if len(images) == 0:
            raise ValueError(f"{name}: expected at least one frame, got none")
        self.name = name
        self.fps = fps
        self._images = images
        self._size: tuple[int, int] | None = None
        self.height, self.width = self[0].shape[:2]
        self._size = self.size

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, frame_idx: int) -> RGBImage:
        position = self._checked_index(frame_idx)
        image = self._images[position]
        if isinstance(image, (str, os.PathLike)):
            return check_image(read_image(image), os.fspath(image), self._size)
        if isinstance(image, PILImage.Image):
            image = rgb_of_picture(image)
        return check_image(image, f"frame {position} of {self.name}", self._size).copy()

    def image_path(self, frame_idx: int) -> str | None:
        image = self._images[self._checked_index(frame_idx)]
        return os.fspath(image) if isinstance(image, (str, os.PathLike)) else None

    def __iter__(self) -> Iterator[RGBImage]:
        return prefetched(self[position] for position in range(len(self)))


def prefetched(items: Iterator[T], depth: int = PREFETCHED_FRAMES) -> Iterator[T]:
    """The same items (none of them None), up to `depth` of them made ahead in a background thread.

    Raises:
        RuntimeError: from the iterator, in a process that was forked while it was used.
    """
    process_id = os.getpid()
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
    try:
        pending = deque(pool.submit(next, items, None) for _ in range(depth))
        while (item := pending.popleft().result()) is not None:
            pending.append(pool.submit(next, items, None))
            yield item
            if os.getpid() != process_id:
                raise RuntimeError(
                    "these frames were being read when the process was forked: read them anew, iter(...)"
                )
    finally:
        if os.getpid() == process_id:
            pool.shutdown(wait=True, cancel_futures=True)
            close = getattr(items, "close", None)
            if close is not None:
                close()
        else:
            leave_behind(items, pool)
