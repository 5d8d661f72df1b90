"""H.264 videos, written frame by frame, readable while they grow and put in place only when complete."""

from __future__ import annotations

import errno
import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from grounded_sam2.files import check_partial, check_writable, partial_of, replace_file, replacing, writing_to
from grounded_sam2.images import RGBImage, check_image
from grounded_sam2.video.frame_source import FrameSource
from grounded_sam2.video.sound import SoundTrack, open_sound
from grounded_sam2.video.timing import FrameTimes, exact_fps, frame_times
from sam2.frames import VideoFile
from sam2.frames.decoding import ffmpeg_location

__all__ = ["CheckedFile", "VideoWriter", "ending", "ffmpeg_errors", "tag_bt709"]

logger = logging.getLogger(__name__)

# suffix → FFmpeg's name of the container
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
VIDEO_OUTPUT_SUFFIXES = frozenset(CONTAINERS)
# Files grow in pieces of at most a second, each given to the system at once, and in MP4 with an index of its own, so
# that what was never finished can be read.
MP4_IN_PIECES = {"movflags": "+frag_keyframe+delay_moov+default_base_moof", "frag_duration": "1000000"}
MKV_IN_PIECES = {"cluster_time_limit": "1000"}
LIVE_TIME_BASE = Fraction(1, 1000)  # seconds


class CheckedFile(io.FileIO):
    """A file that remembers that it could not be written, which FFmpeg does not report when it closes a video."""

    failure: OSError | None = None

    def write(self, block: Any) -> int:
        """Write all of a block."""
        remaining = memoryview(block)
        try:
            while remaining:
                remaining = remaining[super().write(remaining) :]
        except OSError as error:
            self.failure = error
            raise
        return len(block)


class VideoWriter:
    """Write frames as an H.264 video that any browser plays (yuv420p, BT.709, index at the front).

    Frames are encoded as they arrive, into `<stem>.partial<suffix>`, which plays at any time, also after a crash, but
    for its last second or two. When the `with` block ends well, the finished file takes the place of `path` in one
    step. When it raises, also on Ctrl-C, what was written so far stays as the partial file: the name `path` only ever
    means a complete video, and an older one stays untouched.

    H.264 in this format has even sides: an odd width or height gets its last column or row repeated once.

        with VideoWriter("out.mp4", source.fps, like=source) as writer:
            for image in source:
                writer.write(image)

    Args:
        path: ends in .mp4, .m4v, .mov or .mkv; missing folders are made.
        fps: frames per second; a `Fraction` is kept exactly.
        size: (width, height) of the frames; by default that of the first one.
        crf: quality, 0 (lossless) to 51; 20 is visually close to the source.
        like: what the frames were made from, one for one and from the first. Where it is a video file, each frame is
            shown when its frame is, also at a variable rate, and its sound comes along, up to the last frame written.
            Where it is live, the frame that is written is shown when the one it yielded last came.
        with_sound: False leaves the sound of `like` out.

    Raises:
        ValueError: another suffix, `fps` not positive, or (from `write`) a frame that is not RGB uint8 of the size, or
            more frames than `like` has.
        OSError: `path` cannot be written, or (from `write`, `close`) a full disk.
        RuntimeError: closed without any frame written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fps: float | Fraction,
        size: tuple[int, int] | None = None,
        crf: int = 20,
        like: FrameSource | None = None,
        with_sound: bool = True,
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in VIDEO_OUTPUT_SUFFIXES:
            expected = ", ".join(sorted(VIDEO_OUTPUT_SUFFIXES))
            raise ValueError(f"cannot write {path}: expected one of {expected}, got '{self.path.suffix}'")
        self.fps = exact_fps(fps)
        self.num_frames = 0
        self._size = size
        self._crf = crf
        self._like = like if isinstance(like, VideoFile) else None
        self._with_sound = with_sound
        self._live = like if like is not None and like.seconds is not None else None
        self._target = check_writable(path)
        check_partial(self._target)
        self._is_closed = False
        self._file: CheckedFile | None = None
        self._container: av.container.OutputContainer | None = None
        self._stream: av.VideoStream | None = None
        self._sound: SoundTrack | None = None
        self._times = FrameTimes(self.fps, 1 / self.fps if self._live is None else LIVE_TIME_BASE)
        self._last_shown_at = -1

    @property
    def partial_path(self) -> Path:
        """Where the video is until it is complete."""
        return partial_of(self._target)

    def write(self, image: RGBImage) -> None:
        """Append one frame, RGB uint8 `(H, W, 3)`; the array is not kept."""
        if self._is_closed:
            raise RuntimeError(f"{self.path} is closed: make a new VideoWriter(...) before write(...)")
        check_image(image, f"frame {self.num_frames} for {self.path}", self._size)
        height, width = image.shape[:2]
        with ffmpeg_errors(self.partial_path):
            if self._container is None or self._stream is None:
                self._size = (width, height)
                self._container, self._stream = self._open(width + width % 2, height + height % 2)
            times = self._times.times
            if times is not None and self.num_frames >= len(times):
                raise ValueError(f"{self.path}: expected {len(times)} frames, those of the source, got more")
            if width % 2 or height % 2:
                image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, threads=1
            )
            frame.pts = self._last_shown_at = self._shown_at(self.num_frames)
            frame.time_base = self._times.time_base
            self._container.mux(self._stream.encode(frame))
            self.num_frames += 1
            if self._sound is not None:
                self._sound.write_until(self._shown_at(self.num_frames) * self._times.time_base)

    def _shown_at(self, frame_idx: int) -> int:
        """When a frame is shown, in units of the time base."""
        if self._live is not None and self._live.seconds is not None:
            return max(self._last_shown_at + 1, round(self._live.seconds / self._times.time_base))
        return self._times.shown_at(frame_idx)

    def _open(self, width: int, height: int) -> tuple[av.container.OutputContainer, av.VideoStream]:
        """Begin the partial file."""
        if self._like is not None:
            self._times = frame_times(self._like, self.fps)
        kind = CONTAINERS[self.path.suffix.lower()]
        in_pieces = MKV_IN_PIECES if kind == "matroska" else MP4_IN_PIECES
        self._file = CheckedFile(self.partial_path, "w")
        container = av.open(self._file, "w", format=kind, options={**in_pieces, "flush_packets": "1"})
        stream = self._add_stream(container, width, height)
        if self._like is not None and self._with_sound:
            self._sound = open_sound(self._like.location, self._times.start)
        if self._sound is not None:
            self._sound.add_to(container)
        return container, stream

    def _add_stream(self, container: av.container.OutputContainer, width: int, height: int) -> av.VideoStream:
        stream = container.add_stream("libx264", rate=self.fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = self._times.time_base
        # A key frame every two seconds, so that a player can jump.
        stream.codec_context.gop_size = max(1, round(2 * self.fps))
        tag_bt709(stream)
        stream.options = {"crf": str(self._crf), "preset": "veryfast"}
        return stream

    def close(self) -> None:
        """Finish the video and move it to `path`. Closing twice is harmless."""
        if self._is_closed:
            return
        if self.num_frames == 0:
            self.leave()
            raise RuntimeError(f"no frame was written to {self.path}: call write(image) before close()")
        self._end_partial()
        with ffmpeg_errors(self.path):
            kind = CONTAINERS[self.path.suffix.lower()]
            if kind == "matroska":
                replace_file(self.partial_path, self._target)
                return
            with replacing(self._target) as temporary:
                _index_first(self.partial_path, temporary, kind)
            self.partial_path.unlink()

    def leave(self) -> None:
        """Stop here: what was written so far stays as the partial file, and `path` as it was."""
        if self._is_closed:
            return
        try:
            self._end_partial()
        except (av.FFmpegError, OSError) as error:
            logger.debug("closing %s: %s", self.partial_path, error)

    def _end_partial(self) -> None:
        """Write out what the encoder still holds, and close the partial file."""
        self._is_closed = True
        if self._container is None or self._stream is None:
            return
        assert self._file is not None
        with ending(self.partial_path, self._file, self._container):
            try:
                self._container.mux(self._stream.encode())
            finally:
                if self._sound is not None:
                    self._sound.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        self.leave()
        if self.num_frames > 0 and issubclass(kind, KeyboardInterrupt):
            logger.warning("the first %d frames are in %s", self.num_frames, self.partial_path)


@contextmanager
def ending(
    path: Path, file: CheckedFile, container: av.container.OutputContainer, *, is_wanted: bool = True
) -> Iterator[None]:
    """Close a file and its container, after what is still to be written to it.

    Raises:
        OSError: what was written did not all get there, of a file that is wanted.
    """
    with ffmpeg_errors(path), file:
        try:
            yield
        finally:
            container.close()
        if is_wanted and file.failure is not None:
            raise file.failure


def tag_bt709(stream: av.VideoStream) -> None:
    """Say in a stream that its colours are those of BT.709, of limited range."""
    stream.codec_context.color_primaries = 1  # 1 names BT.709 in all three, by ITU-T H.273
    stream.codec_context.color_trc = 1
    stream.codec_context.colorspace = 1
    stream.codec_context.color_range = ColorRange.MPEG


def _index_first(source: Path, target: Path, kind: str) -> None:
    """Copy a video that was written in pieces as one with a single index, before everything else.

    Raises:
        OSError: not all of it could be written.
    """
    with (
        av.open(ffmpeg_location(str(source))) as pieces,
        av.open(ffmpeg_location(str(target)), "w", format=kind, options={"movflags": "+faststart"}) as whole,
    ):
        streams = {stream.index: whole.add_stream_from_template(stream) for stream in pieces.streams}
        num_bytes = 0
        for packet in pieces.demux():
            if packet.dts is not None:
                num_bytes += packet.size
                packet.stream = streams[packet.stream_index]
                whole.mux(packet)
    with av.open(ffmpeg_location(str(target))) as whole:  # FFmpeg does not tell when the disk gets full at the end
        if sum(packet.size for packet in whole.demux()) != num_bytes:
            raise OSError(errno.ENOSPC, "the disk is full, or a limit to the size of files is reached")


@contextmanager
def ffmpeg_errors(path: Path) -> Iterator[None]:
    """FFmpeg's errors as OSError that names the file."""
    with writing_to(path):
        try:
            yield
        except av.FFmpegError as error:
            raise OSError(error.errno, error.strerror) from error
