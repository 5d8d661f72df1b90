"""What both predictors refuse or decide of prompts, and half precision under autocast of another."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_sam2 import make_image, make_tiny_model

from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.video_state import InferenceState

HEIGHT, WIDTH = 40, 50
HALVES = [
    (torch.float16, torch.bfloat16),
    (torch.bfloat16, torch.float16),
    (torch.float32, torch.float16),
    (torch.float16, torch.float16),
]


@pytest.fixture(scope="module")
def predictor() -> SAM2VideoPredictor:
    return make_tiny_model(model_class=SAM2VideoPredictor)


@pytest.fixture
def state(predictor: SAM2VideoPredictor) -> InferenceState:
    return predictor.init_state([make_image(HEIGHT, WIDTH, seed=i) for i in range(3)])


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"box": [1.0, 2.0, float("nan"), 4.0]}, "finite numbers in box, got NaN or infinity"),
        ({"points": [[1.0, float("inf")]], "labels": [1]}, "finite numbers in points"),
        ({"points": np.ones((2, 3)), "labels": [1, 1, 1]}, r"points \(P, 2\) .*got \(2, 3\) with \(3,\)"),
        ({"points": np.ones((3, 2)), "labels": [1, 1]}, r"got \(3, 2\) with \(2,\)"),
        ({"points": [[1, 2]], "labels": [7]}, r"expected labels of 1, 0 or -1, got \[7\]"),
        ({"points": [[1, 2]], "labels": [-2]}, r"got \[-2\]"),
    ],
)
def test_bad_prompts_are_named(
    predictor: SAM2VideoPredictor, state: InferenceState, prompts: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        predictor.add_new_points_or_box(state, 0, 1, **prompts)
    assert state.obj_ids == []


@pytest.mark.parametrize(
    ("points", "labels"),
    [([[9, 8], [3, 4]], [1, 0]), (torch.tensor([[[9.0, 8], [3, 4]]]), torch.tensor([[1, 0]])), ([9, 8], 1)],
)
def test_points_as_upstream_takes_them(
    predictor: SAM2VideoPredictor, state: InferenceState, points: Any, labels: Any
) -> None:
    predictor.add_new_points_or_box(state, 0, 1, points, labels)
    coords, kinds = state.objects[1].points[0]
    expected = np.asarray(torch.as_tensor(points, dtype=torch.float32)).reshape(1, -1, 2) / [WIDTH, HEIGHT] * 64
    np.testing.assert_allclose(coords.numpy(), expected, rtol=1e-6)
    assert kinds.tolist() == torch.as_tensor(labels).reshape(1, -1).tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start_frame_idx": -1}, "frame -1 is outside the video's 3 frames"),
        ({"start_frame_idx": 3}, "frame 3 is outside"),
        ({"max_frame_num_to_track": -1}, "at least 0, got -1"),
    ],
)
def test_propagation_stays_in_the_video(
    predictor: SAM2VideoPredictor, state: InferenceState, arguments: dict[str, int], message: str
) -> None:
    predictor.add_new_points_or_box(state, 0, 1, box=[5, 5, 30, 30])
    with pytest.raises(ValueError, match=message):
        next(predictor.propagate_in_video(state, **arguments))


def test_boxes_without_objects_are_checked_too(predictor: SAM2VideoPredictor, state: InferenceState) -> None:
    with pytest.raises(ValueError, match="finite numbers in boxes"):
        predictor.segment_boxes(state, 0, np.array([[1, 2, np.nan, 4]]))
    with pytest.raises(ValueError, match=r"boxes xyxy of shape \(N, 4\), got \(4, 3\)"):
        predictor.segment_boxes(state, 0, np.ones((4, 3)))


def mask_as(kind: str) -> np.ndarray:
    """The same rectangle in each of the ways that programs hold masks."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:20, 10:25] = True
    return {
        "bool": mask,
        "zeros and ones": mask.astype(np.float32),
        "of 255": mask.astype(np.uint8) * 255,
        "floats of 255": mask.astype(np.float64) * 255,
        "probabilities": np.where(mask, 0.9, 0.1),
        "logits": np.where(mask, 3.0, -2.5).astype(np.float16),
    }[kind]


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("kind", ["zeros and ones", "of 255", "floats of 255", "probabilities", "logits"])
def test_masks_of_any_kind_name_the_same_pixels(
    predictor: SAM2VideoPredictor, state: InferenceState, kind: str, as_tensor: bool
) -> None:
    predictor.add_new_mask(state, 0, 1, mask_as("bool"))
    mask = mask_as(kind)
    predictor.add_new_mask(state, 0, 2, torch.from_numpy(mask) if as_tensor else mask)
    torch.testing.assert_close(state.objects[2].masks[0], state.objects[1].masks[0], rtol=0, atol=0)
    assert 0 < state.objects[2].masks[0].mean() < 0.1


def test_a_mask_that_is_not_a_number_is_refused(predictor: SAM2VideoPredictor, state: InferenceState) -> None:
    with pytest.raises(ValueError, match="numbers in a mask prompt, got NaN"):
        predictor.add_new_mask(state, 0, 1, np.full((HEIGHT, WIDTH), np.nan))


@pytest.mark.parametrize(("weights", "autocast"), HALVES)
def test_half_precision_under_autocast_of_another(weights: torch.dtype, autocast: torch.dtype) -> None:
    image = make_image(HEIGHT, WIDTH)
    images = SAM2ImagePredictor(make_tiny_model(weights))
    videos = make_tiny_model(weights, SAM2VideoPredictor)
    box = np.array([5, 5, 30, 30])
    with torch.inference_mode(), torch.autocast("cpu", autocast):
        images.set_image(image)
        masks, _, _ = images.predict(box=box, multimask_output=False)
        state = videos.init_state([image] * 3)
        videos.add_new_points_or_box(state, 0, 1, box=box)
        videos.add_new_mask(state, 0, 2, mask_as("bool"))
        (*_, (_, _, logits)) = videos.propagate_in_video(state)
    assert np.isfinite(masks).all() and logits.isfinite().all() and logits.dtype == torch.float32
