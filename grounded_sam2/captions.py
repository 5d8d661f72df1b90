"""The JSON of one image that also has a caption."""

import json
import os
from pathlib import Path

import supervision as sv

from grounded_sam2.export import write_json
from grounded_sam2.files import replacing

__all__ = ["read_caption", "write_captioned_json"]


def write_captioned_json(
    path: str | os.PathLike[str],
    image_path: str | os.PathLike[str],
    caption: str,
    detections: sv.Detections,
    size: tuple[int, int],
) -> None:
    """Write what `grounded_sam2.export.write_json` does, with a "caption" before it; `read_json` reads both.

    Args:
        path: of the JSON file; missing folders are made.
        image_path: of the image, written into the file as it is.
        caption: what the image shows, in words.
        detections: N ≥ 0.
        size: (width, height) of the image in pixels, also the size of the masks.

    Raises:
        ValueError: masks of another size.
        OSError: `path` cannot be written.
    """
    with replacing(path) as temporary:
        write_json(temporary, image_path, detections, size)
        entry = {"caption": caption, **json.loads(temporary.read_text(encoding="utf-8"))}
        temporary.write_text(json.dumps(entry, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_caption(path: str | os.PathLike[str]) -> str | None:
    """The caption in the JSON of an image; None where it has none.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, or not of an image.
    """
    try:
        caption = json.loads(Path(path).read_text(encoding="utf-8")).get("caption")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not the JSON of an image: {error}") from error
    return None if caption is None else str(caption)
