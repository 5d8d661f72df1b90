"""What is open while a live source runs: a camera, a RealSense, a stream or a file, read one frame after another."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import av
import cv2
import numpy as np

from grounded_sam2.images import RGBImage
from grounded_sam2.video.timing import exact_fps
from sam2.frames.decoding import (
    checked_stream,
    decoder_limits,
    ffmpeg_location,
    orientation_of,
    stream_fps,
    upright_rgb,
)
from sam2.shown import shown, source_name

__all__ = [
    "CameraCapture",
    "Capture",
    "CapturedFrame",
    "CorruptFrameError",
    "RealSenseCapture",
    "StreamCapture",
    "is_realsense",
    "name_of",
    "open_capture",
]


class CorruptFrameError(Exception):
    """A frame came that does not decode; the next one may be whole."""


class CapturedFrame(NamedTuple):
    """A frame as it came.

    Attributes:
        image: upright RGB uint8 `(H, W, 3)`, of whatever size the source has just now.
        seconds: when the source shows it, on a clock of its own.
    """

    image: RGBImage
    seconds: float


class Capture(Protocol):
    """An open source; one thread reads and closes it.

    Attributes:
        fps: frames per second as the source states them; None where it does not.
        is_live: whether its end is a lost connection; a file and a finite URL just end.
    """

    fps: Fraction | None
    is_live: bool

    def read(self) -> CapturedFrame | None:
        """Wait for the next frame; None at the end, also when the connection or the device is gone.

        Raises:
            CorruptFrameError: one frame is lost; reading goes on.
            OSError: the source cannot be read any more.
        """

    def close(self) -> None:
        """Release it."""


def open_capture(source: str | os.PathLike[str] | int, timeout_seconds: float) -> Capture:
    """Open a live source, or a video that is to be played as one.

    Args:
        source: a camera index (`0` or `"0"`); "realsense", or "realsense:" and a serial number; an RTSP, HTTP, ...
            URL; a video file.
        timeout_seconds: how long a connection may be silent, while it is opened and later.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is there but gives no video, or is not there; the message says why.
    """
    location = os.fspath(source) if not isinstance(source, int) else str(source)
    if location.isdecimal() and not Path(location).exists():
        return CameraCapture(int(location))
    if is_realsense(location):
        return RealSenseCapture(location.partition(":")[2], timeout_seconds)
    return StreamCapture(location, timeout_seconds)


def is_realsense(location: str) -> bool:
    """Whether a source is "realsense", or "realsense:" and a serial number."""
    return re.fullmatch(r"realsense(:\w+)?", location) is not None and not Path(location).exists()


def name_of(source: str | os.PathLike[str] | int) -> str:
    """What messages call a source: a camera by its number, others as `sam2.shown.source_name` does."""
    name = str(source) if isinstance(source, int) else os.fspath(source)
    return f"camera {name}" if name.isdecimal() and not Path(name).exists() else source_name(name)


class CameraCapture:
    """A camera that the system knows, by its index. OpenCV reads cameras alike on every system.

    Raises:
        ValueError: no such camera, or it cannot be used.
    """

    is_live = True

    def __init__(self, index: int) -> None:
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # the error below says it in one line
        try:
            self._capture = cv2.VideoCapture(index)
        except (cv2.error, OverflowError) as error:
            raise ValueError(f"there is no camera {index}") from error
        finally:
            cv2.utils.logging.setLogLevel(level)
        if not self._capture.isOpened():
            self._capture.release()
            raise ValueError(
                f"camera {index} cannot be opened: not there, not permitted, or in use "
                "(a video file or a stream's URL can take its place)"
            )
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = exact_fps(fps) if 1 <= fps <= 1000 else None

    def read(self) -> CapturedFrame | None:
        if not self._capture.grab():
            return None
        is_frame, image_bgr = self._capture.retrieve()
        if not is_frame:
            raise CorruptFrameError("the camera's picture does not decode")
        return CapturedFrame(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB), time.monotonic())

    def close(self) -> None:
        self._capture.release()


class RealSenseCapture:
    """The colour camera of an Intel RealSense, through the package `pyrealsense2`.

    Args:
        serial_number: of the device; "" takes the first one.
        timeout_seconds: how long it may be silent.

    Raises:
        ValueError: the package is not installed, or no such device can be used.
    """

    is_live = True

    def __init__(self, serial_number: str, timeout_seconds: float) -> None:
        try:
            import pyrealsense2
        except ImportError as error:
            raise ValueError(f"a RealSense needs its package: pip install pyrealsense2 ({error})") from error
        self._timeout_ms = round(1000 * timeout_seconds)
        self._pipeline: Any = pyrealsense2.pipeline()
        config = pyrealsense2.config()
        if serial_number:
            config.enable_device(serial_number)
        config.enable_stream(pyrealsense2.stream.color, pyrealsense2.format.rgb8)
        try:
            profile = self._pipeline.start(config)
        except RuntimeError as error:
            raise ValueError(f"the RealSense {serial_number} cannot be opened: {error}".replace("  ", " ")) from error
        self.fps: Fraction | None = exact_fps(profile.get_stream(pyrealsense2.stream.color).fps())

    def read(self) -> CapturedFrame | None:
        try:
            frame = self._pipeline.wait_for_frames(self._timeout_ms).get_color_frame()
        except RuntimeError as error:
            raise OSError(str(error)) from error
        if not frame:
            raise CorruptFrameError("the colour picture is missing")
        # a copy: the device's few buffers must go back to it
        return CapturedFrame(np.array(frame.get_data(), np.uint8), frame.get_timestamp() / 1000)

    def close(self) -> None:
        self._pipeline.stop()


class StreamCapture:
    """A URL or a file, decoded without the delay of several frames that decoding in parallel would bring.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be reached, or is no video.
    """

    def __init__(self, location: str, timeout_seconds: float) -> None:
        name = name_of(location)
        is_url = "://" in location
        if not is_url and not Path(location).exists():
            raise FileNotFoundError(f"no such video, camera or stream: {name!r}")
        # over UDP, the default, lost packets smear the picture
        options = {"rtsp_transport": "tcp"} if location.startswith("rtsp") else {}
        options |= decoder_limits()
        try:
            self._container = av.open(
                ffmpeg_location(location), options=options, timeout=timeout_seconds, metadata_errors="replace"
            )
        except (av.FFmpegError, OSError) as error:
            reason = f"no answer in {timeout_seconds:g} s" if isinstance(error, av.ExitError) else error.strerror
            raise ValueError(f"{name} is not a video that can be read: {shown(reason)}") from error
        try:
            self._stream = checked_stream(self._container, name)
        except ValueError:
            self._container.close()
            raise
        self._stream.thread_type = "SLICE"
        self._timeout_seconds = timeout_seconds
        self._packets = self._container.demux(self._stream)
        self._is_drained = False
        self._decoded: deque[av.VideoFrame] = deque()
        self._num_frames = 0
        self._nominal_fps = stream_fps(self._stream)
        self.fps: Fraction | None = self._nominal_fps
        self.is_live = is_url and self._container.duration is None

    def read(self) -> CapturedFrame | None:
        while not self._decoded:
            if self._is_drained:
                return None
            self._decode_next_packet()
        frame = self._decoded.popleft()
        self._num_frames += 1
        if frame.is_corrupt:
            raise CorruptFrameError("the picture is damaged")
        seconds = self._num_frames / self._nominal_fps
        if frame.pts is not None and self._stream.time_base is not None:
            seconds = frame.pts * self._stream.time_base  # frame.time is not a number for a decoder's last frames
        return CapturedFrame(upright_rgb(frame, (frame.width, frame.height), orientation_of(frame)), float(seconds))

    def _decode_next_packet(self) -> None:
        try:
            packet = next(self._packets, None)
        except av.ExitError as error:
            raise OSError(f"nothing came for {self._timeout_seconds:g} s") from error
        except (av.FFmpegError, IndexError) as error:  # IndexError: PyAV, when another stream shows up late
            raise OSError(getattr(error, "strerror", None) or str(error)) from error
        self._is_drained = packet is None
        if packet is not None and packet.size == 0:
            return  # to a decoder an empty packet means the end
        try:
            self._decoded.extend(self._stream.decode(packet))  # None asks for the frames it still holds
        except av.FFmpegError as error:
            raise CorruptFrameError(error.strerror) from error

    def close(self) -> None:
        self._container.close()
