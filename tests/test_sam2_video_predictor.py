"""The video predictor's own promises, on a small random model: streaming, batching, independence, memory, errors."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_sam2 import make_tiny_model

from sam2.modeling.sam2_base import NO_OBJ_SCORE, non_overlapping
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.video_frames import open_rgb_frames, to_model_input
from sam2.video_state import InferenceState

HEIGHT, WIDTH = 48, 80
BOXES = {1: [5, 5, 40, 30], 2: [30, 10, 70, 40], 3: [2, 20, 30, 46]}


def make_predictor(**changes: object) -> SAM2VideoPredictor:
    """Random weights, away from their initial constants, with object scores above zero so that masks are alive."""
    settings = {"memory_attention_layers": 2, **changes}
    predictor = make_tiny_model(model_class=SAM2VideoPredictor, **settings)
    with torch.no_grad():
        predictor.sam_mask_decoder.pred_obj_score_head.layers[-1].bias += 3.0
    return predictor


@pytest.fixture(scope="module")
def predictor() -> SAM2VideoPredictor:
    return make_predictor()


@pytest.fixture(scope="module")
def exact_predictor() -> SAM2VideoPredictor:
    """The same model in float64, for comparisons between batches of different sizes.

    Memories are kept in bfloat16. In float32 the last bit of a matrix product, which depends on the size of the batch,
    now and then tips that rounding, and this model makes about 1e-5 of it; in float64 it does not.
    """
    return make_predictor().double()


@pytest.fixture(scope="module")
def clip() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    background = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return [np.roll(background, 2 * i, axis=1) for i in range(24)]


def prompt(predictor: SAM2VideoPredictor, state: InferenceState, frame_idx: int, *obj_ids: int) -> None:
    for obj_id in obj_ids:
        predictor.add_new_points_or_box(state, frame_idx, obj_id, box=BOXES[obj_id])


def track(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], *obj_ids: int, frame_idx: int = 0, **kwargs: object
) -> dict[int, torch.Tensor]:
    state = predictor.init_state(clip, **kwargs)  # type: ignore[arg-type]
    prompt(predictor, state, frame_idx, *obj_ids)
    return {t: masks for t, _, masks in predictor.propagate_in_video(state)}


def relative_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def test_masks_are_alive(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    masks = torch.stack(list(track(predictor, clip, 1, 2).values()))
    assert masks.shape == (24, 2, 1, HEIGHT, WIDTH) and masks.dtype == torch.float32
    assert masks.min() > NO_OBJ_SCORE and (masks > 0).any() and (masks < 0).any()
    assert relative_difference(masks[0], masks[12]) > 1e-2


@pytest.mark.parametrize("num_frames", [24, 9])
def test_streaming_equals_offline(predictor: SAM2VideoPredictor, clip: list[np.ndarray], num_frames: int) -> None:
    clip = clip[:num_frames]
    offline = track(predictor, clip, 1, 2)
    state = predictor.init_stream(num_frames=num_frames)
    for t, image in enumerate(clip):
        assert predictor.append_frame(state, image) == t
        if t == 0:
            prompt(predictor, state, 0, 1, 2)
        obj_ids, masks = predictor.step(state)
        assert obj_ids == [1, 2]
        assert torch.equal(masks, offline[t])


@pytest.mark.parametrize("saved_after", [0, 3, 20])
def test_a_saved_stream_goes_on_as_if_nothing_had_happened(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], tmp_path: Path, saved_after: int
) -> None:
    """A new object and a corrected one wait to enter memory when it is saved."""

    def run(state: InferenceState, first: int, last: int) -> list[torch.Tensor]:
        masks = []
        for t in range(first, last):
            assert predictor.append_frame(state, clip[t]) == t
            if t == 0:
                prompt(predictor, state, 0, 1, 2)
            masks.append(predictor.step(state)[1])
            if t == saved_after:
                prompt(predictor, state, t, 2, 3)
        return masks

    whole = run(predictor.init_stream(), 0, len(clip))
    state = predictor.init_stream()
    run(state, 0, saved_after + 1)
    torch.save(predictor.save_stream(state), tmp_path / "stream.pt")
    restored = predictor.load_stream(torch.load(tmp_path / "stream.pt", weights_only=True))
    assert restored.obj_ids == [1, 2, 3]
    with pytest.raises(RuntimeError, match="no frame yet"):
        predictor.step(restored)
    for going_on in (restored, state):  # saving changes nothing either
        for masks, expected in zip(run(going_on, saved_after + 1, len(clip)), whole[saved_after + 1 :], strict=True):
            assert torch.equal(masks, expected)
    with pytest.raises(ValueError, match="the new frame is 8x8 pixels, the stream 80x48"):
        predictor.append_frame(predictor.load_stream(predictor.save_stream(state)), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(RuntimeError, match="save_stream needs a state from init_stream"):
        predictor.save_stream(predictor.init_state(clip))


def test_batched_objects_equal_one_at_a_time(exact_predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    together = track(exact_predictor, clip, 1, 2, 3)
    for position, obj_id in enumerate((1, 2, 3)):
        alone = track(exact_predictor, clip, obj_id)
        assert list(alone) == list(together) == list(range(len(clip)))
        for t, masks in alone.items():
            assert relative_difference(together[t][position], masks[0]) < 1e-7


@pytest.mark.parametrize("history", ["recent", "all"])
def test_adding_an_object_changes_no_other(
    exact_predictor: SAM2VideoPredictor, clip: list[np.ndarray], history: str
) -> None:
    without = track(exact_predictor, clip, 1)
    state = exact_predictor.init_state(clip, history=history)  # type: ignore[arg-type]
    prompt(exact_predictor, state, 0, 1)
    for t, obj_ids, masks in exact_predictor.propagate_in_video(state):
        assert obj_ids == ([1] if t <= 7 else [1, 2])
        assert relative_difference(masks[0], without[t][0]) < 1e-7
        if t == 7:
            prompt(exact_predictor, state, 7, 2)
    assert t == len(clip) - 1


def test_removing_an_object_changes_no_other(exact_predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    without = track(exact_predictor, clip, 2)
    state = exact_predictor.init_state(clip)
    prompt(exact_predictor, state, 0, 1, 2)
    for t, _, masks in exact_predictor.propagate_in_video(state):
        assert relative_difference(masks[-1], without[t][0]) < 1e-7
        if t == 5:
            obj_ids, updated = exact_predictor.remove_object(state, 1)
            assert obj_ids == [2] and [frame_idx for frame_idx, _ in updated] == [0]
            assert updated[0][1].shape == (1, 1, HEIGHT, WIDTH)
    assert t == len(clip) - 1
    with pytest.raises(RuntimeError, match="cannot remove object 9"):
        exact_predictor.remove_object(state, 9, strict=True)


def test_recent_history_reads_as_much_as_the_full_one(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    """Also for a way back after a way forth: outputs around the prompted frame are kept."""
    runs = []
    for history in ("recent", "all"):
        state = predictor.init_state(clip, history=history)  # type: ignore[arg-type]
        prompt(predictor, state, 12, 1)
        forth = [masks for _, _, masks in predictor.propagate_in_video(state)]
        back = [masks for _, _, masks in predictor.propagate_in_video(state, start_frame_idx=12, reverse=True)]
        assert len(forth) == 12 and len(back) == 13
        runs.append(torch.cat(forth + back))
    assert torch.equal(*runs)


def test_memory_of_a_stream_is_bounded(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    state = predictor.init_stream()
    sizes = []
    for t in range(60):
        predictor.append_frame(state, clip[t % len(clip)])
        if t == 0:
            prompt(predictor, state, 0, 1, 2)
        predictor.step(state)
        held = [output for obj in state.objects.values() for output in (*obj.cond.values(), *obj.non_cond.values())]
        sizes.append((len(held), sum(output.maskmem is not None for output in held)))
    assert sizes[20] == sizes[59]
    assert sizes[59][0] <= 2 * 17 and sizes[59][1] <= 2 * 8


def test_reverse_mirrors_forward(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    forward = track(predictor, clip, 1)
    state = predictor.init_state(clip[::-1])
    prompt(predictor, state, 23, 1)
    backward = list(predictor.propagate_in_video(state, start_frame_idx=23, reverse=True))
    assert [t for t, _, _ in backward] == list(range(23, -1, -1))
    for t, _, masks in backward:
        assert relative_difference(masks, forward[23 - t]) < 1e-5


def test_correction_of_a_tracked_frame_starts_from_its_mask(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray]
) -> None:
    state = predictor.init_state(clip, history="all")
    prompt(predictor, state, 0, 1)
    before = {t: masks for t, _, masks in predictor.propagate_in_video(state)}
    _, _, corrected = predictor.add_new_points_or_box(state, 10, 1, points=[[60, 40]], labels=[1])
    after = {t: masks for t, _, masks in predictor.propagate_in_video(state)}
    assert torch.equal(after[10], corrected) is False  # frame 10 is tracked again, from the corrected memory before it
    assert all(torch.equal(after[t], before[t]) for t in range(10))


def test_correction_of_a_prompted_frame_is_kept(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    state = predictor.init_state(clip)
    prompt(predictor, state, 0, 1)
    first = next(predictor.propagate_in_video(state))[2]
    _, _, corrected = predictor.add_new_points_or_box(
        state, 0, 1, points=[[70, 40]], labels=[0], clear_old_points=False
    )
    again = next(predictor.propagate_in_video(state))[2]
    assert torch.equal(again, corrected) and not torch.equal(again, first)


@pytest.mark.parametrize("num_objects", [0, 1, 3])
def test_stream_without_and_with_objects(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], num_objects: int
) -> None:
    state = predictor.init_stream()
    predictor.append_frame(state, clip[0])
    prompt(predictor, state, 0, *list(BOXES)[:num_objects])
    obj_ids, masks = predictor.step(state)
    assert len(obj_ids) == num_objects and masks.shape == (num_objects, 1, HEIGHT, WIDTH)


def test_mask_prompt_and_scores(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:30, 20:60] = True
    state = predictor.init_state(clip)
    _, _, logits = predictor.add_new_mask(state, 0, 7, mask)
    agreement = ((logits[0, 0] > 0).numpy() == mask).mean()
    assert agreement > 0.95
    score, presence = predictor.frame_scores(state, 0)[7]
    assert score == 1.0 and presence > 0
    assert predictor.frame_scores(state, 5) == {}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_boxes_are_segmented_as_prompts_would_be(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], count: int
) -> None:
    state = predictor.init_stream()
    predictor.append_frame(state, clip[0])
    obj_ids = list(BOXES)[:count]
    masks, qualities, pointers = predictor.segment_boxes(state, 0, np.array([BOXES[i] for i in obj_ids], np.float32))
    assert masks.shape == (count, 1, HEIGHT, WIDTH) and qualities.shape == (count,) and not state.objects
    assert pointers.shape == (count, predictor.config.d_model)
    prompt(predictor, state, 0, *obj_ids)
    _, prompted = predictor.step(state)
    for row, obj_id in enumerate(obj_ids):
        assert relative_difference(masks[row], prompted[row]) < 1e-5
        assert relative_difference(pointers[row], predictor.object_pointers(state, 0)[obj_id]) < 1e-5
        assert qualities[row].item() == pytest.approx(predictor.frame_scores(state, 0)[obj_id][0], rel=1e-5)


def test_a_forgotten_frame_is_not_read_again(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    """Forgetting every tracked frame of one object leaves it its prompt alone, and the other its whole memory."""
    runs = []
    for forgotten in ([], [1]):
        state = predictor.init_stream()
        for image in clip[:6]:
            frame_idx = predictor.append_frame(state, image)
            if frame_idx == 0:
                prompt(predictor, state, 0, 1, 2)
            masks = predictor.step(state)[1]
            if frame_idx > 0:
                predictor.forget_frame(state, frame_idx, forgotten)
        runs.append(masks)
        assert [len(obj.non_cond) for obj in state.objects.values()] == [0 if forgotten else 5, 5]
    assert relative_difference(runs[0][0], runs[1][0]) > 1e-3
    assert relative_difference(runs[0][1], runs[1][1]) < 1e-5


@pytest.mark.parametrize("times", [1, 2])
def test_a_corrected_object_forgets_what_was_tracked_of_it(
    exact_predictor: SAM2VideoPredictor, clip: list[np.ndarray], times: int
) -> None:
    """Whatever the frames between prompt and correction showed, the frames after it come out the same; with a mere
    mask prompt they do not, and the other object keeps its memory of them."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:30, 20:60] = True
    last = 4 + times

    def follow(between: list[np.ndarray], correct: bool) -> tuple[torch.Tensor, torch.Tensor]:
        state = exact_predictor.init_stream()
        for frame_idx, frame in enumerate([clip[0], *between, *clip[4 : last + 2]]):
            exact_predictor.append_frame(state, frame)
            if frame_idx == 0:
                prompt(exact_predictor, state, 0, 1, 2)
            _, masks = exact_predictor.step(state)
            if 4 <= frame_idx < last:
                change = exact_predictor.correct_object if correct else exact_predictor.add_new_mask
                change(state, frame_idx, 1, mask)
        assert list(state.objects[1].cond) == ([0, last - 1] if correct else [0])
        return masks[0], masks[1]

    one, other = follow(clip[1:4], correct=True), follow([255 - frame for frame in clip[1:4]], correct=True)
    assert torch.equal(one[0], other[0]) and not torch.equal(one[1], other[1])
    one, other = follow(clip[1:4], correct=False), follow([255 - frame for frame in clip[1:4]], correct=False)
    assert not torch.equal(one[0], other[0])


def test_only_an_object_that_is_followed_can_be_corrected(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray]
) -> None:
    state = predictor.init_stream()
    predictor.append_frame(state, clip[0])
    with pytest.raises(ValueError, match="object 3 has no conditioning frame"):
        predictor.correct_object(state, 0, 3, np.ones((HEIGHT, WIDTH), bool))
    assert not state.objects


def test_a_bad_correction_leaves_the_object_as_it_was(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    state = predictor.init_stream()
    for frame_idx, frame in enumerate(clip[:3]):
        predictor.append_frame(state, frame)
        if frame_idx == 0:
            prompt(predictor, state, 0, 1)
        predictor.step(state)
    remembered = list(state.objects[1].non_cond)
    assert remembered
    with pytest.raises(ValueError, match=r"a mask prompt has shape \(H, W\)"):
        predictor.correct_object(state, 2, 1, np.ones((1, HEIGHT, WIDTH), bool))
    assert list(state.objects[1].non_cond) == remembered


def test_clear_prompts_and_reset(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    state = predictor.init_state(clip)
    prompt(predictor, state, 0, 1)
    cleared = predictor.clear_all_prompts_in_frame(state, 0, 1)
    assert cleared is not None and torch.allclose(cleared[2], torch.tensor(NO_OBJ_SCORE))
    with pytest.raises(RuntimeError, match="object 1 has no prompt"):
        next(predictor.propagate_in_video(state))
    predictor.reset_state(state)
    assert state["obj_ids"] == []
    with pytest.raises(RuntimeError, match="no object to track"):
        next(predictor.propagate_in_video(state))


def test_max_cond_frames_reads_the_nearest(clip: list[np.ndarray]) -> None:
    predictor = make_predictor(max_cond_frames_in_attn=2)
    state = predictor.init_state(clip)
    for t in (0, 8, 16, 23):
        prompt(predictor, state, t, 1)
    predictor.propagate_in_video_preflight(state)
    selected, unselected = predictor.memory_policy.conditioning_frames(state.objects[1], 10)
    assert sorted(selected) == [8, 16] and sorted(unselected) == [0, 23]


def test_non_overlapping_keeps_the_highest() -> None:
    logits = torch.tensor([1.0, 3.0, -2.0]).reshape(3, 1, 1, 1)
    assert non_overlapping(logits).flatten().tolist() == [-10.0, 3.0, -10.0]
    assert non_overlapping(logits[:0]).shape == (0, 1, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "points with labels, a box"),
        ({"points": [[1, 2]]}, "together"),
        (
            {"points": [[1, 2]], "labels": [1, 0]},
            r"expected points \(P, 2\) with labels \(P\), got \(1, 2\) with \(2,\)",
        ),
        ({"box": [1, 2, 3]}, "4 numbers"),
        ({"box": [1, 2, 3, 4], "clear_old_points": False}, "before any point"),
        ({"box": [1, 2, 3, 4], "frame_idx": 24}, "outside the video's 24 frames"),
    ],
)
def test_bad_prompts(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], arguments: dict[str, object], message: str
) -> None:
    state = predictor.init_state(clip)
    with pytest.raises(ValueError, match=message):
        predictor.add_new_points_or_box(state, **{"frame_idx": 0, "obj_id": 1, **arguments})  # type: ignore[arg-type]
    assert state.obj_ids == []


def test_wrong_order_of_calls(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    stream = predictor.init_stream()
    with pytest.raises(RuntimeError, match="append_frame"):
        predictor.step(stream)
    with pytest.raises(RuntimeError, match="append_frame"):
        next(predictor.propagate_in_video(stream))
    with pytest.raises(RuntimeError, match="init_stream"):
        predictor.append_frame(predictor.init_state(clip), clip[0])
    predictor.append_frame(stream, clip[0])
    with pytest.raises(ValueError, match="80x40 pixels, the stream 80x48"):
        predictor.append_frame(stream, clip[0][:40])
    with pytest.raises(ValueError, match="newest frame"):
        predictor.add_new_points_or_box(stream, 3, 1, box=BOXES[1])


# ---- frames ----


@pytest.fixture(scope="module")
def video_file(tmp_path_factory: pytest.TempPathFactory, clip: list[np.ndarray]) -> Path:
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"g": "8", "bf": "2", "crf": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv444p"
        for i in range(24):
            frame = np.full((HEIGHT, WIDTH, 3), 10 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


ORDERS = {
    "forward": list(range(24)),
    "backward": list(range(23, -1, -1)),
    "random": [20, 3, 4, 23, 0, 12, 11, 13],
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_video_file_frames_by_index(video_file: Path, order: list[int]) -> None:
    frames = open_rgb_frames(video_file)
    assert len(frames) == 24
    for i in order:
        assert frames[i].shape == (HEIGHT, WIDTH, 3)
        assert abs(int(frames[i].mean()) - 10 * i) <= 3


def test_video_file_folder_and_list_track_alike(
    predictor: SAM2VideoPredictor, clip: list[np.ndarray], tmp_path: Path
) -> None:
    for i, image in enumerate(clip[:12]):
        Image.fromarray(image).save(tmp_path / f"{i}.png")  # 10.png sorts after 9.png
    from_folder = predictor.init_state(str(tmp_path))
    prompt(predictor, from_folder, 0, 1)
    folder_masks = torch.cat([masks for _, _, masks in predictor.propagate_in_video(from_folder)])
    assert torch.equal(folder_masks, torch.cat(list(track(predictor, clip[:12], 1).values())))


def test_bad_videos(predictor: SAM2VideoPredictor, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such video"):
        predictor.init_state(tmp_path / "none.mp4")
    with pytest.raises(ValueError, match="no images in"):
        predictor.init_state(tmp_path)
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(ValueError, match="is not a video"):
        predictor.init_state(tmp_path / "text.mp4")
    with pytest.raises(ValueError, match="no frames"):
        predictor.init_state([])
    with pytest.raises(ValueError, match="RGB uint8"):
        to_model_input(np.zeros((4, 4), np.uint8), 64)
    frames = [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)]
    state = predictor.init_state(frames)
    predictor.add_new_points_or_box(state, 0, 1, box=[1, 1, 5, 5])
    with pytest.raises(ValueError, match="9x8 pixels"):
        list(predictor.propagate_in_video(state))
