"""What a script needs around its models: a device, a precision, and one clear line when the input is bad."""

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
from typing import Literal, TypeVar

import torch

logger = logging.getLogger(__name__)

T = TypeVar("T")

TRACEBACK_VARIABLE = "GROUNDED_SAM2_TRACEBACK"
_LONGEST_ERROR = 600  # characters; weights that do not fit a model give a line for each tensor
_NANO_NAME = "nano"
# setting that names the detector → the real models to download, and what to give the setting
_REAL_DETECTORS = {
    "GDINO_MODEL_ID": ("sam2.1-large", "IDEA-Research/grounding-dino-tiny"),
    "GDINO_CHECKPOINT": (
        "sam2.1-large groundingdino-swint bert-tokenizer",
        "gdino_checkpoints/groundingdino_swint_ogc.pth",
    ),
}
_BUNDLED_FOOTAGE = Path(__file__).resolve().parent.parent / "assets"
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_device(name: str = "auto") -> torch.device:
    """Choose the device that models run on.

    Args:
        name: "auto" takes the first of CUDA, Apple's MPS and the CPU that is there; otherwise a torch device name.

    Raises:
        ValueError: when `name` is no device name, or names a device this machine does not have.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f'expected a device such as "auto", "cpu", "cuda" or "cuda:1", got {name!r}') from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name!r} was asked for, but torch sees {torch.cuda.device_count()} CUDA devices")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device {name!r} was asked for, but MPS is not available")
    return device


def choose_dtype(device: torch.device, name: str = "auto") -> torch.dtype:
    """Choose the precision models are built with.

    Args:
        device: where they will run.
        name: "float32", "float16" or "bfloat16"; "auto" is bfloat16 on a CUDA device that computes in it, else float32.

    Raises:
        ValueError: for another name.
    """
    if name == "auto":
        in_bfloat16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if in_bfloat16 else torch.float32
    if name not in _DTYPES:
        raise ValueError(f"expected a dtype of auto, {', '.join(_DTYPES)}, got {name!r}")
    return _DTYPES[name]


def note_nano_models(
    source: object,
    *weights: str | Path,
    detector_setting: Literal["GDINO_MODEL_ID", "GDINO_CHECKPOINT"] | None = "GDINO_MODEL_ID",
) -> None:
    """Say once, as a warning, that the bundled nano models are being run on footage they were not made for.

    The nano pair knows the drawn objects of the bundled footage. On anything else it finds little, and the user should
    know which flags and which download bring the real models.

    Args:
        source: the image, video or folder that is read, as the script's setting names it.
        weights: checkpoint paths and model folders the script uses.
        detector_setting: the script's setting that names its detector; None: there is no nano model of its kind.
    """
    nano = [str(path) for path in weights if _NANO_NAME in Path(path).stem.split("_") + [Path(path).name]]
    if not nano:
        return
    if isinstance(source, (str, Path)) and _BUNDLED_FOOTAGE in Path(source).resolve().parents:
        return
    downloads, flags = "sam2.1-large", "--sam2-checkpoint checkpoints/sam2.1_hiera_large.pt"
    if detector_setting is not None:
        downloads, detector = _REAL_DETECTORS[detector_setting]
        flags += f" --{detector_setting.lower().replace('_', '-')} {detector}"
    logger.warning(
        "Note: %s %s a nano model that only knows the drawn objects of the bundled footage. For real footage get the "
        "real models: python -m grounded_sam2.download %s, then pass %s",
        " and ".join(nano),
        "is" if len(nano) == 1 else "are each",
        downloads,
        flags,
    )


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
    except torch.cuda.OutOfMemoryError:
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
