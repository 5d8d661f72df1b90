"""Frame sources and the video writer: exact frames in any order, bad input, outputs complete or absent."""

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
from PIL import Image

from grounded_sam2 import video
from grounded_sam2.images import read_image, write_image
from grounded_sam2.video import VideoWriter, open_frames

MEDIA = Path(__file__).parents[2] / "shared" / "media"
SIZE = (96, 64)  # width, height


def picture(frame_idx: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A frame that says its own index: 10 black or white stripes, one for each bit."""
    width, height = size
    image = np.full((height, width, 3), (200, 30, 60), np.uint8)
    for bit in range(10):
        stripe = slice(bit * width // 12, (bit + 1) * width // 12)
        image[height // 4 :, stripe] = 255 * (frame_idx >> bit & 1)
    return image


def index_of(image: np.ndarray) -> int:
    """What `picture` encoded."""
    height, width = image.shape[:2]
    bits = [int(image[height * 3 // 4, int((bit + 0.5) * width / 12)].mean() > 127) for bit in range(10)]
    return sum(value << bit for bit, value in enumerate(bits))


def make_video(
    path: Path,
    num_frames: int = 40,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    rotation: int | None = None,
    times: list[int] | None = None,
    rate: Fraction | int = 25,
) -> Path:
    """A video of `picture` frames; `times` in units of 1/`rate` makes the frame rate variable."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = SIZE
        stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8", "png": "rgb24"}.get(codec, "yuv420p")
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for frame_idx in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(frame_idx), format="rgb24").reformat(format=stream.pix_fmt)
            frame.pts = times[frame_idx] if times else frame_idx
            frame.time_base = 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


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
    original = video.VideoFile._to_rgb
    monkeypatch.setattr(video.VideoFile, "_to_rgb", counting)
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


def cut(path: Path, num_bytes: int) -> Path:
    """Keep only the first bytes of a file."""
    path.write_bytes(path.read_bytes()[:num_bytes])
    return path


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


def test_no_such_file(tmp_path: Path) -> None:
    for missing in (tmp_path / "no.mp4", tmp_path / "no.jpg", tmp_path / "folder"):
        with pytest.raises(FileNotFoundError, match="no such video, image or folder"):
            open_frames(missing)


@pytest.mark.parametrize("source", [True, 3.5, None, b"a.mp4"])
def test_what_is_no_source_is_a_value_error(source) -> None:
    with pytest.raises(ValueError, match="expected a path, URL, camera index or frames"):
        open_frames(source)


# ---- folders, lists, generators ----


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
    with pytest.raises(ValueError, match=r"holds no images.*found 1 other files"):
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


# ---- still images ----


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 100, (100, 100, 100)),
        ("1", 1, (255, 255, 255)),
        ("LA", (100, 255), (100, 100, 100)),
        ("RGB", (200, 30, 60), (200, 30, 60)),
        ("RGBA", (200, 30, 60, 255), (200, 30, 60)),
        ("RGBA", (200, 30, 60, 0), (255, 255, 255)),
        ("I;16", 65535, (255, 255, 255)),
        ("I;16", 25700, (100, 100, 100)),
        ("P", 0, (0, 0, 0)),
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (5, 3)])
def test_images_of_every_kind(tmp_path: Path, mode: str, value, expected, size) -> None:
    Image.new(mode, size, value).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.shape == (size[1], size[0], 3) and image.dtype == np.uint8 and image.flags.writeable
    assert image[0, 0].tolist() == list(expected)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    red, green, blue = read_image(tmp_path / "a.jpg")[4, 4]
    assert red > 200 and green < 60 and blue < 60


@pytest.mark.parametrize(("orientation", "quarter_turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_orientation(tmp_path: Path, orientation: int, quarter_turns: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture(5)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(picture(5), quarter_turns))
    assert open_frames(tmp_path / "a.png").num_frames == 1


def test_bad_images(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such image"):
        read_image(tmp_path / "no.jpg")
    with pytest.raises(ValueError, match="is a folder"):
        read_image(tmp_path)
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(ValueError, match="is not an image"):
        read_image(tmp_path / "text.jpg")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "cut.jpg")
    cut(tmp_path / "cut.jpg", 2000)
    with pytest.raises(ValueError, match=r"cut\.jpg is a damaged image"):
        read_image(tmp_path / "cut.jpg")


def test_write_image_round_trip_and_refusals(tmp_path: Path) -> None:
    write_image(tmp_path / "new" / "a.png", picture(3))
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "a.png"), picture(3))
    with pytest.raises(ValueError, match="expected one of"):
        write_image(tmp_path / "a.xyz", picture(3))
    with pytest.raises(ValueError, match=r"expected RGB uint8 \(H, W, 3\), got float64"):
        write_image(tmp_path / "a.png", picture(3) / 255)
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        (tmp_path / "folder.png").mkdir()
        write_image(tmp_path / "folder.png", picture(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.png", "new"]


# ---- the writer ----


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
