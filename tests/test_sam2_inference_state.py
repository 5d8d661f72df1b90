"""`inference_state` as the dictionary that scripts written for facebookresearch/sam2 take it for."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_sam2 import make_image, make_tiny_model

from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.video_state import InferenceState

# of the present release of upstream, then those of its first
KEYS = [
    "images",
    "num_frames",
    "offload_video_to_cpu",
    "offload_state_to_cpu",
    "video_height",
    "video_width",
    "device",
    "storage_device",
    "point_inputs_per_obj",
    "mask_inputs_per_obj",
    "cached_features",
    "constants",
    "obj_id_to_idx",
    "obj_idx_to_id",
    "obj_ids",
    "output_dict_per_obj",
    "temp_output_dict_per_obj",
    "frames_tracked_per_obj",
    "output_dict",
    "consolidated_frame_inds",
    "tracking_has_started",
    "frames_already_tracked",
]
FRAMES = 5


@pytest.fixture(scope="module")
def predictor() -> SAM2VideoPredictor:
    return make_tiny_model(model_class=SAM2VideoPredictor)


@pytest.fixture(scope="module")
def clip() -> list[np.ndarray]:
    return [make_image(40, 50, seed=i) for i in range(FRAMES)]


@pytest.fixture
def state(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> InferenceState:
    """Object 7 prompted by a box on frame 0, object 3 by a mask on frame 1, tracked."""
    state = predictor.init_state(clip)
    mask = np.zeros((40, 50), bool)
    mask[10:20, 10:25] = True
    predictor.add_new_points_or_box(state, 0, obj_id=7, box=[5, 5, 30, 30])
    predictor.add_new_mask(state, 1, obj_id=3, mask=mask)
    for _ in predictor.propagate_in_video(state):
        pass
    return state


def test_all_keys_are_there(state: InferenceState) -> None:
    assert set(state.keys()) == set(state) == set(KEYS) and len(state) == len(KEYS)
    assert all(key in state and state.get(key) is not None for key in KEYS)
    assert "no such key" not in state and state.get("no such key", 5) == 5
    with pytest.raises(KeyError, match="no such key"):
        state["no such key"]
    assert set(dict(state)) == set(KEYS) == {key for key, _ in state.items()}


def test_what_the_keys_hold(state: InferenceState) -> None:
    assert (state["num_frames"], state["video_height"], state["video_width"]) == (FRAMES, 40, 50)
    assert state["obj_ids"] == [7, 3] and state["obj_id_to_idx"] == {7: 0, 3: 1} and state["obj_idx_to_id"][1] == 3
    assert state["device"] == state["storage_device"] == torch.device("cpu") and not state["offload_state_to_cpu"]
    points = state["point_inputs_per_obj"]
    assert points[0][0]["point_labels"].tolist() == [[2, 3]] and points[0][0]["point_coords"].shape == (1, 2, 2)
    assert points[1] == {} and state["mask_inputs_per_obj"][1][1].shape == (1, 1, 64, 64)
    assert state["tracking_has_started"] and set(state["frames_already_tracked"]) == set(range(FRAMES))
    assert state["frames_tracked_per_obj"][1][2] == {"reverse": False}
    assert state["consolidated_frame_inds"]["cond_frame_outputs"] == {0, 1}


def test_scores_of_a_frame_as_label_studio_reads_them(predictor: SAM2VideoPredictor, state: InferenceState) -> None:
    outputs = state.get("output_dict_per_obj", {})[0]["non_cond_frame_outputs"][3]
    expected = predictor.frame_scores(state, 3)[7]
    assert outputs["object_score_logits"].item() == expected[1]
    assert outputs["maskmem_features"].shape == outputs["maskmem_pos_enc"][0].shape == (1, 32, 4, 4)
    assert outputs["pred_masks"].shape == (1, 1, 16, 16) and outputs["obj_ptr"].shape == (1, 64)
    assert {*outputs} == {"maskmem_features", "maskmem_pos_enc", "pred_masks", "obj_ptr", "object_score_logits"}


def test_outputs_of_all_objects_together(state: InferenceState) -> None:
    frames = state["output_dict"]["non_cond_frame_outputs"]
    assert sorted(frames) == [0, 1, 2, 3, 4] and len(frames) == 5
    both = frames[3]
    assert both["pred_masks"].shape == (2, 1, 16, 16) and both["object_score_logits"].shape == (2, 1)
    own = state["output_dict_per_obj"][1]["non_cond_frame_outputs"][3]
    torch.testing.assert_close(both["obj_ptr"][1:], own["obj_ptr"])
    del state["output_dict_per_obj"][1]["non_cond_frame_outputs"][0]
    first = state["output_dict"]["cond_frame_outputs"][0]
    assert (first["pred_masks"][1] == -1024).all() and first["pred_masks"][0].max() > -1024


def test_old_frames_can_be_pruned(predictor: SAM2VideoPredictor, state: InferenceState) -> None:
    """As long-video scripts free memory: whole frames, frames of one object, or memories alone."""
    state["output_dict"]["non_cond_frame_outputs"].pop(2, None)
    state["output_dict_per_obj"][0]["non_cond_frame_outputs"].pop(3)
    state["output_dict_per_obj"][1]["non_cond_frame_outputs"][3]["maskmem_features"] = None
    assert [sorted(obj.non_cond) for obj in state.objects.values()] == [[1, 4], [0, 3, 4]]
    assert state.objects[3].non_cond[3].maskmem is None
    assert state["output_dict"]["non_cond_frame_outputs"].pop(2, "gone") == "gone"
    assert len(list(predictor.propagate_in_video(state, start_frame_idx=4))) == 1


def test_keys_of_ones_own(state: InferenceState) -> None:
    state["cached_features"] = {}
    state["my key"] = 1
    state.setdefault("other", []).append(2)
    assert state["my key"] == 1 and state["other"] == [2] and "my key" in list(state)
    del state["my key"]
    assert "my key" not in state
    output = state["output_dict_per_obj"][0]["non_cond_frame_outputs"][3]
    output["kf_score"] = 0.5  # as SAMURAI keeps what its filter says
    assert output["kf_score"] == 0.5 and state.objects[7].non_cond[3].policy_state == {"kf_score": 0.5}


def test_frames_are_read_as_of_a_tensor(state: InferenceState) -> None:
    images = state["images"]
    assert images.shape == (FRAMES, 3, 64, 64) and len(images) == FRAMES and images.dtype == torch.float32
    assert images[1:4].shape == (3, 3, 64, 64)
    torch.testing.assert_close(images[-1], images[FRAMES - 1])
    torch.testing.assert_close(images[1:4][0], images[1])
    with pytest.raises(IndexError):
        images[FRAMES]


def test_frames_of_ones_own_are_tracked(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    """As scripts append frames to a session: a tensor of them, and how many there are now."""
    whole = predictor.init_state(clip)
    begun = predictor.init_state(clip[:2])
    begun["images"] = torch.cat([begun["images"][:], whole["images"][2:]])
    begun["num_frames"] += FRAMES - 2
    results = []
    for state in (whole, begun):
        predictor.add_new_points_or_box(state, 0, 1, box=[5, 5, 30, 30])
        results.append([masks for _, _, masks in predictor.propagate_in_video(state)])
    torch.testing.assert_close(results[0], results[1])


def test_deepcopy_is_independent(predictor: SAM2VideoPredictor, state: InferenceState) -> None:
    copied = copy.deepcopy(state)
    expected = [masks for _, _, masks in predictor.propagate_in_video(copied, start_frame_idx=0)]
    predictor.remove_object(copied, 7)
    assert state["obj_ids"] == [7, 3] and copied["obj_ids"] == [3]
    found = [masks for _, _, masks in predictor.propagate_in_video(state, start_frame_idx=0)]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert copied["images"] is state["images"]


@pytest.mark.parametrize("kind", ["arrays", "folder"])
def test_pickle_opens_the_frames_again(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], tmp_path: Path, kind: str
) -> None:
    for number, image in enumerate(clip):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    state = predictor.init_state(clip if kind == "arrays" else tmp_path)
    predictor.add_new_points_or_box(state, 0, 1, box=[5, 5, 30, 30])
    restored = pickle.loads(pickle.dumps(state))
    runs = [[masks for _, _, masks in predictor.propagate_in_video(one)] for one in (state, restored)]
    torch.testing.assert_close(*runs, rtol=0, atol=0)


def test_pickle_opens_a_video_file_again(predictor: SAM2VideoPredictor) -> None:
    state = predictor.init_state(Path(__file__).parent.parent / "assets/cup.mp4")
    restored = pickle.loads(pickle.dumps(state))
    torch.testing.assert_close(restored["images"][3], state["images"][3])


def test_helpers_that_scripts_reach_for(predictor: SAM2VideoPredictor, state: InferenceState) -> None:
    assert predictor._get_obj_num(state) == 2 and predictor._obj_id_to_idx(state, 3) == 1
    assert predictor._obj_idx_to_id(state, 0) == 7
    image, _, feats, where, sizes = predictor._get_image_feature(state, 2, batch_size=2)
    assert image.shape == (2, 3, 64, 64) and feats[-1].shape == where[-1].shape == (16, 2, 64) and sizes[-1] == (4, 4)
    masks = state["output_dict"]["non_cond_frame_outputs"][4]["pred_masks"]
    low, full = predictor._get_orig_video_res_output(state, masks)
    assert low.shape == (2, 1, 16, 16) and full.shape == (2, 1, 40, 50)
