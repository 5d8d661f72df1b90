"""Videos with transparency: WebM (VP9, what browsers show) and QuickTime (ProRes 4444, what editors take)."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace

from grounded_sam2.effects.pixels import RGBAImage
from grounded_sam2.video.timing import FrameTimes
from grounded_sam2.video.video_writer import CheckedFile, ending, ffmpeg_errors, tag_bt709

__all__ = ["AlphaVideoWriter"]


class _Codec(NamedTuple):
    container: str
    encoder: str
    pixel_format: str
    options: dict[str, str]


CODECS = {
    ".webm": _Codec(
        "webm",
        "libvpx-vp9",
        "yuva420p",
        # constant quality; the encoder refuses hidden alternate frames beside transparency
        {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1", "auto-alt-ref": "0"},
    ),
    ".mov": _Codec("mov", "prores_ks", "yuva444p10le", {"profile": "4444", "alpha_bits": "16", "vendor": "apl0"}),
}


class AlphaVideoWriter:
    """Write RGBA pictures as a video with transparency, frame by frame.

    Colours under transparent pixels are not those of the video that the pictures were cut out of: players that know
    nothing of transparency show them. They are the mean of the colours that are seen, so that no edge gets a dark rim.

    Args:
        path: ends in .webm (VP9) or .mov (ProRes 4444); what is there is written over.
        times: when each picture is shown.
        size: (width, height) in pixels.

    Raises:
        OSError: it cannot be written.
        ValueError: from `write`, a picture of another size.
    """

    def __init__(self, path: str | os.PathLike[str], times: FrameTimes, size: tuple[int, int]) -> None:
        self.path = Path(path)
        self._codec = codec = CODECS[self.path.suffix]
        self._times = times
        self._size = size
        self._num_frames = 0
        self._file = CheckedFile(path, "w")
        with ffmpeg_errors(self.path):
            self._container = av.open(self._file, "w", format=codec.container)
            self._stream = stream = self._container.add_stream(codec.encoder, rate=times.fps, options=codec.options)
            stream.width, stream.height = size
            stream.pix_fmt = codec.pixel_format
            stream.time_base = stream.codec_context.time_base = times.time_base
            tag_bt709(stream)
            stream.codec_context.thread_count = 0
            if codec.container == "webm":
                stream.metadata["alpha_mode"] = "1"  # tells players that there is transparency

    def write(self, frame_idx: int, image: RGBAImage) -> None:
        """Append a picture (H, W, 4) RGBA, alpha not multiplied in; they come in order."""
        if image.shape != (self._size[1], self._size[0], 4):
            raise ValueError(f"expected pictures {(self._size[1], self._size[0], 4)}, got {image.shape}")
        with ffmpeg_errors(self.path):
            frame = av.VideoFrame.from_ndarray(_with_colors_beyond(image), format="rgba").reformat(
                format=self._codec.pixel_format,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                threads=1,
            )
            frame.pts, frame.time_base = self._times.shown_at(frame_idx), self._times.time_base
            self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> AlphaVideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ending(self.path, self._file, self._container, is_wanted=kind is None):
            if kind is None:
                self._container.mux(self._stream.encode())


def _with_colors_beyond(image: RGBAImage) -> npt.NDArray[np.uint8]:
    seen = image[..., 3] > 0
    filled = image.copy()
    filled[~seen, :3] = image[seen][:, :3].mean(axis=0) if seen.any() else 0
    return filled
