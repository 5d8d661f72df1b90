"""Video files: an exact count, any frame by its index, lazily decoded."""

from __future__ import annotations

import logging
import os
import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import islice, pairwise

import av

from sam2.after_fork import leave_behind, watch
from sam2.cores import usable_cores
from sam2.frames.decoding import (
    DamagedVideoError,
    decoded,
    open_container,
    orientation_of,
    packets_of,
    stream_fps,
    upright_rgb,
    video_stream,
)
from sam2.frames.frame_source import IndexedFrameSource, prefetched
from sam2.frames.still_image import RGBImage
from sam2.shown import source_name

__all__ = ["VideoFile"]

logger = logging.getLogger(__name__)

CACHE_BYTES = 64 * 2**20
MAX_CACHED_FRAMES = 32
DECODER_THREADS = usable_cores()  # for videos that are not damaged
# Containers that state when each packet is shown; of others FFmpeg guesses it, for H.264 with B-frames in AVI wrongly.
STATING_TIMES = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mpegts", "flv"})
HEAD_FRAMES = 16  # decoded to check such a guess; no codec reorders over more

# One packet shows exactly one frame in these codecs, so that listing the packets counts the frames.
ONE_FRAME_PER_PACKET = frozenset({"av1", "h264", "hevc", "libdav1d", "mjpeg", "mpeg4", "png", "prores", "vp9"})


@dataclass(frozen=True)
class _FrameIndex:
    """Where the frames of a video file are.

    Attributes:
        count: number of frames.
        times: presentation time of each frame in units of the stream, strictly increasing; None where the file
            does not give usable times, and frames can only be counted from its start.
        keyframes: (presentation time, time to seek to) of each packet that decoding can start at, in order.
        is_damaged: whether the file was found to be damaged when the frames were listed.
    """

    count: int
    times: list[int] | None
    keyframes: list[tuple[int, int]]
    is_damaged: bool = False

    def keyframe_before(self, frame_idx: int) -> tuple[int, int] | None:
        """The last key frame shown at or before a frame; None when decoding must start at the beginning."""
        if self.times is None:
            return None
        # Also right for open groups of pictures: frames shown before their key frame belong to the one before it.
        position = bisect_right(self.keyframes, self.times[frame_idx], key=lambda keyframe: keyframe[0]) - 1
        return self.keyframes[position] if position > 0 else None

    def first_of_group(self, frame_idx: int) -> int:
        """Index of the frame at which decoding starts in order to reach `frame_idx`."""
        keyframe = self.keyframe_before(frame_idx)
        return 0 if keyframe is None or self.times is None else bisect_left(self.times, keyframe[0])


class VideoFile(IndexedFrameSource):
    """A video file, decoded lazily: frame `i` is the i-th frame shown, also with B-frames and variable frame rate.

    The count is exact. It comes from listing the packets, which reads the file once without decoding (about 0.1 ms
    a frame), when first needed; where packets do not tell (a damaged file, an unusual codec, AVI or raw H.264 with
    B-frames) the file is decoded once. A truncated file has the frames that still decode. A frame that is lost in the
    middle repeats the one before it, as players do, so that the indices of later frames keep their time. Both are
    logged as warnings. A damaged file has the same frames on every machine: damage is concealed by one thread, which
    decodes from the beginning.

    Cost: iteration decodes each frame once, a few frames ahead in the background, each iterator with a decoder of
    its own. `source[i]` costs one decoded frame when read in order (also read ahead, from the second such access
    on), nothing when cached, and otherwise a seek plus decoding from the key frame before `i`. Reading backwards
    keeps the frames decoded on the way, up to 64 MiB. Thread-safe.

    Attributes:
        location: the path or URL as it was given; `name` is the same without user, password and token.
        time_base: seconds in which `times` counts.

    Raises:
        ValueError: not a video, or no frame in it decodes.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.location = os.fspath(path)
        self.name = source_name(self.location)
        with open_container(self.location) as container:
            first = next(decoded(container), None)
            if first is None:
                raise ValueError(f"{self.name} holds no frame that decodes: expected at least one, got 0")
            stream = video_stream(container)
            self.fps = stream_fps(stream)
            self.time_base = Fraction(stream.time_base or 1 / self.fps)
        self._coded_size = (first.width, first.height)
        self._orientation = orientation_of(first)
        self.height, self.width = self._to_rgb(first).shape[:2]

        self._lock = threading.Lock()
        capacity = CACHE_BYTES // (3 * self.width * self.height)
        self._cache_capacity = max(2, min(MAX_CACHED_FRAMES, capacity))
        self._cache: OrderedDict[int, RGBImage] = OrderedDict()
        self._cursor: Iterator[av.VideoFrame] | None = None  # yields frame self._cursor_idx next
        self._cursor_idx = 0
        self._cursor_is_prefetched = False
        self._last_idx = -1
        self._has_warned = False
        watch(self)

    def after_fork(self) -> None:
        """In a child process, go on with a decoder of its own."""
        leave_behind(self._lock, self._cursor)
        self._lock = threading.Lock()
        self._cursor = None
        self._cursor_is_prefetched = False

    def __len__(self) -> int:
        return self._index.count

    @property
    def times(self) -> Sequence[int] | None:
        """When each frame is shown, in units of `time_base`, strictly increasing; None where the file does not tell."""
        return self._index.times

    def __iter__(self) -> Iterator[RGBImage]:
        return prefetched(self._to_rgb(frame) for frame in self._frames_from(0))

    def __getitem__(self, frame_idx: int) -> RGBImage:
        position = self._checked_index(frame_idx)
        with self._lock:
            if position not in self._cache:
                self._fetch(position)
            self._cache.move_to_end(position)
            self._last_idx = position
            return self._cache[position].copy()

    def close(self) -> None:
        """Let go of the decoder and the cached frames; the source can still be used afterwards."""
        with self._lock:
            self._close_cursor()
            self._cache.clear()

    def _to_rgb(self, frame: av.VideoFrame) -> RGBImage:
        return upright_rgb(frame, self._coded_size, self._orientation)

    # -- random access --

    def _fetch(self, frame_idx: int) -> None:
        """Decode frame `frame_idx` into the cache, by the cheapest way from where the decoder stands."""
        is_backwards = 0 < self._last_idx - frame_idx <= self._cache_capacity
        keep_from = max(0, frame_idx - self._cache_capacity + 1) if is_backwards else frame_idx
        group_start = self._index.first_of_group(frame_idx)
        if self._cursor is None or not group_start <= self._cursor_idx <= keep_from:
            self._close_cursor()
            self._cursor = self._frames_from(keep_from)
            self._cursor_idx = keep_from
        elif frame_idx == self._last_idx + 1 and not self._cursor_is_prefetched:
            self._cursor = prefetched(self._cursor)
            self._cursor_is_prefetched = True
        try:
            self._read_cursor(self._cursor, frame_idx, keep_from)
        except BaseException:  # also Ctrl-C: a reader that was stopped midway cannot be gone on with
            self._close_cursor()
            raise
        while len(self._cache) > self._cache_capacity:
            self._cache.popitem(last=False)

    def _read_cursor(self, cursor: Iterator[av.VideoFrame], frame_idx: int, keep_from: int) -> None:
        """Read up to and with `frame_idx`; frames from `keep_from` on go into the cache."""
        while self._cursor_idx <= frame_idx:
            frame = next(cursor, None)
            if frame is None:
                raise RuntimeError(f"{self.name} changed while being read: call open_frames(...) again")
            if self._cursor_idx >= keep_from:
                self._cache[self._cursor_idx] = self._to_rgb(frame)
                self._cache.move_to_end(self._cursor_idx)
            self._cursor_idx += 1

    def _close_cursor(self) -> None:
        close = getattr(self._cursor, "close", None)
        if close is not None:
            close()
        self._cursor = None
        self._cursor_is_prefetched = False

    # -- sequential access --

    def _frames_from(self, start: int) -> Iterator[av.VideoFrame]:
        """Exactly the frames `start`, `start + 1`, ... of the index; a missing one repeats the frame before it."""
        index, position = self._index, start
        # Without times a frame that is silently lost could not be told.
        if index.times is not None or not index.is_damaged:
            try:
                for frame in self._intact_frames(start):
                    yield frame
                    position += 1
            except DamagedVideoError as error:
                logger.debug("%s: %s", self.name, error)
        if position < index.count:
            yield from self._concealed_frames(position)

    def _intact_frames(self, start: int) -> Iterator[av.VideoFrame]:
        """Frames from `start` on, decoded fast from the key frame before it, up to the first damage.

        Raises:
            DamagedVideoError: damage, or another frame came than the one the index promises.
        """
        times = self._index.times
        keyframe = self._index.keyframe_before(start)
        with closing(self._frames_since(keyframe, strict=True, num_threads=DECODER_THREADS)) as frames:
            if times is None:
                yield from islice(frames, start, self._index.count)
                return
            position = start
            for frame in frames:
                if frame.pts is not None and frame.pts < times[start]:
                    continue
                if frame.pts != times[position]:
                    raise DamagedVideoError(f"frame {position} is missing")
                yield frame
                position += 1
                if position == len(times):
                    return

    def _concealed_frames(self, start: int) -> Iterator[av.VideoFrame]:
        """Frames from `start` on, decoded from the beginning as far as they decode."""
        times = self._index.times
        with closing(self._frames_since(None)) as frames:
            if times is None:
                yield from islice(frames, start, None)
                return
            position = 0
            previous: av.VideoFrame | None = None
            for frame in frames:
                while position < len(times) and frame.pts is not None and frame.pts >= times[position]:
                    is_missing = frame.pts > times[position]
                    if position >= start:
                        if is_missing:
                            self._warn_of_gap(position)
                        yield previous if is_missing and previous is not None else frame
                    position += 1
                if position == len(times):
                    return
                previous = frame
            while position < len(times) and previous is not None:
                if position >= start:
                    self._warn_of_gap(position)
                    yield previous
                position += 1

    def _frames_since(
        self, keyframe: tuple[int, int] | None, strict: bool = False, num_threads: int = 1
    ) -> Generator[av.VideoFrame]:
        """Frames from a key frame, or from the beginning on, by a decoder of their own; see `decoded`."""
        with open_container(self.location, strict, num_threads) as container:
            if keyframe is None:
                yield from decoded(container, strict)
                return
            pts, seek_time = keyframe
            try:
                container.seek(seek_time, stream=video_stream(container))
            except av.FFmpegError as error:
                logger.debug("%s cannot seek: %s", self.name, error)
            yield from decoded(container, strict, from_pts=pts)

    def _warn_of_gap(self, frame_idx: int) -> None:
        level = logging.DEBUG if self._has_warned else logging.WARNING
        logger.log(level, "%s: frame %d is damaged; the frame before it is shown instead", self.name, frame_idx)
        self._has_warned = True

    # -- the index --

    @cached_property
    def _index(self) -> _FrameIndex:
        index = self._index_by_packets()
        return index if index is not None else self._index_by_decoding()

    def _index_by_packets(self) -> _FrameIndex | None:
        """Find the frames without decoding; None where the packets do not tell exactly."""
        times: list[int] = []
        keyframes: list[tuple[int, int]] = []
        num_packets = 0
        with open_container(self.location) as container:
            stream = video_stream(container)
            num_stated = stream.frames
            is_guess = container.format.name not in STATING_TIMES
            if stream.codec_context.name not in ONE_FRAME_PER_PACKET:
                return None
            try:
                for packet in packets_of(container):
                    if packet.pts is None or packet.is_corrupt or (num_packets == 0 and not packet.is_keyframe):
                        return None
                    num_packets += 1
                    if packet.is_keyframe:
                        keyframes.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
                    if not packet.is_discard:
                        times.append(packet.pts)
            except DamagedVideoError:
                return None
        times.sort()
        keyframes.sort()
        is_strict = all(a < b for a, b in pairwise(times))
        if not times or not is_strict or num_stated not in (0, num_packets):
            return None
        index = _FrameIndex(len(times), times, keyframes)
        if (num_stated != num_packets and not self._tail_decodes(index)) or (is_guess and not self._head_agrees(times)):
            return None
        return index

    def _head_agrees(self, times: list[int]) -> bool:
        """Whether the first frames have the times that their packets promise, as far as they are not damaged."""
        with closing(self._frames_since(None, strict=True)) as frames:
            try:
                return all(frame.pts == time for time, frame in zip(times[:HEAD_FRAMES], frames, strict=False))
            except DamagedVideoError:
                return True

    def _tail_decodes(self, index: _FrameIndex) -> bool:
        """Whether decoding from the last key frame gives the frames that the packets promise."""
        assert index.times is not None
        pts, _ = index.keyframes[-1]
        expected = index.times[bisect_left(index.times, pts) :]
        keyframe = index.keyframes[-1] if len(index.keyframes) > 1 else None
        return [frame.pts for frame in self._frames_since(keyframe) if (frame.pts or 0) >= pts] == expected

    def _index_by_decoding(self) -> _FrameIndex:
        """Find the frames by decoding the whole file, a damaged one twice."""
        with open_container(self.location) as container:
            num_stated = video_stream(container).frames
        is_damaged = False
        try:  # on one thread: with several, damage near the end is not always reported
            shown = [frame.pts for frame in self._frames_since(None, strict=True)]
        except DamagedVideoError:
            is_damaged = True
            shown = [frame.pts for frame in self._frames_since(None)]
        if is_damaged and len(shown) < num_stated:
            logger.warning("%s is damaged: %d of %d frames decode", self.name, len(shown), num_stated)
        times = [time for time in shown if time is not None]
        has_times = len(times) == len(shown) and all(a < b for a, b in pairwise(times))
        if not has_times:
            return _FrameIndex(len(shown), None, [], is_damaged)
        return _FrameIndex(len(shown), times, self._keyframes_among(set(times)), is_damaged)

    def _keyframes_among(self, times: set[int]) -> list[tuple[int, int]]:
        """Key frames that are themselves shown."""
        keyframes = []
        with open_container(self.location) as container:
            try:
                for packet in packets_of(container):
                    if packet.is_keyframe and packet.pts in times:
                        keyframes.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
            except DamagedVideoError as error:
                logger.debug("%s: %s", self.name, error)
        return sorted(keyframes)
