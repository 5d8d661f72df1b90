"""What can be opened as frames: folders, lists, generators."""

from __future__ import annotations

import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import SIZE, index_of, picture
from PIL import Image

from grounded_sam2 import video
from grounded_sam2.video import FrameSource, open_frames


def test_no_such_file(tmp_path: Path) -> None:
    for missing in (tmp_path / "no.mp4", tmp_path / "no.jpg", tmp_path / "folder"):
        with pytest.raises(FileNotFoundError, match="no such video, image or folder"):
            open_frames(missing)


@pytest.mark.parametrize("source", [True, 3.5, None, b"a.mp4"])
def test_what_is_no_source_is_a_value_error(source) -> None:
    with pytest.raises(ValueError, match="expected a path, URL, camera index or frames"):
        open_frames(source)


def test_folder_in_natural_order(tmp_path: Path) -> None:
    for frame_idx in (10, 9, 2, 1, 0):
        Image.fromarray(picture(frame_idx)).save(tmp_path / f"frame{frame_idx}.png")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "._frame3.png").write_text("rubbish left by an archive")
    source = open_frames(tmp_path, default_fps=12.5)
    assert source.fps == Fraction(25, 2) and source.size == SIZE
    assert [index_of(image) for image in source] == [0, 1, 2, 9, 10]
    assert index_of(source[-1]) == 10


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(ValueError, match=r"no images in .*found 1 other files"):
        open_frames(tmp_path)


def test_images_of_several_sizes_are_refused(tmp_path: Path) -> None:
    Image.fromarray(picture(0)).save(tmp_path / "0.png")
    Image.fromarray(picture(1, (48, 32))).save(tmp_path / "1.png")
    source = open_frames(tmp_path)
    with pytest.raises(ValueError, match=r"1\.png: expected 96x64 pixels, got 48x32"):
        list(source)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_lists_arrays_and_generators(count: int) -> None:
    images = [picture(frame_idx) for frame_idx in range(count)]
    sources = [images, np.stack(images) if images else np.zeros((0, 4, 4, 3), np.uint8), iter(images)]
    for frames in sources:
        if count == 0:
            with pytest.raises(ValueError, match="expected at least one frame, got none"):
                open_frames(frames)
        else:
            source = open_frames(frames)
            assert source.num_frames == (None if frames is sources[2] else count)
            assert [index_of(image) for image in source] == list(range(count))


def test_a_generator_is_read_lazily_and_once() -> None:
    taken = []

    def frames():
        for frame_idx in range(5):
            taken.append(frame_idx)
            yield picture(frame_idx)

    source = open_frames(frames())
    iterator = iter(source)
    next(iterator)
    assert taken == [0]
    assert len(list(iterator)) == 4
    with pytest.raises(RuntimeError, match="come only once"):
        iter(source)
    assert not hasattr(source, "__len__")


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), "text"])
def test_a_bad_frame_is_named(bad) -> None:
    with pytest.raises(ValueError, match="frame 1 of generator: expected"):
        list(open_frames(iter([picture(0), bad])))


def test_a_source_is_passed_through() -> None:
    source = open_frames([picture(0)])
    assert open_frames(source) is source


def test_a_stop_reaches_live_sources_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, asked = threading.Event(), []

    class Stream(FrameSource):
        is_live = True

        def __init__(self, source: object, **options: object) -> None:
            asked.append((source, options["stop"]))

        def __iter__(self):
            return iter(())

    monkeypatch.setattr(video, "LiveStream", Stream)
    monkeypatch.chdir(tmp_path)
    for source in (0, "0", "realsense", "rtsp://192.168.1.20/stream"):
        open_frames(source, stop=stop)
    assert asked == [(0, stop), ("0", stop), ("realsense", stop), ("rtsp://192.168.1.20/stream", stop)]
    stop.set()
    assert len(list(open_frames([np.zeros((4, 4, 3), np.uint8)], stop=stop))) == 1
