"""Which video of a run is which of a truth, and how all of them are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from grounded_sam2.score.compare import ClassBy, Comparison, compare, compared_by
from grounded_sam2.score.formats import Videos
from grounded_sam2.score.video import Video, held_video

__all__ = ["common_classes", "compare_all", "paired"]

Opener = Callable[[], Video]


def paired(run: Videos, truth: Videos, names: Sequence[str] | None = None) -> dict[str, tuple[Opener, Opener]]:
    """Name → opens the run's video, and the truth's.

    One video on each side is a pair whatever it is called; several go by name, or by id where both are YouTube-VIS.

    Args:
        names: of the truth's videos that are compared; None: all.

    Raises:
        ValueError: a video has no partner.
    """
    found = dict(run.openers)
    if run.ids and truth.ids:
        found = {truth.ids.get(video_id, name): run.openers[name] for video_id, name in run.ids.items()}
    wanted = list(truth.openers) if names is None else list(names)
    if len(found) == len(truth.openers) == 1:
        found = dict(zip(truth.openers, found.values(), strict=True))
    for name in wanted:
        if name not in truth.openers:
            raise ValueError(f"{truth.path} has no video {name!r}, expected of {', '.join(truth.openers)}")
        if name not in found and not run.is_open_ended:
            raise ValueError(f"{run.path} has no video {name!r} of its truth, it has {', '.join(found) or 'none'}")
    more = [name for name in found if name not in truth.openers]
    if names is None and more:
        raise ValueError(f"{run.path} has video {more[0]!r}, its truth has not (--videos names what is compared)")
    return {name: (found.get(name, _nothing_found), truth.openers[name]) for name in wanted}


def _nothing_found() -> Video:
    return held_video("a video without results", None, {}, lists_frames=False)


def common_classes(run: Video, truth: Video) -> ClassBy:
    """By what the classes of both can be compared: by their names, or else by their numbers.

    Raises:
        ValueError: by neither.
    """
    if run.has_names and truth.has_names:
        return "names"
    if run.has_numbers and truth.has_numbers:
        return "numbers"
    raise ValueError(f"{run.origin} and {truth.origin} have no classes in common: neither names nor numbers")


def compare_all(
    pairs: dict[str, tuple[Opener, Opener]],
    by_class: bool = False,
    by_mask: bool | None = None,
    threshold: float = 0.5,
    is_sparse: bool = False,
) -> tuple[dict[str, dict[str, Comparison]], bool]:
    """Compare videos one after another.

    Args:
        pairs: see `paired`.
        by_class: whether only objects of one class are compared with each other.
        by_mask, threshold, is_sparse: see `compare`; None compares masks if all videos have them.

    Returns:
        Video → class → what was counted, and whether masks were compared.

    Raises:
        ValueError: two videos do not fit together, or a file is damaged.
        OSError: a file cannot be read.
    """
    if by_mask is None and len(pairs) > 1:  # those of one kind only add up
        by_mask = all(compared_by(open_truth(), open_run()) for open_run, open_truth in pairs.values())
    compared = {}
    for name, (open_run, open_truth) in pairs.items():
        run, truth = open_run(), open_truth()
        by_mask = compared_by(truth, run) if by_mask is None else by_mask
        class_by = common_classes(run, truth) if by_class else None
        compared[name] = compare(truth, run, class_by, by_mask, threshold, is_sparse)
    return compared, bool(by_mask)
