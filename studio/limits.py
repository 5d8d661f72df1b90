"""What the server lets its users have; more is refused with one clear sentence."""

from __future__ import annotations

from dataclasses import dataclass, replace

from grounded_sam2.session import SourceLimits

__all__ = ["LimitError", "Limits"]


class LimitError(Exception):
    """More was asked for than the limits allow; the message says so to a person."""


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Attributes:
        upload_bytes: of an uploaded file, and of the images of a zip together, unpacked.
        frames: of a video.
        side: width and height of its frames in pixels.
        sessions_per_user: that are kept; of one address where there is no login.
        sessions: that are kept in all.
        disk_bytes: of all sessions and results together.
        request_seconds: that a request waits for its answer.
        waiting_requests: of one session at a time.
        open_sessions: in memory; the others come back from disk when they are asked for.
        idle_seconds: after which a session that nobody asks for leaves memory.
        results: that are kept of one session; older ones go.
        look_seconds: that the first look at an uploaded file may take.
        look_bytes: of memory that it may take.
    """

    upload_bytes: int = 4 * 2**30
    frames: int = 100_000
    side: int = 4096
    sessions_per_user: int = 50
    sessions: int = 200
    disk_bytes: int = 100 * 2**30
    request_seconds: float = 120.0
    waiting_requests: int = 16
    open_sessions: int = 16
    idle_seconds: float = 900.0
    results: int = 10
    look_seconds: float = 60.0
    look_bytes: int = 4 * 2**30

    @property
    def source(self) -> SourceLimits:
        """What a session's video may have."""
        return SourceLimits(max_bytes=self.upload_bytes, max_frames=self.frames, max_side=self.side)

    @property
    def source_of_strangers(self) -> SourceLimits:
        """The same, for what is opened in a process of its own first."""
        return replace(self.source, look_seconds=self.look_seconds, look_bytes=self.look_bytes)
