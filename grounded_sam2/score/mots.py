"""MOTS masks as a video to be scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from grounded_sam2.masks import check_rle
from grounded_sam2.score.text_rows import frame_index, read_rows
from grounded_sam2.score.video import COUNTS, REGION, FrameObjects, Video, held_video

__all__ = ["read_mots"]

REGION_CLASS, REGION_ID = 10, 10_000  # of a region in which nothing is annotated


def read_mots(path: Path, is_truth: bool = False, first_frame: int = 0) -> Video:
    """Rows "frame id class height width mask", the mask run-length encoded.

    Args:
        is_truth: whether class 10 with id 10000 is a region in which nothing is annotated.
        first_frame: what the first frame is called: 0 in our files and KITTI's, 1 in MOTSChallenge's.

    Raises:
        ValueError: a row of another kind, or masks of several sizes.
        OSError: the file cannot be read.
    """
    rows: dict[int, list[tuple[int, int, dict[str, Any]]]] = {}
    size: list[int] | None = None
    for origin, words in read_rows(path, None):
        frame_idx = frame_index(words[0], first_frame, origin)
        try:
            obj_id, category, height, width = map(int, words[1:5])
            [counts] = words[5:]
        except ValueError:
            raise ValueError(
                f"{origin}: expected frame, id, class, height, width, mask, got {len(words)} words"
            ) from None
        size = [height, width] if size is None else size
        if size != [height, width]:
            raise ValueError(f"{origin}: the mask is {width}x{height}, expected {size[1]}x{size[0]} as before")
        mask = {"size": size, "counts": counts}
        try:
            check_rle(mask, (height, width))
        except ValueError as error:
            raise ValueError(f"{origin}: {error}") from error
        rows.setdefault(frame_idx, []).append((obj_id, category, mask))
    objects = {}
    for frame_idx, of_frame in rows.items():
        ids, categories, masks = zip(*of_frame, strict=True)
        regions = [row[:2] == (REGION_ID, REGION_CLASS) and is_truth for row in of_frame]
        try:
            objects[frame_idx] = FrameObjects.of(
                ids,
                masks=masks,
                numbers=categories,
                roles=[REGION if is_region else COUNTS for is_region in regions],
            )
        except ValueError as error:
            raise ValueError(f"{path}, frame {frame_idx + first_frame}: {error}") from error
    return held_video(str(path), None if size is None else (size[1], size[0]), objects, lists_frames=False)
