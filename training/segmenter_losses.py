"""Losses of the nano SAM 2.1: masks, their predicted quality, and features that can be matched between frames."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NEAR_REACH = 6  # cells of the mask grid around an object that count as its surroundings


def grown(masks: Tensor, reach: int) -> Tensor:
    """Largest value of (P, 1, h, w) within `reach` cells in both directions."""
    size = 2 * reach + 1
    tall = F.max_pool2d(masks, (size, 1), stride=1, padding=(reach, 0))
    return F.max_pool2d(tall, (1, size), stride=1, padding=(0, reach))


def mask_loss(mask_logits: Tensor, targets: Tensor, balanced: bool = False) -> Tensor:
    """Cross entropy in and around the object plus soft Jaccard loss, per prompt and candidate.

    Args:
        mask_logits: (P, M, h, w), M candidates for each prompt.
        targets: (P, h, w) share of each cell that the object covers, 0..1.
        balanced: the object weighs as much as its surroundings, whatever their areas. A model that starts from nothing
            needs it, plain or focal cross entropy collapses to empty masks; but it makes small masks too large, so
            later every cell weighs the same, in proportion to the object's area.

    Returns:
        (P, M).
    """
    target = targets.unsqueeze(1)
    near = grown((target > 0).float(), NEAR_REACH)
    area = target.sum((2, 3), keepdim=True)
    around = (1 - target) * near
    far = 1 - near
    far = far / far.sum((2, 3), keepdim=True).clamp(min=1)
    if balanced:
        inside, around = target / area.clamp(min=1), around / around.sum((2, 3), keepdim=True).clamp(min=1)
    else:
        inside, around = target / (2 * area).clamp(min=8), around / (2 * area).clamp(min=8)
    positive, negative = F.softplus(-mask_logits), F.softplus(mask_logits)
    cross_entropy = (positive * inside + negative * (around + far)).sum((2, 3))
    probability = mask_logits.sigmoid()
    overlap = (probability * target).sum((2, 3))
    union = probability.sum((2, 3)) + target.sum((2, 3)) - overlap
    return cross_entropy + 1 - (overlap + 1) / (union + 1)


def mask_iou(mask_logits: Tensor, targets: Tensor) -> Tensor:
    """IoU of thresholded (P, M, h, w) logits and (P, h, w) targets: (P, M); 1 where both are empty."""
    predicted, target = mask_logits > 0, (targets > 0.5).unsqueeze(1)
    union = (predicted | target).sum((2, 3))
    return torch.where(union > 0, (predicted & target).sum((2, 3)) / union.clamp(min=1), 1.0)


def matching_loss(features: Tensor, owners: Tensor, temperature: float = 0.1) -> Tensor:
    """Contrast the cells of frame pairs: a cell should look like the cells of its own object on the other frame.

    Args:
        features: (2·K, C, h, w), pairs one after the other.
        owners: (2·K, h, w) long, object id of each cell, 0 background, -1 for a cell that several share.

    Returns:
        The mean over all object cells that have a partner; 0 without any.
    """
    unit = F.normalize(features.flatten(2), dim=1)
    losses = []
    for first in range(0, len(features), 2):
        similarity = unit[first].T @ unit[first + 1] / temperature  # (h·w, h·w)
        one, other = owners[first].flatten(), owners[first + 1].flatten()
        similarity = similarity.masked_fill((other == -1)[None], -1e4)
        same = (one[:, None] == other[None]) & (one > 0)[:, None]
        for logits, partners in ((similarity, same), (similarity.T.masked_fill((one == -1)[None], -1e4), same.T)):
            rows = partners.any(1)
            if rows.any():
                matched = logits[rows].masked_fill(~partners[rows], -1e4).logsumexp(1)
                losses.append(logits[rows].logsumexp(1) - matched)
    return torch.cat(losses).mean() if losses else features.sum() * 0
