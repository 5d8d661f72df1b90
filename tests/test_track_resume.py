"""Runs that are interrupted: what is saved, what is refused, and that going on ends as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
import supervision as sv
import torch
from written import assert_same_files

from grounded_sam2 import outputs
from grounded_sam2.detectors.base import make_detections
from grounded_sam2.export import (
    FrameAnnotations,
    FrameAnnotationWriter,
    VideoHeader,
    read_frame_annotations,
    read_header,
    read_id_map,
)
from grounded_sam2.owned import RECORD_NAME
from grounded_sam2.prompts import TextPrompt, parse_prompt
from grounded_sam2.script import StoppedError, StopRequest, run
from grounded_sam2.track.continuous import ContinuousTracker
from grounded_sam2.track.events import EventLogWriter, read_events
from grounded_sam2.track.resume import SavedRun
from grounded_sam2.track.reverse import ReverseTracker
from grounded_sam2.video import VideoWriter, open_frames, open_indexed_frames
from sam2.build_sam import build_sam2_video_predictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from training.scenes import Scene, make_clip

REPOSITORY = Path(__file__).resolve().parent.parent
WEIGHTS = REPOSITORY / "checkpoints/sam2.1_nano.pt"
CONTINUOUS_SCRIPT = "grounded_sam2_tracking_demo_with_continuous_id.py"
REVERSE_SCRIPT = "grounded_sam2_tracking_demo_with_continuous_id_plus.py"
SIZE = (96, 128)  # height, width
NUM_FRAMES = 12
SETTINGS = {"TEXT_PROMPT": "dog.", "DETECT_EVERY": "3"}
HEADER = VideoHeader(SIZE[::-1], "clip", Fraction(24), ("dog",), SETTINGS)

Load = Callable[[str], ModuleType]


class SceneDetector:
    """Finds the objects of a scene, which it knows by its image, from a round of detection of their own on."""

    def __init__(self, clip: list[Scene]) -> None:
        self.scene_of = {scene.image.tobytes(): (t, scene) for t, scene in enumerate(clip)}

    def detect(self, images: np.ndarray, text_prompt: TextPrompt, **_: float) -> list[sv.Detections]:
        t, scene = self.scene_of[images.tobytes()]
        rows = [row for row in range(len(scene.ids)) if scene.masks[row].any() and t >= 3 * row]
        phrases = parse_prompt(text_prompt)
        class_id = np.array([phrases.index(scene.phrases[row]) for row in rows], dtype=np.int64)
        return [make_detections(scene.boxes_xyxy[rows], np.full(len(rows), 0.9), class_id, phrases, SIZE[::-1])]


@pytest.fixture(scope="module")
def predictor() -> SAM2VideoPredictor:
    return build_sam2_video_predictor(None, str(WEIGHTS), device="cpu")


@pytest.fixture(scope="module")
def clip() -> list[Scene]:
    return list(make_clip(3, NUM_FRAMES, SIZE, kind="drift", num_objects=(3, 3)))


class Run:
    """A run of the continuous tracker over a clip, and of the reverse tracker after it."""

    def __init__(self, folder: Path, predictor: SAM2VideoPredictor, clip: list[Scene]) -> None:
        self.folder, self.predictor, self.clip = folder, predictor, clip
        self.seen: list[int] = []

    def tracker(self) -> ContinuousTracker:
        phrases = list(dict.fromkeys(self.clip[0].phrases))
        return ContinuousTracker(SceneDetector(self.clip), self.predictor, phrases, detect_every=3, scene_cut=None)

    def start(self, resume: bool, stop_after: tuple[str, int] | None = None, **changes: Any) -> None:
        """Args: stop_after: stage, and frames in it after which the run is asked to stop; changes: of the settings."""
        frames = open_indexed_frames([scene.image for scene in self.clip])
        self.seen = []
        with (
            SavedRun(self.folder / "a.resume", SETTINGS | changes, frames, resume, every=0) as saved,
            FrameAnnotationWriter(self.folder / "forward.jsonl", HEADER) as forward_lines,
            FrameAnnotationWriter(self.folder / "backward.jsonl", HEADER) as backward_lines,
            EventLogWriter(self.folder / "events.jsonl") as event_log,
        ):
            tracker = self.tracker()
            stepped = tracker.step
            tracker.step = lambda image: (self.seen.append(tracker.frame_idx + 1), stepped(image))[1]  # type: ignore[method-assign, func-returns-value]
            images = self.stopping(frames, "forwards", stop_after)
            for frame_idx, image, objects in saved.follow(tracker, images, forward_lines, event_log):
                assert np.array_equal(image, self.clip[frame_idx].image) and objects.mask is not None
            with forward_lines.read() as forward:
                back = ReverseTracker(self.predictor, forward)
                saved.follow_back(back, self.stopping(back.run(frames), "backwards", stop_after), backward_lines)

    @staticmethod
    def stopping(frames: Any, stage: str, stop_after: tuple[str, int] | None) -> Iterator[Any]:
        request = StopRequest()
        for position, frame in enumerate(request.guard(frames)):
            if stop_after == (stage, position + 1):
                request.signal_number = signal.SIGTERM
            yield frame

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, predictor: SAM2VideoPredictor, clip: list[Scene]) -> Run:
    """A run that nothing interrupted."""
    whole = Run(tmp_path_factory.mktemp("whole"), predictor, clip)
    whole.start(resume=False)
    assert set(whole.files()) == {"forward.jsonl", "backward.jsonl", "events.jsonl"}
    assert len(read_events(whole.folder / "events.jsonl")) >= 4
    assert len(FrameAnnotations(whole.folder / "backward.jsonl")) >= 5
    for name in ("forward.jsonl", "backward.jsonl"):  # resumed runs end with the same bytes, so with one header too
        assert read_header(whole.folder / name) == HEADER
    return whole


@pytest.mark.parametrize("stop_after", [("forwards", 1), ("forwards", 7), ("backwards", 2), ("backwards", 4)])
def test_a_stopped_run_goes_on_to_the_same_result(
    tmp_path: Path, predictor: SAM2VideoPredictor, clip: list[Scene], whole: Run, stop_after: tuple[str, int]
) -> None:
    stopped = Run(tmp_path, predictor, clip)
    with pytest.raises(StoppedError):
        stopped.start(resume=False, stop_after=stop_after)
    assert "a.resume" in stopped.files() and "forward.partial.jsonl" in stopped.files()
    stopped.start(resume=True)
    first = stop_after[1] if stop_after[0] == "forwards" else NUM_FRAMES
    assert stopped.seen == list(range(first, NUM_FRAMES))  # nothing is done twice
    assert stopped.files() == whole.files()


def test_a_run_that_crashed_goes_back_to_the_last_save(
    tmp_path: Path, predictor: SAM2VideoPredictor, clip: list[Scene], whole: Run
) -> None:
    """The lines written after it are dropped, also one that was cut off."""
    crashed = Run(tmp_path, predictor, clip)
    with pytest.raises(StoppedError):
        crashed.start(resume=False, stop_after=("forwards", 5))
    with (tmp_path / "forward.partial.jsonl").open("a") as file:
        file.write('{"frame_idx": 5, "annotations": []}\n{"frame_i')
    with (tmp_path / "events.partial.jsonl").open("a") as file:
        file.write('{"frame_idx": 5, "obj_id": 9, "kind": "lost", "reason": "?"}\n')
    crashed.start(resume=True)
    assert crashed.files() == whole.files()


def test_a_run_interrupted_twice_goes_on_twice(
    tmp_path: Path, predictor: SAM2VideoPredictor, clip: list[Scene], whole: Run
) -> None:
    interrupted = Run(tmp_path, predictor, clip)
    for resume, stop_after in ((False, ("forwards", 4)), (True, ("forwards", 2)), (True, ("backwards", 3))):
        with pytest.raises(StoppedError):
            interrupted.start(resume, stop_after)
    interrupted.start(resume=True)
    assert interrupted.files() == whole.files()


def test_a_state_holds_memories_and_no_more(predictor: SAM2VideoPredictor, clip: list[Scene]) -> None:
    """Its size is bounded by the objects that are followed, not by the frames that have passed."""

    def size_of(value: Any) -> int:
        if isinstance(value, torch.Tensor):
            return value.untyped_storage().nbytes()
        if isinstance(value, dict):
            return sum(map(size_of, value.values()))
        return sum(map(size_of, value)) if isinstance(value, (list, tuple)) else 8

    sizes = []
    tracker = Run(Path(), predictor, clip).tracker()
    for _ in range(4):
        for scene in clip:
            tracker.step(scene.image)
        tracker.take_events()
        sizes.append(size_of(tracker.save()) / len(tracker.keeper.followed()))
    one_mask = 4 * (predictor.image_size // 4) ** 2
    assert sizes[3] < 1.2 * sizes[1] and sizes[3] < 20 * one_mask


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"TEXT_PROMPT": "cat."}, r"a\.resume is of a run with TEXT_PROMPT dog\., this one has cat\.; run without"),
        ({"DETECT_EVERY": "4"}, "a run with DETECT_EVERY 3, this one has 4"),
    ],
)
def test_another_run_is_refused_and_harms_nothing(
    tmp_path: Path, predictor: SAM2VideoPredictor, clip: list[Scene], changes: dict[str, str], message: str
) -> None:
    stopped = Run(tmp_path, predictor, clip)
    with pytest.raises(StoppedError):
        stopped.start(resume=False, stop_after=("forwards", 2))
    before = stopped.files()
    with pytest.raises(ValueError, match=message):
        stopped.start(resume=True, **changes)
    assert stopped.files() == before


def test_another_source_is_refused(tmp_path: Path, predictor: SAM2VideoPredictor, clip: list[Scene]) -> None:
    stopped = Run(tmp_path, predictor, clip)
    with pytest.raises(StoppedError):
        stopped.start(resume=False, stop_after=("forwards", 2))
    for other, message in ((clip[:-1], "with frames 12, this one has 11"), (clip[::-1], "with content ")):
        with pytest.raises(ValueError, match=message):
            Run(tmp_path, predictor, other).start(resume=True)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "lines"])
def test_damage_is_refused(tmp_path: Path, predictor: SAM2VideoPredictor, clip: list[Scene], damage: str) -> None:
    stopped = Run(tmp_path, predictor, clip)
    with pytest.raises(StoppedError):
        stopped.start(resume=False, stop_after=("forwards", 2))
    path = tmp_path / ("forward.partial.jsonl" if damage == "lines" else "a.resume")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"cut": bytes(content[:-9]), "empty": b""}.get(damage, bytes(content)))
    message = "not as the interrupted run left it" if damage == "lines" else r"a\.resume is damaged"
    with pytest.raises(ValueError, match=f"{message}.*run without --resume"):
        stopped.start(resume=True)


def test_a_state_of_another_version_is_refused(
    tmp_path: Path, predictor: SAM2VideoPredictor, clip: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = Run(tmp_path, predictor, clip)
    with monkeypatch.context() as older:
        older.setattr(ContinuousTracker, "save", lambda tracker: {"frame_idx": tracker.frame_idx})
        with pytest.raises(StoppedError):
            stopped.start(resume=False, stop_after=("forwards", 2))
    with pytest.raises(ValueError, match=r"another version of this program.*run without --resume"):
        stopped.start(resume=True)


def test_nothing_to_resume_starts_anew_and_says_so(
    tmp_path: Path, predictor: SAM2VideoPredictor, clip: list[Scene], whole: Run, caplog: pytest.LogCaptureFixture
) -> None:
    fresh = Run(tmp_path, predictor, clip)
    fresh.start(resume=True)
    assert "there is no" in caplog.text and "starting with the first frame" in caplog.text
    assert fresh.files() == whole.files()


def test_a_new_run_forgets_an_interrupted_one(
    tmp_path: Path, predictor: SAM2VideoPredictor, clip: list[Scene], whole: Run
) -> None:
    again = Run(tmp_path, predictor, clip)
    with pytest.raises(StoppedError):
        again.start(resume=False, stop_after=("backwards", 2))
    again.start(resume=False)
    assert again.seen == list(range(NUM_FRAMES)) and again.files() == whole.files()


def test_a_kill_while_the_state_is_saved_leaves_nothing_behind(
    tmp_path: Path, clip: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = open_indexed_frames([scene.image for scene in clip])
    with SavedRun(tmp_path / "a.resume", SETTINGS, frames) as saved:
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", killed)
            patch.setattr(Path, "unlink", lambda path, missing_ok: None)  # SIGKILL lets nothing clean up
            with pytest.raises(SystemExit):
                saved.put("forwards", {})
        assert len(list(tmp_path.iterdir())) == 1
    assert not list(tmp_path.iterdir())


def killed(descriptor: int) -> None:
    raise SystemExit


def test_a_camera_is_followed_but_not_resumed(tmp_path: Path, predictor: SAM2VideoPredictor, clip: list[Scene]) -> None:
    camera = open_frames(scene.image for scene in clip[:3])
    with (
        SavedRun(tmp_path / "a.resume", SETTINGS, camera, every=0) as saved,
        FrameAnnotationWriter(tmp_path / "a.jsonl", SIZE[::-1]) as annotations,
        EventLogWriter(tmp_path / "events.jsonl") as event_log,
    ):
        for _ in saved.follow(Run(tmp_path, predictor, clip).tracker(), camera, annotations, event_log):
            assert not saved.path.exists()
    with pytest.raises(ValueError, match="cannot resume a camera or a live stream"):
        SavedRun(tmp_path / "a.resume", SETTINGS, camera, resume=True)


@pytest.mark.parametrize("every", [float("nan"), -1.0])
def test_seconds_between_saves_are_a_number(tmp_path: Path, every: float) -> None:
    with pytest.raises(ValueError, match="expected SAVE_EVERY of at least 0 seconds"):
        SavedRun(tmp_path / "a.resume", SETTINGS, open_frames([np.zeros((8, 8, 3), np.uint8)]), every=every)


# ---- the scripts, really stopped and killed ----


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip in which objects come into sight, and are found late when the detector looks rarely; with sound."""
    frames = open_frames(REPOSITORY / "assets" / "parade.mp4")
    path = tmp_path_factory.mktemp("video") / "late.mp4"
    with VideoWriter(path, frames.fps) as writer:
        for frame_idx in range(0, 48, 3):
            writer.write(frames[frame_idx][::2, ::2])
    return path


def start(name: str, video: Path, folder: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, name, "--video-path", str(video), "--output-dir", str(folder), "--step", "7"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--save-every", "0", *flags], cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True
    )


def end_after(process: subprocess.Popen[str], path: Path, num_lines: int, number: signal.Signals) -> str:
    """Send a signal once a file has some lines; gives what the process said on stderr."""
    while process.poll() is None and not (path.exists() and path.read_bytes().count(b"\n") >= num_lines):
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[1]
    process.send_signal(number)
    return process.communicate()[1]


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != RECORD_NAME
    }


def test_the_continuous_script_goes_on_after_sigkill_and_sigterm(
    tmp_path: Path, video: Path, load_script: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    killed = start(CONTINUOUS_SCRIPT, video, broken)
    lines = broken / "late.partial.jsonl"
    end_after(killed, lines, 6, signal.SIGKILL)  # the header and five frames
    assert killed.returncode == -signal.SIGKILL
    on_disk = list(read_frame_annotations(lines))  # it can be read
    assert len(on_disk) >= 5 and read_events(broken / "events.partial.jsonl")
    for frame in on_disk[:4]:
        in_map, objects = read_id_map(broken / "partial", frame.frame_idx), frame.detections
        assert in_map.tracker_id.tolist() == (objects.tracker_id.tolist() if len(objects) else [])

    stopped = start(CONTINUOUS_SCRIPT, video, broken, "--resume")
    said = end_after(stopped, lines, 10, signal.SIGTERM)
    assert stopped.returncode == 128 + signal.SIGTERM
    assert "--resume goes on from there" in said and "stopped by SIGTERM after" in said.splitlines()[-1]
    num_lines = len(list(read_frame_annotations(lines)))
    with av.open(str(broken / "late.partial.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == num_lines  # every frame so far, playable

    for folder, is_resumed in ((whole, False), (broken, True)):
        script = load_script(CONTINUOUS_SCRIPT)
        settings = {"VIDEO_PATH": str(video), "OUTPUT_DIR": folder, "DETECT_EVERY": 7, "SAVE_EVERY": 0.0}
        for name, value in {**settings, "RESUME": is_resumed}.items():
            setattr(script, name, value)
        script.main()
    assert_same_files(broken, whole)
    assert len(tree(whole)) == 3 + 2 * 16


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "num_lines"), [("_forward", 8), ("_backward", 2), ("", 4)])
def test_the_reverse_script_goes_on_after_sigkill(tmp_path: Path, video: Path, stage: str, num_lines: int) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    uninterrupted = start(REVERSE_SCRIPT, video, whole)
    end_after(start(REVERSE_SCRIPT, video, broken), broken / f"late{stage}.partial.jsonl", num_lines, signal.SIGKILL)
    resumed = start(REVERSE_SCRIPT, video, broken, "--resume")
    for process in (uninterrupted, resumed):
        said = process.communicate()[1]
        assert process.returncode == 0, said
    assert_same_files(broken, whole)


def script_that_ends(script: ModuleType, capsys: pytest.CaptureFixture[str], **settings: Any) -> str:
    """Run a script whose input is bad; gives the line it ends with."""
    for name, value in settings.items():
        setattr(script, name, value)
    with pytest.raises(SystemExit) as ending:
        run(script.main)
    assert ending.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "frame/s]" not in line and "it/s]" not in line]
    assert len([line for line in lines if line]) == 1
    return lines[-1]


def test_a_script_refuses_to_go_on_with_other_settings(
    tmp_path: Path, video: Path, load_script: Load, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    script = load_script(CONTINUOUS_SCRIPT)
    drawn = outputs.annotate
    interrupting = lambda image, objects: (signal.raise_signal(signal.SIGINT), drawn(image, objects))[1]  # noqa: E731
    monkeypatch.setattr(outputs, "annotate", interrupting)
    monkeypatch.setattr(outputs.TrackingOutputs, "draw", outputs.TrackingOutputs._draw)  # at once, not in a thread
    for name, value in {"VIDEO_PATH": str(video), "OUTPUT_DIR": tmp_path, "DETECT_EVERY": 7}.items():
        setattr(script, name, value)
    with pytest.raises(StoppedError, match="stopped by SIGINT after 1 frames"):
        script.main()
    capsys.readouterr()
    before = tree(tmp_path)
    said = script_that_ends(
        load_script(CONTINUOUS_SCRIPT), capsys,
        VIDEO_PATH=str(video), OUTPUT_DIR=tmp_path, RESUME=True, DETECT_EVERY=8,
    )  # fmt: skip
    assert "a run with DETECT_EVERY 7, this one has 8; run without --resume to start anew" in said
    assert tree(tmp_path) == before and json.loads((tmp_path / "late.partial.jsonl").read_text().splitlines()[1])
