"""From boxes to masks, and from masks to points, with SAM 2's image predictor."""

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import supervision as sv
from scipy import ndimage

from sam2.sam2_image_predictor import SAM2ImagePredictor

_MASK_LOGIT = 10.0  # what SAM 2's own memory takes for certain, inside a mask and, negative, outside


def segment(predictor: SAM2ImagePredictor, image: npt.NDArray[np.uint8], detections: sv.Detections) -> sv.Detections:
    """Find the mask of each detected box.

    Args:
        predictor: encodes `image` anew; with N = 0 it is not used.
        image: (H, W, 3) uint8 RGB.
        detections: N ≥ 0 boxes in pixels of `image`; not changed.

    Returns:
        The same detections with `mask` (N, H, W) bool and `data["mask_score"]` (N,) float32, the predicted IoU.

    Raises:
        ValueError: `image` is not an RGB image.
    """
    height, width = image.shape[:2]
    if len(detections) == 0:
        masks, mask_score = np.zeros((0, height, width), dtype=bool), np.zeros(0, dtype=np.float32)
    else:
        predictor.set_image(image)
        masks, mask_score, _ = predictor.predict(box=detections.xyxy, multimask_output=False)
    return replace(
        detections,
        mask=masks.reshape(-1, height, width).astype(bool),
        data={**detections.data, "mask_score": mask_score.reshape(-1).astype(np.float32)},
    )


def refine(predictor: SAM2ImagePredictor, image: npt.NDArray[np.uint8], detections: sv.Detections) -> sv.Detections:
    """Let SAM 2 draw rough masks anew; without masks, the same as `segment`.

    A mask is drawn from itself and its box. Parts that do not touch are drawn one by one, each from itself and the box
    around it, so that what lies between them is not taken in.

    Args:
        predictor: encodes `image` anew; with N = 0 it is not used.
        image: (H, W, 3) uint8 RGB.
        detections: N ≥ 0 boxes in pixels of `image`, with `mask` (N, H, W) bool or none; a mask without pixels counts
            as its filled box. Not changed.

    Returns:
        The same detections with new masks and `data["mask_score"]` (N,) float32, the predicted IoU, the mean over a
        mask's parts.

    Raises:
        ValueError: `image` is not an RGB image, or masks have another size.
    """
    if detections.mask is None or len(detections) == 0:
        return segment(predictor, image, detections)
    height, width = image.shape[:2]
    if detections.mask.shape != (len(detections), height, width):
        raise ValueError(f"masks: expected {(len(detections), height, width)}, got {detections.mask.shape}")
    side = predictor.model.sam_prompt_encoder.mask_input_size
    owners, boxes, prompts = [], [], []
    for index, (mask, box) in enumerate(zip(detections.mask, detections.xyxy, strict=True)):
        for part, part_box in _parts(mask, box):
            shrunk = cv2.resize(part.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
            owners.append(index)
            boxes.append(part_box)
            prompts.append((2 * shrunk[None] - 1) * _MASK_LOGIT)  # (1, side, side)
    predictor.set_image(image)
    drawn, scores, _ = predictor.predict(box=np.stack(boxes), mask_input=np.stack(prompts), multimask_output=False)
    drawn, scores = drawn.reshape(-1, height, width).astype(bool), scores.reshape(-1)
    of_detection = [np.array(owners) == index for index in range(len(detections))]
    return replace(
        detections,
        mask=np.stack([drawn[rows].any(axis=0) for rows in of_detection]),
        data={
            **detections.data,
            "mask_score": np.array([scores[rows].mean() for rows in of_detection], dtype=np.float32),
        },
    )


def _parts(
    mask: npt.NDArray[np.bool_], box: npt.NDArray[np.float32]
) -> Iterator[tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]]:
    """The connected parts of a mask, (H, W) bool each, at least one, and the box around each, xyxy; of a mask in one
    part, the box given."""
    labelled, num_parts = ndimage.label(mask)
    if num_parts == 0:
        filled = np.zeros_like(mask)
        left, top, right, bottom = box.astype(int)
        filled[top : bottom + 1, left : right + 1] = True
        yield filled, box
    elif num_parts == 1:
        yield mask, box
    else:
        for number, (rows, columns) in enumerate(ndimage.find_objects(labelled), start=1):
            yield labelled == number, np.array([columns.start, rows.start, columns.stop, rows.stop], dtype=np.float32)


def points_in_mask(mask: npt.NDArray[np.bool_], num_points: int) -> npt.NDArray[np.float32]:
    """Choose points well inside a mask and far from each other, the same ones every time.

    Each next point is the pixel that is farthest from the mask's outline and the points chosen before it.

    Args:
        mask: (H, W) bool.
        num_points: how many; a mask of fewer pixels gives fewer.

    Returns:
        (P, 2) float32 xy in pixels, P ≤ num_points; P = 0 for an empty mask.
    """
    ys, xs = np.nonzero(mask)
    if len(xs) == 0:
        return np.zeros((0, 2), dtype=np.float32)
    top, left = ys.min(), xs.min()
    crop = np.pad(mask[top : ys.max() + 1, left : xs.max() + 1], 1)  # the frame's border is an outline too
    depth = ndimage.distance_transform_edt(crop)
    rows, columns = np.indices(crop.shape)
    points: list[tuple[float, float]] = []
    while len(points) < num_points and depth.max() > 0:
        row, column = np.unravel_index(depth.argmax(), depth.shape)
        points.append((float(column) + left - 1, float(row) + top - 1))
        depth = np.minimum(depth, np.hypot(rows - row, columns - column))
    return np.array(points, dtype=np.float32)
