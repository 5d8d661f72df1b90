"""What COCO and YOLO files are made of, whether their images are a video's frames or not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import supervision as sv
import yaml
from pycocotools import mask as coco_mask

from grounded_sam2.files import replacing

__all__ = ["FIRST_CATEGORY", "box_xywh", "coco_annotation", "coco_categories", "write_yolo_names", "yolo_lines"]

FIRST_CATEGORY = 1  # COCO counts categories from 1, class ids count from 0


def box_xywh(xyxy: npt.NDArray[np.floating]) -> list[float]:
    """A (4,) box xyxy as left, top, width, height."""
    left, top, right, bottom = (float(edge) for edge in xyxy)
    return [left, top, right - left, bottom - top]


def coco_categories(names: Mapping[int, str]) -> list[dict[str, Any]]:
    """The categories of a COCO file from class id → name."""
    return [{"id": class_id + FIRST_CATEGORY, "name": name} for class_id, name in sorted(names.items())]


def coco_annotation(
    annotation_id: int,
    image_id: int,
    class_id: int,
    xyxy: npt.NDArray[np.floating],
    segmentation: dict[str, Any],
    score: float | None,
) -> dict[str, Any]:
    """One object of a COCO file.

    Args:
        annotation_id: at least 1, unique in the file.
        image_id: of its image.
        class_id: from 0; categories count from 1.
        xyxy: (4,) pixels.
        segmentation: compressed run-length encoding, see `grounded_sam2.masks.encode_rle`.
        score: the detector's confidence.
    """
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": class_id + FIRST_CATEGORY,
        "bbox": box_xywh(xyxy),
        "area": float(coco_mask.area(segmentation)),
        "segmentation": segmentation,
        "iscrowd": 0,
        "score": score,
    }


def yolo_lines(class_id: int, mask: npt.NDArray[np.bool_]) -> str:
    """The lines of one object in a YOLO label file: "class x y x y …" in 0..1, one for each part of its (H, W) mask."""
    height, width = mask.shape
    lines = []
    for polygon in sv.mask_to_polygons(mask):
        corners = np.asarray(polygon, dtype=np.float64) / [width, height]
        lines.append(" ".join([str(class_id), *(f"{side:.6f}" for side in corners.ravel())]) + "\n")
    return "".join(lines)


def write_yolo_names(folder: str | os.PathLike[str], names: Mapping[int, str]) -> None:
    """Write the `data.yaml` of a folder of YOLO labels; class ids that have no name get one."""
    every_name = {class_id: names.get(class_id, f"class {class_id}") for class_id in range(max(names, default=-1) + 1)}
    with replacing(Path(folder) / "data.yaml") as temporary:
        temporary.write_text(yaml.safe_dump({"path": ".", "names": every_name}, allow_unicode=True), encoding="utf-8")
