"""The video of a session: a video file, a folder of images, or a zip of images, copied into the session's folder.

It is copied, so that the folder can be moved to another machine as it is, unless `copy=False` refers to a video file or
a folder of images where it lies. A zip may come from anybody: nothing of it is believed, and what is unpacked is only
images, under their last names, into one new folder.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image as PILImage

from grounded_sam2.images import IMAGE_SUFFIXES
from grounded_sam2.video import open_indexed_frames
from grounded_sam2.video.frame_source import FrameSource, IndexedFrameSource
from sam2.frames import images_in
from sam2.frames.first_look import first_look
from sam2.frames.still_image import check_regular_file

__all__ = ["SourceLimits", "check_images", "open_source", "take_source"]

BLOCK_BYTES = 2**20
EXIF_ORIENTATION = 0x0112  # from 5 on, width and height are exchanged
# How the files begin that tell FFmpeg to open others: playlists and descriptions of streams.
PLAYLISTS = (b"#extm3u", b"ffconcat", b"<?xml", b"<mpd", b"<smil", b"v=0", b"[playlist]", b"rtsptext", b"[reference]")


@dataclass(frozen=True)
class SourceLimits:
    """What a source may have; more is refused with one clear sentence, and nothing is left behind.

    Attributes:
        max_files: entries of a zip, or images of a folder.
        max_bytes: of a video, or of all images together, unpacked.
        max_ratio: of bytes unpacked to bytes packed in a zip; images that are worth showing hardly shrink.
        max_frames: of the video.
        max_side: width and height of its frames in pixels.
        look_seconds: that opening it for the first time may take, in a process of its own, see
            `sam2.frames.first_look`; None: it comes from somebody who is trusted, and is opened here at once.
        look_bytes: of memory that this may take.
    """

    max_files: int = 100_000
    max_bytes: int = 16 * 2**30
    max_ratio: float = 100.0
    max_frames: int = 1_000_000
    max_side: int = 8192
    look_seconds: float | None = None
    look_bytes: int = 4 * 2**30


def take_source(source: str | os.PathLike[str], folder: Path, limits: SourceLimits, copy: bool = True) -> Path:
    """Bring a video into a folder.

    Args:
        source: a video file, a folder of images, one image, or a zip of the images of one folder.
        folder: where it is copied to; it is there, and empty.
        limits: what it may have.
        copy: False refers to the source where it is; a zip is unpacked all the same.

    Returns:
        What `open_source` opens: a path within `folder`, or with `copy=False` an absolute one elsewhere.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such source, or has more than the limits allow. The message names it.
        OSError: a full disk.
    """
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"no such video, zip or folder: {os.fspath(source)!r}")
    if path.is_dir():
        images = images_in(path)
        _check_amount(path, len(images), sum(image.stat().st_size for image in images), limits)
        if not copy:
            return path.resolve()
        (folder / "frames").mkdir()
        for image in images:
            shutil.copyfile(image, folder / "frames" / image.name)
        return folder / "frames"
    check_regular_file(path, "a video file or a zip")
    if _begins_as_zip(path):
        (folder / "frames").mkdir()
        unpack_images(path, folder / "frames", limits)
        return folder / "frames"
    _check_amount(path, 1, path.stat().st_size, limits)
    _refuse_playlist(path)
    if not copy:
        return path.resolve()
    suffix = path.suffix.lower()
    copied = folder / ("video" + (suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else ""))
    shutil.copyfile(path, copied)
    return copied


def open_source(path: Path, fps: float, limits: SourceLimits) -> IndexedFrameSource:
    """Open what `take_source` gave.

    Args:
        path: of the video or folder.
        fps: frames per second of images.
        limits: what it may have; also, whether it is opened elsewhere first.

    Raises:
        FileNotFoundError: it is gone.
        ValueError: it holds no frames that can be read, or more than the limits allow.
    """
    if limits.look_seconds is not None:
        first_look(path, limits.look_seconds, limits.look_bytes)
    frames = open_indexed_frames(path, fps)
    if max(frames.size) > limits.max_side:
        width, height = frames.size
        raise ValueError(f"{path} has frames of {width}x{height} pixels, expected at most {limits.max_side} a side")
    if len(frames) > limits.max_frames:
        raise ValueError(f"{path} has {len(frames)} frames, expected at most {limits.max_frames}")
    return frames


def check_images(frames: FrameSource) -> None:
    """Look at the header of every image of a folder, so that none of another size comes up in the middle of work.

    Raises:
        ValueError: one is no image, or of another size than the first.
    """
    for frame_idx in range(frames.num_frames or 0):
        path = frames.image_path(frame_idx)
        if path is None:
            return
        try:
            with PILImage.open(path) as picture:
                is_turned = picture.getexif().get(EXIF_ORIENTATION, 1) >= 5
                size = picture.size[::-1] if is_turned else picture.size
        except Exception as error:  # decoders of damaged files raise nearly everything
            raise ValueError(f"{path} is not an image that can be read") from error
        if size != frames.size:
            expected = "x".join(map(str, frames.size))
            raise ValueError(f"{path}: expected {expected} pixels, as the first image has, got {size[0]}x{size[1]}")


def unpack_images(path: Path, folder: Path, limits: SourceLimits) -> None:
    """Unpack the images of a zip, and nothing else of it; see `take_source` for the errors.

    Hidden files, and those that macOS adds, are passed over, and so is whatever is no image. An entry that leads out of
    the folder, a link, an encrypted entry, two images of one name and images of two folders are refused.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(entries) > limits.max_files:
                raise ValueError(f"{path.name} has {len(entries)} entries, expected at most {limits.max_files}")
            packed_bytes = path.stat().st_size
            left = int(min(limits.max_bytes, limits.max_ratio * packed_bytes))
            names = _image_names(path, entries)
            for entry, name in names.items():
                left = _unpack(archive, entry, folder / name, left, f"{path.name}: {entry.filename!r}")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeError) as error:
        raise ValueError(f"{path.name} is a damaged zip: {' '.join(str(error).split())}") from error
    if not names:
        raise ValueError(f"{path.name} holds no images: expected {', '.join(sorted(IMAGE_SUFFIXES))}")


def _image_names(path: Path, entries: list[zipfile.ZipInfo]) -> dict[zipfile.ZipInfo, str]:
    """The entries that are images, and what they are called in the new folder."""
    names: dict[zipfile.ZipInfo, str] = {}
    folders: set[str] = set()
    for entry in entries:
        where = f"{path.name}: {entry.filename!r}"
        place = PurePosixPath(entry.filename.replace("\\", "/"))
        if place.is_absolute() or ".." in place.parts or ":" in entry.filename or "\0" in entry.orig_filename:
            raise ValueError(f"{where} leads out of the folder that it is unpacked to")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise ValueError(f"{where} is a link or a device, expected files")
        if any(part.startswith(".") or part == "__MACOSX" for part in place.parts):
            continue
        if place.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if entry.flag_bits & 1:
            raise ValueError(f"{where} is encrypted")
        names[entry] = place.name
        folders.add(str(place.parent))
    if len(folders) > 1:
        raise ValueError(f"{path.name} has images in {len(folders)} folders, expected one video, in one folder")
    if len({name.lower() for name in names.values()}) < len(names):
        raise ValueError(f"{path.name} has two images of one name")
    return names


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, left: int, where: str) -> int:
    """Write one entry, of at most `left` bytes whatever its header says; returns how many bytes are left then."""
    with archive.open(entry) as packed, target.open("xb") as file:
        while block := packed.read(BLOCK_BYTES):
            left -= len(block)
            if left < 0:
                raise ValueError(
                    f"{where} does not fit: all images together have too many bytes, or too many for the zip"
                )
            file.write(block)
    return left


def _check_amount(path: Path, num_files: int, num_bytes: int, limits: SourceLimits) -> None:
    if num_files > limits.max_files:
        raise ValueError(f"{path.name} has {num_files} images, expected at most {limits.max_files}")
    if num_bytes > limits.max_bytes:
        raise ValueError(f"{path.name} has {num_bytes} bytes, expected at most {limits.max_bytes}")


def _begins_as_zip(path: Path) -> bool:
    """Whether a file is a zip from its first byte on; a video with a zip behind it is a video."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\3\4", b"PK\5\6")


def _refuse_playlist(path: Path) -> None:
    """Refuse a file that would make the decoder open other files or addresses."""
    with path.open("rb") as file:
        head = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(PLAYLISTS):
        raise ValueError(f"{path.name} is a list of other files, expected a video")
