"""The nano SAM 2.1's recipe: its losses and scores say what they should, and it goes on after an interruption."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as rle_codec

from sam2.build_sam import build_sam2
from sam2.config import load_config
from sam2.modeling.sam2_base import SAM2Base
from training import segmenter, segmenter_memory
from training.photos import load_clips, load_photos
from training.real_scenes import RealScenes
from training.segmenter_images import Batch, image_step
from training.segmenter_losses import mask_iou, mask_loss, matching_loss
from training.segmenter_scores import masks_iou
from training.take_over import take_over


def square(start: int, stop: int, side: int = 32) -> torch.Tensor:
    """(1, side, side) mask of a square."""
    mask = torch.zeros(1, side, side)
    mask[:, start:stop, start:stop] = 1
    return mask


@pytest.mark.parametrize("balanced", [True, False])
def test_mask_loss_orders_answers(balanced: bool) -> None:
    target = square(8, 20)
    answers = torch.stack([target, square(8, 18), square(2, 12), torch.zeros_like(target)], 1) * 12 - 6
    losses = mask_loss(answers, target, balanced)[0]
    assert losses[0] < 0.1 and losses[0] < losses[1] < min(losses[2], losses[3])
    assert mask_iou(answers, target)[0].tolist() == pytest.approx([1, 100 / 144, 16 / 228, 0])


def test_balanced_loss_prefers_masks_that_are_too_large() -> None:
    target = square(14, 18)
    hesitant = torch.zeros(1, 1, 32, 32).requires_grad_()
    for balanced, outward in ((True, True), (False, False)):
        (gradient,) = torch.autograd.grad(mask_loss(hesitant, target, balanced).sum(), hesitant)
        inside = gradient[0, 0][target[0] > 0].abs().mean()
        around = gradient[0, 0][square(10, 22)[0] - target[0] > 0].abs().mean()
        assert bool(inside > 4 * around) == outward


def test_matching_loss_prefers_cells_that_look_alike() -> None:
    owners = torch.zeros(2, 4, 4, dtype=torch.long)
    owners[0, :2], owners[1, 2:] = 1, 1
    looks = torch.nn.functional.one_hot(owners, 2).permute(0, 3, 1, 2).float()
    assert matching_loss(looks, owners) < 0.01 < matching_loss(torch.ones_like(looks), owners)
    assert matching_loss(looks, torch.zeros_like(owners)) == 0


@pytest.mark.parametrize("with_photographs", [pytest.param(False, marks=pytest.mark.slow), True])
def test_recipe_goes_on_where_it_was_and_exports(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, with_photographs: bool
) -> None:
    monkeypatch.setattr(segmenter, "load_trunk", lambda trunk: None)  # published weights: a package
    minutes = (3.0, 0.0, 0.001, 0.001)
    interrupted = segmenter.Trainer(tmp_path, minutes)
    interrupted.progress.step, interrupted.progress.stage_seconds = 2, 179.99
    interrupted.save(None)
    steps_run = []

    def counted_step(
        model: SAM2Base, batch: Batch, step: int, fraction: float
    ) -> tuple[torch.Tensor, dict[str, float]]:
        steps_run.append((step, fraction, batch.images.shape[-1]))
        return image_step(model, batch, step, fraction)

    monkeypatch.setattr(segmenter, "image_step", counted_step)
    monkeypatch.setattr(segmenter, "STAGE_SIDES", (96, 128, 96, 128))
    monkeypatch.setattr(segmenter, "FIRST_CLIPS", 2)
    monkeypatch.setattr(segmenter_memory, "FRAMES_PER_STEP", 8)
    source = ["--real", str(write_photographs(tmp_path / "real"))] if with_photographs else ["--drawn-only"]
    arguments = ["--folder", str(tmp_path), "--export", str(tmp_path / "nano.pt"), "--clips", "2", *source]
    monkeypatch.setattr(sys, "argv", ["segmenter", *arguments, "--minutes", *map(str, minutes)])
    segmenter.main()

    assert [(step, side) for step, _, side in steps_run] == [(2, 96)]
    assert steps_run[0][1] == pytest.approx(179.99 / 180)
    assert segmenter.Trainer(tmp_path, minutes).progress.stage == len(segmenter.STAGES)
    model = build_sam2(None, tmp_path / "nano.pt", device="cpu")
    assert model.image_size == 320 and sum(parameter.numel() for parameter in model.parameters()) < 8e6
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_what_is_exported_may_keep_a_share_of_earlier_weights(tmp_path: Path) -> None:
    earlier, later = (SAM2Base(load_config("sam2.1-nano")) for _ in range(2))
    segmenter.export(earlier, tmp_path / "earlier.pt")
    between = segmenter.mixed(later, tmp_path / "earlier.pt", 0.25)
    for name, value in between.state_dict().items():
        expected = 0.25 * earlier.state_dict()[name].half().float() + 0.75 * later.state_dict()[name]
        assert torch.allclose(value, expected, atol=1e-6), name


def test_decoder_and_memory_are_taken_over_from_a_model_with_another_trunk(tmp_path: Path) -> None:
    """Here the trunks are alike, so that the neck can become what it was; the start of training does it once."""
    torch.manual_seed(0)
    earlier, model = (SAM2Base(load_config("sam2.1-nano")) for _ in range(2))
    for convolution in earlier.image_encoder.trunk.modules():
        if isinstance(convolution, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(
                convolution.weight
            )  # with weaker ones nothing of the image is left at the end
    model.image_encoder.trunk.load_state_dict(earlier.image_encoder.trunk.state_dict())
    images = torch.randn(3, 2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    explained = take_over(model, earlier, images)
    assert len(explained) == 3 and min(explained) > 0.95 and max(explained) <= 1
    for name, tensor in earlier.state_dict().items():
        assert ".neck." in name or torch.equal(model.state_dict()[name], tensor), name
    with torch.no_grad():
        pyramids = zip(*(each.image_encoder(images[0])["backbone_fpn"] for each in (model, earlier)), strict=True)
        for found, expected in pyramids:
            assert (found - expected).square().mean() < 0.05 * expected.var()


def write_photographs(folder: Path) -> Path:
    """A data folder of one photograph with a disc on it, once for each split, and one clip in which the disc moves."""
    frames, masks = folder / "clips" / "disc" / "frames", folder / "clips" / "disc" / "masks"
    for each in (folder / "photos", frames, masks):
        each.mkdir(parents=True)
    rows, columns = np.mgrid[:90, :120]
    photos, names = [], [f"disc_{index}" for index in range(40)]
    for index, name in enumerate(names[:6]):
        mask = (rows - 45) ** 2 + (columns - 40 - 5 * index) ** 2 < 30**2
        image = np.where(mask[..., None], (200, 60, 40), (30, 90, 120)).astype(np.uint8)
        cv2.imwrite(str(folder / "photos" / f"{name}.jpg"), image[..., ::-1])
        cv2.imwrite(str(frames / f"{index:05d}.jpg"), image[..., ::-1])
        cv2.imwrite(str(masks / f"{index:05d}.png"), mask.astype(np.uint8))
        rle = rle_codec.encode(np.asfortranarray(mask.astype(np.uint8)))
        segmentation = {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()}
        left, top, width, height = rle_codec.toBbox(rle)
        disc = {"name": "ball", "bbox": [left, top, left + width, top + height], "segmentation": segmentation}
        photo = {"image": f"photos/{name}.jpg", "width": 120, "height": 90, "objects": [disc], "complete": True}
        photos.append(json.dumps(photo))
    (folder / "photos.jsonl").write_text("\n".join(photos) + "\n", encoding="utf-8")
    clip = {"clip": "clips/disc", "frames": 6, "split": "train", "name": "ball", "single_noun": True}
    (folder / "clips.jsonl").write_text(json.dumps(clip) + "\n", encoding="utf-8")
    return folder


def test_real_scenes_are_true_to_their_masks(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path)
    real = RealScenes(load_photos(folder), load_clips(folder))
    assert set(real.phrases) == {"ball"}
    rng = np.random.default_rng(0)
    scenes = [real.photo_scene(rng, (64, 96)) for _ in range(6)]
    scenes += list(real.clip(3, 8, (64, 96), "drift", with_footage=True))
    for scene in scenes:
        assert scene.image.shape == (64, 96, 3) and scene.masks.shape[1:] == (64, 96) and "ball" in scene.phrases
        mask = scene.masks[scene.phrases.index("ball")]
        red, blue = scene.image[..., 0].astype(int), scene.image[..., 2].astype(int)
        if mask.sum() > 100:
            assert (red > blue)[mask].mean() > 0.9
    collages = [real.collage(seed, (64, 96)) for seed in range(4)]
    assert all(len(scene.masks) for scene in collages)
    for scene in collages:
        for mask, box in zip(scene.masks, scene.boxes_xyxy, strict=True):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.mark.parametrize("prompt", ["box", "point"])
def test_masks_that_match_have_iou_one(prompt: str) -> None:
    class Exact:
        def set_image(self, image: np.ndarray) -> None:
            self.truth = image[..., 0] > 0

        def predict(self, *args: object, **kwargs: object) -> tuple[np.ndarray, np.ndarray, None]:
            count = 3 if kwargs["multimask_output"] else 1
            masks = np.zeros((count, *self.truth.shape), bool)
            masks[-1] = self.truth
            return masks, np.arange(count) / 3, None

    image = np.zeros((30, 40, 3), np.uint8)
    image[5:20, 8:30] = 255
    mask, speck = image[..., 0] > 0, np.zeros((30, 40), bool)
    speck[0, 0] = True
    assert masks_iou(Exact(), image, [mask, speck, ~mask], prompt).tolist() == [1.0, 0.0]
    assert len(masks_iou(Exact(), image, [speck], prompt)) == 0
