"""What takes longer than a request: a thread for each job, progress that the pages are told, and an end on demand."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from studio.errors import answer_to

__all__ = ["CancelledError", "Job"]

logger = logging.getLogger(__name__)

JobState = Literal["waiting", "running", "done", "cancelled", "failed"]
_OVER = ("done", "cancelled", "failed")


class CancelledError(Exception):
    """Raised by the work of a job that was cancelled before its end."""


class Job:
    """One job of a session.

    Args:
        kind: "propagate", "resume", "follow_and_find" or "result".
        label: what people read.
        is_changing: it changes masks; one such job of a session at a time.
        job_id: of one that was done before; None: a new one.

    Attributes:
        id: names it.
        state: "waiting", "running", "done", "cancelled" or "failed".
        done: how much of `total` is done.
        frame: that was done last; None for none.
        error: why it failed, in one sentence.
        path: of the file that it made.
        cancelled: set once it is to end.
    """

    def __init__(self, kind: str, label: str, is_changing: bool, job_id: str | None = None) -> None:
        self.id = job_id or secrets.token_hex(6)
        self.kind = kind
        self.label = label
        self.is_changing = is_changing
        self.state: JobState = "waiting"
        self.done = 0
        self.total = 0
        self.frame: int | None = None
        self.error: str | None = None
        self.path: Path | None = None
        self.cancelled = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_over(self) -> bool:
        return self.state in _OVER

    def start(self, work: Callable[[Job], None], tell: Callable[[Job], None], folder: Path | None = None) -> None:
        """Do the work in a thread of its own.

        Args:
            work: is given the job; may raise CancelledError once `cancelled` is set.
            tell: is called when the job begins and when it is over.
            folder: see `answer_to`.
        """

        def run() -> None:
            self.state = "running"
            tell(self)
            try:
                work(self)
                end: JobState = "done"
            except CancelledError:
                end = "cancelled"
            except Exception as error:
                end = "failed"
                _, self.error = answer_to(error, folder)
            self.state = end
            tell(self)

        self._thread = threading.Thread(target=run, name=f"job {self.kind}", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Ask it to end; what was done stays."""
        self.cancelled.set()

    def check(self) -> None:
        """CancelledError once it is to end."""
        if self.cancelled.is_set():
            raise CancelledError

    def join(self, timeout: float | None = None) -> None:
        """Wait until it is over."""
        if self._thread is not None:
            self._thread.join(timeout)

    def to_json(self) -> dict[str, Any]:
        is_made = self.state == "done" and self.path is not None and self.path.exists()
        return {
            "id": self.id,
            "kind": self.kind,
            "label": self.label,
            "state": self.state,
            "done": self.done,
            "total": self.total,
            "frame": self.frame,
            "error": self.error,
            "file": self.path.name if is_made and self.path is not None else None,
            "size": self.path.stat().st_size if is_made and self.path is not None else None,
        }
