"""A process that works is killed at random moments: nothing that was done is lost, and going on ends the same."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from session_parts import DriftingFollower, DriftingVideo, box_mask, everything, make_session

from grounded_sam2.session import Session, add_object, open_session, propagate, resume, set_mask

NUM_FRAMES, NUM_KILLS = 60, 10

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked, so that they start at once")


class SlowVideo(DriftingVideo):
    def follow(self, frame_idx: int, reverse: bool = False) -> Iterator[tuple[int, Any]]:
        for found in super().follow(frame_idx, reverse):
            time.sleep(0.002)
            yield found


class SlowFollower(DriftingFollower):
    video_class = SlowVideo


def killed(work: Callable[[Callable[[str], None]], None], seconds: float) -> list[str]:
    """Do something in a process of its own, which is killed so long after it begins; gives the words that it said."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work(lambda word: os.write(writer, f"{word}\n".encode()) and None)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        assert said.readline() == "begun\n"
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        words = said.read().split()
    os.waitpid(child, 0)
    return words


def prepared(folder: Path) -> Session:
    session = make_session(folder, num_frames=NUM_FRAMES)
    for t, mask in ((5, box_mask(4, 4, 12, 12)), (40, box_mask(30, 20, 40, 30))):
        obj_id = add_object(session, t, mask=mask)
    set_mask(session, obj_id, 50, box_mask(1, 1, 9, 9))
    set_mask(session, obj_id, 20, box_mask(1, 1, 9, 9))
    return session


@pytest.mark.parametrize("save_every", [0.01, 1e9])
def test_ten_kills_of_a_propagation(tmp_path: Path, save_every: float) -> None:
    with prepared(tmp_path / "whole") as session:
        for _ in propagate(session):
            pass
        expected = everything(session)
    with prepared(tmp_path / "killed") as session:
        folder = session.folder

    def work(say: Callable[[str], None]) -> None:
        with open_session(folder, SlowFollower()) as session:
            say("begun")
            for progress in (resume if session.unfinished else propagate)(session, save_every=save_every):
                for obj_id in progress.obj_ids:
                    say(f"{obj_id}:{progress.frame_idx}")

    rng = random.Random(0)
    done: set[tuple[int, int]] = set()
    for _ in range(NUM_KILLS):
        for word in killed(work, rng.uniform(0, 0.06)):
            obj_id, frame_idx = map(int, word.split(":"))
            done.add((obj_id, frame_idx))
        with open_session(folder) as session:
            masks = everything(session)["masks"]
            assert done <= masks.keys()
            # where the sides meet, how far they agree is known only when the second one has come there
            assert all(masks[key][:4] == expected["masks"][key][:4] for key in masks)
    with open_session(folder, DriftingFollower()) as session:
        for _ in resume(session):
            pass
        assert everything(session) == expected and session.unfinished is None
        files = [sorted(path.glob("*/history-*/*.bin")) for path in (tmp_path / "whole", tmp_path / "killed")]
        assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
        session.undo()
        assert len(everything(session)["masks"]) == 4


def test_ten_kills_of_a_person_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("session", "compaction"):  # the disk is given back every few commands
        monkeypatch.setattr(f"grounded_sam2.session.{module}.SLACK_BYTES", 300)
    monkeypatch.setattr("grounded_sam2.session.history.UNDO_LIMIT", 4)
    with make_session(tmp_path, num_frames=4) as session:
        folder = session.folder
        add_object(session, 0, mask=box_mask(0, 0, 2, 2))

    def mask_of(turn: int) -> np.ndarray:
        return box_mask(0, 0, 3 + turn % 50, 3 + turn % 41)

    def work(say: Callable[[str], None]) -> None:
        with open_session(folder) as session:
            say("begun")
            while True:
                turn = session.history.done[-1].seq
                set_mask(session, 1, turn % 4, mask_of(turn))
                say(str(turn))
                if turn % 3 == 0:
                    session.undo()
                    session.redo()

    rng = random.Random(0)
    last = 0
    for _ in range(NUM_KILLS):
        last = max([last, *map(int, killed(work, rng.uniform(0, 0.1)))])
        with open_session(folder) as session:
            turn = session.history.done[-1].seq - 1
            if session.history.undone:
                turn += 1
                session.redo()
            assert turn >= last
            last = turn
            for earlier in range(max(turn - 3, 1), turn + 1):
                np.testing.assert_array_equal(session.mask(1, earlier % 4), mask_of(earlier))
    assert last > NUM_KILLS and len([*folder.glob("history-*")]) == 1
