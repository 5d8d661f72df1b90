"""The memory stage of the nano SAM 2.1's training: objects are followed through cached clips."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sam2.modeling.sam2_base import NO_OBJ_SCORE, ImageFeatures, SAM2Base
from training.real_scenes import RealScenes
from training.scenes import Scene, make_clip
from training.segmenter_images import DRAWN_SHARE, Batch, image_step, make_image_batch, scale_penalty
from training.segmenter_losses import mask_iou, mask_loss
from training.segmenter_prompts import (
    LOSS_SIDE,
    Prompts,
    candidates_loss,
    decode,
    jitter_boxes,
    normalise,
    points_inside,
)

CLIP_FRAMES = 20  # frames of a clip that are kept
MIN_SHARE = 2.0  # cells of the loss grid that a visible object covers at least
FIRST_CLIPS = 24  # encoded before the first step
STEPS_PER_CLIP = 2  # before another clip joins the bank
FRAMES_PER_STEP = 64  # object-frames
# frames of a rollout until this fraction of the stage
ROLLOUT_FRAMES = ((0.08, 3), (0.2, 4), (0.4, 6), (0.65, 8), (0.85, 12), (math.inf, 16))
FINAL_FRAMES = 6
FINAL_IMAGE_BATCHES = 3  # of a final step
KIND_CHANCES = {"crossing": 0.25, "twins": 0.25, "occlusion": 0.18, "reentry": 0.12, "mixed": 0.15, "drift": 0.05}
FOOTAGE_SHARE = 0.5  # of the clips that are not drawn
ABSENT_WEIGHT = 2.0  # of the presence loss where the object is absent; unweighted, the score always says "present"


@dataclass
class Clip:
    """One clip, encoded."""

    features: ImageFeatures  # of T frames
    masks: Tensor  # (N, T, LOSS_SIDE, LOSS_SIDE) uint8, 255 where the object fills a cell
    boxes_xyxy: Tensor  # (N, T, 4) px of the model's input


def make_training_clip(seed: int, size: int, real: RealScenes | None = None) -> list[Scene]:
    """Some consecutive frames, or every other, of a clip of a random kind and length; one that shows an object."""
    for attempt in range(100):
        rng = np.random.default_rng([29, seed, attempt])
        kind = str(rng.choice(list(KIND_CHANCES), p=list(KIND_CHANCES.values())))
        stride = 1 if rng.random() < 0.75 else 2
        length = int(rng.integers(CLIP_FRAMES * stride, 2 * CLIP_FRAMES * stride + 1))
        start = int(rng.integers(0, length - CLIP_FRAMES * stride + 1))
        wanted = range(start, start + CLIP_FRAMES * stride, stride)
        clip_seed = seed + attempt * 10_000_019
        if real is None or rng.random() < DRAWN_SHARE:
            clip = make_clip(clip_seed, length, (size, size), kind=kind, num_objects=(2, 5))
        else:
            clip = real.clip(clip_seed, length, (size, size), kind, with_footage=bool(rng.random() < FOOTAGE_SHARE))
        scenes = [scene for frame_idx, scene in zip(range(wanted[-1] + 1), clip, strict=False) if frame_idx in wanted]
        if any(scene.masks.any() for scene in scenes):
            return scenes
    raise RuntimeError(f"no clip of seed {seed} shows an object")


def encode_clip(model: SAM2Base, scenes: list[Scene]) -> Clip:
    """Run the encoder over the frames of a clip."""
    features = model.forward_image(normalise([scene.image for scene in scenes]).to(model.device))
    masks = np.zeros((len(scenes[0].ids), len(scenes), LOSS_SIDE, LOSS_SIDE), np.uint8)
    for frame_idx, scene in enumerate(scenes):
        for i, mask in enumerate(scene.masks):
            if mask.any():
                cover = mask.astype(np.float32) * 255
                masks[i, frame_idx] = cv2.resize(cover, (LOSS_SIDE, LOSS_SIDE), interpolation=cv2.INTER_AREA)
    boxes = np.stack([scene.boxes_xyxy for scene in scenes], 1)
    return Clip(features, torch.from_numpy(masks), torch.from_numpy(boxes))


class ClipBank:
    """Clips encoded once, features kept in bfloat16; the oldest is replaced when there are too many."""

    def __init__(self, model: SAM2Base, capacity: int) -> None:
        self.model, self.capacity = model, capacity
        self.clips: list[Clip] = []

    @torch.no_grad()
    def add(self, scenes: list[Scene]) -> None:
        """Encode one more clip."""
        clip = encode_clip(self.model, scenes)
        clip.features.vision = clip.features.vision.bfloat16()
        clip.features.high_res = [level.bfloat16() for level in clip.features.high_res]
        self.clips.append(clip)
        del self.clips[: -self.capacity]


@dataclass
class Tracks:
    """N objects over T frames each."""

    clip_idx: list[int]  # of each track, in `clips`
    clips: list[Clip]
    frames: Tensor  # (N, T) frame of the clip, -1 where another clip's frame takes the place
    targets: Tensor  # (N, T, LOSS_SIDE, LOSS_SIDE) 0..1
    boxes_xyxy: Tensor  # (N, 4) px on the first frame
    strangers: list[tuple[int, int]]  # (clip, frame) that stands in where `frames` is -1

    def features(self, t: int) -> ImageFeatures:
        """Of every track's t-th frame."""
        rows = []
        for track, clip_idx in enumerate(self.clip_idx):
            frame_idx = int(self.frames[track, t])
            owner, frame_idx = self.strangers[track] if frame_idx < 0 else (clip_idx, frame_idx)
            rows.append(self.clips[owner].features.row(frame_idx))
        vision = torch.cat([row.vision for row in rows]).float()
        return ImageFeatures(vision, [torch.cat([row.high_res[level] for row in rows]).float() for level in range(2)])


def draw_tracks(clips: list[Clip], rng: np.random.Generator, num_tracks: int, length: int) -> Tracks:
    """Choose objects that are visible on the first of `length` frames; a tenth of them is taken away for a while."""
    clip_idx, frames, targets, boxes, strangers = [], [], [], [], []
    order = rng.permutation(len(clips))
    for position in range(1000):
        index = int(order[position % len(order)])
        clip = clips[index]
        start = int(rng.integers(0, len(clip.features.vision) - length + 1))
        visible = np.flatnonzero((clip.masks[:, start].float().sum((1, 2)) / 255 > 2 * MIN_SHARE).numpy())
        for obj in rng.permutation(visible)[:4]:
            own = torch.arange(start, start + length)
            target = clip.masks[obj, start : start + length].float() / 255
            stranger = int(rng.integers(len(clips)))
            if length > 2 and stranger != index and rng.random() < 0.1:
                first = int(rng.integers(1, length))
                gone = slice(first, first + int(rng.integers(1, 4)))
                own[gone], target[gone] = -1, 0
            clip_idx.append(index)
            frames.append(own)
            targets.append(target)
            boxes.append(clip.boxes_xyxy[obj, start])
            strangers.append((stranger, int(rng.integers(len(clips[stranger].features.vision)))))
        if len(clip_idx) >= num_tracks:
            break
    kept = slice(num_tracks)
    return Tracks(
        clip_idx[kept],
        clips,
        torch.stack(frames[kept]),
        torch.stack(targets[kept]),
        torch.stack(boxes[kept]),
        strangers[kept],
    )


@dataclass
class Memory:
    """What the tracks of a rollout have remembered so far, frame after frame; the first is the conditioning frame."""

    spatial: list[Tensor]  # (N, mem_dim, h, w) each
    pointers: list[Tensor]  # (N, C) each

    def read(self, model: SAM2Base, vision: Tensor, pointer_span: int) -> Tensor:
        """Condition the next frame's features on the memory, as the video predictor does."""
        now = len(self.spatial)
        recent = list(range(max(1, now - model.config.num_maskmem + 1), now))
        device = vision.device
        spatial = torch.stack([self.spatial[t] for t in (0, *recent)], 1)
        ages = torch.tensor([0, *(now - t for t in recent)], device=device).expand(len(vision), -1)
        earlier = list(range(max(1, now - pointer_span + 1), now))[::-1]
        pointers = torch.stack([self.pointers[t] for t in (0, *earlier)], 1)
        elapsed = torch.tensor([now, *(now - t for t in earlier)], device=device, dtype=torch.float32)
        times = (elapsed / max(pointer_span - 1, 1)).expand(len(vision), -1)
        tokens, encoding, num_pointer_tokens = model.assemble_memory(spatial, ages, pointers, times)
        return model.condition_on_memory(model.attend_to_frame(vision), tokens, encoding, num_pointer_tokens)


def mask_logits_of(targets: Tensor, side: int) -> Tensor:
    """True masks (N, LOSS_SIDE, LOSS_SIDE) as logits (N, 1, side, side), ±10 where they are certain."""
    return F.interpolate(targets.unsqueeze(1), size=(side, side), mode="area") * 20 - 10


def remember(
    model: SAM2Base, memory: Memory, vision: Tensor, logits: Tensor, token: Tensor, scores: Tensor, hard: bool
) -> None:
    """Encode a frame with the masks (N, 1, 4h, 4w) found on it.

    Args:
        scores: (N, 1) presence logits; where they are not positive the mask is empty.
        hard: thresholded masks go into memory, as on a prompted frame.
    """
    masks = torch.where(scores[:, :, None, None] > 0, logits.float(), NO_OBJ_SCORE)
    high_res = model.upscale(masks)
    if hard:
        high_res = (high_res > 0).float() * 2000 - 1000
    memory.spatial.append(model.encode_memory(vision, high_res, scores, is_mask_from_points=False))
    memory.pointers.append(model._pointer(token, scores))


def prompt_first_frame(
    model: SAM2Base, seen: ImageFeatures, tracks: Tracks, kind: str, targets: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Prompt every track on its first frame with a box, a point or its mask.

    Returns:
        Mask logits (N, 1, 4h, 4w), tokens (N, C), presence (N, 1) and the loss of the answer.
    """
    count, device, size = len(targets), targets.device, model.image_size
    vision = seen.vision if kind == "mask" else model.add_no_memory(seen.vision)  # as the predictors do
    prior = None
    if kind == "box":
        coords, labels = jitter_boxes(tracks.boxes_xyxy, size), [2, 3]
    elif kind == "point":
        coords = points_inside(tracks.targets[:, 0] > 0.9) * (size / LOSS_SIDE) + 0.5
        labels = [1]
    else:
        coords, labels = torch.zeros(count, 1, 2), [-1]
        full = (F.interpolate(targets.unsqueeze(1), size=(size, size), mode="bilinear") > 0.5).float()
        prior = model.mask_downsample(full)
    kinds = torch.tensor([labels], dtype=torch.int32, device=device).expand(count, -1)
    prompts = Prompts(coords.to(device), kinds, prior)
    masks, ious, tokens, scores = decode(model, vision, seen.high_res, prompts)
    loss, _ = candidates_loss(masks, ious, targets)
    rows = torch.arange(count, device=device)
    chosen = ious[:, 1:].argmax(1) + 1 if kind == "point" else torch.zeros_like(rows)
    logits = masks[rows, chosen].unsqueeze(1).float()
    if kind == "mask":
        logits = mask_logits_of(targets, logits.shape[-1])
    loss = loss + F.softplus(-scores.float()).mean() * 0.2
    return logits.detach(), tokens[rows, chosen], torch.full_like(scores, 10.0), loss


def rollout(
    model: SAM2Base, tracks: Tracks, rng: np.random.Generator, teacher: float, device: torch.device
) -> tuple[Tensor, dict[str, float]]:
    """Follow the tracks over all their frames.

    Args:
        teacher: chance that a track's memory of a frame holds the true mask instead of the predicted one.

    Returns:
        The loss per tracked frame, and figures.
    """
    length = tracks.frames.shape[1]
    targets = tracks.targets.to(device)
    kind = str(rng.choice(["box", "box", "point", "mask"]))
    seen = tracks.features(0)
    seen = ImageFeatures(seen.vision.to(device), [level.to(device) for level in seen.high_res])
    logits, token, scores, first_loss = prompt_first_frame(model, seen, tracks, kind, targets[:, 0])
    side = logits.shape[-1]
    if rng.random() < teacher:
        logits = mask_logits_of(targets[:, 0], side)
    memory = Memory([], [])
    remember(model, memory, seen.vision, logits, token, scores, hard=bool(rng.random() < 0.6))
    pointer_span = 16 if rng.random() < 0.8 else int(rng.integers(length, 17)) if length < 17 else 16
    nothing = torch.full((len(targets), 1), -1, dtype=torch.int32, device=device)
    no_prompt = Prompts(torch.zeros(len(targets), 1, 2, device=device), nothing)
    total = torch.zeros((), device=device)
    overlaps: list[float] = []
    absent_right: list[float] = []
    present_right: list[float] = []
    for t in range(1, length):
        seen = tracks.features(t)
        seen = ImageFeatures(seen.vision.to(device), [level.to(device) for level in seen.high_res])
        vision = memory.read(model, seen.vision, pointer_span)
        masks, ious, tokens, scores = decode(model, vision, seen.high_res, no_prompt)
        present = targets[:, t].sum((1, 2)) > MIN_SHARE
        logits = masks[:, :1].float()
        fine = F.interpolate(logits, size=targets.shape[-2:], mode="bilinear")
        losses = mask_loss(fine, targets[:, t])[:, 0]
        iou = mask_iou(fine.detach(), targets[:, t])[:, 0]
        quality = (ious[:, 0].float() - iou).abs()
        presence = F.softplus(torch.where(present, -scores[:, 0].float(), scores[:, 0].float()))
        presence = presence * torch.where(present, 1.0, ABSENT_WEIGHT)
        weight = present.float()
        total = total + ((losses + 0.5 * quality) * weight).sum() / weight.sum().clamp(min=1) + 0.5 * presence.mean()
        found = scores[:, 0] > 0
        overlaps.append(float((iou * weight).sum() / weight.sum().clamp(min=1)))
        if (~present).any():
            absent_right.append(float((~found)[~present].float().mean()))
        present_right.append(float(found[present].float().mean()) if present.any() else math.nan)
        if t + 1 < length:
            told = torch.rand(len(targets), device=device) < teacher
            logits = torch.where(told[:, None, None, None], mask_logits_of(targets[:, t], side), logits.detach())
            true_scores = present.float().unsqueeze(1) * 20 - 10
            scores = torch.where(told[:, None], true_scores, scores.detach().float())
            remember(model, memory, seen.vision, logits, tokens[:, 0], scores, hard=False)
    figures = {
        "J": float(np.mean(overlaps)),
        "last": overlaps[-1],
        "absent": float(np.mean(absent_right)) if absent_right else math.nan,
        "present": float(np.nanmean(present_right)),
    }
    return total / (length - 1) + 0.5 * first_loss, figures


def memory_step(bank: ClipBank, step: int, fraction: float) -> tuple[Tensor, dict[str, float]]:
    """One step of the memory stage, with the encoder frozen.

    Args:
        fraction: how much of the stage is done, 0..1: rollouts grow longer, true masks in memory rarer.

    Returns:
        The loss, and figures to print.
    """
    rng = np.random.default_rng([31, step])
    torch.manual_seed(step)
    length = next(frames for until, frames in ROLLOUT_FRAMES if fraction < until)
    tracks = draw_tracks(bank.clips, rng, max(FRAMES_PER_STEP // length, 4), length)
    return rollout(bank.model, tracks, rng, teacher=max(0.0, 1 - fraction / 0.4), device=bank.model.device)


def make_final_batch(step: int, size: int, real: RealScenes | None = None) -> tuple[list[list[Scene]], list[Batch]]:
    """Two short clips that begin with an object, and the images of some image steps."""
    rng = np.random.default_rng([37, step])
    clips: list[list[Scene]] = []
    while len(clips) < 2:
        scenes = make_training_clip(1_000_000 + int(rng.integers(10_000_000)), size, real)
        start = int(rng.integers(CLIP_FRAMES - FINAL_FRAMES + 1))
        scenes = scenes[start : start + FINAL_FRAMES]
        if (scenes[0].masks.sum((1, 2)) > 40).any():
            clips.append(scenes)
    first = 10_000_000 + FINAL_IMAGE_BATCHES * step
    return clips, [make_image_batch(first + i, size, real) for i in range(FINAL_IMAGE_BATCHES)]


def final_step(
    model: SAM2Base, batch: tuple[list[list[Scene]], list[Batch]], step: int
) -> tuple[Tensor, dict[str, float]]:
    """One step of the final stage, all of it with gradients; see `make_final_batch`.

    Returns:
        The loss, and figures to print.
    """
    rng = np.random.default_rng([38, step])
    torch.manual_seed(step)
    clips = [encode_clip(model, scenes) for scenes in batch[0]]
    tracks = draw_tracks(clips, rng, 6, FINAL_FRAMES)
    loss, figures = rollout(model, tracks, rng, teacher=0.0, device=model.device)
    loss = loss + 0.05 * scale_penalty(torch.cat([clip.features.vision for clip in clips]))
    of_images = [
        image_step(model, images, FINAL_IMAGE_BATCHES * step + i, fraction=1.0) for i, images in enumerate(batch[1])
    ]
    loss = loss + torch.stack([image_loss for image_loss, _ in of_images]).sum()
    return loss, figures | {name: float(np.nanmean([seen[name] for _, seen in of_images])) for name in ("box", "other")}


@torch.no_grad()
def align_memory(model: SAM2Base, vision: Tensor) -> None:
    """Start the memory modules so that a frame's cells find the same looks in memory, and whether the mask covered
    them.

    The memory encoder passes on the features' leading directions and, beside them, what the mask says; the first
    cross-attention compares the former in those channels that rotary encoding turns least.

    Args:
        vision: (B, C, h, w) features of some frames.
    """
    dim, mem_dim = model.config.d_model, model.config.mem_dim
    num_looks, num_passed = 3 * mem_dim // 4, 3 * dim // 4
    cells = vision.float().permute(0, 2, 3, 1).reshape(-1, dim)
    _, _, directions = torch.linalg.svd(cells - cells.mean(0), full_matrices=False)  # (C, C), strongest first
    encoder = model.memory_encoder
    passed, free = directions[:num_passed], directions[num_passed:]
    encoder.pix_feat_proj.weight.copy_((passed.T @ passed)[:, :, None, None])
    encoder.pix_feat_proj.bias.zero_()
    last = encoder.mask_downsampler.encoder[-1]
    last.weight.copy_((2 * free.T @ free @ last.weight.flatten(1))[:, :, None, None])
    encoder.out_proj.weight.copy_(torch.cat((directions[:num_looks], free[: mem_dim - num_looks]))[:, :, None, None])
    encoder.out_proj.bias.zero_()
    # channels of rotary encoding come in pairs, first those turned by x, then by y, each from fast to slow
    half = dim // 2
    slow_first = [axis + channel for channel in range(half - 1, -1, -1) for axis in (0, half)][:num_looks]
    attention = model.memory_attention.layers[0].cross_attn_image
    for projection, rows in (
        (attention.q_proj, directions[:num_looks]),
        (attention.k_proj, torch.eye(num_looks, mem_dim)),
    ):
        projection.weight *= 0.2
        projection.weight[slow_first] = 0.85 * rows.to(projection.weight)
