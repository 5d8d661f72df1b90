"""Animated pictures, GIF and WebP: smaller and of fewer frames than the video, each shown exactly as long as it was."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from grounded_sam2.video.timing import FrameTimes
from grounded_sam2.video.video_writer import CheckedFile, ending, ffmpeg_errors

__all__ = ["AnimationLimits", "GifWriter", "WebpWriter", "kept_frames"]

MOST_FPS = 50  # browsers show faster GIFs slowly
MOST_SIDE = 16383  # of a WebP, in pixels
FRAMES_PER_PALETTE = 32
SAMPLED_PIXELS = 2**12  # of each frame, for the palette
TRANSPARENT = 255  # index in the palette
DITHER = 12  # difference in brightness over which neighbours in a palette are mixed


@dataclass(frozen=True)
class AnimationLimits:
    """How large an animation may get; there is no other bound to its bytes.

    Attributes:
        max_side: the longer side in pixels; a larger picture is made smaller.
        max_fps: frames per second, up to 50; of more, some are left out.

    Raises:
        ValueError: a setting outside its range.
    """

    max_side: int = 480
    max_fps: float = 12.0

    def __post_init__(self) -> None:
        if not 1 <= self.max_side <= MOST_SIDE:
            raise ValueError(f"max_side: expected 1 to {MOST_SIDE} pixels, got {self.max_side}")
        if not 0 < self.max_fps <= MOST_FPS:
            raise ValueError(f"max_fps: expected more than 0 and at most {MOST_FPS}, got {self.max_fps}")

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) of the animation for a video's."""
        scale = min(1, self.max_side / max(size))
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def kept_frames(times: FrameTimes, num_frames: int, max_fps: float) -> dict[int, Fraction]:
    """The frames that an animation has: index → seconds at which it is shown, in order; the first one is among them."""
    kept: dict[int, Fraction] = {}
    last_step = -1
    for frame_idx in range(num_frames):
        at = times.shown_at(frame_idx) * times.time_base
        step = int(at * Fraction(max_fps))
        if step > last_step:
            kept[frame_idx], last_step = at, step
    return kept


def _ticks(kept: dict[int, Fraction], end: Fraction, per_second: int) -> dict[int, tuple[int, int]]:
    """Index → start and duration in units of a clock; roundings do not add up."""
    starts = [round(at * per_second) for at in [*kept.values(), end]]
    return {
        frame_idx: (start, max(1, after - start))
        for frame_idx, start, after in zip(kept, starts, starts[1:], strict=False)
    }


def _resized(image: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """A smaller picture; of RGBA, transparent pixels give no colour to others."""
    if image.shape[1::-1] == size:
        return image
    if image.shape[2] == 3:
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    alpha = image[..., 3:].astype(np.float32) / 255
    small = cv2.resize(np.dstack([image[..., :3] * alpha, alpha]), size, interpolation=cv2.INTER_AREA)
    colors = small[..., :3] / np.maximum(small[..., 3:], np.float32(1e-6))
    return np.rint(np.dstack([colors, small[..., 3:] * 255])).clip(0, 255).astype(np.uint8)


class GifWriter:
    """Write an endless GIF; every 32 pictures have a palette of their own, so that a still background stays still.

    Args:
        path: of the file; what is there is written over.
        times: when the frames of the video are shown.
        num_frames: of the video.
        size: (width, height) of its frames.
        limits: to size and frame rate.

    Attributes:
        kept: indices of the frames to write, in order.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        times: FrameTimes,
        num_frames: int,
        size: tuple[int, int],
        limits: AnimationLimits,
    ) -> None:
        self.path = Path(path)
        self._size = limits.size(size)
        kept = kept_frames(times, num_frames, limits.max_fps)
        self._ticks = _ticks(kept, times.shown_at(num_frames) * times.time_base, 100)
        self.kept: Sequence[int] = list(kept)
        self._waiting: list[tuple[int, npt.NDArray[np.uint8]]] = []
        self._file = CheckedFile(path, "w")
        last = self._ticks[self.kept[-1]][1]
        with ffmpeg_errors(self.path):
            self._container = av.open(
                self._file, "w", format="gif", options={"loop": "0", "final_delay": str(min(last, 65535))}
            )
            self._stream = self._container.add_stream("gif", rate=100)
            self._stream.width, self._stream.height = self._size
            self._stream.pix_fmt = "pal8"

    def write(self, frame_idx: int, image: npt.NDArray[np.uint8]) -> None:
        """Append the picture of a kept frame: (H, W, 3) RGB, or (H, W, 4) RGBA, of which half-transparent is seen."""
        self._waiting.append((frame_idx, _resized(image, self._size)))
        if len(self._waiting) == FRAMES_PER_PALETTE:
            self._write_waiting()

    def _write_waiting(self) -> None:
        if not self._waiting:
            return
        palette = _palette_of([image for _, image in self._waiting])
        argb = np.zeros((256, 4), np.uint8)
        colors = np.array(palette.getpalette(), np.uint8).reshape(-1, 3)
        argb[: len(colors), 0], argb[: len(colors), 1:] = 255, colors
        argb[TRANSPARENT] = 0
        with ffmpeg_errors(self.path):
            for frame_idx, image in self._waiting:
                frame = av.VideoFrame.from_ndarray((_indexed(image, palette), argb), format="pal8")
                frame.pts, frame.time_base = self._ticks[frame_idx][0], Fraction(1, 100)
                self._container.mux(self._stream.encode(frame))
        self._waiting.clear()

    def __enter__(self) -> GifWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ending(self.path, self._file, self._container, is_wanted=kind is None):
            if kind is None:
                self._write_waiting()
                self._container.mux(self._stream.encode())


def _palette_of(images: Sequence[npt.NDArray[np.uint8]]) -> PILImage.Image:
    """The 255 colours that fit pictures best, of the pixels that are seen."""
    sampled = []
    for image in images:
        pixels = image[..., :3][image[..., 3] >= 128] if image.shape[2] == 4 else image.reshape(-1, 3)
        sampled.append(pixels[:: max(1, len(pixels) // SAMPLED_PIXELS)])
    together = np.concatenate(sampled)
    if len(together) == 0:
        together = np.zeros((1, 3), np.uint8)
    return PILImage.fromarray(together[None]).quantize(TRANSPARENT, PILImage.Quantize.MEDIANCUT)


def _indexed(image: npt.NDArray[np.uint8], palette: PILImage.Image) -> npt.NDArray[np.uint8]:
    """A picture as indices of a palette. A fixed pattern mixes colours, so that what is still does not flicker."""
    height, width = image.shape[:2]
    pattern = np.tile(_BAYER, (-(-height // 8), -(-width // 8)))[:height, :width, None]
    mixed = (image[..., :3] + pattern).clip(0, 255).astype(np.uint8)
    indexed = np.array(PILImage.fromarray(mixed).quantize(palette=palette, dither=PILImage.Dither.NONE))
    if image.shape[2] == 4:
        indexed[image[..., 3] < 128] = TRANSPARENT
    return indexed


def _bayer(side: int) -> npt.NDArray[np.int64]:
    """The numbers from 0 to side² - 1 so that each next one is far from the ones before it."""
    if side == 1:
        return np.zeros((1, 1), np.int64)
    half = 4 * _bayer(side // 2)
    return np.block([[half, half + 2], [half + 3, half + 1]])


_BAYER = np.rint((_bayer(8) / 63 - 0.5) * DITHER).astype(np.int16)


class WebpWriter:
    """Write an endless animated WebP; arguments as for `GifWriter`. Each picture is a whole one, and is not kept."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        times: FrameTimes,
        num_frames: int,
        size: tuple[int, int],
        limits: AnimationLimits,
    ) -> None:
        self._size = limits.size(size)
        kept = kept_frames(times, num_frames, limits.max_fps)
        self._ticks = _ticks(kept, times.shown_at(num_frames) * times.time_base, 1000)
        self.kept: Sequence[int] = list(kept)
        self._file = Path(path).open("wb")  # noqa: SIM115 - closed by the with block

    def _begin(self, has_alpha: bool) -> None:
        """Write what comes before the pictures."""
        flags = 0x02 | (0x10 if has_alpha else 0)
        self._file.write(b"RIFF\0\0\0\0WEBP")
        self._file.write(_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + _u24(self._size[0] - 1) + _u24(self._size[1] - 1)))
        self._file.write(_chunk(b"ANIM", struct.pack("<IH", 0, 0)))  # on nothing, without end

    def write(self, frame_idx: int, image: npt.NDArray[np.uint8]) -> None:
        """Append the picture of a kept frame: (H, W, 3) RGB or (H, W, 4) RGBA."""
        if self._file.tell() == 0:
            self._begin(has_alpha=image.shape[2] == 4)
        packed = io.BytesIO()
        PILImage.fromarray(_resized(image, self._size)).save(packed, format="WEBP", quality=80, method=3)
        duration = min(self._ticks[frame_idx][1], 2**24 - 1)
        place = _u24(0) + _u24(0) + _u24(self._size[0] - 1) + _u24(self._size[1] - 1)
        replaces = b"\x02"  # what was there before, instead of lying over it
        self._file.write(_chunk(b"ANMF", place + _u24(duration) + replaces + _bitstream(packed.getvalue())))

    def __enter__(self) -> WebpWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            num_bytes = self._file.tell()
            self._file.seek(4)
            self._file.write(struct.pack("<I", num_bytes - 8))


def _u24(number: int) -> bytes:
    return number.to_bytes(3, "little")


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _bitstream(webp: bytes) -> bytes:
    """The chunks of a still WebP that hold the picture: its colours, and its transparency where there is any."""
    kept, place = b"", 12
    while place < len(webp):
        [length] = struct.unpack_from("<I", webp, place + 4)
        chunk = webp[place : place + 8 + length + length % 2]
        kept += chunk if chunk[:4] in (b"ALPH", b"VP8 ", b"VP8L") else b""
        place += len(chunk)
    return kept
