"""Masks by themselves: run-length encoded, compared, boxed, as polygons, and points inside them."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import supervision as sv
from pycocotools import mask as coco_mask
from scipy import ndimage
from scipy.spatial import cKDTree

from grounded_sam2.plain_json import check_whole
from sam2.frames.still_image import MAX_PIXELS

__all__ = [
    "Corners",
    "Masks",
    "boxes_around",
    "check_rle",
    "corners_of",
    "decode_rle",
    "decode_window",
    "encode_rle",
    "mask_iou",
    "mask_overlaps",
    "one_polygon",
    "points_in_mask",
    "smoothed",
]

_MOST_PIXELS = 2**34  # of all masks that are decoded together; a byte each
_LONGEST_RUN = 6  # characters of one number: 30 bits, and no mask has so many pixels

Masks: TypeAlias = npt.NDArray[np.bool_]
Corners: TypeAlias = tuple[int, int, int, int]

# Where in its pixel a corner of a polygon is: near the middle, and both who cuts and who rounds finds that pixel.
_IN_PIXEL = 0.4


def encode_rle(masks: npt.NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Compress masks as COCO does.

    Args:
        masks: `(N, H, W)` bool.

    Returns:
        N dicts `{"size": [H, W], "counts": str}`.

    Raises:
        ValueError: not three-dimensional.
    """
    if masks.ndim != 3:
        raise ValueError(f"masks: expected (N, H, W), got {masks.shape}")
    if len(masks) == 0:
        return []
    encoded = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0), dtype=np.uint8))
    return [{"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")} for rle in encoded]


def decode_rle(segmentations: Sequence[dict[str, Any]], size: tuple[int, int] | None = None) -> npt.NDArray[np.bool_]:
    """The masks behind `encode_rle`'s dicts: `(N, H, W)` bool; `(0, 0, 0)` for none.

    All is checked before there is room made for a mask.

    Args:
        segmentations: N dicts.
        size: (H, W) that they must have; None takes that of the first.

    Raises:
        ValueError: sizes differ or are out of range, or a dict is not compressed run-length encoding of the whole mask.
    """
    if not segmentations:
        return np.zeros((0, 0, 0), dtype=bool)
    try:
        height, width = (check_whole(side, "size", 0) for side in size or segmentations[0]["size"])
        if height * width > MAX_PIXELS or len(segmentations) * height * width > _MOST_PIXELS:
            raise ValueError(f"{len(segmentations)} masks of {width}x{height} pixels are too many")
        encoded = [_checked_rle(rle, height, width) for rle in segmentations]
        decoded = coco_mask.decode(encoded)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f'expected {{"size": [h, w], "counts": str}} of one size: {error!r}') from error
    return np.ascontiguousarray(decoded.transpose(2, 0, 1)).astype(bool)


def decode_window(segmentation: dict[str, Any], window: Corners) -> npt.NDArray[np.uint8]:
    """A part of one mask: as quick as the part is small, however large the mask.

    Args:
        segmentation: a dict that `check_rle` has passed.
        window: left, top, right, bottom in pixels of the mask, the last two exclusive.

    Returns:
        (bottom - top, right - left) uint8, 0 or 1.
    """
    left, top, right, bottom = window
    height = segmentation["size"][0]
    ends = _runs_of(segmentation["counts"].encode("ascii")).cumsum()
    lengths = np.diff(np.clip(ends, left * height, right * height), prepend=left * height)  # masks go by columns
    is_inside = np.zeros(len(lengths), np.uint8)
    is_inside[1::2] = 1
    return np.repeat(is_inside, lengths).reshape(right - left, height)[:, top:bottom].T


def check_rle(segmentation: dict[str, Any], size: tuple[int, int]) -> None:
    """Raise a ValueError unless a dict is compressed run-length encoding of a mask of this size (H, W)."""
    try:
        _checked_rle(segmentation, *size)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f'expected {{"size": [h, w], "counts": str}} of {list(size)}: {error!r}') from error


def _checked_rle(rle: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """As pycocotools takes it. It leaves memory as it finds it where the runs do not cover a mask."""
    if [check_whole(side, "size", 0) for side in rle["size"]] != [height, width]:
        raise ValueError(f"size: expected {[height, width]}, got {rle['size']}")
    counts = rle["counts"].encode("ascii")
    runs = _runs_of(counts)
    if (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"counts: expected runs of {height * width} pixels in all, got {int(runs.sum())}")
    return {"size": [height, width], "counts": counts}


def _runs_of(counts: bytes) -> npt.NDArray[np.int64]:
    """The lengths of runs that characters stand for: five bits each, the lowest first, a sixth says that more follow.

    From the fourth run on, what is written is the difference to the run before the last; it may be negative.
    """
    bits = np.frombuffer(counts, np.uint8).astype(np.int64) - ord("0")
    ends = np.flatnonzero((bits & 0x20) == 0)
    if len(bits) == 0:
        return np.zeros(0, np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else np.zeros(0, np.int64)
    lengths = ends - starts + 1
    is_text = bits.min() >= 0 and bits.max() < 64 and len(ends) > 0 and ends[-1] == len(bits) - 1
    if not is_text or lengths.max() > _LONGEST_RUN:
        raise ValueError("counts: not compressed run-length encoding")
    shifts = 5 * (np.arange(len(bits)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((bits & 0x1F) << shifts, starts)
    runs -= np.where(bits[ends] & 0x10, np.int64(1) << (5 * lengths), 0)  # the highest bit is a sign
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return runs


def mask_iou(one: Masks, other: Masks) -> float:
    """Intersection over union of two (H, W) bool masks, J of DAVIS; 1 when both are empty."""
    union = int(np.logical_or(one, other).sum())
    return float(np.logical_and(one, other).sum() / union) if union else 1.0


def mask_overlaps(
    masks: Sequence[Masks], others: Sequence[Masks]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """How (H, W) bool masks overlap, compared only where their bounding boxes meet.

    Returns:
        (N, M) IoU, and (N, M) share of the smaller mask that lies on the larger; both 0 for empty masks.
    """
    ious, inside = np.zeros((len(masks), len(others))), np.zeros((len(masks), len(others)))
    corners, other_corners = (np.array([corners_of(mask) for mask in each]).reshape(-1, 4) for each in (masks, others))
    areas, other_areas = ([int(mask.sum()) for mask in each] for each in (masks, others))
    for row, (left, top, right, bottom) in enumerate(corners):
        for column, (other_left, other_top, other_right, other_bottom) in enumerate(other_corners):
            rows = slice(max(top, other_top), min(bottom, other_bottom))
            columns = slice(max(left, other_left), min(right, other_right))
            if rows.start < rows.stop and columns.start < columns.stop:
                shared = int((masks[row][rows, columns] & others[column][rows, columns]).sum())
                ious[row, column] = shared / max(areas[row] + other_areas[column] - shared, 1)
                inside[row, column] = shared / max(min(areas[row], other_areas[column]), 1)
    return ious, inside


def corners_of(mask: Masks) -> Corners:
    """Left, top, right, bottom of a mask, the last two exclusive; zeros for an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def boxes_around(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Tight boxes (N, 4) float32 xyxy around masks (N, H, W) that are not empty; right and bottom edges exclusive."""
    xyxy = sv.mask_to_xyxy(masks).astype(np.float32)
    xyxy[:, 2:] += 1  # the last row and column are inside the box
    return xyxy


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


def smoothed(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Masks (N, H, W) bool, closed and then opened by 3×3 pixels: gaps and threads of up to two pixels go."""
    square = np.ones((3, 3), np.uint8)
    cleaned = np.zeros_like(masks)
    for mask, out in zip(masks, cleaned, strict=True):
        left, top, right, bottom = corners_of(mask)
        around = slice(max(top - 2, 0), bottom + 2), slice(max(left - 2, 0), right + 2)  # no farther does it reach
        if right > left:
            closed = cv2.morphologyEx(mask[around].astype(np.uint8), cv2.MORPH_CLOSE, square)
            out[around] = cv2.morphologyEx(closed, cv2.MORPH_OPEN, square)
    return cleaned


def one_polygon(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """A mask as a single polygon, for formats that know neither holes nor objects in several parts.

    Parts and holes are joined by bridges, from corner to near corner and back the same way. Filled with its edge by the
    even-odd rule, as OpenCV's `fillPoly` does, it is the mask again, but for a line of pixels under a bridge between
    two parts.

    Args:
        mask: (H, W) bool.

    Returns:
        (P, 2) x and y in pixels, with at least three corners; P = 0 for an empty mask.
    """
    contours, hierarchy = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    polygon = np.zeros((0, 2))
    for index in sorted(range(len(contours)), key=lambda index: -cv2.contourArea(contours[index])):
        if hierarchy[0][index][3] >= 0:  # a hole, which comes after what it is in
            continue
        polygon = _bridged(polygon, _ring(contours[index]))
        hole = hierarchy[0][index][2]
        while hole >= 0:
            polygon = _bridged(polygon, _ring(contours[hole]))
            hole = hierarchy[0][hole][0]
    return polygon


def _ring(contour: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """A contour of OpenCV, (P, 1, 2), as corners in pixels; one that has no width gets some."""
    corners = contour[:, 0].astype(np.float64) + _IN_PIXEL
    if np.ptp(corners, axis=0).min() == 0:  # one pixel, or a straight line of them
        (left, top), (right, bottom) = corners.min(axis=0) - 0.05, corners.max(axis=0) + 0.05
        return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    return corners if len(corners) > 2 else corners[[0, 1, 1]]


def _bridged(polygon: npt.NDArray[np.float64], ring: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A polygon that leaves its way at the corner nearest to a ring, goes once round it, and comes back."""
    if len(polygon) == 0:
        return ring
    distances, nearest = cKDTree(polygon).query(ring)
    first = int(np.argmin(distances))
    leave = int(nearest[first])
    return np.concatenate([polygon[: leave + 1], ring[first:], ring[: first + 1], polygon[leave:]])
