"""Videos come into a session from files, folders and zips, and from hostile ones nothing comes."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from clips import make_video
from session_parts import write_frames, write_png

from grounded_sam2.session import SourceLimits, create_session, open_session

pytestmark = pytest.mark.usefixtures("quick_disk")


@pytest.fixture
def png(tmp_path: Path) -> bytes:
    return write_png(tmp_path / "small.png")


def zipped(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def test_a_video_is_copied(tmp_path: Path) -> None:
    path = make_video(tmp_path / "2024-01-26T20:57:04.MP4", num_frames=5)
    with create_session(tmp_path / "s", path) as session:
        os.remove(path)
        assert (session.num_frames, session.size, session.frames.fps, session.name) == (5, (96, 64), 25, path.name)
        assert [each.name for each in (session.folder / "source").iterdir()] == ["video.mp4"]


def test_a_folder_and_a_zip_of_images_give_the_same_frames(tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "frames", 11)
    (frames / "notes.txt").write_text("not a frame")
    images = {f"clip/{path.name}": path.read_bytes() for path in frames.iterdir()}
    extra = {"clip/._1.png": b"x", "__MACOSX/clip/._2.png": b"x", ".hidden/3.png": b"x", "clip/readme.md": b"x"}
    path = zipped(tmp_path / "clip.zip", {**images, **extra})
    with create_session(tmp_path / "a", frames, fps=12.5) as folder, create_session(tmp_path / "b", path) as archive:
        assert folder.num_frames == archive.num_frames == 11 and folder.frames.fps == 12.5
        for t in range(11):
            np.testing.assert_array_equal(folder.frames[t], archive.frames[t])
        assert [Path(folder.frames.image_path(t) or "").name for t in (2, 10)] == ["2.png", "10.png"]


def test_a_source_that_is_not_copied_is_referred_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = write_frames(tmp_path / "frames", 3)
    monkeypatch.chdir(tmp_path)
    with create_session("s", "frames", copy=False) as session:
        assert not any((session.folder / "source").iterdir())
    monkeypatch.chdir("/")
    open_session(tmp_path / "s").close()
    (frames / "1.png").unlink()
    with pytest.raises(ValueError, match="a video with 3 frames of 64x48 pixels, found 2"):
        open_session(tmp_path / "s")
    shutil.rmtree(frames)
    with pytest.raises(FileNotFoundError, match="no such video"):
        open_session(tmp_path / "s")


def linked(path: Path, png: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        entry = zipfile.ZipInfo("1.png")
        entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    return path


def patched(path: Path, png: bytes, offset: int, value: bytes, content: bytes = b"") -> Path:
    """A zip of one image, changed in both headers of its entry at an offset of the local one."""
    zipped(path, {"1.png": content or png})
    raw = bytearray(path.read_bytes())
    central = raw.index(b"PK\x01\x02")
    raw[offset : offset + len(value)] = value
    raw[central + offset + 2 : central + offset + 2 + len(value)] = value
    path.write_bytes(raw)
    return path


HOSTILE: dict[str, tuple[Callable[[Path, bytes], Path], str]] = {
    "up": (lambda path, png: zipped(path, {"../1.png": png}), r"'\.\./1\.png' leads out"),
    "up inside": (lambda path, png: zipped(path, {"a/../../1.png": png}), "leads out"),
    "up with backslashes": (lambda path, png: zipped(path, {"a\\..\\..\\1.png": png}), "leads out"),
    "absolute": (lambda path, png: zipped(path, {"/tmp/1.png": png}), "leads out"),
    "drive": (lambda path, png: zipped(path, {"C:\\1.png": png}), "leads out"),
    "up, and no image": (lambda path, png: zipped(path, {"1.png": png, "../x.txt": b"x"}), "leads out"),
    "link": (linked, "'1.png' is a link or a device"),
    "bomb": (lambda path, png: zipped(path, {"1.png": bytes(3 * 2**20)}), "too many bytes"),
    "bomb in parts": (lambda path, png: zipped(path, {f"{t}.png": bytes(2**18) for t in range(20)}), "too many bytes"),
    "lying about sizes": (
        lambda path, png: patched(path, png, 22, struct.pack("<I", 10), bytes(2**20)),
        "damaged zip|too many bytes|no image|not an image",
    ),
    "encrypted": (lambda path, png: patched(path, png, 6, b"\x01\x00"), "encrypted"),
    "unknown compression": (lambda path, png: patched(path, png, 8, b"\x63\x00"), "damaged zip"),
    "wrong checksum": (lambda path, png: patched(path, png, 14, b"\0\0\0\0"), "damaged zip"),
    "two folders": (lambda path, png: zipped(path, {"a/1.png": png, "b/2.png": png}), "images in 2 folders"),
    "two of one name": (lambda path, png: zipped(path, {"1.png": png, "1.PNG": png}), "two images of one name"),
    "nothing": (lambda path, png: zipped(path, {}), "holds no images"),
    "no images": (lambda path, png: zipped(path, {"word/document.xml": b"<x/>"}), "holds no images"),
    "a zip in a zip": (lambda path, png: zipped(path, {"1.zip": b"PK"}), "holds no images"),
    "too many": (lambda path, png: zipped(path, {f"{t}.txt": b"" for t in range(40)}), "has 40 entries"),
    "an image that is none": (lambda path, png: zipped(path, {"1.png": b"text"}), "not an image"),
    "a damaged image": (lambda path, png: zipped(path, {"1.png": png, "2.png": png[:16]}), r"zip.2\.png is not an"),
    "an image of another size": (
        lambda path, png: zipped(path, {"1.png": png, "2.png": write_png(path.with_name("x.png"), (9, 6))}),
        r"clip\.zip.2\.png: expected 8x6 pixels, as the first image has, got 9x6",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_zip_is_refused_and_leaves_nothing(tmp_path: Path, png: bytes, name: str) -> None:
    make, message = HOSTILE[name]
    (tmp_path / "in").mkdir()
    path = make(tmp_path / "in" / "clip.zip", png)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=message) as error:
        create_session(tmp_path / "s", path, limits=SourceLimits(max_files=30, max_bytes=2**20))
    assert sorted(tmp_path.rglob("*")) == before and "\n" not in str(error.value)


def test_a_zip_that_is_cut_off(tmp_path: Path, png: bytes) -> None:
    path = zipped(tmp_path / "clip.zip", {f"{t}.png": png for t in range(5)})
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"clip\.zip"):
        create_session(tmp_path / "s", path)


def test_a_video_with_a_zip_behind_it_is_a_video(tmp_path: Path, png: bytes) -> None:
    path = make_video(tmp_path / "clip.mp4", num_frames=3)
    with path.open("ab") as file:
        file.write(zipped(tmp_path / "x.zip", {"1.png": png}).read_bytes())
    with create_session(tmp_path / "s", path) as session:
        assert session.num_frames == 3


@pytest.mark.parametrize(
    "head", ["#EXTM3U\n", "\ufeff#EXTM3U", "ffconcat version 1.0\n", '<?xml version="1.0"?><MPD', "v=0\r\n"]
)
def test_a_playlist_is_refused(tmp_path: Path, head: str) -> None:
    make_video(tmp_path / "secret.mp4", num_frames=3)
    (tmp_path / "clip.mp4").write_text(f"{head}\nfile secret.mp4\nsecret.mp4\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"clip\.mp4 is a list of other files"):
        create_session(tmp_path / "s", tmp_path / "clip.mp4")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (SourceLimits(max_bytes=100), "bytes, expected at most 100"),
        (SourceLimits(max_frames=4), "has 5 frames, expected at most 4"),
        (SourceLimits(max_side=80), "has frames of 96x64 pixels, expected at most 80 a side"),
    ],
)
def test_a_video_beyond_the_limits(tmp_path: Path, limits: SourceLimits, message: str) -> None:
    path = make_video(tmp_path / "clip.mp4", num_frames=5)
    with pytest.raises(ValueError, match=message):
        create_session(tmp_path / "s", path, limits=limits)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("kind", ["missing", "fifo", "text", "empty folder"])
def test_what_is_no_video(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "clip.mp4"
    {
        "missing": lambda: None,
        "fifo": lambda: os.mkfifo(path),
        "text": lambda: path.write_text("text"),
        "empty folder": path.mkdir,
    }[kind]()
    with pytest.raises((ValueError, FileNotFoundError), match=r"clip\.mp4"):
        create_session(tmp_path / "s", path)
    assert [each.name for each in tmp_path.iterdir() if each != path] == []
