"""The JSON files of many images as one data set: COCO instances, YOLO labels.

Files are read one after another, so any number of them can be written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from grounded_sam2 import plain_json
from grounded_sam2.export.coco_yolo import YoloFolder, coco_annotation, coco_categories
from grounded_sam2.files import replacing
from grounded_sam2.masks import check_rle, decode_rle

__all__ = ["ExportedImage", "write_image_coco", "write_image_yolo"]

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class ExportedImage:
    """One image of a data set.

    Attributes:
        image_id: at least 1, unique.
        file_name: what the data set calls the image.
        stem: of its label file, a relative path without suffix.
        json_path: what `grounded_sam2.export.write_json` wrote about it.
        image_path: of the image itself; None where it is not at hand.
    """

    image_id: int
    file_name: str
    stem: str
    json_path: Path
    image_path: Path | None = None


@dataclass(frozen=True)
class _Entry:
    """What a JSON file says: the image's size and its objects, with their class ids."""

    width: int
    height: int
    objects: list[tuple[int, dict[str, Any]]]


def _read_entry(path: Path, class_ids: dict[str, int]) -> _Entry:
    """Read a file of `write_json`, masks as they are encoded.

    Raises:
        ValueError: it is none, has objects without masks or of a class that is not in `class_ids`.
    """
    try:
        entry = plain_json.loads(path.read_text(encoding="utf-8"))
        objects = [(class_ids[annotation["class_name"]], annotation) for annotation in entry["annotations"]]
        width, height = plain_json.check_size(entry)
        for _, annotation in objects:
            check_rle(annotation["segmentation"], (height, width))
            plain_json.check_box(annotation["bbox"])
        return _Entry(width, height, objects)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        legal = ", ".join(class_ids)
        raise ValueError(f"{path} holds no annotations with masks of the classes {legal}: {error!r}") from error


def write_image_coco(images: Iterable[ExportedImage], class_names: Sequence[str], path: StrPath) -> None:
    """Write COCO instances: boxes xywh, masks run-length encoded, `score` added.

    Args:
        images: read one after another.
        class_names: the categories, with ids from 1 in this order, whether they occur or not.
        path: of the JSON file.

    Raises:
        FileNotFoundError: an image's JSON file is not there.
        ValueError: it is not what `write_json` writes, or names other classes.
    """
    class_ids = {name: class_id for class_id, name in enumerate(class_names)}
    entries: list[dict[str, Any]] = []
    num_annotations = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"info": {}, "annotations": [')
        for image in images:
            entry = _read_entry(image.json_path, class_ids)
            size = {"width": entry.width, "height": entry.height}
            entries.append({"id": image.image_id, "file_name": image.file_name, **size})
            for class_id, annotation in entry.objects:
                num_annotations += 1
                coco = coco_annotation(
                    num_annotations,
                    image.image_id,
                    class_id,
                    np.array(annotation["bbox"], dtype=np.float64),
                    annotation["segmentation"],
                    annotation["score"],
                )
                file.write((", " if num_annotations > 1 else "") + json.dumps(coco))
        categories = coco_categories(dict(enumerate(class_names)))
        file.write(f'], "images": {json.dumps(entries)}, "categories": {json.dumps(categories)}}}\n')


def write_image_yolo(images: Iterable[ExportedImage], class_names: Sequence[str], folder: StrPath) -> None:
    """Write a data set for YOLO segmentation; see `YoloFolder`.

    Args:
        images: read one after another.
        class_names: classes count from 0 in this order.
        folder: gets `labels/<stem>.txt`, `images/` with copies of the images, and `data.yaml`.

    Raises:
        FileNotFoundError: an image's JSON file is not there.
        ValueError: it is not what `write_json` writes, or names other classes.
    """
    class_ids = {name: class_id for class_id, name in enumerate(class_names)}
    data_set = YoloFolder(folder)
    for image in images:
        entries = _read_entry(image.json_path, class_ids).objects
        objects = ((class_id, decode_rle([annotation["segmentation"]])[0]) for class_id, annotation in entries)
        data_set.add(image.stem, objects, image.image_path)
    data_set.finish(dict(enumerate(class_names)))
