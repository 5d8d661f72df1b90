"""Videos opened and decoded: packets in, upright RGB out, the same frames whatever the number of cores.

An intact video is decoded by as many threads as there are cores. What FFmpeg makes of a damaged one depends on their
number: which frames are lost, and what stands in for the lost parts of others. So the fast way ends at the first damage
(`DamagedVideoError`), and readers start again with one thread, which conceals damage, always in the same way.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from sam2.frames.still_image import MAX_PIXELS, RGBImage, check_regular_file
from sam2.shown import is_url, shown, source_name

__all__ = [
    "DEFAULT_FPS",
    "DamagedVideoError",
    "Orientation",
    "checked_stream",
    "decoded",
    "decoder_limits",
    "ffmpeg_location",
    "open_container",
    "orientation_of",
    "packets_of",
    "stream_fps",
    "upright_rgb",
    "video_stream",
]

logger = logging.getLogger(__name__)

DEFAULT_FPS = 30


class DamagedVideoError(Exception):
    """A video does not decode, or not to its end."""


class Orientation(NamedTuple):
    """How a coded picture is shown: its rows and columns exchanged, then mirrored.

    Attributes:
        is_transposed: rows become columns.
        is_mirrored: left and right are exchanged, after that.
        is_upside_down: top and bottom are exchanged, after that.
    """

    is_transposed: bool
    is_mirrored: bool
    is_upside_down: bool


def ffmpeg_location(location: str) -> str:
    """What FFmpeg calls a path or URL; it would take "20:57:04.mp4" for a URL of an unknown protocol "20"."""
    return location if is_url(location) else f"file:{location}"


def open_container(location: str, strict: bool = False, num_threads: int = 1) -> av.container.InputContainer:
    """Open a video for reading.

    Args:
        location: a path or URL.
        strict: whether decoding stops at damage; otherwise damage is concealed.
        num_threads: that decode it; 0 takes as many as there are cores.

    Raises:
        FileNotFoundError: no such file.
        PermissionError: it may not be read.
        ValueError: it is no video, or its frames have more than `MAX_PIXELS` pixels.
    """
    if not is_url(location):
        if not Path(location).exists():
            raise FileNotFoundError(f"no such video: {source_name(location)!r}")
        check_regular_file(Path(location), "a video file")
    try:
        container = av.open(ffmpeg_location(location), options=decoder_limits(), metadata_errors="replace")
    except av.PermissionError:
        raise PermissionError(f"cannot read {source_name(location)}: no read permission") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{source_name(location)} is not a video that can be read: {shown(reason)}") from error
    try:
        context = checked_stream(container, source_name(location)).codec_context
    except ValueError:
        container.close()
        raise
    if strict:
        context.options = {**context.options, "err_detect": "explode"}
    if context.name == "hevc":
        context.flags |= av.codec.context.Flags.output_corrupt
    context.thread_type = "AUTO"
    context.thread_count = num_threads
    return container


def decoder_limits() -> dict[str, str]:
    """What tells FFmpeg to refuse frames that are too large, also those that come later, before it makes room."""
    return {"max_pixels": str(MAX_PIXELS)}


def checked_stream(container: av.container.InputContainer, name: str) -> av.VideoStream:
    """The stream of an opened video that is shown, its decoder limited; ValueError, with a name, when it has none."""
    stream = container.streams.best("video")
    if stream is None:
        kinds = sorted({stream.type for stream in container.streams})
        raise ValueError(f"{name} holds no video stream, found: {', '.join(kinds) or 'nothing'}")
    if stream.codec_context is None:
        raise ValueError(f"{name} holds video of a kind that FFmpeg cannot decode")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise ValueError(f"{name} has frames of {width}x{height} pixels, expected at most {MAX_PIXELS} in all")
    stream.codec_context.options = decoder_limits()
    return stream


def video_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The stream of an opened video that is shown: the one that FFmpeg holds for the best, never a cover picture."""
    return container.streams.best("video")


def packets_of(container: av.container.InputContainer) -> Iterator[av.Packet]:
    """The packets of the video; empty ones, which mean end of stream to a decoder, are left out.

    Raises:
        DamagedVideoError: it cannot be read to its end.
    """
    try:
        for packet in container.demux(video_stream(container)):
            if packet.size:
                yield packet
    except (av.FFmpegError, IndexError) as error:  # IndexError: PyAV, when a damaged file shows another stream late
        raise DamagedVideoError(f"reading stopped early: {error}") from error


def decoded(
    container: av.container.InputContainer, strict: bool = False, from_pts: int | None = None
) -> Iterator[av.VideoFrame]:
    """Every frame that decodes, in order of presentation, as ffmpeg shows them.

    Of a recording that begins in the middle of a group of pictures, frames whose references are missing are left out;
    later on, what came of them is shown.

    Args:
        container: opened with the same `strict`, and positioned at or before the packet of `from_pts`.
        strict: whether damage is an error; otherwise packets that do not decode are passed over.
        from_pts: presentation time of the key frame to start at; None starts with the next packet. When no such
            key frame comes, there are no frames.

    Raises:
        DamagedVideoError: the video is damaged, and `strict`.
    """
    stream = video_stream(container)
    packets = packets_of(container)
    packet: av.Packet | None
    # FFmpeg leaves out the first frames by itself, but in HEVC either all that lack references or none.
    has_begun = stream.codec_context.name != "hevc"
    while True:
        try:
            packet = next(packets, None)
        except DamagedVideoError as error:
            if strict:
                raise
            logger.debug("%s", error)
            packet = None
        if from_pts is not None:
            if packet is None:
                return
            if not packet.is_keyframe or packet.pts != from_pts:
                continue
            from_pts = None
        try:
            frames = stream.decode(packet)  # None asks for the frames that the decoder still holds
        except av.FFmpegError as error:
            if strict:
                raise DamagedVideoError(f"a packet does not decode: {error}") from error
            logger.debug("a packet does not decode: %s", error)
            frames = []
        for frame in frames:
            if strict and frame.is_corrupt:
                raise DamagedVideoError("a frame is damaged")
            has_begun = has_begun or not frame.is_corrupt
            if has_begun:
                yield frame
        if packet is None:
            return


def stream_fps(stream: av.VideoStream) -> Fraction:
    """The mean frame rate that a stream states, or a sane default where it states none."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate is not None and 0 < rate <= 1000:
            return Fraction(rate)
    return Fraction(DEFAULT_FPS)


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """How a frame is to be shown, by its display matrix; the nearest quarter turn, with or without a mirror image."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV, when a frame also carries data of a kind that it does not know
        quarter_turns = round(frame.rotation / 90) % 4  # counter-clockwise
        return Orientation(quarter_turns % 2 == 1, quarter_turns in (2, 3), quarter_turns in (1, 2))
    if matrix is None:
        return Orientation(False, False, False)
    # (x, y) is shown at (a x + c y, b x + d y), with y downwards
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


def upright_rgb(frame: av.VideoFrame, size: tuple[int, int], orientation: Orientation) -> RGBImage:
    """Pixels of a decoded frame, scaled to `size` (width and height as coded) and turned as it is to be shown."""
    # one thread: what a frame needs for more would wait for them in a forked child, where a frame is let go
    image = frame.to_ndarray(format="rgb24", width=size[0], height=size[1], threads=1)
    if orientation.is_transposed:
        image = image.transpose(1, 0, 2)
    if orientation.is_mirrored:
        image = image[:, ::-1]
    if orientation.is_upside_down:
        image = image[::-1]
    return np.ascontiguousarray(image)
