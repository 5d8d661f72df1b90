"""MOTChallenge boxes as a video to be scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from grounded_sam2.score.text_rows import frame_index, read_rows
from grounded_sam2.score.video import ASIDE, COUNTS, DISTRACTOR, FrameObjects, Video, held_video

__all__ = ["BENCHMARKS", "read_mot"]

PEDESTRIAN = 1  # the class that the benchmarks score
# benchmark → classes on which nothing that is found is wrong: people on vehicles, static people, distractors,
# reflections; in MOT20 also vehicles without a motor
BENCHMARKS = {"MOT16": (2, 7, 8, 12), "MOT17": (2, 7, 8, 12), "MOT20": (2, 6, 7, 8, 12)}
NO_CLASS = -1.0


def read_mot(path: Path, is_truth: bool = False, benchmark: str | None = None, first_frame: int = 1) -> Video:
    """Rows "frame,id,left,top,width,height,confidence,class,visibility", of which the last three may be missing.

    Ten columns are those of the first MOTChallenge, which has no classes.

    Args:
        is_truth: whether the confidence is a mark instead, 0 for what does not count.
        benchmark: one of `BENCHMARKS`: of a truth only class 1 counts, and what matches a distractor does not.
        first_frame: what the first frame is called.

    Raises:
        ValueError: a row of another kind.
        OSError: the file cannot be read.
    """
    rows: dict[int, list[list[float]]] = {}
    for origin, words in read_rows(path, ","):
        frame_idx = frame_index(words[0], first_frame, origin)
        rows.setdefault(frame_idx, []).append(_row(words, origin))
    objects = {}
    for frame_idx, of_frame in rows.items():
        ids, left, top, width, height, confidence, classes = np.array(of_frame).T
        try:
            objects[frame_idx] = FrameObjects.of(
                ids.astype(np.int64),
                boxes=np.stack([left, top, left + width, top + height], axis=1),
                scores=confidence,
                numbers=classes.astype(np.int64) if (classes >= 1).all() else None,
                roles=_roles(confidence, classes, benchmark) if is_truth else None,
            )
        except ValueError as error:
            raise ValueError(f"{path}, frame {frame_idx + first_frame}: {error}") from error
    return held_video(str(path), None, objects, lists_frames=False)


def _row(words: list[str], origin: str) -> list[float]:
    """Id, left, top, width, height, confidence, class; NaN and -1 where the last two are missing."""
    try:
        numbers = [float(word) for word in words]
        if len(numbers) < 6 or numbers[1] != int(numbers[1]) or not np.isfinite(numbers).all():
            raise ValueError
    except (ValueError, OverflowError):
        raise ValueError(f"{origin}: expected frame,id,left,top,width,height,… got {','.join(words)!r}") from None
    confidence = numbers[6] if len(numbers) > 6 else np.nan
    return [*numbers[1:6], confidence, numbers[7] if len(numbers) in (8, 9) else NO_CLASS]


def _roles(
    marks: npt.NDArray[np.float64], classes: npt.NDArray[np.float64], benchmark: str | None
) -> npt.NDArray[np.int8]:
    roles = np.where(marks == 0, ASIDE, COUNTS)
    if benchmark is not None:
        roles[classes != PEDESTRIAN] = ASIDE
        roles[np.isin(classes, BENCHMARKS[benchmark])] = DISTRACTOR
    return roles.astype(np.int8)
