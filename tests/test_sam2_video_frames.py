"""Frames of a video as the model reads them: the reader is the one that the scripts have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from clips import index_of, make_video, picture
from PIL import Image

from grounded_sam2.video import open_frames
from sam2.video_frames import LazyFrames, open_rgb_frames, to_model_input

B_FRAMES = {"g": "12", "bf": "3"}
VIDEOS = {
    "turned.mp4": ("libx264", 90),
    "b_frames.avi": ("libx264", None),
    "b_frames.ts": ("libx264", None),
    "mpeg2.ts": ("mpeg2video", None),
    "raw.h264": ("libx264", None),
    "2024-01-26T20:57:04.mp4": ("libx264", None),
}


@pytest.mark.parametrize("name", VIDEOS)
def test_a_video_has_the_frames_that_open_frames_gives(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, rotation = VIDEOS[name]
    monkeypatch.chdir(tmp_path)
    make_video(Path(name), codec=codec, options=B_FRAMES, rotation=rotation)
    expected, frames = list(open_frames(name)), open_rgb_frames(name)
    assert len(frames) == len(expected) == 40
    for frame_idx in (0, 1, 2, 30, 7, 39):
        np.testing.assert_array_equal(frames[frame_idx], expected[frame_idx])
    lazy = LazyFrames(frames, 32)
    assert (lazy.height, lazy.width) == expected[0].shape[:2]
    assert torch.equal(lazy[30], to_model_input(expected[30], 32))


def test_a_folder_has_the_frames_that_open_frames_gives(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to show
    Image.fromarray(np.rot90(picture(1))).save(tmp_path / "1.png", exif=exif)
    grey = picture(2)[:, :, 0].astype(np.uint16) * 257
    Image.fromarray(grey).save(tmp_path / "2.png")
    Image.fromarray(picture(3)).save(tmp_path / "3.tif")
    Image.fromarray(picture(10)).save(tmp_path / "10.png")
    Image.fromarray(picture(11)).save(tmp_path / "①.png")
    (tmp_path / "._1.jpg").write_bytes(b"rubbish left by an archive")
    (tmp_path / "5.jpg").mkdir()
    frames, expected = open_rgb_frames(tmp_path), open_frames(tmp_path)
    assert [index_of(frames[frame_idx]) for frame_idx in range(len(frames))] == [1, 2, 3, 10, 11]
    assert 0 < frames[1].mean() < 250
    for frame_idx, image in enumerate(expected):
        np.testing.assert_array_equal(frames[frame_idx], image)


def test_names_that_differ_only_in_zeros_or_case_have_one_order(tmp_path: Path) -> None:
    for index, name in enumerate(["001.png", "01.png", "1.png", "A2.png", "a2.png"]):
        Image.fromarray(picture(index)).save(tmp_path / name)
    frames = open_rgb_frames(tmp_path)
    assert [index_of(frames[frame_idx]) for frame_idx in range(len(frames))] == list(range(5))


def test_the_default_device_and_dtype_change_nothing() -> None:
    expected = to_model_input(picture(3), 16)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            prepared = to_model_input(picture(3), 16)
    finally:
        torch.set_default_dtype(torch.float32)
    assert prepared.dtype == torch.float32 and torch.equal(prepared, expected)


def test_what_is_no_video_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=r"empty\.mp4 is not a video"):
        open_rgb_frames(tmp_path / "empty.mp4")
    with pytest.raises(FileNotFoundError, match="no such video, image or folder"):
        open_rgb_frames(tmp_path / "none.mp4")
    with pytest.raises(ValueError, match="no images in"):
        open_rgb_frames(tmp_path)
    with pytest.raises(ValueError, match="no frames"):
        open_rgb_frames([])
