"""A DAVIS folder as a video to be scored: an image a frame, whose pixels are ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from grounded_sam2.score.video import NOBODY, FrameObjects, Rle, Video, compressed
from sam2.frames.still_image import check_regular_file

__all__ = ["read_davis"]

VOID = 255  # of a truth: pixels of which nobody knows whose they are


def read_davis(folder: Path, is_truth: bool = False) -> Video:
    """A folder of PNG files with palette or grey; a file is read when it is its turn.

    A frame's index is the number that its file is called by ("00007.png"), or, where a name is no number, its position
    in the order of names.

    Args:
        is_truth: whether 255 stands for pixels that belong to nobody, in truth and run.

    Raises:
        ValueError: no images, an image of another kind or size, or two of one number.
        OSError: a file cannot be read.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".png")
    if not paths:
        raise ValueError(f"{folder} holds no PNG images")
    are_numbers = all(path.stem.isdecimal() for path in paths)
    files = {int(path.stem) if are_numbers else position: path for position, path in enumerate(paths)}
    if len(files) < len(paths):
        raise ValueError(f"{folder}: expected a number once, got {len(paths)} images of {len(files)} numbers")
    with PILImage.open(paths[0]) as image:
        size = image.size

    def frames(wanted: Sequence[int]) -> Iterator[FrameObjects]:
        for frame_idx in wanted:
            yield _objects(_ids(files[frame_idx], size), is_truth) if frame_idx in files else NOBODY

    return Video(str(folder), size, tuple(sorted(files)), True, True, False, False, frames)


def _ids(path: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """(H, W) uint8 of an image."""
    check_regular_file(path, "an image of ids")
    try:
        with PILImage.open(path) as image:
            if image.size != size:
                raise ValueError(f"it is {image.size[0]}x{image.size[1]}, expected {size[0]}x{size[1]} as before")
            if image.mode not in ("P", "L", "1"):
                raise ValueError(f"expected a palette or grey, got {image.mode}")
            return np.array(image).astype(np.uint8)
    except (ValueError, SyntaxError, OSError) as error:
        raise ValueError(f"{path} is no image of ids: {error}") from error


def _objects(ids: npt.NDArray[np.uint8], is_truth: bool) -> FrameObjects:
    masks = encoded_ids(ids)
    void = masks.pop(VOID, None) if is_truth else None
    return FrameObjects.of(list(masks), masks=list(masks.values()), void=void)


def encoded_ids(ids: npt.NDArray[np.uint8]) -> dict[int, Rle]:
    """The encoded mask of each id but 0 of a map (H, W), in their order; the map is gone through once."""
    height, width = ids.shape
    flat = np.ascontiguousarray(ids.T).ravel()  # masks are encoded column by column
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    stops = np.append(starts[1:], len(flat))
    owners = flat[starts]
    masks = {}
    for obj_id in np.unique(owners[owners > 0]).tolist():
        own = owners == obj_id
        edges = np.stack([starts[own], stops[own]], axis=1).ravel()
        counts = np.diff(np.concatenate([[0], edges, [len(flat)]]))
        masks[obj_id] = compressed(counts.tolist(), height, width)
    return masks
