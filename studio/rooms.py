"""All sessions of the server: a folder for each, of which those in use are in memory."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
import threading
import time
from pathlib import Path

from grounded_sam2.session import create_session
from studio.ahead import Ahead
from studio.errors import NotFoundError
from studio.limits import LimitError, Limits
from studio.models import Models
from studio.room import OWNER_NAME, SESSION_NAME, Room

__all__ = ["Rooms"]

logger = logging.getLogger(__name__)

TOKEN = re.compile(r"[A-Za-z0-9_-]{22,64}")
JANITOR_SECONDS = 5.0  # from one look for idle sessions to the next


class Rooms:
    """The sessions in a folder; a token is the name of a folder in it, and nothing else is ever looked at.

    Args:
        folder: gets a folder for each session; is made.
        models: of the server.
        limits: of the server.
    """

    def __init__(self, folder: Path, models: Models, limits: Limits) -> None:
        self.folder = folder
        self.models = models
        self.limits = limits
        self.ahead = Ahead()
        self._rooms: dict[str, Room] = {}
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def create(self, source: Path, name: str, fps: float = 30.0, user: str | None = None) -> Room:
        """Make a session of a video, which is copied.

        Raises:
            LimitError: too many sessions, or too much disk.
            ValueError, OSError: as `create_session`.
        """
        self._check_room_for_one(user)
        token = secrets.token_urlsafe(24)
        partial = self.folder / f".{token}"  # no token begins with a dot: it is there as a whole or not at all
        partial.mkdir()
        try:
            create_session(partial / SESSION_NAME, source, name=name, fps=fps, limits=self.limits.source).close()
            owner = {"user": user, "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
            (partial / OWNER_NAME).write_text(json.dumps(owner), encoding="utf-8")
            os.rename(partial, self.folder / token)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return self.get(token, user)

    def get(self, token: str, user: str | None = None) -> Room:
        """The session of a token, for its owner; NotFoundError for anything else."""
        if TOKEN.fullmatch(token) is None:
            raise NotFoundError("There is no such session.")
        with self._lock:
            room = self._rooms.get(token)
            if room is None:
                folder = self.folder / token
                if not (folder / OWNER_NAME).is_file():
                    raise NotFoundError("There is no such session.")
                room = self._rooms[token] = Room(folder, self.models, self.limits, self.ahead)
        if user is not None and room.owner not in (None, user):
            raise NotFoundError("There is no such session.")
        return room

    def remove(self, room: Room) -> None:
        """Remove a session and all its files."""
        room.end(lambda: self._remove_folder(room))
        with self._lock:
            self._rooms.pop(room.token, None)

    def _remove_folder(self, room: Room) -> None:
        gone = self.folder / f".{room.token}"
        os.rename(room.folder, gone)  # at once, whatever the rest takes
        shutil.rmtree(gone, ignore_errors=True)

    def close_idle(self) -> None:
        """Close sessions that nobody asked for lately, and those that are too many."""
        with self._lock:
            open_rooms = sorted(
                (room for room in self._rooms.values() if room.is_open()), key=lambda room: room.last_used
            )
        too_many = len(open_rooms) - self.limits.open_sessions
        for position, room in enumerate(open_rooms):
            is_idle = time.monotonic() - room.last_used > self.limits.idle_seconds
            if (is_idle or position < too_many) and not room.is_busy():
                room.close()

    def run_janitor(self, stop: threading.Event) -> None:
        """Close idle sessions until `stop` is set; for a thread of its own."""
        while not stop.wait(JANITOR_SECONDS):
            try:
                self.close_idle()
            except Exception:
                logger.exception("closing idle sessions failed")

    def close(self) -> None:
        """End all jobs, which keep what is done, and close all sessions."""
        with self._lock:
            rooms = list(self._rooms.values())
        for room in rooms:
            room.hub.end()
            for job in room.jobs.values():
                job.cancel()
        for room in rooms:
            for job in room.jobs.values():
                job.join(30.0)
            room.close()

    def _check_room_for_one(self, user: str | None) -> None:
        folders = [path for path in self.folder.iterdir() if (path / OWNER_NAME).is_file()]
        if len(folders) >= self.limits.sessions:
            raise LimitError(f"This server keeps at most {self.limits.sessions} sessions: one has to be removed first.")
        own = [path for path in folders if json.loads((path / OWNER_NAME).read_text("utf-8"))["user"] == user]
        if len(own) >= self.limits.sessions_per_user:
            most = self.limits.sessions_per_user
            raise LimitError(f"You have {len(own)} sessions, at most {most} are kept: remove one that is not needed.")
        used = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        if used > self.limits.disk_bytes:
            most = self.limits.disk_bytes // 2**20
            raise LimitError(f"The sessions of this server take all of their {most} MiB: remove one first.")
