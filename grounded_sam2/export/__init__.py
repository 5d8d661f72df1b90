"""What was found as files, and back: JSON of images and videos, maps of ids, and other programs' formats."""

from grounded_sam2.export.annotations import (
    FrameAnnotations,
    FrameAnnotationWriter,
    ImageAnnotations,
    VideoHeader,
    read_caption,
    read_frame_annotations,
    read_header,
    read_json,
    write_json,
)
from grounded_sam2.export.id_maps import IdMapWriter, id_map, read_id_map

__all__ = [
    "FrameAnnotationWriter",
    "FrameAnnotations",
    "IdMapWriter",
    "ImageAnnotations",
    "VideoHeader",
    "id_map",
    "read_caption",
    "read_frame_annotations",
    "read_header",
    "read_id_map",
    "read_json",
    "write_json",
]
