"""What a stranger gives is opened in a process of its own, which may take only so much."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from clips import make_video

from grounded_sam2.session import SourceLimits, create_session
from sam2.frames.first_look import first_look

MIB = 2**20


def test_a_video_and_what_is_none(tmp_path: Path) -> None:
    first_look(make_video(tmp_path / "clip.mp4", num_frames=3), 60, 4096 * MIB)
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(ValueError, match=r"text\.mp4 is not a video that can be read"):
        first_look(tmp_path / "text.mp4", 60, 4096 * MIB)


def test_memory_without_end(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mp4", num_frames=2)
    with pytest.raises(ValueError, match=r"clip\.mp4 cannot be read: .* more than 64 MiB of memory"):
        first_look(path, 60, 64 * MIB)


def test_time_without_end(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mp4", num_frames=2)
    with pytest.raises(ValueError, match=r"clip\.mp4 cannot be read: opening it took more than 0\.05 seconds"):
        first_look(path, 0.05, 4096 * MIB)


def test_a_decoder_that_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crashed(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(command, -11, b"", b"")

    monkeypatch.setattr(subprocess, "run", crashed)
    with pytest.raises(ValueError, match="its decoder failed"):
        first_look(tmp_path / "clip.mp4", 60, 4096 * MIB)


def test_a_session_of_a_stranger_s_video(tmp_path: Path) -> None:
    video = make_video(tmp_path / "clip.mp4", num_frames=3)
    with create_session(tmp_path / "good", video, limits=SourceLimits(look_seconds=60)) as session:
        assert session.num_frames == 3
    with pytest.raises(ValueError, match=r"clip\.mp4 cannot be read"):
        create_session(tmp_path / "bad", video, limits=SourceLimits(look_seconds=60, look_bytes=64 * MIB))
    assert not (tmp_path / "bad").exists()
