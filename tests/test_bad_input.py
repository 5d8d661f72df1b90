"""Bad input, tried on the scripts: one clear line and exit status 2, or a correct result where there can be one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from grounded_sam2 import outputs
from grounded_sam2.export import read_frame_annotations
from grounded_sam2.images import read_image
from grounded_sam2.script import run
from grounded_sam2.video import VideoWriter, open_frames

REPOSITORY = Path(__file__).resolve().parent.parent
IMAGE_SCRIPT = "grounded_sam2_hf_model_demo.py"
TRACKING_SCRIPT = "grounded_sam2_tracking_demo.py"
CUSTOM_SCRIPT = "grounded_sam2_tracking_demo_custom_video_input_gd1.0_hf_model.py"
LOCAL_IMAGE_SCRIPT = "grounded_sam2_local_demo.py"
LOCAL_CUSTOM_SCRIPT = "grounded_sam2_tracking_demo_custom_video_input_gd1.0_local_model.py"
IMAGE_SCRIPTS = [IMAGE_SCRIPT, LOCAL_IMAGE_SCRIPT]
CONTINUOUS_SCRIPT = "grounded_sam2_tracking_demo_with_continuous_id.py"
REVERSE_SCRIPT = "grounded_sam2_tracking_demo_with_continuous_id_plus.py"
VIDEO_SCRIPTS = [TRACKING_SCRIPT, CUSTOM_SCRIPT, LOCAL_CUSTOM_SCRIPT, CONTINUOUS_SCRIPT, REVERSE_SCRIPT]
SCRIPTS = [*IMAGE_SCRIPTS, *VIDEO_SCRIPTS]
LOCAL_SCRIPTS = [LOCAL_IMAGE_SCRIPT, LOCAL_CUSTOM_SCRIPT]
NANO_SAM2 = "checkpoints/sam2.1_nano.pt"

Load = Callable[[str], ModuleType]
Ends = Callable[..., str]


@pytest.fixture(autouse=True)
def _at_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


@pytest.fixture
def ends(load_script: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ends:
    """Run a script with settings; check its exit status and give what it said on stderr."""

    def ends_with(status: int, name: str, **settings: Any) -> str:
        script = load_script(name)
        for setting, value in {"OUTPUT_DIR": tmp_path / "out", **settings}.items():
            assert hasattr(script, setting)
            setattr(script, setting, value)
        ended = 0
        try:
            run(script.main)
        except SystemExit as exit_:
            ended = int(exit_.code or 0)
        said = capsys.readouterr().err
        assert ended == status, said
        if status == 2:
            assert said.count("\n") == 1, said
            assert not list(tmp_path.glob("out/*.mp4")) and not list(tmp_path.glob("out/*.jpg"))
        return said

    return ends_with


def write_text_named(path: Path) -> str:
    path.write_text("this is no picture\n" * 20, encoding="utf-8")
    return str(path)


def write_clip(path: Path, num_frames: int = 4, size: tuple[int, int] | None = None) -> Path:
    frames = open_frames(REPOSITORY / "assets" / "parade.mp4")
    with VideoWriter(path, frames.fps) as writer:
        for frame_idx in range(num_frames):
            picture = Image.fromarray(frames[frame_idx])
            writer.write(np.array(picture.resize(size) if size else picture))
    return path


# ---- sources that cannot be read ----


@pytest.mark.parametrize("name", IMAGE_SCRIPTS)
def test_no_such_image(ends: Ends, name: str) -> None:
    assert "nowhere.jpg" in ends(2, name, IMAGE_PATH="nowhere.jpg")


@pytest.mark.parametrize("name", IMAGE_SCRIPTS)
def test_text_named_jpg(ends: Ends, tmp_path: Path, name: str) -> None:
    assert "notes.jpg" in ends(2, name, IMAGE_PATH=write_text_named(tmp_path / "notes.jpg"))


@pytest.mark.parametrize("name", VIDEO_SCRIPTS)
def test_no_such_video(ends: Ends, name: str) -> None:
    assert "nowhere.mp4" in ends(2, name, VIDEO_PATH="nowhere.mp4")


@pytest.mark.parametrize("name", VIDEO_SCRIPTS)
def test_text_named_mp4(ends: Ends, tmp_path: Path, name: str) -> None:
    assert "notes.mp4" in ends(2, name, VIDEO_PATH=write_text_named(tmp_path / "notes.mp4"))


@pytest.mark.parametrize("name", VIDEO_SCRIPTS)
def test_video_of_no_frames(ends: Ends, tmp_path: Path, name: str) -> None:
    path = tmp_path / "empty.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.mux(stream.encode(None))
    assert "empty.mp4" in ends(2, name, VIDEO_PATH=str(path))


@pytest.mark.parametrize("name", VIDEO_SCRIPTS)
def test_folder_without_images(ends: Ends, tmp_path: Path, name: str) -> None:
    (tmp_path / "frames").mkdir()
    write_text_named(tmp_path / "frames" / "notes.txt")
    assert "no images" in ends(2, name, VIDEO_PATH=str(tmp_path / "frames"))


def test_start_frame_outside_the_video(ends: Ends, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    assert "from 0 to 3" in ends(2, TRACKING_SCRIPT, VIDEO_PATH=str(path), START_FRAME_IDX=4)


@pytest.mark.parametrize("name", VIDEO_SCRIPTS)
def test_a_negative_number_of_frames(ends: Ends, name: str) -> None:
    said = ends(2, name, MAX_FRAMES=-1, SAM2_CHECKPOINT="checkpoints/never_looked_for.pt")
    assert "expected MAX_FRAMES of at least 0, or none for all frames, got -1" in said


# ---- sources that can be read in part or in another form ----


@pytest.mark.parametrize("name", VIDEO_SCRIPTS)
def test_truncated_video_gives_the_frames_that_decode(ends: Ends, tmp_path: Path, name: str) -> None:
    whole = REPOSITORY / "assets" / "parade.mp4"
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 12])
    expected = sum(1 for _ in open_frames(path))
    assert 0 < expected < len(open_frames(whole))
    ends(0, name, VIDEO_PATH=str(path), BOX_THRESHOLD=1.0)
    assert len(open_frames(tmp_path / "out" / "cut.mp4")) == expected
    assert sum(1 for _ in read_frame_annotations(tmp_path / "out" / "cut.jsonl")) == expected


@pytest.mark.parametrize("name", VIDEO_SCRIPTS)
def test_portrait_video_stays_portrait(ends: Ends, tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / "portrait.mp4", num_frames=2, size=(120, 213))
    ends(0, name, VIDEO_PATH=str(path))
    assert open_frames(tmp_path / "out" / "portrait.mp4").size == open_frames(path).size
    frame = next(read_frame_annotations(tmp_path / "out" / "portrait.jsonl"))
    assert frame.height > frame.width


def test_folder_of_frames(ends: Ends, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for frame_idx, image in enumerate(open_frames(write_clip(tmp_path / "clip.mp4", num_frames=3))):
        Image.fromarray(image).save(folder / f"{frame_idx}.png")
    ends(0, TRACKING_SCRIPT, VIDEO_PATH=str(folder))
    assert len(open_frames(tmp_path / "out" / "frames.mp4")) == 3


def scene_as(mode: str) -> Image.Image:
    picture = Image.open(REPOSITORY / "assets" / "scene.jpg").convert("RGB")
    if mode == "16-bit":
        return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    return picture.convert(mode)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "16-bit"])
def test_images_of_other_modes(ends: Ends, tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("picture.tif" if mode == "CMYK" else "picture.png")
    scene_as(mode).save(path)
    ends(0, IMAGE_SCRIPT, IMAGE_PATH=str(path))
    entry = json.loads((tmp_path / "out" / "picture.json").read_text(encoding="utf-8"))
    assert (entry["img_width"], entry["img_height"]) == scene_as(mode).size
    if mode in ("RGBA", "CMYK"):
        assert entry["annotations"]


@pytest.mark.parametrize("name", IMAGE_SCRIPTS)
def test_image_of_one_pixel(ends: Ends, tmp_path: Path, name: str) -> None:
    path = tmp_path / "pixel.png"
    Image.new("RGB", (1, 1), (200, 30, 30)).save(path)
    ends(0, name, IMAGE_PATH=str(path))
    assert read_image(tmp_path / "out" / "pixel_annotated.jpg").shape == (1, 1, 3)


def test_exif_rotated_image_is_upright(ends: Ends, tmp_path: Path) -> None:
    upright = scene_as("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees clockwise to show"
    upright.rotate(90, expand=True).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    ends(0, IMAGE_SCRIPT, IMAGE_PATH=str(tmp_path / "turned.jpg"))
    entry = json.loads((tmp_path / "out" / "turned.json").read_text(encoding="utf-8"))
    assert (entry["img_width"], entry["img_height"]) == upright.size
    assert entry["annotations"]


# ---- prompts and settings ----


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("text_prompt", ["", " . "])
def test_empty_prompt(ends: Ends, name: str, text_prompt: str) -> None:
    assert "the text prompt names nothing" in ends(2, name, TEXT_PROMPT=text_prompt)


@pytest.mark.parametrize("name", IMAGE_SCRIPTS)
def test_prompt_naming_nothing_present(ends: Ends, tmp_path: Path, name: str) -> None:
    ends(0, name, TEXT_PROMPT="xylophone factory.", BOX_THRESHOLD=0.6)
    entry = json.loads((tmp_path / "out" / "scene.json").read_text(encoding="utf-8"))
    assert entry["annotations"] == []
    assert (tmp_path / "out" / "scene_annotated.jpg").is_file()


@pytest.mark.parametrize("name", IMAGE_SCRIPTS)
def test_prompt_with_capitals_and_no_dots(ends: Ends, load_script: Load, tmp_path: Path, name: str) -> None:
    phrase = load_script(name).TEXT_PROMPT.split(".")[0].strip()
    ends(0, name, TEXT_PROMPT=phrase.upper())
    entry = json.loads((tmp_path / "out" / "scene.json").read_text(encoding="utf-8"))
    assert {annotation["class_name"] for annotation in entry["annotations"]} == {phrase}


@pytest.mark.parametrize("name", IMAGE_SCRIPTS)
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"BOX_THRESHOLD": 35.0}, "box_threshold in [0, 1], got 35.0"),
        ({"TEXT_THRESHOLD": -0.1}, "text_threshold in [0, 1], got -0.1"),
        ({"NMS_THRESHOLD": 2.0}, "nms_threshold in [0, 1], got 2.0"),
        ({"DEVICE": "cuda:99"}, "cuda:99"),
        ({"DTYPE": "int8"}, "int8"),
        ({"SAM2_CONFIG": "configs/nothing.yaml"}, "nothing.yaml"),
    ],
)
def test_wrong_settings(ends: Ends, name: str, settings: dict[str, Any], says: str) -> None:
    assert says in ends(2, name, **settings)


# ---- weights ----


@pytest.mark.parametrize("name", SCRIPTS)
def test_missing_weights_name_the_command(ends: Ends, name: str) -> None:
    said = ends(2, name, SAM2_CHECKPOINT="checkpoints/sam2.1_hiera_large_.pt")
    assert "python -m grounded_sam2.download" in said
    if name in LOCAL_SCRIPTS:
        for missing in ("groundingdino_swint_ogc_.pth", "nowhere"):
            said = ends(2, name, GDINO_CHECKPOINT=f"gdino_checkpoints/{missing}")
            assert missing in said and "download_ckpts.sh" in said
    else:
        assert "hf download" in ends(2, name, GDINO_MODEL_ID="gdino_checkpoints/nowhere")


@pytest.mark.parametrize("name", LOCAL_SCRIPTS)
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"GDINO_CONFIG": "GroundingDINO_SwinX"}, "GroundingDINO_SwinT_OGC"),
        ({"GDINO_TOKENIZER": "checkpoints"}, "tokenizer"),
        ({"GDINO_TOKENIZER": "no/such/folder"}, "tokenizer"),
    ],
)
def test_wrong_settings_of_the_local_detector(ends: Ends, name: str, settings: dict[str, Any], says: str) -> None:
    assert says in ends(2, name, **settings)


def test_weights_of_the_wrong_model(ends: Ends, tmp_path: Path) -> None:
    torch.save({"model": {"layer.weight": torch.zeros(3)}}, tmp_path / "other.pt")
    for checkpoint in (tmp_path / "other.pt", write_text_named(tmp_path / "text.pt"), "gdino_checkpoints/nano"):
        assert Path(checkpoint).name in ends(2, IMAGE_SCRIPT, SAM2_CHECKPOINT=str(checkpoint))
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text(json.dumps({"model_type": "bert"}), encoding="utf-8")
    assert "'bert'" in ends(2, IMAGE_SCRIPT, GDINO_MODEL_ID=str(tmp_path / "bert"))
    for checkpoint in (*(tmp_path / other for other in ("other.pt", "text.pt", "bert")), NANO_SAM2):
        settings = {"GDINO_CHECKPOINT": str(checkpoint), "GDINO_TOKENIZER": "gdino_checkpoints/nano"}
        assert Path(checkpoint).name in ends(2, LOCAL_IMAGE_SCRIPT, **settings)


def test_config_of_another_model(ends: Ends) -> None:
    said = ends(2, LOCAL_IMAGE_SCRIPT, GDINO_CONFIG="GroundingDINO_SwinT_OGC")
    assert "gdino_checkpoints/nano does not fit" in said and "keys missing" in said and len(said) < 1000


# ---- outputs ----


@pytest.mark.parametrize("name", SCRIPTS)
def test_output_folder_that_is_a_file(ends: Ends, tmp_path: Path, name: str) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("", encoding="utf-8")
    assert "blocked" in ends(2, name, OUTPUT_DIR=blocked)


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_no_write_permission(ends: Ends, tmp_path: Path, name: str) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert "permission" in ends(2, name, OUTPUT_DIR=locked).lower()


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs a folder that nobody may write in")
def test_folder_that_nobody_may_write_in(ends: Ends) -> None:
    assert "/proc/" in ends(2, IMAGE_SCRIPT, OUTPUT_DIR=Path("/proc/outputs"))


@pytest.mark.parametrize("name", VIDEO_SCRIPTS)
def test_failure_midway_leaves_older_outputs_alone(
    load_script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    clip = write_clip(tmp_path / "clip.mp4")
    out = tmp_path / "out"
    out.mkdir()
    for suffix in (".mp4", ".jsonl"):
        (out / f"clip{suffix}").write_bytes(b"from an earlier run")
    script = load_script(name)
    script.VIDEO_PATH, script.OUTPUT_DIR = str(clip), out
    draw, drawn = outputs.annotate, []

    def fail_at_third(image: np.ndarray, detections: object) -> np.ndarray:
        drawn.append(image)
        if len(drawn) == 3:
            raise RuntimeError("the power went out")
        return draw(image, detections)

    for drawing in (script, outputs):  # some draw themselves
        monkeypatch.setattr(drawing, "annotate", fail_at_third, raising=False)
    with pytest.raises(RuntimeError, match="power"):
        script.main()
    for suffix in (".mp4", ".jsonl"):
        assert (out / f"clip{suffix}").read_bytes() == b"from an earlier run"


def test_bad_input_from_the_command_line(tmp_path: Path) -> None:
    """The whole way, in a process of its own: one line, status 2, no traceback."""
    ended = subprocess.run(
        [sys.executable, IMAGE_SCRIPT, "--image-path", "nowhere.jpg", "--output-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"{IMAGE_SCRIPT}: ") and ended.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
