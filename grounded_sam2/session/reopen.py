"""The session of a video as a script wants it: made at the first run, opened again at the next."""

from __future__ import annotations

import os
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from grounded_sam2.images import RGBImage
from grounded_sam2.session.create import create_session
from grounded_sam2.session.session import Session, open_session
from grounded_sam2.track.follower import Follower
from grounded_sam2.video import VideoWriter, open_frames
from grounded_sam2.weights.transfer import download_url
from sam2.shown import file_stem

if TYPE_CHECKING:
    from sam2.sam2_video_predictor import SAM2VideoPredictor

__all__ = ["open_or_create", "video_name"]


def video_name(source: str | os.PathLike[str]) -> str:
    """The last part of a path, or of an address without what it asks for and without secrets: "clip.mp4"."""
    text = os.fspath(source)
    if "://" not in text:
        return Path(os.path.abspath(text)).name or "video"
    suffix = Path(urllib.parse.urlsplit(text).path).suffix
    return file_stem(text) + (suffix if suffix[1:].isalnum() else "")


def open_or_create(
    folder: str | os.PathLike[str],
    source: str | os.PathLike[str],
    follower: Follower | SAM2VideoPredictor | None = None,
    *,
    resume: bool = False,
    watch: Callable[[RGBImage], bool] | None = None,
) -> Session:
    """Make a session of a video, or go on with the one that is there.

    Args:
        folder: of the session.
        source: as `create_session`; or the http or https address of a video file, which is fetched; or a camera or live
            stream, see `open_frames`, which is recorded.
        follower: as `create_session`.
        resume: go on with the session where there is one.
        watch: is shown each frame (H, W, 3) RGB that is recorded, and says whether to record another one.

    Raises:
        FileExistsError: there is a session, and it is not to be gone on with.
        ValueError: the session there is of another video; a camera or live stream that nobody watches; or as
            `create_session`.
        OSError: as `create_session`, or the address cannot be read.
    """
    folder = Path(folder)
    if folder.exists():
        if not resume:
            raise FileExistsError(f"{folder} holds a session: --resume goes on with it, or choose another --output-dir")
        session = open_session(folder, follower)
        if session.name != video_name(source):
            session.close()
            raise ValueError(f"the session in {folder} is of {session.name}, not of {source}")
        return session
    with _at_hand(source, watch) as path:
        return create_session(folder, path, follower, name=video_name(source))


@contextmanager
def _at_hand(
    source: str | os.PathLike[str], watch: Callable[[RGBImage], bool] | None
) -> Iterator[str | os.PathLike[str]]:
    """A path to read a source from; what is fetched or recorded is in a folder that goes afterwards."""
    text = os.fspath(source)
    is_elsewhere = "://" in text or text.isdecimal() or text == "realsense"
    if Path(text).exists() or not is_elsewhere:
        yield source
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / video_name(text)
        if text.startswith(("http://", "https://")):
            download_url(text, path, cure="name another video with --video-path")
        else:
            path = path.with_suffix(".mp4")
            _record(text, path, watch)
        yield path


def _record(source: str, path: Path, watch: Callable[[RGBImage], bool] | None) -> None:
    """Write what a camera or live stream gives, as long as it is wanted, or until it ends."""
    if watch is None:
        raise ValueError(f"{source} cannot be gone back in, as an editing session has to: record it as a file first")
    with open_frames(source) as frames, VideoWriter(path, frames.fps, frames.size, like=frames) as writer:
        for image in frames:
            writer.write(image)
            if not watch(image):
                break
