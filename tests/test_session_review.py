"""What is doubted, how a timeline is coloured, what is drawn, and what exporters get."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from session_parts import box_mask, make_session

from grounded_sam2.export import read_frame_annotations, read_header
from grounded_sam2.session import (
    Session,
    add_object,
    annotated,
    doubts,
    export,
    hide,
    objects_on,
    propagate,
    recolor,
    remove,
    set_mask,
    states,
)
from grounded_sam2.session.cells import TRACKED, new_cell

pytestmark = pytest.mark.usefixtures("quick_disk")

EMPTY = np.zeros((48, 64), bool)


def put(session: Session, obj_id: int, frame_idx: int, mask: np.ndarray, scores: tuple = (0.9, 8.0)) -> None:
    with session.command("put") as draft:
        draft.put(new_cell(obj_id, frame_idx, TRACKED, mask, scores))


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """Object 1 given on frame 0 and tracked well to frame 8."""
    session = make_session(tmp_path)
    add_object(session, 0, mask=box_mask(0, 0, 10, 10), class_name="dog")
    for t in range(1, 9):
        put(session, 1, t, box_mask(0, 0, 10, 10))
    return session


def test_states_of_a_timeline(session: Session) -> None:
    assert states(session, 1).tolist() == ["corrected", *["seen"] * 8, "", "", ""]
    put(session, 1, 3, EMPTY)
    put(session, 1, 4, EMPTY)
    put(session, 1, 9, EMPTY)
    set_mask(session, 1, 10, EMPTY)
    assert states(session, 1).tolist()[2:] == ["seen", "hidden", "hidden", *["seen"] * 4, "lost", "corrected", ""]
    add_object(session, 2, mask=EMPTY)
    put(session, 2, 3, EMPTY)
    assert states(session, 2).tolist()[1:5] == ["", "corrected", "lost", ""]


@pytest.mark.parametrize(
    ("frames", "mask", "scores", "expected"),
    [
        ([5], box_mask(0, 0, 10, 10), (0.25, 8.0), ("mask score", 5, 5, 5, 2 / 3)),
        ([5, 6], box_mask(0, 0, 10, 10), (0.75, 1.0), ("presence", 5, 5, 6, 2 / 3)),
        ([8], box_mask(0, 0, 5, 6), (0.9, 8.0), ("area jump", 8, 8, 8, 0.5)),
        ([7, 8], EMPTY, (0.1, -9.0), ("vanishes", 7, 7, 7, 0.5)),
        ([4], box_mask(0, 0, 10, 10), (None, None), None),
    ],
)
def test_an_object_by_itself_is_doubted(
    session: Session, frames: list[int], mask: np.ndarray, scores: tuple, expected: tuple | None
) -> None:
    for t in frames:
        put(session, 1, t, mask, scores)
    found = [(d.reason, d.frame_idx, d.first, d.last, pytest.approx(d.doubt)) for d in doubts(session)]
    assert found == ([] if expected is None else [expected])


def test_overlaps_are_doubted_on_both_objects_and_corrections_never(session: Session) -> None:
    add_object(session, 0, mask=box_mask(0, 0, 10, 10))
    for t in (4, 5, 6):
        put(session, 2, t, box_mask(t, 0, t + 10, 10))
    assert [(d.reason, d.obj_id, d.frame_idx, d.first, d.last) for d in doubts(session)] == [
        ("overlap", 1, 4, 4, 6),
        ("overlap", 2, 4, 4, 6),
    ]
    assert doubts(session, limit=1) == doubts(session, [1])
    set_mask(session, 2, 4, box_mask(4, 0, 14, 10))
    assert [(d.obj_id, d.frame_idx) for d in doubts(session)] == [(1, 4), (2, 5)]
    remove(session, 2)
    assert doubts(session) == []


def test_sides_that_disagree_are_doubted_where_they_meet(session: Session) -> None:
    set_mask(session, 1, 8, box_mask(30, 30, 40, 40))
    for _ in propagate(session):
        pass
    [doubt] = doubts(session)
    assert (doubt.reason, doubt.frame_idx, doubt.doubt) == ("sides disagree", 4, 1.0)


def test_no_objects_no_doubts(tmp_path: Path) -> None:
    with make_session(tmp_path) as session:
        assert doubts(session) == []


# ---- results ----


def test_objects_are_drawn_in_their_colours_unless_hidden(session: Session) -> None:
    recolor(session, 1, "#00ff00")
    changes = (annotated(session, 0).astype(int) - session.frames[0])[:10, :10].mean(axis=(0, 1))
    assert changes[1] > 100 and changes[1] > 2 * changes[0]
    hide(session, 1)
    np.testing.assert_array_equal(annotated(session, 0), session.frames[0])
    np.testing.assert_array_equal(annotated(session, 11), session.frames[11])
    assert len(objects_on(session, 0)) == 1 and len(objects_on(session, 0, with_hidden=False)) == 0


def test_every_exporter_takes_what_a_session_gives(session: Session, tmp_path: Path) -> None:
    add_object(session, 3, mask=box_mask(30, 30, 40, 40), class_name="cat")
    add_object(session, 3, mask=box_mask(50, 30, 60, 40), class_name="dog")
    hide(session, 3)
    remove(session, add_object(session, 3, mask=box_mask(50, 3, 60, 10), class_name="removed"))
    written = export(session, tmp_path / "out")
    assert all(path.exists() for path in written) and len(written) == 7
    header = read_header(written[0])
    assert header is not None and header.phrases == ("dog", "cat") and header.source == "frames"
    frames = list(read_frame_annotations(written[0]))
    assert [len(frame.detections) for frame in frames] == [1, 1, 1, 3, 1, 1, 1, 1, 1, 0, 0, 0]
    objects = frames[3].detections
    assert objects.tracker_id.tolist() == [1, 2, 3] and objects.class_id.tolist() == [0, 1, 0]  # type: ignore[union-attr]
    np.testing.assert_array_equal(objects.mask, objects_on(session, 3).mask)
    coco = json.loads((tmp_path / "out/coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]][:2] == ["0.png", "1.png"]
    assert "NaN" not in (tmp_path / "out/coco.json").read_text()
    with pytest.raises(ValueError, match="expected formats of coco"):
        export(session, tmp_path / "out", ["voc"])


def test_a_session_with_nothing_in_it_is_exported(tmp_path: Path) -> None:
    with make_session(tmp_path, num_frames=2) as session:
        export(session, tmp_path / "out")
        assert [len(frame.detections) for frame in read_frame_annotations(tmp_path / "out/annotations.jsonl")] == [0, 0]
