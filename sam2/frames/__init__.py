"""Frames and still images, read from files: the one reader of both packages. It needs no torch.

All images are RGB uint8 `(H, W, 3)`, upright (EXIF and display matrices applied). No source holds more than a few
frames at a time, whatever its length.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

from sam2.frames.decoding import DEFAULT_FPS
from sam2.frames.frame_source import FrameSource, ImageSequence, IndexedFrameSource
from sam2.frames.still_image import IMAGE_SUFFIXES, MAX_PIXELS, images_in, read_image
from sam2.frames.video_file import VideoFile

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "FrameSource",
    "ImageSequence",
    "IndexedFrameSource",
    "VideoFile",
    "images_in",
    "open_path",
    "read_image",
]


def open_path(path: str | os.PathLike[str], default_fps: Fraction = Fraction(DEFAULT_FPS)) -> IndexedFrameSource:
    """Open a video file, a folder of images (in natural order: 2 before 10) or one image.

    Args:
        path: of the file or folder.
        default_fps: frames per second of images.

    Raises:
        FileNotFoundError: there is nothing of that name.
        ValueError: it is there but holds no frames that can be read; the message says what was found.
    """
    path = Path(path)
    if path.is_dir():
        return ImageSequence(images_in(path), str(path), default_fps)
    if not path.exists():
        raise FileNotFoundError(f"no such video, image or folder: {os.fspath(path)!r}")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSequence([path], str(path), default_fps)
    return VideoFile(path)
