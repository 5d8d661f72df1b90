"""Follow detected objects through a video: one id per detection, one `sv.Detections` per frame.

stream = as_follower(predictor).open_stream()
for image in frames:
    frame_idx = stream.append(image)
    if frame_idx == 0:
        detections = segment_on_frame(stream, frame_idx, detections)  # the detector's boxes get masks
        objects = add_objects(stream, frame_idx, detections)          # and ids
    seen = follow_newest_frame(stream, objects)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import supervision as sv

from grounded_sam2.masks import Masks, boxes_around, decode_rle, encode_rle, points_in_mask
from grounded_sam2.track.follower import Followed, FollowedStream, Scores, Seen
from grounded_sam2.video.frame_source import FrameSource, IndexedFrameSource

PromptType = Literal["box", "point", "mask"]
SCORES = ("mask_score", "object_score")  # columns of numbers


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


def segment_on_frame(followed: Followed, frame_idx: int, detections: sv.Detections) -> sv.Detections:
    """Find the mask of each detected box with the model that follows objects, which encodes the frame only once.

    `grounded_sam2.segment.segment` makes nearly the same masks on an image. SAM 2 decodes both alike, but scales a
    frame of a video bicubically, an image bilinearly: the masks of the two have an IoU of about 0.99, less where the
    model is in doubt. Besides, masks on a frame have no specks, and are empty where the model holds that there is no
    object in the box.

    Args:
        followed: the stream or video.
        frame_idx: 0-based frame the detections lie on; of a stream, the newest.
        detections: N ≥ 0 boxes in pixels of that frame; not changed.

    Returns:
        The same detections with `mask` (N, H, W) bool and, from a model that predicts it, `data["mask_score"]` (N,)
        float32, the predicted IoU.
    """
    proposed = followed.propose(frame_idx, detections.xyxy)
    columns = dict(detections.data)
    if proposed.mask_scores is not None:
        columns["mask_score"] = np.asarray(proposed.mask_scores, dtype=np.float32)
    return replace(detections, mask=proposed.masks, data=columns)


def add_objects(
    followed: Followed,
    frame_idx: int,
    detections: sv.Detections,
    prompt_type: PromptType = "box",
    num_points: int = 10,
) -> sv.Detections:
    """Make each detection of one frame an object of a video or stream in which there is none yet.

    Args:
        followed: the stream or video.
        frame_idx: 0-based frame the detections lie on; of a stream, the newest.
        detections: N ≥ 0 boxes; "point" and "mask" also need masks (N, H, W).
        prompt_type: what the model is told about an object: its box, points inside its mask, or its mask.
        num_points: points per object for "point".

    Returns:
        The detections with `tracker_id` 1 … N, the object ids in `followed`. Where masks are needed, detections with an
        empty one are left out.

    Raises:
        ValueError: for another prompt type, or masks are needed and not there.
    """
    if prompt_type not in get_args(PromptType):
        raise ValueError(f"expected a prompt type of {', '.join(get_args(PromptType))}, got {prompt_type!r}")
    kept = np.arange(len(detections))
    masks = None if detections.mask is None else np.asarray(detections.mask)
    if prompt_type != "box" and len(detections) > 0:
        if masks is None:
            raise ValueError(
                f"{prompt_type!r} prompts need masks, the detections have none: call segment_on_frame(...)"
            )
        kept = np.flatnonzero(masks.any(axis=(1, 2)))

    for obj_id, index in enumerate(kept, start=1):
        if prompt_type == "box" or masks is None:
            followed.add(frame_idx, obj_id, box=detections.xyxy[index])
        elif prompt_type == "point":
            followed.add(frame_idx, obj_id, points=points_in_mask(masks[index], num_points))
        else:
            followed.add(frame_idx, obj_id, mask=masks[index])
    objects = cast(sv.Detections, detections[kept])
    objects.tracker_id = np.arange(1, len(kept) + 1)
    return objects


def follow_newest_frame(stream: FollowedStream, objects: sv.Detections) -> sv.Detections:
    """Follow objects onto the newest frame of a stream.

    Args:
        stream: after `append`, and after `add_objects` where that is done on this frame.
        objects: what `add_objects` returned; with N = 0 nothing is followed.

    Returns:
        As `objects_in_sight`.
    """
    if len(objects) == 0:
        return no_objects(stream.size)
    return objects_in_sight(stream.step(), objects)


def objects_in_sight(seen: Seen, objects: sv.Detections) -> sv.Detections:
    """Put what is seen on one frame in the common currency.

    Args:
        seen: of M objects.
        objects: the detections the objects were made from; each lends its object its class and confidence.

    Returns:
        The objects with a mask on this frame: `mask` (N, H, W), `xyxy` (N, 4) float32 around it, `tracker_id`, that is
        the object id, `class_id` and `confidence` of the detection, `data` with `class_name`, `object_score` and, where
        the model predicts it, `mask_score`.
    """
    assert objects.tracker_id is not None and objects.confidence is not None and objects.class_id is not None
    in_sight = np.flatnonzero(seen.masks.any(axis=(1, 2)))
    if len(in_sight) == 0:
        return no_objects((seen.masks.shape[2], seen.masks.shape[1]))
    obj_ids = [seen.obj_ids[index] for index in in_sight]
    row_of = {obj_id: row for row, obj_id in enumerate(objects.tracker_id.tolist())}
    rows = np.array([row_of[obj_id] for obj_id in obj_ids])
    return make_tracked_detections(
        obj_ids,
        seen.masks[in_sight],
        seen.scores(),
        confidence=objects.confidence[rows],
        class_id=objects.class_id[rows],
        class_name=np.asarray(objects.data["class_name"])[rows],
    )


def make_tracked_detections(
    obj_ids: Sequence[int],
    masks: Masks,
    scores: dict[int, Scores],
    *,
    confidence: npt.ArrayLike,
    class_id: npt.ArrayLike,
    class_name: npt.ArrayLike,
) -> sv.Detections:
    """N ≥ 1 objects that are seen on a frame, in the common currency.

    Args:
        obj_ids: N object ids.
        masks: (N, H, W) bool, none of them empty.
        scores: those of each object, by id, see `Seen.scores`.
        confidence: (N,) of the detector.
        class_id: (N,) index of the phrase.
        class_name: (N,) the phrase.
    """
    mask_scores, object_scores = zip(*(scores[obj_id] for obj_id in obj_ids), strict=True)
    columns: dict[str, npt.NDArray[np.generic] | list[Any]] = {"class_name": np.asarray(class_name, dtype=np.str_)}
    if None not in mask_scores:
        columns["mask_score"] = np.array(mask_scores, dtype=np.float32)
    columns["object_score"] = np.array(object_scores, dtype=np.float32)
    return sv.Detections(
        xyxy=boxes_around(masks),
        mask=masks,
        confidence=np.asarray(confidence, dtype=np.float32),
        class_id=np.asarray(class_id, dtype=np.int64),
        tracker_id=np.asarray(obj_ids, dtype=np.int64),
        data=columns,
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


def pack_objects(objects: sv.Detections) -> dict[str, Any]:
    """N ≥ 0 objects of one frame as plain values, their masks run-length encoded; inverse of `unpack_objects`."""
    assert objects.confidence is not None and objects.class_id is not None and objects.tracker_id is not None
    masks = None if objects.mask is None else np.asarray(objects.mask, dtype=bool)
    return {
        "xyxy": objects.xyxy.tolist(),
        "segmentations": None if masks is None else encode_rle(masks) if len(masks) else [],
        "confidence": objects.confidence.tolist(),
        "class_id": objects.class_id.tolist(),
        "obj_ids": objects.tracker_id.tolist(),
        "class_names": [str(name) for name in objects.data["class_name"]],
        "scores": {name: np.asarray(objects.data[name]).tolist() for name in SCORES if name in objects.data},
    }


def unpack_objects(packed: dict[str, Any], size: tuple[int, int]) -> sv.Detections:
    """The objects that `pack_objects` was given, equal in every number; `size`: (width, height) of the frame."""
    width, height = size
    segmentations = packed["segmentations"]
    mask = None
    if segmentations is not None:
        mask = decode_rle(segmentations) if segmentations else np.zeros((0, height, width), dtype=bool)
    scores = {name: np.array(column, dtype=np.float32) for name, column in packed["scores"].items()}
    return sv.Detections(
        xyxy=np.array(packed["xyxy"], dtype=np.float32).reshape(-1, 4),
        mask=mask,
        confidence=np.array(packed["confidence"], dtype=np.float32),
        class_id=np.array(packed["class_id"], dtype=np.int64),
        tracker_id=np.array(packed["obj_ids"], dtype=np.int64),
        data={"class_name": np.array(packed["class_names"], dtype=np.str_), **scores},
    )
