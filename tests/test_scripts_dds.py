"""The scripts of the DDS cloud, end to end through `main()` against a stand-in of the service on loopback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from dds_stand_in import TOKEN, StandIn, Truth, running

from grounded_sam2.detectors.dds import service as dds_service
from grounded_sam2.export import read_frame_annotations, read_json
from grounded_sam2.images import read_image, write_image
from grounded_sam2.script import run
from grounded_sam2.video import VideoWriter, open_frames
from training.scenes import Scene, make_clip

REPOSITORY = Path(__file__).resolve().parent.parent
GDINO_IMAGE = "grounded_sam2_gd1.5_demo.py"
DINOX_IMAGE = "grounded_sam2_dinox_demo.py"
TRACKING = "grounded_sam2_tracking_demo_with_gd1.5.py"
GDINO_CUSTOM = "grounded_sam2_tracking_demo_custom_video_input_gd1.5.py"
DINOX_CUSTOM = "grounded_sam2_tracking_demo_custom_video_input_dinox.py"
CONTINUOUS = "grounded_sam2_tracking_demo_with_continuous_id_gd1.5.py"
IMAGE_SCRIPTS = [GDINO_IMAGE, DINOX_IMAGE]
VIDEO_SCRIPTS = [TRACKING, GDINO_CUSTOM, DINOX_CUSTOM, CONTINUOUS]
SCRIPTS = [*IMAGE_SCRIPTS, *VIDEO_SCRIPTS]
NUM_FRAMES = 4
DETECT_EVERY = 2

Load = Callable[[str], ModuleType]
RunScript = Callable[..., int]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """A short clip with its ground truth, of which frame 0 is the picture for the image scripts."""
    return list(make_clip(5, NUM_FRAMES, (120, 160), num_objects=(3, 3), stretch=1.0))


@pytest.fixture(scope="module")
def footage(scenes: list[Scene], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    write_image(folder / "picture.png", scenes[0].image)
    with VideoWriter(folder / "clip.mp4", Fraction(24), crf=10) as writer:
        for scene in scenes:
            writer.write(scene.image)
    return folder


@pytest.fixture
def server(scenes: list[Scene], monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("DDS_API_TOKEN", TOKEN)
    monkeypatch.setattr(dds_service, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(dds_service, "FIRST_POLL_S", 0.001)
    with running([Truth.of(scene) for scene in scenes]) as server:
        yield server


@pytest.fixture
def run_script(load_script: Load, server: StandIn, scenes: list[Scene], footage: Path, tmp_path: Path) -> RunScript:
    """Run a script on the footage and the stand-in, with further settings; gives its exit status."""

    def run_with(name: str, **settings: Any) -> int:
        script = load_script(name)
        source = {"IMAGE_PATH": "picture.png"} if name in IMAGE_SCRIPTS else {"VIDEO_PATH": "clip.mp4"}
        defaults: dict[str, Any] = {setting: str(footage / path) for setting, path in source.items()}
        defaults |= {"DETECT_EVERY": DETECT_EVERY} if name == CONTINUOUS else {}
        defaults |= {"TEXT_PROMPT": ". ".join(scenes[0].phrases), "DDS_ENDPOINT": server.url}
        defaults |= {"OUTPUT_DIR": tmp_path / "out", "CACHE_DIR": tmp_path / "cache"}
        for setting, value in {**defaults, **settings}.items():
            assert hasattr(script, setting)
            setattr(script, setting, value)
        try:
            run(script.main)
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    return run_with


def requests_of(name: str) -> int:
    """Images that a script sends when the objects are found at once."""
    return NUM_FRAMES // DETECT_EVERY if name == CONTINUOUS else 1


def texts_in(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.rglob("*.json*"))}


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_finds_what_there_is_and_a_second_run_is_free(
    run_script: RunScript,
    server: StandIn,
    scenes: list[Scene],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    name: str,
) -> None:
    assert run_script(name) == 0
    assert len(server.tasks) == requests_of(name)
    is_dinox = name in (DINOX_IMAGE, DINOX_CUSTOM)
    assert {task.body["model"] for task in server.tasks.values()} == {
        "DINO-X-1.0" if is_dinox else "GroundingDino-1.5-Pro"
    }
    phrases = [phrase for phrase, mask in zip(scenes[0].phrases, scenes[0].masks, strict=True) if mask.any()]
    if name in IMAGE_SCRIPTS:
        found = read_json(tmp_path / "out" / "picture.json").detections
        assert found.data["class_name"].tolist() == phrases
        assert read_image(tmp_path / "out" / "picture_annotated.jpg").shape == scenes[0].image.shape
    else:
        by_frame = list(read_frame_annotations(tmp_path / "out" / "clip.jsonl"))
        assert [frame.frame_idx for frame in by_frame] == list(range(NUM_FRAMES))
        assert sorted(by_frame[0].detections.data["class_name"]) == sorted(phrases)
        assert len(open_frames(tmp_path / "out" / "clip.mp4")) == NUM_FRAMES

    written = texts_in(tmp_path / "out")
    server.asked.clear()
    assert run_script(name, MAX_REQUESTS=0) == 0
    assert server.asked == []
    assert texts_in(tmp_path / "out") == written

    said = capfd.readouterr()
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert TOKEN not in said.out + said.err and TOKEN.encode() not in everything


def test_masks_of_dino_x_are_written(
    run_script: RunScript, server: StandIn, scenes: list[Scene], tmp_path: Path
) -> None:
    assert run_script(DINOX_IMAGE, DINOX_MASKS=True) == 0
    found = read_json(tmp_path / "out" / "picture.json").detections
    np.testing.assert_array_equal(found.mask, scenes[0].masks[scenes[0].masks.any((1, 2))])


def test_tiles_are_requests(run_script: RunScript, server: StandIn, tmp_path: Path) -> None:
    assert run_script(GDINO_IMAGE, SLICE_WH=(100, 100), MAX_REQUESTS=3) == 2
    assert len(server.tasks) == 3  # of four tiles and the whole image
    assert run_script(GDINO_IMAGE, SLICE_WH=(100, 100), MAX_REQUESTS=2) == 0
    assert len(server.tasks) == 5


@pytest.mark.parametrize("name", SCRIPTS)
def test_nothing_found_still_writes_everything(
    run_script: RunScript, server: StandIn, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    assert run_script(name, TEXT_PROMPT="xylophone factory.") == 0
    if name in IMAGE_SCRIPTS:
        assert len(read_json(tmp_path / "out" / "picture.json").detections) == 0
    else:
        by_frame = list(read_frame_annotations(tmp_path / "out" / "clip.jsonl"))
        assert [len(frame.detections) for frame in by_frame] == [0] * NUM_FRAMES
    assert "found 0: nothing" in capfd.readouterr().out or name == CONTINUOUS
    assert len(server.tasks) == (NUM_FRAMES if name in (GDINO_CUSTOM, DINOX_CUSTOM) else requests_of(name))


@pytest.mark.parametrize("name", SCRIPTS)
def test_without_a_token_no_model_is_built(
    run_script: RunScript,
    load_script: Load,
    server: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
) -> None:
    monkeypatch.delenv("DDS_API_TOKEN")
    assert run_script(name, SAM2_CHECKPOINT="checkpoints/never_looked_for.pt") == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "set the environment variable DDS_API_TOKEN" in said
    assert server.asked == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("name", "mischief", "says"),
    [
        (GDINO_IMAGE, ["401"], "does not accept the token"),
        (GDINO_IMAGE, ["reset"] * 5, "broke the connection off"),
        (DINOX_IMAGE, ["no json"] * 5, "no JSON"),
        (CONTINUOUS, ["quota"], "is used up (Token out of Quota)"),
        (CONTINUOUS, ["500"] * 5, "answers 500"),
    ],
)
def test_a_fault_is_one_line_and_what_was_paid_for_is_not_lost(
    run_script: RunScript,
    server: StandIn,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    name: str,
    mischief: list[str],
    says: str,
) -> None:
    if name == CONTINUOUS:
        assert run_script(name, MAX_FRAMES=1, OUTPUT_DIR=tmp_path / "first") == 0  # one answer is paid for already
    capfd.readouterr()
    server.mischief["POST"] = list(mischief)
    before = len(server.tasks)
    assert run_script(name) == 2
    said = capfd.readouterr().err
    line = said.splitlines()[-1]
    assert says in line and f"answers so far are kept in {tmp_path / 'cache'}" in line
    assert "Traceback" not in said and TOKEN not in said
    assert not (tmp_path / "out" / "clip.mp4").exists() and not (tmp_path / "out" / "picture.json").exists()
    server.mischief["POST"].clear()
    assert run_script(name) == 0
    assert len(server.tasks) == requests_of(name) and before == requests_of(name) - 1


def test_a_budget_that_ends_midway_is_gone_on_from(
    run_script: RunScript, server: StandIn, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_script(CONTINUOUS, MAX_REQUESTS=1) == 2
    assert "the budget of 1 requests to the DDS cloud is used up" in capfd.readouterr().err
    assert len(server.tasks) == 1
    assert run_script(CONTINUOUS, MAX_REQUESTS=1) == 0
    assert len(server.tasks) == 2
    assert len(list(read_frame_annotations(tmp_path / "out" / "clip.jsonl"))) == NUM_FRAMES


def test_from_the_command_line(server: StandIn, footage: Path, scenes: list[Scene], tmp_path: Path) -> None:
    """The whole way, in a process of its own: flags, no traceback, and no token in what it says or writes."""
    wrong = TOKEN[::-1]
    flags = ["--image-path", str(footage / "picture.png"), "--text-prompt", ". ".join(scenes[0].phrases)]
    flags += [
        "--dds-endpoint",
        server.url,
        "--output-dir",
        str(tmp_path / "out"),
        "--cache-dir",
        str(tmp_path / "cache"),
    ]
    command = [sys.executable, GDINO_IMAGE, *flags]
    refused = subprocess.run(
        [*command, "--api-token", wrong], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert refused.returncode == 2, refused.stderr
    assert wrong not in refused.stdout + refused.stderr
    note, problem = refused.stderr.splitlines()
    assert note.startswith("Note: checkpoints/sam2.1_nano.pt is a nano model")
    assert problem.startswith(f"{GDINO_IMAGE}: the DDS cloud does not accept the token")
    fine = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert fine.returncode == 0, fine.stderr
    assert f"found {len(read_json(tmp_path / 'out' / 'picture.json').detections)}: " in fine.stdout
    assert len(server.tasks) == 1
