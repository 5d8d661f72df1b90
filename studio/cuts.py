"""Where the scenes of a video change: looked for once, in the background, and kept beside the session."""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from grounded_sam2.images import RGBImage

if TYPE_CHECKING:
    from studio.room import Room

__all__ = ["CutFinder", "find_cuts", "read_cuts"]

logger = logging.getLogger(__name__)

CUTS_NAME = "cuts.json"
LEAST_CHANGE = 0.35  # share of the pixels that change their colour's bin at a cut
TIMES_USUAL = 3.0  # by how much that exceeds what is usual around it
NEIGHBOURS = 12  # frames on each side that say what is usual
SMALL = (64, 36)
BINS = 8  # of each colour


def find_cuts(images: Iterable[RGBImage], check: Callable[[], None] = lambda: None) -> list[int]:
    """The frames that begin a new scene: their colours are other than the frame before had.

    Args:
        images: (H, W, 3) uint8 RGB, in order; they are shrunk, and none is kept.
        check: is called for each; what it raises ends this.
    """
    changes, before = [0.0], None
    for image in images:
        check()
        counts = _colour_counts(image)
        if before is not None:
            changes.append(float(np.abs(counts - before).sum()) / 2)
        before = counts
    found = []
    for t in range(1, len(changes)):
        around = changes[max(1, t - NEIGHBOURS) : t] + changes[t + 1 : t + 1 + NEIGHBOURS]
        usual = float(np.median(around)) if around else 0.0
        if changes[t] >= max(LEAST_CHANGE, TIMES_USUAL * usual):
            found.append(t)
    return found


def _colour_counts(image: RGBImage) -> npt.NDArray[np.float64]:
    """How the pixels of a small copy are spread over `BINS`³ colours; sums to 1."""
    small = cv2.resize(image, SMALL, interpolation=cv2.INTER_AREA).astype(np.int64) * BINS // 256
    bins = (small[..., 0] * BINS + small[..., 1]) * BINS + small[..., 2]
    return np.bincount(bins.ravel(), minlength=BINS**3) / bins.size


def read_cuts(folder: Path) -> list[int] | None:
    """What was found before; None: nobody looked yet."""
    path = folder / CUTS_NAME
    if not path.is_file():
        return None
    cuts: list[int] = json.loads(path.read_text(encoding="ascii"))
    return cuts


class CutFinder:
    """Looks for the cuts of one session after another, while nobody needs the model."""

    def __init__(self) -> None:
        self._rooms: queue.SimpleQueue[Room | None] = queue.SimpleQueue()

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
            if room is not None and not room.is_gone and read_cuts(room.folder) is None:
                self._look(room, stop)

    def _look(self, room: Room, stop: threading.Event) -> None:
        def check() -> None:
            room.models.turns.wait_until_idle(stop)
            if stop.is_set() or room.is_gone:
                raise InterruptedError

        try:
            cuts = find_cuts(room.shown_frames(), check)
            partial = room.folder / f".{CUTS_NAME}"
            partial.write_text(json.dumps(cuts), encoding="ascii")
            partial.replace(room.folder / CUTS_NAME)
            if cuts:
                with room.use() as session:
                    room.note_change(session, [])
        except InterruptedError:
            return
        except Exception as error:  # the timeline goes without
            logger.warning("the cuts of %s were not found: %s", room.token[:4], error)
