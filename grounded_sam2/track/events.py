"""What happens to objects, and the log of it as a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from grounded_sam2 import plain_json
from grounded_sam2.files import GrowingFile

__all__ = ["EventKind", "EventLogWriter", "IdentityEvent", "read_events"]

EventKind = Literal["born", "confirmed", "occluded", "lost", "found again", "merged", "exchanged", "ended"]


@dataclass(frozen=True)
class IdentityEvent:
    """Something that happened to an object.

    Attributes:
        frame_idx: 0-based.
        obj_id: the object.
        kind: what happened.
        reason: why, in words and figures.
    """

    frame_idx: int
    obj_id: int
    kind: EventKind
    reason: str


class EventLogWriter:
    """Write what happens to objects, one line of JSON an event, each on disk at once.

    Lines go to `<stem>.partial<suffix>`, which takes the place of `path` when the `with` block ends well; after an
    error, Ctrl-C or a crash it stays, and `read_events` reads it.

    Args:
        path: of the file, usually `*.jsonl`.

    Attributes:
        file: what the lines go to; an interrupted run goes on in it, see `grounded_sam2.track.resume`.

    Raises:
        OSError: `path` cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.file = GrowingFile(path)
        self.path = self.file.path

    def write(self, events: Iterable[IdentityEvent]) -> None:
        """Append events.

        Raises:
            OSError: a full disk.
        """
        self.file.append("".join(json.dumps(asdict(event)) + "\n" for event in events))

    def __enter__(self) -> EventLogWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.file.finish()
        else:
            self.file.leave()


def read_events(path: str | os.PathLike[str]) -> list[IdentityEvent]:
    """Read back a log of `EventLogWriter`; a last line that was cut off is left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line is no event; the message names it.
    """
    events = []
    with Path(path).open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.endswith(b"\n"):
                try:
                    events.append(IdentityEvent(**plain_json.loads(line)))
                except (ValueError, TypeError) as error:
                    raise ValueError(f"{path}, line {number} is no event: {error}") from error
    return events
