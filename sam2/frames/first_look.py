"""A video or image from a stranger, opened for the first time in a process of its own that may take only so much.

What makes a decoder crash, or takes memory or time without end, ends that process and nothing else. It costs half a
second, most of which Python needs to start.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

__all__ = ["first_look"]

MIB = 2**20


def first_look(path: str | os.PathLike[str], max_seconds: float, max_bytes: int) -> None:
    """Open a video, image or folder of images elsewhere: count its frames, and decode the first and the last.

    Args:
        path: of it.
        max_seconds: that this may take.
        max_bytes: of memory that it may take, where the system knows such limits.

    Raises:
        ValueError: it is no such thing, cannot be read, or takes more than it may; the message names `path`.
    """
    root = str(Path(__file__).resolve().parents[2])
    found = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    # each thread of a decoder would reserve 64 MiB of addresses for its small allocations
    environment = {**os.environ, "PYTHONPATH": found, "MALLOC_ARENA_MAX": "2"}
    request = json.dumps({"path": os.fspath(path), "max_seconds": max_seconds, "max_bytes": max_bytes})
    command = [sys.executable, "-m", "sam2.frames.first_look"]
    try:
        ended = subprocess.run(
            command, input=request.encode(), capture_output=True, timeout=max_seconds, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"{path} cannot be read: opening it took more than {max_seconds:g} seconds") from None
    try:
        answer = json.loads(ended.stdout)
    except ValueError:
        raise ValueError(
            f"{path} cannot be read: its decoder failed, or took more than {max_bytes // MIB} MiB of memory"
        ) from None
    if answer["error"] is not None:
        raise ValueError(answer["error"])


def _look(path: str) -> None:
    from sam2.frames import open_path  # after the limits are set

    frames = open_path(path)
    with frames:
        _ = frames[0], frames[len(frames) - 1]


def _main() -> None:
    """Answer one request: JSON on standard input, JSON on standard output."""
    request = json.load(sys.stdin)
    with contextlib.suppress(ImportError):  # Windows has no such limits
        _limit(int(request["max_bytes"]), int(request["max_seconds"]) + 1)
    try:
        _look(request["path"])
        error = None
    except MemoryError:
        error = (
            f"{request['path']} cannot be read: opening it took more than {request['max_bytes'] // MIB} MiB of memory"
        )
    except (OSError, ValueError, RuntimeError) as problem:
        error = str(problem)
    print(json.dumps({"error": error}))


def _limit(max_bytes: int, max_seconds: int) -> None:
    import resource

    for name, value in (
        (resource.RLIMIT_AS, max_bytes),
        (resource.RLIMIT_CPU, max_seconds * (os.cpu_count() or 1)),
        (resource.RLIMIT_FSIZE, 0),  # it has nothing to write
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # a lower limit is set already
            resource.setrlimit(name, (value, value))


if __name__ == "__main__":
    _main()
