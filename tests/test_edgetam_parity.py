"""EdgeTAM of this repository against facebookresearch/EdgeTAM's package, and against transformers' class.

`make references` installs `edgetam-dimos` and timm; without them these tests are skipped. Both run in processes of
their own, see `test_sam2_parity.py`. Most run at a reduced image size, where EdgeTAM's memories have fewer tokens; the
slow ones at full size. That package's video predictor is an early one, which takes all objects on the first frame and
does not track a corrected frame again: scenarios and settings in which it differs from SAM 2's are left out.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference.cache import PRINTED, REFERENCES, answers_of
from reference.clip import SHAPES, box_of, centre_of, read_frame, shape_mask
from reference.compare import compare_arrays, positive_shares, relative_error, share_of_absent
from reference.everything import CASES, records_of
from reference.gradients import gradients_of
from reference.hugging_face import own_names
from reference.run import EDGETAM, FLOAT32_SUFFIX, OTHER_SCENARIOS, PLAIN_SUFFIX, STICKY_SUFFIX, run_scenario
from reference.stages import normalise

from sam2.build_sam import build_sam2_video_predictor
from sam2.config import load_config
from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.weights import config_for

TOLERANCE = 1e-4
IMAGE_SIZE = 128
NUM_FRAMES = 18  # more than the 16 pointers that memory attention reads
VIDEO_SCENARIOS = (
    "one_box",
    "one_point",
    "one_mask",
    "several_objects",
    "reverse",
    "forward_then_reverse",
    "refine_before_tracking",
    "remove_an_object",
    "clear_prompts",
    "reset_and_again",
    "correct_later" + STICKY_SUFFIX,
    "several_objects" + PLAIN_SUFFIX,
    "several_objects" + FLOAT32_SUFFIX,
)
SCENARIOS = (*OTHER_SCENARIOS, *VIDEO_SCENARIOS)
# kinds of prompts of the objects in a clip that transformers' class is asked about
PROMPTS = {"box": ["box"], "point": ["point"], "both": ["box", "point"]}
LATENTS = {"perceiver_latents": 256, "perceiver_latents_2d": 256}  # at full size
FULL_SIZE, FULL_SCENARIOS = 1024, ("stages", "image", "several_objects")

pytestmark = pytest.mark.skipif(
    not (REFERENCES / "edgetam").is_dir(), reason="needs the reference package: make references"
)


def run_of_reference(image_size: int, num_frames: int, scenarios: tuple[str, ...]) -> Path:
    size = ["--image-size", str(image_size), "--num-frames", str(num_frames)]
    arguments = ["--package", "reference", "--config", EDGETAM, *size, "--work", ".", "--scenarios", *scenarios]
    return answers_of("edgetam", "run", arguments)


@pytest.fixture(scope="module")
def work() -> Path:
    """A folder with weights, a clip and what the reference made of them."""
    return run_of_reference(IMAGE_SIZE, NUM_FRAMES, SCENARIOS)


def test_upstreams_own_file_says_the_same() -> None:
    ours, theirs = load_config("edgetam"), load_config(REFERENCES / "edgetam/sam2/configs/edgetam.yaml")
    different = {name for name, value in vars(ours).items() if getattr(theirs, name) != value}
    assert different == {"global_att_blocks", "window_pos_embed_bkg_spatial_size"}  # of a Hiera, which it has not


def test_official_checkpoint(work: Path) -> None:
    """Every tensor has its name and shape, at full size too."""
    official = torch.load(work / "weights.pt", weights_only=True)["model"]
    with torch.device("meta"):
        ours = SAM2Base(load_config("edgetam")).state_dict()
    assert list(ours.keys() - official.keys()) == list(official.keys() - ours.keys()) == []
    other_size = {"spatial_perceiver.latents", "spatial_perceiver.latents_2d"}
    assert {name for name in ours if ours[name].shape != official[name].shape} == other_size
    assert all(ours[name].dtype == official[name].dtype for name in ours)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_same_numbers(work: Path, scenario: str) -> None:
    ours = run_scenario(scenario, "ours", EDGETAM, IMAGE_SIZE, work)
    difference = compare_arrays(ours, dict(np.load(work / "reference" / f"{scenario}.npz")))
    assert difference.error <= TOLERANCE, difference


def test_the_weights_tell_something(work: Path) -> None:
    """See `test_sam2_parity.py`."""
    runs = [work / "reference" / f"{scenario}.npz" for scenario in VIDEO_SCENARIOS]
    assert 0.2 < np.median(np.concatenate([positive_shares(run) for run in runs])) < 0.8
    assert 0.02 < np.mean([share_of_absent(run) for run in runs]) < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("scenario", FULL_SCENARIOS)
def test_same_numbers_at_full_size(scenario: str) -> None:
    work = run_of_reference(FULL_SIZE, 8, FULL_SCENARIOS)
    ours = run_scenario(scenario, "ours", EDGETAM, FULL_SIZE, work)
    difference = compare_arrays(ours, dict(np.load(work / "reference" / f"{scenario}.npz")))
    assert difference.error <= TOLERANCE, difference


@pytest.mark.slow
def test_same_records_of_everything() -> None:
    arguments = ["--config", EDGETAM, "--work", "."]
    theirs = answers_of("edgetam", "everything", arguments)
    expected = dict(np.load(theirs / "records.npz"))
    found = records_of("ours", theirs, EDGETAM)
    assert found.keys() == expected.keys() and {name.partition(".")[0] for name in found} == set(CASES)
    for name, array in expected.items():
        if array.dtype == bool:
            assert array.shape == found[name].shape and (array != found[name]).mean() < 1e-4, name
        else:
            np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_same_gradients() -> None:
    """Of every parameter, within what the largest of its part allows; and batch statistics in training."""
    size = ["--config", EDGETAM, "--image-size", str(IMAGE_SIZE)]
    theirs = answers_of("edgetam", "gradients", [*size, "--work", "."])
    expected, found = dict(np.load(theirs / "gradients.npz")), gradients_of(EDGETAM, IMAGE_SIZE, theirs)
    assert found.keys() == expected.keys()
    largest: dict[str, float] = {}
    for name, array in expected.items():
        part = ".".join(name.split(".")[:3])
        largest[part] = max(largest.get(part, 0.0), float(np.abs(array).max()))
    for name, array in expected.items():
        scale = max(float(np.abs(array).max()), 0.02 * largest[".".join(name.split(".")[:3])])
        assert np.abs(found[name] - array).max() <= TOLERANCE * scale, name


# ---- transformers ----


@pytest.fixture(scope="module")
def hugging_face(work: Path) -> Path:
    """A folder with `model`, as transformers wrote it with the reference's weights, and its answers to a clip."""
    shapes = json.loads((answers_of("edgetam", "edgetam_hugging_face", [str(IMAGE_SIZE)]) / PRINTED).read_text())
    files = {"weights.pt": (work / "weights.pt").read_bytes(), "names.json": json.dumps(own_names(shapes)).encode()}
    return answers_of("edgetam", "edgetam_hugging_face", [str(IMAGE_SIZE), *files], files)


@pytest.fixture(scope="module")
def from_folder(hugging_face: Path) -> SAM2VideoPredictor:
    return build_sam2_video_predictor(
        None, hugging_face / "model", device="cpu", hydra_overrides_extra=["++model.fill_hole_area=0"]
    )


def test_folder_of_transformers(work: Path, hugging_face: Path, from_folder: SAM2VideoPredictor) -> None:
    official = torch.load(work / "weights.pt", weights_only=True)["model"]
    read = from_folder.state_dict()
    assert read.keys() == official.keys()
    assert all(torch.equal(read[name], official[name]) for name in official)
    at_full_size = replace(config_for(hugging_face / "model"), image_size=1024, **LATENTS)
    assert at_full_size == load_config("edgetam")


def test_image_embedding_of_transformers(hugging_face: Path, from_folder: SAM2VideoPredictor) -> None:
    answers = np.load(hugging_face / "answers.npz")
    with torch.inference_mode():
        features = from_folder.forward_image(normalise(read_frame(hugging_face / "clip", 0)))
        levels = [*features.high_res, from_folder.add_no_memory(features.vision)]
    for i, level in enumerate(levels):
        assert relative_error(level.numpy(), answers[f"embedding.{i}"]) <= TOLERANCE


@pytest.mark.parametrize("case", PROMPTS)
def test_clip_of_transformers(hugging_face: Path, from_folder: SAM2VideoPredictor, case: str) -> None:
    answers = np.load(hugging_face / "answers.npz")
    state = from_folder.init_state(str(hugging_face / "clip"))
    for obj_id, kind in enumerate(PROMPTS[case], start=1):
        mask = shape_mask(SHAPES[obj_id - 1], 0, (IMAGE_SIZE, IMAGE_SIZE))
        if kind == "box":
            from_folder.add_new_points_or_box(state, 0, obj_id, box=box_of(mask))
        else:
            from_folder.add_new_points_or_box(state, 0, obj_id, points=centre_of(mask)[None], labels=np.array([1]))
    tracked = 0
    for frame, _, masks in from_folder.propagate_in_video(state):
        low_res = torch.from_numpy(answers[f"{case}.{frame:02d}"])
        expected = F.interpolate(low_res, size=masks.shape[-2:], mode="bilinear", align_corners=False)
        assert relative_error(masks.numpy(), expected.numpy()) <= TOLERANCE, f"frame {frame}"
        tracked += bool((expected > 0).any())
    assert tracked > 0
