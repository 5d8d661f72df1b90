"""The files that people take away: each made by a job beside the work on the session, the last few of them kept."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grounded_sam2.session.deliver import RESULTS, make_result, result_path, snapshot
from studio.jobs import Job

if TYPE_CHECKING:
    from studio.room import Room

__all__ = ["drop_old_results", "kept_results", "make_result_of", "results_json"]

RESULTS_NAME = "results"
JOB_NAME = "job.json"
TELL_SECONDS = 0.1  # from one word of progress to the next


def results_json() -> list[dict[str, Any]]:
    """What there is to make, for the page."""
    return [
        {"kind": kind, "label": result.label, "takes_objects": result.takes_objects, "hint": result.hint}
        for kind, result in RESULTS.items()
    ]


def make_result_of(room: Room, job: Job, kind: str, chosen: dict[str, Any], timeout: float) -> None:
    """Do the work of a result's job: take a snapshot of the session, and make the file of it.

    Args:
        room: of the session; it is used for a moment only.
        job: is told how much is done, and may end it.
        kind: a key of `RESULTS`.
        chosen: as `make_result` takes it by name.
        timeout: seconds to wait for the session.

    Raises:
        CancelledError: the job was cancelled; nothing is left.
        ValueError, OSError: as `make_result`.
    """
    folder = room.folder / RESULTS_NAME / job.id
    try:
        with room.use(who=job.id, timeout=timeout) as session:
            taken = snapshot(session, folder / "snapshot")
        with contextlib.closing(make_result(taken, kind, folder / "made", **chosen)) as steps:  # type: ignore[type-var]
            told = 0.0
            for job.done, job.total in steps:
                job.check()
                if time.monotonic() - told >= TELL_SECONDS:
                    told = time.monotonic()
                    room.hub.publish({"event": "job", "job": job.to_json()})
        shutil.rmtree(folder / "snapshot", ignore_errors=True)
        job.path = result_path(taken, kind, folder / "made")
        entry = {"id": job.id, "label": job.label, "file": job.path.name, "total": job.total}
        (folder / JOB_NAME).write_text(json.dumps(entry), encoding="utf-8")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def kept_results(folder: Path) -> dict[str, Job]:
    """The jobs of the results that are kept in a session's folder, the oldest first; what is not whole goes."""
    jobs: dict[str, Job] = {}
    place = folder / RESULTS_NAME
    if not place.is_dir():
        return jobs
    for made in sorted(place.iterdir(), key=lambda path: path.stat().st_mtime):
        try:
            entry = json.loads((made / JOB_NAME).read_text(encoding="utf-8"))
            path = made / "made" / Path(entry["file"]).name
            path.stat()
        except (OSError, ValueError, KeyError):
            shutil.rmtree(made, ignore_errors=True)
            continue
        job = Job("result", entry["label"], is_changing=False, job_id=made.name)
        job.state, job.done, job.total, job.path = "done", entry["total"], entry["total"], path
        jobs[job.id] = job
    return jobs


def drop_old_results(room: Room) -> None:
    """Remove the oldest results, so that no more than the limit are kept."""
    made = [job for job in room.jobs.values() if job.kind == "result" and job.is_over]
    for job in made[: max(0, len(made) - room.limits.results)]:
        room.jobs.pop(job.id, None)
        shutil.rmtree(room.folder / RESULTS_NAME / job.id, ignore_errors=True)
