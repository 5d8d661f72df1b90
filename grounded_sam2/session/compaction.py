"""What no undo and no redo of a session can reach any more is dropped; see `grounded_sam2.session.history`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from grounded_sam2.session.cells import NOTHING, revert_rows
from grounded_sam2.session.history import LOG_NAME, SLACK_BYTES, History
from grounded_sam2.session.objects import Command

__all__ = ["is_wasteful", "write_compacted"]


def is_wasteful(history: History) -> bool:
    """Whether more than half of the masks' bytes, and more than `SLACK_BYTES`, can be reached no more."""
    if history.cells.num_bytes <= SLACK_BYTES:
        return False
    records = history.cells.records()[_reachable(history)[0]]
    _, first = np.unique(records["offset"], return_index=True)
    reachable = int(records["length"][first].sum())
    return history.cells.num_bytes - reachable > max(reachable, SLACK_BYTES)


def write_compacted(history: History, folder: Path) -> None:
    """Write a history that can do all that this one can, and no more, into an empty folder.

    Raises:
        OSError: it cannot be written.
    """
    rows, num_base = _reachable(history)
    records = np.array(history.cells.records()[rows])
    number_of = np.full(history.cells.num_records + 1, -1, np.int32)  # the last one is for "none"
    number_of[rows] = np.arange(len(rows), dtype=np.int32)
    records["before"] = number_of[records["before"]]
    records["before"][:num_base] = -1

    _copy_masks(history, records, folder / "masks.bin")
    with (folder / "cells.bin").open("wb") as file:
        file.write(records.tobytes())
        file.flush()
        os.fsync(file.fileno())
    with (folder / LOG_NAME).open("w", encoding="ascii") as log:
        log.writelines(_lines(history, num_base))
        log.flush()
        os.fsync(log.fileno())


def _kept(history: History) -> list[Command]:
    """What can be undone, in the order in which it was done, then what can be redone, in the order of that."""
    return [*history.done, *reversed(history.undone)]


def _reachable(history: History) -> tuple[npt.NDArray[np.int64], int]:
    """Numbers of the records that are needed: the base, that is what all undoing would leave, then each command's.

    Returns:
        The numbers, and how many are the base's.
    """
    table = history.cells.records()
    base = {obj_id: rows.copy() for obj_id, rows in history.cells.current.items()}
    for command in reversed(history.done):
        revert_rows(base, table[_range_of(history, command)])
    known = np.concatenate([np.zeros(0, np.int64), *(rows[rows >= 0].astype(np.int64) for rows in base.values())])
    known = np.sort(known[table["kind"][known] != NOTHING])
    ranges = [np.arange(len(table))[_range_of(history, command)] for command in _kept(history)]
    return np.concatenate([known, *ranges]).astype(np.int64), len(known)


def _range_of(history: History, command: Command) -> slice:
    """The records of a command."""
    return slice(command.first, history.cells.num_records if command.stop is None else command.stop)


def _copy_masks(history: History, records: npt.NDArray[np.void], path: Path) -> None:
    """Copy the encoded masks of records, each once, and change their offsets accordingly."""
    offsets, first, which = np.unique(records["offset"], return_index=True, return_inverse=True)
    lengths = records["length"][first].astype(np.int64)  # 0 of NOTHING, whose offset is -1
    placed = np.concatenate([[0], np.cumsum(lengths)[:-1]]) if len(lengths) else lengths
    placed[offsets < 0] = -1
    with (history.folder / "masks.bin").open("rb") as source, path.open("wb") as target:
        for offset, length in zip(offsets.tolist(), lengths.tolist(), strict=True):
            if offset >= 0:
                source.seek(offset)
                target.write(source.read(length))
        target.flush()
        os.fsync(target.fileno())
    records["offset"] = placed[which.reshape(-1)]


def _lines(history: History, num_base: int) -> list[str]:
    objects = dict(history.objects)
    search = history.search
    for command in reversed(history.done):
        for obj_id, (before, _) in command.objects.items():
            if before is None:
                del objects[obj_id]
            else:
                objects[obj_id] = before
        search = search if command.search is None else command.search[0]
    first_seq = history.done[0].seq if history.done else history.undone[-1].seq if history.undone else 1
    base = Command(
        first_seq - 1,
        "base",
        {"last_obj_id": history.last_obj_id},
        {obj_id: (None, obj) for obj_id, obj in objects.items()},
        (search, search),
        0,
        num_base,
    )
    commands, first = [base], num_base
    for command in _kept(history):
        of_command = _range_of(history, command)
        count = of_command.stop - of_command.start
        commands.append(replace(command, first=first, stop=first + count))
        first += count
    undos = [f'{{"kind": "undo", "of": {command.seq}, "cells": [{first}, {first}]}}\n' for command in history.undone]
    return [*(command.to_line() for command in commands), *undos]
