"""The rules of the named memory policies, on masks and outputs made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import supervision as sv
import torch
from tiny_sam2 import TINY

from sam2.config import SAM2Config
from sam2.mask_ops import mask_to_box_xyxy
from sam2.memory_policies import Dam4Sam, MemoryPolicy, Robust, Samurai, dam4sam, kalman, robust
from sam2.memory_policies.boxes import box_ious, mask_boxes
from sam2.modeling.core import MaskCandidates, SamOutput
from sam2.video_state import FrameOutput, FrameTime, ObjectState

# ---- boxes and their motion ----


def test_boxes_of_masks_are_those_at_full_size() -> None:
    masks = torch.full((2, 16, 16), -1.0)
    masks[0, 4:9, 6:7] = 5.0
    full = torch.nn.functional.interpolate(masks[None], (64, 64), mode="bilinear", align_corners=False)[0] > 0
    boxes = mask_boxes(masks, 64)
    assert boxes.dtype == torch.float64 and torch.equal(boxes, mask_to_box_xyxy(full).double())
    assert boxes[1].tolist() == [0, 0, 0, 0] and 4 * 4 - 2 <= boxes[0, 1] <= 4 * 4 and boxes[0, 0] < 24 <= boxes[0, 2]
    assert mask_boxes(masks[:0], 64).shape == (0, 4)


def test_overlap_of_boxes() -> None:
    corners = torch.from_numpy(np.random.default_rng(1).uniform(0, 20, (30, 2, 2))).sort(dim=1).values.flatten(1)
    expected = sv.box_iou_batch(corners[:15].numpy(), corners[15:].numpy()).diagonal()
    np.testing.assert_allclose(box_ious(corners[:15], corners[15:]), expected, atol=1e-6)
    assert box_ious(torch.zeros(1, 4), torch.zeros(1, 4)).tolist() == [0]


def spread(height: float, position: float, aspect: float, velocity: float) -> np.ndarray:
    """Covariance (8, 8) of a box of a height, from standard deviations as the method gives them."""
    std = [position * height] * 2 + [aspect, position * height] + [velocity * height] * 2 + [1e-5, velocity * height]
    return np.diag(np.square(std))


def test_filter_is_kalmans() -> None:
    """Against the textbook's equations with inverses, one box at a time."""
    motion, seen = np.eye(8) + np.eye(8, k=4), np.eye(4, 8)
    measured = np.random.default_rng(2).uniform([20, 20, 0.5, 10], [60, 60, 2.0, 40], (5, 3, 4))  # frames, boxes
    mean, covariance = kalman.initiate(torch.from_numpy(measured[0]))
    for box in range(3):
        x = np.concatenate((measured[0, box], np.zeros(4)))
        p = spread(x[3], 2 / 20, 1e-2, 10 / 160)
        alone = mean[[box]], covariance[[box]]
        for z in measured[1:, box]:
            x, p = motion @ x, motion @ p @ motion.T + spread(x[3], 1 / 20, 1e-2, 1 / 160)
            alone = kalman.predict(*alone)
            s = seen @ p @ seen.T + spread(x[3], 1 / 20, 1e-1, 0)[:4, :4]
            gain = p @ seen.T @ np.linalg.inv(s)
            x, p = x + gain @ (z - seen @ x), (np.eye(8) - gain @ seen) @ p
            alone = kalman.update(*alone, torch.from_numpy(z)[None])
            np.testing.assert_allclose(alone[0][0], x, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(alone[1][0], p, rtol=1e-7, atol=1e-9)
        together = kalman.predict(mean, covariance)
        np.testing.assert_allclose(together[0][box], kalman.predict(mean[[box]], covariance[[box]])[0][0])


def test_a_measured_box_comes_back() -> None:
    boxes = torch.tensor([[2.0, 3.0, 8.0, 23.0], [0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(kalman.to_measurement(boxes), [[5, 13, 0.3, 20], [0, 0, 0, 1]], rtol=1e-6)
    np.testing.assert_allclose(kalman.to_box_xyxy(kalman.to_measurement(boxes[:1])), boxes[:1], rtol=1e-6)


# ---- their rules, on outputs made by hand ----


def shape(*parts: tuple[slice, slice]) -> torch.Tensor:
    """A mask (16, 16) bool that covers rows and columns."""
    mask = torch.zeros(16, 16, dtype=torch.bool)
    for part in parts:
        mask[part] = True
    return mask


BLOCK = shape((slice(4, 12), slice(4, 12)))
ASIDE = shape((slice(4, 12), slice(5, 13)))
FAR = shape((slice(0, 4), slice(12, 16)))
NOTHING = shape()


def decoded(*masks: torch.Tensor, quality: float = 0.9) -> SamOutput:
    """Candidates of one object, of which the first was taken."""
    logits = torch.stack([mask * 20.0 - 10 for mask in masks])[None]
    ious = torch.tensor([[quality] + [quality - 0.1] * (len(masks) - 1)])
    present = torch.tensor([[5.0 if masks[0].any() else -5.0]])
    return SamOutput(logits, ious, logits[:, :1], torch.zeros(1, 4), present, torch.tensor([0]))


def output_of(row: SamOutput, **state: Any) -> FrameOutput:
    side = row.low_res_masks.shape[-1] // 4
    memory = torch.zeros(1, 1, side, side)
    return FrameOutput(
        row.low_res_masks, row.obj_ptr, row.object_score_logits, row.mask_scores, memory, policy_state=dict(state)
    )


def pass_frame(policy: MemoryPolicy, objects: list[ObjectState], rows: list[SamOutput], t: int) -> list[bool]:
    """What the engine does with a frame once its masks are taken."""
    outputs, time = [output_of(row) for row in rows], FrameTime(t, False, None)
    kept = policy.remember_all(objects, outputs, rows, time)
    for obj, output, is_kept in zip(objects, outputs, kept, strict=True):
        output.maskmem = output.maskmem if is_kept else None
        obj.non_cond[t] = output
        policy.forget(obj, time, may_restart=False)
    return kept


def prompted(policy: MemoryPolicy, mask: torch.Tensor) -> ObjectState:
    """An object whose mask was given on frame 0."""
    obj, row = ObjectState(), decoded(mask)
    output = output_of(row)
    policy.remember(obj, output, row, FrameTime(0, False, None), is_prompted=True)
    obj.cond[0] = output
    return obj


def frames_of(obj: ObjectState, found: list[tuple[int, FrameOutput]]) -> list[tuple[int, int]]:
    """(place or frames ago, frame) of what a policy selected."""
    known = obj.cond | obj.non_cond
    return [(number, next(t for t, output in known.items() if output is one)) for number, one in found]


@pytest.mark.parametrize(
    ("masks", "quality", "hidden"),
    [
        ([BLOCK, ASIDE], [0.9, 0.8], [False, True]),
        ([BLOCK, ASIDE], [0.8, 0.8], [False, False]),
        ([BLOCK, FAR, NOTHING], [0.8, 0.9, 0.95], [False, False, False]),
        ([BLOCK, BLOCK[:, :8].repeat(1, 2) & BLOCK], [0.1, 0.9], [False, False]),  # half of it: an IoU of 0.5
        ([], [], []),
    ],
)
def test_masks_under_surer_ones(masks: list[torch.Tensor], quality: list[float], hidden: list[bool]) -> None:
    stacked = torch.stack(masks) if masks else torch.zeros(0, 16, 16, dtype=torch.bool)
    assert robust.hidden_by_surer(stacked, torch.tensor(quality)).tolist() == hidden


def test_robust_remembers_what_is_surely_the_object() -> None:
    policy = Robust(SAM2Config())
    one, other = prompted(policy, BLOCK), prompted(policy, FAR)
    cases = [
        ((decoded(BLOCK), decoded(FAR)), [True, True]),
        ((decoded(NOTHING), decoded(FAR, quality=0.2)), [False, False]),
        ((decoded(BLOCK, quality=0.8), decoded(BLOCK, quality=0.7)), [True, False]),
        ((decoded(BLOCK), decoded(FAR)), [True, True]),
    ]
    for t, (rows, expected) in enumerate(cases, start=1):
        assert pass_frame(policy, [one, other], list(rows), t) == expected, t
    time = FrameTime(5, False, None)
    assert frames_of(one, policy.spatial_memories(one, time)) == [(0, 0), (3, 1), (2, 3), (1, 4)]
    assert frames_of(other, policy.spatial_memories(other, time)) == [(0, 0), (2, 1), (1, 4)]
    assert frames_of(other, policy.pointers(other, time)) == [(5, 0), (1, 4), (4, 1)]


def test_robust_gate_rejects_a_jump_until_it_lasts() -> None:
    policy = Robust(SAM2Config())
    obj = prompted(policy, BLOCK)
    partly_hidden = BLOCK & shape((slice(4, 8), slice(4, 8)))  # no jump, small as it is
    rows = [decoded(BLOCK), decoded(ASIDE), decoded(partly_hidden), decoded(BLOCK)]
    assert all(pass_frame(policy, [obj], [row], t)[0] for t, row in enumerate(rows, start=1))
    kept = [pass_frame(policy, [obj], [decoded(FAR)], t)[0] for t in range(5, 13)]
    assert kept == [False] * robust.MOST_REJECTED + [True] * (8 - robust.MOST_REJECTED)


def test_robust_gate_lets_pass_what_moves_on() -> None:
    """Four cells a frame, its own width, once it is known to move."""
    policy = Robust(SAM2Config())
    strip = torch.zeros(64, 64, dtype=torch.bool)
    steps = [0, 1, 3, 6, 9, 13, 17, 21, 25, 29, 33, 37]
    masks = [strip.clone() for _ in steps]
    for mask, left in zip(masks, steps, strict=True):
        mask[4:8, left : left + 4] = True
    obj = prompted(policy, masks[0])
    assert all(pass_frame(policy, [obj], [decoded(mask)], t)[0] for t, mask in enumerate(masks[1:], start=1))
    assert pass_frame(policy, [prompted(policy, masks[0])], [decoded(masks[-1])], 1) == [False]


def test_samurai_reads_sure_frames_and_the_one_before() -> None:
    policy = Samurai(SAM2Config())
    obj = ObjectState(cond={0: output_of(decoded(BLOCK), is_good=True, age=0)})
    for t in range(1, 12):
        obj.non_cond[t] = output_of(decoded(BLOCK), is_good=t not in (3, 8, 9, 11), age=t)
    read = frames_of(obj, policy.spatial_memories(obj, FrameTime(12, False, None)))
    assert read == [(0, 0), (6, 4), (5, 5), (4, 6), (3, 7), (2, 10), (1, 11)]
    read = frames_of(obj, policy.spatial_memories(obj, FrameTime(5, False, None)))
    assert read == [(0, 0), (2, 2), (1, 4)]  # the frame after the prompt is read on the next only
    assert frames_of(obj, policy.spatial_memories(obj, FrameTime(2, False, None))) == [(0, 0), (1, 1)]
    assert len(policy.pointers(obj, FrameTime(12, False, None))) == 12  # whatever the frames are like


def test_samurai_takes_the_mask_that_moves_on() -> None:
    """Of two objects, one of which has been stable for long enough."""
    policy = Samurai(replace(TINY, stable_frames_threshold=3, kf_score_weight=0.5))
    objects = [prompted(policy, BLOCK), prompted(policy, FAR)]
    for t in range(1, 6):
        rows = [decoded(BLOCK, FAR, NOTHING), decoded(FAR, BLOCK, NOTHING, quality=0.9 if t > 4 else 0.2)]
        pass_frame(policy, objects, rows, t)
    states = [obj.non_cond[5].policy_state for obj in objects]
    assert [left["stable_frames"] for left in states] == [3, 1]
    candidates = [decoded(FAR, BLOCK, NOTHING), decoded(BLOCK, FAR, NOTHING)]
    chosen = policy.choose(objects, together(candidates), FrameTime(6, False, None))
    assert chosen.tolist() == [1, 0]
    one_mask = [decoded(FAR), decoded(BLOCK)]  # nothing to choose from
    assert policy.choose(objects, together(one_mask), FrameTime(6, False, None)).tolist() == [0, 0]


def together(rows: list[SamOutput]) -> MaskCandidates:
    masks, ious, scores = (
        torch.cat([getattr(row, name) for row in rows])
        for name in ("low_res_multimasks", "ious", "object_score_logits")
    )
    return MaskCandidates(masks, ious, scores, torch.zeros(len(rows), 1, 4))


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        ([BLOCK, BLOCK, BLOCK], False),
        ([BLOCK, BLOCK | FAR, BLOCK], True),  # boxed together 12 x 12 cells, alone 8 x 8
        ([BLOCK, FAR, NOTHING], True),
        ([BLOCK, BLOCK | shape((slice(4, 12), slice(12, 15))), BLOCK], False),  # 8 x 8 of 8 x 11: 0.73
        ([BLOCK, BLOCK | shape((slice(4, 12), slice(12, 16))), BLOCK], True),  # 8 x 8 of 8 x 12: 0.67
        ([BLOCK, ASIDE | shape((slice(0, 1), slice(0, 1))), NOTHING], False),  # the far part is not the largest
        ([BLOCK], False),
    ],
)
def test_distractors(candidates: list[torch.Tensor], expected: bool) -> None:
    assert dam4sam.has_distractor(decoded(*candidates)) is expected


def test_dam4sam_anchors() -> None:
    """With a distractor on every frame, an anchor is sure, of the usual size, and some frames after the last."""
    policy = Dam4Sam(SAM2Config())
    obj = prompted(policy, BLOCK)
    larger = shape((slice(3, 13), slice(3, 13)))  # by 56 %
    frames = {
        6: decoded(BLOCK, FAR, quality=0.79),  # not sure
        7: decoded(larger, FAR),
        8: decoded(NOTHING, FAR),
        9: decoded(BLOCK, ASIDE),  # no distractor
    }
    for t in range(1, 31):
        kept = pass_frame(policy, [obj], [frames.get(t, decoded(BLOCK, FAR))], t)
        assert kept == [t != 8]
        left = obj.non_cond[t].policy_state
        assert left["is_anchor"] == (t in (10, 16, 22, 28)), t
    assert len(left["areas"]) == dam4sam.NUM_AREAS
    time = FrameTime(31, False, None)
    # the prompt and the three nearest anchors, then the last frame and those on the grid
    read = frames_of(obj, policy.spatial_memories(obj, time))
    assert read == [(0, 0), (0, 28), (0, 22), (0, 16), (3, 20), (2, 25), (1, 30)]
    pointers = frames_of(obj, policy.pointers(obj, time))
    assert pointers[:4] == [(31, 0), (3, 28), (9, 22), (15, 16)]
    assert pointers[4:] == [(31 - t, t) for t in range(30, 16, -1) if t not in (28, 22)]


def test_dam4sam_skips_frames_without_the_object() -> None:
    policy = Dam4Sam(SAM2Config())
    obj = prompted(policy, BLOCK)
    for t in range(1, 40):
        pass_frame(policy, [obj], [decoded(BLOCK if t < 23 else NOTHING, BLOCK)], t)
    time = FrameTime(40, False, None)
    read = frames_of(obj, policy.spatial_memories(obj, time))
    assert read == [(0, 0), (5, 5), (4, 10), (3, 15), (2, 20), (1, 22)]
    assert frames_of(obj, policy.pointers(obj, time)) == [(40, 0)]


def test_dam4sam_forgets_areas_of_long_ago() -> None:
    policy = Dam4Sam(SAM2Config())
    obj = prompted(policy, BLOCK)
    row = decoded(FAR, BLOCK)
    assert pass_frame(policy, [obj], [row], 1 + dam4sam.AREA_SPAN) == [True]
    assert obj.non_cond[1 + dam4sam.AREA_SPAN].policy_state["areas"] == [(1 + dam4sam.AREA_SPAN, 16)]
