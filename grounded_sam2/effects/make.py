"""Files of a tracked video's pictures: each is there as a whole, or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Container, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from grounded_sam2.effects.alpha_video import AlphaVideoWriter
from grounded_sam2.effects.animations import AnimationLimits, GifWriter, WebpWriter
from grounded_sam2.effects.audit import AuditLog
from grounded_sam2.effects.effect import Effect, Picture, changed_frames
from grounded_sam2.effects.stills import PngZip
from grounded_sam2.effects.tracks import TrackedVideo
from grounded_sam2.files import check_writable, replace_file, writing_to
from grounded_sam2.video import VideoWriter
from grounded_sam2.video.timing import frame_times

__all__ = ["FORMATS", "OutputSettings", "make_effect", "make_pictures", "working_folder"]

# format → the suffix of its files
FORMATS = {"mp4": ".mp4", "webm": ".webm", "prores": ".mov", "png": ".zip", "gif": ".gif", "webp": ".webp"}
ALPHA_ONLY, OPAQUE_ONLY = frozenset({"webm", "prores"}), frozenset({"mp4"})


@dataclass(frozen=True)
class OutputSettings:
    """How pictures are written.

    Attributes:
        format: one of `FORMATS`: "mp4" (H.264), of cut-outs "webm" (VP9) or "prores" (ProRes 4444), "png" (a zip of one
            picture a frame), "gif", "webp" (animated).
        keep_sound: whether an MP4 gets the sound of the video.
        limits: to the size of a GIF or WebP.

    Raises:
        ValueError: another format, or sound where there can be none.
    """

    format: str = "mp4"
    keep_sound: bool = False
    limits: AnimationLimits = field(default_factory=AnimationLimits)

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {self.format!r}")
        if self.keep_sound and self.format != "mp4":
            raise ValueError(f"sound can be kept in mp4 only, not in {self.format}")

    def check(self, has_alpha: bool) -> None:
        """ValueError where the format cannot hold pictures with transparency, or only those."""
        if has_alpha and self.format in OPAQUE_ONLY:
            others = ", ".join(name for name in FORMATS if name not in OPAQUE_ONLY)
            raise ValueError(f"{self.format} has no transparency: choose one of {others}")
        if not has_alpha and self.format in ALPHA_ONLY:
            raise ValueError(f"{self.format} is for cut-outs: choose mp4, png, gif or webp")

    def to_entry(self) -> dict[str, Any]:
        """What a log says of it."""
        entry: dict[str, Any] = {"format": self.format, "keep_sound": self.keep_sound}
        return entry | (asdict(self.limits) if self.format in ("gif", "webp") else {})


def make_effect(
    video: TrackedVideo,
    effect: Effect,
    path: str | os.PathLike[str],
    settings: OutputSettings | None = None,
    log_path: str | os.PathLike[str] | None = None,
    source_name: str | None = None,
) -> Generator[tuple[int, int]]:
    """Write a video under an effect, and the log of what was changed; what stood there before is replaced.

    Both are made in a hidden folder beside `path` and moved to their places when they are complete, the log first.
    Closing the iterator early, or an error, leaves nothing of them; a kill leaves the hidden folder.

        for num_done, num_total in make_effect(video, Effect("blur", video.choose("person")), "out.mp4"):
            ...

    Args:
        path: of the result.
        settings: how it is written; None: an MP4 without sound.
        log_path: of the log, see `AuditLog`, on the same disk; None: no log.
        source_name: what the log calls the video; None: as it was opened.

    Yields:
        How many frames of how many are done; the last time, with both equal, when the files are there.

    Raises:
        ValueError: the format cannot hold it, an object is not in the video, or `path` is an input.
        OSError: it cannot be written.
    """
    path, settings = Path(path), settings or OutputSettings()
    settings.check(has_alpha=effect.kind == "cutout")
    video.check_ids(effect.obj_ids)
    if log_path is None:
        yield from make_pictures(video, partial(changed_frames, video, effect), path, settings)
        return
    with working_folder(path) as folder:
        log_target, unfinished = check_writable(log_path), folder / "log.json"
        output = {"name": path.name, **settings.to_entry()}
        yield 0, len(video.frames)
        with AuditLog(unfinished, video, effect, output, source_name) as log:

            def logged(wanted: Container[int] | None) -> Iterator[Picture]:
                for picture in changed_frames(video, effect, wanted):
                    log.add(picture)
                    yield picture

            for num_done, num_total in make_pictures(video, logged, folder / path.name, settings):
                if num_done < num_total:
                    yield num_done, num_total
        with writing_to(path):
            replace_file(unfinished, log_target)
            replace_file(folder / path.name, check_writable(path))
    yield len(video.frames), len(video.frames)


def make_pictures(
    video: TrackedVideo,
    pictures: Callable[[Container[int] | None], Iterable[Picture]],
    path: str | os.PathLike[str],
    settings: OutputSettings,
) -> Generator[tuple[int, int]]:
    """Write pictures of a video as a file; see `make_effect`.

    Args:
        pictures: gives those of the wanted frames, in order; None: of all.
    """
    path = Path(path)
    with working_folder(path) as folder:
        yield 0, len(video.frames)
        for picture in _write_pictures(video, pictures, folder / path.name, settings):
            yield picture.frame_idx, len(video.frames)
        with writing_to(path):
            replace_file(folder / path.name, check_writable(path))
    yield len(video.frames), len(video.frames)


def _write_pictures(
    video: TrackedVideo,
    pictures: Callable[[Container[int] | None], Iterable[Picture]],
    path: Path,
    settings: OutputSettings,
) -> Iterator[Picture]:
    """Write a file picture by picture; it is complete when the iterator has ended. Gives what was written."""
    frames = video.frames
    with ExitStack() as stack, writing_to(path):
        if settings.format == "mp4":
            mp4 = stack.enter_context(
                VideoWriter(path, frames.fps, frames.size, like=frames, with_sound=settings.keep_sound)
            )
            for picture in pictures(None):
                mp4.write(picture.image)
                yield picture
            return
        times = frame_times(frames, frames.fps)
        writer: PngZip | AlphaVideoWriter | GifWriter | WebpWriter
        wanted: Container[int] | None = None
        if settings.format == "png":
            writer = PngZip(path)
        elif settings.format in ALPHA_ONLY:
            writer = AlphaVideoWriter(path, times, frames.size)
        else:
            animation = GifWriter if settings.format == "gif" else WebpWriter
            writer = animation(path, times, len(frames), frames.size, settings.limits)
            wanted = frozenset(writer.kept)
        stack.enter_context(writer)
        for picture in pictures(wanted):
            writer.write(picture.frame_idx, picture.image)
            yield picture


@contextmanager
def working_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new hidden folder beside a file that is to be made, which goes with all that is in it.

    Raises:
        ValueError: the file is an input.
        OSError: it cannot be written.
    """
    target = check_writable(path)
    folder = target.with_name(f".{target.stem}.{secrets.token_hex(4)}")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
