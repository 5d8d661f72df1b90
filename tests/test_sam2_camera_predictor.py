"""What forks of SAM 2 for cameras offer, as thin adapters of our stream: each gives the stream's own masks."""

import numpy as np
import pytest
import torch
from tiny_sam2 import make_image, make_tiny_model

from sam2.sam2_camera_predictor import SAM2CameraPredictor
from sam2.sam2_video_predictor import SAM2VideoPredictor

BOX = [5, 5, 30, 30]


@pytest.fixture(scope="module")
def predictor() -> SAM2VideoPredictor:
    return make_tiny_model(model_class=SAM2VideoPredictor)


@pytest.fixture
def camera() -> SAM2CameraPredictor:
    return make_tiny_model(model_class=SAM2CameraPredictor)


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return [make_image(40, 50, seed=i) for i in range(5)]


@pytest.fixture(scope="module")
def expected(predictor: SAM2VideoPredictor, frames: list[np.ndarray]) -> list[torch.Tensor]:
    """Masks of one object that a box on the first frame names."""
    state = predictor.init_stream()
    masks = []
    for number, frame in enumerate(frames):
        predictor.append_frame(state, frame)
        if number == 0:
            predictor.add_new_points_or_box(state, 0, 1, box=BOX)
        masks.append(predictor.step(state)[1])
    return masks


@pytest.mark.parametrize("corners", [False, True])
def test_camera_predictor(
    camera: SAM2CameraPredictor, frames: list[np.ndarray], expected: list[torch.Tensor], corners: bool
) -> None:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=False):
        camera.load_first_frame(frames[0])
        box = np.array(BOX, np.float32)
        _, obj_ids, masks = camera.add_new_prompt(
            frame_idx=0, obj_id=1, bbox=box.reshape(2, 2) if corners else box, labels=np.array([1])
        )
        found = [masks]
        for frame in frames[1:]:
            obj_ids, masks = camera.track(frame)
            found.append(masks)
    assert obj_ids == [1] and camera.frame_idx == 4 and camera.condition_state["num_frames"] == 5
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_objects_join_while_the_camera_runs(camera: SAM2CameraPredictor, frames: list[np.ndarray]) -> None:
    with pytest.raises(RuntimeError, match="call load_first_frame"):
        camera.track(frames[0])
    camera.load_first_frame(frames[0])
    camera.add_new_points(0, 4, [[20, 20]], [1])
    camera.track(frames[1])
    assert camera.add_conditioning_frame(frames[1]) == 1  # the frame just tracked
    _, obj_ids, masks = camera.add_new_prompt_during_track(bbox=BOX, if_new_target=True)
    assert obj_ids == [4, 5] and masks.shape == (2, 1, 40, 50)
    assert camera.add_conditioning_frame(frames[2]) == 2
    camera.add_new_prompt_during_track(point=[[9, 9]], labels=[1], obj_id=4, if_new_target=False)
    camera.finalize_new_input()
    obj_ids, masks = camera.track(frames[3])
    assert obj_ids == [4, 5] and sorted(camera.condition_state.objects[4].cond) == [0, 2]
    mask = np.zeros((40, 50), bool)
    mask[3:9, 3:9] = True
    assert camera.add_new_mask(3, 8, mask)[1] == [4, 5, 8]
    camera.reset_state()
    assert camera.track(frames[4])[0] == []
    camera.load_first_frame(frames[0])
    assert camera.frame_idx == 0


def test_grounded_sam_2_s_stream(
    predictor: SAM2VideoPredictor, frames: list[np.ndarray], expected: list[torch.Tensor]
) -> None:
    """`init_state()` without a path; sizes may be set by hand, and a placeholder for the frames."""
    state = predictor.init_state()
    state["images"] = torch.empty((0, 3, 64, 64))
    state["video_height"], state["video_width"] = None, None
    found = []
    for number, frame in enumerate(frames):
        frame_idx = predictor.add_new_frame(state, frame)
        if state.get("video_height") is None:
            state["video_height"], state["video_width"] = frame.shape[:2]
        if number == 0:
            predictor.reset_state(state)
            predictor.add_new_points_or_box(state, frame_idx, 1, box=BOX)
        index, obj_ids, masks = predictor.infer_single_frame(inference_state=state, frame_idx=frame_idx)
        assert (index, obj_ids, state["images"].shape[0]) == (number, [1], number + 1)
        found.append(masks)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.testing.assert_close(state["images"][-1], state.newest_frame)
    with pytest.raises(IndexError, match="a stream keeps its newest frame"):
        state["images"][0]
    with pytest.raises(ValueError, match="newest frame"):
        predictor.infer_single_frame(state, 0)


def test_lang2segtrack_s_stream(predictor: SAM2VideoPredictor, frames: list[np.ndarray]) -> None:
    state = predictor.init_state_from_numpy_frames([frames[0]], offload_state_to_cpu=False, offload_video_to_cpu=False)
    predictor.add_new_points_or_box(state, box=BOX, frame_idx=state["num_frames"] - 1, obj_id=0)
    mask = np.zeros((40, 50), bool)
    mask[3:9, 3:9] = True
    predictor.add_new_mask(state, frame_idx=state["num_frames"] - 1, obj_id=1, mask=mask)
    for number in range(1, 13):
        predictor.append_frame_to_inference_state(state, frames[number % 5])
        assert any(len(state["point_inputs_per_obj"][i]) > 0 for i in range(len(state["point_inputs_per_obj"])))
        frame_idx, obj_ids, masks = predictor.propagate_in_frame(state, state["num_frames"] - 1)
        assert (frame_idx, obj_ids) == (number, [0, 1]) and masks.shape == (2, 1, 40, 50)
        if state["num_frames"] % 4 == 0:
            assert len(state["output_dict"]["non_cond_frame_outputs"]) != 0
            predictor.append_frame_as_cond_frame(state, state["num_frames"] - 2)
            predictor.release_old_frames(state, number, max_inference_state_frames=4)
    assert [sorted(obj.cond) for obj in state.objects.values()] == [[10], [10]]
