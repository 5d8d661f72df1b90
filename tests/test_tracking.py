"""Detections become objects that are followed to both ends of a video."""

import signal
from dataclasses import replace

import numpy as np
import pytest
import supervision as sv
import torch
from tiny_sam2 import TINY, make_image

from grounded_sam2.detectors.base import make_detections
from grounded_sam2.script import StoppedError, StopRequest
from grounded_sam2.track.tracking import (
    PromptType,
    frame_at,
    masks_of,
    objects_in_sight,
    prompt_objects,
    track_both_ways,
    track_newest_frame,
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
def test_every_frame_is_tracked_in_order(predictor: SAM2VideoPredictor, prompt_type: PromptType, start: int) -> None:
    state = predictor.init_state(open_frames(FRAMES))
    objects = prompt_objects(predictor, state, start, found(2), prompt_type)
    assert objects.tracker_id.tolist() == [1, 2]
    tracked = list(track_both_ways(predictor, state, start, objects))
    assert [frame_idx for frame_idx, _ in tracked] == list(range(6))
    assert {obj_id for _, detections in tracked for obj_id in detections.tracker_id.tolist()} == {1, 2}
    for _, detections in tracked:
        assert detections.mask.shape == (len(detections), 60, 80)
        assert detections.data["class_name"].tolist() == [{1: "b", 2: "a"}[obj_id] for obj_id in detections.tracker_id]
        assert len(detections.data["mask_score"]) == len(detections.data["object_score"]) == len(detections)


def test_the_backward_pass_can_be_ended(predictor: SAM2VideoPredictor) -> None:
    stop = StopRequest()

    def stop_after_two(frames, **_):
        for position, frame in enumerate(frames):
            if position == 1:
                stop.signal_number = signal.SIGINT
            yield frame

    state = predictor.init_state(open_frames(FRAMES))
    objects = prompt_objects(predictor, state, 5, found(2), "mask")
    with pytest.raises(StoppedError, match="stopped by SIGINT after 2 frames"):
        next(track_both_ways(predictor, state, 5, objects, stop.guard, progress=stop_after_two))


def test_backward_masks_are_those_of_propagation(predictor: SAM2VideoPredictor) -> None:
    state = predictor.init_state(open_frames(FRAMES))
    objects = prompt_objects(predictor, state, 3, found(2), "mask")
    tracked = dict(track_both_ways(predictor, state, 3, objects))
    state = predictor.init_state(open_frames(FRAMES))
    prompt_objects(predictor, state, 3, found(2), "mask")
    propagated = list(predictor.propagate_in_video(state, start_frame_idx=3, reverse=True))
    assert [frame_idx for frame_idx, _, _ in propagated] == [3, 2, 1, 0] and any(map(len, tracked.values()))
    for frame_idx, obj_ids, mask_logits in propagated:
        masks = dict(zip(obj_ids, masks_of(mask_logits), strict=True))
        for obj_id, mask in zip(tracked[frame_idx].tracker_id, tracked[frame_idx].mask, strict=True):
            np.testing.assert_array_equal(mask, masks.pop(int(obj_id)))
        assert not any(mask.any() for mask in masks.values())


def test_stream_equals_video(predictor: SAM2VideoPredictor) -> None:
    state = predictor.init_state(open_frames(FRAMES))
    offline = dict(track_both_ways(predictor, state, 0, prompt_objects(predictor, state, 0, found(2), "mask")))
    stream = predictor.init_stream(num_frames=len(FRAMES))
    for image in FRAMES:
        frame_idx = predictor.append_frame(stream, image)
        if frame_idx == 0:
            objects = prompt_objects(predictor, stream, 0, found(2), "mask")
        detections = track_newest_frame(predictor, stream, frame_idx, objects)
        np.testing.assert_array_equal(detections.mask, offline[frame_idx].mask)


def test_no_objects_still_gives_every_frame(predictor: SAM2VideoPredictor) -> None:
    state = predictor.init_state(open_frames(FRAMES))
    objects = prompt_objects(predictor, state, 2, found(0))
    tracked = list(track_both_ways(predictor, state, 2, objects))
    assert [frame_idx for frame_idx, _ in tracked] == list(range(6))
    assert all(len(detections) == 0 and detections.mask.shape == (0, 60, 80) for _, detections in tracked)
    stream = predictor.init_stream()
    assert len(track_newest_frame(predictor, stream, predictor.append_frame(stream, FRAMES[0]), objects)) == 0


def test_frame_detections_leave_out_empty_masks() -> None:
    objects = found(2)
    objects.tracker_id = np.array([1, 2])
    masks = np.zeros((2, 60, 80), dtype=bool)
    masks[1, 10:12, 20:25] = True
    detections = objects_in_sight([1, 2], masks, {1: (0.1, -9.0), 2: (0.7, 4.0)}, objects)
    assert detections.tracker_id.tolist() == [2]
    np.testing.assert_array_equal(detections.xyxy, [[20, 10, 25, 12]])
    assert detections.data["class_name"].tolist() == ["a"]
    assert detections.data["mask_score"][0] == pytest.approx(0.7)


def test_masks_are_rid_of_specks_and_keep_their_parts() -> None:
    logits = torch.full((3, 1, 60, 80), -2.0)
    logits[0, 0, 10:30, 10:30] = 1.0  # an object of 400 pixels behind a pole, whose right side has 40
    logits[0, 0, 10:30, 35:37] = 3.0
    logits[0, 0, 5, 70:77] = 9.0  # below 2 % of it
    logits[1, 0, 50, 20:23] = 1.0  # small, but all there is
    masks = masks_of(logits)
    assert masks.dtype == bool and masks.shape == (3, 60, 80)
    expected = logits[:, 0].numpy() > 0
    expected[0, 5] = False
    np.testing.assert_array_equal(masks, expected)


def test_empty_masks_are_no_objects_where_masks_are_prompts(predictor: SAM2VideoPredictor) -> None:
    detections = found(2)
    detections.mask[0] = False
    state = predictor.init_state(open_frames(FRAMES))
    objects = prompt_objects(predictor, state, 0, detections, "mask")
    assert objects.tracker_id.tolist() == [1] and objects.data["class_name"].tolist() == ["a"]


def test_wrong_prompts_are_value_errors(predictor: SAM2VideoPredictor) -> None:
    state = predictor.init_state(open_frames(FRAMES))
    with pytest.raises(ValueError, match="expected a prompt type of box, point, mask, got 'boxes'"):
        prompt_objects(predictor, state, 0, found(1), "boxes")  # type: ignore[arg-type]
    boxes_only = found(1)
    boxes_only.mask = None
    with pytest.raises(ValueError, match="need masks"):
        prompt_objects(predictor, state, 0, boxes_only, "point")


def test_frame_at() -> None:
    frames = open_frames(FRAMES)
    np.testing.assert_array_equal(frame_at(frames, 5), FRAMES[5])
    for frame_idx in (-1, 6):
        with pytest.raises(ValueError, match="from 0 to 5"):
            frame_at(frames, frame_idx)
    with pytest.raises(ValueError, match="only be read once"):
        frame_at(open_frames(iter(FRAMES)), 0)
