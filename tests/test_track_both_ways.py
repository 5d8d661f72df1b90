"""Objects found on one frame are followed from it to both ends, also by a run that is interrupted on the way."""

import signal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import supervision as sv
from fake_follower import FakeFollower, picture
from tiny_sam2 import make_image, make_tiny_model

from grounded_sam2.detectors.base import make_detections
from grounded_sam2.export import FrameAnnotationWriter, VideoHeader
from grounded_sam2.script import StoppedError, StopRequest
from grounded_sam2.track.both_ways import TwoWayTracker
from grounded_sam2.track.follower import Follower
from grounded_sam2.track.resume import SavedRun
from grounded_sam2.track.sam2_follower import Sam2Follower, masks_of
from grounded_sam2.track.tracking import PromptType, add_objects, follow_newest_frame
from grounded_sam2.video import open_frames
from sam2.sam2_video_predictor import SAM2VideoPredictor

FRAMES = [make_image(60, 80, seed) for seed in range(6)]
HEADER = VideoHeader((80, 60), "clip", Fraction(24), ("a", "b"), {})


@pytest.fixture(scope="module")
def predictor() -> SAM2VideoPredictor:
    return make_tiny_model(model_class=SAM2VideoPredictor)


@pytest.fixture(scope="module")
def follower(predictor: SAM2VideoPredictor) -> Sam2Follower:
    return Sam2Follower(predictor)


def found(count: int) -> sv.Detections:
    xyxy = np.array([[4, 4, 40, 30], [40, 20, 70, 50]], np.float32)[:count]
    return make_detections(xyxy, np.array([0.9, 0.8])[:count], np.array([1, 0])[:count], ["a", "b"], (80, 60))


def follow_all(
    follower: Follower, start: int, detections: sv.Detections, prompt_type: PromptType = "box"
) -> list[sv.Detections]:
    """The objects of all frames."""
    tracker = TwoWayTracker(follower, open_frames(FRAMES), start)
    assert tracker.start(detections, prompt_type).tracker_id.tolist() == list(range(1, len(detections) + 1))
    assert list(tracker.go_back()) == (list(range(start))[::-1] if len(detections) else [])
    tracked = [tracker.step(image) for image in FRAMES]
    assert tracker.frame_idx == len(FRAMES) - 1 and tracker.take_events() == []
    return tracked


@pytest.mark.parametrize("prompt_type", ["box", "point", "mask"])
@pytest.mark.parametrize("start", [0, 3, 5])
def test_every_frame_is_followed_in_order(follower: Follower, prompt_type: PromptType, start: int) -> None:
    tracked = follow_all(follower, start, found(2), prompt_type)
    assert {obj_id for objects in tracked for obj_id in objects.tracker_id.tolist()} == {1, 2}
    for objects in tracked:
        assert objects.mask.shape == (len(objects), 60, 80)
        assert objects.data["class_name"].tolist() == [{1: "b", 2: "a"}[obj_id] for obj_id in objects.tracker_id]
        assert len(objects.data["mask_score"]) == len(objects.data["object_score"]) == len(objects)


def test_both_ways_are_those_of_propagation(follower: Follower, predictor: SAM2VideoPredictor) -> None:
    tracked = follow_all(follower, 3, found(2))
    state = predictor.init_state(open_frames(FRAMES))
    for obj_id, box in enumerate(found(2).xyxy, start=1):
        predictor.add_new_points_or_box(state, 3, obj_id, box=box)
    propagated = [
        *predictor.propagate_in_video(state, start_frame_idx=3, reverse=True),
        *predictor.propagate_in_video(state, start_frame_idx=3),
    ]
    assert [frame_idx for frame_idx, _, _ in propagated] == [3, 2, 1, 0, 3, 4, 5] and any(map(len, tracked))
    for frame_idx, obj_ids, mask_logits in propagated:
        masks = dict(zip(obj_ids, masks_of(mask_logits), strict=True))
        for obj_id, mask in zip(tracked[frame_idx].tracker_id, tracked[frame_idx].mask, strict=True):
            np.testing.assert_array_equal(mask, masks.pop(int(obj_id)))
        assert not any(mask.any() for mask in masks.values())


def test_a_stream_equals_a_video(follower: Follower) -> None:
    offline = follow_all(follower, 0, found(2))
    stream = follower.open_stream(num_frames=len(FRAMES))
    for image in FRAMES:
        frame_idx = stream.append(image)
        if frame_idx == 0:
            objects = add_objects(stream, 0, found(2))
        np.testing.assert_array_equal(follow_newest_frame(stream, objects).mask, offline[frame_idx].mask)


def test_no_objects_still_gives_every_frame(follower: Follower) -> None:
    tracked = follow_all(follower, 2, found(0))
    assert len(tracked) == 6
    assert all(len(objects) == 0 and objects.mask.shape == (0, 60, 80) for objects in tracked)


def test_the_way_back_comes_first(follower: Follower) -> None:
    tracker = TwoWayTracker(follower, open_frames(FRAMES), 2)
    with pytest.raises(RuntimeError, match=r"call start\(...\) and go through go_back\(\) first"):
        tracker.step(FRAMES[0])
    tracker.start(found(1))
    next(tracker.go_back())
    with pytest.raises(RuntimeError, match=r"go_back\(\) first"):
        tracker.step(FRAMES[0])


@pytest.mark.parametrize("prompt_type", ["box", "point", "mask"])
@pytest.mark.parametrize("scores_masks", [True, False])
def test_any_follower_will_do(prompt_type: PromptType, scores_masks: bool) -> None:
    """Two boxes that pass each other, one of them out of sight on two of six frames, found on the third."""
    frames = [picture({5: (10 * t, 20, 10 * t + 10, 40), 9: (50 - 10 * t, 4, 60 - 10 * t, 44)}) for t in range(6)]
    frames[1][frames[1] == 5] = frames[4][frames[4] == 5] = 0
    detections = make_detections(
        np.array([[30, 4, 40, 44], [20, 20, 30, 40]]), np.array([0.9, 0.8]), np.array([1, 0]), ["a", "b"], (64, 48)
    )
    tracker = TwoWayTracker(FakeFollower(scores_masks), frames, 2)
    objects = tracker.start(detections, prompt_type)
    assert objects.mask.sum(axis=(1, 2)).tolist() == [400, 200] and ("mask_score" in objects.data) is scores_masks
    assert list(tracker.go_back()) == [1, 0]
    tracked = [tracker.step(image) for image in frames]
    assert [each.tracker_id.tolist() for each in tracked] == [[1, 2], [1], [1, 2], [1, 2], [1], [1, 2]]
    assert [each.xyxy[0].tolist() for each in tracked] == [[50 - 10 * t, 4, 60 - 10 * t, 44] for t in range(6)]
    assert all(each.data["class_name"][0] == "b" and ("mask_score" in each.data) is scores_masks for each in tracked)


class Run:
    """What a two-way script does, with one stop request."""

    def __init__(self, folder: Path, follower: Follower) -> None:
        self.folder, self.follower = folder, follower
        self.num_found = 0  # how often the objects were looked for

    def start(self, resume: bool, stop_after: tuple[str, int] | None = None, num_objects: int = 2) -> None:
        frames, stop = open_frames(FRAMES), StopRequest()

        def stopping(items: Any, way: str) -> Any:
            for position, item in enumerate(stop.guard(items)):
                if stop_after == (way, position + 1):
                    stop.signal_number = signal.SIGTERM
                yield item

        with (
            SavedRun(self.folder / "a.resume", {}, frames, resume, every=0) as saved,
            FrameAnnotationWriter(self.folder / "a.jsonl", HEADER) as annotations,
        ):
            tracker = TwoWayTracker(self.follower, frames, 3)
            with saved.stage("both ways", tracker, annotations) as stage:
                if tracker.objects is None:
                    self.num_found += 1
                    tracker.start(found(num_objects))
                for _ in stopping(tracker.go_back(), "back"):
                    stage.save_when_due()
                seen = [frame_idx for frame_idx, _, _ in stage.follow(tracker, stopping(frames, "on"), annotations)]
        assert seen == list(range(6))

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, follower: Follower) -> Run:
    whole = Run(tmp_path_factory.mktemp("whole"), follower)
    whole.start(resume=False)
    assert set(whole.files()) == {"a.jsonl"}
    return whole


@pytest.mark.parametrize(
    "stop_after", [("back", 1), ("back", 2), ("back", 3), ("on", 1), ("on", 3), ("on", 4), ("on", 5)]
)
def test_a_stopped_run_goes_on_to_the_same_result(
    tmp_path: Path, follower: Follower, whole: Run, stop_after: tuple[str, int]
) -> None:
    stopped = Run(tmp_path, follower)
    with pytest.raises(StoppedError, match="stopped by SIGTERM after"):
        stopped.start(resume=False, stop_after=stop_after)
    assert "a.resume" in stopped.files()
    stopped.start(resume=True)
    assert stopped.files() == whole.files() and stopped.num_found == 1


def test_a_run_stopped_on_both_ways_goes_on_twice(tmp_path: Path, follower: Follower, whole: Run) -> None:
    stopped = Run(tmp_path, follower)
    for resume, stop_after in ((False, ("back", 2)), (True, ("on", 2)), (True, ("on", 4))):
        with pytest.raises(StoppedError):
            stopped.start(resume, stop_after)
    stopped.start(resume=True)
    assert stopped.files() == whole.files() and stopped.num_found == 1


def test_a_stopped_run_that_found_nothing_does_not_look_again(tmp_path: Path, follower: Follower) -> None:
    stopped = Run(tmp_path, follower)
    with pytest.raises(StoppedError):
        stopped.start(resume=False, stop_after=("on", 2), num_objects=0)
    stopped.start(resume=True)
    assert stopped.num_found == 1 and set(stopped.files()) == {"a.jsonl"}
