"""Detections become objects that are followed to both ends of a video, or along a stream."""

import signal
from dataclasses import replace

import numpy as np
import pytest
import supervision as sv
import torch
from fake_follower import FakeFollower, picture
from tiny_sam2 import TINY, make_image

from grounded_sam2.detectors.base import make_detections
from grounded_sam2.script import StoppedError, StopRequest
from grounded_sam2.track.follower import Follower, Seen
from grounded_sam2.track.sam2_follower import Sam2Follower, masks_of
from grounded_sam2.track.tracking import (
    PromptType,
    add_objects,
    follow_both_ways,
    follow_newest_frame,
    frame_at,
    objects_in_sight,
    segment_on_frame,
)
from grounded_sam2.video import open_frames
from sam2.sam2_video_predictor import SAM2VideoPredictor

FRAMES = [make_image(60, 80, seed) for seed in range(6)]


@pytest.fixture(scope="module")
def predictor() -> SAM2VideoPredictor:
    torch.manual_seed(0)
    model = SAM2VideoPredictor(replace(TINY)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def follower(predictor: SAM2VideoPredictor) -> Sam2Follower:
    return Sam2Follower(predictor)


def found(count: int) -> sv.Detections:
    xyxy = np.array([[4, 4, 40, 30], [40, 20, 70, 50]], np.float32)[:count]
    detections = make_detections(xyxy, np.array([0.9, 0.8])[:count], np.array([1, 0])[:count], ["a", "b"], (80, 60))
    masks = np.zeros((count, 60, 80), dtype=bool)
    for mask, (x1, y1, x2, y2) in zip(masks, xyxy.astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
    detections.mask = masks
    return detections


@pytest.mark.parametrize("prompt_type", ["box", "point", "mask"])
@pytest.mark.parametrize("start", [0, 3, 5])
def test_every_frame_is_followed_in_order(follower: Follower, prompt_type: PromptType, start: int) -> None:
    video = follower.open_video(open_frames(FRAMES))
    objects = add_objects(video, start, found(2), prompt_type)
    assert objects.tracker_id.tolist() == [1, 2]
    tracked = list(follow_both_ways(video, start, objects))
    assert [frame_idx for frame_idx, _ in tracked] == list(range(6))
    assert {obj_id for _, detections in tracked for obj_id in detections.tracker_id.tolist()} == {1, 2}
    for _, detections in tracked:
        assert detections.mask.shape == (len(detections), 60, 80)
        assert detections.data["class_name"].tolist() == [{1: "b", 2: "a"}[obj_id] for obj_id in detections.tracker_id]
        assert len(detections.data["mask_score"]) == len(detections.data["object_score"]) == len(detections)


def test_the_backward_pass_can_be_ended(follower: Follower) -> None:
    stop = StopRequest()

    def stop_after_two(frames, **_):
        for position, frame in enumerate(frames):
            if position == 1:
                stop.signal_number = signal.SIGINT
            yield frame

    video = follower.open_video(open_frames(FRAMES))
    objects = add_objects(video, 5, found(2), "mask")
    with pytest.raises(StoppedError, match="stopped by SIGINT after 2 frames"):
        next(follow_both_ways(video, 5, objects, stop.guard, progress=stop_after_two))


def test_backward_masks_are_those_of_propagation(follower: Follower, predictor: SAM2VideoPredictor) -> None:
    video = follower.open_video(open_frames(FRAMES))
    objects = add_objects(video, 3, found(2), "mask")
    tracked = dict(follow_both_ways(video, 3, objects))
    state = predictor.init_state(open_frames(FRAMES))
    for obj_id, mask in enumerate(found(2).mask, start=1):
        predictor.add_new_mask(state, 3, obj_id, mask)
    propagated = list(predictor.propagate_in_video(state, start_frame_idx=3, reverse=True))
    assert [frame_idx for frame_idx, _, _ in propagated] == [3, 2, 1, 0] and any(map(len, tracked.values()))
    for frame_idx, obj_ids, mask_logits in propagated:
        masks = dict(zip(obj_ids, masks_of(mask_logits), strict=True))
        for obj_id, mask in zip(tracked[frame_idx].tracker_id, tracked[frame_idx].mask, strict=True):
            np.testing.assert_array_equal(mask, masks.pop(int(obj_id)))
        assert not any(mask.any() for mask in masks.values())


def test_stream_equals_video(follower: Follower) -> None:
    video = follower.open_video(open_frames(FRAMES))
    offline = dict(follow_both_ways(video, 0, add_objects(video, 0, found(2), "mask")))
    stream = follower.open_stream(num_frames=len(FRAMES))
    for image in FRAMES:
        frame_idx = stream.append(image)
        if frame_idx == 0:
            objects = add_objects(stream, 0, found(2), "mask")
        detections = follow_newest_frame(stream, objects)
        np.testing.assert_array_equal(detections.mask, offline[frame_idx].mask)


def test_no_objects_still_gives_every_frame(follower: Follower) -> None:
    video = follower.open_video(open_frames(FRAMES))
    objects = add_objects(video, 2, segment_on_frame(video, 2, found(0)))
    tracked = list(follow_both_ways(video, 2, objects))
    assert [frame_idx for frame_idx, _ in tracked] == list(range(6))
    assert all(len(detections) == 0 and detections.mask.shape == (0, 60, 80) for _, detections in tracked)
    stream = follower.open_stream()
    stream.append(FRAMES[0])
    assert len(follow_newest_frame(stream, objects)) == 0


@pytest.mark.parametrize("prompt_type", ["box", "point", "mask"])
@pytest.mark.parametrize("scores_masks", [True, False])
def test_any_follower_will_do(prompt_type: PromptType, scores_masks: bool) -> None:
    """Two boxes that pass each other, one of them out of sight on two of six frames, found on the third."""
    frames = [picture({5: (10 * t, 20, 10 * t + 10, 40), 9: (50 - 10 * t, 4, 60 - 10 * t, 44)}) for t in range(6)]
    frames[1][frames[1] == 5] = frames[4][frames[4] == 5] = 0
    detections = make_detections(
        np.array([[30, 4, 40, 44], [20, 20, 30, 40]]), np.array([0.9, 0.8]), np.array([1, 0]), ["a", "b"], (64, 48)
    )
    video = FakeFollower(scores_masks).open_video(frames)
    detections = segment_on_frame(video, 2, detections)
    assert detections.mask.sum(axis=(1, 2)).tolist() == [400, 200] and ("mask_score" in detections.data) is scores_masks
    objects = add_objects(video, 2, detections, prompt_type)
    tracked = [objects for _, objects in follow_both_ways(video, 2, objects)]
    assert [each.tracker_id.tolist() for each in tracked] == [[1, 2], [1], [1, 2], [1, 2], [1], [1, 2]]
    assert [each.xyxy[0].tolist() for each in tracked] == [[50 - 10 * t, 4, 60 - 10 * t, 44] for t in range(6)]
    assert all(each.data["class_name"][0] == "b" and ("mask_score" in each.data) is scores_masks for each in tracked)


def test_empty_masks_are_left_out() -> None:
    objects = found(2)
    objects.tracker_id = np.array([1, 2])
    masks = np.zeros((2, 60, 80), dtype=bool)
    masks[1, 10:12, 20:25] = True
    seen = Seen([1, 2], masks, object_scores=np.array([-9.0, 4.0]), mask_scores=np.array([0.1, 0.7]))
    detections = objects_in_sight(seen, objects)
    assert detections.tracker_id.tolist() == [2]
    np.testing.assert_array_equal(detections.xyxy, [[20, 10, 25, 12]])
    assert detections.data["class_name"].tolist() == ["a"]
    assert detections.data["mask_score"][0] == pytest.approx(0.7)
    assert detections.data["object_score"][0] == pytest.approx(4.0)


def test_empty_masks_are_no_objects_where_masks_are_prompts(follower: Follower) -> None:
    detections = found(2)
    detections.mask[0] = False
    objects = add_objects(follower.open_video(open_frames(FRAMES)), 0, detections, "mask")
    assert objects.tracker_id.tolist() == [1] and objects.data["class_name"].tolist() == ["a"]


def test_wrong_prompts_are_value_errors(follower: Follower) -> None:
    video = follower.open_video(open_frames(FRAMES))
    with pytest.raises(ValueError, match="expected a prompt type of box, point, mask, got 'boxes'"):
        add_objects(video, 0, found(1), "boxes")  # type: ignore[arg-type]
    boxes_only = found(1)
    boxes_only.mask = None
    with pytest.raises(ValueError, match="need masks"):
        add_objects(video, 0, boxes_only, "point")


def test_frame_at() -> None:
    frames = open_frames(FRAMES)
    np.testing.assert_array_equal(frame_at(frames, 5), FRAMES[5])
    for frame_idx in (-1, 6):
        with pytest.raises(ValueError, match="from 0 to 5"):
            frame_at(frames, frame_idx)
    with pytest.raises(ValueError, match="only be read once"):
        frame_at(open_frames(iter(FRAMES)), 0)
