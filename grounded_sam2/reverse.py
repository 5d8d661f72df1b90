"""Follow objects that were found late back to where they first appear, in one pass over the video from end to start."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import supervision as sv

from grounded_sam2.export import FrameAnnotations
from grounded_sam2.frame_source import IndexedFrameSource
from grounded_sam2.identity import mask_overlaps
from grounded_sam2.tracking import boxes_around, no_objects
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.video_state import InferenceState


@dataclass
class _Followed:
    """An object on its way back, and what it is seen to be.

    Attributes:
        origin: the frame on which it was found.
        row: its row there.
        unseen_frames: for how many frames in a row it has not been seen.
        joining: the id of the object of the forward pass that it was on the frame before.
        joined_frames: for how many frames in a row.
    """

    origin: sv.Detections
    row: int
    unseen_frames: int = 0
    joining: int | None = None
    joined_frames: int = 0

    @property
    def class_id(self) -> int:
        assert self.origin.class_id is not None
        return int(self.origin.class_id[self.row])


class ReverseTracker:
    """Extends tracks backwards, before the frame on which each was first found.

        tracker = ReverseTracker(predictor, FrameAnnotations("forward.jsonl"))
        for frame_idx, objects in tracker.run(frames):      # from the last such frame to the first
            ...
        tracker.renamed                                      # {5: 2}: object 5 is object 2, which had been lost

    All objects go back in one pass; each stops where it is not seen any more, or where it is seen to be an object that
    was followed before. If that one was not seen again after that, both are one object, which keeps the older id.

    Args:
        predictor: follows the objects.
        annotations: what the forward pass wrote, with masks, ids and classes.
        patience: frames without a sighting after which an object is not followed further back.
        join_iou: mask IoU, in [0, 1], with an object of the same phrase from which on both are seen as one.
        join_frames: frames in a row on which that must hold.

    Attributes:
        renamed: later id → older id, which may itself be renamed; complete once `run` has ended.
    """

    def __init__(
        self,
        predictor: SAM2VideoPredictor,
        annotations: FrameAnnotations,
        *,
        patience: int = 10,
        join_iou: float = 0.7,
        join_frames: int = 3,
    ) -> None:
        self.predictor = predictor
        self.annotations = annotations
        self.patience = patience
        self.join_iou = join_iou
        self.join_frames = join_frames
        self.renamed: dict[int, int] = {}
        self._first_frame: dict[int, int] = {}
        self._last_frame: dict[int, int] = {}
        for frame_idx in sorted(annotations):
            obj_ids = annotations[frame_idx].detections.tracker_id
            for obj_id in [] if obj_ids is None else obj_ids.tolist():
                self._first_frame.setdefault(obj_id, frame_idx)
                self._last_frame[obj_id] = frame_idx

    def run(self, frames: IndexedFrameSource) -> Iterator[tuple[int, sv.Detections]]:
        """Go back through the video.

        Args:
            frames: the video that the annotations are of, which can be read in any order.

        Yields:
            Frame index, and the objects that the forward pass had not found there yet, as `ContinuousTracker.step`
            gives them; frames without any are left out. Ids are those of the forward pass: see `renamed`.
        """
        begin_on: dict[int, list[int]] = defaultdict(list)
        for obj_id, frame_idx in self._first_frame.items():
            if frame_idx > 0:
                begin_on[frame_idx].append(obj_id)
        state = self.predictor.init_stream()
        followed: dict[int, _Followed] = {}
        for frame_idx in range(max(begin_on, default=-1), -1, -1):
            if not followed and frame_idx not in begin_on:
                continue
            stream_idx = self.predictor.append_frame(state, frames[frame_idx])
            forward = self.annotations[frame_idx].detections
            if followed:
                objects = self._follow(state, stream_idx, followed, forward)
                if len(objects) > 0:
                    yield frame_idx, objects
            for obj_id in begin_on.get(frame_idx, ()):
                assert forward.tracker_id is not None and forward.mask is not None
                row = forward.tracker_id.tolist().index(obj_id)
                followed[obj_id] = _Followed(forward, row)
                self.predictor.add_new_mask(state, stream_idx, obj_id, np.asarray(forward.mask[row]))

    def _follow(
        self,
        state: InferenceState,
        stream_idx: int,
        followed: dict[int, _Followed],
        forward: sv.Detections,
    ) -> sv.Detections:
        """Step onto one frame; drops from `followed` what goes no further back, and returns what was found."""
        obj_ids, mask_logits = self.predictor.step(state)
        masks = (mask_logits[:, 0] > 0).cpu().numpy()  # (N, 1, H, W) → (N, H, W)
        scores = self.predictor.frame_scores(state, stream_idx)
        found: list[int] = []
        for row, obj_id in enumerate(obj_ids):
            going = followed[obj_id]
            is_seen = masks[row].any() and scores[obj_id][1] > 0
            going.unseen_frames = 0 if is_seen else going.unseen_frames + 1
            other = self._same_object(masks[row], going, forward) if is_seen else None
            going.joined_frames = going.joined_frames + 1 if other is not None and other == going.joining else 1
            going.joining = other
            if other is not None and going.joined_frames >= self.join_frames:
                if self._last_frame[other] < self._first_frame[obj_id]:
                    self.renamed[obj_id] = other
                del followed[obj_id]
            elif going.unseen_frames > self.patience:
                del followed[obj_id]
            elif is_seen and other is None:
                found.append(row)
        for obj_id in obj_ids:
            if obj_id not in followed:
                self.predictor.remove_object(state, obj_id, need_output=False)
        kept = [row for row in found if obj_ids[row] in followed]
        if not kept:
            return no_objects((state.video_width, state.video_height))
        objects = _as_found([followed[obj_ids[row]] for row in kept], masks[kept])
        objects.data["mask_score"] = np.array([scores[obj_ids[row]][0] for row in kept], dtype=np.float32)
        return objects

    def _same_object(self, mask: npt.NDArray[np.bool_], going: _Followed, forward: sv.Detections) -> int | None:
        """The object of the forward pass, of the same phrase, that a mask lies on."""
        if len(forward) == 0 or forward.mask is None or forward.class_id is None or forward.tracker_id is None:
            return None
        ious = mask_overlaps([mask], list(np.asarray(forward.mask)))[0][0]
        ious = np.where(forward.class_id == going.class_id, ious, 0.0)
        best = int(ious.argmax())
        return int(forward.tracker_id[best]) if ious[best] >= self.join_iou else None


def _as_found(followed: list[_Followed], masks: npt.NDArray[np.bool_]) -> sv.Detections:
    """Objects with new masks (N, H, W), and the id, class and confidence with which each was first found; N ≥ 1."""
    origins = [cast(sv.Detections, going.origin[[going.row]]) for going in followed]
    objects = sv.Detections.merge([_without_mask(origin) for origin in origins])
    objects.mask = masks
    objects.xyxy = boxes_around(masks)
    return objects


def _without_mask(detections: sv.Detections) -> sv.Detections:
    return sv.Detections(
        xyxy=detections.xyxy,
        confidence=detections.confidence,
        class_id=detections.class_id,
        tracker_id=detections.tracker_id,
        data={"class_name": detections.data["class_name"]},
    )


def merged(forward: sv.Detections, backward: sv.Detections | None, renamed: dict[int, int]) -> sv.Detections:
    """One frame's objects of both passes under their final ids.

    Args:
        forward: the frame of the forward pass.
        backward: the same frame of `ReverseTracker.run`; None where there is none.
        renamed: `ReverseTracker.renamed`.
    """
    parts = [part for part in (forward, backward) if part is not None and len(part) > 0]
    if not parts:
        return forward
    columns = set.intersection(*(set(part.data) for part in parts))
    for part in parts:
        part.data = {name: column for name, column in part.data.items() if name in columns}
    objects = parts[0] if len(parts) == 1 else sv.Detections.merge(parts)
    assert objects.tracker_id is not None
    objects.tracker_id = np.array([_final_id(obj_id, renamed) for obj_id in objects.tracker_id.tolist()])
    first_rows = np.unique(objects.tracker_id, return_index=True)[1]  # one object may not be on a frame twice
    return cast(sv.Detections, objects[np.sort(first_rows)])


def _final_id(obj_id: int, renamed: dict[int, int]) -> int:
    while obj_id in renamed:
        obj_id = renamed[obj_id]
    return obj_id
