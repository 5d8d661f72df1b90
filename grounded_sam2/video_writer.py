"""H.264 videos, written frame by frame and put in place only when complete."""

from __future__ import annotations

import logging
import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from grounded_sam2.files import check_writable, replace_file, temporary_beside
from grounded_sam2.images import RGBImage, check_image

__all__ = ["VideoWriter", "exact_fps"]

logger = logging.getLogger(__name__)

VIDEO_OUTPUT_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv"})


def exact_fps(fps: float | Fraction) -> Fraction:
    """`fps` as a fraction a video container can hold; 29.97002997 becomes 30000/1001. ValueError unless positive."""
    exact = Fraction(fps).limit_denominator(65535)
    if exact <= 0:
        raise ValueError(f"expected more than 0 frames per second, got {fps}")
    return exact


class VideoWriter:
    """Write frames as an H.264 video that any browser plays (yuv420p, BT.709, index at the front).

    Frames are encoded as they arrive, under a temporary name in the same folder. When the `with` block ends well the
    file takes the place of `path` in one step; when it raises, the temporary file is removed and an older `path`
    stays untouched. After Ctrl-C what was written so far is finished as `<stem>.partial<suffix>` beside `path`: it
    plays, and the name `path` still only ever means a complete video.

    H.264 in this format has even sides: an odd width or height gets its last column or row repeated once.

        with VideoWriter("out.mp4", source.fps) as writer:
            for image in source:
                writer.write(image)

    Args:
        path: ends in .mp4, .m4v, .mov or .mkv; missing folders are made.
        fps: frames per second; a `Fraction` is kept exactly.
        size: (width, height) of the frames; by default that of the first one.
        crf: quality, 0 (lossless) to 51; 20 is visually close to the source.

    Raises:
        ValueError: another suffix, `fps` not positive, or (from `write`) a frame that is not RGB uint8 of the size.
        OSError: `path` cannot be written.
        RuntimeError: closed without any frame written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fps: float | Fraction,
        size: tuple[int, int] | None = None,
        crf: int = 20,
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in VIDEO_OUTPUT_SUFFIXES:
            expected = ", ".join(sorted(VIDEO_OUTPUT_SUFFIXES))
            raise ValueError(f"cannot write {path}: expected one of {expected}, got '{self.path.suffix}'")
        self.fps = exact_fps(fps)
        self.num_frames = 0
        self._size = size
        self._crf = crf
        self._target = check_writable(path)
        self._temporary = temporary_beside(self._target)
        index_first = {} if self.path.suffix.lower() == ".mkv" else {"movflags": "+faststart"}
        self._container: av.container.OutputContainer | None = av.open(str(self._temporary), "w", options=index_first)
        self._stream: av.VideoStream | None = None

    @property
    def partial_path(self) -> Path:
        """Where an interrupted video is kept."""
        return self._target.with_name(f"{self._target.stem}.partial{self._target.suffix}")

    def write(self, image: RGBImage) -> None:
        """Append one frame, RGB uint8 `(H, W, 3)`; the array is not kept."""
        if self._container is None:
            raise RuntimeError(f"{self.path} is closed: make a new VideoWriter(...) before write(...)")
        check_image(image, f"frame {self.num_frames} for {self.path}", self._size)
        height, width = image.shape[:2]
        if self._stream is None:
            self._size = (width, height)
            self._stream = self._add_stream(width + width % 2, height + height % 2)
        if width % 2 or height % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        frame.pts = self.num_frames
        frame.time_base = 1 / self.fps
        self._container.mux(self._stream.encode(frame))
        self.num_frames += 1

    def _add_stream(self, width: int, height: int) -> av.VideoStream:
        assert self._container is not None
        stream = self._container.add_stream("libx264", rate=self.fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = 1 / self.fps
        # A key frame every two seconds, so that a player can jump.
        stream.codec_context.gop_size = max(1, round(2 * self.fps))
        stream.codec_context.color_primaries = 1  # 1 names BT.709 in all three, by ITU-T H.273
        stream.codec_context.color_trc = 1
        stream.codec_context.colorspace = 1
        stream.codec_context.color_range = ColorRange.MPEG
        stream.options = {"crf": str(self._crf), "preset": "veryfast"}
        return stream

    def close(self) -> None:
        """Finish the video and move it to `path`. Closing twice is harmless."""
        if self._container is None:
            return
        if self.num_frames == 0:
            self.discard()
            raise RuntimeError(f"no frame was written to {self.path}: call write(image) before close()")
        self._finish(self._target)

    def discard(self) -> None:
        """Give up: remove what was written and leave an older `path` as it was."""
        container, self._container = self._container, None
        if container is not None:
            try:
                container.close()
            except (av.FFmpegError, OSError) as error:
                logger.debug("closing %s: %s", self._temporary, error)
            self._temporary.unlink(missing_ok=True)

    def _finish(self, target: Path) -> None:
        assert self._container is not None and self._stream is not None
        try:
            self._container.mux(self._stream.encode())
            self._container.close()
            replace_file(self._temporary, target)
        except BaseException:
            self.discard()
            raise
        self._container = None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif issubclass(kind, KeyboardInterrupt) and self._container is not None and self.num_frames > 0:
            self._finish(self.partial_path)
            logger.warning("interrupted: the first %d frames are in %s", self.num_frames, self.partial_path)
        else:
            self.discard()
