"""Masks of everything in an image: a grid of points, then filters (Kirillov et al., 2023, section 4 and appendix B)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.ops import box_area, nms

from sam2.mask_ops import (
    UncompressedRLE,
    compress_rle,
    mask_to_box_xyxy,
    mask_to_rle,
    rle_area,
    rle_to_mask,
    stability_score,
)
from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_image_predictor import BUILD_OPTIONS, LOW_RES_LIMIT, SAM2ImagePredictor
from sam2.transforms import as_rgb_array

OutputMode = Literal["binary_mask", "uncompressed_rle", "coco_rle"]

CROP_EDGE_MARGIN = 20.0  # pixels: a box that ends so close to a crop's edge is cut off by it

Box = tuple[int, int, int, int]  # xyxy, pixels of the whole image


@dataclass(frozen=True)
class _Candidates:
    """M masks on the CPU, in the frame of the whole image."""

    rles: list[UncompressedRLE]
    boxes_xyxy: Tensor  # (M, 4) int64
    ious: Tensor  # (M) float32, predicted
    points_xy: Tensor  # (M, 2) float32, the point each answers
    stability_scores: Tensor  # (M) float32
    crop_boxes_xyxy: Tensor  # (M, 4) int64

    def select(self, index: Tensor) -> _Candidates:
        """Those at the positions `index`, in its order."""
        tensors = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name != "rles"}
        return _Candidates(rles=[self.rles[i] for i in index.tolist()], **tensors)

    @staticmethod
    def concatenate(parts: Sequence[_Candidates]) -> _Candidates:
        """All of at least one group."""
        names = [f.name for f in fields(_Candidates) if f.name != "rles"]
        tensors = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        return _Candidates(rles=[rle for part in parts for rle in part.rles], **tensors)


class SAM2AutomaticMaskGenerator:
    """Asks the model for the masks at every point of a grid and keeps the good ones, each once."""

    def __init__(
        self,
        model: SAM2Base,
        points_per_side: int | None = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.8,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        mask_threshold: float = 0.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        point_grids: list[np.ndarray] | None = None,
        min_mask_region_area: int = 0,
        output_mode: OutputMode = "binary_mask",
        use_m2m: bool = False,
        multimask_output: bool = True,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            model: see `sam2.build_sam.build_sam2`.
            points_per_side: the grid on the whole image has the square of it; None if `point_grids` is given.
            points_per_batch: points decoded together; fewer need less memory.
            pred_iou_thresh: masks whose predicted IoU is not above it go; 0 keeps all.
            stability_score_thresh: masks whose stability score (`sam2.mask_ops.stability_score`) is below it go;
                0 keeps all.
            stability_score_offset: logits, the shift of the threshold that a stable mask stands.
            mask_threshold: mask logits above it are foreground.
            box_nms_thresh: of two masks whose boxes overlap by more than this IoU the better stays.
            crop_n_layers: layer i of the crops that are searched too has 4**i of them; 0 searches the image only.
            crop_nms_thresh: as `box_nms_thresh`, between crops; the mask of the smaller crop stays.
            crop_overlap_ratio: overlap of neighbouring crops of layer 1, as a fraction of the image's shorter side;
                half as much in each further layer.
            crop_n_points_downscale_factor: layer i has `points_per_side` divided by the i-th power of it.
            point_grids: for the image and each layer of crops the points, (P, 2) x, y as fractions of its size.
            min_mask_region_area: holes and islands of at most so many pixels of the low-resolution mask are
                filled and removed; 0 changes nothing.
            output_mode: how masks come back: `"binary_mask"` bool (H, W), `"uncompressed_rle"` with a list of
                counts, or `"coco_rle"` with COCO's string of counts.
            use_m2m: let the model refine each mask once.
            multimask_output: three masks for each point instead of one.
            **kwargs: options of `build_sam2`, ignored here.

        Raises:
            TypeError: an argument that neither this class nor `build_sam2` has.
            ValueError: both or neither of `points_per_side` and `point_grids`, not one grid for the image and each
                layer, or an unknown `output_mode`.
        """
        if unknown := kwargs.keys() - BUILD_OPTIONS:
            raise TypeError(f"SAM2AutomaticMaskGenerator has no argument {', '.join(sorted(unknown))}")
        if point_grids is None:
            if points_per_side is None:
                raise ValueError("expected points_per_side or point_grids, got neither")
            sides = [int(points_per_side / crop_n_points_downscale_factor**i) for i in range(crop_n_layers + 1)]
            point_grids = [point_grid(max(side, 1)) for side in sides]
        elif points_per_side is not None:
            raise ValueError("expected points_per_side=None with point_grids, got both")
        if len(point_grids) <= crop_n_layers:
            raise ValueError(f"expected {crop_n_layers + 1} point_grids, image and crop layers, got {len(point_grids)}")
        if output_mode not in get_args(OutputMode):
            raise ValueError(f"expected an output_mode of {', '.join(get_args(OutputMode))}, got {output_mode!r}")

        self.predictor = SAM2ImagePredictor(
            model, max_hole_area=min_mask_region_area, max_sprinkle_area=min_mask_region_area
        )
        self.point_grids = point_grids
        self.points_per_batch = points_per_batch
        self.pred_iou_thresh = pred_iou_thresh
        self.stability_score_thresh = stability_score_thresh
        self.stability_score_offset = stability_score_offset
        self.mask_threshold = mask_threshold
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers = crop_n_layers
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.crop_n_points_downscale_factor = crop_n_points_downscale_factor
        self.min_mask_region_area = min_mask_region_area
        self.output_mode = output_mode
        self.use_m2m = use_m2m
        self.multimask_output = multimask_output

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> SAM2AutomaticMaskGenerator:
        """Build model and generator from a Hugging Face repository or local folder.

        Args:
            model_id: see `build_sam2_hf`.
            **kwargs: options of `build_sam2` (`device`, `dtype`, …) and of this class.
        """
        from sam2.build_sam import build_sam2_hf

        model = build_sam2_hf(model_id, **{name: kwargs[name] for name in kwargs.keys() & BUILD_OPTIONS})
        return cls(model, **kwargs)

    @torch.no_grad()
    def generate(self, image: np.ndarray | Image.Image) -> list[dict[str, Any]]:
        """Find the masks of an image.

        Args:
            image: (H, W, 3) RGB, uint8 or floats in [0, 1], or a PIL image; see `sam2.transforms.as_rgb_array`.

        Returns:
            One record per mask, none if no mask is good enough:
            `segmentation` (see `output_mode`), `area` in pixels, `bbox` [x, y, w, h] with w and h from the first to
            the last column and row touched, `predicted_iou`, `point_coords` [[x, y]] the point it answers,
            `stability_score`, and `crop_box` [x, y, w, h] the crop it was found in.

        Raises:
            ValueError: not an RGB image.
            TypeError: neither an array nor a PIL image.
        """
        array = as_rgb_array(image)
        height, width = array.shape[:2]
        crops = crop_boxes(height, width, self.crop_n_layers, self.crop_overlap_ratio)
        found = [self._search_crop(array, box, self.point_grids[layer]) for layer, box in crops]
        candidates = _Candidates.concatenate(found)
        if len(crops) > 1:
            smaller_first = 1 / box_area(candidates.crop_boxes_xyxy)
            keep = nms(candidates.boxes_xyxy.float(), smaller_first, self.crop_nms_thresh)
            candidates = candidates.select(keep)
        return self._records(candidates)

    def _search_crop(self, image: np.ndarray, crop_box: Box, grid: np.ndarray) -> _Candidates:
        """Masks answering the points of a grid on a crop, each once."""
        x0, y0, x1, y1 = crop_box
        self.predictor.set_image(image[y0:y1, x0:x1])
        points = torch.from_numpy((grid * np.array([x1 - x0, y1 - y0])).astype(np.float32))
        height, width = image.shape[:2]
        found = [self._search_points(part, crop_box, height, width) for part in points.split(self.points_per_batch)]
        self.predictor.reset_predictor()
        candidates = _Candidates.concatenate(found)
        return candidates.select(nms(candidates.boxes_xyxy.float(), candidates.ious, self.box_nms_thresh))

    def _search_points(self, points_xy: Tensor, crop_box: Box, height: int, width: int) -> _Candidates:
        """Masks answering points on the crop that is set, (P, 2) in its pixels, that pass the filters."""
        x0, y0, x1, y1 = crop_box
        crop_hw = y1 - y0, x1 - x0
        transforms, device = self.predictor.transforms, self.predictor.device
        coords = transforms.transform_coords(points_xy.to(device), normalize=True, orig_hw=crop_hw)[:, None]
        labels = torch.ones(coords.shape[:2], dtype=torch.int32, device=device)
        logits, ious = self.predictor.decode(coords, labels, multimask_output=self.multimask_output)
        points_xy = points_xy.repeat_interleave(logits.shape[1], dim=0)
        if self.use_m2m:
            coords, labels = (part.repeat_interleave(logits.shape[1], dim=0) for part in (coords, labels))
            logits, ious = self._refine(coords, labels, logits.flatten(0, 1).unsqueeze(1))
        logits, ious = logits.flatten(0, 1), ious.flatten()

        # before the masks are brought to the size of the image, where they take many times the memory
        is_wanted = ious > self.pred_iou_thresh if self.pred_iou_thresh > 0 else torch.ones_like(ious, dtype=torch.bool)
        index = is_wanted.nonzero()[:, 0]
        full_logits = transforms.postprocess_masks(logits[index].unsqueeze(1), crop_hw).squeeze(1)
        stability = stability_score(full_logits, self.mask_threshold, self.stability_score_offset)
        masks = full_logits > self.mask_threshold
        boxes = mask_to_box_xyxy(masks) + torch.tensor([x0, y0, x0, y0], device=device)
        keep = ~ends_at_crop_edge(boxes, crop_box, height, width)
        if self.stability_score_thresh > 0:
            keep &= stability >= self.stability_score_thresh
        index = index[keep]
        in_image = F.pad(masks[keep], (x0, width - x1, y0, height - y1))
        return _Candidates(
            rles=mask_to_rle(in_image),
            boxes_xyxy=boxes[keep].cpu(),
            ious=ious[index].cpu(),
            points_xy=points_xy[index.cpu()] + torch.tensor([x0, y0], device="cpu"),
            stability_scores=stability[keep].cpu(),
            crop_boxes_xyxy=torch.tensor(crop_box, device="cpu").expand(len(index), 4),
        )

    def _refine(self, coords: Tensor, labels: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Decode M points again with their masks (M, 1, 4h, 4w) as prompts: logits of the same shape, IoUs (M, 1)."""
        parts = [tensor.split(self.points_per_batch) for tensor in (coords, labels, logits)]
        refined = [
            self.predictor.decode(
                xy, label, mask_input=mask.clamp(-LOW_RES_LIMIT, LOW_RES_LIMIT), multimask_output=False
            )
            for xy, label, mask in zip(*parts, strict=True)
        ]
        return torch.cat([masks for masks, _ in refined]), torch.cat([ious for _, ious in refined])

    def _records(self, candidates: _Candidates) -> list[dict[str, Any]]:
        return [
            {
                "segmentation": self._encode(rle),
                "area": rle_area(rle),
                "bbox": _xyxy_to_xywh(box),
                "predicted_iou": iou,
                "point_coords": [point],
                "stability_score": stability,
                "crop_box": _xyxy_to_xywh(crop_box),
            }
            for rle, box, iou, point, stability, crop_box in zip(
                candidates.rles,
                candidates.boxes_xyxy.tolist(),
                candidates.ious.tolist(),
                candidates.points_xy.tolist(),
                candidates.stability_scores.tolist(),
                candidates.crop_boxes_xyxy.tolist(),
                strict=True,
            )
        ]

    def _encode(self, rle: UncompressedRLE) -> Any:
        if self.output_mode == "binary_mask":
            return rle_to_mask(rle)
        return compress_rle(rle) if self.output_mode == "coco_rle" else rle


def crop_boxes(height: int, width: int, num_layers: int, overlap_ratio: float) -> list[tuple[int, Box]]:
    """The whole image and its overlapping crops, each with its layer; layer 0 is the image.

    Args:
        height, width: of the image, pixels.
        num_layers: layer i cuts both sides into 2**i parts.
        overlap_ratio: of neighbours in layer 1, as a fraction of the shorter side; half as much in each further layer.

    Returns:
        (layer, (x0, y0, x1, y1)); column by column within a layer. Tiny images give fewer crops.
    """
    boxes = [(0, (0, 0, width, height))]
    for layer in range(1, num_layers + 1):
        parts = 2**layer
        overlap = int(overlap_ratio * min(height, width) * 2 / parts)
        crop_width, crop_height = (math.ceil((overlap * (parts - 1) + side) / parts) for side in (width, height))
        for column, row in product(range(parts), repeat=2):
            x0, y0 = column * (crop_width - overlap), row * (crop_height - overlap)
            if x0 < width and y0 < height:
                boxes.append((layer, (x0, y0, min(x0 + crop_width, width), min(y0 + crop_height, height))))
    return boxes


def ends_at_crop_edge(
    boxes_xyxy: Tensor, crop_box: Box, height: int, width: int, margin: float = CROP_EDGE_MARGIN
) -> Tensor:
    """Which boxes end within `margin` of an edge of their crop that is not near the image's edge.

    Args:
        boxes_xyxy: (M, 4) pixels of the image.
        crop_box: of all of them.
        height, width: of the image.
        margin: pixels.

    Returns:
        (M) bool.
    """
    crop_edges, image_edges = (boxes_xyxy.new_tensor(edges) for edges in (crop_box, (0, 0, width, height)))
    at_crop_edge = (boxes_xyxy - crop_edges).abs() <= margin
    at_image_edge = (boxes_xyxy - image_edges).abs() <= margin
    return (at_crop_edge & ~at_image_edge).any(dim=1)


def point_grid(points_per_side: int) -> np.ndarray:
    """Centres of the cells of a square grid, row by row: (points_per_side**2, 2) x, y in [0, 1]."""
    half_cell = 1 / (2 * points_per_side)
    centres = np.linspace(half_cell, 1 - half_cell, points_per_side)
    x, y = np.meshgrid(centres, centres)
    return np.stack((x.ravel(), y.ravel()), axis=-1)


def _xyxy_to_xywh(box: Iterable[float]) -> list[float]:
    x0, y0, x1, y1 = map(float, box)
    return [x0, y0, x1 - x0, y1 - y0]
