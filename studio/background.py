"""What is done for sessions while nobody needs the model: frames are encoded ahead, and scene cuts are looked for."""

from __future__ import annotations

import logging
import queue
import threading

import numpy as np

from studio.cuts import find_cuts, read_cuts, write_cuts
from studio.room import Room
from studio.turns import FRAME

__all__ = ["Ahead", "CutFinder"]

logger = logging.getLogger(__name__)


class Ahead:
    """Encodes the frame that each session's page shows, so that the first click on it is answered at once.

    The newest wish of a session replaces the one before.
    """

    def __init__(self) -> None:
        self._wishes: dict[str, tuple[Room, int]] = {}
        self._lock = threading.Lock()
        self._has_some = threading.Event()

    def wish(self, room: Room, frame_idx: int) -> None:
        """Say that a frame is looked at, from any thread."""
        with self._lock:
            self._wishes[room.token] = (room, frame_idx)
        self._has_some.set()

    def run(self, stop: threading.Event) -> None:
        """Fulfil wishes until `stop` is set; for a thread of its own."""
        while not stop.is_set():
            self._has_some.wait(1.0)
            with self._lock:
                token = next(iter(self._wishes), None)
                if token is None:
                    self._has_some.clear()
                    continue
            room = self._wishes[token][0]
            room.models.turns.wait_until_idle(stop)
            with self._lock:
                room, frame_idx = self._wishes.pop(token)
            try:
                with room.use(with_model=True, urgency=FRAME) as session:
                    session.scratch.propose(frame_idx, np.array([[0, 0, *session.size]], np.float32))
            except Exception as error:  # it was only for speed
                logger.debug("frame %d of %s is not encoded ahead: %s", frame_idx, room.token[:4], error)


class CutFinder:
    """Looks for the cuts of one session after another, while nobody needs the model."""

    def __init__(self) -> None:
        self._rooms: queue.SimpleQueue[Room] = queue.SimpleQueue()

    def ask(self, room: Room) -> None:
        """Look for the cuts of a session some time soon, from any thread."""
        self._rooms.put(room)

    def run(self, stop: threading.Event) -> None:
        """Do what is asked for until `stop` is set; for a thread of its own."""
        while not stop.is_set():
            try:
                room = self._rooms.get(timeout=1.0)
            except queue.Empty:
                continue
            if not room.is_gone and read_cuts(room.folder) is None:
                self._look(room, stop)

    def _look(self, room: Room, stop: threading.Event) -> None:
        def check() -> None:
            room.models.turns.wait_until_idle(stop)
            if stop.is_set() or room.is_gone:
                raise InterruptedError

        try:
            cuts = find_cuts(room.shown_frames(), check)
            write_cuts(room.folder, cuts)
            if cuts:
                with room.use() as session:
                    room.note_change(session, [])
        except InterruptedError:
            return
        except Exception as error:  # the timeline goes without
            logger.warning("the cuts of %s were not found: %s", room.token[:4], error)
