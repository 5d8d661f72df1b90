"""A session is made of a video."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from grounded_sam2.session.folder import FORMAT_VERSION, write_record
from grounded_sam2.session.session import Session
from grounded_sam2.session.source import SourceLimits, check_images, open_source, take_source
from grounded_sam2.track.follower import Follower
from sam2.shown import visible

if TYPE_CHECKING:
    from sam2.sam2_video_predictor import SAM2VideoPredictor

__all__ = ["create_session"]


def create_session(
    folder: str | os.PathLike[str],
    source: str | os.PathLike[str],
    follower: Follower | SAM2VideoPredictor | None = None,
    *,
    name: str | None = None,
    fps: float = 30.0,
    copy: bool = True,
    limits: SourceLimits | None = None,
) -> Session:
    """Make a session of a video; the folder is there as a whole or not at all.

    A kill leaves what was copied so far in a hidden folder beside it, `.<name>.<random>`, which may be removed.

    Args:
        folder: of the session; it must not be there.
        source: a video file, a folder of images, one image or a zip of images; see `take_source`.
        follower: the model, a `Follower` or a SAM 2 video predictor; None for what needs no model.
        name: of the video, for people; None takes the source's.
        fps: frames per second of images.
        copy: False leaves the video where it is; such a session cannot be moved to another machine.
        limits: what the source may have; None: the defaults of `SourceLimits`.

    Raises:
        FileExistsError: the folder is there.
        FileNotFoundError, ValueError, OSError: as `take_source` and `Session`.
    """
    target = Path(folder)
    if target.exists():
        raise FileExistsError(f"cannot make a session in {target}: it is there already; open it with open_session(...)")
    target.parent.mkdir(parents=True, exist_ok=True)
    limits = limits or SourceLimits()
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    (partial / "source").mkdir(parents=True)
    try:
        path = take_source(source, partial / "source", limits, copy)
        with _named(path, source), open_source(path, fps, limits) as frames:
            check_images(frames)
            record = {
                "format_version": FORMAT_VERSION,
                "name": visible(name or Path(source).name) or "video",
                "source": path.relative_to(partial).as_posix() if path.is_relative_to(partial) else os.fspath(path),
                "fps": fps,
                "num_frames": frames.num_frames,
                "width": frames.width,
                "height": frames.height,
                "history": "history-00000000",
            }
        (partial / "history-00000000").mkdir()
        write_record(partial, record)
        os.rename(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return Session(target, follower)


@contextmanager
def _named(path: Path, source: str | os.PathLike[str]) -> Iterator[None]:
    """Let an error about the copy of a source name the source."""
    try:
        yield
    except ValueError as error:
        raise ValueError(str(error).replace(str(path), os.fspath(source))) from error
