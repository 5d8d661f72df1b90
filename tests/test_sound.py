"""Written videos carry the sound and the frame times of the video they were made from."""

import signal
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from grounded_sam2.video import VideoWriter, open_frames

RATE = 16000  # samples per second
TIMES = [0, 1, 2, 7, 8, 9, 10, 22, 23, 24, 30, 31, 40, 41, 49]  # in 1/25 s, irregular
BEEP = 20  # the time, in 1/25 s, at which silence ends


def make_clip(path: Path, codec: str | None, times: list[int], start: int = 0, layout: str = "mono") -> Path:
    """Frames that brighten with their index, and sound that is silent before `BEEP` and a tone after it.

    Args:
        codec: of the sound; None: no sound.
        times: of the frames, in 1/25 s.
        start: time of the first frame on the clip's clock, in 1/25 s; the sound starts at 0 and is 2 s long.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "8", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream(codec, rate=RATE, layout=layout) if codec else None
        for frame_idx, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(
                np.full((48, 64, 3), 10 + 8 * (frame_idx % 30), np.uint8), format="rgb24"
            )
            frame.pts, frame.time_base = start + time, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            seconds = np.arange(2 * RATE) / RATE
            tone = np.where(seconds >= BEEP / 25, np.sin(2 * np.pi * 440 * seconds), 0)
            samples = np.tile((20000 * tone).astype(np.int16), (1 if layout == "mono" else 2, 1))
            for begin in range(0, samples.shape[1], 1600):
                part = np.ascontiguousarray(samples[:, begin : begin + 1600].T).reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(part, format="s16", layout=layout)
                frame.sample_rate, frame.pts = RATE, begin
                container.mux(sound.encode(frame))
            container.mux(sound.encode())
    return path


def copy(path: Path, target: Path, num_frames: int | None = None) -> Path:
    """Write the first frames of a video as a script does."""
    with open_frames(path) as frames, VideoWriter(target, frames.fps, frames.size, like=frames) as writer:
        for image, _ in zip(frames, range(num_frames or len(frames)), strict=False):
            writer.write(image)
    return target


def frame_times(path: Path) -> list[float]:
    """Seconds after the first frame."""
    with av.open(str(path)) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    return [time - times[0] for time in times]


def sound_of(path: Path) -> tuple[str, float, float]:
    """The codec, and the times in seconds after the first frame of the tone's beginning and of the sound's end."""
    with av.open(str(path)) as container:
        first = next(container.decode(video=0))
        offset = float(first.pts * first.time_base)
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        name, begin, end = stream.codec_context.codec.canonical_name, -1.0, 0.0
        for frame in container.decode(stream):
            samples = np.abs(frame.to_ndarray().astype(np.float64)).reshape(-1)
            loud = np.flatnonzero(samples > 0.3 * (1 if frame.format.name.startswith("flt") else 32768))
            channels = 1 if frame.format.is_planar else frame.layout.nb_channels
            if begin < 0 and len(loud):
                begin = frame.time + (loud[0] % (frame.samples * channels)) / channels / frame.sample_rate - offset
            end = frame.time + frame.samples / frame.sample_rate - offset
    return name, begin, end


@pytest.mark.parametrize(
    ("name", "codec", "target", "expected"),
    [
        ("a.mp4", "aac", "out.mp4", "aac"),
        ("a.ts", "aac", "out.mp4", "aac"),  # in another framing than in MP4
        ("a.mkv", "flac", "out.mp4", "flac"),
        ("a.mkv", "libopus", "out.mp4", "opus"),
        ("a.mkv", "pcm_s16le", "out.mp4", "aac"),
        ("a.mkv", "pcm_s16le", "out.mkv", "aac"),
        ("a.mp4", "libmp3lame", "out.mkv", "mp3"),
    ],
)
def test_sound_and_irregular_times_are_kept(tmp_path: Path, name: str, codec: str, target: str, expected: str) -> None:
    source = make_clip(tmp_path / name, codec, TIMES, layout="stereo" if codec == "pcm_s16le" else "mono")
    written = copy(source, tmp_path / target)
    assert frame_times(written) == pytest.approx([time / 25 for time in TIMES], abs=0.0011)  # mkv counts milliseconds
    kind, begin, end = sound_of(written)
    _, source_begin, _ = sound_of(source)
    assert kind == expected
    assert begin == pytest.approx(source_begin, abs=0.03) and begin == pytest.approx(BEEP / 25, abs=0.08)
    assert end == pytest.approx(2, abs=0.2)


def test_sound_ends_where_the_frames_end(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", "aac", TIMES)
    written = copy(source, tmp_path / "out.mp4", num_frames=8)
    assert frame_times(written) == pytest.approx([time / 25 for time in TIMES[:8]])
    assert TIMES[8] / 25 <= sound_of(written)[2] + 0.07 and sound_of(written)[2] <= TIMES[8] / 25 + 0.07


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_sound_before_the_first_frame_is_left_out(tmp_path: Path, codec: str) -> None:
    source = make_clip(tmp_path / "a.mkv", codec, list(range(30)), start=10)
    written = copy(source, tmp_path / "out.mp4")
    assert frame_times(written) == pytest.approx([time / 25 for time in range(30)], abs=0.001)
    assert sound_of(written)[1] == pytest.approx((BEEP - 10) / 25, abs=0.08)


def test_a_source_without_sound_or_file_gives_none(tmp_path: Path) -> None:
    silent = copy(make_clip(tmp_path / "a.mp4", None, TIMES), tmp_path / "out.mp4")
    images = open_frames([np.zeros((48, 64, 3), np.uint8)] * 3)
    with VideoWriter(tmp_path / "list.mp4", images.fps, images.size, like=images) as writer:
        for image in images:
            writer.write(image)
    for path in (silent, tmp_path / "list.mp4"):
        with av.open(str(path)) as container:
            assert [stream.type for stream in container.streams] == ["video"]


def test_a_steady_rate_in_coarse_times_stays_exact(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"  # counts in milliseconds
    with VideoWriter(path, Fraction(30000, 1001)) as writer:
        for value in range(40):
            writer.write(np.full((48, 64, 3), value, np.uint8))
    source = open_frames(path)
    assert source.times is not None and source.times[1] * source.time_base != 1 / source.fps
    with av.open(str(copy(path, tmp_path / "out.mp4"))) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)


def test_damaged_sound_ends_no_run(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.ts", "aac", TIMES)
    with av.open(str(source)) as container:
        positions = [packet.pos for packet in container.demux(audio=0) if packet.size and packet.pos]
    content = bytearray(source.read_bytes())
    for position in positions[2::3]:
        content[position + 20 : position + 120] = bytes(100)
    source.write_bytes(content)
    assert len(frame_times(copy(source, tmp_path / "out.mp4"))) == len(TIMES)


def test_more_frames_than_the_source_has_are_refused(tmp_path: Path) -> None:
    frames = open_frames(make_clip(tmp_path / "a.mp4", None, TIMES[:3] + [9]))
    writer = VideoWriter(tmp_path / "out.mp4", frames.fps, like=frames)
    for image in frames:
        writer.write(image)
    with pytest.raises(ValueError, match="expected 4 frames, those of the source, got more"):
        writer.write(frames[0])
    writer.close()


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_what_is_on_disk_after_a_kill_plays(tmp_path: Path, name: str) -> None:
    """The partial file has all frames but the last second or two, and the sound beside them."""
    source = make_clip(tmp_path / "a.mp4", "aac", list(range(120)))
    program = f"""
        import os, signal
        from grounded_sam2.video import VideoWriter, open_frames
        frames = open_frames({str(source)!r})
        writer = VideoWriter({str(tmp_path / name)!r}, frames.fps, like=frames)
        for image in frames:
            writer.write(image)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    (tmp_path / name).write_text("older")
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert (tmp_path / name).read_text() == "older"
    partial = tmp_path / f"out.partial{Path(name).suffix}"
    times = frame_times(partial)
    assert len(times) >= 25 and times == pytest.approx([time / 25 for time in range(len(times))], abs=0.001)
    assert 0.5 < sound_of(partial)[2] <= 2
