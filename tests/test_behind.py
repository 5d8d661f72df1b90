"""Calls made in a thread behind the caller: in order, bounded, and no error lost."""

import threading

import pytest

from grounded_sam2.behind import Behind


def fail(message: str) -> None:
    raise OSError(message)


def test_calls_are_made_in_order_and_all() -> None:
    made: list[tuple[int, str]] = []
    with Behind(most=2) as behind:
        for number in range(50):
            behind.do(lambda n: made.append((n, threading.current_thread().name)), number)
    assert [number for number, _ in made] == list(range(50))
    assert {name for _, name in made} == {"behind_0"}


def test_no_more_than_so_many_wait() -> None:
    may_go_on = threading.Event()
    with Behind(most=2) as behind:
        for _ in range(2):
            behind.do(may_go_on.wait)
        third = threading.Thread(target=behind.do, args=[may_go_on.wait])
        third.start()
        third.join(0.1)
        assert third.is_alive()
        may_go_on.set()
        third.join(10)
        assert not third.is_alive()


def test_an_error_is_raised_at_a_later_call_and_nothing_is_done_after_it() -> None:
    made: list[int] = []
    with pytest.raises(OSError, match="disk full"), Behind(most=1) as behind:
        behind.do(fail, "disk full")
        for number in range(3):
            behind.do(made.append, number)
    assert made == []


def test_an_error_of_the_last_call_is_raised_at_the_end() -> None:
    with pytest.raises(OSError, match="disk full"), Behind() as behind:
        behind.do(fail, "disk full")


def test_calls_given_before_an_error_of_the_block_are_made_and_the_error_stays() -> None:
    made: list[int] = []
    with pytest.raises(KeyboardInterrupt), Behind() as behind:
        behind.do(made.append, 1)
        behind.do(fail, "disk full")
        raise KeyboardInterrupt
    assert made == [1]
