"""Fair turns on what only one may use at a time: the model, which all sessions share, and a session itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["FRAME", "PERSON", "BusyError", "Turns"]

PERSON, FRAME = 0, 1  # who waits: a person for an answer, or a long job for its next frame


class BusyError(Exception):
    """No turn came in time; the message says so to a person."""


@dataclass(eq=False)
class _Ticket:
    who: str
    urgency: int
    number: int  # in the order in which they came
    is_called: bool = False
    event: threading.Event = field(default_factory=threading.Event)


class Turns:
    """One turn at a time, given so that everybody comes to it.

        with turns.turn("session 3", PERSON):
            ...

    Who had a turn since another one came waits until that one had its turn too: with N who want more and more of them,
    each gets every N-th. Among those who wait for nobody, persons come before frames of jobs, and then the first to
    come; where all wait for somebody, whose last turn is longest ago.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Ticket] = []
        self._is_taken = False
        self._last_turn: dict[str, tuple[int, int]] = {}  # who → the turn's number, and of the newest ticket then
        self._num_tickets = self._num_turns = 0

    @contextmanager
    def turn(self, who: str, urgency: int = PERSON, timeout: float | None = None) -> Iterator[None]:
        """Wait for a turn, and have it for the length of the block. Not to be entered again within.

        Args:
            who: shares turns with nobody else; what it does itself is in order.
            urgency: PERSON or FRAME.
            timeout: seconds to wait; None: as long as it takes.

        Raises:
            BusyError: it did not come in time.
        """
        ticket = self._take_ticket(who, urgency)
        if not ticket.event.wait(timeout) and self._is_given_up(ticket):
            raise BusyError("Others are using the model just now and your turn did not come in time: try again.")
        try:
            yield
        finally:
            with self._lock:
                self._is_taken = False
                self._call_next()

    def is_idle(self) -> bool:
        """Whether nobody has a turn or waits for one."""
        with self._lock:
            return not self._is_taken and not self._waiting

    def wait_until_idle(self, stop: threading.Event, poll: float = 0.05) -> None:
        """Wait until nobody wants a turn, or until `stop` is set; for work that nobody waits for."""
        while not self.is_idle() and not stop.is_set():
            time.sleep(poll)

    def _take_ticket(self, who: str, urgency: int) -> _Ticket:
        with self._lock:
            self._num_tickets += 1
            ticket = _Ticket(who, urgency, self._num_tickets)
            self._waiting.append(ticket)
            self._call_next()
        return ticket

    def _is_given_up(self, ticket: _Ticket) -> bool:
        """Take a ticket back, unless it was called in the last moment."""
        with self._lock:
            if ticket.is_called:
                return False
            self._waiting.remove(ticket)
            return True

    def _call_next(self) -> None:
        if self._is_taken or not self._waiting:
            return
        ticket = min(self._waiting, key=self._place)
        self._waiting.remove(ticket)
        self._is_taken = ticket.is_called = True
        self._num_turns += 1
        self._last_turn[ticket.who] = (self._num_turns, self._num_tickets)
        if not self._waiting:  # nobody has anybody to wait for
            self._last_turn.clear()
        ticket.event.set()

    def _place(self, ticket: _Ticket) -> tuple[int, int, int]:
        """What tickets are called by, the lowest first."""
        number, newest = self._last_turn.get(ticket.who, (0, 0))
        is_behind = any(other.who != ticket.who and other.number <= newest for other in self._waiting)
        return number if is_behind else 0, ticket.urgency, ticket.number
