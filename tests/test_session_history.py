"""Commands are there as a whole or not at all, are undone exactly, survive cuts, and do not fill the disk."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from session_parts import DriftingFollower, box_mask, everything, make_session

from grounded_sam2.session import (
    Session,
    add_object,
    clear,
    create_session,
    hide,
    lock,
    merge,
    open_session,
    paint,
    pin,
    propagate,
    recolor,
    refine,
    release,
    remove,
    rename,
    resume,
    set_mask,
    set_search,
    split,
    swap,
)
from grounded_sam2.session.folder import write_record
from grounded_sam2.session.history import UNDO_LIMIT

pytestmark = pytest.mark.usefixtures("quick_disk")

MASK, OTHER = box_mask(4, 4, 12, 12), box_mask(30, 20, 40, 30)


def propagate_all(session: Session) -> None:
    for _ in propagate(session):
        pass


COMMANDS: dict[str, Callable[[Session], object]] = {
    "add": lambda session: add_object(session, 4, points=[[20, 20]]),
    "box": lambda session: add_object(session, 4, box=[20, 20, 30, 30], class_name="猫"),
    "refine": lambda session: refine(session, 1, 6, [[20, 20], [5, 5]], [1, 0]),
    "set_mask": lambda session: set_mask(session, 1, 3, OTHER),
    "empty": lambda session: set_mask(session, 1, 3, np.zeros_like(OTHER)),
    "paint": lambda session: paint(session, 1, 6, [[20, 20], [30, 25]], 2.5),
    "erase": lambda session: paint(session, 1, 6, [[8, 8]], 3, erase=True),
    "propagate": propagate_all,
    "merge": lambda session: merge(session, 1, 2),
    "merge a span": lambda session: merge(session, 1, 2, 3, 5),
    "split": lambda session: split(session, 1, 4, 8),
    "swap": lambda session: swap(session, 1, 2, 5),
    "clear": lambda session: clear(session, 1, 2, 7),
    "pin": lambda session: pin(session, 1, 7),
    "release": lambda session: release(session, 1, 2),
    "rename": lambda session: rename(session, np.int64(1), "Rex", "dog"),
    "recolor": lambda session: recolor(session, 1, "#00FF00"),
    "hide": lambda session: hide(session, 1),
    "lock": lambda session: lock(session, 1),
    "remove": lambda session: remove(session, 1),
    "search": lambda session: set_search(session, text_prompt="dog.", box_threshold={"dog": 0.2}),
}


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """Two objects, tracked to both ends."""
    session = make_session(tmp_path)
    add_object(session, 2, mask=MASK)
    add_object(session, 7, mask=OTHER)
    propagate_all(session)
    return session


def reopened(session: Session) -> Session:
    session.close()
    return open_session(session.folder, DriftingFollower())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_undone_redone_and_found_again(session: Session, name: str) -> None:
    before = everything(session)
    COMMANDS[name](session)
    after = everything(session)
    assert after != before or name == "propagate"  # the same masks once more
    session = reopened(session)
    assert everything(session) == after
    assert session.undo() == session.history.undone[-1].kind
    assert everything(session) == before
    session = reopened(session)
    assert everything(session) == before
    session.redo()
    assert everything(session) == after and session.redo() is None
    session = reopened(session)
    assert everything(session) == after
    session.close()


def test_all_commands_one_after_another_and_back(session: Session) -> None:
    rng = random.Random(0)
    seen = [everything(session)]
    for _ in range(25):
        try:
            COMMANDS[rng.choice(list(COMMANDS))](session)
        except ValueError:  # of an object that was removed, locked or emptied
            continue
        seen.append(everything(session))
    assert len(seen) > 8
    for expected in reversed(seen[:-1]):
        session.undo()
        assert everything(session) == expected
    for expected in seen[1:]:
        session.redo()
        assert everything(session) == expected
    assert everything(reopened(session)) == seen[-1]


def test_a_new_command_after_an_undo_ends_redo_and_ids_are_not_used_again(session: Session) -> None:
    assert add_object(session, 4, mask=MASK) == 3
    session.undo()
    rename(session, 1, "Rex")
    assert session.redo() is None
    session = reopened(session)
    assert add_object(session, 4, mask=OTHER) == 4 and session.object(1).name == "Rex"


def test_nothing_to_undo_is_a_value(tmp_path: Path) -> None:
    with make_session(tmp_path) as session:
        assert session.undo() is None and session.redo() is None


def test_a_command_that_fails_leaves_nothing(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    before, log = everything(session), (session.history.folder / "log.jsonl").read_bytes()
    sizes = (session.cells.num_records, session.cells.num_bytes)

    def full(line: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(session.history, "_append", full)
    for name in ("split", "paint", "rename"):
        with pytest.raises(OSError, match="No space left"):
            COMMANDS[name](session)
    with pytest.raises(OSError, match="No space left"):
        session.undo()
    assert everything(session) == before and (session.cells.num_records, session.cells.num_bytes) == sizes
    assert (session.history.folder / "log.jsonl").read_bytes() == log
    monkeypatch.undo()
    COMMANDS["split"](session)
    session.undo()
    assert everything(reopened(session)) == before


def test_a_log_that_is_cut_anywhere_ends_before_that_command(session: Session, tmp_path: Path) -> None:
    states = [everything(session)]
    for name in ("paint", "swap", "rename"):
        COMMANDS[name](session)
        states.append(everything(session))
    session.undo()
    states.append(everything(session))
    session.close()
    log = (session.history.folder / "log.jsonl").read_bytes()
    lines = log.splitlines(keepends=True)
    ends = [len(b"".join(lines[: len(lines) - 4 + count])) for count in range(5)]
    rng = random.Random(0)
    for cut in [*ends, *(rng.randrange(ends[0], len(log)) for _ in range(12))]:
        copied = shutil.copytree(session.folder, tmp_path / f"cut{cut}", dirs_exist_ok=True)
        (copied / session.history.folder.name / "log.jsonl").write_bytes(log[:cut])
        with open_session(copied, DriftingFollower()) as cut_session:
            assert everything(cut_session) == states[sum(end <= cut for end in ends) - 1]
            COMMANDS["paint"](cut_session)
            after = everything(cut_session)
        with open_session(copied) as cut_session:
            assert everything(cut_session) == after


def test_a_propagation_that_is_cut_anywhere_goes_on(session: Session, tmp_path: Path) -> None:
    """Masks are written before the record that names them: a kill leaves a part of one, or masks without records."""
    session.undo()
    running = propagate(session)
    for _ in range(12):
        next(running)
    running.close()
    session.close()
    folder = session.history.folder
    cells, masks = ((folder / name).read_bytes() for name in ("cells.bin", "masks.bin"))
    with open_session(session.folder, DriftingFollower()) as whole:
        first = whole.unfinished.first  # type: ignore[union-attr]
        table = np.array(whole.cells.records())
        for _ in resume(whole):
            pass
        expected = everything(whole)
    (folder / "log.jsonl").write_bytes(b"".join((folder / "log.jsonl").read_bytes().splitlines(keepends=True)[:-1]))
    rng = random.Random(0)
    size = table.dtype.itemsize
    for cut in [first * size, len(cells), *(rng.randrange(first * size, len(cells)) for _ in range(10))]:
        copied = shutil.copytree(session.folder, tmp_path / "cut", dirs_exist_ok=True) / folder.name
        named = int((table["offset"] + table["length"])[: cut // size].max())
        (copied / "cells.bin").write_bytes(cells[:cut])
        # what came of power loss: masks that are named but not there; and of a kill: masks that nothing names yet
        (copied / "masks.bin").write_bytes(masks[: rng.choice([named, named + 3, max(named - 3, 0)])])
        with open_session(copied.parent, DriftingFollower()) as cut_session:
            for _ in resume(cut_session):
                pass
            assert everything(cut_session) == expected


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("log.jsonl", lambda content: b"{}\n" + content, "log.jsonl is damaged"),
        ("log.jsonl", lambda content: content.replace(b'"cells": [0', b'"cells": [9', 1), "cells.bin is damaged|log"),
        ("cells.bin", lambda content: content[:-80], "cells.bin is damaged"),
        ("masks.bin", lambda content: content[:-20], "masks.bin is damaged"),
    ],
)
def test_damage_is_named(session: Session, name: str, damage: Callable[[bytes], bytes], message: str) -> None:
    session.close()
    path = session.history.folder / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        open_session(session.folder)


def test_a_mask_that_changed_on_disk_is_refused(session: Session) -> None:
    session.close()
    path = session.history.folder / "masks.bin"
    path.write_bytes(b"0" * path.stat().st_size)
    with (
        open_session(session.folder) as damaged,
        pytest.raises(ValueError, match="object 1 on frame 2 is not as it was"),
    ):
        damaged.mask(1, 2)


# ---- disk ----


def test_what_no_undo_reaches_is_dropped_and_nothing_else(session: Session) -> None:
    rng = random.Random(1)
    for _ in range(UNDO_LIMIT + 30):
        set_mask(session, 1, rng.randrange(12), box_mask(0, 0, rng.randrange(5, 60), rng.randrange(5, 40)))
    for _ in range(10):
        session.undo()
    expected, num_records = everything(session), session.cells.num_records
    states = []
    while session.undo():
        states.append(everything(session))
    assert len(states) == UNDO_LIMIT - 10
    while session.redo():
        pass
    for _ in range(10):
        session.undo()
    old = session.history.folder
    for _ in range(2):  # what was compacted can be compacted
        session.compact()
        assert not old.exists() and session.cells.num_records < num_records
        assert everything(session) == expected
    session = reopened(session)
    assert everything(session) == expected
    for state in states:
        session.undo()
        assert everything(session) == state
    assert session.undo() is None
    for _ in range(UNDO_LIMIT):
        assert session.redo() is not None
    assert session.redo() is None and add_object(session, 0, mask=MASK) == 3


def test_disk_stays_bounded_while_a_session_is_open(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("session", "compaction"):
        monkeypatch.setattr(f"grounded_sam2.session.{module}.SLACK_BYTES", 2000)
    monkeypatch.setattr("grounded_sam2.session.history.UNDO_LIMIT", 5)
    for turn in range(150):
        set_mask(session, 1, 3, box_mask(0, 0, 5 + turn % 50, 5 + turn % 40))
        assert session.cells.num_bytes < 11_000
    folders = [session.history.folder]
    monkeypatch.setattr(
        "grounded_sam2.session.session.write_compacted", lambda *_: (_ for _ in ()).throw(OSError("full"))
    )
    session._next_check = 0
    monkeypatch.setattr("grounded_sam2.session.session.is_wasteful", lambda _: True)
    set_mask(session, 1, 3, MASK)  # is done, though there is no room to make room
    np.testing.assert_array_equal(session.mask(1, 3), MASK)
    assert [*session.folder.glob("history-*")] == folders


def test_a_kill_while_histories_take_turns(session: Session) -> None:
    expected = everything(session)
    session.close()
    (session.folder / "history-0123").mkdir()
    (session.folder / "history-0123" / "cells.bin").write_bytes(b"half")
    with open_session(session.folder) as opened:
        assert everything(opened) == expected
    assert [path.name for path in session.folder.glob("history-*")] == ["history-00000000"]


@pytest.mark.parametrize("is_before", [True, False])
def test_an_interrupt_while_histories_take_turns(
    session: Session, monkeypatch: pytest.MonkeyPatch, is_before: bool
) -> None:
    def interrupted(folder: Path, record: dict) -> None:
        if not is_before:
            write_record(folder, record)
        raise KeyboardInterrupt

    expected = everything(session)
    monkeypatch.setattr("grounded_sam2.session.session.write_record", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.compact()
    rename(session, 1, "Rex")
    session.undo()
    assert everything(session) == expected and len([*session.folder.glob("history-*")]) == 1
    assert (session.history.folder.name == "history-00000000") == is_before
    assert everything(reopened(session)) == expected


# ---- the folder ----


def test_a_session_can_be_moved_and_is_open_once(session: Session, tmp_path: Path) -> None:
    expected = everything(session)
    with pytest.raises(BlockingIOError, match=r"clip\.session is open elsewhere"):
        open_session(session.folder)
    session.close()
    shutil.rmtree(tmp_path / "frames")
    os.rename(session.folder, tmp_path / "elsewhere")
    with open_session(tmp_path / "elsewhere", DriftingFollower()) as moved:
        assert everything(moved) == expected and moved.name == "frames"


def test_folders_that_are_no_sessions(session: Session, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="it is there already"):
        create_session(session.folder, tmp_path / "frames")
    with pytest.raises(FileNotFoundError, match="no session in"):
        open_session(tmp_path)
    session.close()
    record = json.loads((session.folder / "session.json").read_text())
    for changes, message in (
        ({"format_version": 2}, "format_version: expected at most 1, got 2"),
        ({"history": "history-/../../x"}, "expected the name of a folder"),
        ({"num_frames": 7}, "a video with 7 frames of 64x48 pixels, found 12"),
        ({"source": "source/other"}, "no such video"),
    ):
        (session.folder / "session.json").write_text(json.dumps({**record, **changes}))
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            open_session(session.folder)


def test_memory_does_not_grow_with_masks(tmp_path: Path) -> None:
    import tracemalloc

    held = []
    for num_frames in (20, 120):
        with make_session(tmp_path / str(num_frames), num_frames=num_frames) as session:
            add_object(session, 0, mask=MASK)
            tracemalloc.start()
            propagate_all(session)
            held.append(tracemalloc.get_traced_memory()[0])
            tracemalloc.stop()
    assert held[1] - held[0] < 100 * 500  # of 100 frames, a sixth of one mask each


def test_a_session_without_a_model_says_so(session: Session) -> None:
    session.close()
    with open_session(session.folder) as viewed:
        for command in (lambda: propagate(viewed), lambda: refine(viewed, 1, 0, [[1, 1]])):
            with pytest.raises(RuntimeError, match=r"open the session with open_session\(folder, predictor\)"):
                command()
        assert viewed.mask(1, 2) is not None and viewed.unfinished is None
