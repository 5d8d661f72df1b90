"""All of a run: objects followed forwards, and in a video then back over the frames before they were found."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import supervision as sv

from grounded_sam2.export.annotations import FrameAnnotationWriter
from grounded_sam2.images import RGBImage
from grounded_sam2.outputs import TrackingOutputs
from grounded_sam2.owned import OutputFiles
from grounded_sam2.script import StoppableFrames, StopRequest
from grounded_sam2.track.follower import Follower
from grounded_sam2.track.resume import SavedRun
from grounded_sam2.track.reverse import ReverseTracker, merged
from grounded_sam2.track.steering import SteeredTracker

if TYPE_CHECKING:
    from sam2.sam2_video_predictor import SAM2VideoPredictor

__all__ = ["follow_through"]

logger = logging.getLogger(__name__)


def follow_through(
    tracker: SteeredTracker,
    images: StoppableFrames[RGBImage],
    saved: SavedRun,
    outputs: TrackingOutputs,
    files: OutputFiles,
    stop: StopRequest,
    *,
    backward_with: Follower | SAM2VideoPredictor | None = None,
    progress: Callable[..., Any] = lambda items, **about: items,
) -> Iterator[tuple[int, RGBImage, sv.Detections]]:
    """Follow objects through all frames, and write the lines of the annotations and of the events.

    Without a way back each frame is given as soon as it is followed. With one, frames are followed to the end first,
    their lines in `<name>_forward.jsonl`; then objects that were found, or found again, late are followed back, into
    `<name>_backward.jsonl`; then each frame is given with what both have found. A person who ends the run early gets
    all of that for the frames so far. Cameras and live streams have no way back, which is logged.

    Args:
        tracker: newly made.
        images: all frames from the first one on.
        saved: of this run, which may go on where an interrupted one stopped.
        outputs: of this run; its pictures are the caller's to write, with `write_picture`.
        files: names the lines of both ways.
        stop: ends the way back between two frames.
        backward_with: follows objects back; None: nothing does.
        progress: shows how far what it is given has got, with `desc` for a name; such as `tqdm`.

    Yields:
        Frame index, frame and objects, in order, each frame once.
    """
    frames = saved.indexed_frames
    if backward_with is not None and frames is None:
        logger.warning("a live source is followed forwards only: what was before an object was found is gone")
    if backward_with is None or frames is None:
        for followed in saved.follow(tracker, progress(images), outputs.annotations, outputs.event_log):
            yield followed
            if tracker.has_quit:
                saved.give_up()
                return
        return
    with (
        FrameAnnotationWriter(files.path("_forward.jsonl"), outputs.header) as forward_lines,
        FrameAnnotationWriter(files.path("_backward.jsonl"), outputs.header) as backward_lines,
    ):
        for _ in saved.follow(tracker, progress(images, desc="forwards"), forward_lines, outputs.event_log):
            if tracker.has_quit:
                saved.give_up()
                break
        with forward_lines.read() as forward:
            back = ReverseTracker(backward_with, forward)
            saved.follow_back(back, progress(stop.guard(back.run(frames)), desc="backwards"), backward_lines)
            with backward_lines.read() as backward:
                for frame_idx, image in zip(range(len(forward)), progress(images, desc="writing"), strict=False):
                    earlier = backward[frame_idx].detections if frame_idx in backward else None
                    objects = merged(forward[frame_idx].detections, earlier, back.renamed)
                    outputs.annotations.write(frame_idx, objects, frames.image_path(frame_idx))
                    yield frame_idx, image, objects
