"""What SAMURAI does on a clip with one object: the masks, and which memories were read for each of them.

    PYTHONPATH=.references/samurai:tests python -m reference.samurai --work W

The current folder must not be the repository, whose `sam2/` would hide the reference. Reads the bundled segmenter as
`W/nano.pt`; writes `W/random.pt`, `W/clip/` and `W/VARIANT.npz`.

Random weights draw masks all over the frame, whose boxes never move. So most variants run the bundled segmenter, which
follows the objects of the clip, and have it offer three masks on every frame as the published ones do.
"""

import argparse
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reference.clip import SHAPES, box_of, centre_of, shape_mask, write_clip
from reference.run import CLIP_SIZE, calibrated_checkpoint, memories_in_float32
from reference.scenarios import Arrays

RANDOM_CONFIG = "configs/samurai/sam2.1_hiera_t.yaml"
NUM_FRAMES = 36
NUM_POINTERS = 15


@dataclass(frozen=True)
class Variant:
    """One run.

    Attributes:
        weights: "random" or "nano".
        prompt: "box", "click" or "mask", on the first frame.
        settings: of SAMURAI, where they are not the published ones: under these, rules decide that seldom do.
        shape_idx: which shape of the clip is followed.
        num_frames: of the clip that it is followed on.
    """

    weights: str
    prompt: str
    settings: dict[str, float] = field(default_factory=dict)
    shape_idx: int = 0
    num_frames: int = NUM_FRAMES

    @property
    def num_memories(self) -> int:
        """How many memories are read beside that of the prompted frame."""
        return 3 if self.weights == "nano" else 6


VARIANTS = {
    "random": Variant("random", "box", num_frames=20),
    "published": Variant("nano", "box", shape_idx=1),
    "often_reset": Variant(
        "nano",
        "mask",
        {"stable_ious_threshold": 0.82, "stable_frames_threshold": 2, "kf_score_weight": 0.5},
        shape_idx=3,
    ),
    "few_good": Variant(
        "nano",
        "click",
        {
            "stable_frames_threshold": 4,
            "kf_score_weight": 0.8,
            "memory_bank_iou_threshold": 0.85,
            "memory_bank_obj_score_threshold": 6.5,
            "memory_bank_kf_score_threshold": 0.8,
        },
    ),
    "often_absent": Variant("nano", "box", {"min_obj_score_logits": 6.5, "stable_frames_threshold": 4}, shape_idx=2),
}

# what tells the bundled segmenter from SAM 2.1 tiny, as overrides of the latter's published configuration
_DIM = 128
_NANO = {
    "image_size": 320,
    "num_maskmem": 4,
    "image_encoder.neck.d_model": _DIM,
    "image_encoder.neck.position_encoding.num_pos_feats": _DIM,
    "memory_attention.num_layers": 1,
    "memory_attention.d_model": _DIM,
    "memory_attention.layer.d_model": _DIM,
    "memory_attention.layer.dim_feedforward": 256,
    "memory_attention.layer.self_attention.embedding_dim": _DIM,
    "memory_attention.layer.cross_attention.embedding_dim": _DIM,
    "memory_encoder.in_dim": _DIM,
    "memory_encoder.mask_downsampler.embed_dim": _DIM,
    "memory_encoder.fuser.layer.dim": _DIM,
}


def build_reference(variant: Variant, work: Path) -> Any:
    """The reference's predictor with a variant's weights and settings, on the CPU."""
    from sam2.build_sam import build_sam2_video_predictor
    from sam2.modeling import sam2_base

    settings = {"fill_hole_area": 0, **variant.settings} | (_NANO if variant.weights == "nano" else {"image_size": 128})
    transformer = sam2_base.TwoWayTransformer
    if variant.weights == "nano":  # no configuration has the width of the mask decoder's MLPs
        sam2_base.TwoWayTransformer = lambda **sizes: transformer(**sizes | {"mlp_dim": 256})
    overrides = [f"++model.{name}={value}" for name, value in settings.items()]
    predictor = build_sam2_video_predictor(RANDOM_CONFIG, None, device="cpu", hydra_overrides_extra=overrides)
    sam2_base.TwoWayTransformer = transformer
    if variant.weights == "nano":
        trunk = predictor.image_encoder.trunk = load_trunk_class()()  # the reference has no trunk of this kind
        for lateral, channels in zip(predictor.image_encoder.neck.convs, reversed(trunk.level_channels), strict=True):
            lateral.conv = torch.nn.Conv2d(channels, _DIM, kernel_size=1)
    weights = torch.load(work / f"{variant.weights}.pt", map_location="cpu", weights_only=True)["model"]
    predictor.load_state_dict({name: value.float() for name, value in weights.items()})
    return predictor


def load_trunk_class() -> Any:
    """`EfficientNetLite` from its file, as the repository's packages must not be found in this process."""
    file = Path(__file__).parents[2] / "trunks/efficientnet_lite.py"
    spec = importlib.util.spec_from_file_location("efficientnet_lite", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.EfficientNetLite


def prompt(predictor: Any, state: Any, variant: Variant) -> None:
    """Prompt a shape of the clip on its first frame."""
    mask = shape_mask(SHAPES[variant.shape_idx], 0, CLIP_SIZE)
    if variant.prompt == "mask":
        predictor.add_new_mask(state, 0, 1, mask)
    elif variant.prompt == "box":
        predictor.add_new_points_or_box(state, 0, 1, box=box_of(mask))
    else:
        predictor.add_new_points_or_box(state, 0, 1, points=centre_of(mask)[None], labels=np.array([1], np.int32))


def track(
    predictor: Any, clip: Path, variant: Variant, watch: Callable[[Any, int], tuple[list[int], int, float]]
) -> Arrays:
    """Follow the object through the clip.

    Args:
        watch: what to know of a frame just tracked, from the state and the frame: the frames whose memories were read,
            the oldest first, how many frames were stable up to it, and the agreement with the motion, NaN if none.
    """
    state = predictor.init_state(str(clip))
    prompt(predictor, state, variant)
    arrays: dict[str, list[Any]] = {"masks": [], "read": [], "stable_frames": [], "agreement": []}
    with memories_in_float32():
        for frame_idx, _, masks in predictor.propagate_in_video(state, max_frame_num_to_track=variant.num_frames - 1):
            arrays["masks"].append(masks[0, 0].float().numpy().copy())
            if frame_idx > 0:
                read, stable_frames, agreement = watch(state, frame_idx)
                arrays["read"].append([-1] * (variant.num_memories - len(read)) + read)
                arrays["stable_frames"].append(stable_frames)
                arrays["agreement"].append(agreement)
    return {name: np.array(values) for name, values in arrays.items()}


class WatchedOutputs(dict[int, Any]):
    """Outputs by frame that note which frames are asked for with `get`."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def get(self, frame_idx: int, default: Any = None) -> Any:  # type: ignore[override]
        self.asked.append(frame_idx)
        return super().get(frame_idx, default)


def reference_track(predictor: Any, clip: Path, variant: Variant) -> Arrays:
    """`track` with the reference package, which keeps all outputs and asks for each that it reads."""
    outputs = WatchedOutputs()
    init_state = predictor.init_state

    def watched_state(path: str) -> Any:
        state = init_state(path)
        state["output_dict"]["non_cond_frame_outputs"] = outputs
        return state

    def watch(_state: Any, frame_idx: int) -> tuple[list[int], int, float]:
        # memories are asked for first, then the pointers of the frames before; none of them from before the clip
        num_memories = len(outputs.asked) - min(NUM_POINTERS, frame_idx)
        read = [t for t in outputs.asked[:num_memories] if t in outputs]
        outputs.asked.clear()
        agreement = outputs[frame_idx]["kf_score"]
        return read, predictor.stable_frames, float("nan") if agreement is None else float(agreement)

    predictor.init_state = watched_state
    return track(predictor, clip, variant, watch)


def main() -> None:
    """Parse the command line, make weights and clip, run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    work: Path = parser.parse_args().work
    warnings.filterwarnings("ignore")
    write_clip(work / "clip", NUM_FRAMES, CLIP_SIZE)
    calibrated_checkpoint("sam2.1_hiera_t", 128, work / "clip", work / "random.pt")
    for name, variant in VARIANTS.items():
        arrays = reference_track(build_reference(variant, work), work / "clip", variant)
        np.savez(work / f"{name}.npz", **arrays)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
