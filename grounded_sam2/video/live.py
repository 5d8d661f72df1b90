"""Live frames: read in the background, kept up with, and gone on with after the connection was lost."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from types import TracebackType
from typing import Literal, get_args

from grounded_sam2.images import RGBImage, letterboxed
from grounded_sam2.script import NoFrameError
from grounded_sam2.video.capture import Capture, CapturedFrame, CorruptFrameError, name_of, open_capture
from grounded_sam2.video.frame_source import FrameSource
from grounded_sam2.video.timing import exact_fps
from sam2.frames.decoding import DEFAULT_FPS

__all__ = ["LatencyPolicy", "LiveStream"]

logger = logging.getLogger(__name__)

LatencyPolicy = Literal["drop", "queue"]

LONGEST_DELAY = 10.0  # seconds from one try to reconnect to the next
CLOSE_SECONDS = 2.0  # that `close` waits for a read under way
QUEUE_BYTES = 256 * 2**20
_POLL_SECONDS = 0.1  # between two looks at `stop`

_Timed = tuple[float, float, RGBImage]  # when a frame was captured, when a recording shows it, and its picture


class LiveStream(FrameSource):
    """A camera, a RealSense, a stream or a file, played at its own pace and read in a thread of its own.

        with LiveStream("rtsp://192.168.1.20/stream1", stop=stop) as frames:
            for image in frames:
                ...

    All frames have the size of the first: when the source changes its own, they are scaled to fit and framed in black.
    Frames that do not decode are left out. When the connection is lost, or nothing comes for `timeout_seconds`, it is
    opened again, after a delay that doubles from try to try. When no try succeeds, the frames end, and leaving the
    `with` block raises ConnectionError, by which time the writers that were opened inside it have put their files in
    place. A file or a finite URL plays once, at its own rate, from when its frames are first asked for; then the frames
    end. All this is logged as warnings and counted.

    Attributes:
        name: what was opened, without the password of a URL.
        fps: as the source states it; with the policy "drop" fewer frames may be yielded.
        captured_at: when the frame yielded last was captured, in seconds on the clock of `time.monotonic`.
        seconds: the same, from the capture of the first frame that was yielded; in a file, by the file's own times.
        num_captured: whole frames that came.
        num_dropped: of these, those that newer ones took the place of.
        num_corrupt: frames that did not decode.
        num_reconnects: times that the source came back.
        num_size_changes: times that the size of its frames changed.
        is_live: whether the source is gone on with after its end; False for files and finite URLs.
        lost: why the frames ended, when the source did not come back; otherwise None.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | int,
        *,
        latency: LatencyPolicy = "drop",
        queue_frames: int = 100,
        timeout_seconds: float = 10.0,
        reconnect_tries: int = 8,
        reconnect_delay: float = 0.5,
        stop: threading.Event | None = None,
        default_fps: float | Fraction = DEFAULT_FPS,
    ) -> None:
        """
        Args:
            source: a camera index (`0` or `"0"`); "realsense", or "realsense:" and a serial number; an RTSP, HTTP, ...
                URL; a video file.
            latency: what happens to frames that come faster than they are asked for. "drop": only the newest is kept,
                so that what is yielded is never old. "queue": all are kept, in order, and once the queue is full
                nothing more is read until there is room. A file or a server waits then; what a camera overwrites
                meanwhile is its own loss and not in `num_dropped`.
            queue_frames: the longest that the queue gets; less where these frames would take more than 256 MiB.
            timeout_seconds: without a whole frame, until the connection is taken for lost.
            reconnect_tries: in a row without a frame, until the source is given up; 0 gives up at once.
            reconnect_delay: seconds before the first try; doubles with each up to 10 s.
            stop: ends the frames soon after it is set, whatever is being waited for; the first is yielded in any case,
                so that no recording is empty.
            default_fps: frames per second of a source that does not state any.

        Raises:
            FileNotFoundError: no such file.
            ValueError: another policy, limits that are not positive, or a source that cannot be opened or gives no
                frame; the first connection is tried only once.
            NoFrameError: `stop` was set before the first frame came.
        """
        if latency not in get_args(LatencyPolicy):
            raise ValueError(f"expected a latency policy of {' or '.join(get_args(LatencyPolicy))}, got {latency!r}")
        if queue_frames < 1 or timeout_seconds <= 0 or reconnect_tries < 0 or reconnect_delay < 0:
            raise ValueError(
                "expected queue_frames >= 1, timeout_seconds > 0, reconnect_tries >= 0 and reconnect_delay >= 0, got "
                f"{queue_frames}, {timeout_seconds}, {reconnect_tries}, {reconnect_delay}"
            )
        self.source = source
        self.name = name_of(source)
        self.fps = exact_fps(default_fps)
        self.latency = latency
        self.timeout_seconds = timeout_seconds
        self.reconnect_tries = reconnect_tries
        self.reconnect_delay = reconnect_delay
        self.captured_at = 0.0
        self.seconds: float = 0.0
        self.num_captured = self.num_dropped = self.num_corrupt = self.num_reconnects = self.num_size_changes = 0
        self.lost: ConnectionError | None = None
        self.is_live = True
        self.width = self.height = 0  # until the first frame
        self._queue_frames = queue_frames
        self._stop = stop or threading.Event()
        self._num_tries = 0  # since the last whole frame
        self._last_size = (0, 0)
        self._is_iterated = self._has_yielded = False
        self._has_ended = False  # the reader thread has
        self._error: Exception | None = None  # by which it ended
        self._process_id = os.getpid()
        self._closing = threading.Event()
        self._changed = threading.Condition()  # of all the above that both threads use
        self._buffer: deque[_Timed] = deque()
        self._thread = threading.Thread(target=self._run, name=f"live {self.name}", daemon=True)
        self._thread.start()
        try:
            self._await_first_frame()
        except BaseException:
            self.close()
            raise

    # -- the consumer's side --

    def _await_first_frame(self) -> None:
        deadline = time.monotonic() + 3 * self.timeout_seconds  # to open it, to probe it, to come to a key frame
        with self._changed:
            while not self._buffer and not self._has_ended and not self._stop.is_set():
                if time.monotonic() > deadline:
                    raise ValueError(f"{self.name}: no frame came within {3 * self.timeout_seconds:g} s")
                self._changed.wait(_POLL_SECONDS)
            if self._error is not None and not self._buffer:
                raise self._error
            if self._stop.is_set():
                raise NoFrameError(f"{self.name}: stopped before its first frame came")

    def __iter__(self) -> Iterator[RGBImage]:
        with self._changed:
            if self._is_iterated:
                raise RuntimeError(f"the frames of {self.name} come only once: make a new LiveStream(...)")
            self._is_iterated = True
            self._changed.notify_all()
        return self._stream()

    def _stream(self) -> Iterator[RGBImage]:
        first_at: float | None = None
        try:
            while (frame := self._next_frame()) is not None:
                self.captured_at, shown_at, image = frame
                if first_at is None:
                    first_at = shown_at
                    self.captured_at = self.captured_at if self.is_live else time.monotonic()  # a file starts now
                self.seconds = shown_at - first_at
                yield image
        finally:
            self.close()

    def _next_frame(self) -> _Timed | None:
        """Wait for a frame; None at the end."""
        if os.getpid() != self._process_id:
            raise RuntimeError(f"{self.name} is read in the process that opened it: make a new LiveStream(...) here")
        with self._changed:
            while not self._closing.is_set() and (not self._stop.is_set() or not self._has_yielded):
                if self._buffer:
                    self._changed.notify_all()
                    self._has_yielded = True
                    return self._buffer.popleft()
                if self._has_ended:
                    if self._error is not None:
                        raise self._error
                    return None
                self._changed.wait(_POLL_SECONDS)
            return None

    def report(self) -> str:
        """One line on what came and what was lost."""
        losses = {
            "dropped": self.num_dropped,
            "corrupt": self.num_corrupt,
            "reconnections": self.num_reconnects,
            "changes of size": self.num_size_changes,
        }
        counted = [f"{what} {count}" for what, count in losses.items() if count]
        return ", ".join([f"{self.num_captured} frames came from {self.name}", *counted])

    def close(self) -> None:
        """End the frames and release the source. Closing twice is harmless.

        Returns after two seconds at the latest: a read that hangs in a driver is left to its thread, which releases
        the source once it comes back.
        """
        if os.getpid() != self._process_id:
            return  # the source is open in the process that this one was forked from
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            logger.debug("%s is still being read; it is released after that", self.name)
        self._buffer.clear()

    def __enter__(self) -> LiveStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if kind is None and self.lost is not None:
            raise self.lost

    # -- the reader thread's side --

    def _run(self) -> None:
        try:
            first = open_capture(self.source, self.timeout_seconds)
            self.fps = first.fps or self.fps
            self.is_live = first.is_live
            capture: Capture | None = first
            while capture is not None:
                ending = self._read_to_the_end(capture)
                if not self.num_captured and not self._closing.is_set():
                    raise ValueError(f"{self.name}: expected at least one frame, got none: {ending}")
                capture = self._reconnected(ending) if self.is_live and not self._closing.is_set() else None
        except Exception as error:  # handed to the consumer, who waits for a frame
            self._error = error
        finally:
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()

    def _read_to_the_end(self, capture: Capture) -> str:
        """Take in frames until no more come; returns why."""
        last_frame_at = time.monotonic()
        clock_offset: float | None = None
        try:
            while not self._closing.is_set():
                try:
                    frame = capture.read()
                except CorruptFrameError as error:
                    self._count_corrupt(error)
                    if time.monotonic() - last_frame_at > self.timeout_seconds:
                        return f"no whole frame came for {self.timeout_seconds:g} s"
                    continue
                if frame is None:
                    return "it ended"
                if not capture.is_live:
                    if self.num_captured == 1:
                        self._wait_until_asked()
                        clock_offset = None
                    clock_offset = time.monotonic() - frame.seconds if clock_offset is None else clock_offset
                    self._closing.wait(frame.seconds + clock_offset - time.monotonic())
                self._take(frame)
                last_frame_at = time.monotonic()
        except OSError as error:
            if not capture.is_live:
                logger.warning("%s ended early: %s", self.name, error)
            return str(error)
        finally:
            capture.close()
        return "closed"

    def _wait_until_asked(self) -> None:
        """A file does not play before its frames are asked for: models may still have to be built."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_iterated or self._closing.is_set())

    def _take(self, frame: CapturedFrame) -> None:
        """Put a frame where the consumer finds it, as the latency policy has it."""
        captured_at = time.monotonic()
        size = (frame.image.shape[1], frame.image.shape[0])
        if not self.num_captured:
            self.width, self.height = size
        elif size != self._last_size:
            self.num_size_changes += 1
            logger.warning("%s: its frames are %dx%d now, shown in %dx%d", self.name, *size, *self.size)
        self._last_size = size
        if self._num_tries:
            logger.warning("%s is back", self.name)
            self.num_reconnects += 1
            self._num_tries = 0
        image = letterboxed(frame.image, self.size)
        with self._changed:
            if self.latency == "drop":
                self.num_dropped += len(self._buffer)
                self._buffer.clear()
            else:
                capacity = max(1, min(self._queue_frames, QUEUE_BYTES // image.nbytes))
                self._changed.wait_for(lambda: len(self._buffer) < capacity or self._closing.is_set())
            self._buffer.append((captured_at, captured_at if self.is_live else frame.seconds, image))
            self.num_captured += 1
            self._changed.notify_all()

    def _count_corrupt(self, error: CorruptFrameError) -> None:
        self.num_corrupt += 1
        level = logging.WARNING if self.num_corrupt == 1 else logging.DEBUG
        logger.log(level, "%s: a damaged frame is left out: %s", self.name, error)

    def _reconnected(self, problem: str) -> Capture | None:
        """Open the source again; None once it is given up, or closed."""
        while self._num_tries < self.reconnect_tries:
            delay = min(self.reconnect_delay * 2**self._num_tries, LONGEST_DELAY)
            self._num_tries += 1
            logger.warning(
                "%s was lost: %s; try %d of %d to get it back, in %.1f s",
                self.name, problem, self._num_tries, self.reconnect_tries, delay,
            )  # fmt: skip
            if self._closing.wait(delay):
                return None
            try:
                return open_capture(self.source, self.timeout_seconds)
            except (OSError, ValueError) as error:
                problem = str(error)
        self.lost = ConnectionError(
            f"{self.name} was lost after {self.num_captured} frames and did not come back in "
            f"{self.reconnect_tries} tries: {problem}"
        )
        logger.warning("%s is given up", self.name)
        return None
