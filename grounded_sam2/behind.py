"""Work that follows the main loop in a thread of its own, such as drawing and writing what the model has found."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import ParamSpec

__all__ = ["Behind"]

P = ParamSpec("P")

logger = logging.getLogger(__name__)


class Behind:
    """Calls made in a thread, one after another in the order they were given, while the caller goes on.

        with VideoWriter(path, fps) as video, Behind() as behind:
            for image in images:
                behind.do(video.write, image)

    A call that fails is the last one; its error is raised where the next call is given, or at the end of the `with`
    block. A block that ends with an error of its own keeps that one; calls already given are made in any case.

    Args:
        most: calls that may wait; giving another one then takes until the oldest is done.
    """

    def __init__(self, most: int = 4) -> None:
        self._most = most
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="behind")
        self._waiting: deque[Future[None]] = deque()
        self._has_failed = False

    def do(self, call: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Make a call later; what it works on is not to change meanwhile."""
        while self._waiting and (len(self._waiting) >= self._most or self._waiting[0].done()):
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._call, partial(call, *args, **kwargs)))

    def _call(self, call: Callable[[], object]) -> None:
        if self._has_failed:
            return
        try:
            call()
        except BaseException:
            self._has_failed = True
            raise

    def __enter__(self) -> Behind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)
        for done in self._waiting:
            failure = done.exception()
            if failure is not None and kind is None:
                raise failure
            if failure is not None:
                logger.debug("also failed: %s", failure)
