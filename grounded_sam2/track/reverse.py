"""Follow objects that were found late, or found again late, back to where they appear: one pass from end to start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import supervision as sv

from grounded_sam2.export.annotations import FrameAnnotations
from grounded_sam2.masks import mask_overlaps
from grounded_sam2.track.follower import Follower, as_follower
from grounded_sam2.track.tracking import make_tracked_detections
from grounded_sam2.video.frame_source import IndexedFrameSource

if TYPE_CHECKING:
    from sam2.sam2_video_predictor import SAM2VideoPredictor


@dataclass
class _Followed:
    """An object on its way back, and what it is seen to be.

    Attributes:
        confidence: of the detector, on the frame on which it was found.
        class_id: likewise.
        class_name: likewise.
        unseen_frames: for how many frames in a row it has not been seen.
        joining: the id of the object of the forward pass that it was on the frame before.
        joined_frames: for how many frames in a row.
    """

    confidence: float
    class_id: int
    class_name: str
    unseen_frames: int = 0
    joining: int | None = None
    joined_frames: int = 0


class ReverseTracker:
    """Extends tracks backwards, before the frames on which an object was first found, or found again.

        tracker = ReverseTracker(predictor, FrameAnnotations("forward.jsonl"))
        for frame_idx, objects in tracker.run(frames):      # from the last such frame to the first
            ...
        tracker.renamed                                      # {5: 2}: object 5 is object 2, which had been lost

    All objects go back in one pass; each stops where it is not seen any more, where it was last seen before it was
    found again, or where it is seen to be an object that was followed before. If that one was not seen again after
    that, both are one object, which keeps the older id.

    Args:
        predictor: follows the objects; see `grounded_sam2.track.follower.as_follower`.
        annotations: what the forward pass wrote, with masks, ids and classes.
        patience: frames without a sighting after which an object is not followed further back.
        join_iou: mask IoU, in [0, 1], with an object of the same phrase from which on both are seen as one.
        join_frames: frames in a row on which that must hold.
        taken_iou: mask IoU with an object of another phrase from which an object cannot be there and is not seen.

    Attributes:
        renamed: later id → older id, which may itself be renamed; complete once `run` has ended.
    """

    def __init__(
        self,
        predictor: Follower | SAM2VideoPredictor,
        annotations: FrameAnnotations,
        *,
        patience: int = 10,
        join_iou: float = 0.7,
        join_frames: int = 3,
        taken_iou: float = 0.5,
    ) -> None:
        self.annotations = annotations
        self.patience = patience
        self.join_iou = join_iou
        self.join_frames = join_frames
        self.taken_iou = taken_iou
        self.renamed: dict[int, int] = {}
        self._first_frame: dict[int, int] = {}
        self._last_frame: dict[int, int] = {}
        self._begin_on: dict[int, list[int]] = {}
        on_frame_before: tuple[int, ...] = ()
        for frame_idx in sorted(annotations):
            on_frame = annotations.obj_ids(frame_idx)
            for obj_id in on_frame:
                self._first_frame.setdefault(obj_id, frame_idx)
                self._last_frame[obj_id] = frame_idx
            beginning = [obj_id for obj_id in on_frame if obj_id not in on_frame_before]
            if frame_idx > 0 and beginning:
                self._begin_on[frame_idx] = beginning
            on_frame_before = on_frame
        self._next_frame_idx = max(self._begin_on, default=-1)
        self._follower = as_follower(predictor)
        self._stream = self._follower.open_stream()
        self._followed: dict[int, _Followed] = {}

    def save(self) -> dict[str, Any]:
        """All that the frames before build on, as tensors and plain values; to be called between two frames of `run`.

        See `restore`.
        """
        return {
            "stream": self._stream.save(),
            "followed": {obj_id: asdict(going) for obj_id, going in self._followed.items()},
            "renamed": self.renamed,
            "next_frame_idx": self._next_frame_idx,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Let `run` go on where a tracker over the same annotations was saved."""
        self._stream = self._follower.load_stream(saved["stream"])
        self._followed = {obj_id: _Followed(**going) for obj_id, going in saved["followed"].items()}
        self.renamed = saved["renamed"]
        self._next_frame_idx = saved["next_frame_idx"]

    def run(self, frames: IndexedFrameSource) -> Iterator[tuple[int, sv.Detections]]:
        """Go back through the video.

        Args:
            frames: the video that the annotations are of, which can be read in any order.

        Yields:
            Frame index, and the objects that the forward pass had not found there yet, as `ContinuousTracker.step`
            gives them; frames without any are left out. Ids are those of the forward pass: see `renamed`.
        """
        while self._next_frame_idx >= 0:
            frame_idx = self._next_frame_idx
            objects = None
            if self._followed or frame_idx in self._begin_on:
                objects = self._step(frame_idx, frames[frame_idx])
            self._next_frame_idx -= 1
            if objects is not None:
                yield frame_idx, objects

    def _step(self, frame_idx: int, image: npt.NDArray[np.uint8]) -> sv.Detections | None:
        """Follow onto one frame, and take up the objects that were first found on it; None when nothing is seen."""
        stream_idx = self._stream.append(image)
        forward = self.annotations[frame_idx].detections
        objects = self._follow(forward) if self._followed else None
        for obj_id in self._begin_on.get(frame_idx, ()):
            assert forward.tracker_id is not None and forward.mask is not None
            assert forward.confidence is not None and forward.class_id is not None
            row = forward.tracker_id.tolist().index(obj_id)
            class_name = str(forward.data["class_name"][row])
            self._followed[obj_id] = _Followed(float(forward.confidence[row]), int(forward.class_id[row]), class_name)
            self._stream.add(stream_idx, obj_id, mask=np.asarray(forward.mask[row]))
        return objects

    def _follow(self, forward: sv.Detections) -> sv.Detections | None:
        """Step onto one frame; lets go of what goes no further back, and returns what was found, None for nothing."""
        seen = self._stream.step()
        obj_ids, masks, scores = seen.obj_ids, seen.masks, seen.scores()
        found: list[int] = []
        on_frame = [] if forward.tracker_id is None else forward.tracker_id.tolist()
        for row, obj_id in enumerate(obj_ids):
            if obj_id in on_frame:
                del self._followed[obj_id]
                continue
            going = self._followed[obj_id]
            same, is_taken = self._object_there(masks[row], going, forward)
            is_seen = masks[row].any() and scores[obj_id][1] > 0 and not is_taken
            going.unseen_frames = 0 if is_seen else going.unseen_frames + 1
            other = same if is_seen else None
            going.joined_frames = going.joined_frames + 1 if other is not None and other == going.joining else 1
            going.joining = other
            if other is not None and going.joined_frames >= self.join_frames:
                if self._last_frame[other] < self._first_frame[obj_id]:
                    self.renamed[obj_id] = other
                del self._followed[obj_id]
            elif going.unseen_frames > self.patience:
                del self._followed[obj_id]
            elif is_seen and other is None:
                found.append(row)
        for obj_id in obj_ids:
            if obj_id not in self._followed:
                self._stream.remove(obj_id)
        if not found:
            return None
        objects = [self._followed[obj_ids[row]] for row in found]
        return make_tracked_detections(
            [obj_ids[row] for row in found],
            masks[found],
            scores,
            confidence=[going.confidence for going in objects],
            class_id=[going.class_id for going in objects],
            class_name=[going.class_name for going in objects],
        )

    def _object_there(
        self, mask: npt.NDArray[np.bool_], going: _Followed, forward: sv.Detections
    ) -> tuple[int | None, bool]:
        """The object of the forward pass, of the same phrase, that a mask lies on; whether one of another phrase is."""
        if len(forward) == 0 or forward.mask is None or forward.class_id is None or forward.tracker_id is None:
            return None, False
        ious = mask_overlaps([mask], list(np.asarray(forward.mask)))[0][0]
        is_same = forward.class_id == going.class_id
        best = int(np.where(is_same, ious, -1.0).argmax())
        same = int(forward.tracker_id[best]) if is_same[best] and ious[best] >= self.join_iou else None
        return same, bool((ious[~is_same] >= self.taken_iou).any())


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
