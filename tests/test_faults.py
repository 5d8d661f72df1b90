"""What goes wrong while a script runs: a full disk, damaged frames; and unusual footage that must not."""

import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import supervision as sv
import torch
from written import assert_same_files

from grounded_sam2 import outputs
from grounded_sam2.detectors.base import make_detections
from grounded_sam2.export import read_frame_annotations, read_header, read_id_map
from grounded_sam2.images import write_image
from grounded_sam2.owned import RECORD_NAME
from grounded_sam2.prompts import TextPrompt, parse_prompt
from grounded_sam2.script import run
from grounded_sam2.track.events import read_events
from grounded_sam2.video import VideoWriter, open_frames
from training.scenes import Scene, make_clip

REPOSITORY = Path(__file__).resolve().parent.parent
CONTINUOUS_SCRIPT = "grounded_sam2_tracking_demo_with_continuous_id.py"
REVERSE_SCRIPT = "grounded_sam2_tracking_demo_with_continuous_id_plus.py"
SCRIPTS = [CONTINUOUS_SCRIPT, REVERSE_SCRIPT]
TRACKING_SCRIPT = "grounded_sam2_tracking_demo.py"
CUSTOM_SCRIPTS = [
    "grounded_sam2_tracking_demo_custom_video_input_gd1.0_hf_model.py",
    "grounded_sam2_tracking_demo_custom_video_input_gd1.0_local_model.py",
]
NUM_FRAMES = 7
SIZE = (96, 128)  # height, width
FULL = Path("/dev/full")  # a file on which every write finds the disk full

Load = Callable[[str], ModuleType]
Ends = Callable[..., str]


class StandIn:
    """Finds given boxes, in place of a detector; `boxes_of` gives (N, 4) xyxy for each call, counted from 0."""

    def __init__(self, boxes_of: Callable[[int], np.ndarray]) -> None:
        self.boxes_of = boxes_of
        self.num_calls = 0

    def detect(self, images: np.ndarray, text_prompt: TextPrompt, **_: float) -> list[sv.Detections]:
        boxes = self.boxes_of(self.num_calls).reshape(-1, 4)
        self.num_calls += 1
        height, width = images.shape[:2]
        class_id = np.zeros(len(boxes), dtype=np.int64)
        phrases = parse_prompt(text_prompt)
        return [make_detections(boxes, np.full(len(boxes), 0.9), class_id, phrases, (width, height))]


@pytest.fixture
def ends(
    load_script: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Ends:
    """Run a script with settings and a stand-in detector, check its exit status, and give the last line on stderr."""
    monkeypatch.chdir(REPOSITORY)

    def ends_with(status: int, name: str, boxes_of: Callable[[int], np.ndarray], **settings: Any) -> str:
        script = load_script(name)
        builders = ("build_detector", "LocalDetector", "HuggingFaceDetector")
        detector = next(builder for builder in builders if hasattr(script, builder))
        settings = {detector: lambda *_, **__: StandIn(boxes_of)} | settings
        settings = {"OUTPUT_DIR": tmp_path / "out", "TEXT_PROMPT": "thing."} | settings
        if name in SCRIPTS:
            settings["DETECT_EVERY"] = 3
        for setting, value in settings.items():
            assert hasattr(script, setting)
            setattr(script, setting, value)
        ended = 0
        try:
            run(script.main)
        except SystemExit as exit_:
            ended = int(exit_.code or 0)
        lines = capsys.readouterr().err.splitlines()
        assert ended == status, lines
        if status == 2:
            assert len([line for line in lines if line.startswith(Path(sys.argv[0]).name)]) == 1
        return lines[-1] if lines else ""

    return ends_with


def nothing(_: int) -> np.ndarray:
    return np.zeros((0, 4))


@pytest.fixture(scope="module")
def clip() -> list[Scene]:
    return list(make_clip(3, NUM_FRAMES, SIZE, kind="drift", num_objects=(3, 3)))


@pytest.fixture
def video(tmp_path: Path, clip: list[Scene]) -> Path:
    with VideoWriter(tmp_path / "clip.mp4", 25) as writer:
        for scene in clip:
            writer.write(scene.image)
    return tmp_path / "clip.mp4"


@pytest.fixture
def earlier(tmp_path: Path) -> Iterator[None]:
    """Results of an earlier run, which must be there afterwards as they were."""
    names = ["clip.mp4", "clip.jsonl", "events.jsonl", "mask_data/mask_00000.npy", "json_data/mask_00000.json"]
    for name in names:
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text("an earlier result")
    # that run has noted what it wrote; other files of such names would be kept, and this run's be called "clip-2"
    noted = [{"file": name.partition("/")[0], "source": []} for name in names]
    (tmp_path / "out" / RECORD_NAME).write_text("".join(json.dumps(entry) + "\n" for entry in noted))
    yield
    for name in names:
        assert (tmp_path / "out" / name).read_text() == "an earlier result"


# ---- a full disk ----


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
@pytest.mark.usefixtures("earlier")
@pytest.mark.parametrize("full", ["clip.partial.jsonl", "clip.partial.mp4", "events.partial.jsonl"])
def test_a_full_disk_is_one_line(ends: Ends, tmp_path: Path, video: Path, clip: list[Scene], full: str) -> None:
    (tmp_path / "out" / full).symlink_to(FULL)
    said = ends(2, CONTINUOUS_SCRIPT, lambda _: clip[0].boxes_xyxy, VIDEO_PATH=str(video))
    assert said.endswith(f"{full}: No space left on device")


@pytest.mark.usefixtures("earlier")
def test_a_video_that_grows_too_large_is_one_line_and_plays_so_far(ends: Ends, tmp_path: Path) -> None:
    """Noise takes about 15 kB a frame; what was written before the limit can be seen."""
    rng = np.random.default_rng(0)
    with VideoWriter(tmp_path / "clip.mp4", 25, crf=1) as writer:
        for _ in range(90):
            writer.write(rng.integers(0, 255, (144, 192, 3), dtype=np.uint8))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, limits[1]))
    try:
        said = ends(2, CONTINUOUS_SCRIPT, nothing, VIDEO_PATH=str(tmp_path / "clip.mp4"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot write" in said and said.endswith("clip.partial.mp4: File too large")
    num_frames = len(list(open_frames(tmp_path / "out" / "clip.partial.mp4")))
    num_lines = len(list(read_frame_annotations(tmp_path / "out" / "clip.partial.jsonl")))
    assert 20 < num_frames < num_lines < 90


# ---- damaged frames ----


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_damaged_frame_in_a_file_costs_that_frame_only(
    ends: Ends, tmp_path: Path, video: Path, clip: list[Scene], name: str
) -> None:
    import av

    with av.open(str(video)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(video.read_bytes())
    position, size = packets[NUM_FRAMES // 2]
    content[position : position + size] = bytes(size)
    video.write_bytes(content)
    ends(0, name, lambda _: clip[0].boxes_xyxy, VIDEO_PATH=str(video))
    assert len(open_frames(tmp_path / "out" / "clip.mp4")) == NUM_FRAMES
    by_frame = list(read_frame_annotations(tmp_path / "out" / "clip.jsonl"))
    assert [frame.frame_idx for frame in by_frame] == list(range(NUM_FRAMES))


def test_a_damaged_image_in_a_folder_ends_the_run_with_what_came_before_it(
    ends: Ends, tmp_path: Path, clip: list[Scene]
) -> None:
    for frame_idx, scene in enumerate(clip):
        write_image(tmp_path / "frames" / f"{frame_idx}.png", scene.image)
    damaged = tmp_path / "frames" / "5.png"
    damaged.write_bytes(damaged.read_bytes()[:500])
    said = ends(2, CONTINUOUS_SCRIPT, lambda _: clip[0].boxes_xyxy, VIDEO_PATH=str(tmp_path / "frames"))
    assert f"{damaged} is a damaged image" in said
    out = tmp_path / "out"
    assert len(list(read_frame_annotations(out / "frames.partial.jsonl"))) == 5
    assert len(open_frames(out / "frames.partial.mp4")) == 5
    assert len(read_id_map(out / "partial", 4)) > 0 and read_events(out / "events.partial.jsonl")


# ---- signals ----


def stopping_itself(
    writer: VideoWriter, image: np.ndarray, write: Callable[[VideoWriter, np.ndarray], None] = VideoWriter.write
) -> None:
    """In place of `VideoWriter.write`: there is a signal after the third frame."""
    write(writer, image)
    if writer.num_frames == 3:
        os.kill(os.getpid(), signal.SIGTERM)


def stop_after_three_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a script get a signal as it has written its third frame, which it does at once and not in a thread."""
    monkeypatch.setattr(outputs.VideoWriter, "write", stopping_itself)
    monkeypatch.setattr(outputs.TrackingOutputs, "draw", outputs.TrackingOutputs._draw)


@pytest.mark.parametrize("name", [TRACKING_SCRIPT, *CUSTOM_SCRIPTS, *SCRIPTS])
def test_a_signal_ends_a_script_after_the_frame_it_is_at(
    ends: Ends, tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    stop_after_three_frames(monkeypatch)
    said = ends(143, name, nothing, VIDEO_PATH=str(video))
    assert said.endswith("stopped by SIGTERM after 3 frames")
    assert len(open_frames(tmp_path / "out" / "clip.partial.mp4")) == 3
    assert len(list(read_frame_annotations(tmp_path / "out" / "clip.partial.jsonl"))) == 3
    assert not (tmp_path / "out" / "clip.mp4").exists() and not (tmp_path / "out" / "clip.jsonl").exists()


@pytest.mark.parametrize("name", [*CUSTOM_SCRIPTS, CONTINUOUS_SCRIPT])
def test_a_live_stream_has_no_other_end(
    ends: Ends, tmp_path: Path, clip: list[Scene], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    stream = open_frames(scene.image for scene in clip)
    stop_after_three_frames(monkeypatch)
    ends(0, name, nothing, VIDEO_PATH="live", open_frames=lambda _: stream)
    assert len(open_frames(tmp_path / "out" / "live.mp4")) == 3
    assert len(list(read_frame_annotations(tmp_path / "out" / "live.jsonl"))) == 3
    assert not list((tmp_path / "out").glob("*.partial.*"))


def test_a_stopped_custom_video_script_goes_on_with_resume(
    ends: Ends, tmp_path: Path, video: Path, clip: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its objects are followed on without being looked for again, and all files are as if it had not been stopped."""

    def on_the_first_frame(_: int) -> np.ndarray:
        return clip[0].boxes_xyxy

    def never(_: int) -> np.ndarray:
        raise AssertionError("the objects were looked for again")

    settings = {"VIDEO_PATH": str(video)}
    ends(0, CUSTOM_SCRIPTS[0], on_the_first_frame, OUTPUT_DIR=tmp_path / "whole", **settings)
    with monkeypatch.context() as patched:
        stop_after_three_frames(patched)
        ends(143, CUSTOM_SCRIPTS[0], on_the_first_frame, **settings)
    assert (tmp_path / "out" / "clip.resume").exists()
    ends(0, CUSTOM_SCRIPTS[0], never, RESUME=True, **settings)
    assert_same_files(tmp_path / "out", tmp_path / "whole")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"clip.mp4", "clip.jsonl", RECORD_NAME}
    assert any(len(frame.detections) for frame in read_frame_annotations(tmp_path / "out" / "clip.jsonl"))


def stopped_while_loading(device: str) -> torch.device:
    """In place of `choose_device`."""
    os.kill(os.getpid(), signal.SIGTERM)
    return torch.device("cpu")


@pytest.mark.parametrize("name", [CUSTOM_SCRIPTS[0], CONTINUOUS_SCRIPT])
def test_a_live_stream_that_is_stopped_while_models_load_is_complete_without_frames(
    ends: Ends, tmp_path: Path, clip: list[Scene], name: str
) -> None:
    stream = open_frames(scene.image for scene in clip)
    ends(0, name, nothing, VIDEO_PATH="live", choose_device=stopped_while_loading, open_frames=lambda _: stream)
    out = tmp_path / "out"
    assert read_header(out / "live.jsonl").phrases == ("thing",)
    assert list(read_frame_annotations(out / "live.jsonl")) == []
    assert not (out / "live.mp4").exists() and not list(out.glob("*.partial.*"))


@pytest.mark.usefixtures("earlier")
@pytest.mark.parametrize("name", [TRACKING_SCRIPT, CUSTOM_SCRIPTS[0], *SCRIPTS])
def test_a_file_that_is_stopped_while_models_load_leaves_earlier_results(
    ends: Ends, tmp_path: Path, video: Path, name: str
) -> None:
    said = ends(143, name, nothing, VIDEO_PATH=str(video), choose_device=stopped_while_loading)
    assert said.endswith("stopped by SIGTERM after 0 frames")


# ---- unusual footage, for the script that goes back ----


def test_objects_first_found_on_the_last_frame_are_followed_to_the_first(
    ends: Ends, tmp_path: Path, video: Path, clip: list[Scene]
) -> None:
    def at_the_end(call: int) -> np.ndarray:
        return clip[-1].boxes_xyxy if call == (NUM_FRAMES - 1) // 3 else nothing(call)

    ends(0, REVERSE_SCRIPT, at_the_end, VIDEO_PATH=str(video))
    out = tmp_path / "out"
    forward = [len(frame.detections) for frame in read_frame_annotations(out / "clip_forward.jsonl")]
    assert forward == [0] * (NUM_FRAMES - 1) + [3]
    by_frame = list(read_frame_annotations(out / "clip.jsonl"))
    assert [len(frame.detections) > 0 for frame in by_frame] == [True] * NUM_FRAMES
    row = int(np.argmax([scene_mask.sum() for scene_mask in clip[-1].masks]))
    for scene, frame in zip(clip, by_frame, strict=True):
        largest = frame.detections[frame.detections.tracker_id == row + 1]
        assert len(largest) == 1
        overlap = (largest.mask[0] & scene.masks[row]).sum() / (largest.mask[0] | scene.masks[row]).sum()
        assert overlap > 0.5
    assert len(read_id_map(out, 0)) == len(by_frame[0].detections)


def test_no_object_on_any_frame(ends: Ends, tmp_path: Path, video: Path) -> None:
    ends(0, REVERSE_SCRIPT, nothing, VIDEO_PATH=str(video))
    out = tmp_path / "out"
    assert [len(frame.detections) for frame in read_frame_annotations(out / "clip.jsonl")] == [0] * NUM_FRAMES
    assert len(open_frames(out / "clip.mp4")) == NUM_FRAMES
    assert len(read_id_map(out, NUM_FRAMES - 1)) == 0 and read_events(out / "events.jsonl") == []
    assert read_header(out / "clip_backward.jsonl") == read_header(out / "clip.jsonl") is not None
    assert list(read_frame_annotations(out / "clip_backward.jsonl")) == []


@pytest.mark.slow
def test_sixty_objects_at_once(ends: Ends, tmp_path: Path) -> None:
    """A board of 60 discs that moves a little; half of them are found only on the last frame."""
    rows, columns = np.mgrid[0:6, 0:10]
    centres = np.stack([32 * columns.ravel() + 16, 32 * rows.ravel() + 16], axis=1)
    colours = np.random.default_rng(0).integers(0, 256, (60, 3))
    y, x = np.mgrid[0:192, 0:320]
    with VideoWriter(tmp_path / "clip.mp4", 25, crf=5) as writer:
        for shift in range(4):
            image = np.full((192, 320, 3), 128, np.uint8)
            for (centre_x, centre_y), colour in zip(centres, colours, strict=True):
                image[(x - centre_x - shift) ** 2 + (y - centre_y) ** 2 <= 81] = colour
            writer.write(image)

    def boxes_of(call: int) -> np.ndarray:
        boxes = np.concatenate([centres - 9, centres + 10], axis=1) + np.array([3 * call, 0, 3 * call, 0])
        return boxes if call else boxes[::2]

    ends(0, REVERSE_SCRIPT, boxes_of, VIDEO_PATH=str(tmp_path / "clip.mp4"))
    by_frame = list(read_frame_annotations(tmp_path / "out" / "clip.jsonl"))
    assert [frame.frame_idx for frame in by_frame] == [0, 1, 2, 3]
    for frame in by_frame:
        obj_ids = frame.detections.tracker_id.tolist()
        assert len(obj_ids) == len(set(obj_ids)) and set(obj_ids) <= set(range(1, 61))
        in_map = read_id_map(tmp_path / "out", frame.frame_idx)
        assert in_map.tracker_id.tolist() == obj_ids
    found = [len(frame.detections) for frame in by_frame]
    assert found[-1] >= 57 and found[0] >= 54
