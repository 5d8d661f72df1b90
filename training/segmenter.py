"""Train the bundled SAM 2.1 nano from nothing on procedural scenes, and export it in the official checkpoint layout.

    python -m training.segmenter      # all stages, into checkpoints/sam2.1_hiera_nano.pt; goes on after an interruption
    python -m training.segmenter --image-steps 40000 --memory-steps 10000 --final-steps 2000     # a GPU

    python -m training.segmenter --start-from checkpoints/sam2.1_hiera_nano.pt     # improve exported weights

Three stages:

1. images: the whole model but its memory, prompted with boxes first, then also points and earlier masks; pairs of
   frames teach features that can be matched.
2. memory: encoder frozen and its features of many clips cached; objects are followed over ever longer stretches, at
   first with the true masks in memory, then with the model's own.
3. final: the same with the encoder trained too, slowly, and with single images beside the clips.

A GPU is used, with bfloat16 autocast, when there is one. The shipped weights took four runs on one CPU core, each but
the first with `--start-from` on what the one before had exported: 2,500 + 7,000 + 2,600 image steps, 400 + 1,500 + 500
+ 150 memory steps and 530 + 450 final steps, some six hours in all; the defaults add them up. The first two runs were
at 192 pixels, the last two at 256; at 320, where the model looks now, the same weights follow better, and a fifth run
there (210 memory and 500 final steps) brought nothing and was thrown away. The first 1,450 image steps were taken while
this recipe was being written, with the balanced loss and a faster falling rate.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from sam2.config import load_config
from sam2.modeling.sam2_base import SAM2Base
from sam2.weights import load_into
from training.scenes import make_scene
from training.segmenter_images import image_step, normalise_top_level
from training.segmenter_memory import ClipBank, align_memory, final_step, memory_step
from training.segmenter_prompts import normalise

EXPORT_PATH = Path("checkpoints/sam2.1_hiera_nano.pt")
EMA_HALF_LIFE = 120  # steps at most, of the average of the weights that is exported
CHECKPOINT_SECONDS = 120
WARMUP_STEPS = 60
WARM_START = 0.4  # how far into each stage's schedule exported weights start
UNSEEN_STEP = 700_000  # where their scenes start, beyond those that they have learnt from
IMAGE_RATE, DECODER_RATE, MEMORY_RATE, FINAL_RATE = 1.5e-3, 7e-4, 2e-3, 2e-4  # peak learning rates

# parameters that no image needs
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


@dataclass
class Progress:
    """Where training is; part of the checkpoint."""

    stage: int = 0
    step: int = 0  # in this stage
    seconds: float = 0.0  # of training in all stages
    history: list[str] = field(default_factory=list)


class Trainer:
    """Weights, their running average and the optimiser, with a checkpoint to go on from."""

    def __init__(self, folder: Path, steps: tuple[int, int, int], start_from: Path | None = None) -> None:
        self.folder = folder
        self.steps = steps
        self.first_fraction = 0.0 if start_from is None else WARM_START
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(0)
        self.model = SAM2Base(load_config("sam2.1-nano"))
        if start_from is None:
            prepare_initial_weights(self.model)
        else:
            load_into(self.model, start_from)
        self.model.to(self.device)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.progress = Progress()
        self.optimiser_state: dict | None = None
        if self.checkpoint_path.is_file():
            saved = torch.load(self.checkpoint_path, map_location=self.device, weights_only=True)
            self.model.load_state_dict(saved["model"])
            self.average.load_state_dict(saved["average"])
            self.progress, self.optimiser_state = Progress(**saved["progress"]), saved["optimiser"]

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "checkpoint.pt"

    def fraction(self) -> float:
        """How far the current stage's schedule is, up to 1."""
        steps = self.steps[self.progress.stage]
        done = self.progress.step / steps if steps else 1.0
        return self.first_fraction + (1 - self.first_fraction) * done

    def run_stage(
        self,
        groups: list[dict],
        step: Callable[[int, float], tuple[Tensor, dict[str, float]]],
        say_every: int = 50,
    ) -> None:
        """Train until the stage's steps are done; the next stage starts from the average of the weights.

        Args:
            groups: parameter groups, each with its peak learning rate.
            step: (step number, fraction done) → loss and figures to print.
            say_every: steps between two lines of progress.
        """
        parameters = [parameter for group in groups for parameter in group["params"]]
        optimiser = torch.optim.AdamW(groups, weight_decay=0.01, betas=(0.9, 0.98), foreach=True)
        fresh_since = self.progress.step if self.optimiser_state is None else -WARMUP_STEPS
        if self.optimiser_state is not None:
            optimiser.load_state_dict(self.optimiser_state)
            self.optimiser_state = None
        peaks = [group["lr"] for group in groups]
        figures: dict[str, list[float]] = {}
        last_saved, last_time = time.monotonic(), time.monotonic()
        decay = 0.5 ** (1 / min(EMA_HALF_LIFE, max(1, self.steps[self.progress.stage] // 12)))
        while self.fraction() < 1:
            fraction = self.fraction()
            warmup = min(1.0, (self.progress.step - fresh_since + 1) / WARMUP_STEPS)
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * warmup * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * fraction)))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                loss, numbers = step(self.progress.step, fraction)
            optimiser.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            if torch.isfinite(norm):
                optimiser.step()
            kept = min(decay, (1 + self.progress.step) / (10 + self.progress.step))
            with torch.no_grad():
                torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - kept)
            for name, value in {**numbers, "loss": float(loss.detach())}.items():
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
            if now - last_saved > CHECKPOINT_SECONDS:
                self.save(optimiser)
                last_saved = time.monotonic()
                last_time = last_saved
        self.model.load_state_dict(self.average.state_dict())
        self.progress.stage, self.progress.step = self.progress.stage + 1, 0
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
                "progress": asdict(self.progress),
                "optimiser": state,
            },
            partial,
        )
        os.replace(partial, self.checkpoint_path)


def prepare_initial_weights(model: SAM2Base) -> None:
    """Start from weights that make the first steps easier.

    - The decoder's attention between tokens and image starts with equal projections of queries and keys, so that a
      token attends to the place its position encoding names; learning that alignment takes most of the first minutes
      otherwise.
    - The random frequencies of positions are spread over scales, half of them along one axis only: slow ones say on
      which side of a box's edge a cell lies.
    - The top features are brought to zero mean and unit variance. Nothing in the architecture keeps them near unit
      scale, and with another scale, what a mask adds to a memory is invisible beside the features.
    - The memory encoder's fuser takes part from the start.
    """
    transformer = model.sam_mask_decoder.transformer
    attentions = [transformer.final_attn_token_to_image]
    for block in transformer.layers:
        attentions += [block.cross_attn_token_to_image, block.cross_attn_image_to_token]
    frequencies = model.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix  # (2, F)
    scales = torch.logspace(math.log10(0.06), math.log10(1.5), frequencies.shape[1])
    along_one_axis = torch.eye(2).repeat(1, len(scales) // 4 + 1)[:, : len(scales) // 2]
    with torch.no_grad():
        frequencies.normal_().mul_(scales)
        frequencies[:, ::2] = along_one_axis * scales[::2]
        for attention in attentions:
            attention.q_proj.weight *= 2
            attention.k_proj.weight.copy_(attention.q_proj.weight)
        for layer in model.memory_encoder.fuser.layers:
            layer.gamma.fill_(0.1)
    images = normalise([make_scene(seed, (model.image_size, model.image_size)).image for seed in range(16)])
    normalise_top_level(model, images)


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
    parser.add_argument("--image-steps", type=int, default=12100)
    parser.add_argument("--memory-steps", type=int, default=2550)
    parser.add_argument("--final-steps", type=int, default=980)
    parser.add_argument("--clips", type=int, default=160, help="cached by the memory stage, 8 MB each")
    parser.add_argument("--export", type=Path, default=EXPORT_PATH)
    parser.add_argument("--start-from", type=Path, help="exported weights to improve instead of random ones")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 for PyTorch's default")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    steps = (options.image_steps, options.memory_steps, options.final_steps)
    trainer = Trainer(options.folder, steps, options.start_from)
    model = trainer.model
    memory = [value for name, value in model.named_parameters() if name.startswith(MEMORY_PARTS)]
    encoder = list(model.image_encoder.parameters())
    known = {id(value) for value in (*memory, *encoder)}
    decoder = [value for value in model.parameters() if id(value) not in known]

    first_step = 0 if options.start_from is None else UNSEEN_STEP
    if trainer.progress.stage == 0:
        groups = [{"params": encoder + decoder, "lr": IMAGE_RATE}]
        trainer.run_stage(groups, lambda step, fraction: image_step(model, first_step + step, fraction))
        if options.start_from is None:
            scenes = [make_scene(seed, (model.image_size, model.image_size)).image for seed in range(32)]
            with torch.no_grad():
                align_memory(model, model.forward_image(normalise(scenes).to(trainer.device)).vision)
        trainer.average.load_state_dict(model.state_dict())
        trainer.save(None)
        export(trainer.average, options.export)
    first_seed = 100_000 * trainer.progress.stage + first_step + 2 * trainer.progress.step
    if trainer.progress.stage == 1:
        bank = ClipBank(model, options.clips, first_seed)
        groups = [{"params": decoder, "lr": DECODER_RATE}, {"params": memory, "lr": MEMORY_RATE}]
        trainer.run_stage(groups, lambda step, fraction: memory_step(bank, step, fraction), say_every=10)
        export(trainer.average, options.export)
    if trainer.progress.stage == 2:
        groups = [{"params": encoder + decoder + memory, "lr": FINAL_RATE}]
        trainer.run_stage(groups, lambda step, fraction: final_step(model, first_step + step), say_every=10)
    export(trainer.average, options.export)


if __name__ == "__main__":
    main()
