"""Editing sessions: a video in a folder with the objects that people find, click, correct and follow in it.

    with create_session("clip.session", "clip.mp4", predictor) as session:
        set_search(session, text_prompt="dog. red ball.")
        found = find(session, detector, 0)                    # nothing is added yet
        accept(session, 0, found[found.confidence > 0.5])
        for progress in propagate(session):
            print(f"{progress.num_done} of {progress.num_total}")
        refine(session, 1, 40, points=[[310, 120]], labels=[0])  # not that
        for _ in propagate(session, *gap_around(session, 1, 40), obj_ids=[1]):
            pass
        session.undo()
        export(session, "results", ["coco", "mot"])
        taken = snapshot(session, "work")                     # others may edit while files are made of it
        for num_done, num_total in make_result(taken, "blur", "results", obj_ids=[1]):
            print(f"{num_done} of {num_total}")

Every function that changes something is one command, on disk when it returns. A process may be killed at any moment;
`open_session("clip.session", predictor)` goes on, and `resume(session)` with a propagation that was cut off. How masks
lie on disk, what undo costs and where masks come from is said in `cells`, `history` and `propagation`.
"""

from grounded_sam2.session.create import create_session
from grounded_sam2.session.deliver import (
    RESULTS,
    ResultKind,
    Snapshot,
    load_snapshot,
    make_result,
    result_path,
    snapshot,
)
from grounded_sam2.session.edits import (
    accept,
    add_object,
    find,
    hide,
    lock,
    paint,
    recolor,
    refine,
    remove,
    rename,
    set_mask,
    set_search,
)
from grounded_sam2.session.finding import Finding, follow_and_find
from grounded_sam2.session.objects import Search, SessionObject
from grounded_sam2.session.plan import gap_around
from grounded_sam2.session.prompting import Answer, preview
from grounded_sam2.session.propagation import Progress, propagate, resume
from grounded_sam2.session.results import annotated, export, objects_on, write_annotations
from grounded_sam2.session.review import Doubt, doubts, states
from grounded_sam2.session.session import Session, open_session
from grounded_sam2.session.source import SourceLimits
from grounded_sam2.session.spans import clear, merge, pin, release, split, swap

__all__ = [
    "RESULTS",
    "Answer",
    "Doubt",
    "Finding",
    "Progress",
    "ResultKind",
    "Search",
    "Session",
    "SessionObject",
    "Snapshot",
    "SourceLimits",
    "accept",
    "add_object",
    "annotated",
    "clear",
    "create_session",
    "doubts",
    "export",
    "find",
    "follow_and_find",
    "gap_around",
    "hide",
    "load_snapshot",
    "lock",
    "make_result",
    "merge",
    "objects_on",
    "open_session",
    "paint",
    "pin",
    "preview",
    "propagate",
    "recolor",
    "refine",
    "release",
    "remove",
    "rename",
    "result_path",
    "resume",
    "set_mask",
    "set_search",
    "snapshot",
    "split",
    "states",
    "swap",
    "write_annotations",
]
