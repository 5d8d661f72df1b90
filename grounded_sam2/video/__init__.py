"""Frames in and frames out: every kind of source read lazily, an H.264 writer, and a window.

All images are RGB uint8 `(H, W, 3)`, upright (rotation metadata applied). No source holds more than a few frames at a
time, whatever its length.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grounded_sam2.video.capture import is_realsense
from grounded_sam2.video.frame_source import FrameSource, FrameStream, ImageSequence, IndexedFrameSource
from grounded_sam2.video.live import LiveStream
from grounded_sam2.video.timing import exact_fps
from grounded_sam2.video.video_writer import VideoWriter
from grounded_sam2.video.window import InteractiveWindow, Window
from sam2.frames import VideoFile, open_path
from sam2.frames.decoding import DEFAULT_FPS

__all__ = [
    "FrameSource",
    "FrameStream",
    "ImageSequence",
    "IndexedFrameSource",
    "InteractiveWindow",
    "LiveStream",
    "VideoFile",
    "VideoWriter",
    "Window",
    "open_frames",
    "open_indexed_frames",
]


def open_frames(
    source: str | os.PathLike[str] | int | npt.NDArray[np.uint8] | Iterable[Any] | FrameSource,
    default_fps: float | Fraction = DEFAULT_FPS,
    stop: threading.Event | None = None,
) -> FrameSource:
    """Open whatever holds frames.

    Args:
        source: a video file; a folder of images (in natural order: 2 before 10); one image; an http(s), rtsp, ...
            URL; a camera index (`0` or `"0"`); "realsense"; a list of image paths or of RGB uint8 arrays, or an array
            `(T, H, W, 3)`; a generator of RGB uint8 arrays; a frame source (returned as it is).
        default_fps: frames per second of a source that has none of its own: folders, lists, generators.
        stop: ends the frames of a camera or live URL once it is set, see `LiveStream`; others do not look at it.

    Returns:
        An `IndexedFrameSource` for files, folders, lists and URLs of finite videos (the last are read through once
        to be counted). For the others a source that has no length and is read once: a `FrameStream` for a generator, a
        `LiveStream` for cameras and live URLs, of which each frame asked for is the newest (make one yourself for
        another policy).

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: it is there but holds no frames that can be read (a text named .mp4, a video with no frame, a
            folder with no images); the message says what was found.
    """
    fps = exact_fps(default_fps)
    if isinstance(source, FrameSource):
        return source
    if isinstance(source, (bool, bytes)):
        raise ValueError(f"expected a path, URL, camera index or frames, got {source!r}")
    if isinstance(source, int):
        return LiveStream(source, default_fps=fps, stop=stop)
    if isinstance(source, (str, os.PathLike)):
        return _open_location(os.fspath(source), fps, stop)
    if isinstance(source, np.ndarray) and source.ndim != 4:
        raise ValueError(f"expected frames (T, H, W, 3), got an array {source.shape}")
    if isinstance(source, (Sequence, np.ndarray)):
        return ImageSequence(source, "list of frames", fps)
    if isinstance(source, Iterable):
        return FrameStream(iter(source), "generator", fps)
    raise ValueError(f"expected a path, URL, camera index or frames, got {type(source).__name__}")


def open_indexed_frames(
    source: str | os.PathLike[str] | npt.NDArray[np.uint8] | Sequence[Any] | FrameSource,
    default_fps: float | Fraction = DEFAULT_FPS,
) -> IndexedFrameSource:
    """Open frames that can be read in any order, as often as wanted; see `open_frames`.

    Raises:
        FileNotFoundError: as `open_frames`.
        ValueError: as `open_frames`, and for a camera, a live stream or a generator.
    """
    frames = open_frames(source, default_fps)
    if isinstance(frames, IndexedFrameSource):
        return frames
    frames.close()
    raise ValueError(f"{frames.name} can only be read once, from its start: expected a video file or image folder")


def _open_location(location: str, fps: Fraction, stop: threading.Event | None) -> FrameSource:
    """Open a path, a URL or the number of a camera."""
    if "://" in location:
        stream = LiveStream(location, default_fps=fps, stop=stop)
        if stream.is_live:
            return stream
        stream.close()
        return VideoFile(location)
    if not Path(location).exists() and (location.isdecimal() or is_realsense(location)):
        return LiveStream(location, default_fps=fps, stop=stop)
    return open_path(location, fps)
