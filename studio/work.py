"""The jobs of a session: tracking, finding while tracking, and results. Each is started by what the page sends.

    {"kind": "propagate", "first", "last", "direction": "forward" | "backward" | "both", "ids", "until_barrier_from"}
    {"kind": "resume"}
    {"kind": "follow_and_find", "every", "first", "last", "detector"}
    {"kind": "result", "result": a kind of `RESULTS`, "ids", "everything_else", "options": {"strength", "margin", …}}

All arguments but `result` may be left out. `until_barrier_from` is a frame: the span is what a correction of the one
object in `ids` on that frame concerns. One job at a time changes a session, and while it runs no command does; results
are made beside it. A cancelled job keeps what it did.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from threading import Semaphore
from typing import Any

from grounded_sam2.session import Finding, Progress, follow_and_find, gap_around, propagate, resume
from grounded_sam2.session.deliver import RESULTS, snapshot
from studio.checks import check_args, one_of, options_of, text, whole, whole_list, yes_or_no
from studio.errors import ConflictError
from studio.jobs import Job
from studio.results import RESULTS_NAME, SNAPSHOT_NAME, drop_old_results, make_file
from studio.room import Room
from studio.turns import FRAME

__all__ = ["start_job"]

LONGEST_WAIT = 24 * 3600.0  # seconds that a job waits for a turn
DEFAULT_EVERY = 10
AT_A_TIME = Semaphore(2)  # results that are made at a time in all; the others wait

Steps = Generator[Progress, None, None]
Touched = dict[int, list[int]]


def start_job(room: Room, args: Mapping[str, Any]) -> Job:
    """Start a job, see the module.

    Raises:
        ValueError: no such kind, or arguments that it does not take.
        ConflictError: another job changes the session.
        BusyError, LimitError, NotFoundError, OSError: see `Room.use`.
    """
    given = {name: value for name, value in args.items() if name != "kind"}
    kind = one_of(KINDS)("kind", args.get("kind"))
    known, required, start = KINDS[kind]
    return start(room, check_args(kind, given, known, required))


def _start_propagate(room: Room, args: dict[str, Any]) -> Job:
    with room.use() as session:
        room.refuse_while_changing()
        first, last, ids = args.get("first", 0), args.get("last", session.num_frames - 1), args.get("ids")
        frame_idx = args.get("until_barrier_from")
        if frame_idx is not None:
            if ids is None or len(ids) != 1:
                raise ValueError("until_barrier_from needs the one object in ids")
            session.object(ids[0])
            first, last = gap_around(session, ids[0], session.check_frame(frame_idx))
        steps = propagate(session, first, last, args.get("direction", "both"), ids)
        return _start_tracking(room, Job("propagate", f"Tracking frames {first} to {last}", True), steps)


def _start_resume(room: Room, args: dict[str, Any]) -> Job:
    with room.use() as session:
        room.refuse_while_changing()
        if session.unfinished is None:
            raise ConflictError("No tracking was interrupted, or something was changed since: track again.")
        span = session.unfinished.args
        job = Job("resume", f"Tracking frames {span['first']} to {span['last']}", True)
        return _start_tracking(room, job, resume(session))


def _start_follow_and_find(room: Room, args: dict[str, Any]) -> Job:
    detector_name = room.models.check_detector(args.get("detector"))
    with room.use(with_model=True) as session:
        room.refuse_while_changing()
        first, last = args.get("first", 0), args.get("last", session.num_frames - 1)
        detector = room.models.detector(detector_name)
        steps = follow_and_find(session, detector, args.get("every", DEFAULT_EVERY), first, last)
        return _start_tracking(room, Job("follow_and_find", f"Finding in frames {first} to {last}", True), steps)


def _start_tracking(room: Room, job: Job, steps: Any) -> Job:
    """Run what tracks in a thread, with a turn for each frame; to be called within `Room.use`."""
    touched: Touched = {}

    def work(job: Job) -> None:
        try:
            while _step(room, job, steps, touched):
                job.check()
        finally:
            with room.use(who=job.id, timeout=LONGEST_WAIT):
                steps.close()

    def tell(job: Job) -> None:
        room.hub.publish({"event": "job", "job": job.to_json()})
        if job.is_over:
            with room.use(who=job.id, timeout=LONGEST_WAIT) as session:
                room.note_change(session, list(touched.values()))

    room.add_job(job)
    job.start(work, tell, room.folder)
    return job


def _step(room: Room, job: Job, steps: Steps, touched: Touched) -> bool:
    """Do one frame of work and tell the pages; False at the end."""
    with room.use(with_model=True, urgency=FRAME, who=job.id, timeout=LONGEST_WAIT) as session:
        progress = next(steps, None)
        if progress is None:
            return False
        job.done, job.total, job.frame = progress.num_done, progress.num_total, progress.frame_idx
        for obj_id in progress.obj_ids:
            span = touched.setdefault(obj_id, [obj_id, progress.frame_idx, progress.frame_idx])
            span[1:] = [min(span[1], progress.frame_idx), max(span[2], progress.frame_idx)]
        if isinstance(progress, Finding) and progress.new_ids:
            room.note_change(session, [[obj_id, progress.frame_idx, progress.frame_idx] for obj_id in progress.new_ids])
    room.hub.publish({"event": "progress", "job": job.to_json(), "frame": progress.frame_idx, "ids": progress.obj_ids})
    return True


def _start_result(room: Room, args: dict[str, Any]) -> Job:
    kind = args["result"]
    chosen = {**args.get("options", {}), "everything_else": args.get("everything_else", False)}
    chosen["obj_ids"] = args.get("ids")
    room.check_results()
    job = Job("result", RESULTS[kind].label, False)
    folder = room.folder / RESULTS_NAME / job.id

    def work(job: Job) -> None:
        while not AT_A_TIME.acquire(timeout=0.5):
            job.check()
        try:
            with room.use(who=job.id, timeout=LONGEST_WAIT) as session:
                taken = snapshot(session, folder / SNAPSHOT_NAME)
            with closing(make_file(job, taken, kind, folder, chosen)) as steps:  # type: ignore[type-var]
                for _ in steps:
                    job.check()
                    room.hub.publish({"event": "job", "job": job.to_json()})
        finally:
            AT_A_TIME.release()

    def tell(job: Job) -> None:
        if job.is_over:
            drop_old_results(room.folder, room.jobs, room.limits.results)
        room.hub.publish({"event": "job", "job": job.to_json()})

    room.add_job(job)
    job.start(work, tell, room.folder)
    return job


Starter = Callable[[Room, dict[str, Any]], Job]
SPAN = {"first": whole, "last": whole}
# kind → its arguments with their checks, those that it needs, and what starts it
KINDS: dict[str, tuple[dict[str, Callable[[str, Any], Any]], list[str], Starter]] = {
    "propagate": (
        {
            **SPAN,
            "direction": one_of(["forward", "backward", "both"]),
            "ids": whole_list,
            "until_barrier_from": whole,
        },
        [],
        _start_propagate,
    ),
    "resume": ({}, [], _start_resume),
    "follow_and_find": ({"every": whole, **SPAN, "detector": text}, [], _start_follow_and_find),
    "result": (
        {"result": one_of(RESULTS), "ids": whole_list, "everything_else": yes_or_no, "options": options_of},
        ["result"],
        _start_result,
    ),
}
