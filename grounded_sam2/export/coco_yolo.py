"""What COCO and YOLO files are made of, whether their images are a video's frames or not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from pycocotools import mask as coco_mask

from grounded_sam2.files import replacing
from grounded_sam2.images import RGBImage, read_image, write_image
from grounded_sam2.masks import one_polygon
from grounded_sam2.owned import OwnedFolder

__all__ = ["FIRST_CATEGORY", "YoloFolder", "box_xywh", "coco_annotation", "coco_categories"]

FIRST_CATEGORY = 1  # COCO counts categories from 1, class ids count from 0
_YOLO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})  # of images that trainers read


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


class YoloFolder:
    """A data set for YOLO segmentation, which trains as it is: `images/`, `labels/`, and `data.yaml`.

    Label files have a line for each object: "class x y x y …", one polygon in 0..1. Files of an earlier data set in the
    folder go when this one is finished, those of others stay.

    Args:
        folder: is made if it is not there.

    Raises:
        OSError: the folder cannot be written, or another process writes to it.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._owned = OwnedFolder(folder)
        self._stems: set[str] = set()
        self._has_images = True

    def add(
        self,
        stem: str,
        objects: Iterable[tuple[int, npt.NDArray[np.bool_]]],
        image: str | os.PathLike[str] | RGBImage | None,
    ) -> None:
        """Add an image and its labels; no objects write an empty label file.

        Args:
            stem: of the files, with "/".
            objects: class id and (H, W) mask of each; an empty mask is left out.
            image: the file of the image, which is copied, or its pixels; None: it is not there.

        Raises:
            ValueError: a file that is not the project's has such a name.
            OSError: a full disk, or no such image.
        """
        stem = self._free_stem(stem)
        lines = "".join(_yolo_line(class_id, mask) for class_id, mask in objects)
        with replacing(self._owned.claim(f"labels/{stem}.txt")) as temporary:
            temporary.write_text(lines, encoding="utf-8")
        if image is None:
            self._has_images = False
        elif isinstance(image, np.ndarray):
            write_image(self._owned.claim(f"images/{stem}.jpg"), image)
        elif Path(image).suffix.lower() in _YOLO_SUFFIXES:
            _copy(Path(image), self._owned.claim(f"images/{stem}{Path(image).suffix}"))
        else:
            write_image(self._owned.claim(f"images/{stem}.png"), read_image(image))

    def _free_stem(self, stem: str) -> str:
        """A stem of which readers find both files: they take the last "/images/" of a path for ours."""
        plain = "/".join(f"{part}_" if part == "images" else part for part in stem.split("/"))
        free, number = plain, 1
        while free in self._stems:
            number += 1
            free = f"{plain}-{number}"
        self._stems.add(free)
        return free

    def finish(self, names: Mapping[int, str]) -> None:
        """Write `data.yaml`, in which training and validation have all images, and end the data set.

        Args:
            names: of the classes by their ids; ids between them get a name.
        """
        every = {class_id: names.get(class_id, f"class {class_id}") for class_id in range(max(names, default=-1) + 1)}
        splits = {"train": "images", "val": "images"} if self._has_images else {}
        text = yaml.safe_dump({**splits, "names": every}, allow_unicode=True, sort_keys=False)
        with replacing(self._owned.claim("data.yaml")) as temporary:
            temporary.write_text(text, encoding="utf-8")
        if self._has_images:  # readers expect the folder also for none
            (self._owned.folder / "images").mkdir(exist_ok=True)
        self._owned.remove_others()
        self._owned.close()


def _yolo_line(class_id: int, mask: npt.NDArray[np.bool_]) -> str:
    height, width = mask.shape
    corners = one_polygon(mask) / [width, height]
    if len(corners) == 0:
        return ""
    return " ".join([str(class_id), *(f"{side:.6f}" for side in corners.ravel())]) + "\n"


def _copy(source: Path, target: Path) -> None:
    """Copy an image unless it is there already. No link: trainers mend damaged images where they lie."""
    status = source.stat()
    if target.exists():
        former = target.stat()
        if (former.st_size, former.st_mtime_ns) == (status.st_size, status.st_mtime_ns):
            return
    with replacing(target) as temporary:
        shutil.copy2(source, temporary)
