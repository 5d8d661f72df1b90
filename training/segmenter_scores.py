"""How well a SAM 2 segments and tracks on held-out scenes, through the public predictors."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from grounded_sam2.masks import mask_iou
from grounded_sam2.score.boundary import boundary_f
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from training.photos import Clip, Photo, mask_box
from training.scenes import Scene, make_clip, make_scene

FIRST_TEST_SEED = 5_000  # held-out seeds below serve for choosing, those from here on for reporting
MIN_PIXELS = 40  # of an object that is prompted
CLIP_FRAMES = 40  # paths are laid out over a clip of this length; shorter tests take frames from its middle


def prompted_ious(
    predictor: SAM2ImagePredictor, seeds: Sequence[int], styles: Sequence[str], prompt: str = "box"
) -> np.ndarray:
    """IoU of every object of some held-out scenes; `prompt` as in `masks_iou`."""
    scenes = (make_scene(seed, split="heldout", styles=styles) for seed in seeds)
    return np.concatenate([masks_iou(predictor, scene.image, list(scene.masks), prompt) for scene in scenes])


def photo_ious(predictor: SAM2ImagePredictor, photos: Sequence[Photo], prompt: str = "box") -> np.ndarray:
    """IoU of every masked object of some photographs, crowds left out; `prompt` as in `masks_iou`."""
    ious = [np.zeros(0)]
    for photo in photos:
        masks = [photo.mask(index) for index in range(len(photo.names)) if not photo.crowd[index]]
        ious.append(masks_iou(predictor, photo.image, [mask for mask in masks if mask is not None], prompt))
    return np.concatenate(ious)


def masks_iou(predictor: SAM2ImagePredictor, image: np.ndarray, masks: list[np.ndarray], prompt: str) -> np.ndarray:
    """IoU of each object's answer with its true mask; objects below `MIN_PIXELS` are left out.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: (H, W) bool each.
        prompt: "box", the box around the mask; "point", the object's innermost pixel, answered by the best-scored of
            three candidates.
    """
    masks = [mask for mask in masks if mask.sum() >= MIN_PIXELS]
    if not masks:
        return np.zeros(0)
    predictor.set_image(image)
    ious = []
    for mask in masks:
        if prompt == "box":
            answers, scores, _ = predictor.predict(box=mask_box(mask), multimask_output=False)
        else:
            depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
            point = np.array([np.unravel_index(depth.argmax(), depth.shape)[::-1]], np.float32)
            answers, scores, _ = predictor.predict(point, np.array([1]), multimask_output=True)
        ious.append(mask_iou(answers[int(np.argmax(scores))] > 0, mask))
    return np.array(ious)


def clip_region_and_boundary(predictor: SAM2VideoPredictor, clip: Clip, prompt: str) -> tuple[float, float]:
    """J and F of a real clip's object; see `track_clip` and `region_and_boundary`."""
    return region_and_boundary(track_clip(predictor, clip, prompt), clip)


def track_clip(predictor: SAM2VideoPredictor, clip: Clip, prompt: str) -> list[np.ndarray]:
    """Follow a real clip's object: its masks (H, W) bool on all frames.

    Args:
        prompt: "mask", the true mask of the first frame, or "box", the box around it.
    """
    state = predictor.init_state([clip.frame(index) for index in range(len(clip))])
    first = clip.mask(0)
    if prompt == "mask":
        predictor.add_new_mask(state, 0, 1, first)
    else:
        predictor.add_new_points_or_box(state, 0, 1, box=mask_box(first))
    return [(logits[0, 0] > 0).cpu().numpy() for _, _, logits in predictor.propagate_in_video(state)]


def region_and_boundary(masks: list[np.ndarray], clip: Clip) -> tuple[float, float]:
    """J and F of masks that follow a clip's object, means over all frames but the first."""
    pairs = [(masks[index], clip.mask(index)) for index in range(1, len(clip))]
    return float(np.mean([mask_iou(*pair) for pair in pairs])), float(np.mean([boundary_f(*pair) for pair in pairs]))


@dataclass
class TrackScores:
    """Means over objects of what tracking reached, frames after the prompted one.

    Attributes:
        region: J, mean IoU; a frame where the object is not visible counts 1 for an empty mask, else 0.
        boundary: F, likewise.
        visible_region: J over the frames where the object is visible.
        absence: share of the frames without the object on which the mask is empty.
        swaps: share of the crossing pairs that end on the other object.
        num_objects: objects tracked.
    """

    region: float
    boundary: float
    visible_region: float
    absence: float
    swaps: float
    num_objects: int

    def __str__(self) -> str:
        return (
            f"J&F {(self.region + self.boundary) / 2:.3f}  J {self.region:.3f}  F {self.boundary:.3f}  "
            f"J where visible {self.visible_region:.3f}  absence seen {self.absence:.3f}  swaps {self.swaps:.3f}  "
            f"({self.num_objects} objects)"
        )


def track(predictor: SAM2VideoPredictor, scenes: list[Scene], prompted: Sequence[int]) -> np.ndarray:
    """Prompt objects with their true boxes on the first frame and follow them: (T, N, H, W) bool."""
    state = predictor.init_state([scene.image for scene in scenes])
    for i in prompted:
        predictor.add_new_points_or_box(state, 0, i + 1, box=scenes[0].boxes_xyxy[i])
    tracked = [(logits[:, 0] > 0).cpu().numpy() for _, _, logits in predictor.propagate_in_video(state)]
    return np.stack(tracked)


def tracking_scores(
    predictor: SAM2VideoPredictor, seeds: Sequence[int], num_frames: int, kind: str, styles: Sequence[str]
) -> TrackScores:
    """Track every object that the first of `num_frames` shows, in one held-out clip per seed.

    The frames are the middle ones of a clip of `CLIP_FRAMES`: there objects cross, hide and leave.
    """
    regions, boundaries, visible_regions, absences, swaps = [], [], [], [], []
    for seed in seeds:
        length = max(num_frames, CLIP_FRAMES)
        first = (length - num_frames) // 2
        clip = make_clip(seed, length, split="heldout", styles=styles, kind=kind)
        scenes = list(itertools.islice(clip, first, first + num_frames))
        prompted = [i for i, mask in enumerate(scenes[0].masks) if mask.sum() >= MIN_PIXELS]
        if not prompted:
            continue
        tracked = track(predictor, scenes, prompted)
        for column, i in enumerate(prompted):
            pairs = [(tracked[t, column], scenes[t].masks[i]) for t in range(1, num_frames)]
            ious = np.array([mask_iou(*pair) for pair in pairs])
            visible = np.array([true.any() for _, true in pairs])
            regions.append(ious.mean())
            boundaries.append(np.mean([boundary_f(*pair) for pair in pairs]))
            if visible.any():
                visible_regions.append(ious[visible].mean())
            if not visible.all():
                absences.append(ious[~visible].mean())
        if kind in ("crossing", "twins") and prompted[:2] == [0, 1]:
            final = scenes[-1].masks
            if final[0].any() and final[1].any():
                for own, other in ((0, 1), (1, 0)):
                    swaps.append(mask_iou(tracked[-1, own], final[other]) > mask_iou(tracked[-1, own], final[own]))
    means = [
        float(np.mean(values)) if values else float("nan")
        for values in (regions, boundaries, visible_regions, absences, swaps)
    ]
    return TrackScores(*means, num_objects=len(regions))
