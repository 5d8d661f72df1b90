"""The image stage of the nano SAM 2.1's training: prompts on single images, and features that match between frames."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sam2.modeling.sam2_base import ImageFeatures, SAM2Base
from training.real_scenes import RealScenes
from training.scenes import Scene, make_clip, make_scene
from training.segmenter_losses import matching_loss
from training.segmenter_prompts import LOSS_SIDE, candidates_loss, corrected, decode, draw_prompts, normalise

SINGLE_SCENES, FRAME_PAIRS = 4, 1  # images of one step: scenes, and pairs of frames of one clip
DRAWN_SHARE = 0.3  # of the scenes and pairs, where there are real ones
COLLAGE_SHARE = 0.2  # of the real scenes
PROMPTS_PER_IMAGE = 6
PAIR_KINDS = ("drift", "crossing", "occlusion", "mixed")
OTHER_PROMPTS = ("point", "point", "point", "box+point", "points", "refine")


@dataclass
class Batch:
    """Images and the objects on them that are prompted."""

    images: Tensor  # (B, 3, S, S) normalised
    image_idx: Tensor  # (P,) which image each prompt is on
    masks: Tensor  # (P, S, S) float, the prompted objects
    boxes_xyxy: Tensor  # (P, 4) px
    owners: Tensor  # (2·K, h, w) object of each cell of the last 2·K images, see `matching_loss`


def cell_owners(scene: Scene, cells: int) -> np.ndarray:
    """(cells, cells) id of the object that fills most of each cell, 0 background, -1 where a boundary runs."""
    owners = np.full((cells, cells), -1, np.int64)
    covered = np.zeros((cells, cells), np.float32)
    for obj_id, mask in zip(scene.ids, scene.masks, strict=True):
        share = cv2.resize(mask.astype(np.float32), (cells, cells), interpolation=cv2.INTER_AREA)
        owners[share > 0.6] = obj_id
        covered += share
    owners[covered < 0.1] = 0
    return owners


def make_single_scene(seed: int, size: int, rng: np.random.Generator, real: RealScenes | None) -> Scene:
    """A drawn scene, or with `real` mostly a photograph or a collage of cut-outs."""
    if real is None or rng.random() < DRAWN_SHARE:
        return make_scene(seed, (size, size))
    return real.collage(seed, (size, size)) if rng.random() < COLLAGE_SHARE else real.photo_scene(rng, (size, size))


def make_frame_pair(seed: int, size: int, rng: np.random.Generator, real: RealScenes | None) -> list[Scene]:
    """Two frames of one clip, at most three apart."""
    kind = PAIR_KINDS[int(rng.integers(len(PAIR_KINDS)))]
    gap = int(rng.integers(1, 4))
    if real is None or rng.random() < DRAWN_SHARE:
        clip = make_clip(seed, 5, (size, size), kind=kind, num_objects=(3, 7))
    else:
        clip = real.clip(seed, 5, (size, size), kind, with_footage=bool(rng.random() < 0.6))
    return [scene for frame_idx, scene in zip(range(gap + 1), clip, strict=False) if frame_idx in (0, gap)]


def make_image_batch(step: int, size: int, real: RealScenes | None = None) -> Batch:
    """Compose the images of one step and choose the objects to prompt; the same step gives the same batch."""
    rng = np.random.default_rng([17, step])
    scenes = [make_single_scene(step * SINGLE_SCENES + i, size, rng, real) for i in range(SINGLE_SCENES)]
    for i in range(FRAME_PAIRS):
        scenes += make_frame_pair(step * FRAME_PAIRS + i, size, rng, real)
    image_idx, masks, boxes = [], [], []
    for index, scene in enumerate(scenes):
        visible = np.flatnonzero(scene.masks.sum((1, 2)) >= 16)
        if len(visible) == 0:
            continue
        chosen = rng.permutation(visible)
        # at most twice, with prompts of its own each time
        chosen = np.concatenate([chosen, chosen])[:PROMPTS_PER_IMAGE]
        image_idx += [index] * len(chosen)
        masks.append(scene.masks[chosen])
        boxes.append(scene.boxes_xyxy[chosen])
    owners = [cell_owners(scene, size // 16) for scene in scenes[SINGLE_SCENES:]]
    return Batch(
        normalise([scene.image for scene in scenes]),
        torch.tensor(image_idx),
        torch.from_numpy(np.concatenate(masks)).float(),
        torch.from_numpy(np.concatenate(boxes)),
        torch.from_numpy(np.stack(owners)),
    )


def scale_penalty(vision: Tensor) -> Tensor:
    """How far the channels of (B, C, h, w) are from zero mean and unit variance."""
    mean, variance = vision.float().mean((0, 2, 3)), vision.float().var((0, 2, 3))
    return (mean.square() + (variance + 1e-4).log().square() / 4).mean()


def pick(features: ImageFeatures, index: Tensor) -> ImageFeatures:
    """The features of the frames (or frame of each prompt) in `index`."""
    return ImageFeatures(features.vision[index], [level[index] for level in features.high_res])


@torch.no_grad()
def normalise_top_level(model: SAM2Base, images: Tensor) -> None:
    """Fold (f - mean) / std of the top level's channels over `images` (B, 3, S, S) into the neck's 1×1 convolutions."""
    vision = model.forward_image(images).vision.float()
    mean, std = vision.mean((0, 2, 3)), vision.std((0, 2, 3))
    lowest, top = model.image_encoder.neck.convs[0].conv, model.image_encoder.neck.convs[1].conv
    for convolution in (lowest, top):
        convolution.weight /= std[:, None, None, None]
        convolution.bias /= std
    top.bias -= mean / std


def image_step(model: SAM2Base, batch: Batch, step: int, fraction: float) -> tuple[Tensor, dict[str, float]]:
    """One step: encode, prompt, decode.

    Args:
        batch: the images, see `make_image_batch`.
        step: decides the prompts.
        fraction: how much of the stage is done, 0..1.

    Returns:
        The loss, and figures to print.
    """
    device = model.device
    rng = np.random.default_rng([18, step])
    torch.manual_seed(step)
    features = model.forward_image(batch.images.to(device))
    targets = F.interpolate(batch.masks.unsqueeze(1), size=(LOSS_SIDE, LOSS_SIDE), mode="area")[:, 0]
    order = torch.randperm(len(batch.masks))
    num_boxes = len(order) if fraction < 0.2 else round(0.5 * len(order))
    kinds = [("box", order[:num_boxes])]
    if num_boxes < len(order):
        kinds.append((str(rng.choice(OTHER_PROMPTS)), order[num_boxes:]))
    total = torch.zeros((), device=device)
    numbers: dict[str, float] = {"box": math.nan, "other": math.nan}
    for kind, rows in kinds:
        prompts = draw_prompts(
            batch.masks[rows], batch.boxes_xyxy[rows], str(rng.choice(["box", "point"])) if kind == "refine" else kind
        )
        seen = pick(features, batch.image_idx[rows].to(device))
        vision = model.add_no_memory(seen.vision)
        if kind == "refine":
            with torch.no_grad():
                first = decode(model, vision, seen.high_res, prompts.to(device))[0][:, :1].float()
            prompts = corrected(prompts, first.cpu(), batch.masks[rows])
        masks, ious, _, _ = decode(model, vision, seen.high_res, prompts.to(device))
        loss, iou = candidates_loss(
            masks,
            ious,
            targets[rows].to(device),
            single_only=fraction < 0.1,
            balanced=fraction < 0.4,
            ambiguous=kind == "point",
        )
        total = total + loss * len(rows) / len(order)
        numbers["box" if kind == "box" else "other"] = float(iou)
    matching = matching_loss(features.vision[SINGLE_SCENES:].float(), batch.owners.to(device))
    penalty = scale_penalty(features.vision)
    numbers |= {"match": float(matching.detach()), "scale": float(penalty.detach())}
    return total + 0.15 * matching + 0.15 * penalty, numbers
