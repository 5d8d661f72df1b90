"""What the pages of a session are told as it happens: each of them has a queue that cannot grow without bound."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any

__all__ = ["Hub", "Subscriber"]

MOST_PROGRESS = 200  # events that wait for a slow reader; older ones go
ALIVE_SECONDS = 15.0  # from one sign of life to the next

Event = dict[str, Any]


class Subscriber:
    """One page that listens. What it did not read yet is kept: all news of state and jobs, the latest of progress."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._waiting: OrderedDict[object, Event] = OrderedDict()
        self._num_events = 0
        self._num_progress = 0
        self._has_some = asyncio.Event()
        self.is_ended = False

    def put(self, event: Event) -> None:
        """Add an event, from any thread; an older one that it makes needless goes."""
        with self._lock:
            if event["event"] == "progress":
                self._put_progress(event)
            elif event["event"] == "job":
                self._replace(("job", event["job"]["id"]), event)
            else:
                before = self._waiting.get("state", {})
                touched = _united(before.get("touched", []), event.get("touched", []))
                self._replace("state", {**event, "touched": touched})
        self._wake()

    def end(self) -> None:
        """Let the reader come to its end."""
        self.is_ended = True
        self._wake()

    async def lines(self) -> AsyncIterator[str]:
        """The events as server-sent events, with a comment now and then that keeps the connection alive."""
        while not self.is_ended:
            try:
                await asyncio.wait_for(self._has_some.wait(), ALIVE_SECONDS)
            except asyncio.TimeoutError:
                yield ": alive\n\n"
                continue
            self._has_some.clear()
            with self._lock:
                events = list(self._waiting.values())
                self._waiting.clear()
                self._num_progress = 0
            for event in events:
                yield f"data: {json.dumps(event)}\n\n"

    def _put_progress(self, event: Event) -> None:
        if self._num_progress == MOST_PROGRESS:
            oldest = next(key for key, waiting in self._waiting.items() if waiting["event"] == "progress")
            del self._waiting[oldest]
        else:
            self._num_progress += 1
        self._num_events += 1
        self._waiting[self._num_events] = event

    def _replace(self, key: object, event: Event) -> None:
        self._waiting.pop(key, None)
        self._waiting[key] = event

    def _wake(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._has_some.set)


def _united(one: list[list[int]], other: list[list[int]]) -> list[list[int]]:
    """Spans [id, first, last] that hold both lists' spans, one for each object."""
    spans: dict[int, list[int]] = {}
    for obj_id, first, last in [*one, *other]:
        span = spans.setdefault(obj_id, [obj_id, first, last])
        span[1:] = [min(span[1], first), max(span[2], last)]
    return list(spans.values())


class Hub:
    """The pages of one session that listen."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def __len__(self) -> int:
        return len(self._subscribers)

    def subscribe(self) -> Subscriber:
        """Listen from now on; to be called in the event loop that reads."""
        subscriber = Subscriber(asyncio.get_running_loop())
        self._subscribers = [*self._subscribers, subscriber]
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        self._subscribers = [each for each in self._subscribers if each is not subscriber]

    def publish(self, event: Event) -> None:
        """Tell all pages, from any thread."""
        for subscriber in self._subscribers:
            subscriber.put(event)

    def end(self) -> None:
        """Let all readers come to their end."""
        for subscriber in self._subscribers:
            subscriber.end()
