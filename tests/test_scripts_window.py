"""The script with a window: over windows that do what a test says, and once over a real one, driven like by a hand."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import cv2
import numpy as np
import pytest
from clips import bundled_clip

from grounded_sam2.export import read_frame_annotations
from grounded_sam2.images import RGBImage
from grounded_sam2.owned import RECORD_NAME
from grounded_sam2.script import run
from grounded_sam2.session import open_session
from grounded_sam2.video import open_frames
from grounded_sam2.video.window import Click, Drag, Event, Key, Pointer

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPT = "grounded_sam2_interactive_window_demo.py"
NUM_FRAMES = 6
OWL = (184, 112, 284, 246)  # around it on the first frame, xyxy

Load = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first frames of the bundled clip."""
    return bundled_clip(tmp_path_factory.mktemp("clip") / "short.mp4", NUM_FRAMES)


@pytest.fixture
def script(load_script: Load, tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(sys, "argv", ["window.py"])
    script = load_script(SCRIPT)
    script.VIDEO_PATH, script.OUTPUT_DIR = str(clip), tmp_path / "out"
    script.typed_lines = lambda: script.typed
    script.note_nano_models = lambda *_: None
    script.typed = Lines()
    return script


class Lines(list[str]):
    """Stands in for what is typed."""

    def empty(self) -> bool:
        return not self

    def get(self) -> str:
        return self.pop(0)


def window_of(happening: Callable[[], Iterator[list[Event]]]) -> type:
    """A window in which something happens, one list of events at a time, and pictures are counted."""

    class Window:
        pictures: ClassVar[list[RGBImage]] = []

        def __init__(self, title: str) -> None:
            self.pointer = Pointer()
            self.happening = happening()

        def put(self, image: RGBImage) -> None:
            self.pictures.append(image)

        def events(self, seconds: float) -> list[Event]:
            time.sleep(seconds)
            return next(self.happening)

        def __enter__(self) -> Window:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    return Window


def test_a_run_and_the_next_one(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script.TEXT_PROMPT = "motorcycle."

    def first_run() -> Iterator[list[Event]]:
        yield [Drag(OWL)]
        yield [Key("space")]
        while "the video ends here" not in (said := capsys.readouterr().out):
            assert "Traceback" not in said
            yield []
        script.typed.append("crown.")
        yield [Click(5, 5, is_right=True)]
        yield [Key("q")]

    script.InteractiveWindow = window_of(first_run)
    script.main()
    said = capsys.readouterr().out
    assert f'"crown." on frame {NUM_FRAMES - 1}: crown 3' in said
    assert f"wrote {script.OUTPUT_DIR / 'short.mp4'}, {script.OUTPUT_DIR / 'short.jsonl'}; " in said
    assert script.InteractiveWindow.pictures[0].shape == (396, 640, 3)
    assert len(open_frames(script.OUTPUT_DIR / "short.mp4")) == NUM_FRAMES
    by_frame = [
        frame.detections.data["class_name"].tolist()
        for frame in read_frame_annotations(script.OUTPUT_DIR / "short.jsonl")
    ]
    assert by_frame == [["motorcycle", "object"]] * (NUM_FRAMES - 1) + [["motorcycle", "object", "crown"]]
    assert {path.name for path in script.OUTPUT_DIR.iterdir()} == {
        RECORD_NAME,
        "short.jsonl",
        "short.mp4",
        "short.session",
    }

    def without_resume() -> Iterator[list[Event]]:
        yield [Key("q")]

    script.InteractiveWindow = window_of(without_resume)
    with pytest.raises(SystemExit) as ended:
        run(script.main)
    assert ended.value.code == 2 and "--resume goes on with it" in capsys.readouterr().err

    def second_run() -> Iterator[list[Event]]:
        yield [Key("u")]
        signal.raise_signal(signal.SIGINT)
        yield []

    script.InteractiveWindow, script.RESUME = window_of(second_run), True
    script.main()
    assert f"undone: accept on frame {NUM_FRAMES - 1}" in capsys.readouterr().out
    *_, last = read_frame_annotations(script.OUTPUT_DIR / "short.jsonl")
    assert last.detections.data["class_name"].tolist() == ["motorcycle", "object"]


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({}, "a window cannot be shown: this session has no display (DISPLAY is not set)"),
        ({"VIDEO_PATH": "nowhere.mp4"}, "no such video, zip or folder: 'nowhere.mp4'"),
        ({"VIDEO_PATH": "63"}, "camera 63 cannot be opened: not there"),
    ],
)
def test_bad_input_is_one_line(
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    settings: dict[str, str],
    line: str,
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    if settings:
        script.InteractiveWindow = window_of(lambda: iter([]))
    vars(script).update(settings)
    with pytest.raises(SystemExit) as ended:
        run(script.main)
    assert ended.value.code == 2 and (said := capfd.readouterr().err).startswith(f"window.py: {line}")
    assert said.count("\n") == 1
    assert not script.OUTPUT_DIR.exists() or {path.name for path in script.OUTPUT_DIR.iterdir()} <= {RECORD_NAME}


# ---- a real window ----


def what_is_missing() -> str | None:
    """Why no window can be driven here; None where one can."""
    missing = [program for program in ("Xvfb", "xdotool") if shutil.which(program) is None]
    if missing:
        return f"{' and '.join(missing)} not installed"
    gui = next((line for line in cv2.getBuildInformation().splitlines() if line.strip().startswith("GUI:")), "")
    return "the OpenCV that is installed has no windows" if "NONE" in gui else None


@contextmanager
def screen() -> Iterator[str]:
    """A display that nobody sees; gives its name."""
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", "900x700x24"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            yield f":{server.stdout.readline().strip()}"
        finally:
            server.terminate()


@pytest.mark.slow
@pytest.mark.skipif(what_is_missing() is not None, reason=f"a window cannot be driven: {what_is_missing()}")
def test_a_real_window_driven_by_mouse_keys_and_terminal(tmp_path: Path, clip: Path) -> None:
    log = tmp_path / "log"
    flags = ["--video-path", str(clip), "--output-dir", str(tmp_path / "out"), "--text-prompt", ""]
    with screen() as display, log.open("w") as said:
        environment = {**os.environ, "DISPLAY": display, "PYTHONUNBUFFERED": "1"}

        def do(*what: object) -> None:
            subprocess.run(["xdotool", *map(str, what)], env=environment, check=True, capture_output=True)

        def wait_for(text: str) -> None:
            deadline = time.monotonic() + 120
            while text not in log.read_text():
                assert program.poll() is None and time.monotonic() < deadline, (text, log.read_text())
                time.sleep(0.05)

        with subprocess.Popen(
            [sys.executable, str(REPOSITORY / SCRIPT), *flags],
            cwd=REPOSITORY, env=environment, stdin=subprocess.PIPE, stdout=said, stderr=said, text=True,
        ) as program:  # fmt: skip
            try:
                wait_for("save and quit")
                do("search", "--sync", "--name", "short.mp4")
                do("mousemove", *OWL[:2], "mousedown", 1, "sleep", 0.3, "mousemove", 230, 180, "sleep", 0.3)
                do("mousemove", *OWL[2:], "sleep", 0.3, "mouseup", 1)
                wait_for("added object 1 on frame 0")
                do("mousemove", 50, 115, "keydown", "ctrl", "click", 1, "keyup", "ctrl")
                wait_for("added object 2 on frame 0")
                do("key", "space")
                wait_for("the video ends here")
                do("mousemove", 48, 110, "click", 3)
                wait_for(f"corrected object 2 on frame {NUM_FRAMES - 1}")
                do("key", "u")
                wait_for(f"undone: refine on frame {NUM_FRAMES - 1}")
                assert program.stdin is not None
                program.stdin.write("motorcycle.\n")
                program.stdin.flush()
                wait_for("motorcycle 3")
                do("key", "Left", "sleep", 0.3, "key", "q")
                assert program.wait(timeout=120) == 0, log.read_text()
            finally:
                program.kill()
    assert "wrote " in log.read_text() and "Traceback" not in log.read_text()
    by_frame = [frame.detections for frame in read_frame_annotations(tmp_path / "out" / "short.jsonl")]
    assert [len(objects) for objects in by_frame] == [2] * (NUM_FRAMES - 1) + [3]
    with open_session(tmp_path / "out" / "short.session") as session:
        owl = session.mask(1, 0)
        assert owl is not None and owl[130:230, 200:270].mean() > 0.8 and owl.sum() < 13_000
        assert [session.given_frames(obj_id) for obj_id in session.objects] == [[0], [0], [NUM_FRAMES - 1]]
        assert np.array_equal(session.mask(2, 0), by_frame[0].mask[1])
