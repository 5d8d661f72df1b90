"""The memory policies that have names: what all of them promise that follow streams; the rules of each are in another
file, and so is what looks ahead."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from reference.cache import REFERENCES
from test_sam2_memory_policy import follow
from test_sam2_video_predictor import BOXES, HEIGHT, WIDTH, make_predictor, prompt, relative_difference

from sam2.build_sam import build_sam2_video_predictor
from sam2.config import SAM2Config, load_config
from sam2.memory_policies import (
    POLICIES,
    Dam4Sam,
    MemoryPolicy,
    PolicyName,
    Robust,
    Samurai,
    VideoPolicyName,
    dam4sam,
    make_policy,
    robust,
)
from sam2.modeling.core import NO_OBJ_SCORE
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.video_state import InferenceState

NANO = Path(__file__).parents[1] / "checkpoints/sam2.1_nano.pt"
NAMES = [name for name in get_args(PolicyName) if name != "default"]
NUM_FRAMES = 16  # so that the last frame, like the first, is on the grid of dam4sam's recent memories


# ---- what all of them promise ----


@pytest.fixture(scope="module")
def clip() -> list[np.ndarray]:
    background = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return [np.roll(background, 2 * i, axis=1) for i in range(NUM_FRAMES)]


def predictor_that_decides(name: str) -> SAM2VideoPredictor:
    """A random model in float64 under settings that its masks, all alike, sometimes meet and sometimes do not."""
    predictor = make_predictor(
        stable_frames_threshold=2,
        stable_ious_threshold=0.88,
        kf_score_weight=0.9,
        memory_bank_iou_threshold=0.89,
        min_obj_score_logits=-0.2,
    ).double()
    with torch.no_grad():  # presence, about 2.3 on all frames, so that it is sometimes below 0
        head = predictor.sam_mask_decoder.pred_obj_score_head.layers[-1]
        head.weight *= 20
        head.bias.copy_(20 * (head.bias - 2.29))
    predictor.memory_policy = make_policy(name, predictor.config)
    return predictor


@pytest.fixture(scope="module", params=NAMES)
def predictor(request: pytest.FixtureRequest) -> Iterator[SAM2VideoPredictor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(robust, "LEAST_QUALITY", 0.88)
        patch.setattr(dam4sam, "LARGEST_BOX_IOU", 1.0)
        yield predictor_that_decides(request.param)


def remembered(state: InferenceState, obj_id: int) -> list[int]:
    return sorted(t for t, output in state.objects[obj_id].non_cond.items() if output.maskmem is not None)


def offline(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], *obj_ids: int, **kwargs: Any
) -> tuple[InferenceState, torch.Tensor]:
    """A video prompted on its first frame, followed to its end; masks (T, N, 1, H, W)."""
    state = predictor.init_state(clip, **kwargs)
    prompt(predictor, state, 0, *obj_ids)
    return state, torch.stack([masks for _, _, masks in predictor.propagate_in_video(state)])


def test_the_rules_decide(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    """Else the tests below would be those of the default."""
    state, masks = offline(predictor, clip, 1)
    assert remembered(state, 1) != list(range(NUM_FRAMES - 6, NUM_FRAMES))
    plain = predictor_that_decides("default")
    assert not torch.equal(masks, offline(plain, clip, 1)[1])
    states = [output.policy_state for output in state.objects[1].non_cond.values()]
    if isinstance(predictor.memory_policy, Dam4Sam):
        assert {left["is_anchor"] for left in states} == {left["is_empty"] for left in states} == {False, True}
    else:
        assert {left["is_good"] for left in states} == {False, True}
    if isinstance(predictor.memory_policy, Samurai):
        assert {left["stable_frames"] for left in states} == {0, 1, 2}


def test_streaming_equals_offline(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    _, streamed = follow(predictor, clip, 1, 2)
    for history in ("recent", "all"):
        _, masks = offline(predictor, clip, 1, 2, history=history)
        assert torch.equal(masks.flatten(0, 1), streamed)


def test_backwards_is_forwards_on_a_clip_turned_round(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    _, forwards = offline(predictor, clip, 1, 2)
    state = predictor.init_state(clip[::-1])
    prompt(predictor, state, NUM_FRAMES - 1, 1, 2)
    backwards = [masks for _, _, masks in predictor.propagate_in_video(state, NUM_FRAMES - 1, reverse=True)]
    assert torch.equal(torch.stack(backwards), forwards)


def test_both_ways_with_a_correction(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    """From the middle to the end, corrected on the way, and back to the beginning; nothing forgotten is missed."""
    runs = []
    for history in ("recent", "all"):
        state = predictor.init_state(clip, history=history, corrections_stick=True)  # type: ignore[arg-type]
        prompt(predictor, state, 7, 1, 2)
        list(predictor.propagate_in_video(state, 7))
        predictor.add_new_points_or_box(state, 11, 1, points=[[60, 40]], labels=[1])
        forth = [masks for _, _, masks in predictor.propagate_in_video(state, 7)]
        back = [masks for _, _, masks in predictor.propagate_in_video(state, 7, reverse=True)]
        assert len(forth) == NUM_FRAMES - 7 and len(back) == 8
        runs.append(torch.cat(forth + back))
    assert torch.equal(*runs)


def test_adding_an_object_changes_no_other(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(robust, "STRONG_OVERLAP", 1.0)  # that of masks on one another is tested below
    _, without = offline(predictor, clip, 1)
    state = predictor.init_state(clip)
    prompt(predictor, state, 0, 1)
    for t, _, masks in predictor.propagate_in_video(state):
        assert relative_difference(masks[0], without[t][0]) < 1e-7
        if t == 4:
            prompt(predictor, state, 4, 2, 3)
    assert len(state.objects) == 3


@pytest.mark.parametrize("saved_after", [0, 9])
def test_a_saved_stream_goes_on_to_the_same_masks(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], saved_after: int
) -> None:
    _, masks = follow(predictor, clip, 1, 2)
    state, _ = follow(predictor, clip[: saved_after + 1], 1, 2)
    file = io.BytesIO()
    torch.save(predictor.save_stream(state), file)
    file.seek(0)
    state = predictor.load_stream(torch.load(file, weights_only=True))
    rest = []
    for image in clip[saved_after + 1 :]:
        predictor.append_frame(state, image)
        rest.append(predictor.step(state)[1])
    assert torch.equal(torch.cat(rest), masks[2 * (saved_after + 1) :])


def test_memory_of_a_stream_is_bounded(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    """Whatever `policy_state` holds counts as well."""
    state, sizes = predictor.init_stream(), []
    for t in range(90):
        predictor.append_frame(state, clip[t % NUM_FRAMES])
        if t == 0:
            prompt(predictor, state, 0, 1)
        predictor.step(state)
        assert len(remembered(state, 1)) <= 6 + 1 + 2 * 3  # of dam4sam: three anchors, and those that wait for them
        assert len(state.objects[1].non_cond) <= 15 + 6 + 1 + 2 * 3
        if t >= 50:
            file = io.BytesIO()
            torch.save(predictor.save_stream(state), file)
            sizes.append(len(file.getvalue()))
    assert max(sizes[20:]) <= 1.1 * max(sizes[:20]), sizes


# ---- by name ----


def test_a_policy_has_a_name() -> None:
    assert tuple(POLICIES) == get_args(VideoPolicyName)
    for name, kind in POLICIES.items():
        assert kind.looks_ahead == (name not in get_args(PolicyName))
        predictor = build_sam2_video_predictor(None, NANO, device="cpu", memory_policy=name)
        assert type(predictor.memory_policy) is kind and predictor.memory_policy.config is predictor.config
    assert type(make_policy(None, SAM2Config())) is type(make_policy("default", SAM2Config())) is MemoryPolicy


@pytest.mark.parametrize("policy", ["samurais", 3])
def test_an_unknown_policy_is_refused_before_a_model_is_built(policy: Any) -> None:
    with pytest.raises(ValueError, match=r"one of: default, robust, samurai, dam4sam, sam2long; got "):
        build_sam2_video_predictor("sam2.1-large", device="cpu", memory_policy=policy)


@pytest.mark.parametrize(("letter", "weight"), [("t", 0.25), ("s", 0.25), ("b+", 0.25), ("l", 0.15)])
def test_configurations_of_samurai(letter: str, weight: float) -> None:
    config = load_config(f"configs/samurai/sam2.1_hiera_{letter}.yaml")
    plain = load_config(f"configs/sam2.1/sam2.1_hiera_{letter}.yaml")
    assert config.samurai_mode and not plain.samurai_mode
    assert config == replace(plain, samurai_mode=True, kf_score_weight=weight)
    older = load_config(f"configs/sam2/sam2_hiera_{letter}.yaml")
    assert [Samurai(each).motion_weight for each in (config, plain, older)] == [weight] * 3  # by name as well
    assert Samurai(replace(plain, kf_score_weight=0.5)).motion_weight == 0.5
    for policy in (None, "default"):
        assert type(make_policy(policy, config)) is Samurai and type(make_policy(policy, plain)) is MemoryPolicy
    assert type(make_policy("robust", config)) is Robust


@pytest.mark.skipif(not (REFERENCES / "samurai").is_dir(), reason="needs the reference package: make references")
@pytest.mark.parametrize("letter", ["t", "s", "b+", "l"])
def test_published_configurations_say_the_same(letter: str) -> None:
    name = f"configs/samurai/sam2.1_hiera_{letter}.yaml"
    assert load_config(REFERENCES / "samurai/sam2" / name) == load_config(name)


def test_samurai_sees_what_is_nearly_absent() -> None:
    """An object score between -1 and 0: the mask is what was decoded, and the pointer is the object's."""
    seen = {}
    for name in ("default", "samurai"):
        predictor = make_predictor()
        with torch.no_grad():
            predictor.sam_mask_decoder.pred_obj_score_head.layers[-1].bias -= 2.8
        predictor.memory_policy = make_policy(name, predictor.config)
        state = predictor.init_stream()
        predictor.append_frame(state, np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        predictor.add_new_points_or_box(state, 0, 1, box=BOXES[1])
        predictor.append_frame(state, np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        _, masks = predictor.step(state)
        assert -1 < state.objects[1].non_cond[1].object_score_logits < 0
        is_pointer_of_absence = torch.equal(predictor.object_pointers(state, 1)[1], predictor.no_obj_ptr[0])
        seen[name] = (bool((masks > NO_OBJ_SCORE / 2).any()), is_pointer_of_absence)
    assert seen == {"default": (False, True), "samurai": (True, False)}
