"""A small synthetic clip with known objects, written as the folder of JPEG frames that both packages can read."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Shape:
    """One moving shape; lengths and positions are fractions of the frame's width and height.

    Attributes:
        kind: "disk" or "box".
        colour: RGB, 0 to 255.
        centre: (x, y) on frame 0.
        velocity: (dx, dy) for each frame.
        half_size: (half width, half height).
    """

    kind: str
    colour: tuple[int, int, int]
    centre: tuple[float, float]
    velocity: tuple[float, float]
    half_size: tuple[float, float]


SHAPES = (
    Shape("disk", (210, 40, 50), (0.25, 0.30), (0.018, 0.012), (0.13, 0.17)),
    Shape("box", (40, 120, 220), (0.70, 0.62), (-0.020, -0.006), (0.12, 0.20)),
    Shape("disk", (240, 210, 60), (0.45, 0.78), (0.012, -0.022), (0.09, 0.12)),
    Shape("box", (60, 180, 90), (0.82, 0.22), (-0.012, 0.020), (0.08, 0.10)),
)


def shape_mask(shape: Shape, frame_idx: int, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Where one shape is on one frame, occlusions ignored.

    Args:
        shape: The shape.
        frame_idx: 0-based frame.
        size: (width, height) in pixels.

    Returns:
        (height, width) bool; the centre is reflected at the frame's edges, so it is never empty.
    """
    width, height = size
    xs = (np.arange(width) + 0.5) / width
    ys = ((np.arange(height) + 0.5) / height)[:, None]
    x, y = (_reflect(start + frame_idx * step) for start, step in zip(shape.centre, shape.velocity, strict=True))
    dx, dy = (xs - x) / shape.half_size[0], (ys - y) / shape.half_size[1]
    if shape.kind == "disk":
        return dx**2 + dy**2 <= 1
    return (np.abs(dx) <= 1) & (np.abs(dy) <= 1)


def make_frame(frame_idx: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw one frame: a smooth textured background and every shape, later shapes in front.

    Args:
        frame_idx: 0-based frame.
        size: (width, height) in pixels.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    width, height = size
    xs = np.linspace(0, 1, width)[None, :]
    ys = np.linspace(0, 1, height)[:, None]
    background = np.stack(
        [
            110 + 60 * np.sin(7 * xs + 3 * ys),
            120 + 50 * np.sin(11 * ys - 2 * xs + 0.05 * frame_idx),
            100 + 40 * np.cos(5 * xs * ys + 9 * xs),
        ],
        axis=-1,
    )
    noise = np.random.default_rng(frame_idx).normal(0, 6, background.shape)
    image = background + noise
    for shape in SHAPES:
        mask = shape_mask(shape, frame_idx, size)
        stripes = 25 * np.sin(40 * (xs + ys))[..., None]
        image = np.where(mask[..., None], np.array(shape.colour) + stripes, image)
    return np.clip(image, 0, 255).astype(np.uint8)


def write_clip(folder: Path, num_frames: int, size: tuple[int, int]) -> None:
    """Write `00000.jpg`, `00001.jpg`, … of (width, height) `size` into `folder`, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    for frame_idx in range(num_frames):
        Image.fromarray(make_frame(frame_idx, size)).save(folder / f"{frame_idx:05d}.jpg", quality=95, subsampling=0)


def read_frame(folder: Path, frame_idx: int) -> NDArray[np.uint8]:
    """Decode one frame of a clip written by `write_clip`: (height, width, 3) uint8 RGB."""
    return np.asarray(Image.open(folder / f"{frame_idx:05d}.jpg").convert("RGB"))


def box_of(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The tight (4,) float32 xyxy box in pixels around a (height, width) bool mask that is not empty."""
    ys, xs = np.nonzero(mask)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], dtype=np.float32)


def centre_of(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The (2,) float32 (x, y) centre of mass in pixels of a (height, width) bool mask that is not empty."""
    ys, xs = np.nonzero(mask)
    return np.array([xs.mean() + 0.5, ys.mean() + 0.5], dtype=np.float32)


def _reflect(position: float) -> float:
    position = position % 2
    return 2 - position if position > 1 else position
