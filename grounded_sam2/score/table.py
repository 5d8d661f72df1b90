"""Scores of several videos and classes: put together, as a table for people, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from grounded_sam2 import plain_json
from grounded_sam2.files import check_writable, replacing
from grounded_sam2.score.compare import Comparison, Scores
from sam2.shown import shown

__all__ = ["class_scores", "overall_scores", "table", "write_scores"]

KIND = "grounded_sam2.score"  # by which a file of scores is known
COLUMNS = (
    "HOTA", "DetA", "AssA", "LocA", "MOTA", "IDF1", "IDP", "IDR", "IDSW", "Frag", "J&F", "J", "F", "AP", "track AP",
)  # fmt: skip

Compared = Mapping[str, Mapping[str, Comparison]]  # video → class → what was counted


def video_scores(compared: Compared) -> dict[str, dict[str, Scores]]:
    """The scores of each class of each video."""
    return {
        video: {name: part.scores() for name, part in sorted(of_video.items())} for video, of_video in compared.items()
    }


def class_scores(compared: Compared) -> dict[str, Scores]:
    """The scores of each class over all videos, in the order of names."""
    names = sorted({name for of_video in compared.values() for name in of_video})
    return {
        name: reduce(add, [of_video[name] for of_video in compared.values() if name in of_video]).scores()
        for name in names
    }


def overall_scores(compared: Compared) -> Scores:
    """The scores over all videos and classes: counts are added up, and average precision is the classes' mean."""
    every = [of_class for of_video in compared.values() for of_class in of_video.values()]
    if not every:
        return {}
    scores = reduce(add, every).scores()
    mean = mean_scores(list(class_scores(compared).values()))
    return scores | {name: mean[name] for name in scores if "AP" in name} | {"frames": _num_frames(compared)}


def mean_scores(of_classes: Sequence[Scores]) -> Scores:
    """The mean of each score over the classes that have it; counts are added up."""
    means: Scores = {}
    for name in of_classes[0]:
        values = [value for scores in of_classes if (value := scores[name]) is not None]
        is_count = any(isinstance(value, int) for value in values)
        means[name] = None if not values else sum(values) if is_count else sum(values) / len(values)
    return means


def _num_frames(compared: Compared) -> int:
    return sum(max((part.num_frames for part in of_video.values()), default=0) for of_video in compared.values())


def table(compared: Compared) -> str:
    """A line for each video and class, for each class, and for all of it; "-" where a score has no meaning."""
    classes = class_scores(compared)
    has_classes = list(classes) != [""]
    videos = video_scores(compared)
    rows = [((video, name), scores) for video, of_video in videos.items() for name, scores in of_video.items()]
    if len(compared) > 1 and has_classes:
        rows += [(("all videos", name), scores) for name, scores in classes.items()]
    if has_classes and len(classes) > 1:
        rows.append((("all videos", "mean of classes"), mean_scores(list(classes.values()))))
    if len(rows) != 1:
        rows.append((("all videos", "all classes" if has_classes else ""), overall_scores(compared)))
    lines = [["video", *(["class"] if has_classes else []), *COLUMNS]]
    for (video, name), scores in rows:
        names = [shown(video), shown(name)] if has_classes else [shown(video)]
        lines.append([*names, *(_cell(scores.get(key)) for key in COLUMNS)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    num_names = 2 if has_classes else 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < num_names else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cell(value: float | int | None) -> str:
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"


def write_scores(path: Path, about: Mapping[str, Any], compared: Compared) -> None:
    """Write all scores as JSON: by video and class, by class, and overall; see `write_json_of`."""
    entry = {"videos": video_scores(compared), "classes": class_scores(compared), "overall": overall_scores(compared)}
    write_json_of(path, {**about, **entry})


def write_json_of(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file of this command, in place of an earlier one of it; errors as of `check_own`."""
    check_own(path)
    text = json.dumps({"kind": KIND, **content}, indent=2, ensure_ascii=False) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_own(path: Path) -> None:
    """Make sure that a file of this command can be written, and that nothing else is lost by it.

    Raises:
        ValueError: something else is there.
        OSError: it cannot be written.
    """
    if check_writable(path).exists():
        try:
            content = plain_json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            content = None
        if not isinstance(content, dict) or content.get("kind") != KIND:
            raise ValueError(f"{path} is there and holds no scores of an earlier run: name another file")
