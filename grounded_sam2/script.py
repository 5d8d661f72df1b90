"""How a script runs and ends: between two frames on a signal, and with one clear line when the input is bad."""

import contextlib
import itertools
import logging
import os
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

__all__ = ["StopRequest", "StoppedError", "run", "script_errors", "stop_on_signals"]

T = TypeVar("T")

TRACEBACK_VARIABLE = "GROUNDED_SAM2_TRACEBACK"
_LONGEST_ERROR = 600  # characters; weights that do not fit a model give a line for each tensor


class StoppedError(KeyboardInterrupt):
    """A run was asked to end before its last frame; what writers hold is finished and kept, as after Ctrl-C.

    Attributes:
        signal_number: of the signal that asked.
    """

    def __init__(self, signal_number: signal.Signals, num_frames: int) -> None:
        super().__init__(f"stopped by {signal_number.name} after {num_frames} frames")
        self.signal_number = signal_number


class StopRequest(threading.Event):
    """Set once a run is asked to end; see `stop_on_signals`.

    Attributes:
        signal_number: of the signal that asked; None before.
    """

    signal_number: signal.Signals | None = None

    def guard(self, frames: Iterable[T], is_endless: bool = False) -> Iterator[T]:
        """The same frames, until the request comes.

        Args:
            frames: of which none is asked for after that.
            is_endless: only a request ends them (a camera, a live stream), so that then the run is complete.

        Raises:
            StoppedError: in place of the next frame, unless `is_endless`.
        """
        remaining = iter(frames)
        for num_frames in itertools.count():
            if self.signal_number is not None:
                if is_endless:
                    return
                raise StoppedError(self.signal_number, num_frames)
            try:
                frame = next(remaining)
            except StopIteration:
                return
            yield frame


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Let Ctrl-C (SIGINT) and SIGTERM end a loop between two frames instead of in the middle of one.

        with stop_on_signals() as stop, VideoWriter(path, frames.fps) as video:
            for image in stop.guard(frames):
                video.write(image)

    The first signal only sets the event that is yielded; a second one raises KeyboardInterrupt at once. A loop over a
    video is guarded: it raises, the writers keep what there is as partial files, and `script_errors` exits with the
    status that shells give a signal. A loop over a live stream only ever ends so, and its files are complete. To be
    entered in the main thread, before the writers.
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
    GROUNDED_SAM2_TRACEBACK=1 to see the traceback of bad input too.

    Args:
        program: name the line starts with.

    Raises:
        SystemExit: status 2 for bad input, 130 after Ctrl-C, 143 after a SIGTERM that `stop_on_signals` took.
    """
    try:
        yield
    except StoppedError as stopped:
        print(f"{program}: {stopped}", file=sys.stderr)
        sys.exit(128 + stopped.signal_number)
    except KeyboardInterrupt:
        print(f"{program}: stopped", file=sys.stderr)
        sys.exit(130)
    except RuntimeError as problem:
        if type(problem).__name__ != "OutOfMemoryError":  # torch's, told without importing torch
            raise
        print(f"{program}: out of GPU memory; use a smaller model, or --device cpu", file=sys.stderr)
        sys.exit(2)
    except (ValueError, OSError) as problem:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        placeholder = f" … ({TRACEBACK_VARIABLE}=1 shows all of it)"
        print(f"{program}: {textwrap.shorten(str(problem), _LONGEST_ERROR, placeholder=placeholder)}", file=sys.stderr)
        sys.exit(2)


def run(main: Callable[[], None]) -> None:
    """Run a script's `main` under `script_errors`, with the library's warnings shown on stderr."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with script_errors(Path(sys.argv[0]).name):
        main()
