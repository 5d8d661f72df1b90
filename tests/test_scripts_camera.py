"""The camera script: a file played as if it were live, cameras that are not there or go away, and being stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest

from grounded_sam2.export import read_frame_annotations, read_id_map
from grounded_sam2.script import run
from grounded_sam2.track.events import read_events
from grounded_sam2.video import VideoWriter, live, open_frames
from grounded_sam2.video.capture import CapturedFrame

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPT = "grounded_sam2_tracking_camera_with_continuous_id.py"
NUM_FRAMES = 6
WRITTEN = {"camera.mp4", "camera.jsonl", "events.jsonl", "mask_data", "json_data"}

Load = Callable[[str], ModuleType]


@pytest.fixture
def script(load_script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, which plays the first frames of the bundled clip and drops none."""
    monkeypatch.chdir(REPOSITORY)
    frames = open_frames("assets/parade.mp4")
    with VideoWriter(tmp_path / "short.mp4", frames.fps) as writer:
        for frame_idx in range(NUM_FRAMES):
            writer.write(frames[frame_idx])
    script = load_script(SCRIPT)
    script.CAMERA, script.LATENCY, script.DETECT_EVERY = str(tmp_path / "short.mp4"), "queue", 2
    script.OUTPUT_DIR = tmp_path / "out"
    return script


def times_of(path: Path) -> list[float]:
    """When each frame of a video is shown; every frame is decoded."""
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        return [frame.time for frame in container.decode(video=0)]


def check_outputs(folder: Path) -> int:
    """All files are complete and tell of the same frames; returns how many."""
    assert {path.name for path in folder.glob("[!.]*")} == WRITTEN
    by_frame = list(read_frame_annotations(folder / "camera.jsonl"))
    assert [frame.frame_idx for frame in by_frame] == list(range(len(by_frame)))
    assert len(times_of(folder / "camera.mp4")) == len(by_frame)
    ids = [[] if len(frame.detections) == 0 else frame.detections.tracker_id.tolist() for frame in by_frame]
    assert [read_id_map(folder, frame_idx).tracker_id.tolist() for frame_idx in range(len(by_frame))] == ids
    assert len(list((folder / "mask_data").iterdir())) == len(list((folder / "json_data").iterdir())) == len(by_frame)
    assert {obj_id for of_frame in ids for obj_id in of_frame} == {
        event.obj_id for event in read_events(folder / "events.jsonl") if event.kind == "confirmed"
    }
    return len(by_frame)


def test_a_file_as_if_it_were_live(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    # More than any machine has time for. The first detection and the first frame without one do not count, so that the
    # second detection, on frame 2, has nothing to be weighed against, and the interval only doubles.
    script.TARGET_FPS = 1000.0
    script.main()
    assert check_outputs(script.OUTPUT_DIR) == NUM_FRAMES
    fps = float(open_frames(script.CAMERA).fps)
    assert times_of(script.OUTPUT_DIR / "camera.mp4") == pytest.approx(np.arange(NUM_FRAMES) / fps, abs=0.002)
    objects = next(read_frame_annotations(script.OUTPUT_DIR / "camera.jsonl")).detections
    assert len(objects) > 0
    said = capsys.readouterr().out
    assert f" objects in {NUM_FRAMES} frames: " in said and "(target 1000)" in said and "latency" in said
    assert "detection every 2 to 4 frames" in said
    assert f"{NUM_FRAMES} frames came from {script.CAMERA}\n" in said
    assert f"wrote {script.OUTPUT_DIR / 'camera.mp4'}" in said


def test_limits(script: ModuleType) -> None:
    script.MAX_FRAMES = 2
    script.main()
    assert check_outputs(script.OUTPUT_DIR) == 2
    script.MAX_FRAMES, script.MAX_SECONDS = None, 3.5 / float(open_frames(script.CAMERA).fps)
    script.BOX_THRESHOLD = 1.0  # nothing found
    script.main()
    assert check_outputs(script.OUTPUT_DIR) == 5  # the first frame after 3.5 is the one at 4


class GoneCapture:
    """A camera that gives three frames and is not there again."""

    fps = Fraction(10)
    is_live = True

    def __init__(self) -> None:
        self.num_left = 3

    def read(self) -> CapturedFrame | None:
        self.num_left -= 1
        return CapturedFrame(np.zeros((48, 64, 3), np.uint8), 0.0) if self.num_left >= 0 else None

    def close(self) -> None:
        pass


def test_a_camera_that_goes_away_leaves_complete_files_and_one_line(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    captures = [GoneCapture()]

    def open_capture(source: object, timeout_seconds: float) -> GoneCapture:
        if not captures:
            raise ValueError("camera 0 cannot be opened")
        return captures.pop()

    monkeypatch.setattr(live, "open_capture", open_capture)
    monkeypatch.setattr(live, "LONGEST_DELAY", 0.01)
    monkeypatch.setattr(sys, "argv", ["camera.py"])
    script.CAMERA = "0"
    with pytest.raises(SystemExit) as ended:
        run(script.main)
    assert ended.value.code == 2
    assert check_outputs(script.OUTPUT_DIR) == 3
    said = capsys.readouterr()
    assert "0 objects in 3 frames" in said.out and "3 frames came from camera 0" in said.out
    line = "camera.py: camera 0 was lost after 3 frames and did not come back in 8 tries: camera 0 cannot be opened"
    assert said.err.splitlines()[-1] == line


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"CAMERA": "63"}, "camera 63 cannot be opened: not there"),
        ({"CAMERA": "nowhere.mp4"}, "no such video, camera or stream: 'nowhere.mp4'"),
        ({"TARGET_FPS": 0.0}, "expected target_fps above 0, got 0"),
        ({"SHOW": True}, "a window cannot be shown: this session has no display"),
    ],
)
def test_bad_input_is_one_line(
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    settings: dict[str, object],
    line: str,
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "argv", ["camera.py"])
    monkeypatch.setattr(script, "note_nano_models", lambda *_: None)
    for setting, value in settings.items():
        setattr(script, setting, value)
    with pytest.raises(SystemExit) as ended:
        run(script.main)
    said = capfd.readouterr().err
    assert ended.value.code == 2 and said.startswith(f"camera.py: {line}") and said.count("\n") == 1
    assert not script.OUTPUT_DIR.exists()


def test_closing_the_window_ends_the_run(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[np.ndarray] = []

    class Window:
        def __init__(self, title: str) -> None:
            assert title == script.CAMERA

        def show(self, image: np.ndarray) -> bool:
            shown.append(image)
            return len(shown) < 3

        def __enter__(self) -> Window:
            return self

        def __exit__(self, *_: object) -> None:
            shown.append(np.zeros(0))

    monkeypatch.setattr(script, "Window", Window)
    script.SHOW = True
    script.main()
    assert check_outputs(script.OUTPUT_DIR) == 3
    assert len(shown) == 4 and shown[0].shape == (360, 640, 3) and shown[-1].size == 0


def test_sigterm_ends_the_run_with_complete_files(tmp_path: Path) -> None:
    flags = ["--camera", "assets/parade.mp4", "--latency", "queue", "--output-dir", str(tmp_path / "out")]
    command = [sys.executable, str(REPOSITORY / SCRIPT), *flags]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        partial = tmp_path / "out" / "camera.partial.jsonl"
        deadline = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            if partial.exists() and partial.read_bytes().count(b"\n") >= 4:  # the header and three frames
                process.send_signal(signal.SIGTERM)
                break
            time.sleep(0.02)
        said, complained = process.communicate(timeout=120)
    assert process.returncode == 0, complained
    num_frames = check_outputs(tmp_path / "out")
    assert 3 <= num_frames < len(open_frames(REPOSITORY / "assets" / "parade.mp4"))
    assert f" objects in {num_frames} frames: " in said and "Traceback" not in complained
