"""The jobs of a session: tracking, finding while tracking, and results. Each is started by what the page sends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from grounded_sam2.session import Progress, Session, gap_around, propagate, resume
from studio.commands import text, whole, whole_list
from studio.errors import ConflictError
from studio.jobs import CancelledError, Job
from studio.room import Room
from studio.turns import FRAME

__all__ = ["start_job"]

LONGEST_WAIT = 24 * 3600.0  # seconds that a job waits for a turn


def start_job(room: Room, args: Mapping[str, Any]) -> Job:
    """Start a job: {"kind": "propagate", "first": 0, …}; see the page's contract in `routes`.

    Raises:
        ValueError: no such kind, or arguments that it does not take.
        ConflictError: another job changes the session.
        BusyError, NotFoundError, OSError: see `Room.use`.
    """
    given = {name: value for name, value in args.items() if name != "kind" and value is not None}
    kind = args.get("kind")
    if kind not in KINDS:
        raise ValueError(f"expected a kind of job of {', '.join(KINDS)}, got {kind!r}")
    known, start = KINDS[kind]
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"{kind} takes {', '.join(known) or 'nothing'}, got {', '.join(map(repr, unknown))}")
    return start(room, {name: known[name](name, value) for name, value in given.items()})


def _start_propagate(room: Room, args: dict[str, Any]) -> Job:
    with room.use() as session:
        room.refuse_while_changing()
        first, last, ids = args.get("first", 0), args.get("last"), args.get("ids")
        if (frame_idx := args.get("until_barrier_from")) is not None:
            if ids is None or len(ids) != 1:
                raise ValueError("until_barrier_from needs the one object in ids")
            session.object(ids[0])
            first, last = gap_around(session, ids[0], session.check_frame(frame_idx))
        steps = propagate(session, first, last, args.get("direction", "both"), ids)
        last = session.num_frames - 1 if last is None else last
        job = Job("propagate", f"Tracking frames {first} to {last}", is_changing=True)
        return _start_tracking(room, session, job, steps)


def _start_resume(room: Room, args: dict[str, Any]) -> Job:
    with room.use() as session:
        room.refuse_while_changing()
        if session.unfinished is None:
            raise ConflictError("No tracking was interrupted, or something was changed since: track again.")
        span = session.unfinished.args
        job = Job("resume", f"Tracking frames {span['first']} to {span['last']}", is_changing=True)
        return _start_tracking(room, session, job, resume(session))


def _start_tracking(room: Room, session: Session, job: Job, steps: Iterator[Progress]) -> Job:
    """Run a propagation that was begun, a turn for each frame."""
    room.jobs[job.id] = job
    ids = session.unfinished.args["obj_ids"] if session.unfinished else []
    touched: dict[int, list[int]] = {}

    def work(job: Job) -> None:
        try:
            while True:
                job.check()
                with room.use(with_model=True, urgency=FRAME, who=job.id, timeout=LONGEST_WAIT):
                    progress = next(steps, None)
                if progress is None:
                    return
                job.done, job.total, job.frame = progress.num_done, progress.num_total, progress.frame_idx
                for obj_id in progress.obj_ids:
                    span = touched.setdefault(obj_id, [obj_id, progress.frame_idx, progress.frame_idx])
                    span[1:] = [min(span[1], progress.frame_idx), max(span[2], progress.frame_idx)]
                room.hub.publish(
                    {"event": "progress", "job": job.to_json(), "frame": progress.frame_idx, "ids": progress.obj_ids}
                )
        finally:
            steps.close()  # type: ignore[attr-defined]

    _start(room, job, work, lambda: list(touched.values()) or [[obj_id, 0, 0] for obj_id in ids])
    return job


def _start(room: Room, job: Job, work: Callable[[Job], None], touched: Callable[[], list[list[int]]]) -> None:
    """Start a job that changes the session, and tell the pages when it begins and ends."""

    def tell(job: Job) -> None:
        room.hub.publish({"event": "job", "job": job.to_json()})
        if job.is_over:
            with room.use(who=job.id, timeout=LONGEST_WAIT) as session:
                room.note_change(session, touched())

    job.start(work, tell, room.folder)


def _direction(name: str, value: Any) -> str:
    if value not in ("forward", "backward", "both"):
        raise ValueError(f"{name}: expected forward, backward or both, got {value!r}")
    return str(value)


# kind → its arguments with their checks, and what starts it
KINDS: dict[str, tuple[dict[str, Callable[[str, Any], Any]], Callable[[Room, dict[str, Any]], Job]]] = {
    "propagate": (
        {"first": whole, "last": whole, "direction": _direction, "ids": whole_list, "until_barrier_from": whole},
        _start_propagate,
    ),
    "resume": ({}, _start_resume),
}
