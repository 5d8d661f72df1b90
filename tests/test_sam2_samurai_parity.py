"""The memory policy `samurai` against a published package with SAMURAI's code, one object: masks and memories read.

`make references` installs the package; without it these tests are skipped. It runs in a process of its own, see
`reference/samurai.py`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.cache import REFERENCES, answers_of
from reference.compare import relative_error
from reference.samurai import RANDOM_CONFIG, VARIANTS, Variant, track

from sam2.build_sam import build_sam2_video_predictor
from sam2.memory_policies import Samurai
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.video_state import FrameOutput, FrameTime, InferenceState, ObjectState

NANO = Path(__file__).parents[1] / "checkpoints/sam2.1_hiera_nano.pt"
TOLERANCE = 1e-4

pytestmark = pytest.mark.skipif(
    not (REFERENCES / "samurai").is_dir(), reason="needs the reference package: make references"
)


@pytest.fixture(scope="module")
def work() -> Path:
    return answers_of("samurai", "samurai", ["--work", "."], {"nano.pt": NANO.read_bytes()})


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
    """Notes which frames' memories were read last."""

    read: list[int]

    def spatial_memories(self, obj: ObjectState, time: FrameTime) -> list[tuple[int, FrameOutput]]:
        found = super().spatial_memories(obj, time)
        self.read = [t for _, output in found for t, tracked in obj.non_cond.items() if tracked is output]
        return found


@pytest.fixture(scope="module", params=VARIANTS)
def both(request: pytest.FixtureRequest, work: Path) -> tuple[str, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A variant's name, what we make of it, and what the reference did."""
    variant = VARIANTS[request.param]
    predictor = build(variant, work)
    assert isinstance(predictor.memory_policy, Samurai)  # by the configuration alone
    policy = predictor.memory_policy = Watched(predictor.config)

    def watch(state: InferenceState, frame_idx: int) -> tuple[list[int], int, float]:
        left = state.objects[1].non_cond[frame_idx].policy_state
        return policy.read, left["stable_frames"], left["agreement"]

    with torch.inference_mode():
        ours = track(predictor, work / "clip", variant, watch)
    return request.param, ours, dict(np.load(work / f"{request.param}.npz"))


def test_same_masks_and_memories(both: tuple[str, dict[str, np.ndarray], dict[str, np.ndarray]]) -> None:
    _, ours, reference = both
    np.testing.assert_array_equal(ours["read"], reference["read"])
    np.testing.assert_array_equal(ours["stable_frames"], reference["stable_frames"])
    np.testing.assert_allclose(ours["agreement"], reference["agreement"], atol=1e-9)
    assert relative_error(ours["masks"], reference["masks"]) <= TOLERANCE
