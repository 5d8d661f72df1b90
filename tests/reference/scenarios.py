"""What both packages are asked to do, written once against the public API that they share.

A scenario is a function of a recorder; the recorder calls the predictor and keeps every output under a name that says
what produced it, so that two runs can be compared array by array.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reference.clip import SHAPES, box_of, centre_of, read_frame, shape_mask

Arrays = dict[str, NDArray[Any]]


class VideoRecorder:
    """Drives one video predictor and records what every call returns.

    No scenario tracks an object on a frame before its first prompt in the direction of tracking: the reference fails
    there outside autocast, because it joins bfloat16 memories with no float32 pointer.

    Attributes:
        arrays: Outputs so far. `NN.call[.frame].masks` is (N, 1, H, W) float32 logits, `…ids` (N,) object ids.
    """

    def __init__(self, predictor: Any, clip: Path, size: tuple[int, int]) -> None:
        self.predictor = predictor
        self.state = predictor.init_state(str(clip))
        self.size = size
        self.arrays: Arrays = {}
        self._num_calls = 0

    def box(self, frame_idx: int, obj_id: int, shape_idx: int) -> None:
        """Prompt an object with the box of a shape."""
        box = box_of(self._mask(frame_idx, shape_idx))
        self._record("box", self.predictor.add_new_points_or_box(self.state, frame_idx, obj_id, box=box))

    def points(self, frame_idx: int, obj_id: int, positive: list[int], negative: list[int], **kwargs: Any) -> None:
        """Click on the centres of shapes: `positive` and `negative` are indices into `SHAPES`."""
        centres = [centre_of(self._mask(frame_idx, shape_idx)) for shape_idx in positive + negative]
        labels = np.array([1] * len(positive) + [0] * len(negative), dtype=np.int32)
        answer = self.predictor.add_new_points_or_box(
            self.state, frame_idx, obj_id, points=np.stack(centres), labels=labels, **kwargs
        )
        self._record("points", answer)

    def mask(self, frame_idx: int, obj_id: int, shape_idx: int) -> None:
        """Prompt an object with the mask of a shape."""
        mask = self._mask(frame_idx, shape_idx)
        self._record("mask", self.predictor.add_new_mask(self.state, frame_idx, obj_id, mask))

    def clear(self, frame_idx: int, obj_id: int) -> None:
        """Take an object's prompts off one frame."""
        self._record("clear", self.predictor.clear_all_prompts_in_frame(self.state, frame_idx, obj_id))

    def remove(self, obj_id: int) -> None:
        """Remove an object; the frames it was prompted on come back updated."""
        obj_ids, updated = self.predictor.remove_object(self.state, obj_id)
        self._num_calls += 1
        self._keep(f"{self._num_calls:02d}.remove", obj_ids, None)
        for frame_idx, masks in updated:
            self._keep(f"{self._num_calls:02d}.remove.{frame_idx:03d}", obj_ids, masks)

    def propagate(self, **kwargs: Any) -> None:
        """Track, recording every frame."""
        self._num_calls += 1
        for frame_idx, obj_ids, masks in self.predictor.propagate_in_video(self.state, **kwargs):
            self._keep(f"{self._num_calls:02d}.propagate.{frame_idx:03d}", obj_ids, masks)

    def reset(self) -> None:
        """Forget every object."""
        self.predictor.reset_state(self.state)

    def _mask(self, frame_idx: int, shape_idx: int) -> NDArray[np.bool_]:
        return shape_mask(SHAPES[shape_idx], frame_idx, self.size)

    def _record(self, call: str, answer: tuple[int, Any, Any]) -> None:
        frame_idx, obj_ids, masks = answer
        self._num_calls += 1
        self._keep(f"{self._num_calls:02d}.{call}.{frame_idx:03d}", obj_ids, masks)

    def _keep(self, name: str, obj_ids: Any, masks: torch.Tensor | None) -> None:
        self.arrays[f"{name}.ids"] = np.array(list(obj_ids))
        if masks is not None:
            self.arrays[f"{name}.masks"] = masks.float().cpu().numpy().copy()


def one_box(video: VideoRecorder) -> None:
    """One object, one box, the whole clip."""
    video.box(0, 1, 0)
    video.propagate()


def one_point(video: VideoRecorder) -> None:
    """One click, which makes the decoder choose among three masks."""
    video.points(0, 1, [1], [])
    video.propagate(max_frame_num_to_track=5)


def one_mask(video: VideoRecorder) -> None:
    """One object given by its mask."""
    video.mask(0, 1, 0)
    video.propagate(max_frame_num_to_track=5)


def several_objects(video: VideoRecorder) -> None:
    """Three objects prompted in three ways, one of them with ids out of order."""
    video.box(0, 7, 0)
    video.points(0, 2, [1], [2])
    video.mask(0, 5, 2)
    video.propagate(max_frame_num_to_track=6)


def prompts_on_different_frames(video: VideoRecorder) -> None:
    """Two objects that start on different frames, the second with two conditioning frames."""
    video.box(0, 1, 0)
    video.box(3, 2, 1)
    video.points(5, 2, [1], [0])
    video.propagate(start_frame_idx=3, max_frame_num_to_track=5)


def reverse(video: VideoRecorder) -> None:
    """Track backwards from the middle."""
    video.box(6, 1, 0)
    video.mask(6, 2, 3)
    video.propagate(start_frame_idx=6, reverse=True)


def forward_then_reverse(video: VideoRecorder) -> None:
    """Start in the middle, go to the end, then back to the beginning."""
    video.box(4, 1, 1)
    video.propagate(start_frame_idx=4, max_frame_num_to_track=4)
    video.propagate(start_frame_idx=4, reverse=True)


def refine_later(video: VideoRecorder) -> None:
    """Track, correct one object on a frame that was tracked, track again."""
    video.box(0, 1, 0)
    video.box(0, 2, 1)
    video.propagate(max_frame_num_to_track=5)
    video.points(3, 1, [0], [2])
    video.points(3, 1, [3], [], clear_old_points=False)
    video.propagate(max_frame_num_to_track=6)


def correct_later(video: VideoRecorder) -> None:
    """Track one object, click on a frame that was tracked, track again, on to frames that were not."""
    video.box(0, 1, 0)
    video.propagate(max_frame_num_to_track=5)
    video.points(3, 1, [0], [2])
    video.points(3, 1, [3], [], clear_old_points=False)
    video.propagate(max_frame_num_to_track=8)


def refine_before_tracking(video: VideoRecorder) -> None:
    """A box with a click in one call, then a further click on the same frame."""
    video.box(1, 1, 0)
    video.points(1, 1, [0], [3], clear_old_points=True)
    video.points(1, 1, [], [1], clear_old_points=False)
    video.propagate(start_frame_idx=1, max_frame_num_to_track=3)


def remove_an_object(video: VideoRecorder) -> None:
    """Track three, remove the middle one, go on."""
    video.box(0, 1, 0)
    video.box(0, 2, 1)
    video.points(0, 3, [2], [])
    video.propagate(max_frame_num_to_track=3)
    video.remove(2)
    video.propagate(start_frame_idx=3, max_frame_num_to_track=3)


def clear_prompts(video: VideoRecorder) -> None:
    """Take back one of two prompts."""
    video.box(0, 1, 0)
    video.box(2, 1, 1)
    video.propagate(max_frame_num_to_track=3)
    video.clear(2, 1)
    video.propagate(start_frame_idx=1, max_frame_num_to_track=3)


def reset_and_again(video: VideoRecorder) -> None:
    """Nothing of the first run may reach the second."""
    video.mask(0, 1, 0)
    video.propagate(max_frame_num_to_track=2)
    video.reset()
    video.box(1, 4, 1)
    video.propagate(max_frame_num_to_track=3)


def tour(video: VideoRecorder) -> None:
    """A little of everything, for models that take seconds a frame."""
    video.box(1, 1, 0)
    video.propagate(max_frame_num_to_track=1)
    video.mask(1, 2, 1)
    video.points(1, 3, [2], [])
    video.propagate(start_frame_idx=1, max_frame_num_to_track=2)
    video.points(2, 1, [0], [3])
    video.remove(3)
    video.propagate(start_frame_idx=2, max_frame_num_to_track=2, reverse=True)


def prompt_everything(video: VideoRecorder) -> None:
    """Prompts of every kind on one frame, and a little tracking: what weights are calibrated on."""
    for shape_idx in range(len(SHAPES)):
        video.box(0, 1 + shape_idx, shape_idx)
        video.points(0, 11 + shape_idx, [shape_idx], [(shape_idx + 1) % len(SHAPES)])
    for obj_id in (2, 3, 4, 11, 12, 13):
        video.remove(obj_id)
    video.propagate(max_frame_num_to_track=1)


VIDEO_SCENARIOS: dict[str, Callable[[VideoRecorder], None]] = {
    scenario.__name__: scenario
    for scenario in (
        one_box,
        one_point,
        one_mask,
        several_objects,
        prompts_on_different_frames,
        reverse,
        forward_then_reverse,
        refine_later,
        correct_later,
        refine_before_tracking,
        remove_an_object,
        clear_prompts,
        reset_and_again,
        tour,
    )
}


def run_video_scenario(predictor: Any, name: str, clip: Path, size: tuple[int, int]) -> Arrays:
    """Run one of `VIDEO_SCENARIOS` on a clip whose frames have (width, height) `size`; returns what it recorded."""
    video = VideoRecorder(predictor, clip, size)
    VIDEO_SCENARIOS[name](video)
    return video.arrays


def run_image_scenario(predictor: Any, clip: Path, size: tuple[int, int]) -> Arrays:
    """Every kind of prompt through an image predictor, one image and a batch of two.

    Args:
        predictor: A `SAM2ImagePredictor` of either package.
        clip: Folder of frames.
        size: (width, height) of the frames.

    Returns:
        Masks as logits, predicted IoUs and low-resolution logits of every call, all float32.
    """
    arrays: Arrays = {}
    masks = [shape_mask(shape, 0, size) for shape in SHAPES]
    boxes = np.stack([box_of(mask) for mask in masks])
    centres = np.stack([centre_of(mask) for mask in masks])

    def keep(name: str, answer: tuple[Any, Any, Any]) -> None:
        for kind, array in zip(("masks", "ious", "low_res"), answer, strict=True):
            arrays[f"{name}.{kind}"] = np.asarray(array, dtype=np.float32)

    predictor.set_image(read_frame(clip, 0))
    arrays["embedding"] = predictor.get_image_embedding().float().cpu().numpy()
    point = {"point_coords": centres[:1], "point_labels": np.array([1])}
    keep("point", predictor.predict(**point, multimask_output=True, return_logits=True))
    keep("point_single", predictor.predict(**point, multimask_output=False, return_logits=True))
    keep("box", predictor.predict(box=boxes[0], multimask_output=False, return_logits=True))
    keep("boxes", predictor.predict(box=boxes, multimask_output=False, return_logits=True))
    clicks = {"point_coords": centres[:3], "point_labels": np.array([1, 0, 0])}
    keep("clicks", predictor.predict(**clicks, box=boxes[0], multimask_output=False, return_logits=True))
    again = arrays["point.low_res"][:1]
    keep("refined", predictor.predict(**clicks, mask_input=again, multimask_output=False, return_logits=True))

    predictor.set_image_batch([read_frame(clip, 0), read_frame(clip, 1)])
    batches = predictor.predict_batch(box_batch=[boxes[:3], boxes[3:]], multimask_output=False, return_logits=True)
    for image_idx, answer in enumerate(zip(*batches, strict=True)):
        keep(f"batch.{image_idx}", answer)
    return arrays
