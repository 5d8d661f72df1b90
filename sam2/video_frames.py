"""Frames of a video as the model reads them: square, normalised, decoded when asked for and a little ahead."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, Protocol, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sam2.after_fork import leave_behind, watch
from sam2.frames import VideoFile, open_path
from sam2.transforms import PIXEL_MEAN, PIXEL_STD

if hasattr(os, "register_at_fork"):
    # the threads of OpenMP do not come along either, and the first large operation in a child waits for them
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class RGBFrames(Protocol):
    """Anything with a length that gives frame `i` as an RGB uint8 array (H, W, 3)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> np.ndarray: ...


def to_model_input(image: np.ndarray, image_size: int) -> Tensor:
    """RGB uint8 (H, W, 3) → normalised float32 (3, S, S), resized bicubically without keeping the aspect ratio.

    Raises:
        ValueError: not a uint8 array of three channels.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"a frame must be RGB uint8 (H, W, 3), got {image.dtype} {image.shape}")
    resized = np.array(Image.fromarray(image).resize((image_size, image_size)))
    planes = [np.take(values, resized[..., channel]) for channel, values in enumerate(_normalised_values())]
    return torch.from_numpy(np.stack(planes))


@cache
def _normalised_values() -> np.ndarray:
    """(3, 256) float32: what each value of a pixel becomes in each channel."""
    mean, std = (np.array(values, np.float32)[:, None] for values in (PIXEL_MEAN, PIXEL_STD))
    return (np.arange(256, dtype=np.float32) / np.float32(255.0) - mean) / std


def open_rgb_frames(video: str | os.PathLike[str] | RGBFrames) -> RGBFrames:
    """A video file, a folder of images, one image, or a sequence of arrays as random-access RGB frames.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: a folder without images, or a file that is no video or has no frames.
    """
    if isinstance(video, (str, os.PathLike)):
        return open_path(video)
    if len(video) == 0:
        raise ValueError("the video has no frames")
    return video


class LazyFrames(Sequence[Tensor]):
    """Frames ready for the model; the ones likely to be asked for next are prepared by one background thread.

    `frames[i]` is (3, S, S) float32 on the CPU. At most `ahead` prepared frames exist at a time.
    """

    ahead = 2

    def __init__(self, source: RGBFrames, image_size: int) -> None:
        self.source = source
        self.image_size = image_size
        self._start_worker()
        watch(self)
        self.last_index = -1
        self.height, self.width = self._request(0).result()[1]

    def _start_worker(self) -> None:
        self.worker = ThreadPoolExecutor(max_workers=1)  # one thread: a decoder is not re-entrant
        self.prepared: dict[int, Future[tuple[Tensor, tuple[int, int]]]] = {}

    def after_fork(self) -> None:
        """In a child process, prepare frames anew."""
        leave_behind(self.worker, self.prepared)
        self._start_worker()

    def __len__(self) -> int:
        return len(self.source)

    def _prepare(self, index: int) -> tuple[Tensor, tuple[int, int]]:
        image = self.source[index]
        return to_model_input(image, self.image_size), (image.shape[0], image.shape[1])

    def _request(self, index: int) -> Future[tuple[Tensor, tuple[int, int]]]:
        if index not in self.prepared:
            self.prepared[index] = self.worker.submit(self._prepare, index)
        return self.prepared[index]

    @property
    def shape(self) -> torch.Size:
        """(frames, 3, S, S), as of the tensor that facebookresearch/sam2 has in its place."""
        return torch.Size((len(self), 3, self.image_size, self.image_size))

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def __reduce__(self) -> tuple[Any, ...]:
        # a decoder cannot be pickled; its file is opened again
        source = self.source.name if isinstance(self.source, VideoFile) else self.source
        return _reopened, (source, self.image_size)

    @overload  # type: ignore[override]  # a slice is stacked, as of a tensor
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Tensor: ...
    def __getitem__(self, index: int | slice) -> Tensor:
        wanted = range(len(self))[index]
        if isinstance(wanted, range):
            return torch.stack([self._frame(i) for i in wanted])
        return self._frame(wanted)

    def _frame(self, index: int) -> Tensor:
        direction = 1 if index >= self.last_index else -1
        self.last_index = index
        wanted = [index + direction * i for i in range(self.ahead + 1)]
        wanted = [i for i in wanted if 0 <= i < len(self)]
        for stale in [i for i in self.prepared if i not in wanted]:
            self.prepared.pop(stale).cancel()
        frame, size = self._request(index).result()
        for i in wanted:
            self._request(i)
        if size != (self.height, self.width):
            raise ValueError(
                f"frame {index} is {size[1]}x{size[0]} pixels, the frames before it {self.width}x{self.height}"
            )
        return frame


def _reopened(source: Any, image_size: int) -> LazyFrames:
    return LazyFrames(open_rgb_frames(source), image_size)
