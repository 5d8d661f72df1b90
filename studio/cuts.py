"""Where the scenes of a video change: looked for once, in the background, and kept beside the session."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from grounded_sam2.images import RGBImage

__all__ = ["find_cuts", "read_cuts", "write_cuts"]

CUTS_NAME = "cuts.json"
LEAST_CHANGE = 0.35  # share of the pixels that change their colour's bin at a cut
TIMES_USUAL = 3.0  # by how much that exceeds what is usual around it
NEIGHBOURS = 12  # frames on each side that say what is usual
SMALL = (64, 36)
BINS = 8  # of each colour


def find_cuts(images: Iterable[RGBImage], check: Callable[[], None] = lambda: None) -> list[int]:
    """The frames that begin a new scene: their colours are other than the frame before had.

    Args:
        images: (H, W, 3) uint8 RGB, in order; they are shrunk, and none is kept.
        check: is called for each; what it raises ends this.
    """
    changes, before = [0.0], None
    for image in images:
        check()
        counts = _colour_counts(image)
        if before is not None:
            changes.append(float(np.abs(counts - before).sum()) / 2)
        before = counts
    found = []
    for t in range(1, len(changes)):
        around = changes[max(1, t - NEIGHBOURS) : t] + changes[t + 1 : t + 1 + NEIGHBOURS]
        usual = float(np.median(around)) if around else 0.0
        if changes[t] >= max(LEAST_CHANGE, TIMES_USUAL * usual):
            found.append(t)
    return found


def _colour_counts(image: RGBImage) -> npt.NDArray[np.float64]:
    """How the pixels of a small copy are spread over `BINS`³ colours; sums to 1."""
    small = cv2.resize(image, SMALL, interpolation=cv2.INTER_AREA).astype(np.int64) * BINS // 256
    bins = (small[..., 0] * BINS + small[..., 1]) * BINS + small[..., 2]
    return np.bincount(bins.ravel(), minlength=BINS**3) / bins.size


def read_cuts(folder: Path) -> list[int] | None:
    """What was found before; None: nobody looked yet."""
    path = folder / CUTS_NAME
    if not path.is_file():
        return None
    cuts: list[int] = json.loads(path.read_text(encoding="ascii"))
    return cuts


def write_cuts(folder: Path, cuts: list[int]) -> None:
    """Keep what was found, for `read_cuts`."""
    partial = folder / f".{CUTS_NAME}"
    partial.write_text(json.dumps(cuts), encoding="ascii")
    partial.replace(folder / CUTS_NAME)
