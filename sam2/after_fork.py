"""Forked processes: threads do not come along, and what waits for one of them there would wait forever.

A `DataLoader` with workers, or `multiprocessing` with its default start on Linux, forks. Objects that read ahead in
threads are told so in the child, by `watch`, and start anew with threads of its own.
"""

from __future__ import annotations

import os
import weakref
from typing import Any, Protocol

__all__ = ["leave_behind", "watch"]


class HasThreads(Protocol):
    """What reads ahead in a thread."""

    def after_fork(self) -> None:
        """Called in a child process, in which no thread of this object lives and any lock of it may be held."""


_left_behind: list[Any] = []
_watched: weakref.WeakSet[Any] = weakref.WeakSet()


def watch(item: HasThreads) -> None:
    """Tell an object, for as long as it lives, when it is in a forked child."""
    _watched.add(item)


def leave_behind(*items: Any) -> None:
    """Keep what would wait for a thread that is not there, were it removed."""
    _left_behind.extend(items)


def _after_fork() -> None:
    for item in list(_watched):
        item.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)
