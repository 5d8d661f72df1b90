"""SAM 2 at other image sizes than its weights were trained with: what a builder is asked for is what the model sees."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny_sam2 import TINY, make_image, make_tiny_model

from grounded_sam2.masks import mask_iou
from sam2.build_sam import build_sam2, build_sam2_camera_predictor, build_sam2_video_predictor
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from training.scenes import make_clip

NANO = Path(__file__).parents[1] / "checkpoints/sam2.1_nano.pt"


@pytest.fixture
def tiny_files(tmp_path: Path) -> tuple[Path, Path]:
    """A configuration at 64 pixels, and weights."""
    settings = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(TINY).items()}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings))
    torch.save({"model": make_tiny_model(model_class=SAM2VideoPredictor).state_dict()}, tmp_path / "tiny.pt")
    return tmp_path / "tiny.yaml", tmp_path / "tiny.pt"


def follow(predictor: SAM2VideoPredictor) -> torch.Tensor:
    """The logits of two objects on four frames of random colours."""
    state = predictor.init_state([make_image(60, 80, seed) for seed in range(4)])
    predictor.add_new_points_or_box(state, 0, 1, box=[4, 4, 40, 30])
    predictor.add_new_points_or_box(state, 0, 2, points=[[50, 40]], labels=[1])
    return torch.cat([logits for _, _, logits in predictor.propagate_in_video(state)])


@pytest.mark.parametrize("build", [build_sam2, build_sam2_video_predictor, build_sam2_camera_predictor])
def test_every_builder_takes_a_size(build, tiny_files: tuple[Path, Path]) -> None:
    sizes = {asked: build(*tiny_files, device="cpu", image_size=asked).image_size for asked in (None, 96)}
    assert sizes == {None: 64, 96: 96}


@pytest.mark.parametrize("size", [64, 96, 128])
def test_a_model_at_a_size_is_one_made_for_it(tiny_files: tuple[Path, Path], size: int) -> None:
    """The same weights in a model whose every encoding was made for that size from the start."""
    made_for_it = make_tiny_model(model_class=SAM2VideoPredictor, image_size=size)
    asked_for_it = build_sam2_video_predictor(*tiny_files, device="cpu", apply_postprocessing=False, image_size=size)
    assert asked_for_it.config == replace(TINY, image_size=size)
    assert torch.equal(follow(asked_for_it), follow(made_for_it))


def test_without_a_size_nothing_changes(tiny_files: tuple[Path, Path]) -> None:
    models = [build_sam2_video_predictor(*tiny_files, device="cpu", **how) for how in ({}, {"image_size": 64})]
    assert models[0].config == models[1].config and torch.equal(follow(models[0]), follow(models[1]))


@pytest.mark.parametrize("size", [500, 16, 0, -32])
def test_a_size_that_no_level_divides_is_refused(tiny_files: tuple[Path, Path], size: int) -> None:
    for how in ({"image_size": size}, {"hydra_overrides_extra": [f"++model.image_size={size}"]}):
        with pytest.raises(ValueError, match=f"expected an image_size that is a multiple of 32, got {size}"):
            build_sam2_video_predictor(*tiny_files, device="cpu", **how)


@pytest.mark.parametrize("size", [256, 512])
def test_the_bundled_model_follows_drawn_objects_at_other_sizes(size: int) -> None:
    clip = list(make_clip(4, 3, (360, 640), kind="drift", num_objects=(3, 3)))  # one that it follows at its own size
    predictor = build_sam2_video_predictor(None, NANO, device="cpu", image_size=size)
    state = predictor.init_stream()
    scores = []
    for frame_idx, scene in enumerate(clip):
        predictor.append_frame(state, scene.image)
        if frame_idx == 0:
            for obj_id, box in zip(scene.ids.tolist(), scene.boxes_xyxy, strict=True):
                predictor.add_new_points_or_box(state, 0, obj_id, box=box)
        obj_ids, logits = predictor.step(state)
        true = dict(zip(scene.ids.tolist(), scene.masks, strict=True))
        scores += [mask_iou((mask[0] > 0).numpy(), true[i]) for i, mask in zip(obj_ids, logits, strict=True)]
    assert len(scores) == 9 and np.mean(scores) > 0.8, scores


def test_images_at_another_size() -> None:
    scene = next(iter(make_clip(3, 1, (360, 640), kind="drift", num_objects=(3, 3))))
    predictor = SAM2ImagePredictor(build_sam2(None, NANO, device="cpu", image_size=512))
    predictor.set_image(scene.image)
    masks, _, _ = predictor.predict(box=scene.boxes_xyxy, multimask_output=False)
    scores = [mask_iou(mask[0] > 0, true) for mask, true in zip(masks, scene.masks, strict=True)]
    assert masks.shape == (3, 1, 360, 640) and np.mean(scores) > 0.8, scores
