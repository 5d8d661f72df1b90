"""Memory that Python and torch let go of goes back to the system.

Glibc keeps a heap for each of many threads, and what was freed in them: with forty threads that handle frames and masks
by turns, a server that holds nothing seems to hold gigabytes. Other C libraries do not, and nothing is done there.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["give_back_memory", "share_heaps"]

ARENA_MAX = -8  # of glibc's mallopt
HEAPS = 2


def share_heaps() -> None:
    """Let all threads that are started from now on share a few heaps."""
    libc = _glibc()
    if libc is not None:
        libc.mallopt(ARENA_MAX, HEAPS)


def give_back_memory() -> None:
    """Give back what is free; takes some milliseconds."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "malloc_trim") else None
