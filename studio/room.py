"""One session on the server: open or closed, who uses it, what was found in it, what runs in it, and who listens."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import av

from grounded_sam2.session import Session, open_session
from grounded_sam2.video import IndexedFrameSource, open_indexed_frames
from studio.cuts import read_cuts
from studio.describe import Json, objects_json, search_json, unfinished_json
from studio.errors import ConflictError, NotFoundError
from studio.events import Hub
from studio.found import Found
from studio.jobs import Job
from studio.limits import LimitError, Limits
from studio.models import Models
from studio.results import kept_results, results_json
from studio.turns import PERSON, BusyError, Turns

__all__ = ["Room"]

PERSONS = "persons"
TURN_SHARE = 0.8  # of the time of a request, that a turn is waited for
MOST_OLD_JOBS = 10
MOST_FINDS = 8  # looks whose finds can still be accepted
SESSION_NAME = "session"
OWNER_NAME = "owner.json"


class Room:
    """A session with its token. Reads and commands go through `use`, one at a time.

    Args:
        folder: of the token; the session is in it, and all that belongs to it.
        models: of the server.
        limits: of the server.
        look_ahead: is told which frame of a session a page shows.
        ask_for_cuts: is told of a session whose scene cuts nobody looked for.

    Attributes:
        token: names the session, and lets whoever has it in.
        owner: the user who made it; None where nobody logs in.
        hub: the pages that listen.
        jobs: by id, the oldest first.
        finds: key → what was found and may be accepted.
        is_gone: it was removed.
    """

    def __init__(
        self,
        folder: Path,
        models: Models,
        limits: Limits,
        look_ahead: Callable[[Room, int], None],
        ask_for_cuts: Callable[[Room], None],
    ) -> None:
        self.folder = folder
        self.token = folder.name
        self.models = models
        self.limits = limits
        self._look_ahead = look_ahead
        self._ask_for_cuts = ask_for_cuts
        made = json.loads((folder / OWNER_NAME).read_text(encoding="utf-8"))
        self.owner: str | None = made["user"]
        self._note = None if made["is_sample"] else models.note  # samples are what the bundled models are made for
        self.hub = Hub()
        self.jobs: dict[str, Job] = kept_results(folder)
        self.finds: OrderedDict[str, Found] = OrderedDict()
        self.is_gone = False
        self.last_used = time.monotonic()
        self._turns = Turns()
        self._session: Session | None = None
        self._shown: IndexedFrameSource | None = None  # frames for the page, with a decoder of their own
        self._has_sound = False
        self._version = 0
        self._num_waiting = 0
        self._count_lock = threading.Lock()

    # ---- using it ----

    @contextmanager
    def use(
        self, *, with_model: bool = False, urgency: int = PERSON, who: str = PERSONS, timeout: float | None = None
    ) -> Iterator[Session]:
        """Have the session for the length of a block, opened again where it was closed. Not to be entered again within.

        Args:
            with_model: have a turn on the models too.
            urgency: see `Turns.turn`.
            who: shares the session: persons, or a job by its id.
            timeout: seconds to wait; None: the limit of a request.

        Raises:
            BusyError: it took too long, or too many wait.
            NotFoundError: the session was removed.
            OSError, ValueError: it cannot be opened.
        """
        timeout = TURN_SHARE * self.limits.request_seconds if timeout is None else timeout
        with self._counted() if urgency == PERSON and who == PERSONS else nullcontext(), ExitStack() as stack:
            if with_model:  # the model first: who waits for it keeps nobody from reading the session
                stack.enter_context(self.models.turns.turn(self.token, urgency, timeout))
            stack.enter_context(self._turns.turn(who, urgency, timeout))
            yield self._opened()

    def shown_frames(self) -> IndexedFrameSource:
        """The frames for the page, which may be read by any thread at any time."""
        shown = self._shown
        if shown is None:
            with self.use() as session:
                shown = self._shown = self._shown or open_indexed_frames(session.source, float(session.frames.fps))
        self.last_used = time.monotonic()
        return shown

    def look_at(self, frame_idx: int) -> None:
        """Note that a page shows a frame: it is encoded when nobody needs the model."""
        self._look_ahead(self, frame_idx)

    def cuts(self) -> list[int]:
        """The frames that begin a new scene, as far as anybody looked."""
        return read_cuts(self.folder) or []

    def state(self, session: Session) -> Json:
        """What the page shows of the session; to be called within `use`."""
        undone, done = session.history.undone, session.history.done
        return {
            "token": self.token,
            "name": session.name,
            "num_frames": session.num_frames,
            "width": session.size[0],
            "height": session.size[1],
            "fps": float(session.frames.fps),
            "version": self._version,
            "objects": objects_json(session),
            "search": search_json(session),
            "undo": done[-1].kind if done else None,
            "redo": undone[-1].kind if undone else None,
            "unfinished": None if self.changing_job() else unfinished_json(session),
            "jobs": [job.to_json() for job in self.all_jobs()],
            "detectors": self.models.detector_names,
            "has_sound": self._has_sound,
            "results": results_json(),
            "note": self._note,
        }

    def note_change(self, session: Session, touched: list[list[int]]) -> Json:
        """Give the state a new version, and tell all pages; returns the state."""
        self._version = max(self._version + 1, time.time_ns() // 1_000_000)
        state = self.state(session)
        self.hub.publish({"event": "state", "state": state, "touched": touched})
        return state

    # ---- what was found, what runs ----

    def keep_find(self, found: Found) -> str:
        """Keep what was found until it is accepted; returns its key."""
        key = secrets.token_hex(4)
        self.finds[key] = found
        while len(self.finds) > MOST_FINDS:
            self.finds.popitem(last=False)
        return key

    def found(self, key: str) -> Found:
        """What was found; ConflictError where it is not kept any more."""
        if key not in self.finds:
            raise ConflictError("What was found there is not kept any more: look again, then accept.")
        return self.finds[key]

    def all_jobs(self) -> list[Job]:
        """The jobs, the oldest first, as they are at this moment: other threads add and drop some."""
        return list(self.jobs.values())

    def add_job(self, job: Job) -> None:
        """Take in a job that begins, and forget old ones that left nothing but their end."""
        over = [old for old in self.all_jobs() if old.is_over and old.path is None]
        for old in over[: max(0, len(over) + 1 - MOST_OLD_JOBS)]:
            self.jobs.pop(old.id, None)
        self.jobs[job.id] = job

    def changing_job(self) -> Job | None:
        """The job that changes masks just now; None for none."""
        return next((job for job in self.all_jobs() if job.is_changing and not job.is_over), None)

    def refuse_while_changing(self) -> None:
        """ConflictError while a job changes masks."""
        job = self.changing_job()
        if job is not None:
            raise ConflictError(f"{job.label} is running: stop it, which keeps what is done, or wait for its end.")

    def check_results(self) -> None:
        """LimitError where too many results are being made."""
        making = [job for job in self.all_jobs() if job.kind == "result" and not job.is_over]
        if len(making) >= self.limits.results:
            raise LimitError(f"{len(making)} results of this session are being made: wait for one of them.")

    # ---- opening and closing ----

    def is_busy(self) -> bool:
        return self._num_waiting > 0 or any(not job.is_over for job in self.all_jobs())

    def is_open(self) -> bool:
        return self._session is not None

    def close(self, timeout: float | None = None) -> None:
        """Let the session leave memory until the next request. Waits for who uses it, or raises BusyError."""
        with self._turns.turn("closing", timeout=timeout):
            self._close()

    def end(self, then: Callable[[], None]) -> None:
        """Close the session for good and do something when nobody uses it any more; NotFoundError where it is gone."""
        for job in self.all_jobs():
            job.cancel()
        for job in self.all_jobs():
            job.join()
        with self._turns.turn("closing"):
            if self.is_gone:  # two removed it at a time
                raise NotFoundError("This session was removed.")
            self.is_gone = True
            self._close()
            then()
        self.hub.end()

    def _opened(self) -> Session:
        if self.is_gone:
            raise NotFoundError("This session was removed.")
        self.last_used = time.monotonic()
        if self._session is None:
            self._session = open_session(self.folder / SESSION_NAME, self.models.follower)
            self._has_sound = _has_sound(self._session.source)
            self._version = time.time_ns() // 1_000_000
            if read_cuts(self.folder) is None:
                self._ask_for_cuts(self)
        return self._session

    def _close(self) -> None:
        if self._session is not None:
            self._session.close()
        if self._shown is not None:
            self._shown.close()
        self._session = self._shown = None

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._count_lock:
            if self._num_waiting >= self.limits.waiting_requests:
                raise BusyError("Too many requests of this session wait already: wait for their answers.")
            self._num_waiting += 1
        try:
            yield
        finally:
            with self._count_lock:
                self._num_waiting -= 1


def _has_sound(path: Path) -> bool:
    if path.is_dir():
        return False
    try:
        with av.open(f"file:{path}") as container:
            return len(container.streams.audio) > 0
    except (av.FFmpegError, OSError, ValueError):
        return False
