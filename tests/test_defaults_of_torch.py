"""Whatever the default device, the default dtype and the strides of an image are, what is found is the same."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_sam2 import make_image, make_tiny_model

from grounded_sam2.detectors.huggingface import HuggingFaceDetector
from grounded_sam2.detectors.local import LocalDetector
from grounded_sam2.track.continuous import ContinuousTracker
from grounding_dino.groundingdino.util.inference import Model
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2.build_sam import build_sam2
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.sam2_video_predictor import SAM2VideoPredictor

PROMPT = "red apple. Green apple. dog"


@contextmanager
def defaults(device: str | None, dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_device(device)
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


# On the device "meta" nothing can be computed, so that what lands there by default is found out.
OTHER_DEFAULTS = [("meta", torch.float32), (None, torch.float64), (None, torch.bfloat16)]
other_defaults = pytest.mark.parametrize(("device", "dtype"), OTHER_DEFAULTS, ids=str)


def follow(image: np.ndarray) -> list[np.ndarray]:
    predictor = make_tiny_model(model_class=SAM2VideoPredictor)
    with defaults(*AROUND[0]):
        session = predictor.init_state([image, image[::-1].copy()])
        predictor.add_new_points_or_box(session, 0, 1, points=[[9, 9]], labels=[1], box=[5, 6, 30, 35])
        predictor.add_new_mask(session, 0, 2, np.arange(image[:, :, 0].size).reshape(image.shape[:2]) % 3 == 0)
        return [logits.numpy() for _, _, logits in predictor.propagate_in_video(session)]


AROUND: list[tuple[str | None, torch.dtype]] = [(None, torch.float32)]


def predict(image: np.ndarray) -> list[np.ndarray]:
    predictor = SAM2ImagePredictor(make_tiny_model())
    with defaults(*AROUND[0]):
        predictor.set_image(image)
        return list(predictor.predict(point_coords=[[9, 9]], point_labels=[1], box=[5, 6, 30, 35]))


def generate(image: np.ndarray) -> list[np.ndarray]:
    options = {"points_per_side": 3, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0}
    generator = SAM2AutomaticMaskGenerator(make_tiny_model(), **options)
    with defaults(*AROUND[0]):
        return [record["segmentation"] for record in generator.generate(image)]


@other_defaults
@pytest.mark.parametrize("run", [follow, predict, generate])
def test_sam2(
    run: Callable[[np.ndarray], list[np.ndarray]],
    device: str | None,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = make_image(48, 64)
    expected = run(image)
    monkeypatch.setitem(globals(), "AROUND", [(device, dtype)])
    found = run(image)
    assert len(found) == len(expected) > 0
    for each, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(each, other)


@other_defaults
def test_weights_are_read_in_their_own_precision(device: str | None, dtype: torch.dtype) -> None:
    expected = build_sam2(ckpt_path="checkpoints/sam2.1_nano.pt", device="cpu").state_dict()
    with defaults(device, dtype):
        found = build_sam2(ckpt_path="checkpoints/sam2.1_nano.pt", device="cpu").state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@other_defaults
@pytest.mark.parametrize("kind", [LocalDetector, HuggingFaceDetector])
def test_detectors(
    kind: type, tiny_detector: Path, images: list[np.ndarray], device: str | None, dtype: torch.dtype
) -> None:
    if kind is HuggingFaceDetector and device == "meta":
        pytest.skip("transformers itself makes tensors on the default device")
    detector = kind(tiny_detector, nms_threshold=None)
    expected = detector.detect(images, PROMPT, box_threshold=0.3)
    detector = kind(tiny_detector, nms_threshold=None)  # without what it has kept
    with defaults(device, dtype):
        found = detector.detect(images, PROMPT, box_threshold=0.3)
    for each, other in zip(found, expected, strict=True):
        atol = 1e-3 if kind is LocalDetector else 2.0  # transformers computes some of it in the default dtype
        assert len(each) == len(other) or kind is HuggingFaceDetector
        if kind is LocalDetector:
            np.testing.assert_allclose(each.xyxy, other.xyxy, atol=atol)


@pytest.mark.parametrize("kind", [LocalDetector, HuggingFaceDetector])
def test_images_with_negative_strides(kind: type, tiny_detector: Path, images: list[np.ndarray]) -> None:
    detector = kind(tiny_detector, nms_threshold=None)
    for view in (images[0][:, :, ::-1], images[0][::-1], images[0][:, ::-1], np.asfortranarray(images[0])):
        (found,) = detector.detect(view, PROMPT, box_threshold=0.3)
        (expected,) = detector.detect(view.copy(order="C"), PROMPT, box_threshold=0.3)
        assert found == expected and len(found) > 0


def test_trackers_take_negative_strides(tiny_detector: Path) -> None:
    image = make_image(48, 64)
    found = []
    for order in ("view", "C"):
        detector = HuggingFaceDetector(tiny_detector)
        tracker = ContinuousTracker(detector, make_tiny_model(model_class=SAM2VideoPredictor), PROMPT)
        frame = image[:, :, ::-1]
        found.append(tracker.step(frame if order == "view" else frame.copy()))
    assert found[0] == found[1]


def test_the_functions_of_the_field_take_negative_strides(tiny_detector: Path, images: list[np.ndarray]) -> None:
    model = Model(str(tiny_detector), str(tiny_detector), device="cpu")
    found, _ = model.predict_with_caption(images[0][:, :, ::-1], "dog.", 0.0, 0.0)
    expected, _ = model.predict_with_caption(images[0][:, :, ::-1].copy(), "dog.", 0.0, 0.0)
    np.testing.assert_array_equal(found.xyxy, expected.xyxy)
