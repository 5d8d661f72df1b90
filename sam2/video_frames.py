"""Frames of a video as the model reads them: square, normalised, decoded when asked for and a little ahead."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sam2.transforms import PIXEL_MEAN, PIXEL_STD

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


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
    resized = Image.fromarray(image).resize((image_size, image_size))
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255.0
    return (pixels - torch.tensor(PIXEL_MEAN)[:, None, None]) / torch.tensor(PIXEL_STD)[:, None, None]


class ImageFolder:
    """The images of a folder in natural order of their names (2.jpg before 10.jpg)."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(
            (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES),
            key=lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.stem)],
        )
        if not self.paths:
            raise ValueError(f"no images in {folder}; looked for {', '.join(IMAGE_SUFFIXES)}")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        with Image.open(self.paths[index]) as image:
            return np.array(image.convert("RGB"))


class VideoFile:
    """The frames of a video file by index: forward decoding, and a seek to the key frame before for anything else.

    Going backwards decodes each stretch between key frames once per `backward_cache` frames.
    """

    backward_cache = 16

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.container = av.open(str(path))
            self.stream = self.container.streams.video[0]
            self.times = sorted(p.pts for p in self.container.demux(self.stream) if p.pts is not None)
        except (av.error.FFmpegError, IndexError) as error:
            raise ValueError(f"{path} is not a video that can be read: {error}") from error
        if not self.times:
            raise ValueError(f"{path} has no frames")
        self.index_of = {pts: index for index, pts in enumerate(self.times)}
        self.stream.thread_type = "AUTO"
        self.recent: OrderedDict[int, np.ndarray] = OrderedDict()
        self._seek(0)

    def __len__(self) -> int:
        return len(self.times)

    def _seek(self, index: int) -> None:
        self.container.seek(self.times[index], stream=self.stream)
        self.decoder = self.container.decode(self.stream)
        self.next_index = -1  # unknown until a frame has come

    def __getitem__(self, index: int) -> np.ndarray:
        if index in self.recent:
            return self.recent[index]
        if not 0 <= self.next_index <= index:
            self._seek(index)
        for frame in self.decoder:
            current = self.index_of.get(frame.pts, self.next_index)
            self.next_index = current + 1
            if index - self.backward_cache < current <= index:
                self.recent[current] = frame.to_ndarray(format="rgb24")
                while len(self.recent) > self.backward_cache:
                    self.recent.popitem(last=False)
            if current >= index:
                break
        if index not in self.recent:
            raise ValueError(f"frame {index} of {self.path} cannot be decoded")
        return self.recent[index]


def open_rgb_frames(video: str | Path | RGBFrames) -> RGBFrames:
    """A video file, a folder of images, or a sequence of arrays as random-access RGB frames.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: a folder without images, or a file that is no video or has no frames.
    """
    if not isinstance(video, (str, Path)):
        if len(video) == 0:
            raise ValueError("the video has no frames")
        return video
    path = Path(video)
    if path.is_dir():
        return ImageFolder(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such video file or folder of frames: {path}")
    return VideoFile(path)


class LazyFrames(Sequence[Tensor]):
    """Frames ready for the model; the ones likely to be asked for next are prepared by one background thread.

    `frames[i]` is (3, S, S) float32 on the CPU. At most `ahead` prepared frames exist at a time.
    """

    ahead = 2

    def __init__(self, source: RGBFrames, image_size: int) -> None:
        self.source = source
        self.image_size = image_size
        self.worker = ThreadPoolExecutor(max_workers=1)  # one thread: a decoder is not re-entrant
        self.prepared: dict[int, Future[tuple[Tensor, tuple[int, int]]]] = {}
        self.last_index = -1
        self.height, self.width = self._request(0).result()[1]

    def __len__(self) -> int:
        return len(self.source)

    def _prepare(self, index: int) -> tuple[Tensor, tuple[int, int]]:
        image = self.source[index]
        return to_model_input(image, self.image_size), (image.shape[0], image.shape[1])

    def _request(self, index: int) -> Future[tuple[Tensor, tuple[int, int]]]:
        if index not in self.prepared:
            self.prepared[index] = self.worker.submit(self._prepare, index)
        return self.prepared[index]

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
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
