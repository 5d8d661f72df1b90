"""The memory policy `samurai` against a published package with SAMURAI's code, one object: masks and memories read.

`make references` installs the package; without it these tests are skipped. It runs in a process of its own, see
`reference/samurai.py`.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.cache import REFERENCES, answers_of
from reference.compare import relative_error
from reference.samurai import RANDOM_CONFIG, VARIANTS, Variant, track
from reference.scenarios import Arrays
from torch import Tensor

from sam2.build_sam import build_sam2_video_predictor
from sam2.memory_policies import Samurai
from sam2.modeling.core import MaskCandidates
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.video_state import FrameOutput, FrameTime, InferenceState, ObjectState

NANO = Path(__file__).parents[1] / "checkpoints/sam2.1_nano.pt"
TOLERANCE = 1e-4
# which rules decide on some frame: candidates are overruled, motion begins anew, frames are left out, masks are empty
DECIDING = {
    "random": {"skips"},
    "published": {"overrules"},
    "often_reset": {"overrules", "resets"},
    "few_good": {"overrules", "skips"},
    "often_absent": {"resets", "skips", "empties"},
}

pytestmark = pytest.mark.skipif(
    not (REFERENCES / "samurai").is_dir(), reason="needs the reference package: make references"
)


def without_prompt_map(checkpoint: Path) -> bytes:
    """A file of the segmenter as the reference can build it."""
    weights = torch.load(checkpoint, weights_only=True)["model"]
    known = {name: value for name, value in weights.items() if "prompt_map" not in name and "prompt_skip" not in name}
    assert len(known) == len(weights) - 3
    written = io.BytesIO()
    torch.save({"model": known}, written)
    return written.getvalue()


@pytest.fixture(scope="module")
def work() -> Path:
    return answers_of("samurai", "samurai", ["--work", "."], {"nano.pt": without_prompt_map(NANO)})


def build(variant: Variant, work: Path) -> SAM2VideoPredictor:
    settings: dict[str, Any] = {"fill_hole_area": 0, **variant.settings}
    if variant.weights == "random":
        config: str | None = RANDOM_CONFIG
        settings |= {"image_size": 128}
    else:
        config = None
        settings |= {"multimask_output_for_tracking": "true", "samurai_mode": "true"}
    overrides = [f"++model.{name}={value}" for name, value in settings.items()]
    weights = work / f"{variant.weights}.pt"
    return build_sam2_video_predictor(config, weights, device="cpu", hydra_overrides_extra=overrides)


class Watched(Samurai):
    """Notes which frames' memories were read last, and on how many frames another candidate than the best was taken."""

    read: list[int]
    num_overruled = 0

    def choose(self, objects: Sequence[ObjectState], candidates: MaskCandidates, time: FrameTime) -> Tensor:
        chosen = super().choose(objects, candidates, time)
        self.num_overruled += int(chosen != candidates.ious.argmax(dim=1))
        return chosen

    def spatial_memories(self, obj: ObjectState, time: FrameTime) -> list[tuple[int, FrameOutput]]:
        found = super().spatial_memories(obj, time)
        self.read = [t for _, output in found for t, tracked in obj.non_cond.items() if tracked is output]
        return found


@pytest.fixture(scope="module", params=VARIANTS)
def run(request: pytest.FixtureRequest, work: Path) -> tuple[str, Arrays, Arrays, Watched]:
    """A variant's name, what we make of it, what the reference did, and our policy."""
    variant = VARIANTS[request.param]
    predictor = build(variant, work)
    assert isinstance(predictor.memory_policy, Samurai)  # by the configuration alone
    policy = predictor.memory_policy = Watched(predictor.config)

    def watch(state: InferenceState, frame_idx: int) -> tuple[list[int], int, float]:
        left = state.objects[1].non_cond[frame_idx].policy_state
        return policy.read, left["stable_frames"], left["agreement"]

    ours = track(predictor, work / "clip", variant, watch)
    return request.param, ours, dict(np.load(work / f"{request.param}.npz")), policy


def test_same_masks_and_memories(run: tuple[str, Arrays, Arrays, Watched]) -> None:
    _, ours, reference, _ = run
    np.testing.assert_array_equal(ours["read"], reference["read"])
    np.testing.assert_array_equal(ours["stable_frames"], reference["stable_frames"])
    np.testing.assert_allclose(ours["agreement"], reference["agreement"], atol=1e-9)
    assert relative_error(ours["masks"], reference["masks"]) <= TOLERANCE


def test_the_rules_decide(run: tuple[str, Arrays, Arrays, Watched]) -> None:
    """Agreement where nothing is ever reset, left out or overruled would prove little."""
    name, _, reference, policy = run
    decided = {
        "overrules": policy.num_overruled > 0,
        "resets": (reference["stable_frames"] == 0).any(),
        "skips": (np.diff(reference["read"][5:], axis=1) > 1).any(),
        "empties": not (reference["masks"] > 0).any(axis=(1, 2)).all(),
    }
    assert all(decided[rule] for rule in DECIDING[name]), decided
