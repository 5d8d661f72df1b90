"""Other trackers for identity.py: BoT-SORT and McByte of PyPI's `trackers`, as `make references` installs it.

They match boxes to boxes and report nothing on a frame on which the detector has not looked, so they are at home where
it looks at every frame (`--every 1`). The mask of a box is what our SAM 2 makes of it, the same for every method.
McByte's own masks are those of SAM and Cutie; here our SAM 2 stands for both, from a tracklet's box to its mask and on
from frame to frame.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import supervision as sv

from sam2.sam2_video_predictor import SAM2VideoPredictor

FOLDER = Path(__file__).resolve().parents[1] / ".references" / "trackers"
FRAME_RATE = 30.0

Tracked = tuple[np.ndarray, np.ndarray]  # ids (N,), masks (N, H, W) bool, of one frame


def boxes_to_masks(predictor: SAM2VideoPredictor, image: np.ndarray, boxes_xyxy: np.ndarray) -> np.ndarray:
    """Masks (N, H, W) bool of boxes (N, 4) in pixels on an image (H, W, 3) RGB uint8."""
    if not len(boxes_xyxy):
        return np.zeros((0, *image.shape[:2]), bool)
    state = predictor.init_stream()
    logits, _, _ = predictor.segment_boxes(state, predictor.append_frame(state, image), boxes_xyxy)
    return (logits[:, 0] > 0).cpu().numpy()


class Masks:
    """What McByte asks of a `MaskGenerator` and of a `MaskPropagator`, answered by one stream of SAM 2."""

    def __init__(self, predictor: SAM2VideoPredictor) -> None:
        from trackers.core.mcbyte.masks.base import MaskOutput

        self.predictor = predictor
        self.make_output = MaskOutput
        self.reset()

    def reset(self) -> None:
        self.state = self.predictor.init_stream()

    def generate(self, frame: np.ndarray, tracklets: Sequence[Any]) -> Any:
        masks = boxes_to_masks(self.predictor, frame, np.array([tracklet.xyxy for tracklet in tracklets]))
        return self.make_output(masks, {tracklet.tracker_id: row for row, tracklet in enumerate(tracklets)})

    def initialize(self, frame: np.ndarray, mask_output: Any) -> None:
        self.reset()
        self.predictor.append_frame(self.state, frame)
        self.add_masks(frame, mask_output)

    def add_masks(self, frame: np.ndarray, mask_output: Any) -> None:
        """Masks on the newest frame of the stream, which is `frame`."""
        for tracker_id, row in mask_output.tracklet_mask_dict.items():
            if mask_output.masks[row].any():
                self.predictor.add_new_mask(self.state, self.state.newest_frame_idx, tracker_id, mask_output.masks[row])

    def remove_masks(self, tracklet_ids: Sequence[int]) -> None:
        for tracker_id in tracklet_ids:
            self.predictor.remove_object(self.state, tracker_id, need_output=False)

    def propagate(self, frame: np.ndarray) -> Any:
        self.predictor.append_frame(self.state, frame)
        ids, logits = self.predictor.step(self.state)
        logits = logits[:, 0]
        masks = logits > 0
        sureness = (logits.sigmoid() * masks).sum((1, 2)) / masks.sum((1, 2)).clamp(min=1)
        return self.make_output(
            masks.cpu().numpy(),
            {obj_id: row for row, obj_id in enumerate(ids)},
            dict(zip(ids, sureness.tolist(), strict=True)),
        )


def make_tracker(name: str, predictor: SAM2VideoPredictor) -> Any:
    """A tracker of `trackers` by name, "botsort" or "mcbyte", with the settings it comes with."""
    if not FOLDER.is_dir():
        raise SystemExit(f"{FOLDER} is not there: run `make references`")
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    from trackers.core.botsort.tracker import BoTSORTTracker
    from trackers.core.mcbyte.mask_manager import MaskManager
    from trackers.core.mcbyte.tracker import McByteTracker

    if name == "botsort":
        return BoTSORTTracker(frame_rate=FRAME_RATE)
    masks = Masks(predictor)
    return McByteTracker(frame_rate=FRAME_RATE, mask_manager=MaskManager(masks, masks))


def track_boxes(
    name: str, predictor: SAM2VideoPredictor, images: Sequence[np.ndarray], looks: Iterator[sv.Detections]
) -> Iterator[Tracked]:
    """Ids and masks of every frame.

    Args:
        name: see `make_tracker`.
        images: (H, W, 3) RGB uint8.
        looks: what was detected on each of them; nothing where the detector has not looked.
    """
    tracker = make_tracker(name, predictor)
    for image, detections in zip(images, looks, strict=True):
        given = sv.Detections(detections.xyxy, confidence=detections.confidence, class_id=detections.class_id)
        # BoT-SORT takes a frame as BGR, McByte as RGB
        tracked = tracker.update(given, image if name == "mcbyte" else np.ascontiguousarray(image[..., ::-1]))
        ids = np.zeros(0, np.int64) if tracked.tracker_id is None else np.asarray(tracked.tracker_id)
        known = np.flatnonzero(ids >= 0)
        yield ids[known], boxes_to_masks(predictor, image, tracked.xyxy[known])
