"""Run scenarios with whichever `sam2` is importable and write what it returned.

    PYTHONPATH=.references/sam2:tests python -m reference.run --package reference --config sam2.1_hiera_t --work W
    PYTHONPATH=.:tests python -m reference.run --package ours --config sam2.1_hiera_t --work W

The current folder must not be the repository, whose `sam2/` would hide the reference. The reference run comes first: it
makes the weights (`W/weights.pt`) and the clip (`W/clip/`) that both read, and the inputs of the single stages. Outputs
are `W/PACKAGE/SCENARIO.npz` and `W/PACKAGE/seconds.json`; scenarios whose output exists are left alone.
"""

import argparse
import functools
import importlib.util
import json
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reference.clip import read_frame, write_clip
from reference.random_weights import calibrate_heads, random_state_dict
from reference.scenarios import (
    VIDEO_SCENARIOS,
    Arrays,
    VideoRecorder,
    prompt_everything,
    run_image_scenario,
    run_video_scenario,
)
from reference.stages import normalise, our_stages, reference_stages

CLIP_SIZE = (200, 152)  # width, height in pixels; deliberately not square
PLAIN_SUFFIX = "-plain"  # scenario names that end so are run without post-processing
FLOAT32_SUFFIX = "-float32"  # … or with spatial memories that both packages keep in float32 instead of bfloat16
STICKY_SUFFIX = "-sticky"  # … or with corrected frames that become conditioning frames
OTHER_SCENARIOS = ("stages", "image")
EDGETAM = "edgetam"
OFFICIAL_CONFIGS = tuple(f"{family}_hiera_{size}" for family in ("sam2", "sam2.1") for size in ("t", "s", "b+", "l"))


def config_path(name: str) -> str:
    """`"sam2.1_hiera_t"` → `"configs/sam2.1/sam2.1_hiera_t.yaml"`, a spelling that both packages know."""
    if name == EDGETAM:
        return f"configs/{EDGETAM}.yaml"
    return f"configs/{name.partition('_')[0]}/{name}.yaml"


def build(
    name: str,
    image_size: int,
    weights: Path | None,
    video: bool,
    postprocessing: bool,
    sticky: bool = False,
    device: str = "cpu",
    **of_package: Any,
) -> Any:
    """Build a model of the importable package; `of_package`: what only its builder takes."""
    from sam2.build_sam import build_sam2, build_sam2_video_predictor

    overrides = [f"++model.image_size={image_size}"]
    if name == EDGETAM:
        prepare_reference()
        overrides += edgetam_sizes(image_size)
    elif video:
        overrides.append("++model.fill_hole_area=0")  # sam2==1.1.0 fills holes on a GPU only
    if sticky:
        overrides.append("++model.add_all_frames_to_correct_as_cond=true")
    builder = build_sam2_video_predictor if video else build_sam2
    return builder(
        config_path(name),
        None if weights is None else str(weights),
        device=device,
        hydra_overrides_extra=overrides,
        apply_postprocessing=postprocessing,
        **of_package,
    )


def edgetam_sizes(image_size: int) -> list[str]:
    """EdgeTAM's memory at a size of the input: fewer tokens at small ones, as many of either kind only at full size.

    The grids of queries and keys are the reference's alone, which does not take them from the input.
    """
    side = image_size // 16
    grid = min(16, side // 2)
    num_latents = 256 if grid == 16 else grid**2 + 8
    attention = "++model.memory_attention.layer.cross_attention"
    return [
        f"++model.spatial_perceiver.num_latents={num_latents}",
        f"++model.spatial_perceiver.num_latents_2d={grid**2}",
        f"{attention}.q_sizes=[{side},{side}]",
        f"{attention}.k_sizes=[{grid},{grid}]",
    ]


@functools.cache
def prepare_reference() -> None:
    """Let EdgeTAM's package build its trunk without a hub, and track more than one object at a time.

    It asks a hub for weights of the trunk that are then replaced, and its perceiver fails on a batch (it takes a view
    of an expanded tensor), so that objects go through the perceiver one by one.
    """
    if importlib.util.find_spec("timm") is None:  # this repository needs none
        return
    import timm.models

    made = timm.models.create_model
    timm.models.create_model = lambda name, **settings: made(name, **{**settings, "pretrained": False})
    from sam2.modeling.perceiver import PerceiverResampler

    of_one = PerceiverResampler.forward_2d

    def of_all(self: Any, memories: torch.Tensor) -> tuple[torch.Tensor, ...]:
        parts = [of_one(self, memory) for memory in memories.split(1)]
        return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))

    PerceiverResampler.forward_2d = of_all


_build_once = functools.lru_cache(maxsize=2)(build)  # scenarios change nothing about a model


def random_checkpoint(name: str, file: Path, image_size: int = 1024) -> None:
    """Write random weights in the official format, heads not calibrated. Works with either package."""
    model = build(name, image_size, None, video=False, postprocessing=False)
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    torch.save({"model": random_state_dict(shapes)}, file)


def calibrated_checkpoint(name: str, image_size: int, clip: Path, file: Path) -> None:
    """Write random weights in the official format, heads calibrated on a clip. Works with either package."""
    random_checkpoint(name, file, image_size)
    model = build(name, image_size, file, video=True, postprocessing=False)
    calibrate_heads(model.sam_mask_decoder, lambda: prompt_everything(VideoRecorder(model, clip, CLIP_SIZE)))
    torch.save({"model": model.state_dict()}, file)


@contextmanager
def memories_in_float32() -> Iterator[None]:
    """Both packages store spatial memories as `torch.bfloat16`; in here that name stands for float32.

    Rounding to bfloat16 turns a difference in the last bit of a memory into one of 0.4 %, now and then; without it,
    nothing hides whether two implementations compute the same.
    """
    bfloat16 = torch.bfloat16
    torch.bfloat16 = torch.float32
    try:
        yield
    finally:
        torch.bfloat16 = bfloat16


def run_scenario(scenario: str, package: str, config: str, image_size: int, work: Path) -> Arrays:
    """Run one scenario, whose name may end in one of the suffixes above, and return its outputs."""
    weights, clip = work / "weights.pt", work / "clip"
    postprocessing = not scenario.endswith(PLAIN_SUFFIX)
    memories = memories_in_float32() if scenario.endswith(FLOAT32_SUFFIX) else nullcontext()
    sticky = scenario.endswith(STICKY_SUFFIX)
    for suffix in (PLAIN_SUFFIX, FLOAT32_SUFFIX, STICKY_SUFFIX):
        scenario = scenario.removesuffix(suffix)
    if scenario in VIDEO_SCENARIOS:
        predictor = _build_once(config, image_size, weights, True, postprocessing, sticky)
        with memories:
            return run_video_scenario(predictor, scenario, clip, CLIP_SIZE)
    model = _build_once(config, image_size, weights, scenario == "stages", postprocessing)
    if scenario == "image":
        from sam2.sam2_image_predictor import SAM2ImagePredictor

        predictor = SAM2ImagePredictor(model)
        if package == "reference":  # it assumes an input of 1024 pixels
            predictor._bb_feat_sizes = [(image_size // stride,) * 2 for stride in (4, 8, 16)]
        return run_image_scenario(predictor, clip, CLIP_SIZE)
    if package == "ours":
        return our_stages(model, dict(np.load(work / "reference" / "stages.npz")))
    write_clip(work / "square", 1, (image_size, image_size))
    return reference_stages(model, normalise(read_frame(work / "square", 0)))


def main() -> None:
    """Parse the command line, make what is missing, run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", choices=("reference", "ours"), required=True)
    parser.add_argument("--config", default="sam2.1_hiera_t")
    parser.add_argument("--image-size", type=int, default=1024)
    parser.add_argument("--num-frames", type=int, default=10)
    parser.add_argument("--scenarios", nargs="+", default=[*OTHER_SCENARIOS, *VIDEO_SCENARIOS])
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    work: Path = arguments.work
    folder = work / arguments.package
    folder.mkdir(parents=True, exist_ok=True)
    clip, weights = work / "clip", work / "weights.pt"
    if not (clip / f"{arguments.num_frames - 1:05d}.jpg").exists():
        write_clip(clip, arguments.num_frames, CLIP_SIZE)
    if not weights.exists():
        calibrated_checkpoint(arguments.config, arguments.image_size, clip, weights)
    seconds_file = folder / "seconds.json"
    seconds: dict[str, float] = json.loads(seconds_file.read_text()) if seconds_file.exists() else {}
    for scenario in arguments.scenarios:
        if (folder / f"{scenario}.npz").exists():
            continue
        start = time.perf_counter()
        arrays = run_scenario(scenario, arguments.package, arguments.config, arguments.image_size, work)
        seconds[scenario] = round(time.perf_counter() - start, 2)
        np.savez(folder / f"{scenario}.npz", **arrays)
        seconds_file.write_text(json.dumps(seconds))


if __name__ == "__main__":
    main()
