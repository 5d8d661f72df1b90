"""Which format a file or folder has, and the videos in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from grounded_sam2 import plain_json
from grounded_sam2.score.davis import read_davis
from grounded_sam2.score.lines import read_lines
from grounded_sam2.score.mot import read_mot
from grounded_sam2.score.mots import read_mots
from grounded_sam2.score.video import Video
from grounded_sam2.score.youtube_vis import read_youtube_vis
from sam2.frames.still_image import check_regular_file

__all__ = ["FORMATS", "Videos", "open_videos"]

FORMATS = ("jsonl", "mot", "mots", "davis", "youtube_vis")
_SUFFIXES = {"jsonl": ".jsonl", "mot": ".txt", "mots": ".txt"}
_HEAD = 65536  # bytes of a file by which its format is told
_FIRST_FRAME = {"mot": 1, "mots": 0}


@dataclass(frozen=True)
class Videos:
    """The videos of a file or folder.

    Attributes:
        path: of it.
        format: one of `FORMATS`.
        openers: name → reads the video.
        ids: id → name, of YouTube-VIS.
        is_open_ended: whether videos in which nothing was found are not among them.
    """

    path: Path
    format: str
    openers: Mapping[str, Callable[[], Video]]
    ids: Mapping[int, str] = field(default_factory=dict)
    is_open_ended: bool = False


def open_videos(
    path: Path,
    format: str | None = None,
    is_truth: bool = False,
    first_frame: int | None = None,
    benchmark: str | None = None,
) -> Videos:
    """Find the videos of a file or folder: a video is a file of lines or of rows, or a folder of images, called so.

    A folder may also be laid out as MOTChallenge's truth is, `<name>/gt/gt.txt`.

    Args:
        path: a file, or a folder with one video or several.
        format: one of `FORMATS`; None: told by the content.
        is_truth: what marks, void pixels and regions of a truth mean is heeded.
        first_frame: what MOT and MOTS call the first frame; None: 1 in MOT, 0 in MOTS.
        benchmark: see `read_mot`.

    Raises:
        FileNotFoundError: no such path.
        ValueError: no format is recognised, or several.
        OSError: it cannot be read.
    """
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path}")
    found = {name: (file, format or _format_of(file)) for name, file in _files(path, format)}
    formats = {kind for _, kind in found.values() if kind is not None}
    if len(formats) != 1:
        told = f"are of {' and '.join(sorted(formats))}" if formats else f"have none of {', '.join(FORMATS)}"
        raise ValueError(f"{path}: expected one format, but its contents {told}; name it with a flag")
    [kind] = formats
    if kind == "youtube_vis":
        [(file, _)] = found.values()
        videos, names = read_youtube_vis(file)
        if len(set(names.values())) < len(names):
            names = {video_id: f"video {video_id}" for video_id in names}
        openers = {names[video_id]: partial(_given, video) for video_id, video in videos.items()}
        return Videos(
            path, kind, openers, names, is_open_ended=not any(video.lists_frames for video in videos.values())
        )
    start = _FIRST_FRAME.get(kind, 0) if first_frame is None else first_frame
    readers: dict[str, Callable[[Path], Video]] = {
        "jsonl": read_lines,
        "mot": partial(read_mot, is_truth=is_truth, benchmark=benchmark, first_frame=start),
        "mots": partial(read_mots, is_truth=is_truth, first_frame=start),
        "davis": partial(read_davis, is_truth=is_truth),
    }
    return Videos(path, kind, {name: partial(readers[kind], file) for name, (file, told) in found.items() if told})


def _given(video: Video) -> Video:
    return video


def _files(path: Path, format: str | None) -> Iterator[tuple[str, Path]]:
    """Name and place of what may be a video each."""
    if path.is_file() or not path.is_dir():
        check_regular_file(path, "the objects of a video")
        yield path.stem, path
        return
    if any(_is_image(inner) for inner in path.iterdir()):
        yield path.name, path
        return
    for inner in sorted(path.iterdir()):
        gt = inner / "gt" / "gt.txt"
        if gt.is_file():
            yield inner.name, gt
        elif inner.is_dir():
            if any(_is_image(image) for image in inner.iterdir()):
                yield inner.name, inner
        elif inner.suffix in ((_SUFFIXES.get(format, ""),) if format else (".jsonl", ".txt")):
            yield inner.stem, inner


def _is_image(path: Path) -> bool:
    return path.suffix.lower() == ".png"


def _format_of(path: Path) -> str | None:
    """The format of a folder of images or of a file by how it begins; None where it is no format of ours."""
    if path.is_dir():
        return "davis"
    with path.open("rb") as file:
        head = file.read(_HEAD)
    line = next((line.strip() for line in head.splitlines() if line.strip()), b"")
    if not line:
        return "mot" if path.suffix == ".txt" else None  # of a run that found nothing
    if line[:1] in b"{[":
        return _json_format(path)
    if line.count(b",") >= 5 and _are_numbers(line.split(b",")):
        return "mot"
    return "mots" if len(line.split()) == 6 and _are_numbers(line.split()[:5]) else None


def _json_format(path: Path) -> str | None:
    with path.open("rb") as lines:
        first = lines.readline()
    try:
        entry = plain_json.loads(first)
    except ValueError:
        return "youtube_vis"  # JSON that goes on, written for people to read
    if isinstance(entry, dict) and ("format_version" in entry or "box_format" in entry):
        return "jsonl"
    is_tracks = isinstance(entry, list) or (isinstance(entry, dict) and {"videos", "annotations"} <= entry.keys())
    return "youtube_vis" if is_tracks else None


def _are_numbers(words: list[bytes]) -> bool:
    try:
        return bool([float(word) for word in words])
    except ValueError:
        return False
