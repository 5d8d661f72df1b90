"""Video files: exact frames in any order, damaged and impossible videos."""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import SIZE, cut, index_of, make_video, picture

from grounded_sam2.video import LiveStream, VideoFile, VideoWriter, open_frames
from sam2.cores import usable_cores
from sam2.frames import decoding, video_file

MEDIA = Path(__file__).parents[2] / "shared" / "media"
CASES = Path(__file__).parents[2] / "shared" / "cases"

B_FRAMES = {"g": "12", "bf": "3"}
VIDEOS = {
    "b_frames.mp4": ("libx264", B_FRAMES),
    "b_frames.mkv": ("libx264", B_FRAMES),
    "b_frames.ts": ("libx264", B_FRAMES),
    "open_groups.mp4": ("libx264", {"x264-params": "keyint=10:min-keyint=10:open-gop=1:bframes=3"}),
    "b_frames.avi": ("libx264", B_FRAMES),
    "all_key.avi": ("mjpeg", {}),
    "mpeg4.avi": ("mpeg4", {"bf": "2"}),
    "mpeg2.ts": ("mpeg2video", {"bf": "2", "g": "12", "b": "2M"}),
    "b_frames.hevc.mkv": ("libx265", {"x265-params": "keyint=12:bframes=3:pools=1:log-level=none"}),
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


def plain_decode(path: Path) -> list[np.ndarray]:
    """All frames as one thread decodes them, one packet after another."""
    frames = []
    with av.open(f"file:{path}") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for packet in [*(packet for packet in container.demux(stream) if packet.size), None]:
            try:
                frames += stream.decode(packet)
            except av.FFmpegError:
                continue
        return [frame.to_ndarray(format="rgb24") for frame in frames]


@pytest.mark.parametrize("name", ["b_frames.avi", "b_frames.ts", "mpeg2.ts", "raw.h264"])
def test_frames_equal_a_plain_decode_to_the_bit(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    codec, options = VIDEOS[name]
    path = make_video(tmp_path / name, codec=codec, options=options)
    source = open_frames(path)
    expected = plain_decode(path)
    with caplog.at_level(logging.WARNING):
        assert len(source) == len(expected) == 40
        for frame_idx, image in enumerate(source):
            np.testing.assert_array_equal(image, expected[frame_idx])
        for frame_idx in (39, 7, 0, 22):
            np.testing.assert_array_equal(source[frame_idx], expected[frame_idx])
    assert caplog.text == ""  # no good frame is called damaged


def test_frames_that_an_edit_list_leaves_out_are_not_there(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "whole.mp4", options=B_FRAMES)
    with (
        av.open(str(whole)) as source,
        av.open(str(tmp_path / "edited.mp4"), "w", options={"avoid_negative_ts": "disabled"}) as edited,
    ):
        stream = source.streams.video[0]
        copy = edited.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.pts -= round(5 / (25 * stream.time_base))
                packet.dts -= round(5 / (25 * stream.time_base))
                packet.stream = copy
                edited.mux(packet)
    frames = open_frames(tmp_path / "edited.mp4")
    assert [index_of(image) for image in frames] == list(range(5, 40))
    assert [index_of(frames[frame_idx]) for frame_idx in (34, 0, 3, 20)] == [39, 5, 8, 25]


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


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
@pytest.mark.parametrize("is_mirrored", [False, True])
def test_rotation_and_mirror_metadata_is_honoured(tmp_path: Path, rotation: int, is_mirrored: bool) -> None:
    """A picture is turned first and mirrored then, as by FFmpeg for each of the eight matrices."""
    if not hasattr(av.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write the metadata")
    upright = open_frames(make_video(tmp_path / "flat.mp4", num_frames=3))[1]
    path = make_video(tmp_path / "turned.mp4", num_frames=3, rotation=rotation, is_mirrored=is_mirrored)
    source = open_frames(path)
    assert source.size == (SIZE[::-1] if rotation in (90, -90) else SIZE)
    expected = np.rot90(upright, rotation // 90)
    for image in (source[1], list(source)[1], list(LiveStream(path, latency="queue"))[1]):
        assert image.flags.c_contiguous
        np.testing.assert_array_equal(image, expected[:, ::-1] if is_mirrored else expected)


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


# ---- the same frames on every machine ----


def zeros_in_the_middle(content: bytearray) -> None:
    start = len(content) * 6 // 10
    content[start : start + len(content) // 15] = bytes(len(content) // 15)


def last_third_cut(content: bytearray) -> None:
    del content[len(content) * 2 // 3 :]


def first_third_cut(content: bytearray) -> None:
    del content[: len(content) // 3 // 188 * 188]  # a whole number of packets of a transport stream


def noisy_picture(frame_idx: int, size: tuple[int, int]) -> np.ndarray:
    """One whose parts all move, so that what is lost cannot be told from its neighbours."""
    return np.roll(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8), 3 * frame_idx, axis=1)


@pytest.mark.parametrize("damage", [zeros_in_the_middle, last_third_cut, first_third_cut])
@pytest.mark.parametrize("name", ["b_frames.ts", "b_frames.avi", "mpeg2.ts"])
def test_a_damaged_video_has_the_same_frames_whatever_the_number_of_threads(
    tmp_path: Path, name: str, damage: Callable[[bytearray], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    if damage is first_third_cut and not name.endswith(".ts"):
        pytest.skip("without its head it is no video")
    monkeypatch.setattr("clips.picture", noisy_picture)
    codec, options = VIDEOS[name]
    path = make_video(tmp_path / name, codec=codec, options=options)
    content = bytearray(path.read_bytes())
    damage(content)
    path.write_bytes(content)
    expected = plain_decode(path)
    assert 5 < len(expected) <= 40
    for num_threads in (1, 2, 4, 16):
        monkeypatch.setattr(video_file, "DECODER_THREADS", num_threads)
        source = open_frames(path)
        frames = list(source)
        assert len(source) == len(frames) == len(expected)
        for frame_idx in (0, len(frames) - 1, len(frames) // 2):
            np.testing.assert_array_equal(source[frame_idx], frames[frame_idx])
        assert all(np.array_equal(*pair) for pair in zip(frames, expected, strict=True))


@pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases")
@pytest.mark.parametrize(
    ("name", "num_frames", "num_distinct"),
    [("trunc_half.mp4", 9, 9), ("c264_zeros.mp4", 24, 16), ("chevc_5.mp4", 24, 9), ("hflip.mp4", 24, 24)],
)  # 9, 16 and 24 as by `ffmpeg -threads 1`; of chevc_5.mp4 the first frames lack what they refer to
def test_cases_from_the_field(name: str, num_frames: int, num_distinct: int, monkeypatch: pytest.MonkeyPatch) -> None:
    by_threads = []
    for num_threads in (1, 2, 8, 16):
        monkeypatch.setattr(video_file, "DECODER_THREADS", num_threads)
        by_threads.append([image.tobytes() for image in open_frames(CASES / name)])
    assert len(by_threads[0]) == num_frames and len(set(by_threads[0])) == num_distinct
    assert all(frames == by_threads[0] for frames in by_threads)


def test_an_intact_video_is_decoded_once_and_by_all_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_frames(make_video(tmp_path / "a.mp4", options=B_FRAMES))
    len(source)
    opened = []
    monkeypatch.setattr(
        video_file, "open_container", lambda *how: (opened.append(how), decoding.open_container(*how))[1]
    )
    list(source)
    assert opened == [(source.name, True, usable_cores())]


# ---- what is no video, or too large ----


def test_a_name_with_colons_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "2024-01-26T20:57:04.mp4"
    with VideoWriter(name, 25) as writer:
        for frame_idx in range(3):
            writer.write(picture(frame_idx))
    assert [index_of(image) for image in open_frames(name)] == [0, 1, 2]
    assert [index_of(image) for image in LiveStream(name, latency="queue")] == [0, 1, 2]
    with VideoWriter("20:58.mp4", 25, like=open_frames(name)) as writer:
        writer.write(picture(3))
    assert len(open_frames("20:58.mp4")) == 1


def test_what_is_no_file_is_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(ValueError, match=r"pipe\.mp4 is a pipe, a socket or a device, expected a video file"):
        open_frames(tmp_path / "pipe.mp4")
    with pytest.raises(ValueError, match=r"/dev/zero is a pipe, a socket or a device"):
        open_frames("/dev/zero")
    with pytest.raises(ValueError, match=r"no images in .*folder\.mp4"):
        open_frames(tmp_path / "folder.mp4")
    with pytest.raises(ValueError, match=r"folder\.mp4 is a folder, expected a video file"):
        VideoFile(tmp_path / "folder.mp4")


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names of any bytes")
def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.mp4"))
    make_video(tmp_path / "a.mp4", num_frames=3).rename(path)
    assert [index_of(image) for image in open_frames(path)] == [0, 1, 2]


def test_frames_of_too_many_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "a.mp4", num_frames=3)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 128 * 64)  # FFmpeg pads rows
    assert len(list(open_frames(path))) == 3
    monkeypatch.setattr(decoding, "MAX_PIXELS", 96 * 64 - 1)
    with pytest.raises(ValueError, match=r"a\.mp4 has frames of 96x64 pixels, expected at most 6143 in all"):
        open_frames(path)
    with pytest.raises(ValueError, match=r"a\.mp4 has frames of 96x64 pixels, expected at most 6143 in all"):
        LiveStream(path)


def test_a_frame_that_grows_too_large_midway_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [make_video(tmp_path / "small.h264", num_frames=3), make_video(tmp_path / "large.h264", size=(192, 128))]
    path = tmp_path / "grows.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert len(list(open_frames(path))) == 43
    monkeypatch.setattr(decoding, "MAX_PIXELS", 128 * 64)
    assert len(list(open_frames(path))) == 3


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
