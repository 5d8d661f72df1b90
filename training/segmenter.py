"""Train the bundled SAM 2.1 nano on photographs, collages, real and drawn clips; export it in the official layout.

    python -m training.segmenter                                   # all stages, goes on after an interruption
    python -m training.segmenter --start-from checkpoints/sam2.1_nano.pt     # improve exported weights
    python -m training.segmenter --real runs/real.pack --minutes 2 3 3 2 --workers 14     # ten minutes of a GPU
    python -m training.segmenter --take-over old.yaml old.pt      # decoder and memory of a nano with another trunk

Four stages, each of so many minutes:

1. small images: the whole model but its memory at 256 pixels, prompted with boxes first, then also points and earlier
   masks; pairs of frames teach features that can be matched.
2. images: the same at the full 320 pixels.
3. memory, at 256 pixels: encoder frozen and its features of many clips cached; objects are followed over ever longer
   stretches, at first with the true masks in memory, then with the model's own. Every third step prompts single images,
   so that the decoder does not forget them.
4. final, around 320 pixels: the same with the encoder trained too, slowly, and with single images beside the clips.

Minutes count what the process gets of a CPU, or the clock on a GPU.

`--real` is the folder of real photographs and clips, or a pack of it (`training/photos.py`); with `--drawn-only` the
model learns from drawn scenes alone. What starts anew, or from another trunk, needs the published weights of the trunk
(`training/imagenet.py`). A GPU is used, with bfloat16 autocast, when there is one; there `--workers` compose the
scenes. How the shipped weights came about is told in `training/README.md`.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sam2.config import load_config
from sam2.modeling.sam2_base import SAM2Base
from sam2.weights import load_into, load_state_dict
from training.imagenet import load_trunk
from training.photos import DEFAULT_FOLDER, load_clips, load_photos
from training.real_scenes import RealScenes
from training.scenes import make_scene
from training.segmenter_images import image_step, make_image_batch, normalise_top_level
from training.segmenter_memory import (
    FIRST_CLIPS,
    STEPS_PER_CLIP,
    ClipBank,
    align_memory,
    final_step,
    make_final_batch,
    make_training_clip,
    memory_step,
)
from training.segmenter_prompts import normalise
from training.take_over import take_over

EXPORT_PATH = Path("checkpoints/sam2.1_nano.pt")
EMA_HALF_LIFE = 120  # steps at most, of the average of the weights that is exported
CHECKPOINT_SECONDS = 120
WARMUP_STEPS = 60
STAGES = ("small images", "images", "memory", "final")
STAGE_SIDES = (256, 320, 256, 320)  # pixels
FINAL_SIDES, FINAL_SIDE_CHANCES = (256, 320, 384, 448), (0.2, 0.4, 0.2, 0.2)  # so that other sizes work too
WARM_START = (0.4, 0.4, 0.15, 0.0)  # how far into each stage's schedule exported weights start
TAKEN_OVER_START = (0.15, 0.35, 0.1, 0.0)  # … and those of which only the trunk is another's
TAKE_OVER_BATCHES = 60
IMAGE_STEP_EVERY = 3  # steps of the memory stage
WARM_RATE = 0.4  # of the peak learning rates of the memory stage, for exported weights
IMAGE_RATE, DECODER_RATE, MEMORY_RATE, FINAL_RATE = 1.5e-3, 7e-4, 2e-3, 3e-4  # peak learning rates
TRUNK_SCALE = 0.2  # of the trunk's rates; it starts from published weights, and its two finest levels keep them

# parameters that weights to start from may lack, as those of 9ad7472 and before do
MAP_PARTS = ("sam_prompt_encoder.prompt_map", "sam_mask_decoder.prompt_skip")
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
    stage_seconds: float = 0.0
    seconds: float = 0.0  # of training in all stages
    first_seed: int = 0  # of the scenes; other runs learn from others
    history: list[str] = field(default_factory=list)


class Trainer:
    """Weights, their running average and the optimiser, with a checkpoint to go on from."""

    def __init__(
        self,
        folder: Path,
        minutes: tuple[float, ...],
        start_from: Path | None = None,
        earlier: tuple[Path, Path] | None = None,
        images: Callable[[], Iterator[Tensor]] | None = None,
    ) -> None:
        self.folder = folder
        self.minutes = minutes
        self.first_fractions = (0.0,) * len(STAGES)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(0)
        self.model = SAM2Base(load_config("sam2.1-nano"))
        is_new = not self.checkpoint_path.is_file()
        if start_from is not None:
            given = load_state_dict(start_from)
            fresh = {name: value for name, value in self.model.state_dict().items() if name.startswith(MAP_PARTS)}
            load_into(self.model, start_from, fresh | given)
            self.first_fractions = WARM_START
        elif is_new:
            load_trunk(self.model.image_encoder.trunk)
            prepare_initial_weights(self.model)
        if earlier is not None:
            self.first_fractions = TAKEN_OVER_START
            if is_new and images is not None:
                config, weights = earlier
                before = SAM2Base(load_config(config))
                load_into(before, weights)
                explained = take_over(self.model, before, itertools.islice(images(), TAKE_OVER_BATCHES))
                print(f"variance of the earlier features explained: {explained}", flush=True)
        self.model.to(self.device)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.progress = Progress(first_seed=time.time_ns() // 1000 % 10**9)
        self.optimiser_state: dict | None = None
        if not is_new:
            saved = torch.load(self.checkpoint_path, map_location=self.device, weights_only=True)
            self.model.load_state_dict(saved["model"])
            self.average.load_state_dict(saved["average"])
            self.progress, self.optimiser_state = Progress(**saved["progress"]), saved["optimiser"]

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def first_seed(self) -> int:
        """Of the scenes that come next."""
        return self.progress.first_seed + 2 * self.progress.step

    def fraction(self) -> float:
        """How far the current stage's schedule is, up to 1."""
        seconds = 60 * self.minutes[self.progress.stage]
        done = min(1.0, self.progress.stage_seconds / seconds) if seconds else 1.0
        first = self.first_fractions[self.progress.stage]
        return first + (1 - first) * done

    def run_stage(
        self,
        groups: list[dict],
        batches: Iterable[Any],
        step: Callable[[Any, int, float], tuple[Tensor, dict[str, float]]],
        say_every: int = 50,
    ) -> None:
        """Train until the stage's minutes are over; the next stage starts from the average of the weights.

        Args:
            groups: parameter groups, each with its peak learning rate.
            batches: without end.
            step: (batch, step number, fraction done) → loss and figures to print.
            say_every: steps between two lines of progress.
        """
        set_image_size(self.model, STAGE_SIDES[self.progress.stage])
        parameters = [parameter for group in groups for parameter in group["params"]]
        optimiser = torch.optim.AdamW(groups, weight_decay=0.01, betas=(0.9, 0.98), foreach=True)
        fresh_since = self.progress.step if self.optimiser_state is None else -WARMUP_STEPS
        if self.optimiser_state is not None:
            optimiser.load_state_dict(self.optimiser_state)
            self.optimiser_state = None
        peaks = [group["lr"] for group in groups]
        figures: dict[str, list[float]] = {}
        # on a busy CPU the budget is what the process really gets of it
        budget_clock = time.monotonic if self.device.type == "cuda" else time.process_time
        last_saved, last_time = time.monotonic(), budget_clock()
        decay = 0.5 ** (1 / EMA_HALF_LIFE)
        for batch in batches:
            fraction = self.fraction()
            if fraction >= 1:
                break
            warmup = min(1.0, (self.progress.step - fresh_since + 1) / WARMUP_STEPS)
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * warmup * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * fraction)))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                loss, numbers = step(batch, self.progress.step, fraction)
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
            now = budget_clock()
            self.progress.seconds += now - last_time
            self.progress.stage_seconds += now - last_time
            last_time = now
            if self.progress.step % say_every == 0:
                means = " ".join(f"{name} {np.nanmean(values):.3f}" for name, values in figures.items())
                minutes = self.progress.seconds / 60
                line = f"{STAGES[self.progress.stage]}, step {self.progress.step}, {minutes:.1f} min: {means}"
                self.progress.history.append(line)
                print(line, flush=True)
                figures = {}
            if time.monotonic() - last_saved > CHECKPOINT_SECONDS:
                self.save(optimiser)
                last_saved, last_time = time.monotonic(), budget_clock()
        self.model.load_state_dict(self.average.state_dict())
        self.progress.stage, self.progress.step, self.progress.stage_seconds = self.progress.stage + 1, 0, 0.0
        self.progress.first_seed += 10_000_000
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


def let_encoder_learn(model: SAM2Base, learns: bool) -> None:
    """Train the image encoder or not; the trunk's stem and two finest levels, a third of its work, stay as they are."""
    trunk = model.image_encoder.trunk
    model.image_encoder.requires_grad_(learns)
    for finest in (trunk.stem, *trunk.levels[:2]):
        finest.requires_grad_(False)


def set_image_size(model: SAM2Base, side: int) -> None:
    """Let a model look at images of another size; its weights fit any."""
    model.image_size = model.sam_prompt_encoder.image_size = side
    model.sam_prompt_encoder.embedding_size = model.embedding_size


class _Made(Dataset):
    """What a function makes of each number; lets worker processes of a `DataLoader` make it."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make = make

    def __getitem__(self, number: int) -> Any:
        return self.make(number)


def endless(make: Callable[[int], Any], first: int, num_workers: int) -> Iterator[Any]:
    """`make(first)`, `make(first + 1)`, …, made ahead by worker processes if there are any."""

    def one_thread(_worker: int) -> None:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)

    numbers = range(first, first + 10**8)
    return iter(
        DataLoader(_Made(make), batch_size=None, sampler=numbers, num_workers=num_workers, worker_init_fn=one_thread)
    )


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


@torch.no_grad()
def mixed(model: SAM2Base, earlier: Path, share: float) -> SAM2Base:
    """A model whose weights are those of `model`, drawn towards earlier ones by `share`, 0..1.

    Between weights and what they became in further training, a straight line keeps most of what was gained at its one
    end and of what was known at the other (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").
    """
    between = copy.deepcopy(model)
    load_into(between, earlier)
    later = model.state_dict()
    for name, value in between.state_dict().items():
        value.lerp_(later[name], 1 - share)
    return between


@dataclass
class Parts:
    """The parameters of a model that stages train at rates of their own; what no image needs is `memory`."""

    trunk: list[nn.Parameter]
    neck: list[nn.Parameter]
    decoder: list[nn.Parameter]
    memory: list[nn.Parameter]

    @classmethod
    def of(cls, model: SAM2Base) -> Parts:
        """Those of `model`, of the trunk only what learns; see `let_encoder_learn`."""
        rest = {name: value for name, value in model.named_parameters() if not name.startswith("image_encoder.")}
        return cls(
            [value for value in model.image_encoder.trunk.parameters() if value.requires_grad],
            list(model.image_encoder.neck.parameters()),
            [value for name, value in rest.items() if not name.startswith(MEMORY_PARTS)],
            [value for name, value in rest.items() if name.startswith(MEMORY_PARTS)],
        )


def train_on_images(trainer: Trainer, real: RealScenes | None, num_workers: int, is_new: bool) -> None:
    """One of the two image stages.

    Args:
        trainer: is at that stage.
        real: photographs and clips, None for drawings alone.
        num_workers: processes that compose scenes.
        is_new: the memory has learnt nothing yet, and is prepared once features have been learnt.
    """
    model, side = trainer.model, STAGE_SIDES[trainer.progress.stage]
    batches = endless(lambda step: make_image_batch(step, side, real), trainer.first_seed, num_workers)
    parts = Parts.of(model)
    groups = [
        {"params": parts.neck + parts.decoder, "lr": IMAGE_RATE},
        {"params": parts.trunk, "lr": TRUNK_SCALE * IMAGE_RATE},
    ]
    trainer.run_stage(groups, batches, lambda batch, step, fraction: image_step(model, batch, step, fraction))
    if trainer.progress.stage == 2 and is_new:
        scenes = [make_scene(seed, (model.image_size, model.image_size)).image for seed in range(32)]
        with torch.no_grad():
            align_memory(model, model.forward_image(normalise(scenes).to(trainer.device)).vision)
        trainer.average.load_state_dict(model.state_dict())
        trainer.save(None)


def train_memory(
    trainer: Trainer, real: RealScenes | None, num_workers: int, num_clips: int, rate_scale: float
) -> None:
    """The memory stage, with a frozen encoder and `num_clips` cached clips, at `rate_scale` times the peak rates."""
    model, side = trainer.model, STAGE_SIDES[2]
    set_image_size(model, side)
    parts = Parts.of(model)
    clips = endless(lambda seed: make_training_clip(seed, side, real), trainer.first_seed, num_workers)
    images = endless(lambda seed: make_image_batch(seed, side, real), trainer.first_seed, num_workers)
    let_encoder_learn(model, False)
    bank = ClipBank(model, num_clips)
    for _ in range(FIRST_CLIPS):
        bank.add(next(clips))

    def bank_step(_batch: int, step: int, fraction: float) -> tuple[Tensor, dict[str, float]]:
        if step % STEPS_PER_CLIP == 0:
            bank.add(next(clips))
        if step % IMAGE_STEP_EVERY == IMAGE_STEP_EVERY - 1:
            return image_step(model, next(images), step, fraction=1.0)
        return memory_step(bank, step, fraction)

    groups = [
        {"params": parts.decoder, "lr": rate_scale * DECODER_RATE},
        {"params": parts.memory, "lr": rate_scale * MEMORY_RATE},
    ]
    trainer.run_stage(groups, range(10**9), bank_step, say_every=30)
    let_encoder_learn(model, True)


def train_all(trainer: Trainer, real: RealScenes | None, num_workers: int) -> None:
    """The final stage: everything but the trunk's two finest levels, slowly, on images of several sizes."""
    model = trainer.model

    def of_some_size(step: int) -> Any:
        rng = np.random.default_rng([41, step])
        return make_final_batch(step, int(rng.choice(FINAL_SIDES, p=FINAL_SIDE_CHANCES)), real)

    def final_step_of_size(batch: Any, step: int, _fraction: float) -> tuple[Tensor, dict[str, float]]:
        set_image_size(model, batch[1][0].images.shape[-1])
        return final_step(model, batch, step)

    parts = Parts.of(model)
    finals = endless(of_some_size, trainer.first_seed, num_workers)
    groups = [
        {"params": parts.neck + parts.decoder + parts.memory, "lr": FINAL_RATE},
        {"params": parts.trunk, "lr": TRUNK_SCALE * FINAL_RATE},
    ]
    trainer.run_stage(groups, finals, final_step_of_size, say_every=10)


def main() -> None:
    """Train, going on from the checkpoint in `--folder` if there is one, and export after each stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, default=DEFAULT_FOLDER, help="photographs and clips: folder or pack")
    parser.add_argument("--drawn-only", action="store_true", help="learn from drawn scenes alone")
    parser.add_argument("--folder", type=Path, default=Path("runs/segmenter"), help="where the checkpoint lies")
    parser.add_argument(
        "--minutes", type=float, nargs=len(STAGES), default=(60, 45, 60, 30), help=f"of the stages {', '.join(STAGES)}"
    )
    parser.add_argument("--clips", type=int, default=160, help="cached by the memory stage, 8 MB each")
    parser.add_argument("--export", type=Path, default=EXPORT_PATH)
    parser.add_argument("--start-from", type=Path, help="exported weights to improve, instead of none but the trunk's")
    parser.add_argument(
        "--take-over",
        type=Path,
        nargs=2,
        metavar=("CONFIG", "WEIGHTS"),
        help="a nano model with another trunk whose decoder and memory to begin with",
    )
    parser.add_argument(
        "--keep",
        type=float,
        default=0.0,
        help="share, 0..1, of the weights started from, in what the end exports",
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 for PyTorch's default")
    parser.add_argument("--workers", type=int, default=0, help="processes that compose scenes")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    real = None
    if not options.drawn_only:
        photos = [photo for photo in load_photos(options.real) if photo.split == "train"]
        real = RealScenes(photos, load_clips(options.real, "train"))

    def images() -> Iterator[Tensor]:
        return (make_image_batch(step, STAGE_SIDES[1], real).images for step in itertools.count())

    trainer = Trainer(options.folder, tuple(options.minutes), options.start_from, options.take_over, images)
    let_encoder_learn(trainer.model, True)
    while trainer.progress.stage < len(STAGES):
        if trainer.progress.stage < 2:
            train_on_images(trainer, real, options.workers, is_new=not (options.start_from or options.take_over))
        elif trainer.progress.stage == 2:
            scale = 1.0 if options.start_from is None else WARM_RATE
            train_memory(trainer, real, options.workers, options.clips, scale)
        else:
            train_all(trainer, real, options.workers)
        export(trainer.average, options.export)
    shipped = trainer.average if not options.keep else mixed(trainer.average, options.start_from, options.keep)
    export(shipped, options.export)


if __name__ == "__main__":
    main()
