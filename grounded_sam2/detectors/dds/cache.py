"""Answers of a paid service on disk, so that no question is paid for twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from grounded_sam2 import plain_json
from grounded_sam2.detectors.base import Image
from grounded_sam2.files import check_writable, replacing
from grounded_sam2.locks import locked

__all__ = ["ResponseCache", "is_task_name", "request_key"]

logger = logging.getLogger(__name__)


def request_key(image: Image, request: Mapping[str, Any]) -> str:
    """Name a question after everything its answer depends on.

    Args:
        image: (H, W, 3) uint8 RGB; its pixels count, not the file they came from.
        request: the rest of the question, of what JSON can hold.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(json.dumps([image.shape, request], sort_keys=True).encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def is_task_name(name: object) -> TypeGuard[str]:
    """Whether a value can be the name of a task, which becomes part of an address."""
    return isinstance(name, str) and re.fullmatch(r"[\w-]{1,200}", name, re.ASCII) is not None


class ResponseCache:
    """A folder with one JSON file for each question; several processes may share it.

    A file appears whole or not at all, and one that is damaged counts as not there.

    Args:
        folder: made if it is missing.

    Raises:
        OSError: the folder cannot be written in.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        check_writable(self._path("entry"))

    def read(self, key: str) -> dict[str, Any]:
        """What was written under a key; {} when there is nothing that can be read."""
        try:
            entry = plain_json.loads(self._path(key).read_bytes())
        except (OSError, ValueError):
            return {}
        return entry if isinstance(entry, dict) else {}

    def write(self, key: str, entry: Mapping[str, Any]) -> None:
        """Keep an answer. One that cannot be kept is no reason to lose it: that is logged as a warning."""
        try:
            with replacing(self._path(key)) as temporary:
                temporary.write_text(json.dumps(entry), encoding="utf-8")
        except OSError as error:
            logger.warning("an answer of the service is not kept, and would be paid for again: %s", error)

    @contextlib.contextmanager
    def asking(self, key: str) -> Iterator[None]:
        """Hold a question: whoever has the same one waits meanwhile, and then finds the answer.

        Where the folder holds no locks, nobody waits.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self.folder / f".{key}.lock"))
            except OSError as error:
                logger.debug("%s: nobody waits for this question: %s", self.folder, error)
            yield

    def discard(self, key: str) -> None:
        """Forget what was written under a key."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"
