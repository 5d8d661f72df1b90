"""Videos of frames that say their own index, and the beginning of the bundled one."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from grounded_sam2.video import VideoWriter, open_frames

BUNDLED = Path(__file__).resolve().parent.parent / "assets" / "parade.mp4"
SIZE = (96, 64)  # width, height


def picture(frame_idx: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A frame that says its own index: 10 black or white stripes, one for each bit."""
    width, height = size
    image = np.full((height, width, 3), (200, 30, 60), np.uint8)
    for bit in range(10):
        stripe = slice(bit * width // 12, (bit + 1) * width // 12)
        image[height // 4 :, stripe] = 255 * (frame_idx >> bit & 1)
    return image


def index_of(image: np.ndarray) -> int:
    """What `picture` encoded."""
    height, width = image.shape[:2]
    bits = [int(image[height * 3 // 4, int((bit + 0.5) * width / 12)].mean() > 127) for bit in range(10)]
    return sum(value << bit for bit, value in enumerate(bits))


def make_video(
    path: Path,
    num_frames: int = 40,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    rotation: int | None = None,
    is_mirrored: bool = False,
    size: tuple[int, int] = SIZE,
    times: list[int] | None = None,
    rate: Fraction | int = 25,
) -> Path:
    """A video of `picture` frames; `times` in units of 1/`rate` makes the frame rate variable."""
    with av.open(f"file:{path}", "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8", "png": "rgb24"}.get(codec, "yuv420p")
        if rotation is not None:
            stream.set_display_rotation(rotation, hflip=is_mirrored)
        for frame_idx in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(frame_idx, size), format="rgb24").reformat(format=stream.pix_fmt)
            frame.pts = times[frame_idx] if times else frame_idx
            frame.time_base = 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def bundled_clip(path: Path, num_frames: int) -> Path:
    """The first frames of the bundled video, 640x360 at 24 frames per second, as a video of its own."""
    with open_frames(BUNDLED) as frames, VideoWriter(path, frames.fps) as writer:
        for frame_idx in range(num_frames):
            writer.write(frames[frame_idx])
    return path


def cut(path: Path, num_bytes: int) -> Path:
    """Keep only the first bytes of a file."""
    path.write_bytes(path.read_bytes()[:num_bytes])
    return path
