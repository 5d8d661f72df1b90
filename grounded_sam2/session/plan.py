"""Where an object is tracked from which conditioning frames; see `grounded_sam2.session.propagation`."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

from grounded_sam2.session.cells import BACKWARD, FORWARD
from grounded_sam2.session.session import Session

__all__ = ["Direction", "Stretch", "gap_around", "plan"]

Direction: TypeAlias = Literal["forward", "backward", "both"]


@dataclass(frozen=True)
class Stretch:
    """Where one object is tracked from one conditioning frame, in one direction.

    Attributes:
        obj_id: the object.
        side: FORWARD or BACKWARD.
        start: the conditioning frame.
        stop: the last frame that is tracked.
        seam: the frame that the other side has tracked and this one only compares; None: no such frame.
        conditions: the conditioning frames that are given to the model, in order.
    """

    obj_id: int
    side: int
    start: int
    stop: int
    seam: int | None
    conditions: tuple[int, ...]


def gap_around(session: Session, obj_id: int, frame_idx: int) -> tuple[int, int]:
    """The span that a correction on a frame concerns: between the conditioning frames before and after it.

    Returns:
        The first and the last frame; those conditioning frames, or the ends of the video.
    """
    given = session.given_frames(obj_id)
    before = max((t for t in given if t < frame_idx), default=0)
    return before, min((t for t in given if t > frame_idx), default=session.num_frames - 1)


def plan(session: Session, obj_id: int, first: int, last: int, direction: Direction) -> list[Stretch]:
    """The stretches that together give an object its masks in a span; none for one without conditioning frames."""
    given = session.given_frames(obj_id)
    if not given:
        return []
    home = session.object(obj_id).home_frame
    home = home if home in given else given[0]
    stretches = []

    def add(side: int, start: int, stop: int, other: int | None = None, seam: int | None = None) -> None:
        conditions = tuple(sorted({start, home} if other is None else {start, other, home}))
        stretches.append(Stretch(obj_id, side, start, stop, seam, conditions))

    for before, after in pairwise(given):
        meet = (before + after) // 2  # the last frame that is not nearer to the later one
        if meet > before and before < last and first <= meet:
            add(FORWARD, before, min(meet, last), after)
        if meet + 1 < after and first < after and meet < last:
            seam = meet if first <= meet else None
            add(BACKWARD, after, max(meet + 1, first) if seam is None else seam, before, seam)
    if direction != "backward" and last > given[-1]:
        add(FORWARD, given[-1], last)
    if direction != "forward" and first < given[0]:
        add(BACKWARD, given[0], first)
    return stretches
