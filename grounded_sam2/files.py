"""Output files that are either complete or not there at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["check_writable", "replace_file", "replacing", "temporary_beside"]


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Make sure that `path` can be written, creating its folder, before any long work starts.

    A file that exists must itself be writable: moving a new file over it would otherwise ignore its protection.

    Returns:
        The path with links followed, so that the file behind a link is replaced and not the link.

    Raises:
        OSError: the subclass that fits (`PermissionError`, `IsADirectoryError`, ...), its message naming `path` and
            the reason.
    """
    target = Path(os.path.realpath(path))
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


def replace_file(temporary: Path, target: Path) -> None:
    """Move `temporary` over `target` in one step, keeping the access mode of a file that was there."""
    if target.exists():
        shutil.copymode(target, temporary)
    os.replace(temporary, target)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file under a temporary name; it takes the place of `path` only once it is complete.

    Yields:
        The temporary path to write to. When the block ends well it is moved over `path`; when it raises, it is
        removed and what stood at `path` before stays as it was.

    Raises:
        OSError: `path` cannot be written; see `check_writable`.
    """
    target = check_writable(path)
    temporary = temporary_beside(target)
    try:
        yield temporary
        replace_file(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
