"""What a generator of masks needs, under the names of segment-anything and facebookresearch/sam2."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sam2 import mask_ops
from sam2.automatic_mask_generator import crop_boxes, ends_at_crop_edge, point_grid
from sam2.mask_ops import UncompressedRLE, small_components, stability_score

__all__ = [
    "MaskData",
    "area_from_rle",
    "batch_iterator",
    "batched_mask_to_box",
    "box_xyxy_to_xywh",
    "build_all_layer_point_grids",
    "build_point_grid",
    "calculate_stability_score",
    "coco_encode_rle",
    "generate_crop_boxes",
    "is_box_near_crop_edge",
    "mask_to_rle_pytorch",
    "remove_small_regions",
    "rle_to_mask",
    "uncrop_boxes_xyxy",
    "uncrop_masks",
    "uncrop_points",
]


class MaskData(dict[str, Any]):
    """Columns of as many rows each: tensors, arrays or lists."""

    def __init__(self, **columns: Any) -> None:
        super().__init__(columns)

    def filter(self, keep: Tensor) -> None:
        """Keep the rows that `keep`, bool or indices, selects."""
        rows = keep.detach().cpu()
        index = rows.nonzero()[:, 0].tolist() if rows.dtype == torch.bool else rows.tolist()
        for name, column in self.items():
            self[name] = [column[i] for i in index] if isinstance(column, list) else column[index]

    def cat(self, new_stats: MaskData) -> None:
        """Append the rows of another one with the same columns; the first one's may be new."""
        for name, column in new_stats.items():
            own = self.get(name)
            if own is None:
                self[name] = column.copy() if isinstance(column, list) else column
            elif isinstance(column, list):
                self[name] = own + column
            else:
                self[name] = torch.cat((own, column)) if isinstance(column, Tensor) else np.concatenate((own, column))

    def to_numpy(self) -> None:
        """Tensors become arrays."""
        for name, column in self.items():
            if isinstance(column, Tensor):
                self[name] = column.detach().float().cpu().numpy()


def batch_iterator(batch_size: int, *args: Any) -> Iterator[list[Any]]:
    """Sequences of one length, cut into parts of at most `batch_size`."""
    if any(len(sequence) != len(args[0]) for sequence in args):
        raise ValueError(f"expected sequences of one length, got {[len(sequence) for sequence in args]}")
    for start in range(0, len(args[0]) if args else 0, batch_size):
        yield [sequence[start : start + batch_size] for sequence in args]


def is_box_near_crop_edge(
    boxes: Tensor, crop_box: Sequence[int], orig_box: Sequence[int], atol: float = 20.0
) -> Tensor:
    """Which boxes xyxy, in the frame of a crop, end at an edge of it that is not one of the image's."""
    x0, y0, x1, y1 = crop_box
    whole = uncrop_boxes_xyxy(boxes, [x0, y0, x1, y1]).float()
    return ends_at_crop_edge(whole, (x0, y0, x1, y1), orig_box[3], orig_box[2], atol)


def box_xyxy_to_xywh(box_xyxy: Any) -> Any:
    """One box or (N, 4), of the type given."""
    box: Any = box_xyxy.clone() if isinstance(box_xyxy, Tensor) else np.array(box_xyxy)
    box[..., 2:] -= box[..., :2]
    return box


def mask_to_rle_pytorch(tensor: Tensor) -> list[UncompressedRLE]:
    """Run lengths of masks (N, H, W) bool."""
    return mask_ops.mask_to_rle(tensor)


def rle_to_mask(rle: UncompressedRLE) -> np.ndarray:
    """The mask (H, W) bool of its run lengths."""
    return mask_ops.rle_to_mask(rle)


def area_from_rle(rle: UncompressedRLE) -> int:
    """Foreground pixels."""
    return mask_ops.rle_area(rle)


def coco_encode_rle(uncompressed_rle: UncompressedRLE) -> mask_ops.CompressedRLE:
    """Run lengths as COCO's string."""
    return mask_ops.compress_rle(uncompressed_rle)


def calculate_stability_score(masks: Tensor, mask_threshold: float, threshold_offset: float) -> Tensor:
    """See `sam2.mask_ops.stability_score`."""
    return stability_score(masks, mask_threshold, threshold_offset)


def build_point_grid(n_per_side: int) -> np.ndarray:
    """Centres of a square grid's cells, (n², 2) xy in [0, 1]."""
    return point_grid(n_per_side)


def build_all_layer_point_grids(n_per_side: int, n_layers: int, scale_per_layer: int) -> list[np.ndarray]:
    """The grids of the image and of `n_layers` layers of crops, each `scale_per_layer` times coarser."""
    return [point_grid(int(n_per_side / scale_per_layer**layer)) for layer in range(n_layers + 1)]


def generate_crop_boxes(
    im_size: tuple[int, ...], n_layers: int, overlap_ratio: float
) -> tuple[list[list[int]], list[int]]:
    """Crops xyxy of an image of (height, width), and the layer of each; see `crop_boxes`."""
    layers_and_boxes = crop_boxes(im_size[0], im_size[1], n_layers, overlap_ratio)
    return [list(box) for _, box in layers_and_boxes], [layer for layer, _ in layers_and_boxes]


def uncrop_boxes_xyxy(boxes: Tensor, crop_box: Sequence[int]) -> Tensor:
    """Boxes (N, 4) of a crop in the frame of the image."""
    return boxes + boxes.new_tensor([crop_box[0], crop_box[1], crop_box[0], crop_box[1]])


def uncrop_points(points: Tensor, crop_box: Sequence[int]) -> Tensor:
    """Points (..., 2) of a crop in the frame of the image."""
    return points + points.new_tensor([crop_box[0], crop_box[1]])


def uncrop_masks(masks: Tensor, crop_box: Sequence[int], orig_h: int, orig_w: int) -> Tensor:
    """Masks (N, h, w) of a crop in the frame of the image, (N, H, W)."""
    x0, y0, x1, y1 = crop_box
    return F.pad(masks, (x0, orig_w - x1, y0, orig_h - y1))


def remove_small_regions(mask: np.ndarray, area_thresh: float, mode: str) -> tuple[np.ndarray, bool]:
    """A mask (H, W) bool without its `"holes"` or `"islands"` of less than an area, and whether it had any.

    Where all islands are small the largest stays.

    Raises:
        ValueError: another mode.
    """
    if mode not in ("holes", "islands"):
        raise ValueError(f"expected the mode 'holes' or 'islands', got {mode!r}")
    own = torch.from_numpy(np.ascontiguousarray(mask, dtype=bool))
    regions = ~own if mode == "holes" else own
    small = small_components(regions[None], math.ceil(area_thresh) - 1)[0]
    if not small.any():
        return mask, False
    if mode == "islands" and bool((small == own).all()):
        small = small_components(own[None], 0, least_share=1.0)[0]
    return (own ^ small).numpy(), True


def batched_mask_to_box(masks: Tensor) -> Tensor:
    """Tight boxes xyxy of masks (..., H, W) bool; zeros for an empty mask."""
    return mask_ops.mask_to_box_xyxy(masks)
