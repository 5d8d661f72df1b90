"""How a script ends: one line for bad input, and between two frames on a signal."""

import io
import itertools
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

from grounded_sam2.script import (
    NoFrameError,
    StoppedError,
    StopRequest,
    run,
    script_errors,
    stop_on_signals,
    typed_lines,
)


@pytest.mark.parametrize(
    ("problem", "status", "line"),
    [
        (ValueError("expected 3, got 4"), 2, "demo.py: expected 3, got 4\n"),
        (ValueError("two\n  lines"), 2, "demo.py: two lines\n"),
        (ValueError("word " * 140), 2, f"demo.py: {'word ' * 111}… (GROUNDED_SAM2_TRACEBACK=1 shows all of it)\n"),
        (FileNotFoundError("no such file: x"), 2, "demo.py: no such file: x\n"),
        (PermissionError(13, "Permission denied", "out"), 2, "demo.py: [Errno 13] Permission denied: 'out'\n"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), 2, "demo.py: out of GPU memory"),
        (KeyboardInterrupt(), 130, "demo.py: stopped\n"),
    ],
)
def test_bad_input_is_one_line(
    capsys: pytest.CaptureFixture[str], problem: BaseException, status: int, line: str
) -> None:
    with pytest.raises(SystemExit) as exit_info, script_errors("demo.py"):
        raise problem
    assert exit_info.value.code == status
    shown = capsys.readouterr().err
    assert shown.startswith(line) and shown.count("\n") == 1


@pytest.mark.parametrize("problem", [RuntimeError("bug"), TypeError("bug"), IndexError("bug")])
def test_bugs_keep_their_traceback(problem: Exception) -> None:
    with pytest.raises(type(problem)), script_errors("demo.py"):
        raise problem


def test_traceback_of_bad_input_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDED_SAM2_TRACEBACK", "1")
    with pytest.raises(ValueError, match="bad"), script_errors("demo.py"):
        raise ValueError("bad")


def test_run_names_the_script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise ValueError("no")

    monkeypatch.setattr(sys, "argv", ["some/folder/demo.py"])
    with pytest.raises(SystemExit):
        run(main)
    assert capsys.readouterr().err == "demo.py: no\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_guarded_loop_between_two_frames(
    capsys: pytest.CaptureFixture[str], number: signal.Signals, status: int
) -> None:
    before = signal.getsignal(number)
    worked_on = []
    with pytest.raises(SystemExit) as exit_info, script_errors("demo.py"), stop_on_signals() as stop:
        for frame_idx in stop.guard(range(5)):
            if frame_idx == 2:
                os.kill(os.getpid(), number)
            worked_on.append(frame_idx)
    assert exit_info.value.code == status
    assert worked_on == [0, 1, 2] and stop.is_set()
    assert capsys.readouterr().err == f"demo.py: stopped by {number.name} after 3 frames\n"
    assert signal.getsignal(number) is before


def test_a_signal_only_sets_the_event_of_a_loop_that_looks_itself() -> None:
    worked_on = []
    with stop_on_signals() as stop:
        for frame_idx in range(5):
            if stop.is_set():
                break
            worked_on.append(frame_idx)
            if frame_idx == 1:
                os.kill(os.getpid(), signal.SIGTERM)
    assert worked_on == [0, 1]


def test_a_second_signal_stops_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), stop_on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)


def test_no_frame_is_taken_after_a_signal() -> None:
    """A source of frames may be at work itself, and what it had done would be lost."""
    frames = iter(range(5))
    with pytest.raises(StoppedError, match="stopped by SIGTERM after 2 frames"), stop_on_signals() as stop:
        for frame_idx in stop.guard(frames):
            if frame_idx == 1:
                os.kill(os.getpid(), signal.SIGTERM)
    assert list(frames) == [2, 3, 4]


def test_a_signal_is_the_natural_end_of_an_endless_source() -> None:
    worked_on = []
    with stop_on_signals() as stop:
        for frame_idx in stop.frames(itertools.count()):
            worked_on.append(frame_idx)
            if frame_idx == 2:
                os.kill(os.getpid(), signal.SIGINT)
    assert worked_on == [0, 1, 2]


class Numbers:
    """A source of known length, or of one that nobody knows."""

    def __init__(self, num_frames: int | None) -> None:
        self.num_frames = num_frames

    def __iter__(self) -> Iterator[int]:
        return iter(range(5))


def test_a_signal_before_the_last_frame_of_a_source_of_known_length_raises() -> None:
    worked_on = []
    with pytest.raises(StoppedError, match="after 2 frames"), stop_on_signals() as stop:
        for frame_idx in stop.frames(Numbers(5)):
            worked_on.append(frame_idx)
            if frame_idx == 1:
                os.kill(os.getpid(), signal.SIGINT)
    assert worked_on == [0, 1]


@pytest.mark.parametrize(
    ("num_frames", "max_frames", "length", "seen"),
    [
        (5, None, 5, [0, 1, 2, 3, 4]),
        (5, 2, 2, [0, 1]),
        (5, 9, 5, [0, 1, 2, 3, 4]),
        (5, 0, 0, []),
        (None, 3, 3, [0, 1, 2]),
        (None, None, None, [0, 1, 2, 3, 4]),
    ],
)
def test_frames_count_themselves(
    num_frames: int | None, max_frames: int | None, length: int | None, seen: list[int]
) -> None:
    frames = StopRequest().frames(Numbers(num_frames), max_frames)
    assert tqdm(frames, disable=None, file=io.StringIO()).total == length
    assert list(frames) == seen and list(frames) == seen  # and once more
    if length is None:
        with pytest.raises(TypeError, match="nobody knows"):
            len(frames)


def test_a_signal_does_not_undo_a_run_that_has_all_its_frames() -> None:
    request = StopRequest()
    request.signal_number = signal.SIGINT
    assert list(request.frames(Numbers(5), 0)) == []


def test_a_negative_number_of_frames_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="expected MAX_FRAMES of at least 0, or none for all frames, got -1"):
        StopRequest().frames(Numbers(5), -1)


def test_a_terminal_without_the_characters_costs_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a file name that is no text at all."""
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    run(lambda: print("found 1: 猫 in \udcff.mp4"))
    terminal.flush()
    assert terminal.buffer.getvalue() == b"found 1: \\u732b in \\udcff.mp4\n"


def test_a_camera_that_is_stopped_before_its_first_frame_is_a_normal_end(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, script_errors("script.py"):
        raise NoFrameError("camera 0: stopped before its first frame came")
    assert ended.value.code == 0
    assert capsys.readouterr().err == "script.py: camera 0: stopped before its first frame came; nothing is written\n"
    with pytest.raises(SystemExit) as ended, script_errors("script.py"):
        raise ConnectionAbortedError("by the peer")
    assert ended.value.code == 2


def test_lines_come_as_they_are_typed() -> None:
    read_end, write_end = os.pipe()
    lines = typed_lines(read_end)
    assert lines.empty()
    os.write(write_end, "owl. rote äpfel.\r\nca".encode())
    assert lines.get(timeout=10) == "owl. rote äpfel."
    os.write(write_end, b"t.\n\nlast")
    assert (lines.get(timeout=10), lines.get(timeout=10)) == ("cat.", "")
    os.close(write_end)
    assert lines.get(timeout=10) == "last"
    os.close(read_end)


def test_without_a_standard_input_no_line_is_typed() -> None:
    assert typed_lines(1_000_000).empty()  # no such file is open


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a terminal of its own")
def test_a_run_in_the_background_of_a_terminal_is_not_stopped(tmp_path: Path) -> None:
    """A terminal stops a program in the background that reads from it, unless that says otherwise."""
    code = f"""
        import os, pty, time
        from grounded_sam2.script import typed_lines
        in_terminal, terminal = pty.fork()
        if in_terminal:
            time.sleep(1)
            os._exit(0)
        if os.fork() == 0:
            os.setpgid(0, 0)  # in the background
            lines = typed_lines()
            time.sleep(0.3)
            open({str(tmp_path / "done")!r}, "w").write(str(lines.empty()))
        time.sleep(1)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=Path(__file__).parents[1], check=True, timeout=60)
    assert (tmp_path / "done").read_text() == "True"
