"""This repository's SAM 2 against the reference package, on the two tiny configs at a reduced image size.

`make references` installs the reference; without it these tests are skipped. It runs in a process of its own (see
`reference/run.py`), and again only when something changed (see `reference/cache.py`). All eight official configs at
full size: `python benchmarks/sam2_parity.py`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.cache import PRINTED, REFERENCES, answers_of
from reference.compare import compare_arrays, positive_shares, share_of_absent
from reference.run import FLOAT32_SUFFIX, OFFICIAL_CONFIGS, OTHER_SCENARIOS, PLAIN_SUFFIX, config_path, run_scenario
from reference.scenarios import VIDEO_SCENARIOS

from sam2.config import load_config
from sam2.modeling.sam2_base import SAM2Base

TOLERANCE = 1e-4
IMAGE_SIZE = 128
NUM_FRAMES = 18  # more than the 16 pointers that memory attention reads

# What is run with each config. The tour has a little of everything; suffixes are explained in reference/run.py.
SCENARIOS = {
    "sam2.1_hiera_t": (*OTHER_SCENARIOS, *VIDEO_SCENARIOS, "tour" + PLAIN_SUFFIX, "tour" + FLOAT32_SUFFIX),
    "sam2_hiera_t": (*OTHER_SCENARIOS, "several_objects", "reverse", "refine_later", "tour"),
}
CASES = [(config, scenario) for config, scenarios in SCENARIOS.items() for scenario in scenarios]

pytestmark = pytest.mark.skipif(
    not (REFERENCES / "sam2").is_dir(), reason="needs the reference package: make references"
)


@pytest.fixture(scope="session")
def work_folders() -> dict[str, Path]:
    """For each config, a folder with weights, a clip and what the reference made of them."""
    size = ["--image-size", str(IMAGE_SIZE), "--num-frames", str(NUM_FRAMES)]
    return {
        config: answers_of(
            "sam2",
            "run",
            ["--package", "reference", "--config", config, *size, "--work", ".", "--scenarios", *scenarios],
        )
        for config, scenarios in SCENARIOS.items()
    }


@pytest.fixture(scope="session")
def described_configs() -> dict[str, Any]:
    """What the reference builds from each official config, see `reference/describe.py`."""
    return json.loads((answers_of("sam2", "describe", OFFICIAL_CONFIGS) / PRINTED).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", OFFICIAL_CONFIGS)
def test_same_architecture(described_configs: dict[str, Any], name: str) -> None:
    described = described_configs[name]
    config = load_config(config_path(name))
    with torch.device("meta"):
        model = SAM2Base(config)
    assert {key: list(tensor.shape) for key, tensor in model.state_dict().items()} == described["shapes"]
    assert {key: getattr(config, key) for key in described["settings"]} == described["settings"]
    blocks = [[block.attn.num_heads, block.window] for block in model.image_encoder.trunk.blocks]
    assert blocks == described["blocks"]


@pytest.mark.parametrize(("config", "scenario"), CASES)
def test_same_numbers(work_folders: dict[str, Path], config: str, scenario: str) -> None:
    work = work_folders[config]
    ours = run_scenario(scenario, "ours", config, IMAGE_SIZE, work)
    difference = compare_arrays(ours, dict(np.load(work / "reference" / f"{scenario}.npz")))
    assert difference.error <= TOLERANCE, difference


@pytest.mark.parametrize("config", SCENARIOS)
def test_the_weights_tell_something(work_folders: dict[str, Path], config: str) -> None:
    """Masks with both signs, objects present and absent: agreement on constants would prove nothing."""
    runs = [
        work_folders[config] / "reference" / f"{scenario}.npz"
        for scenario in SCENARIOS[config]
        if scenario in VIDEO_SCENARIOS
    ]
    inside = np.concatenate([positive_shares(run) for run in runs])
    assert 0.2 < np.median(inside) < 0.8
    assert 0.02 < np.mean([share_of_absent(run) for run in runs]) < 0.6
