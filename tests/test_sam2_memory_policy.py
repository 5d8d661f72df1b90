"""Memory policies: the default is SAM 2's rule to the last bit, and others can be written without touching a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_sam2_video_predictor import BOXES, HEIGHT, WIDTH, make_predictor, prompt
from torch import Tensor

from sam2.build_sam import build_sam2_video_predictor
from sam2.config import SAM2Config
from sam2.memory_policy import MemoryPolicy
from sam2.modeling.sam2_base import MaskCandidates, SamOutput
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.video_state import FrameOutput, FrameTime, InferenceState, ObjectState

NANO = Path(__file__).parents[1] / "checkpoints/sam2.1_nano.pt"


def predictor_with(policy: Callable[[SAM2Config], MemoryPolicy], **changes: object) -> SAM2VideoPredictor:
    predictor = make_predictor(**changes)
    predictor.memory_policy = policy(predictor.config)
    return predictor


@pytest.fixture(scope="module")
def clip() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    background = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return [np.roll(background, 2 * i, axis=1) for i in range(24)]


def forth_and_back(predictor: SAM2VideoPredictor, clip: list[np.ndarray], middle: int = 10) -> Tensor:
    """Three objects from the middle to the end, one of them corrected on the way, and back to the beginning."""
    state = predictor.init_state(clip, corrections_stick=True)
    prompt(predictor, state, middle, 1, 2)
    prompt(predictor, state, middle + 2, 3)
    masks = [masks[:2] for _, _, masks in predictor.propagate_in_video(state, start_frame_idx=middle)]
    predictor.add_new_points_or_box(state, middle + 3, 1, points=[[60, 40]], labels=[1])
    masks += [masks for _, _, masks in predictor.propagate_in_video(state, start_frame_idx=middle)]
    masks += [masks for _, _, masks in predictor.propagate_in_video(state, start_frame_idx=middle, reverse=True)]
    return torch.cat(masks)


def follow(predictor: SAM2VideoPredictor, clip: list[np.ndarray], *obj_ids: int) -> tuple[InferenceState, Tensor]:
    """A stream of which the first frame is prompted."""
    state = predictor.init_stream()
    masks = []
    for image in clip:
        frame_idx = predictor.append_frame(state, image)
        if frame_idx == 0:
            prompt(predictor, state, 0, *obj_ids)
        masks.append(predictor.step(state)[1])
    return state, torch.cat(masks)


# ---- the default ----


class AsWritten(MemoryPolicy):
    """The default for stride 1, told once more in other words; the order of what is read counts for the last bit."""

    def choose(self, objects: Sequence[ObjectState], candidates: MaskCandidates, time: FrameTime) -> Tensor:
        return torch.tensor([int(np.argmax(ious)) for ious in candidates.ious.float().numpy()])

    def spatial_memories(self, obj: ObjectState, time: FrameTime) -> list[tuple[int, FrameOutput]]:
        step = 1 if time.reverse else -1
        ages = [age for age in range(6, 0, -1) if time.frame_idx + step * age in obj.non_cond]
        prompted = [(0, output) for output in obj.cond.values()]
        return prompted + [(age, obj.non_cond[time.frame_idx + step * age]) for age in ages]

    def pointers(self, obj: ObjectState, time: FrameTime) -> list[tuple[int, FrameOutput]]:
        step = 1 if time.reverse else -1
        prompted = [((t - time.frame_idx) * step, output) for t, output in obj.cond.items()]
        ages = [age for age in range(1, 16) if time.frame_idx + step * age in obj.non_cond]
        past = [(age, output) for age, output in prompted if age >= 0]
        return past + [(age, obj.non_cond[time.frame_idx + step * age]) for age in ages]

    def forget(self, obj: ObjectState, time: FrameTime, may_restart: bool) -> None:
        """Nothing: what is out of reach is not read either."""

    def forget_around(self, obj: ObjectState, frame_idx: int) -> None:
        """Nothing: off in the configuration."""


@pytest.mark.parametrize("changes", [{}, {"multimask_output_for_tracking": False}], ids=["three masks", "one mask"])
def test_the_default_is_sam_2_to_the_last_bit(clip: list[np.ndarray], changes: dict[str, object]) -> None:
    default, as_written = make_predictor(**changes), predictor_with(AsWritten, **changes)
    assert type(default.memory_policy) is MemoryPolicy
    assert torch.equal(forth_and_back(default, clip), forth_and_back(as_written, clip))
    assert torch.equal(follow(default, clip, 1, 2, 3)[1], follow(as_written, clip, 1, 2, 3)[1])


def test_a_policy_is_an_argument_of_the_builder() -> None:
    assert type(build_sam2_video_predictor("sam2.1-nano", device="cpu").memory_policy) is MemoryPolicy
    predictor = build_sam2_video_predictor(None, NANO, device="cpu", memory_policy=AsWritten)
    assert isinstance(predictor.memory_policy, AsWritten) and predictor.memory_policy.config is predictor.config


# ---- what a policy decides ----


class SecondBest(MemoryPolicy):
    def choose(self, objects: Sequence[ObjectState], candidates: MaskCandidates, time: FrameTime) -> Tensor:
        assert candidates.mask_logits.shape[:2] == candidates.ious.shape == (len(objects), 3)
        assert candidates.object_score_logits.shape == (len(objects), 1)
        return candidates.ious.argsort(dim=1, descending=True)[:, 1]


def test_the_candidate_chosen_is_the_mask_and_its_score(clip: list[np.ndarray]) -> None:
    best, second = make_predictor(), predictor_with(SecondBest)
    (best_state, best_masks), (state, masks) = (follow(predictor, clip[:2], 1, 2) for predictor in (best, second))
    assert torch.equal(masks[:2], best_masks[:2]) and not torch.equal(masks[2:], best_masks[2:])  # not of prompts
    for obj_id in (1, 2):
        assert second.frame_scores(state, 1)[obj_id][0] < best.frame_scores(best_state, 1)[obj_id][0]
        pointers = [predictor.object_pointers(s, 1)[obj_id] for predictor, s in ((best, best_state), (second, state))]
        assert not torch.equal(*pointers)


class SkipOdd(MemoryPolicy):
    def remember(
        self, obj: ObjectState, output: FrameOutput, decoded: SamOutput, time: FrameTime, is_prompted: bool
    ) -> bool:
        return time.frame_idx % 2 == 0


def test_memories_of_frames_may_be_skipped(clip: list[np.ndarray]) -> None:
    predictor = predictor_with(SkipOdd)
    state, masks = follow(predictor, clip[:6], 1, 2)
    for obj in state.objects.values():
        assert [t for t, output in obj.non_cond.items() if output.maskmem is not None] == [2, 4]
        assert list(obj.non_cond) == [1, 2, 3, 4, 5]
    assert not torch.equal(masks, follow(make_predictor(), clip[:6], 1, 2)[1])
    prompt(predictor, state, 5, 1)
    predictor.append_frame(state, clip[6])
    corrected = state.objects[1].output_at(5)
    assert corrected is not None and corrected.maskmem is not None  # a prompted frame is always written


class Surest(MemoryPolicy):
    """Only the object with the best mask of a frame remembers it."""

    def remember_all(
        self,
        objects: Sequence[ObjectState],
        outputs: Sequence[FrameOutput],
        decoded: Sequence[SamOutput],
        time: FrameTime,
    ) -> list[bool]:
        scores = [output.mask_score.item() for output in outputs]
        assert scores == [row.mask_scores.item() for row in decoded] and len(objects) == 3
        return [score == max(scores) for score in scores]


def test_objects_of_a_frame_may_be_compared(clip: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of those that the model decodes in several batches."""
    monkeypatch.setattr(SAM2VideoPredictor, "max_batch", 2)
    state, _ = follow(predictor_with(Surest), clip[:6], 1, 2, 3)
    for t in range(1, 6):
        outputs = [obj.non_cond[t] for obj in state.objects.values()]
        best = max(outputs, key=lambda output: output.mask_score.item())
        assert [output.maskmem is not None for output in outputs] == [output is best for output in outputs]


class BestScored(MemoryPolicy):
    """Reads, and keeps, the three frames of the highest scores, however long ago."""

    def best(self, obj: ObjectState) -> dict[int, FrameOutput]:
        by_score = sorted(obj.non_cond, key=lambda t: obj.non_cond[t].mask_score.item())
        return {t: obj.non_cond[t] for t in by_score[-3:]}

    def spatial_memories(self, obj: ObjectState, time: FrameTime) -> list[tuple[int, FrameOutput]]:
        return [*((0, output) for output in obj.cond.values()), *enumerate(self.best(obj).values(), start=1)]

    def pointers(self, obj: ObjectState, time: FrameTime) -> list[tuple[int, FrameOutput]]:
        return [(time.elapsed_since(t), output) for t, output in self.best(obj).items() if time.elapsed_since(t) > 0]

    def forget(self, obj: ObjectState, time: FrameTime, may_restart: bool) -> None:
        obj.non_cond = self.best(obj)


def test_memories_may_be_chosen_by_score_however_old(clip: list[np.ndarray]) -> None:
    predictor = predictor_with(BestScored)
    state, _ = follow(predictor, clip, 1)
    every, _ = follow(predictor_with(AsWritten), clip, 1)
    assert len(state.objects[1].non_cond) == 3 < len(every.objects[1].non_cond)
    assert min(state.objects[1].non_cond) < len(clip) - 7  # older than the ring that SAM 2 keeps


def test_a_place_that_the_model_does_not_know_is_named(clip: list[np.ndarray]) -> None:
    class Far(MemoryPolicy):
        def spatial_memories(self, obj: ObjectState, time: FrameTime) -> list[tuple[int, FrameOutput]]:
            return [(9, output) for output in obj.cond.values()]

    with pytest.raises(ValueError, match="Far: expected places of 0 to 6, got 9"):
        follow(predictor_with(Far), clip[:2], 1)


def test_nothing_to_read_is_no_error(clip: list[np.ndarray]) -> None:
    class Amnesia(MemoryPolicy):
        def spatial_memories(self, obj: ObjectState, time: FrameTime) -> list[tuple[int, FrameOutput]]:
            return []

    assert follow(predictor_with(Amnesia), clip[:3], 1, 2)[1].isfinite().all()


# ---- what a policy knows of an object ----


class Counting(MemoryPolicy):
    """Counts the frames since the prompt, and takes the candidate nearest to the mask that it saw last."""

    def choose(self, objects: Sequence[ObjectState], candidates: MaskCandidates, time: FrameTime) -> Tensor:
        areas = (candidates.mask_logits > 0).sum(dim=(2, 3))
        last = torch.stack([self.latest(obj, time)["area"] for obj in objects])
        return (areas - last[:, None]).abs().argmin(dim=1)

    def latest(self, obj: ObjectState, time: FrameTime) -> dict[str, Any]:
        output = obj.latest_before(time)
        assert output is not None
        return output.policy_state

    def remember(
        self, obj: ObjectState, output: FrameOutput, decoded: SamOutput, time: FrameTime, is_prompted: bool
    ) -> bool:
        count = 0 if is_prompted else self.latest(obj, time)["count"] + 1
        output.policy_state = {"area": (decoded.low_res_masks > 0).sum(), "count": count}
        return True


def counts(state: InferenceState, obj_id: int) -> dict[int, int]:
    obj = state.objects[obj_id]
    return {t: output.policy_state["count"] for t, output in sorted({**obj.cond, **obj.non_cond}.items())}


def test_own_state_goes_by_the_distance_from_the_prompt_in_both_directions(clip: list[np.ndarray]) -> None:
    predictor = predictor_with(Counting)
    state = predictor.init_state(clip, history="all")
    prompt(predictor, state, 10, 1)
    runs = []
    for _ in range(2):  # the second pass starts anew from the prompt
        runs.append(torch.cat([m for _, _, m in predictor.propagate_in_video(state, start_frame_idx=10)]))
    assert torch.equal(*runs) and counts(state, 1) == {t: t - 10 for t in range(10, 24)}
    list(predictor.propagate_in_video(state, start_frame_idx=10, reverse=True))
    assert counts(state, 1) == {t: abs(t - 10) for t in range(24)}
    plain = make_predictor()
    state = plain.init_state(clip)
    prompt(plain, state, 10, 1)
    assert not torch.equal(runs[0], torch.cat([m for _, _, m in plain.propagate_in_video(state)]))


@pytest.mark.parametrize("saved_after", [0, 9])
def test_own_state_is_saved_with_the_stream(clip: list[np.ndarray], tmp_path: Path, saved_after: int) -> None:
    predictor = predictor_with(Counting)
    whole, masks = follow(predictor, clip, 1, 2)
    state, _ = follow(predictor, clip[: saved_after + 1], 1, 2)
    torch.save(predictor.save_stream(state), tmp_path / "stream.pt")
    state = predictor.load_stream(torch.load(tmp_path / "stream.pt", weights_only=True))
    rest = []
    for image in clip[saved_after + 1 :]:
        predictor.append_frame(state, image)
        rest.append(predictor.step(state)[1])
    assert torch.equal(torch.cat(rest), masks[2 * (saved_after + 1) :])
    assert counts(state, 2) == counts(whole, 2) == {0: 0} | {t: t for t in range(8, 24)}


def test_undo_gives_back_the_own_state(clip: list[np.ndarray]) -> None:
    predictor = predictor_with(Counting)
    state = predictor.init_state(clip, corrections_stick=True)
    prompt(predictor, state, 0, 1)
    list(predictor.propagate_in_video(state, max_frame_num_to_track=4))
    predictor.add_new_points_or_box(state, 3, 1, points=[[60, 40]], labels=[1])
    list(predictor.propagate_in_video(state, max_frame_num_to_track=4))
    assert counts(state, 1) == {0: 0, 1: 1, 2: 2, 3: 0, 4: 1}
    predictor.clear_all_prompts_in_frame(state, 3, 1, restore=True)
    assert counts(state, 1)[3] == 3


# ---- a recipe ----


class LastTwoFrames(MemoryPolicy):
    """Remembers the prompts and the last two frames, and nothing else."""

    def spatial_memories(self, obj: ObjectState, time: FrameTime) -> list[tuple[int, FrameOutput]]:
        prompted = [(0, output) for output in obj.cond.values()]
        return prompted + [(age, output) for age, output in self._last_two(obj, time)]

    def pointers(self, obj: ObjectState, time: FrameTime) -> list[tuple[int, FrameOutput]]:
        return self._last_two(obj, time)

    def forget(self, obj: ObjectState, time: FrameTime, may_restart: bool) -> None:
        for t in [t for t in obj.non_cond if not 0 <= time.elapsed_since(t) < 2]:
            del obj.non_cond[t]

    def _last_two(self, obj: ObjectState, time: FrameTime) -> list[tuple[int, FrameOutput]]:
        last = [(age, obj.non_cond.get(time.frame_before(age))) for age in (2, 1)]
        return [(age, output) for age, output in last if output is not None]


@pytest.mark.parametrize("reverse", [False, True])
def test_recipe_the_last_two_frames(clip: list[np.ndarray], reverse: bool) -> None:
    predictor = build_sam2_video_predictor(None, NANO, device="cpu", memory_policy=LastTwoFrames)
    state = predictor.init_state(clip[:8])
    predictor.add_new_points_or_box(state, 7 if reverse else 0, 1, box=BOXES[1])
    for _, _, masks in predictor.propagate_in_video(state, 7 if reverse else 0, reverse=reverse):
        assert masks.shape == (1, 1, HEIGHT, WIDTH) and len(state.objects[1].non_cond) <= 2
    assert sorted(state.objects[1].non_cond) == ([0, 1] if reverse else [6, 7])
