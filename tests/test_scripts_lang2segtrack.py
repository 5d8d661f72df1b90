"""The script of Lang2SegTrack's scenarios: what is shown on the first frame, typed, clicked, drawn; all it writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from clips import bundled_clip
from PIL import Image
from test_scripts_window import Lines, screen, what_is_missing, window_of

from grounded_sam2.export import read_frame_annotations, read_header, read_id_map
from grounded_sam2.owned import RECORD_NAME
from grounded_sam2.script import StoppedError, run
from grounded_sam2.video import live, open_frames
from grounded_sam2.video.capture import CapturedFrame
from grounded_sam2.video.window import Click, Drag, Event, Key

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPT = "grounded_sam2_lang2segtrack_demo.py"
NUM_FRAMES = 4
OWL = (184, 112, 284, 246)  # around it on the first frame, xyxy
MOTORCYCLE = (350, 84, 526, 220)

Load = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first frames of the bundled clip."""
    return bundled_clip(tmp_path_factory.mktemp("clip") / "short.mp4", NUM_FRAMES)


@pytest.fixture
def script(load_script: Load, tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script with small images, by which it is quick, and nobody at the terminal."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(sys, "argv", ["lang.py"])
    script = load_script(SCRIPT)
    script.VIDEO_PATH, script.OUTPUT_DIR, script.IMAGE_SIZE, script.DETECT_EVERY = str(clip), tmp_path / "out", 256, 2
    script.typed_lines = lambda: script.typed
    script.note_nano_models = lambda *_: None
    script.typed = Lines()
    return script


def names_by_frame(script: ModuleType) -> list[list[str]]:
    frames = read_frame_annotations(script.OUTPUT_DIR / "short.jsonl")
    return [[] if not frame.detections else frame.detections.data["class_name"].tolist() for frame in frames]


def box_mask(box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((360, 640), bool)
    left, top, right, bottom = box
    mask[top:bottom, left:right] = True
    return mask


def test_points_boxes_and_masks_beside_a_text_and_all_that_is_written(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.uint8(255) * box_mask((150, 120, 200, 170))).save(tmp_path / "Patch.png")
    script.TEXT_PROMPT, script.SELECTED, script.MASK_CLEANING = "motorcycle.", "bird. 3", "morphology"
    script.POINTS = "pizza: 30 340, not 100 100"
    script.BOXES = f"Bird: {' '.join(map(str, OWL))}"
    script.MASKS = str(tmp_path / "Patch.png")
    script.main()

    names = ["pizza", "bird", "patch", "motorcycle"]
    assert names_by_frame(script) == [names] * NUM_FRAMES
    header = read_header(script.OUTPUT_DIR / "short.jsonl")
    assert header is not None and header.phrases == ("motorcycle", "pizza", "bird", "patch")
    assert header.settings["IMAGE_SIZE"] == 256 and header.settings["MASK_CLEANING"] == "morphology"
    by_frame = [frame.detections for frame in read_frame_annotations(script.OUTPUT_DIR / "short.jsonl")]
    first = by_frame[0]
    assert first.tracker_id.tolist() == [1, 2, 3, 4]
    assert first.mask[0, 340, 30] and first.mask[1][box_mask(OWL)].sum() > 0.95 * first.mask[1].sum() > 5000
    assert (first.mask[2] == box_mask((150, 120, 200, 170))).mean() > 0.999
    assert first.mask[3][box_mask(MOTORCYCLE)].sum() > 0.9 * first.mask[3].sum() > 5000

    out = script.OUTPUT_DIR
    assert {path.name for path in out.iterdir()} == {
        RECORD_NAME, "short.mp4", "short.jsonl", "short_forward.jsonl", "short_backward.jsonl", "short_selected.mp4",
        "events.jsonl", "mask_data", "json_data", "object_masks",
    }  # fmt: skip
    for frame_idx, objects in enumerate(by_frame):
        assert read_id_map(out, frame_idx).tracker_id.tolist() == [1, 2, 3, 4]
        for obj_id, name, mask in zip(objects.tracker_id, names, objects.mask, strict=True):
            image = Image.open(out / f"object_masks/{obj_id}_{name}/{frame_idx:05d}.png")
            assert np.array_equal(np.asarray(image), np.uint8(255) * mask)
    drawn, alone, source = (
        open_frames(path) for path in (out / "short.mp4", out / "short_selected.mp4", script.VIDEO_PATH)
    )
    assert len(drawn) == len(alone) == NUM_FRAMES
    last = by_frame[-1]
    lit = last.mask[1] | last.mask[2]
    difference = np.abs(alone[-1].astype(int) - source[-1]).mean(axis=2)
    assert difference[lit].mean() < 15 and alone[-1][~lit].mean() < 0.25 * source[-1][~lit].mean()
    assert (drawn[0][:3, :40] < 40).all() and drawn[0][:20, :60].max() > 200  # the rate, white on black
    said = capsys.readouterr().out
    assert f"4 objects in {NUM_FRAMES} frames, " in said and " fps" in said and f"{out / 'object_masks'}, " in said


def test_typed_text_is_looked_for_and_followed_back(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    script.TEXT_PROMPT, script.OBJECT_MASKS = "", False
    steps = []

    class Typing(Lines):
        """A line comes before the third frame."""

        def empty(self) -> bool:
            steps.append(len(steps))
            return len(steps) != 3

        def get(self) -> str:
            steps.pop()
            steps.extend([2, 2])
            return "motorcycle."

    script.typed = Typing()
    script.main()
    assert names_by_frame(script) == [["motorcycle"]] * NUM_FRAMES
    forward = list(read_frame_annotations(script.OUTPUT_DIR / "short_forward.jsonl"))
    assert [len(frame.detections) for frame in forward] == [0, 0, 1, 1]
    assert 'from frame 2 on, looking for "motorcycle."' in "".join(capsys.readouterr())
    assert not (script.OUTPUT_DIR / "object_masks").exists()


def test_clicks_and_boxes_in_a_window(script: ModuleType) -> None:
    script.TEXT_PROMPT, script.SHOW = "", True

    def happening() -> Iterator[list[Event]]:
        yield []
        yield [Drag(OWL), Click(*(np.array(MOTORCYCLE).reshape(2, 2).mean(axis=0)))]
        yield [Click(230, 180, is_right=True), Key("q")]

    script.InteractiveWindow = window_of(happening)
    script.main()
    forward = list(read_frame_annotations(script.OUTPUT_DIR / "short_forward.jsonl"))
    assert [frame.detections.tracker_id.tolist() if frame.detections else [] for frame in forward] == [[], [1, 2], [2]]
    assert names_by_frame(script) == [["object"] * 2, ["object"] * 2, ["object"]]
    assert len(open_frames(script.OUTPUT_DIR / "short.mp4")) == 3 == len(script.InteractiveWindow.pictures)


class InterruptedTyping(Lines):
    """Nobody types, but Ctrl-C is pressed before the third frame."""

    num_asked = 0

    def empty(self) -> bool:
        self.num_asked += 1
        if self.num_asked == 3:
            signal.raise_signal(signal.SIGINT)
        return True


def test_a_run_that_was_interrupted_goes_on(script: ModuleType) -> None:
    script.TEXT_PROMPT, script.BOXES, script.SELECTED = "motorcycle.", f"owl: {' '.join(map(str, OWL))}", "owl"
    script.main()
    whole = script.OUTPUT_DIR
    script.OUTPUT_DIR, script.typed = whole.with_name("again"), InterruptedTyping()
    with pytest.raises(StoppedError):
        script.main()
    assert (script.OUTPUT_DIR / "short.resume").exists()
    script.RESUME, script.typed = True, Lines()
    script.main()

    def all_but_videos(folder: Path) -> dict[str, bytes]:  # which show how fast it was
        paths = [path for path in folder.rglob("*") if path.suffix in (".png", ".npy", ".json", ".jsonl")]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.name != RECORD_NAME}

    expected = all_but_videos(whole)
    assert "short_forward.jsonl" in expected and "object_masks/1_owl/00003.png" in expected
    assert all_but_videos(script.OUTPUT_DIR) == expected


class EndlessCapture:
    """A camera that shows the first frame of the clip for ever."""

    fps = Fraction(10)
    is_live = True
    image = np.zeros((48, 64, 3), np.uint8)

    def read(self) -> CapturedFrame:
        time.sleep(0.05)
        return CapturedFrame(self.image, 0.0)

    def close(self) -> None:
        pass


def test_a_camera_has_no_way_back(
    script: ModuleType, clip: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    EndlessCapture.image = open_frames(clip)[0]
    monkeypatch.setattr(live, "open_capture", lambda *_: EndlessCapture())
    script.VIDEO_PATH, script.MAX_FRAMES, script.TEXT_PROMPT, script.SELECTED = "0", 3, "motorcycle.", "motorcycle"
    script.main()
    by_frame = [frame.detections for frame in read_frame_annotations(script.OUTPUT_DIR / "0.jsonl")]
    assert [objects.data["class_name"].tolist() for objects in by_frame] == [["motorcycle"]] * 3
    assert "a live source is followed forwards only" in caplog.text
    assert {path.name for path in script.OUTPUT_DIR.iterdir()} == {
        RECORD_NAME, "0.mp4", "0.jsonl", "0_selected.mp4", "events.jsonl", "mask_data", "json_data", "object_masks",
    }  # fmt: skip


def test_nothing_is_looked_for_and_nothing_shown(script: ModuleType) -> None:
    script.TEXT_PROMPT, script.SELECTED, script.BACKWARD = "", "owl", False
    script.main()
    assert names_by_frame(script) == [[]] * NUM_FRAMES and not (script.OUTPUT_DIR / "short_forward.jsonl").exists()
    assert len(open_frames(script.OUTPUT_DIR / "short_selected.mp4")) == NUM_FRAMES


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"VIDEO_PATH": "nowhere.mp4"}, "no such video, image or folder: 'nowhere.mp4'"),
        ({"VIDEO_PATH": "63"}, "camera 63 cannot be opened: not there"),
        ({"BOXES": "owl: 1 2 3"}, "expected a box such as '184 112 284 246', left top right bottom, got '1 2 3'"),
        ({"POINTS": "700 5"}, "the point 700 5 is outside the frame of 640x360 pixels"),
        ({"MASKS": "owl.png"}, "no such image: owl.png"),
        ({"IMAGE_SIZE": 500}, "expected an image_size that is a multiple of 32, got 500"),
        ({"MASK_CLEANING": "soap"}, "expected cleaning of masks by specks, morphology, none, got 'soap'"),
        ({"SELECTED_BACKGROUND": 2.0}, "expected a brightness in [0, 1] of what is not selected, got 2.0"),
        ({"NEW_BELOW_IOU": 1.5}, "expected iou_threshold in [0, 1], got 1.5"),
        ({"TEXT_PROMPT": "not an owl."}, "expected at least one phrase that does not begin with 'not'"),
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
    vars(script).update(settings)
    with pytest.raises(SystemExit) as ended:
        run(script.main)
    said = capfd.readouterr().err
    assert ended.value.code == 2 and said.startswith(f"lang.py: {line}") and said.count("\n") == 1, said
    assert {path.name for path in script.OUTPUT_DIR.rglob("*") if path.is_file()} <= {RECORD_NAME}


@pytest.mark.slow
@pytest.mark.skipif(what_is_missing() is not None, reason=f"a window cannot be driven: {what_is_missing()}")
def test_a_real_window_driven_by_mouse_keys_and_terminal(tmp_path: Path) -> None:
    log, forward = tmp_path / "log", tmp_path / "out" / "parade_forward.partial.jsonl"
    flags = ["--output-dir", str(tmp_path / "out"), "--text-prompt", "crown.", "--show", "--image-size", "256"]
    with screen() as display, log.open("w") as said:
        environment = {**os.environ, "DISPLAY": display, "PYTHONUNBUFFERED": "1"}

        def do(*what: object) -> None:
            subprocess.run(["xdotool", *map(str, what)], env=environment, check=True, capture_output=True)

        def wait_until(is_so: Callable[[], bool]) -> None:
            deadline = time.monotonic() + 120
            while not is_so():
                assert program.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)

        def wait_for(text: str) -> None:
            wait_until(lambda: text in log.read_text())

        with subprocess.Popen(
            [sys.executable, str(REPOSITORY / SCRIPT), *flags],
            cwd=REPOSITORY, env=environment, stdin=subprocess.PIPE, stdout=said, stderr=said, text=True,
        ) as program:  # fmt: skip
            try:
                do("search", "--sync", "--name", "parade.mp4")
                wait_for("click: point on a new object")
                do("mousemove", *OWL[:2], "mousedown", 1)  # the frame stands still until it is let go
                do("sleep", 2, "mousemove", 230, 180, "sleep", 0.3)
                do("mousemove", *OWL[2:], "sleep", 0.3, "mouseup", 1)
                wait_for("object, by its box")
                do("mousemove", 440, 150, "click", 1)
                wait_for("object, by its points")
                do("mousemove", 230, 180, "click", 3)
                wait_for("ended on frame")
                assert program.stdin is not None
                program.stdin.write("motorcycle. pizza.\n")
                program.stdin.flush()
                wait_for('looking for "crown. motorcycle. pizza."')
                num_lines = forward.read_text().count("\n")
                wait_until(lambda: forward.read_text().count("\n") > num_lines + 3)
                do("key", "q")
                assert program.wait(timeout=120) == 0, log.read_text()
            finally:
                program.kill()
    assert "wrote " in log.read_text() and "Traceback" not in log.read_text()
    by_frame = [frame.detections for frame in read_frame_annotations(tmp_path / "out" / "parade.jsonl")]
    names = [objects.data["class_name"].tolist() for objects in by_frame]
    assert 1 < len(names) == len(open_frames(tmp_path / "out" / "parade.mp4")) < 150
    assert "crown" in names[0] and all("object" in on_frame for on_frame in names) and names[-1].count("object") == 1
    assert "pizza" in names[-1]
