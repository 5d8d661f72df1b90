"""Turns are fair, whoever wants how many; tested with threads that note when they had theirs."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

pytest.importorskip("gradio")

from studio.turns import FRAME, PERSON, BusyError, Turns


class Queue:
    """Threads that wait for turns, in a known order, while the test has one itself."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.had: list[str] = []
        self._threads: list[threading.Thread] = []
        self._blocker = self.turns.turn("test")
        self._blocker.__enter__()

    def want(self, who: str, urgency: int = PERSON) -> None:
        """Let a thread wait for a turn; when this returns, it does."""

        def wait() -> None:
            with self.turns.turn(who, urgency):
                self.had.append(who)

        before = len(self.turns._waiting)
        self._threads.append(threading.Thread(target=wait))
        self._threads[-1].start()
        wait_until(lambda: len(self.turns._waiting) > before)

    def go(self) -> list[str]:
        """Give the turns; returns who had one, in order."""
        self._blocker.__exit__(None, None, None)
        for thread in self._threads:
            thread.join(5)
        return self.had


def wait_until(is_so: Callable[[], bool], seconds: float = 5.0) -> None:
    ends = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < ends
        time.sleep(0.001)


def test_first_come_first_served() -> None:
    queue = Queue()
    for who in "abcd":
        queue.want(who)
    assert queue.go() == ["a", "b", "c", "d"]
    assert queue.turns.is_idle()


def test_persons_come_before_frames_of_jobs() -> None:
    queue = Queue()
    for who, urgency in (("a", FRAME), ("b", FRAME), ("c", PERSON), ("d", PERSON)):
        queue.want(who, urgency)
    assert queue.go() == ["c", "d", "a", "b"]


def test_nobody_has_a_second_turn_while_another_waits() -> None:
    queue = Queue()
    for who in ("a", "a", "a", "b", "c", "c"):
        queue.want(who)
    assert queue.go() == ["a", "b", "c", "a", "c", "a"]


def test_clicks_of_many_do_not_keep_a_job_from_its_frames() -> None:
    queue = Queue()
    for who in ("a", "b", "a", "b", "a", "b"):
        queue.want(who)
    queue.want("job", FRAME)
    assert queue.go() == ["a", "b", "job", "a", "b", "a", "b"]


def test_in_one_session_a_click_comes_before_the_next_frame() -> None:
    queue = Queue()
    queue.want("a", FRAME)
    queue.want("a", PERSON)
    queue.want("b", FRAME)
    assert queue.go() == ["a", "b", "a"]


@pytest.mark.parametrize(("jobs", "share"), [("", 0.9), ("abcdefgh", 0.9), ("abcd", 0.5)])
def test_eight_who_always_want_more_get_alike(jobs: str, share: float) -> None:
    """Those in `jobs` want frames, and get somewhat less than persons, who come first when all have waited alike."""
    turns, stop, had = Turns(), threading.Event(), Counter[str]()

    def want_always(who: str) -> None:
        while not stop.is_set():
            with turns.turn(who, FRAME if who in jobs else PERSON):
                had[who] += 1
                time.sleep(0.001)

    threads = [threading.Thread(target=want_always, args=(who,)) for who in "abcdefgh"]
    for thread in threads:
        thread.start()
    wait_until(lambda: sum(had.values()) > 400, 20)
    stop.set()
    for thread in threads:
        thread.join(5)
    assert set(had) == set("abcdefgh")
    assert min(had.values()) >= share * max(had.values())


def test_who_waited_too_long_is_told_so_and_leaves_the_others_in_order() -> None:
    queue = Queue()
    queue.want("a")
    with pytest.raises(BusyError, match="did not come in time"), queue.turns.turn("late", timeout=0.01):
        raise AssertionError("had a turn")
    queue.want("b")
    assert queue.go() == ["a", "b"]


def test_an_error_gives_the_turn_back() -> None:
    turns = Turns()
    with pytest.raises(KeyError), turns.turn("a"):
        raise KeyError
    with turns.turn("a", timeout=1):
        assert not turns.is_idle()
    assert turns.is_idle()


def test_waiting_until_nobody_wants_a_turn() -> None:
    turns, stop = Turns(), threading.Event()
    waited = threading.Thread(target=turns.wait_until_idle, args=(stop, 0.001))
    with turns.turn("a"):
        waited.start()
        time.sleep(0.02)
        assert waited.is_alive()
    waited.join(5)
    assert not waited.is_alive()
    with turns.turn("a"):
        stop.set()
        turns.wait_until_idle(stop)  # the server ends
