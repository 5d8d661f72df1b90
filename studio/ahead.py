"""Frames that are looked at are encoded while nobody needs the model: the first click on them is answered at once."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import numpy as np

from studio.turns import FRAME

if TYPE_CHECKING:
    from studio.room import Room

__all__ = ["Ahead"]

logger = logging.getLogger(__name__)


class Ahead:
    """Encodes the frame that each session's page shows; the newest wish of a session replaces the one before."""

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
