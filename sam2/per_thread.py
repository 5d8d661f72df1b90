"""Attributes that several threads can set without getting into each other's way."""

from __future__ import annotations

import threading
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["PerThread"]

T = TypeVar("T")


class PerThread(Generic[T]):
    """An attribute that each thread sets for itself. A thread that has set none reads what was set last.

    So two threads may each set an image and predict on it, and one may set an image that others predict on. A thread's
    value is let go with the thread. A copy has what was set last, for all threads.

        class Predictor:
            _features = PerThread[Features | None]()
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> T:
        values: _Values[T] = vars(instance)[self._name]
        return values.own.get(threading.current_thread(), values.latest)

    def __set__(self, instance: Any, value: T) -> None:
        values: _Values[T] | None = vars(instance).get(self._name)
        if values is None:
            values = vars(instance)[self._name] = _Values(value)
        values.own[threading.current_thread()] = values.latest = value


class _Values(Generic[T]):
    """What each thread set."""

    def __init__(self, latest: T) -> None:
        self.latest = latest
        self.own: WeakKeyDictionary[threading.Thread, T] = WeakKeyDictionary()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Values, (self.latest,)
