"""What was done in a session: a log of commands, each of which is there as a whole or not at all, undone and redone.

`log.jsonl` has one line for each command:

    {"seq": 3, "kind": "rename", "args": {"obj_id": 1, "name": "Rex"}, "objects": {"1": [before, after]},
     "search": null, "cells": [40, 40]}

`objects` and `search` hold what the command changed as it was before and after, `cells` which records of `cells.bin` it
wrote. A command's records are on disk (`fsync`) before its line is, so that a kill leaves either both or, cut off when
the log is opened, neither. A propagation is the exception: its line comes first, and its records belong to it as they
come, until its `finished` line or the next command. `undo` and `redo` are lines of their own.

The last `UNDO_LIMIT` commands can be undone. What no undo and no redo can reach any more is dropped when more than half
of the masks' bytes are such (and at least `SLACK_BYTES`): what is left is copied into a new folder, which takes
the place of the old one in one step. So a session takes, beside its video, at most twice the bytes of its current masks
and of those that its last `UNDO_LIMIT` commands wrote or replaced, plus twice `SLACK_BYTES`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from grounded_sam2.files import writing_to
from grounded_sam2.session.cells import CellStore, NewCell
from grounded_sam2.session.objects import Command, Search, SessionObject

__all__ = ["SLACK_BYTES", "UNDO_LIMIT", "Draft", "History"]

UNDO_LIMIT = 100
SLACK_BYTES = 32 * 2**20
LOG_NAME = "log.jsonl"


class Draft:
    """A command that is being given; its cells go to disk at once, and are gone again if it fails.

    Attributes:
        objects: what it makes of objects.
        search: what it makes of the search; None: nothing.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self.objects: dict[int, SessionObject] = {}
        self.search: Search | None = None

    def put(self, *cells: NewCell) -> None:
        """Write cells; OSError on a full disk."""
        self._history.cells.append(cells)


class History:
    """The log of a folder and the cells beside it; one process at a time, one thread at a time.

    Args:
        folder: with `log.jsonl`, `cells.bin` and `masks.bin`; they are made where they are not there.
        size: (width, height) of the video.
        num_frames: of the video.

    Attributes:
        cells: all masks.
        objects: all objects that ever were and were not undone, by id, also those removed.
        search: what is looked for.
        done: commands that can be undone, the last one last.
        undone: commands that can be redone, the next one last.
        unfinished: a propagation that did not come to its end: killed or cancelled, and no command was given since.
        last_obj_id: the highest id that an object ever had, also one whose adding was undone.

    Raises:
        ValueError: the log or the cells are damaged.
        OSError: they cannot be written.
    """

    def __init__(self, folder: Path, size: tuple[int, int], num_frames: int) -> None:
        self.folder = folder
        self.objects: dict[int, SessionObject] = {}
        self.search = Search()
        self.done: list[Command] = []
        self.undone: list[Command] = []
        self.unfinished: Command | None = None
        self.last_obj_id = 0
        self._next_seq = 1
        self._num_replayed = 0  # records of the commands read so far
        self._log: BinaryIO = (folder / LOG_NAME).open("ab", buffering=0)
        self.cells = CellStore(folder, size, num_frames)
        try:
            self._replay()
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            self.close()
            message = str(error) if "damaged" in str(error) else f"{folder / LOG_NAME} is damaged: {error!r}"
            raise ValueError(message) from error

    # ---- commands ----

    @contextmanager
    def command(self, kind: str, **args: Any) -> Iterator[Draft]:
        """Give a command: what the block drafts is done when it ends well, and nothing is when it raises.

        Args:
            kind: of the command.
            args: what was asked for, as plain values.

        Raises:
            OSError: a full disk; nothing is done.
        """
        self._close_unfinished()
        first = self.cells.num_records
        draft = Draft(self)
        try:
            yield draft
            objects = {obj_id: (self.objects.get(obj_id), after) for obj_id, after in draft.objects.items()}
            search = None if draft.search is None else (self.search, draft.search)
            command = Command(self._next_seq, kind, args, objects, search, first, self.cells.num_records)
            if command.stop != first:
                self.cells.sync()
            self._append(command.to_line())
        except BaseException:
            self.cells.revert(first, self.cells.num_records)
            self.cells.cut(first)
            raise
        self._note(command)

    def begin(self, kind: str, **args: Any) -> Command:
        """Give a command whose cells come one by one, by `put`; it is `unfinished` until `finish`."""
        self._close_unfinished()
        command = Command(self._next_seq, kind, args, first=self.cells.num_records)
        self._append(command.to_line())
        self._note(command)
        return command

    def put(self, command: Command, cells: list[NewCell]) -> None:
        """Write cells of an unfinished command.

        Raises:
            RuntimeError: another command was given meanwhile.
            OSError: a full disk; none of these cells is written.
        """
        if self.unfinished is not command:
            raise RuntimeError(f"another command was given after {command.kind} {command.seq}: give that one again")
        self.cells.append(cells)

    def finish(self, command: Command) -> None:
        """End an unfinished command; RuntimeError as `put`."""
        self.put(command, [])
        self.cells.sync()
        self._append_entry("finished", command)
        self.unfinished, command.stop = None, self.cells.num_records

    def undo(self) -> Command | None:
        """Take the last command back, masks and all; None where there is none (any more).

        Raises:
            OSError: a full disk; nothing is undone.
        """
        if not self.done:
            return None
        self._close_unfinished()
        self._append_entry("undo", self.done[-1])
        return self._undone()

    def redo(self) -> Command | None:
        """Do again what `undo` took back last; None where nothing was undone since the last command."""
        if not self.undone:
            return None
        self._close_unfinished()
        self._append_entry("redo", self.undone[-1])
        return self._redone()

    def close(self) -> None:
        """Close the files; an unfinished command stays so. Closing twice is harmless."""
        if self.unfinished is not None and not self._log.closed:
            self.cells.sync()
        self._log.close()
        self.cells.close()

    # ---- the state ----

    def _note(self, command: Command) -> None:
        """Take in a command whose cells are current."""
        self._next_seq = command.seq + 1
        self.last_obj_id = max([self.last_obj_id, command.args.get("last_obj_id", 0), *command.objects])
        self._change(command, 1)
        self.undone.clear()
        if command.kind != "base":
            self.done.append(command)
        del self.done[:-UNDO_LIMIT]
        self.unfinished = command if command.stop is None else None

    def _undone(self) -> Command:
        command = self.done.pop()
        self.cells.revert(command.first, command.stop or command.first)
        self._change(command, 0)
        self.undone.append(command)
        return command

    def _redone(self) -> Command:
        command = self.undone.pop()
        self.cells.apply(command.first, command.stop or command.first)
        self._change(command, 1)
        self.done.append(command)
        return command

    def _change(self, command: Command, place: int) -> None:
        """Make objects and search what they were before (0) or after (1) a command."""
        for obj_id, states in command.objects.items():
            state = states[place]
            if state is None:
                del self.objects[obj_id]
            else:
                self.objects[obj_id] = state
        if command.search is not None:
            self.search = command.search[place]

    def _close_unfinished(self) -> None:
        if self.unfinished is not None:
            self.cells.sync()
            self.unfinished.stop, self.unfinished = self.cells.num_records, None

    # ---- the file ----

    def _append_entry(self, kind: str, command: Command) -> None:
        """Write that a command is finished, undone or redone."""
        num_records = self.cells.num_records
        self._append(json.dumps({"kind": kind, "of": command.seq, "cells": [num_records, num_records]}) + "\n")

    def _append(self, line: str) -> None:
        """Write a line that survives a loss of power, or nothing."""
        num_bytes = os.fstat(self._log.fileno()).st_size
        try:
            with writing_to(self.folder / LOG_NAME):
                remaining = memoryview(line.encode("ascii"))
                while remaining:
                    remaining = remaining[self._log.write(remaining) :]
                os.fsync(self._log.fileno())
        except BaseException:
            self._log.truncate(num_bytes)
            raise

    def _replay(self) -> None:
        """Become what the log says; lines and cells that a kill cut off go."""
        num_bytes = 0
        with (self.folder / LOG_NAME).open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                self._replay_entry(json.loads(line))
                num_bytes += len(line)
        self._log.truncate(num_bytes)
        if self.unfinished is not None:
            self.cells.cut(self.cells.count_intact(self.unfinished.first))
            self.cells.apply(self.unfinished.first, self.cells.num_records)
        else:
            self.cells.cut(self._num_replayed)

    def _replay_entry(self, entry: dict[str, Any]) -> None:
        first, stop = entry["cells"]
        is_in_order = first == self._num_replayed or (self.unfinished is not None and first > self._num_replayed)
        if not is_in_order or not first <= (stop or first) <= self.cells.num_records:
            raise ValueError(f"cells.bin is damaged: expected {stop} records or more, found {self.cells.num_records}")
        if self.unfinished is not None:
            self.unfinished.stop = first
            self.cells.apply(self.unfinished.first, first)
            self.unfinished = None
        self._num_replayed = stop or first
        if entry["kind"] == "finished":
            return
        if entry["kind"] in ("undo", "redo"):
            command = self._undone() if entry["kind"] == "undo" else self._redone()
            if command.seq != entry["of"]:
                raise ValueError(f"expected {entry['kind']} of {command.seq}, got {entry['of']}")
            return
        command = Command.from_entry(entry)
        self.cells.apply(first, stop or first)
        self._note(command)
