"""Prompts of the nano SAM 2.1's training: the objects that are asked for, the ways of asking, and the loss of an
answer."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sam2.modeling.sam2_base import SAM2Base
from sam2.transforms import PIXEL_MEAN, PIXEL_STD
from training.segmenter_losses import grown, mask_iou, mask_loss

LOSS_SIDE = 160  # masks are compared at this many cells a side, twice the decoder's resolution of 80


def normalise(images: list[np.ndarray]) -> Tensor:
    """RGB uint8 images → (B, 3, H, W) float32 as the image encoder expects."""
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return (stacked - torch.tensor(PIXEL_MEAN)[:, None, None]) / torch.tensor(PIXEL_STD)[:, None, None]


def jitter_boxes(boxes_xyxy: Tensor, size: int, strength: float = 0.06) -> Tensor:
    """(P, 2, 2) corners, each moved by noise in proportion to the box, as a detector's are."""
    extent = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).repeat(1, 2)
    amount = strength * torch.rand(len(boxes_xyxy), 1)
    noisy = boxes_xyxy + amount * extent * torch.randn_like(boxes_xyxy)
    return noisy.clamp(0, size).reshape(-1, 2, 2)


def points_inside(masks: Tensor) -> Tensor:
    """One pixel (P, 1, 2) xy of each mask (P, H, W), rather deep inside than at its edge, as people click; where a mask
    is empty, any pixel."""
    points = []
    for mask in (masks > 0.5).to(torch.uint8).numpy():
        framed = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
        depth = cv2.distanceTransform(framed, cv2.DIST_L2, 3)[1:-1, 1:-1]
        least = float(torch.rand(())) * depth.max()
        rows, columns = np.nonzero((depth >= least) & (depth > 0)) if mask.any() else np.nonzero(mask == 0)
        number = int(torch.randint(len(rows), ()))
        points.append([[columns[number], rows[number]]])
    return torch.from_numpy(np.array(points, np.float32))


def points_around(masks: Tensor) -> Tensor:
    """One random pixel (P, 1, 2) xy close to each mask but not on it."""
    return points_inside((grown(masks.unsqueeze(1), 12)[:, 0] - masks).clamp(min=0))


@dataclass
class Prompts:
    """Prompts of one kind: what `PromptEncoder` takes."""

    coords: Tensor  # (Q, K, 2) px
    labels: Tensor  # (Q, K)
    masks: Tensor | None = None  # (Q, 1, 4h, 4w) logits of an earlier answer

    def to(self, device: torch.device) -> Prompts:
        """The same prompts on another device."""
        masks = None if self.masks is None else self.masks.to(device)
        return Prompts(self.coords.to(device), self.labels.to(device), masks)


def draw_prompts(masks: Tensor, boxes_xyxy: Tensor, kind: str) -> Prompts:
    """Prompts of one kind ("box", "point", "box+point", "points") for objects with (Q, S, S) masks and (Q, 4) boxes."""
    corners = jitter_boxes(boxes_xyxy, masks.shape[-1])
    if kind == "box":
        coords, labels = corners, [2, 3]
    elif kind == "point":
        coords, labels = points_inside(masks), [1]
    elif kind == "box+point":
        coords, labels = torch.cat((corners, points_inside(masks)), 1), [2, 3, 1]
    elif kind == "points":
        coords = torch.cat((points_inside(masks), points_inside(masks), points_around(masks)), 1)
        labels = [1, 1, 0]
    else:
        raise ValueError(f"kind must be box, point, box+point or points, got {kind!r}")
    return Prompts(coords, torch.tensor([labels], dtype=torch.int32).expand(len(coords), -1))


def corrected(prompts: Prompts, mask_logits: Tensor, masks: Tensor) -> Prompts:
    """The next round of a dialogue: the answer (Q, 1, 4h, 4w) and one more click where it is wrong."""
    size = masks.shape[-1]
    answer = F.interpolate(mask_logits, size=(size, size), mode="bilinear")[:, 0] > 0
    wrong = answer != (masks > 0.5)
    click = points_inside(wrong.float())
    column, row = click[:, 0].long().unbind(-1)
    label = masks[torch.arange(len(masks)), row, column].to(torch.int32)
    return Prompts(
        torch.cat((prompts.coords, click), 1),
        torch.cat((prompts.labels, label[:, None]), 1),
        mask_logits.clamp(-32, 32),
    )


def decode(model: SAM2Base, vision: Tensor, high_res: list[Tensor], prompts: Prompts) -> tuple[Tensor, ...]:
    """All four mask candidates, their qualities, tokens and presence; see `MaskDecoder.predict_all`."""
    sparse, dense = model.sam_prompt_encoder((prompts.coords, prompts.labels), None, prompts.masks)
    image_pe = model.sam_prompt_encoder.get_dense_pe()
    return model.sam_mask_decoder.predict_all(vision, image_pe, sparse, dense, high_res)


def candidates_loss(
    mask_logits: Tensor,
    ious: Tensor,
    targets: Tensor,
    single_only: bool = False,
    balanced: bool = False,
    ambiguous: bool = False,
) -> tuple[Tensor, Tensor]:
    """Loss of the single mask, of the three candidates (the best and the mean) and of the predicted qualities.

    Args:
        mask_logits: (P, 4, h, w).
        ious: (P, 4).
        targets: (P, LOSS_SIDE, LOSS_SIDE).
        single_only: leave the three candidates untrained.
        balanced: see `mask_loss`.
        ambiguous: the prompts may mean a part as well as the whole: what counts is the best candidate.

    Returns:
        The loss, and the mean IoU of the single mask.
    """
    single = F.interpolate(mask_logits[:, :1].float(), size=targets.shape[-2:], mode="bilinear")
    loss = mask_loss(single, targets, balanced).mean()
    true_ious = mask_iou(single.detach(), targets)
    if single_only:
        return loss + (ious[:, :1].float() - true_ious).abs().mean(), true_ious.mean()
    coarse = F.interpolate(targets.unsqueeze(1), size=mask_logits.shape[-2:], mode="area")[:, 0]
    several = mask_logits[:, 1:].float()
    losses = mask_loss(several, coarse, balanced)
    of_single, of_mean, of_best = (0.5, 0.15, 0.75) if ambiguous else (1.0, 0.25, 0.25)
    loss = of_single * loss + of_mean * losses.mean() + of_best * losses.amin(1).mean()
    all_ious = torch.cat((true_ious, mask_iou(several.detach(), coarse)), 1)
    return loss + (ious.float() - all_ious).abs().mean(), true_ious.mean()
