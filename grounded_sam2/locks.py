"""One process at a time: what several of them would otherwise do at once, on the same file."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from grounded_sam2.files import lock

__all__ = ["locked"]

_POLL_S = 0.05


@contextlib.contextmanager
def locked(path: str | os.PathLike[str], on_wait: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Wait until no other process or thread holds a lock, and hold it.

    The system lets go of it when a process ends, in whatever way. Where the file system knows no locks, nobody waits,
    and a warning says so.

    Args:
        path: a file that is made for it and removed after it.
        on_wait: is called once when somebody else holds it; it may raise.

    Raises:
        OSError: the file cannot be made.
    """
    has_waited = False
    while (file := _try_to_lock(Path(path))) is None:
        if not has_waited:
            on_wait()
            has_waited = True
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open file
            Path(path).unlink()
        file.close()


def _try_to_lock(path: Path) -> BinaryIO | None:
    """The open file with its lock; None while another one has it."""
    file: BinaryIO = path.open("ab")
    try:
        lock(file, "do not do the same twice at once")
    except BlockingIOError:
        return None
    # whoever had it before may have removed the file in the meantime: then this lock is one on nothing
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    file.close()
    return None
