"""A process that propagates is killed at random moments: nothing that was done is lost, and going on ends the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from session_parts import DriftingFollower, box_mask, everything, make_session

from grounded_sam2.session import Session, add_object, open_session, propagate, set_mask

NUM_FRAMES = 60
WORK = """
    import sys, time
    from session_parts import DriftingFollower, DriftingVideo
    from grounded_sam2.session import open_session, propagate, resume

    class Slow(DriftingVideo):
        def follow(self, frame_idx, reverse=False):
            for found in super().follow(frame_idx, reverse):
                time.sleep(0.005)
                yield found

    class SlowFollower(DriftingFollower):
        def open_video(self, frames):
            return Slow(frames)

    with open_session(sys.argv[1], SlowFollower()) as session:
        print("open", flush=True)
        for progress in resume(session, float(sys.argv[2])) if session.unfinished else propagate(session):
            print(*(f"{obj_id}:{progress.frame_idx}" for obj_id in progress.obj_ids), flush=True)
    print("done", flush=True)
"""


def prepared(folder: Path) -> Session:
    session = make_session(folder, num_frames=NUM_FRAMES)
    for t, mask in ((5, box_mask(4, 4, 12, 12)), (40, box_mask(30, 20, 40, 30))):
        obj_id = add_object(session, t, mask=mask)
    set_mask(session, obj_id, 50, box_mask(1, 1, 9, 9))
    set_mask(session, obj_id, 20, box_mask(1, 1, 9, 9))
    return session


@pytest.mark.slow
@pytest.mark.parametrize("save_every", [0.02, 1e9])
def test_ten_kills(tmp_path: Path, save_every: float) -> None:
    with prepared(tmp_path / "whole") as session:
        for _ in propagate(session):
            pass
        expected = everything(session)
    with prepared(tmp_path / "killed") as session:
        folder = session.folder
    rng = random.Random(0)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", textwrap.dedent(WORK), str(folder), str(save_every)]
    done: set[tuple[int, int]] = set()
    for _ in range(10):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
            assert child.stdout is not None and child.stdout.readline() == "open\n"
            time.sleep(rng.uniform(0, 0.12))
            child.send_signal(signal.SIGKILL)
            printed = child.stdout.read().split()
        done |= {tuple(map(int, word.split(":"))) for word in printed if word.count(":") == 1 and word != "done"}  # type: ignore[misc]
        with open_session(folder, DriftingFollower()) as session:
            masks = everything(session)["masks"]
            assert done <= masks.keys() and all(masks[key][:2] == expected["masks"][key][:2] for key in masks)
            assert np.array(session.mask(1, 5)).sum() == 64
    assert len(done) > 10
    subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE)
    with open_session(folder) as session:
        assert everything(session) == expected and session.unfinished is None
        files = [sorted(path.glob("*/history-*/*.bin")) for path in (tmp_path / "whole", tmp_path / "killed")]
        assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
        session.undo()
        assert len(everything(session)["masks"]) == 4
