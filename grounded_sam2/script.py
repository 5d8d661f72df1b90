"""How a script runs and ends: between two frames on a signal, and with one clear line when the input is bad."""

import contextlib
import io
import logging
import os
import queue
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, TextIO, TypeVar, cast

from sam2.shown import shown

__all__ = [
    "NoFrameError",
    "StopRequest",
    "StoppableFrames",
    "StoppedError",
    "out_of_memory",
    "run",
    "script_errors",
    "stop_on_signals",
    "typed_lines",
]

T = TypeVar("T")

TRACEBACK_VARIABLE = "GROUNDED_SAM2_TRACEBACK"
# what torch, oneDNN and the system say when there is no room
_NO_MEMORY = (
    "not enough memory",
    "cannot allocate memory",
    "can't allocate memory",
    "std::bad_alloc",
    "start new thread",
)
_LONGEST_ERROR = 600  # characters; weights that do not fit a model give a line for each tensor


class StoppedError(KeyboardInterrupt):
    """A run was asked to end before its last frame; what writers hold is finished and kept, as after Ctrl-C.

    Attributes:
        signal_number: of the signal that asked.
    """

    def __init__(self, signal_number: signal.Signals, num_frames: int) -> None:
        super().__init__(f"stopped by {signal_number.name} after {num_frames} frames")
        self.signal_number = signal_number


class NoFrameError(ConnectionAbortedError):
    """A live source was stopped before its first frame: the normal end of a run that has nothing to write."""


class StopRequest(threading.Event):
    """Set once a run is asked to end; see `stop_on_signals`.

    Attributes:
        signal_number: of the signal that asked; None before.
    """

    signal_number: signal.Signals | None = None

    def frames(self, frames: Iterable[T], max_frames: int | None = None) -> "StoppableFrames[T]":
        """The same frames until the request comes, and no more than so many; they go into a progress bar as they are.

        A source whose `num_frames` is unknown (a camera, a live stream) only ends by a request, so that the run is
        complete then. On any other one, a request before the last frame is a StoppedError from the iterator.

        Args:
            frames: a source of frames; after the request no further one is read.
            max_frames: how many at most; None: all.

        Raises:
            ValueError: a negative `max_frames`.
        """
        num_frames = getattr(frames, "num_frames", None)
        return StoppableFrames(self, frames, max_frames, num_frames, raises=num_frames is not None)

    def guard(self, items: Iterable[T]) -> "StoppableFrames[T]":
        """The same items until the request comes; for what is done once for each frame, in whatever order.

        Raises:
            StoppedError: from the iterator, in place of the next item.
        """
        return StoppableFrames(self, items, None, None, raises=True)


class StoppableFrames(Generic[T]):
    """Frames that a `StopRequest` can end; made by its methods. `len` is there where the number of frames is known."""

    def __init__(
        self, request: StopRequest, frames: Iterable[T], max_frames: int | None, num_frames: int | None, raises: bool
    ) -> None:
        if max_frames is not None and max_frames < 0:
            raise ValueError(f"expected MAX_FRAMES of at least 0, or none for all frames, got {max_frames}")
        self._request = request
        self._frames = frames
        self._max_frames = max_frames
        self._num_frames = num_frames
        self._raises = raises

    def __len__(self) -> int:
        known = [number for number in (self._max_frames, self._num_frames) if number is not None]
        if not known:
            raise TypeError("nobody knows how many frames there will be")
        return min(known)

    def __iter__(self) -> Iterator[T]:
        remaining = iter(self._frames)
        num_frames = 0
        while num_frames != self._max_frames:
            if self._request.signal_number is not None:
                if self._raises:
                    raise StoppedError(self._request.signal_number, num_frames)
                return
            try:
                frame = next(remaining)
            except StopIteration:
                return
            num_frames += 1
            yield frame


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Let Ctrl-C (SIGINT) and SIGTERM end a loop between two frames instead of in the middle of one.

        with stop_on_signals() as stop, VideoWriter(path, frames.fps) as video:
            for image in tqdm(stop.frames(frames, MAX_FRAMES)):
                video.write(image)

    The first signal only sets the event that is yielded; a second one raises KeyboardInterrupt at once. A loop over a
    video that is stopped raises: the writers keep what there is as partial files, and `script_errors` exits with the
    status that shells give a signal. A loop over a live stream has no other end, and its files are complete. Enter it
    in the main thread, before the writers.
    """
    stop = StopRequest()

    def handle(number: int, _: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.signal_number = signal.Signals(number)
        stop.set()
        os.write(2, b"\nstopping after this frame; once more to stop at once\n")  # print() may be interrupted itself

    former = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def script_errors(program: str) -> Iterator[None]:
    """Turn what a user can put right into one line on stderr and exit status 2.

    ValueError and OSError (no such file, no permission, a full disk) are taken as bad input, being out of memory on the
    accelerator as a too large model; anything else is a bug and keeps its traceback. Set the environment variable
    GROUNDED_SAM2_TRACEBACK=1 to see the traceback of bad input too. What a terminal has no character for is printed
    as an escape, so that no work is lost for its name.

    Args:
        program: name the line starts with.

    Raises:
        SystemExit: status 2 for bad input, 0 for a live source that was stopped before its first frame, 130 after
            Ctrl-C, 143 after a SIGTERM that `stop_on_signals` took.
    """
    _print_anything()
    try:
        yield
    except NoFrameError as stopped:
        print(f"{program}: {shown(stopped)}; nothing is written", file=sys.stderr)
        sys.exit(0)
    except StoppedError as stopped:
        print(f"{program}: {stopped}", file=sys.stderr)
        sys.exit(128 + stopped.signal_number)
    except KeyboardInterrupt:
        print(f"{program}: stopped", file=sys.stderr)
        sys.exit(130)
    except (RuntimeError, MemoryError) as problem:
        words = out_of_memory(problem)
        if words is None or os.environ.get(TRACEBACK_VARIABLE):
            raise
        print(f"{program}: {words}", file=sys.stderr)
        sys.exit(2)
    except (ValueError, OSError) as problem:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        placeholder = f" … ({TRACEBACK_VARIABLE}=1 shows all of it)"
        print(
            f"{program}: {textwrap.shorten(shown(problem), _LONGEST_ERROR, placeholder=placeholder)}", file=sys.stderr
        )
        sys.exit(2)


def _print_anything() -> None:
    """Let stdout escape what its encoding lacks, as stderr always does."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def out_of_memory(problem: BaseException) -> str | None:
    """What to say where memory was too small; None for other problems."""
    if type(problem).__name__ == "OutOfMemoryError":  # torch's, told without importing torch
        return "out of GPU memory; use a smaller model, or --device cpu"
    text = str(problem).lower()
    if isinstance(problem, MemoryError) or any(words in text for words in _NO_MEMORY):
        return (
            f"out of memory; use a smaller model or smaller images ({shown(problem)[:200] or type(problem).__name__})"
        )
    return None


class _OneLinePrints:
    """Standard output on which each print is one line, whatever names and prompts are in it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(text if text == "\n" else shown(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _OneLineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))


def typed_lines(file_number: int = 0) -> "queue.SimpleQueue[str]":
    """The lines that are typed on the terminal while a run goes on, without their ends, as they come.

        lines = typed_lines()
        while not lines.empty():
            print(lines.get())

    Args:
        file_number: of what is read, by default the standard input. Its end, that there is none, or that the run is in
            the background, where nobody can type, ends the lines. To be called in the main thread.
    """
    if hasattr(signal, "SIGTTIN"):  # by which a terminal stops a program in the background that reads from it
        signal.signal(signal.SIGTTIN, signal.SIG_IGN)
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:  # not from sys.stdin: a thread that waits in it makes the interpreter fail as it ends
        unfinished = b""
        with contextlib.suppress(OSError):
            while chunk := os.read(file_number, 4096):
                *whole, unfinished = (unfinished + chunk).split(b"\n")
                for line in whole:
                    lines.put(line.decode("utf-8", "replace").rstrip("\r"))
        if unfinished:
            lines.put(unfinished.decode("utf-8", "replace"))

    threading.Thread(target=read, name="typed lines", daemon=True).start()
    return lines


def run(main: Callable[[], None]) -> None:
    """Run a script's `main` under `script_errors`, with the library's warnings shown on stderr.

    What it prints and what is logged goes out as `sam2.shown.shown` makes it: no name or prompt steers the terminal.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLineFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    prints = cast(TextIO, _OneLinePrints(sys.stdout))
    with script_errors(Path(sys.argv[0]).name), contextlib.redirect_stdout(prints):
        main()
