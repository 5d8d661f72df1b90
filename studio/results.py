"""The files that people take away: each made by a job beside the work on the session, the last few of them kept."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grounded_sam2.session.deliver import RESULTS, Snapshot, make_result, result_path
from studio.jobs import Job

__all__ = ["RESULTS_NAME", "SNAPSHOT_NAME", "drop_old_results", "kept_results", "make_file", "results_json"]

RESULTS_NAME = "results"
JOB_NAME = "job.json"
SNAPSHOT_NAME = "snapshot"
TELL_SECONDS = 0.1  # from one word of progress to the next


def results_json() -> list[dict[str, Any]]:
    """What there is to make, for the page."""
    return [
        {"kind": kind, "label": result.label, "takes_objects": result.takes_objects, "hint": result.hint}
        for kind, result in RESULTS.items()
    ]


def make_file(job: Job, taken: Snapshot, kind: str, folder: Path, chosen: dict[str, Any]) -> Iterator[None]:
    """Make a file of a snapshot, which is in the job's folder; `job.path` is it at the end.

    Args:
        job: is told how much is done.
        taken: what it is made of.
        kind: a key of `RESULTS`.
        folder: of this job alone; all of it goes when this is not gone through to its end.
        chosen: as `make_result` takes it by name.

    Yields:
        Now and then, when there is something to tell.

    Raises:
        ValueError, OSError: as `make_result`.
    """
    told = time.monotonic()
    try:
        for job.done, job.total in make_result(taken, kind, folder / "made", **chosen):
            if time.monotonic() - told >= TELL_SECONDS:
                told = time.monotonic()
                yield
        shutil.rmtree(folder / SNAPSHOT_NAME, ignore_errors=True)
        job.path = result_path(taken, kind, folder / "made")
        entry = {"label": job.label, "file": job.path.name, "total": job.total}
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


def drop_old_results(folder: Path, jobs: dict[str, Job], most: int) -> None:
    """Remove the oldest results of a session's jobs, so that no more than so many are kept."""
    made = [job for job in list(jobs.values()) if job.kind == "result" and job.state == "done"]
    for job in made[: max(0, len(made) - most)]:
        jobs.pop(job.id, None)
        shutil.rmtree(folder / RESULTS_NAME / job.id, ignore_errors=True)
