"""Video files: exact frames in any order, damaged and impossible videos."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import SIZE, cut, index_of, make_video, picture

from grounded_sam2.video import VideoFile, VideoWriter, open_frames

MEDIA = Path(__file__).parents[2] / "shared" / "media"

B_FRAMES = {"g": "12", "bf": "3"}
VIDEOS = {
    "b_frames.mp4": ("libx264", B_FRAMES),
    "b_frames.mkv": ("libx264", B_FRAMES),
    "b_frames.ts": ("libx264", B_FRAMES),
    "open_groups.mp4": ("libx264", {"x264-params": "keyint=10:min-keyint=10:open-gop=1:bframes=3"}),
    "all_key.avi": ("mjpeg", {}),
    "mpeg4.avi": ("mpeg4", {"bf": "2"}),
    "altref.webm": ("libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16", "b": "300k"}),
    "vp9.webm": ("libvpx-vp9", {"g": "12", "deadline": "realtime", "cpu-used": "8"}),
    "animation.gif": ("gif", {}),
    "raw.h264": ("libx264", B_FRAMES),
}


@pytest.mark.parametrize("name", VIDEOS)
def test_every_frame_by_iteration_and_by_index(tmp_path: Path, name: str) -> None:
    codec, options = VIDEOS[name]
    if codec not in av.codecs_available:
        pytest.skip(f"this build of PyAV has no {codec}")
    source = open_frames(make_video(tmp_path / name, codec=codec, options=options))

    assert source.size == SIZE
    assert source.num_frames == len(source) == 40
    assert [index_of(image) for image in source] == list(range(40))
    order = [39, 0, 17, 18, 19, 20, 16, 15, 14, 30, 5, *range(39, -1, -1), -1]
    assert [index_of(source[frame_idx]) for frame_idx in order] == [frame_idx % 40 for frame_idx in order]
    with pytest.raises(IndexError, match="expected an index below 40"):
        source[40]


def test_random_access_equals_iteration_to_the_bit(tmp_path: Path) -> None:
    source = open_frames(make_video(tmp_path / "a.mp4", options=B_FRAMES))
    for frame_idx, image in enumerate(source):
        np.testing.assert_array_equal(source[frame_idx], image)
    with open_frames(source.name) as fresh:
        np.testing.assert_array_equal(fresh[23], source[23])


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), 25, Fraction(24000, 1001)])
def test_frame_rate_is_exact(tmp_path: Path, rate: Fraction) -> None:
    source = open_frames(make_video(tmp_path / "a.mp4", rate=rate, num_frames=10))
    assert source.fps == rate
    with VideoWriter(tmp_path / "copy.mp4", source.fps) as writer:
        for image in source:
            writer.write(image)
    copy = open_frames(tmp_path / "copy.mp4")
    assert copy.fps == rate
    assert [index_of(image) for image in copy] == list(range(10))


def test_variable_frame_rate(tmp_path: Path) -> None:
    times = [0, 1, 5, 6, 20, 21, 22, 40, 41, 60]
    source = open_frames(make_video(tmp_path / "a.mp4", num_frames=10, times=times, options={"g": "4"}))
    assert len(source) == 10
    assert [index_of(source[frame_idx]) for frame_idx in (7, 3, 9, 0)] == [7, 3, 9, 0]
    assert 0 < source.fps < 25


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_metadata_is_honoured(tmp_path: Path, rotation: int) -> None:
    if not hasattr(av.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write the metadata")
    upright = open_frames(make_video(tmp_path / "flat.mp4", num_frames=3))[1]
    source = open_frames(make_video(tmp_path / "turned.mp4", num_frames=3, rotation=rotation))
    assert source.size == (SIZE[::-1] if rotation != 180 else SIZE)
    for image in (source[1], list(source)[1]):
        assert image.flags.c_contiguous
        np.testing.assert_array_equal(image, np.rot90(upright, rotation // 90))


def test_a_cached_frame_cannot_be_spoilt_by_its_reader(tmp_path: Path) -> None:
    source = open_frames(make_video(tmp_path / "a.mp4", num_frames=3))
    source[1][:] = 0
    assert index_of(source[1]) == 1 and source[1].max() > 0


def test_two_readers_do_not_disturb_each_other(tmp_path: Path) -> None:
    source = open_frames(make_video(tmp_path / "a.mp4", options=B_FRAMES))
    for frame_idx, (first, second) in enumerate(zip(source, source, strict=True)):
        assert index_of(first) == index_of(second) == frame_idx
        assert index_of(source[39 - frame_idx]) == 39 - frame_idx


def test_an_abandoned_iteration_leaves_no_thread(tmp_path: Path) -> None:
    source = open_frames(make_video(tmp_path / "a.mp4"))
    before = threading.active_count()
    iterator = iter(source)
    next(iterator)
    del iterator
    gc.collect()
    deadline = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.005)
    assert threading.active_count() == before


def test_few_frames_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted = 0

    def counting(*arguments: object) -> np.ndarray:
        nonlocal converted
        converted += 1
        return original(*arguments)

    source = open_frames(make_video(tmp_path / "a.mp4", num_frames=60))
    original = VideoFile._to_rgb
    monkeypatch.setattr(VideoFile, "_to_rgb", counting)
    iterator = iter(source)
    next(iterator)
    time.sleep(0.2)
    assert converted <= 6
    for frame_idx in range(60):
        source[frame_idx]
    assert len(source._cache) <= 32


# ---- damaged and impossible videos ----


def packets_of(path: Path) -> list[tuple[int, int]]:
    """(position, size) in bytes of every packet of a video file."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize("name", ["a.ts", "a.mkv", "a.avi", "faststart.mp4"])
def test_truncated_video_gives_the_frames_that_decode(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    if name == "faststart.mp4":
        with VideoWriter(tmp_path / name, 25) as writer:
            for frame_idx in range(40):
                writer.write(picture(frame_idx))
    else:
        make_video(tmp_path / name, options={"g": "12"}, codec="mpeg4" if name == "a.avi" else "libx264")
    position, size = packets_of(tmp_path / name)[24]
    source = open_frames(cut(tmp_path / name, position + size // 2))
    with caplog.at_level(logging.WARNING):
        count = len(source)
    assert 5 < count < 40
    assert [index_of(image) for image in source][: count - 1] == list(range(count - 1))
    assert len(list(source)) == count
    assert index_of(source[count - 2]) == count - 2
    if name in ("a.avi", "faststart.mp4"):  # the others do not state how many frames there should be
        assert f"{count} of 40 frames decode" in caplog.text


def test_damage_in_the_middle_keeps_the_count_and_the_order(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", options={"g": "10", "bf": "0"})
    position, size = packets_of(path)[24]
    content = bytearray(path.read_bytes())
    content[position : position + size] = bytes(size)
    path.write_bytes(content)

    source = open_frames(path)
    assert len(source) == 40
    frames = list(source)
    assert [index_of(frames[frame_idx]) for frame_idx in (0, 23, 30, 39)] == [0, 23, 30, 39]
    for frame_idx in (24, 27, 31, 39):
        np.testing.assert_array_equal(source[frame_idx], frames[frame_idx])


def zero_frame_video(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()


def sound_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def moov_lost(path: Path) -> None:
    make_video(path)
    cut(path, path.stat().st_size // 2)  # the index of this one stands at its end


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text("this is not a video\n" * 40), "is not a video"),
        (lambda path: path.write_bytes(b""), "is not a video"),
        (lambda path: path.write_bytes(os.urandom(4000)), "is not a video|holds no"),
        (zero_frame_video, "holds no|is not a video"),
        (sound_only, "holds no video stream, found: audio"),
        (moov_lost, "is not a video"),
    ],
    ids=["text", "empty", "noise", "zero frames", "sound only", "index lost"],
)
def test_what_is_no_video_is_a_value_error(tmp_path: Path, make, message: str) -> None:
    path = tmp_path / "bad.mp4"
    make(path)
    with pytest.raises(ValueError, match=message):
        open_frames(path)


# ---- real footage, where it is at hand ----


@pytest.mark.skipif(not MEDIA.is_dir(), reason="no ../shared/media")
@pytest.mark.parametrize("name", ["blackswan.mp4", "08_driving.mp4"])
def test_real_video(name: str) -> None:
    source = open_frames(MEDIA / name)
    with av.open(str(MEDIA / name)) as container:
        wanted = {3, 41, len(source) - 1}
        frames = [
            frame.to_ndarray(format="rgb24") if frame_idx in wanted else None
            for frame_idx, frame in enumerate(container.decode(video=0))
        ]
    assert len(source) == len(frames)
    for frame_idx in (41, len(source) - 1, 3):
        np.testing.assert_array_equal(source[frame_idx], frames[frame_idx])
