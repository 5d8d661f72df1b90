"""Train the bundled nano detector: a small Grounding DINO, on procedural scenes and on real photographs.

    python -m training.detector --real ../shared/real --start-from gdino_checkpoints/nano \\
        --work-folder runs/detector_real_work --output-folder runs/detector_real    # goes on from what ships
    python -m training.detector                                  # drawn scenes only, begun anew
    python -m training.detector --export-only [...]              # write the folder from the latest checkpoint
    python -m training.photos --pack runs/real.pack              # for another machine: all photographs in one file
    python -m training.detector --real runs/real.pack --start-from gdino_checkpoints/nano --photo-minutes 8    # a GPU

Run the same command again after an interruption: it goes on where the last checkpoint was, and after the end with
larger `--photo-minutes`. Minutes count what the process gets of a CPU, or the clock on a GPU.

Three stages. In the dense stage only the backbones and the proposal head learn: every position of the feature maps is
scored against every name (focal loss, several positions per object), and each assigned region is contrasted with all
names. In the full stage the whole model learns: prompts of present and absent phrases, Hungarian matching, a loss
after each decoder layer, the dense loss kept. The photo stage mixes steps of both kinds, on mosaics and crops of
photographs with cut-outs pasted over them, and on drawn scenes so that nothing is forgotten. A phrase is only asked of
a photograph where the labels tell whether it is there.

What starts anew, or from another trunk, needs the published weights of the trunk (`training/imagenet.py`).
`--take-over` begins with a nano detector that has another trunk: all its other weights, with new projections between.
How the shipped weights came about is told in `training/README.md`.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    PreTrainedTokenizerBase,
)

from grounded_sam2.detectors.huggingface import HuggingFaceDetector
from sam2.transforms import PIXEL_MEAN, PIXEL_STD
from training.detector_batches import BATCH_SIZE, SceneBatches
from training.detector_losses import assign_positions, grounding_loss, match_queries, naming_loss
from training.detector_model import (
    BIAS_CHANNEL,
    STRIDES,
    build_training_model,
    dense_forward,
    grow_from,
    model_config,
    pin_bias_channel,
    start_decoder_from_proposals,
    take_over,
)
from training.detector_names import DRAWN_PHRASES, LATER_PHRASES
from training.detector_photos import PhotoSource, clip_photos
from training.detector_scores import (
    best_threshold,
    detect_photos,
    detect_scenes,
    low_threshold_detect,
    score,
    score_photos,
)
from training.imagenet import load_trunk
from training.photos import DEFAULT_FOLDER, Photo, frequent_names, load_clips, load_photos
from training.tokenizer import build_tokenizer

logger = logging.getLogger(__name__)

LossFunction = Callable[[GroundingDinoForObjectDetection, dict[str, Tensor]], dict[str, Tensor]]

DENSE_LEARNING_RATE = 2e-3
FULL_LEARNING_RATE = 1.2e-3
TAUGHT_RATE_SCALE = 0.4  # of the backbones in the full stage
WARMUP_STEPS = 200
WEIGHT_DECAY = 0.02
EMA_DECAY = 0.992  # per update of the average
EMA_EVERY = 4  # steps
NAMING_WEIGHT = 2.5
POSITIONS_PER_OBJECT = 5
FINEST_OBJECT = 28.0  # pixels: the object size that the finest level is meant for; each coarser level twice it
SAVE_SECONDS = 90.0
PHOTO_LEARNING_RATE = 1.5e-3
TRUNK_RATE_SCALE = 0.2  # of the trunk in the photo stage; it starts from published weights
TAKE_OVER_BATCHES = 40
WARM_START = 0.55  # how far into the full stage's schedule exported weights start
UNSEEN_STEP = 900_000  # where their scenes start, beyond those that they have learnt from
SHIPPED_BOX_THRESHOLD = 0.35  # the scripts' default
SCORED_NAMES = 12  # the most frequent ones count when the threshold is chosen
SHORTEST_EDGE, LONGEST_EDGE = 288, 576  # pixels, what the exported image processor resizes to


@dataclass(frozen=True)
class StepKind:
    """One kind of the photo stage's steps.

    Attributes:
        is_dense: the dense loss on mosaics, or the full loss on single crops.
        num_photos: images of a batch that are photographs.
        num_scenes: images of a batch that are drawn.
        sizes: (height, width) in pixels, before full steps enlarge them; what is drawn is as large as in scoring, with
            less around it.
        shares: of the steps, at the points `SHARES_AT` of the stage's progress.
    """

    is_dense: bool
    num_photos: int
    num_scenes: int
    sizes: tuple[tuple[int, int], ...]
    shares: tuple[float, ...]


SHARES_AT = (0.0, 0.5, 0.7, 1.0)
STEP_KINDS: tuple[StepKind, ...] = (
    StepKind(True, 7, 3, ((192, 192), (224, 224), (192, 256), (256, 192), (256, 256)), (0.85, 0.7, 0.4, 0.3)),
    StepKind(False, 4, 3, ((192, 192), (224, 224), (192, 256), (256, 208), (208, 272)), (0.15, 0.3, 0.6, 0.7)),
)


# ---- losses of the two stages ----


def normalise(images: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 RGB to (B, 3, H, W) float32 as the exported image processor does it."""
    mean, std = images.new_tensor(PIXEL_MEAN, dtype=torch.float32), images.new_tensor(PIXEL_STD, dtype=torch.float32)
    pixel_values = (images.float() / 255 - mean) / std
    return pixel_values.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def dense_loss(model: GroundingDinoForObjectDetection, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The dense stage's losses: "grounding", and "naming", the cross-entropy of each assigned region over all nouns."""
    pixel_values = normalise(batch["image"])
    logits, boxes, shapes = dense_forward(model, pixel_values, batch["input_ids"], batch["word_tokens"])
    assigned = assign(logits, boxes, shapes, pixel_values, batch)
    grounding = grounding_loss(logits, boxes, batch["token_mask"], batch["object_tokens"], batch["boxes"], assigned)
    naming = naming_loss(logits, batch["spans"], batch["object_tokens"], assigned, batch["not_rivals"])
    return {"grounding": grounding, "naming": NAMING_WEIGHT * naming}


def full_loss(model: GroundingDinoForObjectDetection, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The full stage's losses: "decoder0" and "decoder1" with one query per object, "dense" with several positions;
    "naming" over all of them."""
    pixel_values = normalise(batch["image"])
    named = {**batch, "valid": batch["object_tokens"].any(-1)}
    core = model.model
    refinements: list[Tensor] = []  # what each decoder layer adds to its queries' boxes
    hooks = [
        head.register_forward_hook(lambda _head, _inputs, delta: refinements.append(delta))
        for head in core.decoder.bbox_embed
    ]
    outputs = core(pixel_values=pixel_values, input_ids=batch["input_ids"], attention_mask=batch["token_mask"].long())
    for hook in hooks:
        hook.remove()
    text, mask = outputs.encoder_last_hidden_state_text, batch["token_mask"]
    length = text.shape[1]
    targets = (mask, batch["object_tokens"], batch["boxes"])
    dense_logits = outputs.enc_outputs_class[..., :length].masked_fill(~mask[:, None], -30.0)
    dense_boxes = outputs.enc_outputs_coord_logits.sigmoid()
    shapes = [
        (math.ceil(pixel_values.shape[2] / stride), math.ceil(pixel_values.shape[3] / stride)) for stride in STRIDES
    ]
    assigned = assign(dense_logits, dense_boxes, shapes, pixel_values, named)
    naming = naming_loss(dense_logits, batch["spans"], batch["object_tokens"], assigned, batch["not_rivals"])
    losses = {"dense": grounding_loss(dense_logits, dense_boxes, *targets, assigned)}
    reference = outputs.init_reference_points
    last = len(core.decoder.layers) - 1
    for level in range(last + 1):
        hidden = outputs.intermediate_hidden_states[:, level]
        logits = (hidden @ text.transpose(1, 2)).masked_fill(~mask[:, None], -30.0)
        # a layer's refinement comes from its plain states, the answer from the last layer's normalised ones
        delta = model.bbox_embed[level](hidden) if level == last else refinements[level]
        boxes = (delta + torch.special.logit(reference, eps=1e-5)).sigmoid()
        matches = match_queries(
            logits.detach().float(),
            boxes.detach().float(),
            batch["object_tokens"].float(),
            batch["boxes"],
            named["valid"],
        )
        losses[f"decoder{level}"] = grounding_loss(logits, boxes, *targets, matches)
        naming = naming + naming_loss(logits, batch["spans"], batch["object_tokens"], matches, batch["not_rivals"])
        reference = outputs.intermediate_reference_points[:, level]
    losses["naming"] = naming
    return losses


def position_grid(shapes: list[tuple[int, int]], size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """(S, 2) centres of all levels' positions and (S, 2) sizes of the objects the levels are meant for, normalised."""
    centres, sizes = [], []
    for level, (height, width) in enumerate(shapes):
        rows, columns = torch.meshgrid(
            torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
        )
        centres.append(torch.stack([(columns + 0.5) / width, (rows + 0.5) / height], -1).view(-1, 2))
        natural = torch.tensor([1 / size[1], 1 / size[0]], device=device) * FINEST_OBJECT * 2**level
        sizes.append(natural.expand(height * width, 2))
    return torch.cat(centres), torch.cat(sizes)


@torch.no_grad()
def assign(
    logits: Tensor, boxes: Tensor, shapes: list[tuple[int, int]], pixel_values: Tensor, batch: dict[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Dense assignment of a batch; see `assign_positions`."""
    centres, sizes = position_grid(shapes, (pixel_values.shape[2], pixel_values.shape[3]), logits.device)
    share = batch["object_tokens"].float()
    share = share / share.sum(-1, keepdim=True).clamp(min=1)
    object_logits = torch.einsum("bst,bgt->bgs", logits.float(), share)
    return assign_positions(
        centres, sizes, boxes.float(), object_logits, batch["boxes"], batch["valid"], POSITIONS_PER_OBJECT
    )


# ---- training ----


class Trainer:
    """Model, running average of its weights, optimiser and clock; all of it survives an interruption."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        work_folder: Path,
        device: torch.device,
        start_from: Path | None = None,
        earlier: Path | None = None,
        photos: PhotoSource | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.checkpoint_path = work_folder / "detector.pt"
        self.device = device
        self.config = model_config(len(tokenizer))
        self.model = build_training_model(self.config).to(device)
        if start_from is None and not self.checkpoint_path.exists():
            load_trunk(self.model.model.backbone.conv_encoder.model.trunk)
        self.model.model.backbone.to(memory_format=torch.channels_last)
        self.average = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.step = 0
        self.stage_steps = 0
        self.seconds = 0.0
        self.stage = "dense"
        if start_from is not None:  # exported weights have been through the dense stage
            exported = GroundingDinoForObjectDetection.from_pretrained(start_from, dtype=torch.float32)
            grow_from(self.model, exported.state_dict())
            self.average = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
            self.step, self.stage = UNSEEN_STEP, "full"
        if earlier is not None and not self.checkpoint_path.exists():
            exported = GroundingDinoForObjectDetection.from_pretrained(earlier, dtype=torch.float32).to(device)
            batches = self._stream(False, 0, photos, STEP_KINDS[-1].num_photos, BATCH_SIZE)
            images = (normalise(batch["image"].to(device)) for batch in itertools.islice(batches, TAKE_OVER_BATCHES))
            explained = take_over(self.model, exported, images)
            logger.info("variance of the earlier projections explained: %s", explained)
            self.average = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
            self.step = UNSEEN_STEP
        self.first_progress = 0.0 if start_from is None else WARM_START
        self.optimizer = self._build_optimizer()
        if self.checkpoint_path.exists():
            self.restore()

    def _build_optimizer(self) -> torch.optim.Optimizer:
        """AdamW; what the dense stage taught learns at a lower rate in the full stage."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            taught = any(part in name for part in ("input_proj_vision", "text_backbone"))
            scale = TAUGHT_RATE_SCALE if taught and self.stage == "full" else 1.0
            if "conv_encoder" in name:
                scale = TRUNK_RATE_SCALE
            groups.setdefault((scale, WEIGHT_DECAY if parameter.ndim > 1 else 0.0), []).append(parameter)
        options = [
            {"params": parameters, "weight_decay": decay, "rate_scale": scale}
            for (scale, decay), parameters in groups.items()
        ]
        return torch.optim.AdamW(options, lr=0.0, betas=(0.9, 0.99), fused=True)

    def restore(self) -> None:
        state = torch.load(self.checkpoint_path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        self.step, self.stage_steps = state["step"], state["stage_steps"]
        self.seconds, self.stage = state["seconds"], state["stage"]
        self.optimizer = self._build_optimizer()
        self.optimizer.load_state_dict(state["optimizer"])
        logger.info("resumed at step %d of the %s stage, %.1f minutes", self.step, self.stage, self.seconds / 60)

    def save(self) -> None:
        self.checkpoint_path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.checkpoint_path.with_suffix(".part")
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "step": self.step,
            "stage_steps": self.stage_steps,
            "seconds": self.seconds,
            "stage": self.stage,
        }
        torch.save(state, partial)
        partial.replace(self.checkpoint_path)

    def train(self, dense_minutes: float, full_minutes: float, num_workers: int) -> None:
        """Run both stages of drawn scenes up to their times, counted over all interruptions."""
        if self.stage == "dense":
            stream = self._stream(dense=True, num_workers=num_workers)
            self._run_stage(lambda _: (dense_loss, stream), dense_minutes, DENSE_LEARNING_RATE)
            self._begin_full_stage()
            self.save()
        if self.stage == "full":
            stream = self._stream(dense=False, num_workers=num_workers)
            self._run_stage(lambda _: (full_loss, stream), full_minutes, FULL_LEARNING_RATE)
            self.save()

    def train_on_photos(self, photos: PhotoSource, minutes: float, num_workers: int, batch_scale: int) -> None:
        """Run the photo stage up to its time: dense steps on mosaics, full steps on single crops, drawn scenes in both.

        Both kinds of steps go on to the end, so that the decoder keeps up with the features; the first half is mostly
        dense steps, which show more objects a second.
        """
        if self.stage != "photos":
            self.stage, self.stage_steps, self.seconds = "photos", 0, 0.0
            self.optimizer = self._build_optimizer()
        self.first_progress = 0.0  # whatever the run began with
        streams = [
            self._stream(
                kind.is_dense,
                num_workers,
                photos,
                batch_scale * kind.num_photos,
                batch_scale * (kind.num_photos + kind.num_scenes),
                kind.sizes,
            )
            for kind in STEP_KINDS
        ]

        def next_kind(progress: float) -> tuple[LossFunction, Iterator[dict[str, Tensor]]]:
            rng = np.random.default_rng([13, self.step])
            shares = np.array([np.interp(progress, SHARES_AT, kind.shares) for kind in STEP_KINDS])
            index = int(rng.choice(len(STEP_KINDS), p=shares / shares.sum()))
            return (dense_loss if STEP_KINDS[index].is_dense else full_loss), streams[index]

        self._run_stage(next_kind, minutes, PHOTO_LEARNING_RATE)
        self.save()

    def _stream(
        self,
        dense: bool,
        num_workers: int,
        photos: PhotoSource | None = None,
        photos_per_batch: int = 0,
        batch_size: int = BATCH_SIZE,
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> Iterator[dict[str, Tensor]]:
        batches = SceneBatches(self.tokenizer, dense, self.step, 10**9, photos, photos_per_batch, batch_size, sizes)
        return iter(DataLoader(batches, batch_size=None, sampler=range(10**9), num_workers=num_workers))

    def _begin_full_stage(self) -> None:
        self.model.load_state_dict(self.average)
        start_decoder_from_proposals(self.model)
        pin_bias_channel(self.model)
        self.average = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.stage, self.stage_steps, self.seconds = "full", 0, 0.0
        self.optimizer = self._build_optimizer()

    def _run_stage(
        self,
        next_kind: Callable[[float], tuple[LossFunction, Iterator[dict[str, Tensor]]]],
        minutes: float,
        learning_rate: float,
    ) -> None:
        """Step until the stage has had its minutes; `next_kind` gives the loss and stream at a progress of 0..1."""
        self.model.train()
        # on a busy CPU the budget is what the process really gets of it
        budget_clock = time.monotonic if self.device.type == "cuda" else time.process_time
        last_save, clock = time.monotonic(), budget_clock()
        logged: dict[str, float] = {}
        while self.seconds < minutes * 60:
            share = self.seconds / (minutes * 60)
            progress = self.first_progress + (1 - self.first_progress) * share
            warmup = min(1.0, (self.stage_steps + 1) / WARMUP_STEPS)
            rate = learning_rate * warmup * (0.03 + 0.97 * (0.5 + 0.5 * math.cos(math.pi * progress)))
            for group in self.optimizer.param_groups:
                group["lr"] = rate * group["rate_scale"]
            loss_function, stream = next_kind(progress)
            losses = self._update(
                {name: tensor.to(self.device, non_blocking=True) for name, tensor in next(stream).items()},
                loss_function,
            )
            for name, loss in losses.items():
                key = f"dense_{name}" if loss_function is dense_loss and self.stage == "photos" else name
                logged[key] = 0.98 * logged.get(key, float(loss)) + 0.02 * float(loss)
            self.step += 1
            self.stage_steps += 1
            self.seconds += budget_clock() - clock
            clock = budget_clock()
            if self.step % 50 == 0:
                shown = " ".join(f"{name} {value:.3f}" for name, value in logged.items())
                logger.info("%s %6d  %5.1f min  lr %.1e  %s", self.stage, self.step, self.seconds / 60, rate, shown)
            if time.monotonic() - last_save > SAVE_SECONDS:
                self.save()
                last_save = time.monotonic()

    def _update(self, batch: dict[str, Tensor], loss_function: LossFunction) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            losses = loss_function(self.model, batch)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 2.0)
        self.optimizer.step()
        pin_bias_channel(self.model)
        if self.step % EMA_EVERY == 0:
            self._update_average()
        return {name: loss.detach() for name, loss in losses.items()}

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(EMA_DECAY, (10 + self.step) / (100 + self.step))
        for name, tensor in self.model.state_dict().items():
            average = self.average[name]
            if tensor.is_floating_point():
                average.lerp_(tensor, 1 - decay)
            else:
                average.copy_(tensor)


def export(trainer: Trainer, folder: Path, calibration_scenes: int, photos: Sequence[Photo] = ()) -> None:
    """Write the averaged weights in half precision, the processor and the tokenizer as a Hugging Face folder.

    The logits' bias is shifted so that `SHIPPED_BOX_THRESHOLD` is the best threshold on held-out scenes and photographs
    that no reported figure uses.

    Args:
        trainer: holds the weights.
        folder: what is written.
        calibration_scenes: how many scenes the threshold is chosen on; 0 shifts nothing.
        photos: all photographs; the threshold is chosen on those of the "choose" split.
    """
    model = GroundingDinoForObjectDetection(trainer.config)
    weights = {name: tensor for name, tensor in trainer.average.items() if "num_batches_tracked" not in name}
    model.load_state_dict(weights)
    model.save_pretrained(folder)
    image_processor = GroundingDinoImageProcessor(size={"shortest_edge": SHORTEST_EDGE, "longest_edge": LONGEST_EDGE})
    GroundingDinoProcessor(image_processor=image_processor, tokenizer=trainer.tokenizer).save_pretrained(folder)
    image_processor.save_pretrained(folder)  # preprocessor_config.json, where transformers 4 looks for it
    if calibration_scenes:
        detector = HuggingFaceDetector(str(folder), device="cpu")
        images = detect_scenes(low_threshold_detect(detector), range(calibration_scenes))
        names = frequent_names(photos, SCORED_NAMES)
        chosen = [photo for photo in photos if photo.split == "choose"]
        of_photos = detect_photos(low_threshold_detect(detector), chosen, names)
        threshold = best_threshold(images, of_photos, names)
        logger.info("best threshold %.3f before the shift: %s", threshold, score(images, threshold))
        if of_photos:
            logger.info("photographs it was chosen on: %s", score_photos(of_photos, names, threshold))
        shift = math.log(SHIPPED_BOX_THRESHOLD / (1 - SHIPPED_BOX_THRESHOLD)) - math.log(threshold / (1 - threshold))
        with torch.no_grad():
            model.model.decoder.layer_norm.bias[BIAS_CHANNEL] += shift
    model.half().save_pretrained(folder)
    model.config.dtype = "float32"  # what a plain from_pretrained computes in; the file stays half as large
    model.config.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work-folder", type=Path, default=Path("outputs/training"), help="where the checkpoint is kept"
    )
    parser.add_argument("--output-folder", type=Path, default=Path("gdino_checkpoints/nano"), help="the exported model")
    parser.add_argument(
        "--start-from", type=Path, help="exported folder to improve in the full stage, instead of nothing but the trunk"
    )
    parser.add_argument(
        "--take-over", type=Path, help="exported folder of a nano with another trunk, of which to keep the rest"
    )
    parser.add_argument("--dense-minutes", type=float, default=95.0)
    parser.add_argument("--full-minutes", type=float, default=265.0)
    parser.add_argument(
        "--real", type=Path, help=f"photographs for a third stage, a folder such as {DEFAULT_FOLDER} or a pack of it"
    )
    parser.add_argument("--photo-minutes", type=float, default=110.0, help="of the third stage")
    parser.add_argument("--batch-scale", type=int, help="times the photo stage's batches; default 1, 4 with a GPU")
    parser.add_argument("--num-threads", type=int, default=1, help="CPU threads of the training step")
    parser.add_argument(
        "--num-workers", type=int, help="processes that compose scenes; default 0 on a CPU, 12 with a GPU"
    )
    parser.add_argument("--calibration-scenes", type=int, default=300, help="scenes the shipped threshold is chosen on")
    parser.add_argument("--export-only", action="store_true", help="write the folder from the latest checkpoint")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(arguments.num_threads)
    cv2.setNumThreads(1)
    torch.set_flush_denormal(True)  # the focal loss of sure answers is full of them, and they are slow
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = build_tokenizer(DRAWN_PHRASES, arguments.work_folder / "tokenizer", LATER_PHRASES)
    photos = load_photos(arguments.real) if arguments.real else []
    source = None
    if arguments.real:
        shown = [photo for photo in photos if photo.split == "train"]
        source = PhotoSource([*shown, *clip_photos(load_clips(arguments.real, "train"))])
    trainer = Trainer(tokenizer, arguments.work_folder, device, arguments.start_from, arguments.take_over, source)
    on_gpu = device.type == "cuda"
    if not arguments.export_only:
        num_workers = (12 if on_gpu else 0) if arguments.num_workers is None else arguments.num_workers
        if not (source and (arguments.start_from or arguments.take_over)):
            trainer.train(arguments.dense_minutes, arguments.full_minutes, num_workers)
        if source:
            batch_scale = arguments.batch_scale or (4 if on_gpu else 1)
            trainer.train_on_photos(source, arguments.photo_minutes, num_workers, batch_scale)
    export(trainer, arguments.output_folder, arguments.calibration_scenes, photos)


if __name__ == "__main__":
    main()
