"""The nano SAM 2.1's recipe: its losses and scores say what they should, and it goes on after an interruption."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sam2.build_sam import build_sam2
from sam2.modeling.sam2_base import SAM2Base
from training import segmenter, segmenter_memory
from training.segmenter_images import image_step
from training.segmenter_losses import mask_iou, mask_loss, matching_loss
from training.segmenter_scores import boundary_f, iou


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


def test_scores_of_known_masks() -> None:
    one, nothing = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    one[10:30, 10:30] = True
    shifted = np.roll(one, 10, axis=1)
    assert iou(one, one) == iou(nothing, nothing) == 1 and iou(one, nothing) == 0
    assert iou(one, shifted) == pytest.approx(1 / 3)
    assert boundary_f(one, one) == 1 and boundary_f(one, nothing) == 0 and boundary_f(nothing, nothing) == 1
    assert 0 < boundary_f(one, shifted) < 0.8


def test_recipe_goes_on_where_it_was_and_exports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    interrupted = segmenter.Trainer(tmp_path, (3, 1, 1))
    interrupted.progress.step = 2
    interrupted.save(None)
    steps_run = []

    def counted_step(model: SAM2Base, step: int, fraction: float) -> tuple[torch.Tensor, dict[str, float]]:
        steps_run.append(step)
        return image_step(model, step, fraction)

    monkeypatch.setattr(segmenter, "image_step", counted_step)
    monkeypatch.setattr(segmenter_memory, "FIRST_CLIPS", 2)
    monkeypatch.setattr(segmenter_memory, "FRAMES_PER_STEP", 8)
    arguments = ["--folder", str(tmp_path), "--export", str(tmp_path / "nano.pt"), "--clips", "2"]
    arguments += ["--image-steps", "3", "--memory-steps", "1", "--final-steps", "1"]
    monkeypatch.setattr(sys, "argv", ["segmenter", *arguments])
    segmenter.main()

    assert steps_run == [2]
    assert segmenter.Trainer(tmp_path, (3, 1, 1)).progress.stage == 3
    model = build_sam2(None, tmp_path / "nano.pt", device="cpu")
    assert model.image_size == 320 and sum(parameter.numel() for parameter in model.parameters()) < 4e6
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
