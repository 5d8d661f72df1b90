"""A small video of fine squares with a tone, and the annotations of two objects in it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import supervision as sv

from grounded_sam2.export import FrameAnnotationWriter, VideoHeader
from grounded_sam2.masks import boxes_around

SIZE = (192, 128)  # width, height
NUM_FRAMES = 20
RATE = 25
GAP = range(6, 9)  # object 1 has no mask there, nor on the last frame


def box(left: int, top: int, right: int, bottom: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros(size[::-1], bool)
    mask[top:bottom, left:right] = True
    return mask


def texture(frame_idx: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Fine squares of random grey, reddish at the top and bluish at the bottom; they move right by 4 a frame."""
    grey = np.random.default_rng(7).integers(40, 216, (size[1] // 4 + 1, size[0] // 4 + NUM_FRAMES + 1))
    grey = grey.repeat(4, 0).repeat(4, 1)[: size[1], 4 * (NUM_FRAMES - frame_idx) :][:, : size[0]]
    tint = np.linspace(-30, 30, size[1])[:, None]
    return np.stack([grey - tint, grey, grey + tint], axis=2).astype(np.uint8)


def masks_on(frame_idx: int) -> dict[int, np.ndarray]:
    """Object 1, a dog, moves right; object 2, a cat called Tom, stays; nothing else is there."""
    masks = {2: box(120, 72, 168, 120)}
    if frame_idx not in GAP and frame_idx != NUM_FRAMES - 1:
        masks[1] = box(8 + 2 * frame_idx, 16, 72 + 2 * frame_idx, 64)
    return dict(sorted(masks.items()))


def write_lines(path: Path, source: str | None, num_frames: int = NUM_FRAMES, size: tuple[int, int] = SIZE) -> Path:
    """The annotations of `masks_on`."""
    with FrameAnnotationWriter(path, VideoHeader(size, source, Fraction(RATE), ("dog", "cat"))) as writer:
        for frame_idx in range(num_frames):
            masks = masks_on(frame_idx)
            stacked = np.stack(list(masks.values()))[:, : size[1], : size[0]]
            objects = sv.Detections(
                boxes_around(stacked),
                mask=stacked,
                class_id=np.array(list(masks)) - 1,
                tracker_id=np.array(list(masks)),
                data={
                    "class_name": np.array([("dog", "cat")[obj_id - 1] for obj_id in masks]),
                    "name": np.array([("dog 1", "Tom")[obj_id - 1] for obj_id in masks]),
                },
            )
            writer.write(frame_idx, objects)
    return path


def write_video(path: Path, num_frames: int = NUM_FRAMES, times: list[int] | None = None) -> Path:
    """The frames of `texture` as H.264 with a tone beside them; `times` in units of 1/100 s."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=100 if times else RATE, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        sound = container.add_stream("aac", rate=8000)
        sound.layout = "mono"
        for frame_idx in range(num_frames):
            frame = av.VideoFrame.from_ndarray(texture(frame_idx), format="rgb24")
            frame.pts, frame.time_base = (
                (times[frame_idx], Fraction(1, 100)) if times else (frame_idx, Fraction(1, RATE))
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for start in range(0, num_frames * 8000 // RATE, 1024):
            wave = np.sin(np.arange(start, start + 1024) / 3)[None].astype(np.float32)
            samples = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = 8000, start, Fraction(1, 8000)
            container.mux(sound.encode(samples))
        container.mux(sound.encode())
    return path
