"""The sound of a video, carried over into another one while that is being written."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from fractions import Fraction

import av

from sam2.frames.decoding import ffmpeg_location
from sam2.shown import source_name

__all__ = ["SoundTrack", "open_sound"]

logger = logging.getLogger(__name__)

COPIED_CODECS = frozenset({"aac", "flac", "mp3", "opus"})  # what browsers play; other sound becomes AAC
AAC_RATES = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000})
AAC_BITS_PER_SECOND = 160_000
# Sound that begins this little before the first frame is kept: a decoder needs some to get going.
LEAD = Fraction(1, 10)
FULL = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO})  # of the disk; other errors are the sound's


def open_sound(location: str, start: Fraction) -> SoundTrack | None:
    """Open the sound of a video; None where it has none, or none that can be read.

    Args:
        location: of the video.
        start: time in seconds, on the video's clock, at which its first frame is shown.
    """
    try:
        container = av.open(ffmpeg_location(location), metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        logger.debug("%s: no sound is read: %s", source_name(location), error)
        return None
    if not container.streams.audio:
        container.close()
        return None
    return SoundTrack(container, start)


class SoundTrack:
    """One sound stream on its way from one container into another: as it is, or as AAC.

    Args:
        source: opened, with at least one sound stream, of which the first is taken. Closed by `close`.
        start: time in seconds on the source's clock that becomes 0.
    """

    def __init__(self, source: av.container.InputContainer, start: Fraction) -> None:
        self._source = source
        self._input = source.streams.audio[0]
        self._start = start
        self._output: av.container.OutputContainer | None = None
        self._packets: Iterator[av.Packet] = iter(())
        self._waiting: av.Packet | None = None

    def add_to(self, output: av.container.OutputContainer) -> None:
        """Make a stream for the sound in a container of which nothing has been written yet."""
        name = self._input.codec_context.codec.canonical_name
        is_whole = name != "aac" or bool(self._input.codec_context.extradata)  # as in MP4, not as in MPEG streams
        self._output = output
        if name in COPIED_CODECS and name in output.supported_codecs and is_whole:
            self._packets = self._copied(output.add_stream_from_template(self._input))
        else:
            rate = self._input.codec_context.sample_rate
            encoder = output.add_stream("aac", rate=rate if rate in AAC_RATES else 48000)
            encoder.layout = "mono" if self._input.codec_context.channels == 1 else "stereo"
            encoder.bit_rate = AAC_BITS_PER_SECOND
            self._packets = self._encoded(encoder)

    def write_until(self, time: Fraction) -> None:
        """Write what begins before a time, in seconds since the first frame, and has not been written yet.

        Raises:
            av.FFmpegError: a full disk.
        """
        while self._output is not None:
            packet = self._waiting or next(self._packets, None)
            if packet is None:
                return
            assert packet.pts is not None and packet.time_base is not None
            if packet.pts * packet.time_base >= time:
                self._waiting = packet
                return
            self._waiting = None
            try:
                self._output.mux(packet)
            except av.FFmpegError as error:
                if error.errno in FULL:
                    raise
                logger.debug("%s: a packet of sound cannot be copied: %s", source_name(self._source.name), error)

    def close(self) -> None:
        """Let go of the source."""
        self._output = None
        self._source.close()

    def _read(self) -> Iterator[av.Packet]:
        """The packets of the source that have a time, on the new clock; damage ends them early."""
        assert self._input.time_base is not None
        shift = round(self._start / self._input.time_base)
        last_dts: int | None = None
        try:
            for packet in self._source.demux(self._input):
                if not packet.size or packet.pts is None or packet.dts is None:
                    continue
                if packet.pts * self._input.time_base < self._start - LEAD:
                    continue
                if last_dts is not None and packet.dts <= last_dts:  # no container takes times that run backwards
                    continue
                last_dts = packet.dts
                packet.pts -= shift
                packet.dts -= shift
                yield packet
        except (av.FFmpegError, IndexError) as error:
            logger.warning(
                "%s: the sound is damaged, the rest of it is left out: %s", source_name(self._source.name), error
            )

    def _copied(self, output: av.AudioStream) -> Iterator[av.Packet]:
        for packet in self._read():
            packet.stream = output
            yield packet

    def _encoded(self, encoder: av.AudioStream) -> Iterator[av.Packet]:
        for packet in self._read():
            try:
                frames = self._input.codec_context.decode(packet)
            except av.FFmpegError as error:
                logger.debug("%s: a packet of sound does not decode: %s", source_name(self._source.name), error)
                continue
            for frame in frames:
                if frame.pts is not None and frame.pts >= 0:
                    yield from encoder.encode(frame)
        yield from encoder.encode(None)
