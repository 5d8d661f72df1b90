"""Reverse tracking from forward passes of which the truth is known: with the bundled SAM 2.1 nano, and with a follower
of colours, which needs no model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import supervision as sv
from fake_follower import Boxes, FakeFollower, picture

from grounded_sam2.export import FrameAnnotations, FrameAnnotationWriter
from grounded_sam2.track.reverse import ReverseTracker, merged
from grounded_sam2.track.sam2_follower import masks_of
from grounded_sam2.video import open_indexed_frames
from sam2.build_sam import build_sam2_video_predictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from training.scenes import Scene, make_clip

WEIGHTS = Path(__file__).parents[1] / "checkpoints/sam2.1_nano.pt"
SIZE = (96, 128)
NUM_FRAMES = 14
Found = dict[int, dict[int, int]]  # frame index → object id → row in the scene


@pytest.fixture(scope="module")
def predictor() -> SAM2VideoPredictor:
    return build_sam2_video_predictor(None, str(WEIGHTS), device="cpu")


@pytest.fixture(scope="module")
def clip() -> list[Scene]:
    return list(make_clip(3, NUM_FRAMES, SIZE, kind="drift", num_objects=(3, 3)))


def write_forward(path: Path, clip: list[Scene], found: Found) -> FrameAnnotations:
    """The truth about the objects that the forward pass is to have found."""
    with FrameAnnotationWriter(path, SIZE[::-1]) as writer:
        for frame_idx, scene in enumerate(clip):
            obj_ids = found.get(frame_idx, {})
            rows = list(obj_ids.values())
            detections = sv.Detections(
                xyxy=scene.boxes_xyxy[rows].reshape(-1, 4),
                mask=scene.masks[rows],
                confidence=np.full(len(rows), 0.9, np.float32),
                class_id=np.array(rows, dtype=np.int64),
                tracker_id=np.array(list(obj_ids), dtype=np.int64),
                data={"class_name": np.array([scene.phrases[row] for row in rows], dtype=np.str_)},
            )
            writer.write(frame_idx, detections)
    return FrameAnnotations(path)


def largest(clip: list[Scene]) -> int:
    return int(np.argmax([min(scene.masks[row].sum() for scene in clip) for row in range(len(clip[0].ids))]))


def overlap(mask: np.ndarray, true: np.ndarray) -> float:
    return float((mask & true).sum() / (mask | true).sum())


def test_a_late_object_is_followed_to_the_first_frame(
    predictor: SAM2VideoPredictor, clip: list[Scene], tmp_path: Path
) -> None:
    row = largest(clip)
    forward = write_forward(tmp_path / "f.jsonl", clip, {t: {7: row} for t in range(9, NUM_FRAMES)})
    tracker = ReverseTracker(predictor, forward)
    back = dict(tracker.run(open_indexed_frames([scene.image for scene in clip])))
    assert list(back) == list(range(8, -1, -1)) and tracker.renamed == {}
    ious = []
    for frame_idx, objects in back.items():
        assert objects.tracker_id.tolist() == [7] and objects.class_id.tolist() == [row]
        assert objects.data["class_name"].tolist() == [clip[0].phrases[row]]
        ious.append(overlap(objects.mask[0], clip[frame_idx].masks[row]))
        whole = merged(forward[frame_idx].detections, objects, tracker.renamed)
        assert whole.tracker_id.tolist() == [7] and np.array_equal(whole.mask, objects.mask)
    assert np.mean(ious) > 0.5


def test_reverse_is_forward_on_the_reversed_clip(
    predictor: SAM2VideoPredictor, clip: list[Scene], tmp_path: Path
) -> None:
    row = largest(clip)
    forward = write_forward(tmp_path / "f.jsonl", clip, {NUM_FRAMES - 1: {1: row}})
    back = dict(ReverseTracker(predictor, forward).run(open_indexed_frames([scene.image for scene in clip])))
    state = predictor.init_stream()
    for step, scene in enumerate(reversed(clip)):
        predictor.append_frame(state, scene.image)
        if step == 0:
            predictor.add_new_mask(state, 0, 1, scene.masks[row])
        _, mask_logits = predictor.step(state)
        frame_idx = NUM_FRAMES - 1 - step
        if step > 0 and frame_idx in back:
            assert np.array_equal(back[frame_idx].mask[0], masks_of(mask_logits)[0])
    assert len(back) >= NUM_FRAMES // 2


def test_an_object_that_got_a_second_id_gets_its_first_back(
    predictor: SAM2VideoPredictor, clip: list[Scene], tmp_path: Path
) -> None:
    row = largest(clip)
    found: Found = {t: {1: row} for t in range(5)} | {t: {2: row} for t in range(8, NUM_FRAMES)}
    forward = write_forward(tmp_path / "f.jsonl", clip, found)
    tracker = ReverseTracker(predictor, forward, join_iou=0.5)
    back = dict(tracker.run(open_indexed_frames([scene.image for scene in clip])))
    assert tracker.renamed == {2: 1} and set(back) == {5, 6, 7}
    for frame_idx in range(NUM_FRAMES):
        objects = merged(
            forward[frame_idx].detections if found.get(frame_idx) else sv.Detections.empty(),
            back.get(frame_idx),
            tracker.renamed,
        )
        assert objects.tracker_id.tolist() == [1]


def test_a_gap_before_an_object_was_found_again_is_filled(
    predictor: SAM2VideoPredictor, clip: list[Scene], tmp_path: Path
) -> None:
    row = largest(clip)
    shown = {0, 1, 2, 6, 7, 11, 12, 13}
    forward = write_forward(tmp_path / "f.jsonl", clip, {t: {4: row} for t in shown})
    tracker = ReverseTracker(predictor, forward)
    back = dict(tracker.run(open_indexed_frames([scene.image for scene in clip])))
    assert list(back) == [10, 9, 8, 5, 4, 3] and tracker.renamed == {}
    assert all(objects.tracker_id.tolist() == [4] for objects in back.values())
    assert min(overlap(objects.mask[0], clip[t].masks[row]) for t, objects in back.items()) > 0.5


def test_nothing_is_followed_onto_an_object_of_another_phrase(
    predictor: SAM2VideoPredictor, clip: list[Scene], tmp_path: Path
) -> None:
    row = largest(clip)
    other = (row + 1) % len(clip[0].ids)
    masks = [np.where(np.arange(3)[:, None, None] == other, scene.masks[row], scene.masks) for scene in clip]
    clip = [replace(scene, masks=mask) for scene, mask in zip(clip, masks, strict=True)]
    found: Found = {t: {1: other} if t < 8 else {1: other, 2: row} for t in range(NUM_FRAMES)}
    tracker = ReverseTracker(predictor, write_forward(tmp_path / "f.jsonl", clip, found))
    assert dict(tracker.run(open_indexed_frames([scene.image for scene in clip]))) == {}


def test_two_objects_of_one_phrase_stay_two(predictor: SAM2VideoPredictor, clip: list[Scene], tmp_path: Path) -> None:
    """A second id on an object that is still followed under its first one is a duplicate, not a return."""
    row = largest(clip)
    found: Found = {t: {1: row} if t < 8 else {1: row, 2: row} for t in range(NUM_FRAMES)}
    tracker = ReverseTracker(predictor, write_forward(tmp_path / "f.jsonl", clip, found), join_iou=0.5)
    back = dict(tracker.run(open_indexed_frames([scene.image for scene in clip])))
    assert tracker.renamed == {} and back == {}


@pytest.mark.parametrize("found", [{}, {0: {1: 0}, 1: {1: 0}}])
def test_nothing_found_late_needs_no_pass(
    predictor: SAM2VideoPredictor, clip: list[Scene], tmp_path: Path, found: Found
) -> None:
    tracker = ReverseTracker(predictor, write_forward(tmp_path / "f.jsonl", clip, found))
    assert list(tracker.run(open_indexed_frames([scene.image for scene in clip]))) == []


def test_annotations_are_read_in_any_order(clip: list[Scene], tmp_path: Path) -> None:
    forward = write_forward(tmp_path / "f.jsonl", clip, {3: {1: 0}})
    assert len(forward) == NUM_FRAMES and list(forward) == list(range(NUM_FRAMES)) and 3 in forward
    assert len(forward[9].detections) == 0 and forward[3].detections.tracker_id.tolist() == [1]
    with pytest.raises(KeyError):
        forward[NUM_FRAMES]
    with (tmp_path / "f.jsonl").open("a") as file:
        file.write('{"frame_idx": 14, "anno')
    assert len(FrameAnnotations(tmp_path / "f.jsonl")) == NUM_FRAMES
    (tmp_path / "other.jsonl").write_text("[1]\n")
    with pytest.raises(ValueError, match="line 1 is no frame's annotations"):
        FrameAnnotations(tmp_path / "other.jsonl")


def test_a_generator_cannot_be_read_backwards() -> None:
    with pytest.raises(ValueError, match="can only be read once"):
        open_indexed_frames(image for image in [np.zeros((8, 8, 3), np.uint8)])


@pytest.mark.parametrize("scores_masks", [True, False])
def test_any_follower_will_do(tmp_path: Path, scores_masks: bool) -> None:
    """Object 1 was lost on frame 4, and found again as object 2; object 3 was there all along, and found on frame 8."""
    colours: list[Boxes] = [{7: (3 * t, 10, 3 * t + 12, 30), 9: (40, 2, 60, 8)} for t in range(10)]
    frames = [picture(boxes) for boxes in colours]
    with FrameAnnotationWriter(tmp_path / "f.jsonl", (64, 48)) as writer:
        for t, frame in enumerate(frames):
            found = {1 if t < 4 else 2: 7} if t < 4 or t >= 6 else {}
            found |= {3: 9} if t >= 8 else {}
            detections = sv.Detections(
                xyxy=np.array([colours[t][colour] for colour in found.values()], np.float32).reshape(-1, 4),
                mask=np.array([frame[..., 0] == colour for colour in found.values()], bool).reshape(-1, 48, 64),
                confidence=np.full(len(found), 0.9, np.float32),
                class_id=np.array(list(found.values()), dtype=np.int64),
                tracker_id=np.array(list(found), dtype=np.int64),
                data={"class_name": np.array([str(colour) for colour in found.values()], dtype=np.str_)},
            )
            writer.write(t, detections)
    tracker = ReverseTracker(FakeFollower(scores_masks), FrameAnnotations(tmp_path / "f.jsonl"))
    back = dict(tracker.run(open_indexed_frames(frames)))
    obj_ids = {frame_idx: sorted(objects.tracker_id.tolist()) for frame_idx, objects in back.items()}
    assert obj_ids == {7: [3], 6: [3], 5: [2, 3], 4: [2, 3], 3: [3], 2: [3], 1: [3], 0: [3]}
    assert tracker.renamed == {2: 1} and all(("mask_score" in each.data) is scores_masks for each in back.values())
