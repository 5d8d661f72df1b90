"""Memories read sparsely: which cells are read, that off changes nothing, and that a choice outlives what people do."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from test_sam2_video_predictor import HEIGHT, WIDTH, make_predictor, prompt, relative_difference
from tiny_sam2 import TINY
from torch import Tensor

from sam2.build_sam import build_sam2_camera_predictor, build_sam2_video_predictor
from sam2.memory_policies import POLICIES, make_policy
from sam2.modeling.attention import attend_in_blocks
from sam2.modeling.position_encoding import rope_rotations, rotate
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.video_state import InferenceState

SHARE, NUM_KEPT, NUM_CELLS = 0.25, 4, 16  # the model of these tests sees 4 × 4 cells


@pytest.fixture(scope="module")
def clip() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    background = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return [np.roll(background, 2 * i, axis=1) for i in range(16)]


@pytest.fixture(scope="module")
def predictor() -> SAM2VideoPredictor:
    return make_predictor(sparse_memories=SHARE)


def follow(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], *obj_ids: int, **kwargs: Any
) -> tuple[InferenceState, Tensor]:
    state = predictor.init_state(clip, **kwargs)
    prompt(predictor, state, 0, *obj_ids)
    return state, torch.cat([masks for _, _, masks in predictor.propagate_in_video(state)])


def chosen(state: InferenceState, obj_id: int = 1) -> dict[int, list[int]]:
    """The cells that are kept of each frame of which some were chosen."""
    outputs = state.objects[obj_id].non_cond.items()
    return {t: output.kept_cells.tolist() for t, output in outputs if output.kept_cells is not None}


def test_attention_received_is_the_sum_of_the_weights() -> None:
    q, k, v = (torch.randn(length, width) for length, width in ((300, 8), (20, 8), (20, 3)))
    received = torch.ones(20)
    attend_in_blocks(q, k, v, received=received)
    torch.testing.assert_close(received, 1 + F.softmax(q @ k.T / 8**0.5, dim=1).sum(dim=0))


@torch.inference_mode()
def test_a_frame_reads_what_was_chosen_and_chooses_of_the_newest(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray]
) -> None:
    """Frame 15, by brute force: attention to all cells, those that are not read having no weight."""
    state, _ = follow(predictor, clip[:15], 1)
    obj, config = state.objects[1], predictor.config
    before = chosen(state)
    assert sorted(before) == list(range(1, 14)) and obj.cond[0].kept_cells is None
    assert all(len(set(cells)) == NUM_KEPT for cells in before.values())

    spatial = [obj.cond[0], *(obj.non_cond[t] for t in range(9, 15))]  # the oldest first, as SAM 2 has them
    is_read = torch.zeros(7, NUM_CELLS, dtype=torch.bool)
    is_read[[0, 6]] = True
    for row, t in enumerate(range(9, 14), start=1):
        is_read[row, before[t]] = True
    pointers = [obj.cond[0], *(obj.non_cond[t] for t in range(14, 0, -1))]
    times = torch.tensor([[15, *range(1, 15)]], dtype=torch.float32) / 14  # of a video of 15 frames
    memory, memory_pe, num_pointers = predictor.assemble_memory(
        torch.stack([output.maskmem for output in spatial], dim=1),
        torch.tensor([[0, 6, 5, 4, 3, 2, 1]]),
        torch.stack([output.obj_ptr for output in pointers], dim=1),
        times,
    )
    vision = predictor.forward_image(torch.randn(1, 3, 64, 64)).vision
    x = attended = predictor.attend_to_frame(vision)
    bias = torch.cat((is_read.flatten(), torch.ones(num_pointers, dtype=torch.bool))).log()  # 0, or -inf
    grid = rope_rotations(config.d_model, 4, 4, config.rope_theta, torch.device("cpu"))
    received = torch.zeros(memory.shape[1])
    for i, layer in enumerate(predictor.memory_attention.layers):
        x = layer.attend_to_itself(x) if i > 0 else x
        attention = layer.cross_attn_image
        q, k = attention.q_proj(layer.norm2(x)), attention.k_proj(memory + memory_pe)
        cells = rotate(k[:, : 7 * NUM_CELLS], grid.repeat(7, 1))
        scores = rotate(q, grid) @ torch.cat((cells, k[:, 7 * NUM_CELLS :]), dim=1).mT / config.d_model**0.5
        weights = (scores + bias).softmax(dim=2)
        received += weights[0].sum(dim=0)
        x = x + attention.out_proj(weights @ attention.v_proj(memory))
        x = x + layer.linear2(F.relu(layer.linear1(layer.norm3(x))))
    expected = predictor.memory_attention.norm(x).mT.unflatten(2, (4, 4))

    places = [(place, output, 1.0) for place, output in zip((0, 6, 5, 4, 3, 2, 1), spatial, strict=True)]
    elapsed = list(zip((15, *range(1, 15)), (output.obj_ptr for output in pointers), strict=True))
    found = predictor._read_memory(state, [(places, elapsed)], vision, attended)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert chosen(state) == before  # a prompt that reads memories chooses nothing
    predictor._read_memory(state, [(places, elapsed)], vision, attended, is_tracked=True)
    most = received[6 * NUM_CELLS : 7 * NUM_CELLS].topk(NUM_KEPT).indices
    after = chosen(state)
    assert {*after.pop(14)} == {*most.tolist()} and after == before


def test_off_changes_nothing_and_all_cells_are_the_whole(clip: list[np.ndarray]) -> None:
    exact = follow(make_predictor(), clip, 1, 2)[1]
    state, off = follow(make_predictor(sparse_memories=1.0), clip, 1, 2)
    assert torch.equal(off, exact) and not chosen(state)
    state, in_other_order = follow(make_predictor(sparse_memories=0.99).double(), clip, 1, 2)
    assert len(chosen(state)[5]) == NUM_CELLS
    assert relative_difference(in_other_order, follow(make_predictor().double(), clip, 1, 2)[1]) < 1e-5
    assert relative_difference(follow(make_predictor(sparse_memories=SHARE), clip, 1, 2)[1], exact) > 1e-3


def test_objects_together_are_objects_alone(clip: list[np.ndarray]) -> None:
    """One is added later, so that fewer memories are read of it, and fewer of those sparsely."""
    predictor = make_predictor(sparse_memories=SHARE).double()
    state = predictor.init_state(clip)
    prompt(predictor, state, 0, 1, 2)
    prompt(predictor, state, 3, 3)
    together = torch.stack([masks for _, _, masks in predictor.propagate_in_video(state, 3)])
    for row, (obj_id, start) in enumerate(((1, 0), (2, 0), (3, 3))):
        alone = predictor.init_state(clip)
        prompt(predictor, alone, start, obj_id)
        masks = torch.cat([masks for _, _, masks in predictor.propagate_in_video(alone, 3)])
        assert relative_difference(together[:, row], masks) < 1e-5


def test_a_stream_is_the_video_also_after_it_was_saved(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    offline = follow(predictor, clip, 1, 2)[1]
    state, masks = predictor.init_stream(num_frames=len(clip)), []
    for image in clip:
        if predictor.append_frame(state, image) == 0:
            prompt(predictor, state, 0, 1, 2)
        masks.append(predictor.step(state)[1])
        if len(masks) == 9:
            file = io.BytesIO()
            torch.save(predictor.save_stream(state), file)
            file.seek(0)
            state = predictor.load_stream(torch.load(file, weights_only=True))
    assert torch.equal(torch.cat(masks), offline)


def test_what_a_person_does_leaves_the_choice(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    """Saved and opened again, prompted and taken back, tracked a second time: the same masks; then backwards."""
    state, masks = follow(predictor, clip, 1, history="all")
    cells = chosen(state)
    state = predictor.load_state(predictor.save_state(state), clip)
    assert chosen(state) == cells
    predictor.add_new_points_or_box(state, 9, 1, points=[[60, 40]], labels=[1])
    predictor.clear_all_prompts_in_frame(state, 9, 1, restore=True)
    assert chosen(state) == cells
    again = torch.cat([masks for _, _, masks in predictor.propagate_in_video(state)])
    assert torch.equal(again, masks)
    predictor.add_new_points_or_box(state, 12, 1, points=[[60, 40]], labels=[1])
    backwards = {t: masks for t, _, masks in predictor.propagate_in_video(state, 12, reverse=True)}
    assert sorted(backwards) == list(range(13)) and all(masks.isfinite().all() for masks in backwards.values())


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_reads_sparsely(clip: list[np.ndarray], policy: str) -> None:
    """Whatever frames a policy selects, of old ones no more is read than was chosen."""
    predictor = make_predictor(sparse_memories=SHARE)
    predictor.memory_policy = make_policy(policy, predictor.config)
    lengths: list[int] = []
    hook = predictor.memory_attention.register_forward_pre_hook(
        lambda _, inputs: lengths.append(inputs[1].shape[1] - inputs[3])
    )
    follow(predictor, clip, 1)
    hook.remove()
    read = lengths[-1]
    assert (read - NUM_CELLS) % NUM_KEPT == 0 and read <= (4 + 1) * NUM_CELLS + 6 * NUM_KEPT
    assert policy != "default" or read == 2 * NUM_CELLS + 5 * NUM_KEPT


@pytest.mark.parametrize("build", [build_sam2_video_predictor, build_sam2_camera_predictor])
def test_builders(build: Any, tmp_path: Path) -> None:
    settings = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(TINY).items()}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings))
    for asked, used in ((1.0, 1.0), (0.05, 0.05), (1, 1.0)):
        assert build(tmp_path / "tiny.yaml", device="cpu", sparse_memories=asked).config.sparse_memories == used
    for wrong in (0, -0.1, 1.5):
        with pytest.raises(ValueError, match="expected sparse_memories above 0 and at most 1"):
            build(tmp_path / "tiny.yaml", device="cpu", sparse_memories=wrong)
    with pytest.raises(ValueError, match="sparse_memories needs memories of cells"):
        build("edgetam", device="cpu", sparse_memories=0.05)
