"""The files of a session's folder beside its video and its history: what it is of, and the lock."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from grounded_sam2.files import lock, replacing

__all__ = ["FORMAT_VERSION", "locked", "read_record", "write_record"]

FORMAT_VERSION = 1
RECORD_NAME = "session.json"
LOCK_NAME = "lock"


def read_record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD_NAME
    if not path.exists():
        raise FileNotFoundError(f"no session in {folder}: make one with create_session(...)")
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if int(record["format_version"]) > FORMAT_VERSION:
            raise ValueError(f"format_version: expected at most {FORMAT_VERSION}, got {record['format_version']}")
        if not str(record["history"]).startswith("history-") or Path(record["history"]).name != record["history"]:
            raise ValueError(f"history: expected the name of a folder, got {record['history']!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not of a session: {error!r}") from error
    return record


def write_record(folder: Path, record: dict[str, Any]) -> None:
    with replacing(folder / RECORD_NAME) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(record, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())


def locked(folder: Path) -> BinaryIO:
    """The lock of a session, held until the file is closed or the process ends, however it ends."""
    file: BinaryIO = (folder / LOCK_NAME).open("ab")
    try:
        lock(file, "open the session only once")
    except BlockingIOError:
        raise BlockingIOError(f"the session in {folder} is open elsewhere: close it there first") from None
    return file
