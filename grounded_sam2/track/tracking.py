"""Follow detected objects through a video with SAM 2: one id per detection, one `sv.Detections` per frame."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import supervision as sv
from torch import Tensor

from grounded_sam2.masks import boxes_around, decode_rle, encode_rle, points_in_mask
from grounded_sam2.video.frame_source import FrameSource, IndexedFrameSource
from sam2.mask_ops import small_components
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.video_state import InferenceState

PromptType = Literal["box", "point", "mask"]

LEAST_PART = 0.02  # of a mask's largest part, in pixels, that another part has to have; specks far off widen its box


def frame_at(frames: FrameSource, frame_idx: int) -> npt.NDArray[np.uint8]:
    """Read one frame of a video whose frames can be read in any order.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: `frame_idx` (0-based) is outside the video, or `frames` can only be read once, from the start.
    """
    if not isinstance(frames, IndexedFrameSource):
        raise ValueError(f"{frames.name} can only be read once, from its start: expected a video file or image folder")
    if not 0 <= frame_idx < len(frames):
        raise ValueError(f"expected a frame index from 0 to {len(frames) - 1} in {frames.name}, got {frame_idx}")
    return frames[frame_idx]


def prompt_objects(
    predictor: SAM2VideoPredictor,
    inference_state: InferenceState,
    frame_idx: int,
    detections: sv.Detections,
    prompt_type: PromptType = "box",
    num_points: int = 10,
) -> sv.Detections:
    """Make each detection of one frame an object of the video.

    Args:
        predictor: whose state `inference_state` is.
        frame_idx: 0-based frame the detections lie on.
        detections: N ≥ 0 boxes; "point" and "mask" also need masks (N, H, W).
        prompt_type: what the video predictor is told about an object: its box, points inside its mask, or its mask.
        num_points: points per object for "point".

    Returns:
        The detections with `tracker_id` 1 … N, those being the object ids in `inference_state`. Where masks are needed,
        detections with an empty one are left out.

    Raises:
        ValueError: for another prompt type, or masks are needed and not there.
    """
    if prompt_type not in get_args(PromptType):
        raise ValueError(f"expected a prompt type of {', '.join(get_args(PromptType))}, got {prompt_type!r}")
    kept = np.arange(len(detections))
    masks = None if detections.mask is None else np.asarray(detections.mask)
    if prompt_type != "box" and len(detections) > 0:
        if masks is None:
            raise ValueError(f"{prompt_type!r} prompts need masks, the detections have none: call segment(...) first")
        kept = np.flatnonzero(masks.any(axis=(1, 2)))

    for obj_id, index in enumerate(kept, start=1):
        if prompt_type == "box" or masks is None:
            predictor.add_new_points_or_box(inference_state, frame_idx, obj_id, box=detections.xyxy[index])
        elif prompt_type == "point":
            points = points_in_mask(masks[index], num_points)
            point_labels = np.ones(len(points), dtype=np.int32)
            predictor.add_new_points_or_box(inference_state, frame_idx, obj_id, points=points, labels=point_labels)
        else:
            predictor.add_new_mask(inference_state, frame_idx, obj_id, masks[index])
    objects = cast(sv.Detections, detections[kept])
    objects.tracker_id = np.arange(1, len(kept) + 1)
    return objects


def track_both_ways(
    predictor: SAM2VideoPredictor,
    inference_state: InferenceState,
    frame_idx: int,
    objects: sv.Detections,
    guard: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    progress: Callable[..., Iterable[Any]] | None = None,
) -> Iterator[tuple[int, sv.Detections]]:
    """Follow prompted objects from one frame to both ends of the video, and yield all frames from first to last.

    The frames before `frame_idx` are tracked first, backwards; only their masks' run-length encoding is kept until they
    are yielded in order. The frames after it are yielded as they are tracked.

    Args:
        frame_idx: 0-based frame the objects were prompted on.
        objects: what `prompt_objects` returned; N = 0 yields every frame with nothing on it.
        guard: goes around the frames of the backward pass, and may end it by an error; `StopRequest.guard`, for one.
        progress: shows how far the backward pass is, before any frame is yielded; called as `tqdm` is.

    Yields:
        The 0-based frame index, and the objects whose mask is not empty on that frame, as `objects_in_sight` has them.
    """
    if len(objects) == 0:
        assert inference_state.num_frames is not None
        for index in range(inference_state.num_frames):
            yield index, no_objects((inference_state.video_width, inference_state.video_height))
        return

    before: list[tuple[int, sv.Detections, list[dict[str, Any]]]] = []
    if frame_idx > 0:
        backwards = guard(predictor.propagate_in_video(inference_state, frame_idx, reverse=True))
        if progress is not None:
            backwards = progress(backwards, total=frame_idx + 1, desc="backwards", unit="frame", leave=False)
        for index, obj_ids, mask_logits in backwards:
            if index < frame_idx:
                detections = _objects_of_step(predictor, inference_state, index, obj_ids, mask_logits, objects)
                before.append((index, detections, encode_rle(np.asarray(detections.mask))))
                detections.mask = None
    while before:
        index, detections, segmentations = before.pop()
        detections.mask = decode_rle(segmentations) if segmentations else None
        yield index, detections

    for index, obj_ids, mask_logits in predictor.propagate_in_video(inference_state, start_frame_idx=frame_idx):
        yield index, _objects_of_step(predictor, inference_state, index, obj_ids, mask_logits, objects)


def track_newest_frame(
    predictor: SAM2VideoPredictor, inference_state: InferenceState, frame_idx: int, objects: sv.Detections
) -> sv.Detections:
    """Follow prompted objects onto the newest frame of a stream.

    Args:
        inference_state: from ``init_stream``, after ``append_frame`` and any prompts on that frame.
        frame_idx: what ``append_frame`` returned.
        objects: what `prompt_objects` returned; with N = 0 nothing is tracked.

    Returns:
        As `objects_in_sight`.
    """
    if len(objects) == 0:
        return no_objects((inference_state.video_width, inference_state.video_height))
    obj_ids, mask_logits = predictor.step(inference_state)
    return _objects_of_step(predictor, inference_state, frame_idx, obj_ids, mask_logits, objects)


def _objects_of_step(
    predictor: SAM2VideoPredictor,
    inference_state: InferenceState,
    frame_idx: int,
    obj_ids: list[int],
    mask_logits: Tensor,
    objects: sv.Detections,
) -> sv.Detections:
    """What a step of the predictor sees of the objects; see `objects_in_sight`."""
    scores = predictor.frame_scores(inference_state, frame_idx)
    return objects_in_sight(obj_ids, masks_of(mask_logits), scores, objects)


def masks_of(mask_logits: Tensor) -> npt.NDArray[np.bool_]:
    """Masks (N, H, W) bool of the video predictor's logits (N, 1, H, W), without specks smaller than `LEAST_PART`."""
    masks = (mask_logits[:, 0] > 0).cpu()
    return (masks & ~small_components(masks, 0, LEAST_PART)).numpy()


def objects_in_sight(
    obj_ids: list[int],
    masks: npt.NDArray[np.bool_],
    scores: dict[int, tuple[float, float]],
    objects: sv.Detections,
) -> sv.Detections:
    """Put one frame's masks in the common currency.

    Args:
        obj_ids: M object ids.
        masks: (M, H, W) bool, in the same order.
        scores: object id → predicted IoU of its mask and presence logit.
        objects: the detections the objects were made from; each lends its object its class and confidence.

    Returns:
        The objects with a mask on this frame: `mask` (N, H, W), `xyxy` (N, 4) float32 around it, `tracker_id`, that is
        the object id, `class_id` and `confidence` of the detection, `data` with `class_name`, `mask_score` and
        `object_score`.
    """
    assert objects.tracker_id is not None and objects.confidence is not None and objects.class_id is not None
    seen = np.flatnonzero(masks.any(axis=(1, 2)))
    if len(seen) == 0:
        return no_objects((masks.shape[2], masks.shape[1]))
    obj_ids = [obj_ids[index] for index in seen]
    row_of = {obj_id: row for row, obj_id in enumerate(objects.tracker_id.tolist())}
    rows = np.array([row_of[obj_id] for obj_id in obj_ids])
    return make_tracked_detections(
        obj_ids,
        masks[seen],
        scores,
        confidence=objects.confidence[rows],
        class_id=objects.class_id[rows],
        class_name=np.asarray(objects.data["class_name"])[rows],
    )


def make_tracked_detections(
    obj_ids: Sequence[int],
    masks: npt.NDArray[np.bool_],
    scores: dict[int, tuple[float, float]],
    *,
    confidence: npt.ArrayLike,
    class_id: npt.ArrayLike,
    class_name: npt.ArrayLike,
) -> sv.Detections:
    """N ≥ 1 objects that are seen on a frame, in the common currency.

    Args:
        obj_ids: N object ids.
        masks: (N, H, W) bool, none of them empty.
        scores: object id → predicted IoU of its mask and presence logit.
        confidence: (N,) of the detector.
        class_id: (N,) index of the phrase.
        class_name: (N,) the phrase.
    """
    return sv.Detections(
        xyxy=boxes_around(masks),
        mask=masks,
        confidence=np.asarray(confidence, dtype=np.float32),
        class_id=np.asarray(class_id, dtype=np.int64),
        tracker_id=np.asarray(obj_ids, dtype=np.int64),
        data={
            "class_name": np.asarray(class_name, dtype=np.str_),
            "mask_score": np.array([scores[obj_id][0] for obj_id in obj_ids], dtype=np.float32),
            "object_score": np.array([scores[obj_id][1] for obj_id in obj_ids], dtype=np.float32),
        },
    )


def no_objects(size: tuple[int, int]) -> sv.Detections:
    """A frame of (width, height) pixels with no object on it, with the fields of one that has some."""
    width, height = size
    return sv.Detections(
        xyxy=np.zeros((0, 4), dtype=np.float32),
        mask=np.zeros((0, height, width), dtype=bool),
        confidence=np.zeros(0, dtype=np.float32),
        class_id=np.zeros(0, dtype=np.int64),
        tracker_id=np.zeros(0, dtype=np.int64),
        data={
            "class_name": np.array([], dtype=np.str_),
            "mask_score": np.zeros(0, dtype=np.float32),
            "object_score": np.zeros(0, dtype=np.float32),
        },
    )
