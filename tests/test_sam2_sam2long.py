"""Memory in several hypotheses: SAM2Long's rules, and what a search that is written down plainly finds with them."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from itertools import islice, permutations
from typing import Any

import numpy as np
import pytest
import supervision as sv
import torch
from test_sam2_memory_policies import predictor_that_decides
from test_sam2_video_predictor import BOXES, HEIGHT, WIDTH, make_predictor, prompt, relative_difference
from tiny_sam2 import make_tiny_model
from torch import Tensor

from grounded_sam2.track.both_ways import TwoWayTracker
from sam2 import video_hypotheses
from sam2.build_sam import build_sam2_camera_predictor, build_sam2_video_predictor
from sam2.config import SAM2Config
from sam2.memory_policies import POLICIES, Sam2Long, make_policy, sam2long
from sam2.modeling.core import MaskCandidates
from sam2.sam2_camera_predictor import SAM2CameraPredictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.video_state import FrameOutput, FrameTime, InferenceState, ObjectState

NUM_FRAMES = 11  # in threes, a pass backwards that is left does not end with frame 0, on which none may start


@pytest.fixture(scope="module")
def clip() -> list[np.ndarray]:
    background = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return [np.roll(background, 2 * i, axis=1) for i in range(NUM_FRAMES)]


def change_rules(patch: pytest.MonkeyPatch) -> None:
    """Settings that the candidates of a random model, all alike, sometimes meet and sometimes do not."""
    patch.setattr(sam2long, "SURE_ABOVE", 0.5)
    patch.setattr(sam2long, "LEAST_QUALITY", 0.88)
    patch.setattr(sam2long, "KEY_SCALES", (0.5, 1.5))
    patch.setattr(video_hypotheses, "BLOCK", 2)


@pytest.fixture(scope="module")
def model() -> SAM2VideoPredictor:
    """A random model in float64, which reads four pointers, that the clip is longer."""
    predictor = predictor_that_decides("sam2long")
    predictor.change_settings(max_obj_ptrs_in_encoder=4)
    return predictor


@pytest.fixture
def predictor(model: SAM2VideoPredictor, monkeypatch: pytest.MonkeyPatch) -> SAM2VideoPredictor:
    change_rules(monkeypatch)
    return model


@pytest.fixture(scope="module")
def whole(model: SAM2VideoPredictor, clip: list[np.ndarray]) -> Tensor:
    """Masks (T, N, 1, H, W) of objects 1 and 2, followed from the first frame to the last."""
    with pytest.MonkeyPatch.context() as patch:
        change_rules(patch)
        return rest(model, opened(model, clip, 1, 2))


def opened(predictor: SAM2VideoPredictor, clip: list[np.ndarray], *obj_ids: int, **kwargs: Any) -> InferenceState:
    state = predictor.init_state(clip, **kwargs)
    prompt(predictor, state, 0, *obj_ids)
    return state


def rest(predictor: SAM2VideoPredictor, state: InferenceState, *args: Any, **kwargs: Any) -> Tensor:
    """(T, N, 1, H, W) of all frames of a pass."""
    return torch.stack([masks for _, _, masks in predictor.propagate_in_video(state, *args, **kwargs)])


# ---- the rules ----


def brute_force(
    scores: list[float], ious: list[list[float]], object_scores: list[float], sure_above: float = 2.0
) -> list[tuple[int, int]]:
    """The most promising row of different candidates: no other of as many has a higher score at its first place that
    differs. Equal scores do not occur in it."""
    total = {(i, k): scores[i] + math.log(iou + 1e-5) for i, of_one in enumerate(ious) for k, iou in enumerate(of_one)}
    is_sure = any(abs(score) > sure_above for score in object_scores)
    rows = [
        row
        for length in (1, 2, 3)
        for row in permutations(total, length)
        if is_sure or len({f"{ious[i][k]:.2f}" for i, k in row}) == len(row)
    ]
    return list(max(rows, key=lambda row: [total[branch] for branch in row]))


def test_the_best_of_nine_go_on_where_the_model_is_sure() -> None:
    policy = Sam2Long(SAM2Config())
    scores, ious = [0.0, math.log(0.5), -20.0], [[0.9, 0.8, 0.3], [0.89, 0.88, 0.1], [1.0, 1.0, 1.0]]
    expected = [(0, 0, 0.9), (0, 1, 0.8), (1, 0, 0.5 * 0.89)]  # the next are 0.5 · 0.88, 0.3
    for object_scores in ([0.1, 2.1, 0.2], [0.0, 0.0, -2.1]):
        found = policy.branch(scores, ious, object_scores)
        assert [branch[:2] for branch in found] == [branch[:2] for branch in expected]
        assert [math.exp(branch[2]) for branch in found] == pytest.approx([branch[2] for branch in expected], abs=1e-4)


def test_those_of_distinct_quality_go_on_where_it_is_not() -> None:
    policy = Sam2Long(SAM2Config())
    ious = [[0.904, 0.898, 0.3], [0.901, 0.88, 0.1], [0.896, 0.879, 0.878]]  # .90 .90 .30, .90 .88 .10, .90 .88 .88
    found = policy.branch([0.0, 0.0, 0.0], ious, [2.0, -2.0, 1.0])
    assert [branch[:2] for branch in found] == [(0, 0), (1, 1), (0, 2)]
    found = policy.branch([0.0], [[0.904, 0.9, 0.896]], [0.0])
    assert [branch[:2] for branch in found] == [(0, 0)]  # there are no others


@pytest.mark.parametrize("num_hypotheses", [1, 2, 3])
def test_branches_are_those_of_brute_force(num_hypotheses: int) -> None:
    policy, rng = Sam2Long(SAM2Config()), np.random.default_rng(num_hypotheses)
    for trial in range(60):
        scores = (-rng.random(num_hypotheses) / 20).tolist()
        low = 0.95 if trial % 3 else 0.0  # so that many are alike when they are rounded
        ious = rng.uniform(low, 1.0, (num_hypotheses, 3)).tolist()
        object_scores = rng.uniform(-2.5, 2.5, num_hypotheses).tolist()
        found = policy.branch(scores, ious, object_scores)
        assert [branch[:2] for branch in found] == brute_force(scores, ious, object_scores)


def test_a_quality_of_nothing_has_a_score() -> None:
    (best, *_) = Sam2Long(SAM2Config()).branch([0.0], [[0.0, -0.2, -0.1]], [9.0])  # some models' are no probabilities
    assert best == (0, 0, math.log(1e-5))


def output_of(quality: float, object_score: float) -> FrameOutput:
    return FrameOutput(
        torch.zeros(1, 1, 4, 4), torch.zeros(1, 8), torch.tensor([[object_score]]), torch.tensor([quality])
    )


def test_frames_without_the_object_are_no_memory() -> None:
    policy, time = Sam2Long(SAM2Config()), FrameTime(9, False, 20)
    seen = [(0.9, 3.0), (0.1, 3.0), (0.9, 0.0), (0.11, 0.1), (0.9, -3.0)]
    outputs = [output_of(*scores) for scores in seen]
    is_remembered = policy.remember_all([ObjectState()] * 5, outputs, [None] * 5, time)  # type: ignore[list-item]
    assert is_remembered == [True, False, False, True, False]
    obj = ObjectState(non_cond=dict(enumerate(outputs)))
    places, read = zip(*policy.spatial_memories(obj, time), strict=True)
    assert places == (2, 1) and read[0] is outputs[0] and read[1] is outputs[3]
    assert len(policy.pointers(obj, time)) == 5  # of all frames


def test_keys_are_scaled_in_order_of_object_scores() -> None:
    policy = Sam2Long(SAM2Config())
    scales = policy.key_scales([output_of(0.9, score) for score in (10.0, 1.5, 8.0, 0.5, 3.0)])
    assert scales == pytest.approx([1.05, 0.975, 1.025, 0.95, 1.0])
    assert policy.key_scales([output_of(0.9, 3.0)]) == [1.0] and policy.key_scales([]) == []


def test_scaled_are_the_keys_and_not_the_values() -> None:
    """As a memory whose places make up for the difference."""
    model = make_predictor().double()
    rng = np.random.default_rng(0)
    frame, memory, places = (torch.from_numpy(rng.normal(size=(2, n, c))) for n, c in ((16, 64), (36, 32), (36, 32)))
    scales = torch.from_numpy(rng.uniform(0.5, 1.5, (2, 36)))
    with torch.inference_mode():
        scaled = model.memory_attention(frame, memory, places, 4, key_scales=scales)
        made_up = (memory + places) * scales[..., None] - memory
        assert torch.allclose(scaled, model.memory_attention(frame, memory, made_up, 4), atol=1e-12)
        assert not torch.allclose(scaled, model.memory_attention(frame, memory, places, 4), atol=1e-3)


# ---- the search ----


class Prescribed(Sam2Long):
    """One hypothesis, which takes the mask that it is told to."""

    looks_ahead = False
    choice = 0

    def choose(self, objects: Sequence[ObjectState], candidates: MaskCandidates, time: FrameTime) -> Tensor:
        self.seen = candidates
        return torch.full((len(objects),), self.choice)


def search_plainly(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], obj_id: int
) -> tuple[Tensor, dict[str, set[Any]]]:
    """Masks (T, H, W) of the best hypothesis, and what occurred on the way; each has a whole state of its own, in which
    nothing is forgotten."""
    policy = Prescribed(predictor.config)
    predictor.memory_policy = policy

    def step(state: InferenceState, frame_idx: int, choice: int) -> tuple[InferenceState, Tensor]:
        state, policy.choice = deepcopy(state), choice
        ((_, _, masks),) = predictor.propagate_in_video(state, frame_idx, max_frame_num_to_track=0)
        return state, masks[0, 0]

    state, first = step(opened(predictor, clip, obj_id, history="all"), 0, 0)
    paths = [(state, 0.0, [first])]
    occurred: dict[str, set[Any]] = {"sure": set(), "good": set(), "parents": set()}
    for t in range(1, len(clip)):
        ious, object_scores = [], []
        for state, _, _ in paths:
            step(state, t, 0)
            ious.append(policy.seen.ious[0].tolist())
            object_scores.append(policy.seen.object_score_logits.item())
        occurred["sure"].add(max(map(abs, object_scores)) > 0.5)
        occurred["good"] |= {
            max(of_one) > 0.88 and score > 0 for of_one, score in zip(ious, object_scores, strict=True)
        }
        found = brute_force([score for _, score, _ in paths], ious, object_scores, sure_above=0.5)
        occurred["parents"].add(tuple(sorted({i for i, _ in found})))
        followed = []
        for i, k in found:
            state, masks = step(paths[i][0], t, k)
            followed.append((state, paths[i][1] + math.log(ious[i][k] + 1e-5), [*paths[i][2], masks]))
        paths = followed
    predictor.memory_policy = make_policy("sam2long", predictor.config)
    return torch.stack(paths[0][2]), occurred


def test_masks_are_those_of_the_best_hypothesis(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], whole: Tensor
) -> None:
    """Of two objects at once, in both directions."""
    state = predictor.init_state(clip[::-1])
    prompt(predictor, state, NUM_FRAMES - 1, 1, 2)
    backwards = rest(predictor, state, NUM_FRAMES - 1, reverse=True)
    predictor.memory_policy = make_policy("default", predictor.config)
    greedy = rest(predictor, opened(predictor, clip, 1, 2))
    for row, obj_id in enumerate((1, 2)):
        expected, occurred = search_plainly(predictor, clip, obj_id)
        assert occurred["sure"] == occurred["good"] == {False, True} and len(occurred["parents"]) > 2, occurred
        for masks in (whole, backwards):
            assert relative_difference(masks[:, row, 0], expected) < 1e-7
        assert relative_difference(greedy[:, row, 0], expected) > 1e-5


# ---- what becomes of it ----

OUTCOMES = {  # path of choices → predicted qualities of the next frame's candidates
    (): (0.9, 0.8, 0.1),
    (0,): (0.3, 0.2, 0.2),  # the best mask of the first frame leads nowhere
    (1,): (0.7, 0.95, 0.6),
}


def decode_by_path(
    predictor: SAM2VideoPredictor,
) -> Callable[..., Iterator[tuple[list[int], MaskCandidates]]]:
    """In place of `VideoEngine.decode_candidates`: masks of k + 1, whose qualities are told by what was taken."""

    def decode(
        state: InferenceState, objects: list[ObjectState], time: FrameTime
    ) -> Iterator[tuple[list[int], MaskCandidates]]:
        features = predictor._features(state, time.frame_idx)
        vision = predictor.add_no_memory(features.vision).expand(len(objects), -1, -1, -1)
        candidates = predictor.mask_candidates(vision, features.high_res, multimask_output=True)
        paths = [
            tuple(int(obj.non_cond[t].low_res_masks.max()) - 1 for t in range(1, time.frame_idx)) for obj in objects
        ]
        candidates.ious = torch.tensor([OUTCOMES.get(path[:1], (0.5, 0.4, 0.3)) for path in paths])
        candidates.mask_logits = torch.ones_like(candidates.mask_logits) * torch.arange(1.0, 4.0)[:, None, None]
        candidates.object_score_logits = torch.full((len(objects), 1), 5.0)
        yield list(range(len(objects))), candidates

    return decode


def test_a_greedy_choice_that_goes_wrong_is_taken_back(clip: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {}
    for name in ("default", "sam2long"):
        predictor = make_predictor()
        predictor.memory_policy = make_policy(name, predictor.config)
        monkeypatch.setattr(predictor, "decode_candidates", decode_by_path(predictor))
        masks = rest(predictor, opened(predictor, clip[:5], 1))
        taken[name] = [int(mask.max()) - 1 for mask in masks[1:]]
    assert taken == {"default": [0, 0, 0, 0], "sam2long": [1, 1, 1, 1]}  # log .9 + 3 log .3 < log .8 + 3 log .95
    until_then = rest(predictor, opened(predictor, clip[:5], 1), max_frame_num_to_track=1)
    assert int(until_then[1].max()) - 1 == 0


def test_with_one_hypothesis_it_is_the_default(clip: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, as long as all frames are good and their keys count the same."""
    monkeypatch.setattr(sam2long, "NUM_HYPOTHESES", 1)
    monkeypatch.setattr(sam2long, "KEY_SCALES", (1.0, 1.0))
    predictor = make_predictor()
    expected = rest(predictor, opened(predictor, clip, 1, 2))
    predictor.memory_policy = make_policy("sam2long", predictor.config)
    state = opened(predictor, clip, 1, 2)
    assert torch.equal(rest(predictor, state), expected)
    assert all(output.policy_state.get("is_good", True) for output in state.objects[1].non_cond.values())


def test_equal_candidates_are_the_default(clip: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """Three hypotheses of the same masks."""
    monkeypatch.setattr(sam2long, "KEY_SCALES", (1.0, 1.0))
    predictor = make_predictor().double()
    offer = predictor.mask_candidates

    def offer_the_first(*args: Any, **kwargs: Any) -> MaskCandidates:
        found = offer(*args, **kwargs)
        for name in ("mask_logits", "ious", "tokens"):
            setattr(found, name, vars(found)[name][:, :1].expand_as(vars(found)[name]))
        return found

    monkeypatch.setattr(predictor, "mask_candidates", offer_the_first)
    expected = rest(predictor, opened(predictor, clip, 1, 2))
    predictor.memory_policy = make_policy("sam2long", predictor.config)
    assert relative_difference(rest(predictor, opened(predictor, clip, 1, 2)), expected) < 1e-7


def test_of_one_mask_there_is_one_hypothesis(clip: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = make_predictor(multimask_output_for_tracking=False)
    plain = rest(predictor, opened(predictor, clip, 1))
    predictor.memory_policy = make_policy("sam2long", predictor.config)
    state = opened(predictor, clip, 1)
    masks = rest(predictor, state)
    assert torch.equal(masks[:2], plain[:2]) and not torch.equal(masks, plain)  # keys are scaled
    assert state.objects[1].ahead is None


# ---- objects, directions, prompts ----


def test_adding_and_removing_an_object_changes_no_other(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], whole: Tensor
) -> None:
    state = opened(predictor, clip, 1)
    for t, obj_ids, masks in predictor.propagate_in_video(state):
        assert obj_ids == ([1, 2, 3] if 4 < t <= 7 else [1, 3] if t > 7 else [1])
        assert relative_difference(masks[0], whole[t][0]) < 1e-7
        if t == 4:
            prompt(predictor, state, 4, 2, 3)
        if t == 7:
            predictor.remove_object(state, 2)
    assert t == NUM_FRAMES - 1


def test_the_order_of_objects_does_not_matter(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], whole: Tensor
) -> None:
    turned = rest(predictor, opened(predictor, clip, 3, 2, 1))
    assert relative_difference(turned[:, [2, 1]], whole) < 1e-7


def test_objects_and_hypotheses_are_one_batch(clip: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = make_predictor()
    predictor.memory_policy = make_policy("sam2long", predictor.config)
    decode, encode = predictor.mask_candidates, predictor.encode_memory
    rows: dict[str, list[int]] = {"decoded": [], "encoded": []}

    def decode_counted(vision: Tensor, *args: Any, **kwargs: Any) -> MaskCandidates:
        rows["decoded"].append(len(vision))
        return decode(vision, *args, **kwargs)

    def encode_counted(vision: Tensor, masks: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        rows["encoded"].append(len(masks))
        return encode(vision, masks, *args, **kwargs)

    state = opened(predictor, clip[:4], 1, 2, 3)
    monkeypatch.setattr(predictor, "mask_candidates", decode_counted)
    monkeypatch.setattr(predictor, "encode_memory", encode_counted)
    rest(predictor, state)
    assert rows["decoded"] == [3, 9, 9, 3, 3, 3]  # one hypothesis, then three; then the frames that are given out
    assert rows["encoded"] == [3, 9, 9, 9, 3, 3, 3]  # prompts; hypotheses that go on; frames


@pytest.mark.parametrize("sticks", [False, True])
def test_a_correction_between_two_frames(predictor: SAM2VideoPredictor, clip: list[np.ndarray], sticks: bool) -> None:
    """What comes after it is what a new pass from there finds; the other object does not notice."""
    whole = rest(predictor, opened(predictor, clip, 1, 2))
    runs = []
    for in_the_loop in (True, False):
        state = opened(predictor, clip, 1, 2, corrections_stick=sticks)
        found = []
        frames = predictor.propagate_in_video(state)
        for t, _, masks in frames:
            found.append(masks)
            if t == 5:
                predictor.add_new_points_or_box(state, 5, 1, points=[[60, 40]], labels=[0])
                if not in_the_loop:
                    frames.close()
        if not in_the_loop:
            found += rest(predictor, state, 6)
        runs.append(torch.stack(found))
    assert torch.equal(*runs)
    assert torch.equal(runs[0][:6], whole[:6])
    assert relative_difference(runs[0][6:, 0], whole[6:, 0]) > 1e-5
    assert relative_difference(runs[0][:, 1], whole[:, 1]) < 1e-7


def test_a_prompt_ahead_is_shared_by_all_hypotheses(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], whole: Tensor
) -> None:
    state = opened(predictor, clip, 1, 2)
    _, _, prompted = predictor.add_new_points_or_box(state, 8, 1, box=BOXES[2])
    masks = rest(predictor, state)
    assert torch.equal(masks[8, 0], prompted[0])
    assert relative_difference(masks[:, 0], whole[:, 0]) > 1e-5
    assert relative_difference(masks[:, 1], whole[:, 1]) < 1e-7


@pytest.mark.parametrize("going_on", ["with the next frame", "with the last one again", "after save and load"])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_pass_that_is_left_goes_on_to_the_same_masks(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], whole: Tensor, reverse: bool, going_on: str
) -> None:
    """The clip turned round and followed backwards is the same to the model."""
    clip = clip[::-1] if reverse else clip
    first, step = (NUM_FRAMES - 1, -1) if reverse else (0, 1)
    state = predictor.init_state(clip)
    prompt(predictor, state, first, 1, 2)
    found: list[Tensor] = []
    while len(found) < NUM_FRAMES:
        if found and going_on == "with the last one again":
            last = found.pop()
            frames = predictor.propagate_in_video(state, first + len(found) * step, reverse=reverse)
            assert torch.equal(next(frames)[2], last)
            found.append(last)
        else:
            frames = predictor.propagate_in_video(state, first + len(found) * step, reverse=reverse)
        found += [masks for _, _, masks in islice(frames, 3)]
        frames.close()
        if going_on == "after save and load":
            file = io.BytesIO()
            torch.save(predictor.save_state(state), file)
            file.seek(0)
            state = predictor.load_state(torch.load(file, weights_only=True), clip)
    assert torch.equal(torch.stack(found), whole)
    assert all(obj.ahead is None for obj in state.objects.values())


def test_a_pass_may_end_early(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    state = opened(predictor, clip, 1, 2)
    frames = predictor.propagate_in_video(state)  # of another pass, to the last frame
    list(islice(frames, 3))
    frames.close()
    masks = rest(predictor, state, 0, max_frame_num_to_track=6)
    assert torch.equal(masks, rest(predictor, opened(predictor, clip[:7], 1, 2)))  # as if the video ended there
    assert all(obj.ahead is None for obj in state.objects.values())


def test_a_pass_that_is_interrupted_begins_anew(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], whole: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While hypotheses are tracked, by Ctrl-C."""
    encode = predictor.encode_memory
    state = opened(predictor, clip, 1, 2)
    num_left = 7

    def stop_at_last(*args: Any, **kwargs: Any) -> Tensor:
        nonlocal num_left
        num_left -= 1
        if num_left == 0:
            raise KeyboardInterrupt
        return encode(*args, **kwargs)

    monkeypatch.setattr(predictor, "encode_memory", stop_at_last)
    with pytest.raises(KeyboardInterrupt):
        rest(predictor, state)
    assert torch.equal(rest(predictor, state), whole)


def test_nothing_that_is_forgotten_is_missed(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    runs = []
    for history in ("recent", "all"):
        state = predictor.init_state(clip, history=history, corrections_stick=True)  # type: ignore[arg-type]
        prompt(predictor, state, 4, 1)
        forth = rest(predictor, state, 4)
        predictor.add_new_points_or_box(state, 8, 1, points=[[60, 40]], labels=[1])
        runs.append(torch.cat([forth, rest(predictor, state, 4), rest(predictor, state, 4, reverse=True)]))
    assert torch.equal(*runs)


def test_memory_does_not_grow_while_nothing_is_decided(clip: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """Hypotheses that never meet: of each goes on the best, and what they hold beside it is numbers."""

    class Apart(Sam2Long):
        def branch(
            self, scores: Sequence[float], ious: Sequence[Sequence[float]], object_scores: Sequence[float]
        ) -> list[tuple[int, int, float]]:
            held.append(sizes())
            return [(0, k, -k) for k in range(3)] if len(scores) == 1 else [(i, 0, -i) for i in range(3)]

    def sizes() -> tuple[int, int]:
        outputs = [output for each in ahead_of(state).hypotheses for output in each.non_cond.values()]
        return len(outputs), sum(output.maskmem is not None for output in outputs)

    def ahead_of(state: InferenceState) -> Any:
        return state.objects[1].ahead

    predictor, held = make_predictor(), []
    predictor.memory_policy = Apart(predictor.config)
    state = predictor.init_state(clip * 5)
    prompt(predictor, state, 0, 1)
    frames = predictor.propagate_in_video(state)
    next(frames)
    next(frames)
    assert ahead_of(state).num_frames == 5 * NUM_FRAMES - 2 and len(held) == 5 * NUM_FRAMES - 1
    assert max(count for count, _ in held) <= 3 * (15 + 6) and max(count for _, count in held) <= 3 * 6
    assert held[30] == held[-1]


# ---- streams ----


def test_streams_are_refused(clip: list[np.ndarray]) -> None:
    predictor = make_predictor()
    stream = predictor.init_stream()
    predictor.append_frame(stream, clip[0])
    saved = predictor.save_stream(stream)
    predictor.memory_policy = make_policy("sam2long", predictor.config)
    words = "Sam2Long decides masks by later frames, which a stream does not have"
    for refused in (
        predictor.init_stream,
        predictor.init_state,
        lambda: predictor.step(stream),
        lambda: predictor.load_stream(saved),
    ):
        with pytest.raises(ValueError, match=words):
            refused()  # type: ignore[operator]
    camera = make_tiny_model(model_class=SAM2CameraPredictor)
    camera.memory_policy = make_policy("sam2long", camera.config)
    with pytest.raises(ValueError, match=words):
        camera.load_first_frame(clip[0])


def test_masks_that_may_not_overlap_are_refused(clip: list[np.ndarray]) -> None:
    predictor = make_predictor(non_overlap_masks_for_mem_enc=True)
    predictor.memory_policy = make_policy("sam2long", predictor.config)
    with pytest.raises(ValueError, match="Sam2Long needs non_overlap_masks_for_mem_enc=false"):
        rest(predictor, opened(predictor, clip, 1))


@pytest.mark.parametrize("setting", [{"track_every": 2}, {"sparse_memories": 0.1}], ids=str)
def test_settings_that_leave_something_out_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Sam2Long looks at every frame and all memories: no track_every, no sparse"):
        build_sam2_video_predictor("sam2.1-nano", device="cpu", memory_policy="sam2long", **setting)


def test_a_camera_takes_a_policy_by_name() -> None:
    camera = build_sam2_camera_predictor("sam2.1-nano", device="cpu", memory_policy="robust")
    assert type(camera.memory_policy) is POLICIES["robust"]
    with pytest.raises(ValueError, match="memory polic"):
        build_sam2_camera_predictor("sam2.1-nano", device="cpu", memory_policy="dam5sam")


# ---- a tracker that is interrupted ----


@pytest.mark.parametrize("saved_at", [2, 8, 13])
def test_both_ways_interrupted(predictor: SAM2VideoPredictor, clip: list[np.ndarray], saved_at: int) -> None:
    """On the way back, before the frame that objects are found on, and behind it."""
    frames = Frames(clip)

    def run(tracker: TwoWayTracker) -> Iterator[Any]:
        yield from tracker.go_back()
        for image in clip[tracker.frame_idx + 1 :]:
            yield tracker.step(image)

    detections = sv.Detections(
        np.array([BOXES[1], BOXES[2]], dtype=np.float32),
        confidence=np.ones(2),
        class_id=np.zeros(2, dtype=int),
        data={"class_name": np.array(["cat", "cat"])},
    )
    tracker = TwoWayTracker(predictor, frames, 6)  # type: ignore[arg-type]
    tracker.start(detections)
    whole = list(run(tracker))
    assert len(whole) == 6 + NUM_FRAMES
    tracker = TwoWayTracker(predictor, frames, 6)  # type: ignore[arg-type]
    tracker.start(detections)
    done = list(islice(run(tracker), saved_at))
    going_on = TwoWayTracker(predictor, frames, 6)  # type: ignore[arg-type]
    going_on.restore(tracker.save())
    done += run(going_on)
    assert len(done) == len(whole)
    for objects, expected in zip(done[6:], whole[6:], strict=True):
        assert objects == expected and np.array_equal(objects.data["mask_score"], expected.data["mask_score"])


class Frames(list):  # type: ignore[type-arg]
    """A clip as a source of frames."""

    name = "clip"
