"""All sessions of the server: a folder for each, of which those in use are in memory."""

from __future__ import annotations

import contextlib
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
from studio.background import Ahead, CutFinder
from studio.errors import NotFoundError
from studio.limits import LimitError, Limits
from studio.models import Models
from studio.room import OWNER_NAME, SESSION_NAME, Room
from studio.turns import BusyError

__all__ = ["Rooms"]

logger = logging.getLogger(__name__)

TOKEN = re.compile(r"[A-Za-z0-9_-]{22,64}")


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
        self.cut_finder = CutFinder()
        self._rooms: dict[str, Room] = {}
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        for rest in folder.glob(".*"):  # of sessions that were being made or removed when the server was killed
            if TOKEN.fullmatch(rest.name[1:]) is not None:
                shutil.rmtree(rest, ignore_errors=True)

    def create(
        self, source: Path, name: str, fps: float = 30.0, user: str | None = None, *, is_sample: bool = False
    ) -> Room:
        """Make a session of a video, which is copied.

        Args:
            source: a video file, an image or a zip of images.
            name: of it, for people.
            fps: frames per second of images.
            user: who makes it.
            is_sample: it is bundled; others are opened first where they can do no harm, see `sam2.frames.first_look`.

        Raises:
            LimitError: too many sessions, or too much disk.
            ValueError, OSError: as `create_session`.
        """
        self._check_room_for_one(user)
        token = secrets.token_urlsafe(24)
        partial = self.folder / f".{token}"  # no token begins with a dot: it is there as a whole or not at all
        partial.mkdir()
        try:
            limits = self.limits.source if is_sample else self.limits.source_of_strangers
            create_session(partial / SESSION_NAME, source, name=name, fps=fps, limits=limits).close()
            owner = {
                "user": user,
                "is_sample": is_sample,
                "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
            (partial / OWNER_NAME).write_text(json.dumps(owner), encoding="utf-8")
            os.rename(partial, self.folder / token)
        except ValueError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise ValueError(str(error).replace(str(source), name).replace(source.name, name)) from error
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
                room = self._rooms[token] = Room(folder, self.models, self.limits, self.ahead.wish, self.cut_finder.ask)
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

    def close(self) -> None:
        """End all jobs, which keep what is done, and close all sessions."""
        with self._lock:
            rooms = list(self._rooms.values())
        for room in rooms:
            room.hub.end()
            for job in room.all_jobs():
                job.cancel()
        for room in rooms:
            for job in room.all_jobs():
                job.join(30.0)
            try:
                room.close(30.0)
            except BusyError:
                logger.warning("a session is still in use as the server ends")

    def _check_room_for_one(self, user: str | None) -> None:
        owners = []
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # no session, or one that just goes
                owners.append(json.loads((path / OWNER_NAME).read_text("utf-8"))["user"])
        if len(owners) >= self.limits.sessions:
            raise LimitError(f"This server keeps at most {self.limits.sessions} sessions: one has to be removed first.")
        if (num_own := owners.count(user)) >= self.limits.sessions_per_user:
            most = self.limits.sessions_per_user
            raise LimitError(f"You have {num_own} sessions, at most {most} are kept: remove one that is not needed.")
        self.check_disk()

    def check_disk(self) -> None:
        """LimitError where sessions, results and uploads take all of the disk that they may."""
        if bytes_in(self.folder) > self.limits.disk_bytes:
            most = self.limits.disk_bytes // 2**20
            raise LimitError(f"The sessions of this server take all of their {most} MiB: remove some first.")


def bytes_in(folder: Path) -> int:
    """How many bytes the files of a folder have, those in folders in it too."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # gone meanwhile
                total += os.lstat(os.path.join(place, name)).st_size
    return total
