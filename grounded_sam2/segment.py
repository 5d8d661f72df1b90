"""From boxes to masks, and from masks to points, with SAM 2's image predictor."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import supervision as sv
from scipy import ndimage

from sam2.sam2_image_predictor import SAM2ImagePredictor

_MASK_PIXELS = 2**27  # of the masks that the predictor makes at a time, 4 bytes each
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
    mask, mask_score = _no_masks(len(detections), image)
    if len(detections) > 0:
        predictor.set_image(image)
    for part in _row_ranges(len(detections), image):
        masks, scores, _ = predictor.predict(box=detections.xyxy[part], multimask_output=False)
        mask[part], mask_score[part] = masks.reshape(-1, *image.shape[:2]), scores.reshape(-1)
    return replace(detections, mask=mask, data={**detections.data, "mask_score": mask_score})


def segment_batch(
    predictor: SAM2ImagePredictor, images: Sequence[npt.NDArray[np.uint8]], detections: Sequence[sv.Detections]
) -> Iterator[sv.Detections]:
    """Find the masks of several images' boxes, all images encoded together; see `segment`.

    Args:
        predictor: encodes the images that have boxes anew.
        images: B images, (H, W, 3) uint8 RGB of any sizes.
        detections: of each, N ≥ 0 boxes; not changed.

    Yields:
        The detections of one image after the other with `mask` (N, H, W) bool and `data["mask_score"]` (N,) float32.
    """
    encoded = [row for row, of_image in enumerate(detections) if len(of_image) > 0]
    if encoded:
        predictor.set_image_batch([images[row] for row in encoded])
    for row, (image, of_image) in enumerate(zip(images, detections, strict=True)):
        mask, mask_score = _no_masks(len(of_image), image)
        for part in _row_ranges(len(of_image), image):
            boxes = [of_image.xyxy[part] if row == other else None for other in encoded]
            masks, scores, _ = predictor.predict_batch(box_batch=boxes, multimask_output=False)
            of_part = encoded.index(row)
            mask[part] = masks[of_part].reshape(-1, *image.shape[:2])
            mask_score[part] = scores[of_part].reshape(-1)
        yield replace(of_image, mask=mask, data={**of_image.data, "mask_score": mask_score})


def _no_masks(count: int, image: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """(N, H, W) masks and (N,) scores to be filled in."""
    return np.zeros((count, *image.shape[:2]), dtype=bool), np.zeros(count, dtype=np.float32)


def _row_ranges(count: int, image: npt.NDArray[np.uint8]) -> Iterator[slice]:
    """Ranges of objects whose masks fit in memory together, as the predictor makes them."""
    step = max(1, _MASK_PIXELS // (image.shape[0] * image.shape[1]))
    return (slice(start, start + step) for start in range(0, count, step))


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
    mask, _ = _no_masks(len(detections), image)
    score_sums = np.zeros(len(detections), dtype=np.float32)
    predictor.set_image(image)
    for rows in _row_ranges(len(owners), image):
        drawn, scores, _ = predictor.predict(
            box=np.stack(boxes[rows]), mask_input=np.stack(prompts[rows]), multimask_output=False
        )
        for index, part, score in zip(owners[rows], drawn.reshape(-1, height, width), scores.reshape(-1), strict=True):
            mask[index] |= part > 0
            score_sums[index] += score
    num_parts = np.bincount(owners).astype(np.float32)  # at least one each
    return replace(detections, mask=mask, data={**detections.data, "mask_score": score_sums / num_parts})


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
