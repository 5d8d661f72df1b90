"""Frames between two on which the model runs: masks move with the picture, and prompts, undo and streams stay right."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from test_sam2_video_predictor import HEIGHT, WIDTH, make_predictor, prompt
from tiny_sam2 import TINY
from torch import Tensor

from sam2.build_sam import build_sam2_camera_predictor, build_sam2_video_predictor
from sam2.carried import FLOW_SIDE, carry_masks, grey_of
from sam2.memory_policies import POLICIES, make_policy
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.video_frames import to_model_input
from sam2.video_state import InferenceState

STEP = 3  # frames from one on which the model runs to the next


@pytest.fixture(scope="module")
def clip() -> list[np.ndarray]:
    """A coarse pattern that moves to the right by two pixels a frame."""
    rng = np.random.default_rng(0)
    background = rng.integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    return [np.roll(background, 2 * i, axis=1) for i in range(14)]


@pytest.fixture(scope="module")
def predictor() -> SAM2VideoPredictor:
    return make_predictor(track_every=STEP)


def follow(
    predictor: SAM2VideoPredictor, state: InferenceState, *start: int, reverse: bool = False
) -> dict[int, Tensor]:
    return {t: masks for t, _, masks in predictor.propagate_in_video(state, *start, reverse=reverse)}


@pytest.mark.parametrize("shift", [(8, 0), (-12, 8), (0, 0)])
def test_a_mask_moves_with_the_picture(shift: tuple[int, int]) -> None:
    """By a shift of the picture that is known, to a quarter of it in cells of the mask."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 255, (32, 32), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    assert coarse.shape == (FLOW_SIDE, FLOW_SIDE)
    moved = np.roll(coarse, shift, axis=(1, 0))
    mask, expected = torch.full((2, 1, 64, 64), -5.0), torch.full((64, 64), -5.0)
    mask[0, :, 20:40, 24:44] = 5.0
    expected[20 + shift[1] // 4 : 40 + shift[1] // 4, 24 + shift[0] // 4 : 44 + shift[0] // 4] = 5.0
    carried = carry_masks(mask, torch.from_numpy(coarse), torch.from_numpy(moved))
    assert carried.shape == mask.shape and (carried[1] == -5).all()
    found = carried[0, 0] > 0
    assert (found & (expected > 0)).sum() / (found | (expected > 0)).sum() > 0.9


def test_grey_is_the_brightness_of_a_frame() -> None:
    for value in (0, 100, 255):
        grey = grey_of(to_model_input(np.full((20, 30, 3), value, np.uint8), 64))
        assert grey.shape == (FLOW_SIDE, FLOW_SIDE) and (grey.int() - value).abs().max() <= 2


def test_the_model_runs_on_every_third_frame(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames 3, 6, 9 and 12, and frame 0 for its prompt; those between have the masks of the frame before, moved."""
    encode, encoded = predictor.forward_image, []
    monkeypatch.setattr(predictor, "forward_image", lambda images: (encoded.append(images), encode(images))[1])
    state = predictor.init_state(clip, history="all")
    prompt(predictor, state, 0, 1, 2)
    masks = follow(predictor, state)
    assert len(encoded) == 5 and sorted(masks) == list(range(14))
    for obj in state.objects.values():
        assert sorted(obj.non_cond) == [3, 6, 9, 12] and sorted({*obj.carried, *obj.non_cond}) == list(range(1, 14))
        for t, output in obj.carried.items():
            greys = (grey_of(to_model_input(clip[i], 64)) for i in (t - 1, t))
            before = obj.output_at(t - 1)
            assert torch.equal(output.low_res_masks, carry_masks(before.low_res_masks, *greys))
            assert output.maskmem is None and torch.equal(output.obj_ptr, before.obj_ptr)
    recent = predictor.init_state(clip)
    prompt(predictor, recent, 0, 1, 2)
    assert all(torch.equal(masks[t], again) for t, again in follow(predictor, recent).items())


def test_one_is_every_frame(clip: list[np.ndarray]) -> None:
    exact, asked_for = (make_predictor(**how) for how in ({}, {"track_every": 1}))
    states = [model.init_state(clip) for model in (exact, asked_for)]
    for model, state in zip((exact, asked_for), states, strict=True):
        prompt(model, state, 0, 1)
    one, other = follow(exact, states[0]), follow(asked_for, states[1])
    assert all(torch.equal(one[t], other[t]) for t in one) and not states[1].objects[1].carried


def stream(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], late: int, saved_after: int | None = None
) -> list[Tensor]:
    """Object 1 from the start, object 2 from frame `late`; saved and loaded after so many frames."""
    state, masks = predictor.init_stream(num_frames=len(clip)), []
    for t, image in enumerate(clip):
        predictor.append_frame(state, image)
        for obj_id in (1, 2):
            if t == (0, late)[obj_id - 1]:
                prompt(predictor, state, t, obj_id)
        masks.append(predictor.step(state)[1])
        if t + 1 == saved_after:
            file = io.BytesIO()
            torch.save(predictor.save_stream(state), file)
            file.seek(0)
            state = predictor.load_stream(torch.load(file, weights_only=True))
    return masks


def test_a_stream_is_the_video(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    state = predictor.init_state(clip)
    prompt(predictor, state, 0, 1, 2)
    offline = follow(predictor, state)
    assert all(torch.equal(masks, offline[t]) for t, masks in enumerate(stream(predictor, clip, late=0)))


@pytest.mark.parametrize("saved_after", [7, 8, 9])
def test_a_stream_goes_on_where_it_was_saved(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], saved_after: int
) -> None:
    uninterrupted = stream(predictor, clip, late=4)
    assert [len(masks) for masks in uninterrupted] == [1] * 4 + [2] * 10
    assert all(map(torch.equal, stream(predictor, clip, 4, saved_after), uninterrupted))


def test_backwards_from_a_frame_between(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    state = predictor.init_state(clip)
    prompt(predictor, state, 7, 1)
    assert sorted(follow(predictor, state, 7, reverse=True)) == list(range(8))
    obj = state.objects[1]
    assert sorted(obj.non_cond) == [0, 3, 6] and sorted(obj.carried) == [1, 2, 4, 5]
    assert all(output.reverse for output in (*obj.non_cond.values(), *obj.carried.values()))


def test_a_prompt_between_corrects_and_is_taken_back(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    state = predictor.init_state(clip)
    prompt(predictor, state, 0, 1)
    masks = follow(predictor, state)
    click = {"points": [[60, 40]], "labels": [1]}
    first = predictor.add_new_points_or_box(state, 10, 1, **click)[2]
    assert not torch.equal(first, masks[10])
    back = predictor.clear_all_prompts_in_frame(state, 10, 1, restore=True)[2]
    assert torch.equal(back, masks[10])
    state = predictor.load_state(predictor.save_state(state), clip)
    assert torch.equal(predictor.add_new_points_or_box(state, 10, 1, **click)[2], first)
    predictor.propagate_in_video_preflight(state)
    assert torch.equal(predictor.clear_all_prompts_in_frame(state, 10, 1, restore=True)[2], masks[10])
    assert all(torch.equal(masks[t], again) for t, again in follow(predictor, state).items())
    state.corrections_stick = True
    corrected = predictor.add_new_points_or_box(state, 10, 1, **click)[2]
    again = follow(predictor, state)
    assert torch.equal(again[10], corrected) and not torch.equal(again[11], masks[11])


def test_what_identity_takes_back(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    state = predictor.init_state(clip)
    prompt(predictor, state, 0, 1)
    follow(predictor, state)
    assert predictor.frame_scores(state, 13).keys() == predictor.object_pointers(state, 13).keys() == {1}
    predictor.forget_frame(state, 13, [1])
    assert state.objects[1].output_at(13) is None
    predictor.correct_object(state, 11, 1, np.ones((HEIGHT, WIDTH), bool))
    assert not state.objects[1].carried


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_see_the_frames_that_were_tracked(clip: list[np.ndarray], policy: str) -> None:
    predictor = make_predictor(track_every=STEP)
    predictor.memory_policy = make_policy(policy, predictor.config)
    state = predictor.init_state(clip, history="all")
    prompt(predictor, state, 0, 1, 2)
    masks = follow(predictor, state)
    assert len(masks) == 14 and all(masks[t].isfinite().all() for t in masks)
    assert sorted(state.objects[2].non_cond) == [3, 6, 9, 12]


def test_memories_that_are_tokens(clip: list[np.ndarray]) -> None:
    """EdgeTAM's kind."""
    perceiver = {"memory_compressor": "perceiver", "perceiver_latents": 4, "perceiver_latents_2d": 4}
    predictor = make_predictor(track_every=2, **perceiver)
    state = predictor.init_state(clip)
    prompt(predictor, state, 0, 1, 2)
    offline = follow(predictor, state)
    assert sorted(state.objects[1].carried) == [1, 3, 5, 7, 9, 11, 13]
    assert state.objects[1].non_cond[12].maskmem.shape == (1, predictor.config.mem_dim, 8)
    assert all(torch.equal(masks, offline[t]) for t, masks in enumerate(stream(predictor, clip, late=0)))


@pytest.mark.parametrize("build", [build_sam2_video_predictor, build_sam2_camera_predictor])
def test_builders(build: Any, tmp_path: Path) -> None:
    settings = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(TINY).items()}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings))
    for every in (1, 2, 6):
        assert build(tmp_path / "tiny.yaml", device="cpu", track_every=every).config.track_every == every
    for wrong in (0, -1, 7):
        with pytest.raises(ValueError, match="expected a track_every of 1 to 6"):
            build(tmp_path / "tiny.yaml", device="cpu", track_every=wrong)
    with pytest.raises(ValueError, match="track_every"):
        build(tmp_path / "tiny.yaml", device="cpu", track_every=1.5)
