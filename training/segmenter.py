"""Train the bundled SAM 2.1 nano from nothing on procedural scenes, and export it in the official checkpoint layout.

    python -m training.segmenter                       # everything, into checkpoints/sam2.1_hiera_nano.pt; again: goes on where it was
    python -m training.segmenter --image-minutes 90 --memory-minutes 120 --final-minutes 30

Three stages, each as long as its minutes say (of training, interruptions not counted):

1. images: the whole model but its memory, prompted with boxes first, then also points and earlier masks; pairs of frames teach
   features that can be matched.
2. memory: encoder frozen and its features of many clips cached; objects are followed over ever longer stretches, at first with
   the true masks in memory, then with the model's own.
3. final: the same with the encoder trained too, slowly.

A GPU is used, with bfloat16 autocast, when there is one. On two CPU cores the default minutes give the shipped weights.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sam2.config import load_config
from sam2.modeling.sam2_base import ImageFeatures, SAM2Base
from training.scenes import Scene, make_clip, make_scene
from training.segmenter_losses import mask_iou, mask_loss, matching_loss

EXPORT_PATH = Path("checkpoints/sam2.1_hiera_nano.pt")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in 0..1, as the predictors normalise

SINGLE_SCENES, FRAME_PAIRS = 4, 1  # images of one step of the image stage: scenes, and pairs of frames of one clip
PROMPTS_PER_IMAGE = 6
LOSS_SIDE = 96  # masks are compared at this many cells a side, twice the decoder's resolution
EMA_HALF_LIFE = 120  # steps, of the average of the weights that is exported
PAIR_KINDS = ("drift", "crossing", "occlusion", "mixed")


@dataclass
class Batch:
    """Images and the objects on them that are prompted."""

    images: Tensor  # (B, 3, S, S) normalised
    image_idx: Tensor  # (P,) which image each prompt is on
    masks: Tensor  # (P, S, S) float, the prompted objects
    boxes_xyxy: Tensor  # (P, 4) px
    owners: Tensor  # (2·K, h, w) object of each cell of the last 2·K images, see `matching_loss`


def normalise(images: list[np.ndarray]) -> Tensor:
    """RGB uint8 images → (B, 3, H, W) float32 as the image encoder expects."""
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return (stacked - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def cell_owners(scene: Scene, cells: int) -> np.ndarray:
    """(cells, cells) id of the object that fills most of each cell, 0 background, -1 where it is a matter of a boundary."""
    owners = np.full((cells, cells), -1, np.int64)
    covered = np.zeros((cells, cells), np.float32)
    for obj_id, mask in zip(scene.ids, scene.masks, strict=True):
        share = cv2.resize(mask.astype(np.float32), (cells, cells), interpolation=cv2.INTER_AREA)
        owners[share > 0.6] = obj_id
        covered += share
    owners[covered < 0.1] = 0
    return owners


def make_image_batch(step: int, size: int, rng: np.random.Generator) -> Batch:
    """Compose the images of one step and choose the objects to prompt."""
    scenes = [make_scene(step * SINGLE_SCENES + i, (size, size)) for i in range(SINGLE_SCENES)]
    for i in range(FRAME_PAIRS):
        kind = PAIR_KINDS[int(rng.integers(len(PAIR_KINDS)))]
        clip = make_clip(step * FRAME_PAIRS + i, 12, (size, size), kind=kind, num_objects=(3, 7))
        gap = int(rng.integers(1, 11))
        frames = [scene for frame_idx, scene in zip(range(gap + 1), clip, strict=False) if frame_idx in (0, gap)]
        scenes += frames
    image_idx, masks, boxes = [], [], []
    for index, scene in enumerate(scenes):
        visible = np.flatnonzero(scene.masks.sum((1, 2)) >= 16)
        if len(visible) == 0:
            continue
        chosen = rng.permutation(visible)
        chosen = np.concatenate([chosen, chosen])[:PROMPTS_PER_IMAGE]  # at most twice, with prompts of its own each time
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


# ---- prompts ----


def jitter_boxes(boxes_xyxy: Tensor, size: int, strength: float = 0.06) -> Tensor:
    """(P, 2, 2) corners, each moved by noise in proportion to the box, as a detector's are."""
    extent = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).repeat(1, 2)
    amount = strength * torch.rand(len(boxes_xyxy), 1)
    noisy = boxes_xyxy + amount * extent * torch.randn_like(boxes_xyxy)
    return noisy.clamp(0, size).reshape(-1, 2, 2)


def points_inside(masks: Tensor) -> Tensor:
    """One random pixel (P, 1, 2) xy of each mask (P, H, W); where a mask is empty, of the whole image."""
    width = masks.shape[-1]
    chance = masks.flatten(1) + 1e-6
    pixel = torch.multinomial(chance, 1)[:, 0]
    return torch.stack((pixel % width, pixel // width), -1).float().unsqueeze(1)


def points_around(masks: Tensor) -> Tensor:
    """One random pixel (P, 1, 2) xy close to each mask but not on it."""
    grown = F.max_pool2d(F.max_pool2d(masks.unsqueeze(1), 13, 1, 6), 13, 1, 6)[:, 0]
    return points_inside((grown - masks).clamp(min=0))


@dataclass
class Prompts:
    """Prompts of one kind: what `PromptEncoder` takes."""

    rows: Tensor  # (Q,) which prompts of the batch
    coords: Tensor  # (Q, K, 2) px
    labels: Tensor  # (Q, K)
    masks: Tensor | None = None  # (Q, 1, 4h, 4w) logits of an earlier answer


def draw_prompts(batch: Batch, rows: Tensor, kind: str) -> Prompts:
    """Prompts of one kind ("box", "point", "box+point", "points") for some objects of a batch."""
    masks, size = batch.masks[rows], batch.masks.shape[-1]
    corners = jitter_boxes(batch.boxes_xyxy[rows], size)
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
    return Prompts(rows, coords, torch.tensor([labels], dtype=torch.int32).expand(len(rows), -1))


def corrected(prompts: Prompts, mask_logits: Tensor, masks: Tensor) -> Prompts:
    """The next round of a dialogue: the answer (Q, 1, 4h, 4w) and one more click where it is wrong."""
    size = masks.shape[-1]
    answer = F.interpolate(mask_logits, size=(size, size), mode="bilinear")[:, 0] > 0
    wrong = answer != (masks > 0.5)
    click = points_inside(wrong.float())
    column, row = click[:, 0].long().unbind(-1)
    label = masks[torch.arange(len(masks)), row, column].to(torch.int32)
    return Prompts(
        prompts.rows,
        torch.cat((prompts.coords, click), 1),
        torch.cat((prompts.labels, label[:, None]), 1),
        mask_logits.clamp(-32, 32),
    )


def decode(model: SAM2Base, vision: Tensor, high_res: list[Tensor], prompts: Prompts) -> tuple[Tensor, ...]:
    """All four mask candidates, their qualities, tokens and presence; see `MaskDecoder.predict_all`."""
    sparse, dense = model.sam_prompt_encoder((prompts.coords, prompts.labels), prompts.masks, len(prompts.coords))
    image_pe = model.sam_prompt_encoder.get_dense_pe()
    return model.sam_mask_decoder.predict_all(vision, image_pe, sparse, dense, high_res)


def candidates_loss(mask_logits: Tensor, ious: Tensor, targets: Tensor, single_only: bool) -> tuple[Tensor, Tensor]:
    """Loss of the single mask, of the three candidates (the best and the mean) and of the predicted qualities.

    Args:
        mask_logits: (P, 4, h, w).
        ious: (P, 4).
        targets: (P, LOSS_SIDE, LOSS_SIDE).

    Returns:
        The loss, and the mean IoU of the single mask.
    """
    logits = F.interpolate(mask_logits.float(), size=targets.shape[-2:], mode="bilinear")
    losses = mask_loss(logits, targets)
    true_ious = mask_iou(logits.detach(), targets)
    loss = losses[:, 0].mean()
    if not single_only:
        loss = loss + 0.25 * losses[:, 1:].mean() + 0.25 * losses[:, 1:].amin(1).mean()
    loss = loss + (ious.float() - true_ious).abs().mean()
    return loss, true_ious[:, 0].mean()


# ---- stages ----


@dataclass
class Progress:
    """Where training is; part of the checkpoint."""

    stage: int = 0
    seconds: float = 0.0  # of training in this stage
    step: int = 0  # of all stages
    history: list[str] = field(default_factory=list)


class Trainer:
    """Weights, their running average and the optimiser, with a checkpoint to go on from."""

    def __init__(self, folder: Path, minutes: tuple[float, float, float]) -> None:
        self.folder = folder
        self.minutes = minutes
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(0)
        self.model = SAM2Base(load_config("sam2.1-nano"))
        prepare_initial_weights(self.model)
        self.model.to(self.device)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.progress = Progress()
        self.optimiser_state: dict | None = None
        if self.checkpoint_path.is_file():
            saved = torch.load(self.checkpoint_path, map_location=self.device, weights_only=False)
            self.model.load_state_dict(saved["model"])
            self.average.load_state_dict(saved["average"])
            self.progress, self.optimiser_state = saved["progress"], saved["optimiser"]

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "checkpoint.pt"

    def fraction(self) -> float:
        """How much of the current stage is done, 0..1."""
        return min(1.0, self.progress.seconds / max(60 * self.minutes[self.progress.stage], 1e-9))

    def run_stage(
        self,
        groups: Iterable[dict],
        step: Callable[[int, float], tuple[Tensor, dict[str, float]]],
        say_every: int = 50,
    ) -> None:
        """Train until the stage's time is over.

        Args:
            groups: parameter groups, each with its peak learning rate.
            step: (step number, fraction done) → loss and figures to print.
            say_every: steps between two lines of progress.
        """
        groups = list(groups)
        parameters = [parameter for group in groups for parameter in group["params"]]
        optimiser = torch.optim.AdamW(groups, weight_decay=0.01, betas=(0.9, 0.98), foreach=True)
        if self.optimiser_state is not None:
            optimiser.load_state_dict(self.optimiser_state)
            self.optimiser_state = None
        peaks = [group["lr"] for group in groups]
        figures: dict[str, list[float]] = {}
        last_saved, last_time = time.monotonic(), time.monotonic()
        decay = 0.5 ** (1 / EMA_HALF_LIFE)
        start_step = self.progress.step
        while self.fraction() < 1:
            fraction = self.fraction()
            warmup = min(1.0, (self.progress.step - start_step + 1) / 60)
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * warmup * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * fraction)))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                loss, numbers = step(self.progress.step, fraction)
            optimiser.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            if torch.isfinite(norm):
                optimiser.step()
            kept = min(decay, (1 + self.progress.step - start_step) / (10 + self.progress.step - start_step))
            with torch.no_grad():
                torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - kept)
            for name, value in {**numbers, "loss": float(loss)}.items():
                figures.setdefault(name, []).append(value)
            self.progress.step += 1
            now = time.monotonic()
            self.progress.seconds += now - last_time
            last_time = now
            if self.progress.step % say_every == 0:
                means = " ".join(f"{name} {np.nanmean(values):.3f}" for name, values in figures.items())
                minutes = self.progress.seconds / 60
                line = f"stage {self.progress.stage} step {self.progress.step} {minutes:.1f} min {means}"
                self.progress.history.append(line)
                print(line, flush=True)
                figures = {}
            if now - last_saved > 120:
                self.save(optimiser)
                last_saved = time.monotonic()
                last_time = last_saved
        self.progress.stage, self.progress.seconds = self.progress.stage + 1, 0.0
        self.save(None)

    def save(self, optimiser: torch.optim.Optimizer | None) -> None:
        """Write the checkpoint, replacing the one before only when it is complete."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.checkpoint_path.with_suffix(".part")
        state = None if optimiser is None else optimiser.state_dict()
        torch.save(
            {
                "model": self.model.state_dict(),
                "average": self.average.state_dict(),
                "progress": self.progress,
                "optimiser": state,
            },
            partial,
        )
        os.replace(partial, self.checkpoint_path)


def prepare_initial_weights(model: SAM2Base) -> None:
    """Bring the top features to zero mean and unit variance, and let the memory encoder's fuser take part.

    Nothing in the architecture keeps the top level near unit scale; with another scale, what a mask adds to a memory is
    invisible beside the features.
    """
    with torch.no_grad():
        for layer in model.memory_encoder.fuser.layers:
            layer.gamma.fill_(0.1)
    images = normalise([make_scene(seed, (model.image_size, model.image_size)).image for seed in range(16)])
    normalise_top_level(model, images)


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


def scale_penalty(vision: Tensor) -> Tensor:
    """How far the channels of (B, C, h, w) are from zero mean and unit variance."""
    mean, variance = vision.float().mean((0, 2, 3)), vision.float().var((0, 2, 3))
    return (mean.square() + (variance + 1e-4).log().square() / 4).mean()


def pick(features: ImageFeatures, index: Tensor) -> ImageFeatures:
    """The features of the frames (or frame of each prompt) in `index`."""
    return ImageFeatures(features.vision[index], [level[index] for level in features.high_res])


def image_step(trainer: Trainer, step: int, fraction: float) -> tuple[Tensor, dict[str, float]]:
    """One step of the image stage: encode, prompt, decode."""
    model, device = trainer.model, trainer.device
    rng = np.random.default_rng([17, step])
    torch.manual_seed(step)
    batch = make_image_batch(step, model.image_size, rng)
    features = model.forward_image(batch.images.to(device))
    targets = F.interpolate(batch.masks.unsqueeze(1), size=(LOSS_SIDE, LOSS_SIDE), mode="area")[:, 0]
    order = torch.randperm(len(batch.masks))
    num_boxes = len(order) if fraction < 0.2 else round(0.6 * len(order))
    kinds = [("box", order[:num_boxes])]
    if num_boxes < len(order):
        other = str(rng.choice(["point", "point", "box+point", "points", "refine"]))
        kinds.append((other, order[num_boxes:]))
    total = torch.zeros((), device=device)
    numbers: dict[str, float] = {"box": math.nan, "other": math.nan}
    for kind, rows in kinds:
        prompts = draw_prompts(batch, rows, str(rng.choice(["box", "point"])) if kind == "refine" else kind)
        seen = pick(features, batch.image_idx[rows].to(device))
        vision = model.add_no_memory(seen.vision)
        if kind == "refine":
            with torch.no_grad():
                first = decode(model, vision, seen.high_res, to_device(prompts, device))[0][:, :1].float()
            prompts = corrected(prompts, first.cpu(), batch.masks[rows])
        masks, ious, _, _ = decode(model, vision, seen.high_res, to_device(prompts, device))
        loss, iou = candidates_loss(masks, ious, targets[rows].to(device), single_only=fraction < 0.1)
        total = total + loss * len(rows) / len(order)
        numbers["box" if kind == "box" else "other"] = float(iou)
    matching = matching_loss(features.vision[SINGLE_SCENES:].float(), batch.owners.to(device))
    penalty = scale_penalty(features.vision)
    numbers |= {"match": float(matching), "scale": float(penalty)}
    return total + 0.15 * matching + 0.05 * penalty, numbers


def to_device(prompts: Prompts, device: torch.device) -> Prompts:
    """The same prompts on another device."""
    masks = None if prompts.masks is None else prompts.masks.to(device)
    return Prompts(prompts.rows, prompts.coords.to(device), prompts.labels.to(device), masks)


MEMORY_PARTS = (
    "memory_attention",
    "memory_encoder",
    "maskmem_tpos_enc",
    "no_mem_pos_enc",
    "obj_ptr_proj",
    "obj_ptr_tpos_proj",
    "mask_downsample",
    "no_obj_ptr",
    "no_obj_embed_spatial",
)


def parameters_of(model: SAM2Base, wanted: Callable[[str], bool]) -> list[Tensor]:
    """Parameters by name."""
    return [parameter for name, parameter in model.named_parameters() if wanted(name)]


def export(model: SAM2Base, path: Path) -> None:
    """Write the official layout, {"model": state_dict}, in half precision."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    torch.save({"model": {name: value.half().cpu() for name, value in model.state_dict().items()}}, partial)
    os.replace(partial, path)


def main() -> None:
    """Train, going on from the checkpoint in `--folder` if there is one, and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/segmenter"), help="where the checkpoint lies")
    parser.add_argument("--image-minutes", type=float, default=50)
    parser.add_argument("--memory-minutes", type=float, default=50)
    parser.add_argument("--final-minutes", type=float, default=10)
    parser.add_argument("--export", type=Path, default=EXPORT_PATH)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 for PyTorch's default")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    trainer = Trainer(options.folder, (options.image_minutes, options.memory_minutes, options.final_minutes))
    model = trainer.model
    if trainer.progress.stage == 0:
        trained = parameters_of(model, lambda name: not name.startswith(MEMORY_PARTS))
        trainer.run_stage([{"params": trained, "lr": 1.5e-3}], lambda s, f: image_step(trainer, s, f))
    export(trainer.average, options.export)


if __name__ == "__main__":
    main()
