"""Frames in and frames out: every kind of source read lazily, and an H.264 writer.

All images are RGB uint8 `(H, W, 3)`, upright (rotation metadata applied). No source holds more than a few frames at a
time, whatever its length.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grounded_sam2.frame_source import FrameSource, FrameStream, ImageSequence, IndexedFrameSource
from grounded_sam2.images import IMAGE_SUFFIXES, RGBImage, read_image, write_image
from grounded_sam2.video_file import DEFAULT_FPS, VideoFile, decoded, open_container, stream_fps, upright_rgb
from grounded_sam2.video_writer import VideoWriter, exact_fps

__all__ = [
    "FrameSource",
    "FrameStream",
    "ImageSequence",
    "IndexedFrameSource",
    "VideoFile",
    "VideoWriter",
    "open_frames",
    "open_indexed_frames",
    "read_image",
    "write_image",
]


def open_frames(
    source: str | os.PathLike[str] | int | npt.NDArray[np.uint8] | Iterable[Any] | FrameSource,
    default_fps: float | Fraction = DEFAULT_FPS,
) -> FrameSource:
    """Open whatever holds frames.

    Args:
        source: a video file; a folder of images (in natural order: 2 before 10); one image; an http(s), rtsp, ...
            URL; a camera index (`0` or `"0"`); a list of image paths or of RGB uint8 arrays, or an array
            `(T, H, W, 3)`; a generator of RGB uint8 arrays; a frame source (returned as it is).
        default_fps: frames per second of a source that has none of its own: folders, lists, generators.

    Returns:
        An `IndexedFrameSource` for files, folders, lists and URLs of finite videos (the last are read through once
        to be counted); a `FrameStream`, which has no length and is read once, for the others.

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
        capture = _open_camera(source)
        return FrameStream(_camera_frames(capture), f"camera {source}", _camera_fps(capture, fps))
    if isinstance(source, (str, os.PathLike)):
        return _open_location(os.fspath(source), fps)
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


def _open_location(location: str, fps: Fraction) -> FrameSource:
    """Open a path, a URL or the number of a camera."""
    if "://" in location:
        with open_container(location) as container:
            is_live = container.duration is None
            live_fps = stream_fps(container.streams.video[0])
        return FrameStream(_live_frames(location), location, live_fps) if is_live else VideoFile(location)
    path = Path(location)
    if path.is_dir():
        return ImageSequence(_images_in(path), str(path), fps)
    if not path.exists():
        if location.isdecimal():
            return open_frames(int(location), fps)
        raise FileNotFoundError(f"no such video, image or folder: {location!r}")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSequence([path], str(path), fps)
    return VideoFile(path)


def _images_in(folder: Path) -> list[Path]:
    """The images of a folder in natural order of their names."""
    names = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    images = [path for path in names if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise ValueError(
            f"the folder {folder} holds no images: expected {', '.join(sorted(IMAGE_SUFFIXES))}, "
            f"found {len(names)} other files"
        )
    return sorted(images, key=_natural_key)


def _natural_key(path: Path) -> list[str | int]:
    """Sort key by which frame2 comes before frame10."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [int(part) if position % 2 else part for position, part in enumerate(parts)]


def _open_camera(index: int) -> Any:
    """An opened cv2.VideoCapture: OpenCV is the one reader of cameras that works alike on every system."""
    import cv2

    capture = cv2.VideoCapture(index)
    if not capture.isOpened():
        capture.release()
        raise ValueError(f"camera {index} cannot be opened: not there, not permitted, or in use")
    return capture


def _camera_fps(capture: Any, default_fps: Fraction) -> Fraction:
    import cv2

    fps = capture.get(cv2.CAP_PROP_FPS)
    return exact_fps(fps) if 1 <= fps <= 1000 else default_fps


def _camera_frames(capture: Any) -> Iterator[RGBImage]:
    """Frames of a camera until it stops; not read ahead, so that a slow consumer does not fall behind."""
    import cv2

    try:
        while True:
            is_frame, frame_bgr = capture.read()
            if not is_frame:
                return
            yield cv2.cvtColor(frame_bgr, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


def _live_frames(location: str) -> Iterator[RGBImage]:
    """Frames of a live stream as they come."""
    with open_container(location) as container:
        size: tuple[int, int] | None = None
        for frame in decoded(container):
            size = size or (frame.width, frame.height)
            yield upright_rgb(frame, size, frame.rotation)
