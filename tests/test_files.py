"""Files that grow, files that are gone on with, and a disk that is full."""

import errno
import zlib
from pathlib import Path

import numpy as np
import pytest

from grounded_sam2.files import GrowingFile, replacing
from grounded_sam2.video import VideoWriter

FULL = Path("/dev/full")  # a file on which every write finds the disk full
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")


def written(path: Path, *lines: str) -> GrowingFile:
    """A file that a crash left behind."""
    file = GrowingFile(path)
    for line in lines:
        file.append(line)
    file.leave()
    return file


def test_lines_are_on_disk_at_once_and_take_their_place_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.jsonl"
    file = GrowingFile(path)
    file.append("one\n")
    assert (tmp_path / "new" / "a.partial.jsonl").read_text() == "one\n"
    file.append("two\n")
    assert (file.num_bytes, file.checksum) == (8, zlib.crc32(b"one\ntwo\n"))
    file.finish()
    file.finish()
    assert [(entry.name, entry.read_text()) for entry in path.parent.iterdir()] == [("a.jsonl", "one\ntwo\n")]
    with pytest.raises(RuntimeError, match="is closed"):
        file.append("three\n")


def test_going_on_drops_what_came_after_the_saved_time(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("older")
    saved = written(path, "one\n")
    written(path, "one\n", "two\n", "thr")
    file = GrowingFile(path)
    file.go_on(saved.num_bytes, saved.checksum)
    file.append("TWO\n")
    assert path.read_text() == "older"
    file.finish()
    assert path.read_text() == "one\nTWO\n" and list(tmp_path.iterdir()) == [path]
    assert file.checksum == zlib.crc32(b"one\nTWO\n")


def test_going_on_with_a_file_that_was_already_finished(tmp_path: Path) -> None:
    first = GrowingFile(tmp_path / "a.jsonl")
    first.append("one\ntwo\n")
    first.finish()
    file = GrowingFile(tmp_path / "a.jsonl")
    file.go_on(first.num_bytes, first.checksum)
    file.finish()
    assert (tmp_path / "a.jsonl").read_text() == "one\ntwo\n"


@pytest.mark.parametrize("left", [None, "", "on", "One\n"])
def test_going_on_with_another_file_is_refused_and_harms_nothing(tmp_path: Path, left: str | None) -> None:
    saved = written(tmp_path / "a.jsonl", "one\n")
    (tmp_path / "a.jsonl").write_text("older")
    (tmp_path / "a.partial.jsonl").unlink()
    if left is not None:
        (tmp_path / "a.partial.jsonl").write_text(left)
    file = GrowingFile(tmp_path / "a.jsonl")
    with pytest.raises(ValueError, match="not as the interrupted run left it: run without --resume"):
        file.go_on(saved.num_bytes, saved.checksum)
    assert (tmp_path / "a.jsonl").read_text() == "older"


def test_going_on_with_nothing_starts_anew(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("older")
    written(tmp_path / "a.jsonl", "of an interrupted run\n")
    file = GrowingFile(tmp_path / "a.jsonl")
    file.go_on(0, 0)
    file.append("new\n")
    assert (tmp_path / "a.jsonl").read_text() == "older"
    file.finish()
    assert (tmp_path / "a.jsonl").read_text() == "new\n"


@needs_full
def test_a_full_disk_is_one_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("older")
    (tmp_path / "a.partial.jsonl").symlink_to(FULL)
    file = GrowingFile(tmp_path / "a.jsonl")
    with pytest.raises(OSError, match=r"^cannot write .*a\.partial\.jsonl: No space left on device") as caught:
        file.append("one\n")
    assert caught.value.errno == errno.ENOSPC
    file.leave()
    assert (tmp_path / "a.jsonl").read_text() == "older"


@needs_full
def test_a_full_disk_ends_a_video_with_one_error(tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_text("older")
    (tmp_path / "out.partial.mp4").symlink_to(FULL)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    with (
        pytest.raises(OSError, match=r"^cannot write .*out\.partial\.mp4: No space left on device") as caught,
        VideoWriter(tmp_path / "out.mp4", 25) as writer,
    ):
        for _ in range(150):
            writer.write(noise)
    assert caught.value.errno == errno.ENOSPC
    assert (tmp_path / "out.mp4").read_text() == "older"


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), r"^cannot write .*a\.json: No space left on device$"),
        (FileNotFoundError(errno.ENOENT, "No such file", "source.json"), r"No such file.*source\.json"),
    ],
)
def test_only_errors_without_a_name_get_one(tmp_path: Path, problem: OSError, message: str) -> None:
    (tmp_path / "a.json").write_text("older")
    with pytest.raises(OSError, match=message), replacing(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        raise problem
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.json", "older")]
