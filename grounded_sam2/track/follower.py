"""What tracking asks of a video model: any model that follows objects from frame to frame plugs in here.

Nothing here or in the code that speaks to these protocols needs torch: frames, boxes, masks and scores are NumPy
arrays. `grounded_sam2.track.sam2_follower` is the adapter over this repository's SAM 2.

A model of another kind is adapted by a class with these methods; what it does not have, it leaves out:

- no quality of masks: `mask_scores` is None, and the objects that are written have no `mask_score`;
- no score of an object's presence: any positive `object_scores` for a mask with pixels, any negative one without;
- no descriptors of looks: `descriptors` is None; objects are found again by their colours, or what else
  `grounded_sam2.track.looks` has;
- no masks from boxes (a model that only carries masks from frame to frame): its adapter is given a model of images
  that makes them, and `add` with a box or points adds that model's mask;
- no way to take one frame out of its memory: `forget` does nothing;
- no way to mend a memory: `correct` removes the object, and adds it anew with the mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from grounded_sam2.images import RGBImage
from grounded_sam2.track.seen import Proposed, Scores, Seen
from grounded_sam2.video.frame_source import IndexedFrameSource

if TYPE_CHECKING:
    from sam2.sam2_video_predictor import SAM2VideoPredictor

__all__ = ["Followed", "FollowedStream", "FollowedVideo", "Follower", "Proposed", "Scores", "Seen", "as_follower"]


class Followed(Protocol):
    """Objects that are followed through one video or one stream.

    An object is added, refined, corrected and removed without a change to any other one. In a stream, `frame_idx` is
    always the newest frame's; any other one is a ValueError.
    """

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the frames in pixels; (0, 0) for a stream that has had none."""

    @property
    def obj_ids(self) -> list[int]:
        """Ids of the objects that are followed, in the order in which they are seen."""

    def propose(self, frame_idx: int, boxes: npt.NDArray[np.number]) -> Proposed:
        """What `add` with each of these boxes would see, without any object being made.

        The frame is encoded once for this and for following.

        Args:
            frame_idx: 0-based.
            boxes: (N, 4) xyxy in pixels; N = 0 is fine.
        """

    def add(
        self,
        frame_idx: int,
        obj_id: int,
        *,
        box: npt.NDArray[np.number] | None = None,
        points: npt.NDArray[np.number] | None = None,
        labels: npt.NDArray[np.integer] | None = None,
        mask: npt.NDArray[np.bool_] | None = None,
    ) -> Seen:
        """Say where an object is on a frame: a new one, or a known one on a further frame, or anew on the same.

        Args:
            frame_idx: 0-based.
            obj_id: at least 1, chosen by the caller.
            box: (4,) xyxy in pixels; may have points beside it.
            points: (P, 2) xy in pixels.
            labels: (P,) 1 on the object, 0 beside it; None: all are on it.
            mask: (H, W), by itself.

        Returns:
            What is now seen of this one object.

        Raises:
            ValueError: neither or both of a mask and a box or points; or arrays of other shapes.
        """

    def refine(
        self, frame_idx: int, obj_id: int, points: npt.NDArray[np.number], labels: npt.NDArray[np.integer]
    ) -> Seen:
        """Add points to what a known object has on a frame: its prompts there, or else the mask that was tracked.

        The correction sticks: later tracking over the frame does not change its mask.

        Arguments and result are those of `add`.

        Raises:
            ValueError: no such object, or as in `add`.
        """

    def correct(self, frame_idx: int, obj_id: int, mask: npt.NDArray[np.bool_]) -> Seen:
        """Put a known object right that was followed wrongly: what was tracked since it was added is not trusted.

        Args:
            frame_idx: 0-based.
            obj_id: of an object that has been followed onto the frame.
            mask: (H, W), the truth there.

        Returns:
            What is now seen of this one object.

        Raises:
            ValueError: no such object, or a mask of another shape.
        """

    def exchange(self, obj_id: int, other_id: int) -> None:
        """Let two objects change over: each is followed on, and has its memory, as the other one was.

        Raises:
            ValueError: no such object.
        """

    def forget(self, frame_idx: int, obj_ids: Sequence[int]) -> None:
        """Leave what was tracked on a frame, and is doubtful, out of these objects' memories; prompts stay."""

    def remove(self, obj_id: int) -> None:
        """Follow an object no longer; does nothing for one that is not followed."""


class FollowedStream(Followed, Protocol):
    """A stream: frames are appended one by one, and only the newest is at hand."""

    def append(self, image: RGBImage) -> int:
        """Make an image the newest frame.

        Args:
            image: (H, W, 3) uint8 RGB, of the same size as the frames before.

        Returns:
            Its 0-based index.

        Raises:
            ValueError: not such an image.
        """

    def step(self) -> Seen:
        """Follow all objects onto the newest frame; to be called once a frame, before or after prompts on it.

        Raises:
            RuntimeError: no frame has been appended.
        """

    def save(self) -> dict[str, Any]:
        """What `Follower.load_stream` needs to go on behind the newest frame, as tensors and plain values.

        It has to be what `torch.load(..., weights_only=True)` reads back, and may not grow with the stream's length.
        """


class FollowedVideo(Followed, Protocol):
    """A video whose frames can be read in any order."""

    @property
    def num_frames(self) -> int:
        """How many frames it has."""

    def follow(self, frame_idx: int, reverse: bool = False) -> Iterator[tuple[int, Seen]]:
        """Follow all objects from one frame on.

        Between two frames objects may be added, on any frame, and removed: the next frame has them as they are then.

        Args:
            frame_idx: the first frame, 0-based.
            reverse: towards frame 0 instead of the last one.

        Yields:
            Frame index and what is seen, `frame_idx` included, but nothing at all for a way back from frame 0.

        Raises:
            RuntimeError: there is no object.
        """

    def save(self) -> dict[str, Any]:
        """All that is known of the video but its frames, for `Follower.load_video`; of the same kind as a stream's."""


@runtime_checkable
class Follower(Protocol):
    """A video model that follows objects through any number of videos and streams, each by itself."""

    def open_stream(self, num_frames: int | None = None) -> FollowedStream:
        """A stream with no frame yet.

        Args:
            num_frames: how many it will have, if that is known; a model may do without.
        """

    def open_video(self, frames: IndexedFrameSource) -> FollowedVideo:
        """A video with no object yet.

        Raises:
            ValueError: it has no frames.
        """

    def load_stream(self, saved: dict[str, Any]) -> FollowedStream:
        """A stream that waits for the frame after the one on which `FollowedStream.save` was called.

        Args:
            saved: what that returned, on any device.
        """

    def load_video(self, saved: dict[str, Any], frames: IndexedFrameSource) -> FollowedVideo:
        """A video as it was when `FollowedVideo.save` was called.

        Args:
            saved: what that returned, on any device.
            frames: the same video.

        Raises:
            ValueError: a video of another size or length.
        """


def as_follower(model: Follower | SAM2VideoPredictor) -> Follower:
    """A follower as it is, and a SAM 2 video predictor as one."""
    if isinstance(model, Follower):
        return model
    from grounded_sam2.track.sam2_follower import Sam2Follower  # other followers need no torch

    return Sam2Follower(model)
