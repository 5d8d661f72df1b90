"""What is answered to a request that cannot be done: a status and one clear sentence."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

from grounded_sam2.script import out_of_memory
from sam2.shown import shown
from studio.limits import LimitError
from studio.turns import BusyError

__all__ = ["ConflictError", "NotFoundError", "answer_to"]

logger = logging.getLogger(__name__)

LONGEST = 500  # characters of a sentence


class NotFoundError(Exception):
    """There is no such session, frame, job or file, or not for this user."""


class ConflictError(Exception):
    """It cannot be done just now; the message says what to wait for or to do first."""


def answer_to(error: BaseException, folder: Path | None = None) -> tuple[int, str]:
    """The status and the sentence for an error; what is a fault of the server's own goes to its log.

    Args:
        error: what was raised.
        folder: its path is no business of the user's, and left out of the sentence.
    """
    status = _status_of(error)
    if status is None:
        logger.exception("a request failed", exc_info=error)
        return 500, "Something went wrong in the server; its log says what."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return 507, "The server's disk is full: nothing was changed. Remove sessions or results that are not needed."
    text = out_of_memory(error) or str(error)
    if folder is not None:
        text = text.replace(f"{folder}/", "").replace(str(folder), "the server's folder")
    text = shown(text)
    return status, text if len(text) <= LONGEST else text[:LONGEST] + " …"


def _status_of(error: BaseException) -> int | None:
    if isinstance(error, NotFoundError):
        return 404
    if isinstance(error, (ConflictError, BlockingIOError)):  # the latter: another server has the session open
        return 409
    if isinstance(error, LimitError):
        return 413
    if isinstance(error, (BusyError, MemoryError)) or out_of_memory(error) is not None:
        return 503
    if isinstance(error, ValueError):
        return 400
    return 500 if isinstance(error, OSError) else None
