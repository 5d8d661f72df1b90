"""Editing a video: undo to the last bit, corrections that stick, sessions that are saved and loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_sam2_video_predictor import BOXES, HEIGHT, WIDTH, make_predictor, prompt
from torch import Tensor

from sam2.modeling.sam2_base import NO_OBJ_SCORE
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.video_frames import LazyFrames
from sam2.video_state import InferenceState

FRAME = 6  # the one that is edited
Edit = Callable[[SAM2VideoPredictor, InferenceState], Tensor]


@pytest.fixture(scope="module")
def predictor() -> SAM2VideoPredictor:
    return make_predictor(fill_hole_area=8, binarize_mask_from_pts_for_mem_enc=True)


@pytest.fixture(scope="module")
def clip() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    background = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return [np.roll(background, 2 * i, axis=1) for i in range(12)]


def square() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:30, 20:60] = True
    return mask


def click(x: float, y: float, label: int = 1, **kwargs: Any) -> Edit:
    def edit(predictor: SAM2VideoPredictor, state: InferenceState) -> Tensor:
        return predictor.add_new_points_or_box(state, FRAME, 1, points=[[x, y]], labels=[label], **kwargs)[2]

    return edit


def box(predictor: SAM2VideoPredictor, state: InferenceState) -> Tensor:
    return predictor.add_new_points_or_box(state, FRAME, 1, box=BOXES[1])[2]


def mask(predictor: SAM2VideoPredictor, state: InferenceState) -> Tensor:
    return predictor.add_new_mask(state, FRAME, 1, square())[2]


MORE = click(30, 40, 0, clear_old_points=False)
EDITS: dict[str, list[Edit]] = {
    "points": [click(60, 40), MORE],
    "box": [box, MORE],
    "mask": [mask],
    "mask, then a point": [mask, MORE],
}


def tracked(predictor: SAM2VideoPredictor, clip: list[np.ndarray], **kwargs: Any) -> InferenceState:
    """Two objects, tracked from the first frame to the last. Edits are of the first; on the edited frame the other is
    then tracked alone, which may change its last bit."""
    state = predictor.init_state(clip, history="all", **kwargs)
    prompt(predictor, state, 0, 1, 2)
    propagate(predictor, state)
    return state


def propagate(predictor: SAM2VideoPredictor, state: InferenceState, **kwargs: Any) -> dict[int, Tensor]:
    return {t: masks for t, _, masks in predictor.propagate_in_video(state, **kwargs)}


def undo(predictor: SAM2VideoPredictor, state: InferenceState) -> Tensor:
    cleared = predictor.clear_all_prompts_in_frame(state, FRAME, 1, restore=True)
    assert cleared is not None
    return cleared[2]


# ---- undo ----


@pytest.mark.parametrize("enters_memory", [False, True], ids=["waiting", "in memory"])
@pytest.mark.parametrize("is_tracked", [False, True], ids=["fresh frame", "tracked frame"])
@pytest.mark.parametrize("edits", EDITS.values(), ids=EDITS.keys())
def test_clear_and_replay_gives_equal_logits(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], edits: list[Edit], is_tracked: bool, enters_memory: bool
) -> None:
    state = predictor.init_state(clip, history="all", corrections_stick=True)
    if is_tracked:
        prompt(predictor, state, 0, 1, 2)
        propagate(predictor, state)
    before = predictor._masks_on(state, FRAME)
    done = [edit(predictor, state) for edit in edits]
    MORE(predictor, state)  # the one that is undone
    if enters_memory:
        propagate(predictor, state, start_frame_idx=FRAME)
    cleared = undo(predictor, state)
    if is_tracked:
        assert torch.equal(cleared[0], before[0])
    else:
        assert torch.allclose(cleared[0], torch.tensor(NO_OBJ_SCORE))
    for edit, expected in zip(edits, done, strict=True):
        assert torch.equal(edit(predictor, state)[0], expected[0])


def test_undo_and_propagation_give_what_was_before(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    state = tracked(predictor, clip, corrections_stick=True)
    before = propagate(predictor, state)
    mask(predictor, state)
    edited = propagate(predictor, state)
    undo(predictor, state)
    after = propagate(predictor, state)
    assert not torch.equal(edited[FRAME + 1], before[FRAME + 1])
    assert all(torch.equal(after[t], before[t]) for t in before)


def test_upstream_s_clear_keeps_the_mask(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    state = tracked(predictor, clip, corrections_stick=True)
    mask(predictor, state)
    shown = propagate(predictor, state)[FRAME]
    cleared = predictor.clear_all_prompts_in_frame(state, FRAME, 1)
    assert cleared is not None and torch.equal(cleared[2], shown)
    assert predictor.clear_all_prompts_in_frame(state, FRAME, 1, need_output=False) is None


def test_undo_of_nothing_changes_nothing(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    state = tracked(predictor, clip)
    before = predictor._masks_on(state, FRAME)
    assert torch.equal(undo(predictor, state), before) and torch.equal(undo(predictor, state), before)


def test_a_correction_that_was_tracked_over_is_not_undone_twice(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray]
) -> None:
    """Upstream's rule: propagation replaces the corrected mask, and what it put there stays."""
    state = tracked(predictor, clip)
    mask(predictor, state)
    again = propagate(predictor, state)
    assert torch.equal(undo(predictor, state), again[FRAME])


def test_undo_on_a_stream_s_newest_frame(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    state = predictor.init_stream(corrections_stick=True)
    for image in clip[: FRAME + 1]:
        if predictor.append_frame(state, image) == 0:
            prompt(predictor, state, 0, 1)
        _, masks = predictor.step(state)
    first = click(60, 40)(predictor, state)
    MORE(predictor, state)
    assert torch.equal(undo(predictor, state), masks)
    assert torch.equal(click(60, 40)(predictor, state), first)
    for image in clip[FRAME + 1 :]:
        predictor.append_frame(state, image)
        predictor.step(state)
    assert not state.objects[1].before_prompts  # passed frames are not prompted again, and hold nothing


@pytest.mark.parametrize("restore", [False, True])
def test_an_unknown_id_is_not_made_by_clearing(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], restore: bool
) -> None:
    state = predictor.init_state(clip)
    prompt(predictor, state, 0, 1)
    answer = predictor.clear_all_prompts_in_frame(state, 0, 9, restore=restore)
    assert answer is not None and answer[1] == [1] and state.obj_ids == [1]
    assert len(propagate(predictor, state)) == len(clip)


def test_a_prompt_on_an_unreadable_frame_makes_no_object(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    state = predictor.init_state([*clip[:3], clip[3][:40]])
    prompt(predictor, state, 0, 1)
    for call in (
        lambda: predictor.add_new_points_or_box(state, 3, 2, box=BOXES[2]),
        lambda: predictor.add_new_mask(state, 3, 2, square()),
    ):
        with pytest.raises(ValueError, match="frame 3 is 80x40 pixels"):
            call()
    assert state.obj_ids == [1]
    assert len(propagate(predictor, state, max_frame_num_to_track=2)) == 3


# ---- corrections ----


@pytest.mark.parametrize("edits", EDITS.values(), ids=EDITS.keys())
@pytest.mark.parametrize("reverse", [False, True])
def test_a_correction_sticks(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], edits: list[Edit], reverse: bool
) -> None:
    state = tracked(predictor, clip, corrections_stick=True)
    before = propagate(predictor, state)
    for edit in edits:
        corrected = edit(predictor, state)
    assert not torch.equal(corrected[0], before[FRAME][0])
    last = len(clip) - 1
    after = propagate(predictor, state, start_frame_idx=last if reverse else 0, reverse=reverse)
    assert torch.equal(after[FRAME][0], corrected[0])
    assert list(state.objects[1].cond) == [0, FRAME] and list(state.objects[2].cond) == [0]
    both = propagate(predictor, state, start_frame_idx=0 if reverse else last, reverse=not reverse)
    assert torch.equal(both[FRAME][0], corrected[0])  # and again, the other way


def test_without_the_switch_the_next_propagation_takes_a_correction_away(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray]
) -> None:
    state = tracked(predictor, clip)
    before = propagate(predictor, state)
    corrected = mask(predictor, state)
    after = propagate(predictor, state)
    assert torch.equal(after[FRAME], before[FRAME]) and not torch.equal(after[FRAME], corrected)


def test_the_configuration_s_name_for_it_works_as_well(clip: list[np.ndarray]) -> None:
    predictor = make_predictor(add_all_frames_to_correct_as_cond=True)
    state = tracked(predictor, clip)
    corrected = mask(predictor, state)
    assert torch.equal(propagate(predictor, state)[FRAME][0], corrected[0])


def test_putting_an_object_right_forgets_its_other_prompts(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray]
) -> None:
    """Also one that has not entered memory yet, which would bring the wrong object back."""
    state = tracked(predictor, clip)
    predictor.add_new_points_or_box(state, 4, 1, points=[[60, 40]], labels=[1])
    mask(predictor, state)
    predictor.correct_object(state, FRAME, 1, square())
    propagate(predictor, state, max_frame_num_to_track=8)
    obj = state.objects[1]
    assert list(obj.cond) == [0, FRAME] and list(obj.masks) == [FRAME] and list(obj.points) == [0]


# ---- saved sessions ----


def saved_and_loaded(
    predictor: SAM2VideoPredictor, state: InferenceState, clip: list[np.ndarray], path: Path
) -> InferenceState:
    torch.save(predictor.save_state(state), path)
    return predictor.load_state(torch.load(path, weights_only=True), clip)


@pytest.mark.parametrize("history", ["recent", "all"])
@pytest.mark.parametrize("corrections_stick", [False, True])
def test_a_loaded_session_goes_on_as_the_saved_one(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], tmp_path: Path, history: str, corrections_stick: bool
) -> None:
    """One correction is in memory when it is saved, one waits to enter it, and one is undone afterwards."""
    state = predictor.init_state(clip, history=history, corrections_stick=corrections_stick)  # type: ignore[arg-type]
    prompt(predictor, state, 2, 1, 3)
    propagate(predictor, state)
    mask(predictor, state)
    propagate(predictor, state, max_frame_num_to_track=6)
    predictor.add_new_points_or_box(state, 4, 3, points=[[60, 40]], labels=[1])
    predictor.add_new_mask(state, 5, 7, square())
    loaded = saved_and_loaded(predictor, state, clip, tmp_path / "session.pt")
    assert loaded.obj_ids == [1, 3, 7] and loaded["num_frames"] == len(clip)
    assert (loaded.history, loaded.corrections_stick) == (history, corrections_stick)

    def go_on(state: InferenceState) -> list[Tensor]:
        masks = [predictor._masks_on(state, t) for t in range(len(clip))]
        masks.append(MORE(predictor, state))
        masks += [*propagate(predictor, state, start_frame_idx=2).values()]
        masks += [*propagate(predictor, state, start_frame_idx=5, reverse=True).values()]
        masks.append(undo(predictor, state))
        masks += [*propagate(predictor, state, start_frame_idx=2).values()]
        return masks

    for masks, expected in zip(go_on(loaded), go_on(state), strict=True):
        assert torch.equal(masks, expected)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_session_with_no_object_and_with_some(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], tmp_path: Path, count: int
) -> None:
    state = predictor.init_state(clip)
    prompt(predictor, state, 0, *list(BOXES)[:count])
    loaded = saved_and_loaded(predictor, state, clip, tmp_path / "session.pt")
    assert loaded.obj_ids == list(BOXES)[:count] and isinstance(loaded.images, LazyFrames)
    assert torch.equal(predictor._masks_on(loaded, 0), predictor._masks_on(state, 0))


def test_what_cannot_be_loaded_is_named(predictor: SAM2VideoPredictor, clip: list[np.ndarray], tmp_path: Path) -> None:
    state = predictor.init_state(clip)
    prompt(predictor, state, 0, 1)
    saved = predictor.save_state(state)
    with pytest.raises(ValueError, match="with 12 frames of 80x48 pixels, this one has 11 frames of 80x48 pixels"):
        predictor.load_state(saved, clip[:-1])
    with pytest.raises(ValueError, match="12 frames of 80x48 pixels, this one has 12 frames of 48x80"):
        predictor.load_state(saved, [image.transpose(1, 0, 2) for image in clip])
    with pytest.raises(ValueError, match="a model of 64 channels with masks of 16 cells, this one has 32 and 16"):
        make_predictor(d_model=32, mem_dim=16).load_state(saved, clip)
    with pytest.raises(ValueError, match="expected what save_state or save_stream returned"):
        predictor.load_state({"model": {}}, clip)
    with pytest.raises(ValueError, match="expected what save_state or save_stream returned"):
        predictor.load_stream([])  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="no such video"):
        predictor.load_state(saved, tmp_path / "none.mp4")
    with pytest.raises(RuntimeError, match="a stream is saved with save_stream"):
        predictor.save_state(predictor.init_stream())
    with pytest.raises(RuntimeError, match="use save_state"):
        predictor.save_stream(state)
