"""SAM 2 as a follower: what it sees is what the predictor tells, without specks, and each frame is encoded once."""

from pathlib import Path

import numpy as np
import pytest
import supervision as sv
import torch
from tiny_sam2 import make_image, make_tiny_model

from grounded_sam2.detectors.base import make_detections
from grounded_sam2.segment import segment
from grounded_sam2.track.follower import Followed, FollowedStream
from grounded_sam2.track.sam2_follower import MaskCleaning, Sam2Follower, masks_of
from grounded_sam2.track.tracking import add_objects, follow_newest_frame, segment_on_frame
from grounded_sam2.video import open_frames, open_indexed_frames
from sam2.build_sam import build_sam2_video_predictor
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.sam2_video_predictor import SAM2VideoPredictor

REPOSITORY = Path(__file__).resolve().parent.parent
FRAMES = [make_image(60, 80, seed) for seed in range(4)]
FOOTAGE_BOXES = np.array([[350, 100, 554, 238], [103, 53, 311, 246], [194, 247, 307, 359]], np.float32)
BOXES = np.array([[4, 4, 40, 30], [40, 20, 70, 50], [10, 8, 30, 28]], np.float32)


@pytest.fixture(scope="module")
def predictor() -> SAM2VideoPredictor:
    return make_tiny_model(model_class=SAM2VideoPredictor)


@pytest.fixture
def stream(predictor: SAM2VideoPredictor) -> FollowedStream:
    """A stream of one frame."""
    stream = Sam2Follower(predictor).open_stream()
    stream.append(FRAMES[0])
    return stream


def boxes(count: int, size: tuple[int, int] = (80, 60)) -> sv.Detections:
    return make_detections(BOXES[:count], np.linspace(0.9, 0.5, count), np.arange(count), ["a", "b", "c"], size)


def test_masks_are_rid_of_specks_and_keep_their_parts() -> None:
    logits = torch.full((3, 1, 60, 80), -2.0)
    logits[0, 0, 10:30, 10:30] = 1.0  # an object of 400 pixels behind a pole, whose right side has 40
    logits[0, 0, 10:30, 35:37] = 3.0
    logits[0, 0, 5, 70:77] = 9.0  # below 2 % of it
    logits[1, 0, 50, 20:23] = 1.0  # small, but all there is
    masks = masks_of(logits)
    assert masks.dtype == bool and masks.shape == (3, 60, 80)
    expected = logits[:, 0].numpy() > 0
    expected[0, 5] = False
    np.testing.assert_array_equal(masks, expected)


def test_what_is_seen_is_what_the_predictor_tells(predictor: SAM2VideoPredictor, stream: FollowedStream) -> None:
    state = predictor.init_stream()
    for frame_idx, image in enumerate(FRAMES):
        if frame_idx > 0:
            assert stream.append(image) == frame_idx
        predictor.append_frame(state, image)
        if frame_idx == 1:
            for obj_id, box in ((5, BOXES[0]), (2, BOXES[1])):
                stream.add(1, obj_id, box=box)
                predictor.add_new_points_or_box(state, 1, obj_id, box=box)
        seen = stream.step()
        obj_ids, mask_logits = predictor.step(state)
        assert seen.obj_ids == stream.obj_ids == obj_ids and seen.masks.shape == (len(obj_ids), 60, 80)
        np.testing.assert_array_equal(seen.masks, masks_of(mask_logits))
        assert seen.scores() == predictor.frame_scores(state, frame_idx)
        pointers = predictor.object_pointers(state, frame_idx)
        assert seen.descriptors is not None and seen.descriptors.shape == (len(obj_ids), predictor.config.d_model)
        for descriptor, obj_id in zip(seen.descriptors, obj_ids, strict=True):
            np.testing.assert_array_equal(descriptor, pointers[obj_id].numpy())
    assert stream.size == (80, 60) and obj_ids == [5, 2]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_proposal_is_what_a_box_would_give(stream: FollowedStream, count: int) -> None:
    proposed = stream.propose(0, BOXES[:count])
    assert proposed.masks.shape == (count, 60, 80) and proposed.masks.dtype == bool and stream.obj_ids == []
    assert proposed.mask_scores is not None and proposed.mask_scores.shape == (count,)
    assert proposed.descriptors is not None and len(proposed.descriptors) == count
    for index, box in enumerate(BOXES[:count]):
        seen = stream.add(0, index + 1, box=box)
        assert seen.obj_ids == [index + 1] and seen.mask_scores is not None and seen.descriptors is not None
        # `add` also fills small holes, and its batch of one moves logits in their last digits
        assert (seen.masks[0] != proposed.masks[index]).sum() <= 8
        np.testing.assert_allclose(seen.mask_scores[0], proposed.mask_scores[index], rtol=1e-4)
        np.testing.assert_allclose(seen.descriptors[0], proposed.descriptors[index], rtol=1e-3, atol=1e-4)


def test_prompts_on_one_object_show_that_object(stream: FollowedStream) -> None:
    mask = np.zeros((60, 80), dtype=bool)
    mask[10:40, 20:50] = True
    seen = stream.add(0, 4, mask=mask)
    assert seen.obj_ids == [4] and (seen.masks[0] & mask).sum() / (seen.masks[0] | mask).sum() > 0.9
    assert stream.add(0, 2, points=np.array([[30.0, 20.0]])).obj_ids == [2]
    before = stream.step()
    refined = stream.refine(0, 2, np.array([[31.0, 40.0]]), np.array([1]))
    assert refined.obj_ids == [2] and refined.scores() != {2: before.scores()[2]}
    stream.append(FRAMES[1])
    stream.step()
    corrected = stream.correct(1, 4, mask)
    np.testing.assert_array_equal(corrected.masks[0], mask)
    assert corrected.obj_ids == [4] and corrected.object_scores[0] > 0
    stream.remove(2)
    stream.remove(99)
    assert stream.obj_ids == [4] and stream.step().obj_ids == [4]
    with pytest.raises(ValueError, match=r"got \(60, 79\)"):
        stream.correct(1, 4, mask[:, 1:])


def test_a_forgotten_frame_is_not_remembered(stream: FollowedStream) -> None:
    stream.add(0, 1, box=BOXES[0])
    stream.step()
    for image in FRAMES[1:3]:
        frame_idx = stream.append(image)
        stream.step()
    stream.forget(frame_idx, [1])
    remembered = stream.save()["objects"][1]
    assert list(remembered["cond"]) == [0] and list(remembered["non_cond"]) == [1]


def test_a_saved_stream_goes_on(predictor: SAM2VideoPredictor, stream: FollowedStream) -> None:
    stream.add(0, 1, box=BOXES[0])
    stream.step()
    loaded = Sam2Follower(predictor).load_stream(stream.save())
    for image in FRAMES[1:]:
        assert loaded.append(image) == stream.append(image)
        ours, theirs = stream.step(), loaded.step()
        np.testing.assert_array_equal(ours.masks, theirs.masks)
        assert ours.scores() == theirs.scores()


def test_a_saved_video_goes_on(predictor: SAM2VideoPredictor) -> None:
    follower = Sam2Follower(predictor)
    video = follower.open_video(open_frames(FRAMES))
    video.add(1, 1, box=BOXES[0])
    next(video.follow(1))
    loaded = follower.load_video(video.save(), open_frames(FRAMES))
    loaded.refine(2, 1, np.array([[20.0, 20.0]]), np.array([1]))
    video.refine(2, 1, np.array([[20.0, 20.0]]), np.array([1]))
    for (frame_idx, ours), (index, theirs) in zip(video.follow(1), loaded.follow(1), strict=True):
        assert frame_idx == index and ours.scores() == theirs.scores()
        np.testing.assert_array_equal(ours.masks, theirs.masks)
    with pytest.raises(ValueError, match="3 frames"):
        follower.load_video(video.save(), open_frames(FRAMES[:3]))


def test_objects_come_and_go_between_two_frames_without_a_change_to_others(predictor: SAM2VideoPredictor) -> None:
    alone, company = (Sam2Follower(predictor).open_video(open_frames(FRAMES)) for _ in range(2))
    for video in (alone, company):
        video.add(1, 1, box=BOXES[0])
    expected = dict(alone.follow(1))
    seen_of: dict[int, list[int]] = {}
    for frame_idx, seen in company.follow(1):
        seen_of[frame_idx] = list(seen.obj_ids)
        np.testing.assert_array_equal(seen.masks[:1], expected[frame_idx].masks)
        if frame_idx == 1:
            company.add(3, 2, box=BOXES[1])  # on a further frame first
            company.add(1, 2, box=BOXES[1])
        if frame_idx == 2:
            company.remove(2)
    assert list(seen_of.values())[:3] == [[1], [1, 2], [1]] and len(seen_of) == len(expected)


def test_a_refinement_sticks(predictor: SAM2VideoPredictor) -> None:
    """Tracking over a refined frame once more leaves the mask there as it was refined."""
    video = Sam2Follower(predictor).open_video(open_frames(FRAMES))
    video.add(0, 1, box=BOXES[0])
    before = dict(video.follow(0))
    refined = video.refine(2, 1, np.array([[60.0, 40.0]]), np.array([1]))
    assert (refined.masks != before[2].masks).any()
    after = dict(video.follow(0))
    np.testing.assert_array_equal(after[2].masks, refined.masks)
    assert after[2].scores() == refined.scores()


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({}, "expected a mask, or a box or points, of object 1, got none of them"),
        ({"mask": np.ones((60, 80), bool), "box": BOXES[0]}, "or points, of object 1, got both"),
        ({"points": np.zeros((2, 2)), "labels": np.ones(3)}, r"got \(2, 2\) with \(3,\)"),
        ({"mask": np.ones((80, 60), bool)}, r"expected a mask of shape \(60, 80\), as the frame has, got \(80, 60\)"),
    ],
)
def test_prompts_that_say_nothing_or_too_much(stream: FollowedStream, prompts: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stream.add(0, 1, **prompts)
    assert stream.obj_ids == []


def test_an_unknown_object_is_not_refined(stream: FollowedStream) -> None:
    stream.add(0, 1, box=BOXES[0])
    with pytest.raises(ValueError, match=r"expected one of the objects \[1\], got 7"):
        stream.refine(0, 7, np.zeros((1, 2)), np.ones(1))
    assert stream.obj_ids == [1]


# ---- one encoding for masks and for tracking ----


def count_encodings(predictor: SAM2VideoPredictor, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with every frame that is encoded."""
    encode, counted = predictor.forward_image, []
    monkeypatch.setattr(predictor, "forward_image", lambda images: (counted.append(len(images)), encode(images))[1])
    return counted


def test_a_frame_is_encoded_once_in_a_stream(predictor: SAM2VideoPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Sam2Follower(predictor).open_stream()
    counted = count_encodings(predictor, monkeypatch)
    stream.append(FRAMES[0])
    objects = add_objects(stream, 0, segment_on_frame(stream, 0, boxes(0)))
    follow_newest_frame(stream, objects)
    assert counted == []  # nothing found, nothing to look at
    stream.append(FRAMES[1])
    objects = add_objects(stream, 1, segment_on_frame(stream, 1, boxes(2)), "mask")
    follow_newest_frame(stream, objects)
    assert counted == [1]


def test_a_frame_is_encoded_once_in_a_video(predictor: SAM2VideoPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    video = Sam2Follower(predictor).open_video(open_frames(FRAMES))
    counted = count_encodings(predictor, monkeypatch)
    add_objects(video, 0, segment_on_frame(video, 0, boxes(2)), "point")
    assert counted == [1] and len(list(video.follow(0))) == len(FRAMES)
    assert counted == [1] * len(FRAMES)


def test_images_and_frames_get_the_same_masks_for_boxes(predictor: SAM2VideoPredictor) -> None:
    """On an image as large as the model's input, which neither predictor resizes, nothing differs but specks."""
    image = make_image(64, 64)
    detections = boxes(3, (64, 64))
    on_image = segment(SAM2ImagePredictor(predictor), image, detections)
    stream = Sam2Follower(predictor).open_stream()
    stream.append(image)
    on_frame = segment_on_frame(stream, 0, detections)
    present = [stream.add(0, obj_id, box=box).object_scores[0] > 0 for obj_id, box in enumerate(BOXES, start=1)]
    assert any(present)
    logits = torch.from_numpy(np.where(on_image.mask, 1.0, -1.0))[:, None]
    np.testing.assert_array_equal(on_frame.mask, masks_of(logits) & np.array(present)[:, None, None])
    np.testing.assert_allclose(on_frame.data["mask_score"], on_image.data["mask_score"], rtol=1e-5)
    assert detections.mask is None and "mask_score" not in detections.data


def test_on_footage_masks_of_images_and_frames_are_much_alike() -> None:
    """Frames are shrunk bicubically, images bilinearly."""
    predictor = build_sam2_video_predictor(None, str(REPOSITORY / "checkpoints/sam2.1_nano.pt"), device="cpu")
    image = open_indexed_frames(REPOSITORY / "assets" / "crossing.mp4")[0]
    stream: Followed = Sam2Follower(predictor).open_stream()
    stream.append(image)
    detections = make_detections(
        FOOTAGE_BOXES, np.array([0.9, 0.8, 0.7]), np.zeros(3, int), ["a"], (image.shape[1], image.shape[0])
    )
    on_image, on_frame = (
        segment(SAM2ImagePredictor(predictor), image, detections),
        segment_on_frame(stream, 0, detections),
    )
    shared, either = (on_image.mask & on_frame.mask).sum((1, 2)), (on_image.mask | on_frame.mask).sum((1, 2))
    assert (shared / either >= 0.98).all()
    np.testing.assert_allclose(on_frame.data["mask_score"], on_image.data["mask_score"], atol=0.01)


def test_masks_are_cleaned_as_asked(predictor: SAM2VideoPredictor) -> None:
    logits = torch.full((1, 1, 60, 80), -2.0)
    logits[0, 0, 10:30, 10:30] = 1.0  # an object of 400 pixels
    logits[0, 0, 20, 20] = -1.0  # with a pinhole
    logits[0, 0, 5, 40:60] = 1.0  # a thread of more than 2 % of it
    logits[0, 0, 50:53, 70:73] = 1.0  # a speck of more than 2 %
    logits[0, 0, 40:42, 40:42] = 1.0  # and one of 1 %
    as_it_is = logits[:, 0].numpy() > 0
    without_speck = as_it_is.copy()
    without_speck[0, 40:42, 40:42] = False
    smooth = without_speck.copy()
    smooth[0, 20, 20], smooth[0, 5] = True, False
    expected: dict[MaskCleaning, np.ndarray] = {"none": as_it_is, "specks": without_speck, "morphology": smooth}
    for cleaning, masks in expected.items():
        np.testing.assert_array_equal(masks_of(logits, cleaning), masks, cleaning)
    with pytest.raises(ValueError, match="expected cleaning of masks by specks, morphology, none, got 'soap'"):
        Sam2Follower(predictor, "soap")  # type: ignore[arg-type]


@pytest.mark.parametrize("cleaning", ["morphology", "none"])
def test_every_mask_of_a_follower_is_cleaned(predictor: SAM2VideoPredictor, cleaning: MaskCleaning) -> None:
    """In a stream and a video, proposed, added, followed, and after a saved state."""
    follower, others = Sam2Follower(predictor, cleaning), Sam2Follower(predictor)
    seen = []
    for each in (follower, others):
        stream = each.open_stream()
        stream.append(FRAMES[0])
        masks = [stream.propose(0, BOXES).masks, stream.add(0, 1, box=BOXES[0]).masks, stream.step().masks]
        stream = each.load_stream(stream.save())
        stream.append(FRAMES[1])
        masks.append(stream.step().masks)
        video = each.open_video(open_indexed_frames(FRAMES))
        video.add(0, 1, box=BOXES[0])
        masks += [seen.masks for _, seen in each.load_video(video.save(), open_indexed_frames(FRAMES)).follow(0)]
        seen.append(masks)
    for mine, theirs in zip(*seen, strict=True):
        assert not np.array_equal(mine, theirs)  # random weights make ragged masks
