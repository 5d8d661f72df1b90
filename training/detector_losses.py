"""Losses of the nano detector: dense one-to-many for the proposal head, one-to-one (Hungarian) for the decoder.

Boxes are cxcywh, normalised to the image; `valid` marks the real objects in arrays padded to the batch's largest count.
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

FOCAL_ALPHA = 0.4
FOCAL_GAMMA = 2.0


def box_cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) centre, width, height to corners."""
    centre, extent = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - extent / 2, centre + extent / 2], -1)


def paired_giou(first: Tensor, second: Tensor) -> Tensor:
    """Generalised IoU (Rezatofighi et al. 2019) of cxcywh boxes that broadcast against each other; in [-1, 1]."""
    first, second = box_cxcywh_to_xyxy(first), box_cxcywh_to_xyxy(second)
    overlap = (torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])).clamp(
        min=0
    )
    hull = torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])
    intersection = overlap.prod(-1)
    union = (first[..., 2:] - first[..., :2]).prod(-1) + (second[..., 2:] - second[..., :2]).prod(-1) - intersection
    area = hull.prod(-1)
    return intersection / (union + 1e-7) - (area - union) / (area + 1e-7)


def focal_sum(logits: Tensor, positive: Tensor) -> Tensor:
    """Sum of the sigmoid focal loss (Lin et al. 2017).

    Args:
        logits: any shape, finite.
        positive: bool, the same shape.
    """
    sign = torch.where(positive, -1.0, 1.0)
    wrong = (sign * logits).sigmoid()
    weight = torch.where(positive, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    return (weight * wrong.pow(FOCAL_GAMMA) * F.softplus(sign * logits)).sum()


@torch.no_grad()
def assign_positions(
    centres: Tensor,
    natural_sizes: Tensor,
    pred_boxes: Tensor,
    object_logits: Tensor,
    boxes: Tensor,
    valid: Tensor,
    per_object: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Give every object the positions of the feature maps that should predict it.

    The cost mixes a prior (near the object's centre, on the level of its size) with how well the position predicts it
    already; a position wanted by several objects goes to the cheapest.

    Args:
        centres: (S, 2) normalised x, y of the positions.
        natural_sizes: (S, 2) normalised width and height that a position's level is meant for.
        pred_boxes: (B, S, 4). object_logits: (B, G, S), each object's phrase at each position.
        boxes: (B, G, 4). valid: (B, G) bool.
        per_object: positions per object.

    Returns:
        (K,) image, position and object indices of the assigned pairs.
    """
    offset = (centres[None, None] - boxes[:, :, None, :2]) / boxes[:, :, None, 2:].clamp(min=1e-3)  # (B, G, S, 2)
    scale = 0.5 * torch.log2(boxes[:, :, None, 2:].prod(-1).clamp(min=1e-6) / natural_sizes.prod(-1))  # (B, G, S)
    outside = (offset.abs() > 0.5).any(-1)
    giou = paired_giou(pred_boxes[:, None], boxes[:, :, None])
    cost = 3 * offset.square().sum(-1) + 0.5 * scale.abs() + 2 * (1 - giou) + F.softplus(-object_logits) + 10 * outside
    cost = cost.masked_fill(~valid[..., None], float("inf"))
    threshold = cost.topk(per_object, -1, largest=False).values[..., -1:]
    wanted = torch.where(cost <= threshold, cost, float("inf"))
    cheapest, owner = wanted.min(1)  # (B, S)
    image_idx, position_idx = cheapest.isfinite().nonzero(as_tuple=True)
    return image_idx, position_idx, owner[image_idx, position_idx]


@torch.no_grad()
def match_queries(
    logits: Tensor, pred_boxes: Tensor, object_tokens: Tensor, boxes: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One query per object by the Hungarian method, as in DETR.

    Args:
        logits: (B, Q, T) finite. pred_boxes: (B, Q, 4).
        object_tokens: (B, G, T) float, each object's positive tokens.
        boxes: (B, G, 4). valid: (B, G) bool: objects that the prompt names.

    Returns:
        (K,) image, query and object indices.
    """
    wrong = F.softplus(-logits) * (1 - logits.sigmoid()) - F.softplus(logits) * logits.sigmoid()
    share = object_tokens / object_tokens.sum(-1, keepdim=True).clamp(min=1)
    cost = 2 * torch.einsum("bqt,bgt->bqg", wrong, share)
    cost = (
        cost
        + 5 * (pred_boxes[:, :, None] - boxes[:, None]).abs().sum(-1)
        + 2 * (1 - paired_giou(pred_boxes[:, :, None], boxes[:, None]))
    )
    cost_matrix = cost.float().cpu().numpy()
    matches = []
    for image_idx, named in enumerate(valid.cpu()):
        object_idx = named.nonzero()[:, 0]
        queries, columns = linear_sum_assignment(cost_matrix[image_idx][:, object_idx.numpy()])
        rows = torch.full((len(queries),), image_idx)
        matches.append(torch.stack([rows, torch.as_tensor(queries), object_idx[torch.as_tensor(columns)]]))
    image_idx, query_idx, object_idx = torch.cat(matches, 1).to(logits.device)
    return image_idx, query_idx, object_idx


def naming_loss(
    logits: Tensor,
    spans: Tensor,
    object_tokens: Tensor,
    assigned: tuple[Tensor, Tensor, Tensor],
    not_rivals: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of every assigned prediction over phrases, each scored by the mean over its tokens.

    Args:
        logits: (B, S, T).
        spans: (B or 1, P, 2) token ranges of the phrases; empty ones are padding. At least one of them holds an
            object's tokens; several share the loss.
        object_tokens: (B, G, T) bool.
        assigned: image, prediction and object indices.
        not_rivals: (B, G, P) bool, phrases that an object may be called too.
    """
    image_idx, position_idx, object_idx = assigned
    token_idx = torch.arange(logits.shape[-1], device=logits.device)
    inside = ((token_idx >= spans[..., :1]) & (token_idx < spans[..., 1:])).float()  # (B or 1, P, T)
    share = (inside / inside.sum(-1, keepdim=True).clamp(min=1)).expand(len(logits), -1, -1)
    padding = (~inside.any(-1)).expand(len(logits), -1)
    chosen, tokens = logits[image_idx, position_idx].float(), object_tokens[image_idx, object_idx].float()
    if len(spans) == 1:
        phrase_logits, named = chosen @ share[0].T, tokens @ share[0].T > 0.5
    else:
        phrase_logits = torch.einsum("kt,kpt->kp", chosen, share[image_idx])
        named = torch.einsum("kt,kpt->kp", tokens, share[image_idx]) > 0.5
    left_out = padding[image_idx]
    if not_rivals is not None:
        left_out = left_out | (not_rivals[image_idx, object_idx] & ~named)
    phrase_logits = phrase_logits.masked_fill(left_out, -1e4)
    right = phrase_logits.masked_fill(~named, -1e4).logsumexp(-1)
    has_name = named.any(-1)
    wrongness = (phrase_logits.logsumexp(-1) - right)[has_name]
    return wrongness.sum() / max(len(image_idx), 1)


def grounding_loss(
    logits: Tensor,
    pred_boxes: Tensor,
    token_mask: Tensor,
    object_tokens: Tensor,
    boxes: Tensor,
    assigned: tuple[Tensor, Tensor, Tensor],
) -> Tensor:
    """Focal loss of every (prediction, token) pair plus L1 and GIoU of the assigned boxes, per assigned pair.

    Args:
        logits: (B, S, T), -inf or anything where `token_mask` is False. pred_boxes: (B, S, 4).
        token_mask: (B, T) bool, the tokens that count; the others are neither right nor wrong.
        object_tokens: (B, G, T) float. boxes: (B, G, 4).
        assigned: image, prediction and object indices.
    """
    image_idx, position_idx, object_idx = assigned
    count = max(len(image_idx), 1)
    positive = torch.zeros_like(logits, dtype=torch.bool)
    positive[image_idx, position_idx] = object_tokens[image_idx, object_idx].bool() & token_mask[image_idx]
    finite = logits.masked_fill(~token_mask[:, None], -30.0)
    loss = 2 * focal_sum(finite, positive) / count
    found, true = pred_boxes[image_idx, position_idx], boxes[image_idx, object_idx]
    return loss + (5 * (found - true).abs().sum() + 2 * (1 - paired_giou(found, true)).sum()) / count
