"""The video writer: playable everywhere, complete or absent."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import index_of, picture

from grounded_sam2.images import read_image, write_image
from grounded_sam2.video import VideoWriter, open_frames


@pytest.mark.parametrize("size", [(1, 1), (97, 65), (96, 65), (640, 360)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_written_video_has_the_format_browsers_play(tmp_path: Path, size: tuple[int, int], suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    image = np.full((size[1], size[0], 3), (200, 30, 60), np.uint8)
    with VideoWriter(path, 25, size) as writer:
        for _ in range(3):
            writer.write(image)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.width, context.height) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
        assert context.colorspace == 1
    if suffix == ".mp4":
        content = path.read_bytes()
        assert 0 < content.index(b"moov") < content.index(b"mdat")
    source = open_frames(path)
    assert len(source) == 3
    assert np.abs(source[2][: size[1], : size[0]].astype(int) - (200, 30, 60)).max() <= 6


@pytest.mark.parametrize("fps", [30, 29.97, 23.976, Fraction(30000, 1001), 12.5, Fraction(8670000, 289577)])
def test_any_frame_rate(tmp_path: Path, fps) -> None:
    with VideoWriter(tmp_path / "a.mp4", fps) as writer:
        for frame_idx in range(12):
            writer.write(picture(frame_idx))
    assert float(open_frames(tmp_path / "a.mp4").fps) == pytest.approx(float(fps), rel=1e-4)


def old_output(tmp_path: Path) -> Path:
    path = tmp_path / "out.mp4"
    path.write_text("an older result")
    return path


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_error_keeps_what_was_written_beside_the_older_video(tmp_path: Path, error: type[BaseException]) -> None:
    path = old_output(tmp_path)
    with pytest.raises(error), VideoWriter(path, 25) as writer:
        for frame_idx in range(7):
            writer.write(picture(frame_idx))
        raise error
    assert path.read_text() == "an older result"
    assert [index_of(image) for image in open_frames(tmp_path / "out.partial.mp4")] == list(range(7))
    assert len(list(tmp_path.iterdir())) == 2


def test_success_replaces_the_older_video(tmp_path: Path) -> None:
    path = old_output(tmp_path)
    with VideoWriter(path, 25) as writer:
        writer.write(picture(1))
    assert len(open_frames(path)) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_no_frame_written(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no frame was written"), VideoWriter(tmp_path / "a.mp4", 25):
        pass
    assert list(tmp_path.iterdir()) == []


def test_wrong_frames_and_wrong_calls(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(picture(0))
        with pytest.raises(ValueError, match=r"frame 1 for .*expected 96x64 pixels, got 48x32"):
            writer.write(picture(1, (48, 32)))
    with pytest.raises(RuntimeError, match="is closed"):
        writer.write(picture(0))
    writer.close()
    with pytest.raises(ValueError, match=r"expected one of .*got '\.avi'"):
        VideoWriter(tmp_path / "a.avi", 25)
    with pytest.raises(ValueError, match="expected more than 0 frames per second"):
        VideoWriter(tmp_path / "b.mp4", 0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_outputs_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*out\.mp4"):
        VideoWriter(tmp_path / "file" / "out.mp4", 25)
    path = old_output(tmp_path)
    monkeypatch.setattr("os.access", lambda target, mode: Path(target) != path)
    with pytest.raises(PermissionError, match="write-protected"):
        VideoWriter(path, 25)
    monkeypatch.setattr("os.access", lambda target, mode: Path(target) != tmp_path)
    with pytest.raises(PermissionError, match="no write permission in the folder"):
        VideoWriter(tmp_path / "new.mp4", 25)
    assert path.read_text() == "an older result"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.png").write_text("")
    (tmp_path / "link.png").symlink_to(tmp_path / "real.png")
    write_image(tmp_path / "link.png", picture(2))
    assert (tmp_path / "link.png").is_symlink()
    assert index_of(read_image(tmp_path / "real.png")) == 2
