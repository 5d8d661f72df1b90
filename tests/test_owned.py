"""Folders of outputs: locked while a run writes to them, and nothing lost in them that is not of the same source."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from grounded_sam2.files import GrowingFile, Inputs, check_writable, replacing
from grounded_sam2.outputs import TrackingOutputs
from grounded_sam2.owned import RECORD_NAME, OutputFiles, OwnedFolder
from grounded_sam2.video import VideoWriter, open_frames

REPOSITORY = Path(__file__).resolve().parent.parent
IMAGE_SCRIPTS = sorted(path.name for path in REPOSITORY.glob("grounded_sam2_*.py") if "IMAGE_PATH" in path.read_text())
VIDEO_SCRIPTS = sorted(path.name for path in REPOSITORY.glob("grounded_sam2_*.py") if "VIDEO_PATH" in path.read_text())

Load = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A video of three frames."""
    path = tmp_path_factory.mktemp("footage") / "a.mp4"
    with VideoWriter(path, 25) as writer:
        for brightness in (0, 90, 180):
            writer.write(np.full((32, 48, 3), brightness, np.uint8))
    return path.read_bytes()


def put(path: Path, content: bytes = b"the user's own") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# ---- inputs ----


@pytest.mark.parametrize("way", ["same", "dotted", "symlink", "hard link", "linked folder"])
def test_an_input_is_not_written_over_by_whatever_path(tmp_path: Path, way: str) -> None:
    source = put(tmp_path / "in" / "a.mp4")
    other = tmp_path / "b.mp4"
    if way == "same":
        other = source
    elif way == "dotted":
        other = tmp_path / "in" / ".." / "in" / "a.mp4"
    elif way == "symlink":
        other.symlink_to(source)
    elif way == "hard link":
        os.link(source, other)
    else:
        (tmp_path / "linked").symlink_to(tmp_path / "in")
        other = tmp_path / "linked" / "a.mp4"
    inputs = Inputs(source)
    for write in (check_writable, lambda path: replacing(path).__enter__(), lambda path: VideoWriter(path, 25)):
        with pytest.raises(ValueError, match=r"it is read as an input; choose another --output-dir"):
            write(other)
    assert source.read_bytes() == b"the user's own"
    del inputs
    check_writable(other)


def test_files_of_a_folder_are_inputs_and_so_is_where_an_output_would_grow(tmp_path: Path) -> None:
    frame = put(tmp_path / "frames" / "0.jpg")
    inputs = Inputs(tmp_path / "frames", "rtsp://host/live", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="read as an input"):
        check_writable(frame)
    (tmp_path / "out.partial.jsonl").symlink_to(frame)
    with pytest.raises(ValueError, match="read as an input"):
        GrowingFile(tmp_path / "out.jsonl")
    (tmp_path / "pipe.partial.jsonl").parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / "pipe.partial.jsonl")
    with pytest.raises(ValueError, match="it is a pipe"):
        GrowingFile(tmp_path / "pipe.jsonl")
    assert inputs is not None


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("name", VIDEO_SCRIPTS)
def test_no_script_writes_over_its_video(
    load_script: Load, tmp_path: Path, footage: bytes, name: str, linked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before a model is looked for."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("DDS_API_TOKEN", "token")
    source = put(tmp_path / "my.mp4", footage)
    script = load_script(name)
    script.VIDEO_PATH, script.OUTPUT_DIR, script.SAM2_CHECKPOINT = str(source), tmp_path, "checkpoints/no.pt"
    if linked:
        script.OUTPUT_DIR = tmp_path / "out"
        script.OUTPUT_DIR.mkdir()
        (script.OUTPUT_DIR / "my.mp4").symlink_to(source)
    with pytest.raises(ValueError, match=r"my\.mp4: it is read as an input"):
        script.main()
    assert source.read_bytes() == footage


@pytest.mark.parametrize("name", IMAGE_SCRIPTS)
def test_no_script_writes_over_its_image(
    load_script: Load, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("DDS_API_TOKEN", "token")
    source = tmp_path / "my.png"
    Image.new("RGB", (40, 30)).save(source)
    content = source.read_bytes()
    script = load_script(name)
    script.IMAGE_PATH, script.OUTPUT_DIR, script.SAM2_CHECKPOINT = str(source), tmp_path / "out", "checkpoints/no.pt"
    suffix = getattr(script, "CAPTION_TYPE", getattr(script, "PIPELINE", "annotated"))
    (tmp_path / "out").mkdir()
    os.link(source, tmp_path / "out" / f"my_{suffix}.jpg")
    with pytest.raises(ValueError, match="it is read as an input"):
        script.main()
    assert source.read_bytes() == content


def test_outputs_do_not_go_among_the_frames_that_are_read(tmp_path: Path) -> None:
    put(tmp_path / "frames" / "0.jpg")
    with pytest.raises(ValueError, match="is the folder of frames that is read"):
        OutputFiles(tmp_path / "frames" / ".." / "frames", tmp_path / "frames")


# ---- the lock ----


def in_another_process(folder: Path, then: str = "") -> subprocess.Popen[str]:
    code = f"""
        import os, sys
        from grounded_sam2.owned import OwnedFolder
        try:
            owned = OwnedFolder({str(folder)!r})
        except BlockingIOError as error:
            sys.exit(str(error))
        print("has it", flush=True)
        {then or "sys.stdin.read()"}
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=REPOSITORY, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_a_folder_is_of_one_run_until_it_ends_or_dies(tmp_path: Path) -> None:
    other = in_another_process(tmp_path / "out")
    assert other.stdout is not None and other.stdout.readline() == "has it\n"
    with pytest.raises(BlockingIOError, match=rf"another run writes to .*out \(it has locked .*{RECORD_NAME}\): wait"):
        OwnedFolder(tmp_path / "out")
    OwnedFolder(tmp_path / "elsewhere").close()
    other.kill()
    other.communicate()
    owned = OwnedFolder(tmp_path / "out")
    owned.claim("a.mp4")
    refused = in_another_process(tmp_path / "out")
    assert "another run writes to" in refused.communicate()[1] and refused.returncode == 1
    owned.close()
    assert in_another_process(tmp_path / "out", "pass").communicate()[0] == "has it\n"


def test_a_process_may_open_its_folder_twice_and_leaves_nothing_where_nothing_was_written(tmp_path: Path) -> None:
    first, second = OwnedFolder(tmp_path / "out"), OwnedFolder(tmp_path / "." / "out")
    first.close()
    with pytest.raises(RuntimeError, match="was closed"):
        first.claim("a")
    put(second.claim("a"))
    second.close()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a", RECORD_NAME}
    for name in ((), ("b",)):
        third = OwnedFolder(tmp_path / "new")
        for each in name:
            third.claim(each)  # and never written
        third.close()
        assert list((tmp_path / "new").iterdir()) == []


def test_a_record_that_a_crash_has_cut_off_is_gone_on_with(tmp_path: Path) -> None:
    owned = OwnedFolder(tmp_path)
    for name in ("a", "b"):
        put(owned.claim(name, ["x"]))
    owned.close()
    record = tmp_path / RECORD_NAME
    record.write_bytes(record.read_bytes()[:-5] + bytes(3))
    owned = OwnedFolder(tmp_path)
    assert owned.is_free("a", ["x"]) and not owned.is_free("b", ["x"])
    put(owned.claim("c", ["x"]))
    owned.close()
    assert json.loads(record.read_bytes().splitlines()[-1]) == {"file": "c", "source": ["x"]}


# ---- names ----


def test_sources_of_one_name_are_kept_apart_and_known_again(tmp_path: Path) -> None:
    videos = [put(tmp_path / camera / "video.mp4", camera.encode()) for camera in ("cam1", "cam2", "cam3")]
    names = []
    for video in (*videos, *videos):
        files = OutputFiles(tmp_path / "out", video)
        names.append(files.name)
        for path in files.paths:
            put(path, video.read_bytes())
        del files
    assert names == ["video", "video-2", "video-3"] * 2
    assert (tmp_path / "out" / "video.jsonl").read_bytes() == b"cam1"
    moved = tmp_path / "moved.mp4"
    videos[1].rename(moved)
    assert OutputFiles(tmp_path / "out", moved, stem="video").name == "video-2"


def test_what_the_user_has_is_no_output(tmp_path: Path) -> None:
    """A converted copy beside the recording; labels of another program beside an image."""
    recording = put(tmp_path / "my.mov", b"footage")
    put(tmp_path / "my.mp4")
    assert [path.name for path in OutputFiles(tmp_path, recording).paths] == ["my-2.mp4", "my-2.jsonl"]
    put(tmp_path / "my.json")
    files = OutputFiles(tmp_path, recording, ("_annotated.jpg", ".json"))
    assert [path.name for path in files.paths] == ["my-2_annotated.jpg", "my-2.json"]
    with pytest.raises(ValueError, match=r"my-2\.resume is there already and was not written by this program"):
        put(tmp_path / "my-2.resume")
        files.path(".resume")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("rtsp://user:PW@host/live?token=secret", "live"), ("https://user:PW@host", "host"), ("0", "0"),
        ("a.b.mp4", "a.b"), ("/", "source"),
    ],
)  # fmt: skip
def test_what_outputs_are_called(tmp_path: Path, source: str, name: str) -> None:
    files = OutputFiles(tmp_path, source)
    assert files.name == name
    assert b"PW" not in (tmp_path / RECORD_NAME).read_bytes()


def test_maps_and_events_of_a_second_video_go_to_a_folder_of_its_own(tmp_path: Path, footage: bytes) -> None:
    for name in ("a", "b", "a"):
        source = put(tmp_path / f"{name}.mp4", footage + name.encode())
        frames = open_frames(source)
        with TrackingOutputs(OutputFiles(tmp_path / "out", source), frames, ["dog"], {}) as outputs:
            assert outputs.event_log is not None
        expected = tmp_path / "out" / ("events.jsonl" if name == "a" else "b/events.jsonl")
        assert outputs.event_log.path == expected and expected.exists()


def test_a_foreign_file_where_maps_grow_is_noticed_at_the_start_and_stays(tmp_path: Path, footage: bytes) -> None:
    source = put(tmp_path / "a.mp4", footage)
    for place in ("partial/notes.txt", "partial/mask_data/notes.txt", "partial/mask_data/mask_00000.npy/x"):
        foreign = put(tmp_path / "out" / place)
        with pytest.raises(ValueError, match=r"was not written by this program: move it away"):
            TrackingOutputs(OutputFiles(tmp_path / "out", source), open_frames(source), ["dog"], {})
        foreign.unlink()
        if place.endswith("x"):
            foreign.parent.rmdir()
    with TrackingOutputs(OutputFiles(tmp_path / "out", source), open_frames(source), ["dog"], {}):
        late = put(tmp_path / "out" / "partial" / "mask_data" / "late.txt")
    assert late.exists()


def test_files_of_an_earlier_set_go_and_those_of_others_stay(tmp_path: Path) -> None:
    owned = OwnedFolder(tmp_path)
    for name in ("labels/a.txt", "labels/b.txt"):
        put(owned.claim(name))
    owned.close()
    put(tmp_path / "labels" / "mine.txt")
    owned = OwnedFolder(tmp_path)
    owned.claim("labels/b.txt")
    owned.remove_others()
    assert {path.name for path in (tmp_path / "labels").iterdir()} == {"b.txt", "mine.txt"}
    put(tmp_path / "labels" / "a.txt")  # by somebody else this time
    with pytest.raises(ValueError, match="was not written by this program"):
        owned.claim("labels/a.txt")
