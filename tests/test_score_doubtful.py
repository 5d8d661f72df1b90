"""What is doubted of a run without a truth, by rules that sessions share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from grounded_sam2 import doubts as rules
from grounded_sam2.masks import encode_rle
from grounded_sam2.score import FrameObjects, Video, doubtful_frames
from grounded_sam2.score.video import held_video
from grounded_sam2.session import review
from grounded_sam2.track.events import IdentityEvent

HERE, THERE = (0, 0, 10, 10), (20, 0, 30, 10)
Boxes = dict[int, tuple[int, int, int, int]]


def run_of(*frames: Boxes, scores: dict[int, tuple[float, float]] | None = None, with_masks: bool = True) -> Video:
    """Frames as id → box; `scores`: frame → mask and object score of all objects there."""
    objects = {}
    for frame_idx, frame in enumerate(frames):
        masks = np.zeros((len(frame), 24, 40), bool)
        for mask, (left, top, right, bottom) in zip(masks, frame.values(), strict=True):
            mask[top:bottom, left:right] = True
        mask_score, object_score = (scores or {}).get(frame_idx, (0.9, 8.0))
        objects[2 * frame_idx] = FrameObjects.of(  # every other frame is in the file
            list(frame),
            boxes=np.array(list(frame.values()), float).reshape(-1, 4),
            masks=encode_rle(masks) if with_masks else None,
            mask_scores=np.full(len(frame), mask_score),
            object_scores=np.full(len(frame), object_score),
        )
    return held_video("run", (40, 24), objects, lists_frames=True)


ONE = {1: HERE}


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (run_of(ONE, ONE, ONE), []),
        (run_of(), []),
        (run_of({}, {}), []),
        (run_of(ONE, ONE, ONE, scores={1: (0.25, 8.0)}), [(1, "mask score", 2, 2, 2, 2 / 3)]),
        (run_of(ONE, ONE, ONE, scores={1: (0.9, 1.5), 2: (0.9, -1.0)}), [(1, "presence", 4, 2, 4, 2 / 3)]),
        (run_of(ONE, ONE, scores={0: (np.nan, np.nan)}), []),
        (run_of(ONE, {1: (0, 0, 5, 6)}), [(1, "area jump", 2, 2, 2, 0.5)]),
        (run_of(ONE, {1: HERE, 2: (6, 0, 16, 10)}), [(1, "overlap", 2, 2, 2, 0.25), (2, "overlap", 2, 2, 2, 0.25)]),
        (run_of(ONE, {}, ONE), [(1, "vanishes", 2, 2, 2, 0.5), (1, "returns", 4, 4, 4, 0.5)]),
        (run_of(ONE, {7: (0, 0, 10, 8)}), [(7, "id changes", 2, 2, 2, 0.8), (1, "vanishes", 2, 2, 2, 0.5)]),
        (run_of(ONE, {1: HERE, 7: THERE}), []),
        (run_of(ONE, {1: (0, 0, 5, 6)}, with_masks=False), [(1, "area jump", 2, 2, 2, 0.5)]),
    ],
)
def test_each_rule(run: Video, expected: list[tuple]) -> None:
    found = [(d.obj_id, d.reason, d.frame_idx, d.first, d.last, pytest.approx(d.doubt)) for d in doubtful_frames(run)]
    assert found == expected


def test_the_most_doubtful_comes_first_and_events_are_among_them() -> None:
    events = [
        IdentityEvent(1, 1, "born", "seen"),
        IdentityEvent(2, 3, "merged", "with 1, IoU 0.9"),
        IdentityEvent(3, 1, "lost", "not seen"),
    ]
    found = doubtful_frames(run_of(ONE, {}, ONE), events)
    assert [(d.frame_idx, d.reason, d.doubt) for d in found] == [
        (2, "merged: with 1, IoU 0.9", 0.8), (2, "vanishes", 0.5), (4, "returns", 0.5), (3, "lost: not seen", 0.4),
    ]  # fmt: skip


def test_sessions_doubt_by_the_same_rules() -> None:
    assert review.object_doubts is rules.object_doubts and review.overlap_doubt is rules.overlap_doubt
    assert review.Doubt is rules.Doubt
    assert rules.object_doubts(np.zeros(0), np.zeros(0), np.zeros(0))["vanishes"].shape == (0,)


def test_doubts_of_a_saved_run(tmp_path: Path) -> None:
    from score_data import make_pair, write_jsonl

    from grounded_sam2.score import open_videos

    _, run = make_pair(5, 12)
    [open_video] = open_videos(write_jsonl(tmp_path / "run.jsonl", run)).openers.values()
    found = doubtful_frames(open_video())
    assert {"vanishes", "returns"} <= {doubt.reason for doubt in found}
    assert [doubt.doubt for doubt in found] == sorted((doubt.doubt for doubt in found), reverse=True)
