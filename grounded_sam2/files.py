"""Output files that are either complete or not there at all."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import stat
import sys
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, ClassVar

__all__ = [
    "GrowingFile",
    "Inputs",
    "check_partial",
    "check_writable",
    "lock",
    "partial_of",
    "replace_file",
    "replacing",
    "temporary_beside",
    "writing_to",
]

logger = logging.getLogger(__name__)


class Inputs:
    """Files that are read, over which nothing in this process is written for as long as this object lives.

    A file is told by its place on the disk, so that no other path, link or spelling leads to it unnoticed.

    Args:
        paths: of files, and of folders for the files in them; whatever is neither is passed over.
    """

    _alive: ClassVar[weakref.WeakSet[Inputs]] = weakref.WeakSet()

    def __init__(self, *paths: str | os.PathLike[str]) -> None:
        self._places: set[tuple[int, int]] = set()
        for path in paths:
            files = list(Path(path).iterdir()) if Path(path).is_dir() else [path]
            self._places |= {place for file in files if (place := _place_of(file)) is not None}
        self._alive.add(self)

    @classmethod
    def refuse(cls, path: str | os.PathLike[str]) -> None:
        """ValueError where `path` is one of any inputs."""
        place = _place_of(path)
        if place is not None and any(place in inputs._places for inputs in cls._alive):
            raise ValueError(f"cannot write {path}: it is read as an input; choose another --output-dir")


def _place_of(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Device and number of what a path leads to; None where there is nothing."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Make sure that `path` can be written, creating its folder, before any long work starts.

    A file that exists must itself be writable: moving a new file over it would otherwise ignore its protection.

    Returns:
        The path with links followed, so that the file behind a link is replaced and not the link.

    Raises:
        OSError: the subclass that fits (`PermissionError`, `IsADirectoryError`, ...), its message naming `path` and
            the reason.
        ValueError: it is an input; see `Inputs`.
    """
    target = Path(os.path.realpath(path))
    Inputs.refuse(path)
    if target.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder, expected a file name")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(f"cannot write {path}: {error.strerror or error}") from error
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(f"cannot write {path}: no write permission in the folder {target.parent}")
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(f"cannot write {path}: the file exists and is write-protected")
    return target


def temporary_beside(target: Path) -> Path:
    """A hidden, unused file name in the folder of `target` (so that a rename suffices), with the same suffix."""
    return target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")


def partial_of(target: Path) -> Path:
    """Where a file is while it grows, for all to see and to read: `<stem>.partial<suffix>`."""
    return target.with_name(f"{target.stem}.partial{target.suffix}")


def check_partial(target: Path) -> None:
    """Make sure that the file in which `target` grows is no input and no pipe, which would be waited for.

    Raises:
        ValueError: it is.
    """
    partial = partial_of(target)
    Inputs.refuse(partial)
    if partial.exists() and stat.S_ISFIFO(partial.stat().st_mode):
        raise ValueError(f"cannot write {partial}: it is a pipe, expected a file")


def lock(file: BinaryIO, advice: str) -> None:
    """Lock an open file for this process, without waiting, until it is closed or the process ends, however it ends.

    Where the file system knows no locks, a warning says so and gives the advice.

    Args:
        file: is closed when another one has the lock.
        advice: what people should take care of themselves where nothing is locked.

    Raises:
        BlockingIOError: another process or open file has the lock.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(2**31 - 2)  # far behind the content, which can be read meanwhile
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the latter on Windows
        file.close()
        raise BlockingIOError(f"{file.name} is locked") from None
    except OSError as error:
        logger.warning("%s cannot be locked (%s): %s", file.name, error.strerror, advice)


@contextmanager
def writing_to(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let an OSError that names no file (a full disk) say which one could not be written."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or str(error).startswith("cannot write"):
            raise
        failure = type(error)(f"cannot write {path}: {error.strerror or error}")
        failure.errno = error.errno
        raise failure from error


def replace_file(temporary: Path, target: Path) -> None:
    """Move `temporary` over `target` in one step, keeping the access mode of a file that was there."""
    if target.exists():
        shutil.copymode(target, temporary)
    os.replace(temporary, target)


@contextmanager
def replacing(path: str | os.PathLike[str], temporary: Path | None = None) -> Iterator[Path]:
    """Write a file under a temporary name; it takes the place of `path` only once it is complete.

    Args:
        temporary: that name, in the same folder; None: one that nothing else has.

    Yields:
        The temporary path to write to. When the block ends well it is moved over `path`; when it raises, it is
        removed and what stood at `path` before stays as it was.

    Raises:
        OSError: `path` cannot be written; see `check_writable`.
    """
    target = check_writable(path)
    temporary = temporary or temporary_beside(target)
    try:
        with writing_to(path):
            yield temporary
            replace_file(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class GrowingFile:
    """A file of lines that grows as `<stem>.partial<suffix>` and takes its place once it is complete.

    Every line is given to the system at once, so that a crash of the program loses none. The file is opened by the
    first `append`; until then it can go on where an earlier run stopped.

    Args:
        path: of the complete file; missing folders are made.

    Attributes:
        num_bytes: written so far.
        checksum: CRC-32 of them.

    Raises:
        OSError: `path` cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.target = check_writable(path)
        check_partial(self.target)
        self.num_bytes = 0
        self.checksum = 0
        self.is_closed = False
        self._file: BinaryIO | None = None

    @property
    def partial_path(self) -> Path:
        """Where the lines are until the file is complete."""
        return partial_of(self.target)

    def go_on(self, num_bytes: int, checksum: int) -> None:
        """Go on behind the first bytes of what an earlier run wrote; what it wrote after them is dropped.

        Args:
            num_bytes: how many of them; the `num_bytes` that the earlier run saved.
            checksum: CRC-32 of them; the `checksum` that it saved.

        Raises:
            ValueError: those bytes are not there any more.
            RuntimeError: something has been written already.
        """
        if self._file is not None:
            raise RuntimeError(f"{self.path}: call go_on(...) before anything is written")
        if num_bytes == 0:
            return
        # An earlier run may have finished this file, and stopped later on.
        written = self.partial_path if self.partial_path.exists() else self.target
        found = crc = 0
        if written.exists():
            with written.open("rb") as file:
                while found < num_bytes and (block := file.read(min(2**20, num_bytes - found))):
                    found, crc = found + len(block), zlib.crc32(block, crc)
        if (found, crc) != (num_bytes, checksum):
            raise ValueError(f"{written} is not as the interrupted run left it: run without --resume to start anew")
        os.replace(written, self.partial_path)
        self._file = self.partial_path.open("r+b", buffering=0)
        self._file.truncate(num_bytes)
        self._file.seek(num_bytes)
        self.num_bytes, self.checksum = num_bytes, checksum

    def append(self, text: str) -> None:
        """Write ASCII text, of which no cut can fall inside a character.

        Raises:
            OSError: a full disk; some of the text may have been written.
            RuntimeError: after `finish` or `leave`.
        """
        if self.is_closed:
            raise RuntimeError(f"{self.path} is closed: make a new writer before write(...)")
        with writing_to(self.partial_path):
            remaining = memoryview(text.encode("ascii"))
            if self._file is None:
                self._file = self.partial_path.open("wb", buffering=0)
            while remaining:
                count = self._file.write(remaining)
                self.num_bytes, self.checksum = self.num_bytes + count, zlib.crc32(remaining[:count], self.checksum)
                remaining = remaining[count:]

    def sync(self) -> None:
        """Wait until what was written would survive a loss of power."""
        if self._file is not None:
            with writing_to(self.partial_path):
                os.fsync(self._file.fileno())

    def finish(self) -> None:
        """Move the complete file to `path`. Finishing twice is harmless."""
        if not self.is_closed:
            self.append("")
            self.leave()
            replace_file(self.partial_path, self.target)

    def leave(self) -> None:
        """Close the file where it is."""
        self.is_closed = True
        if self._file is not None:
            self._file.close()
            self._file = None
