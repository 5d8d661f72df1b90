"""Detections become objects that are followed to both ends of a video, or along a stream."""

import numpy as np
import pytest
import supervision as sv
from tiny_sam2 import make_image, make_tiny_model

from grounded_sam2.detectors.base import make_detections
from grounded_sam2.track.follower import Follower, Seen
from grounded_sam2.track.sam2_follower import Sam2Follower
from grounded_sam2.track.tracking import (
    add_objects,
    frame_at,
    objects_in_sight,
)
from grounded_sam2.video import open_frames
from sam2.sam2_video_predictor import SAM2VideoPredictor

FRAMES = [make_image(60, 80, seed) for seed in range(6)]


@pytest.fixture(scope="module")
def predictor() -> SAM2VideoPredictor:
    return make_tiny_model(model_class=SAM2VideoPredictor)


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
