"""A tracked video's annotations in the formats that other programs read.

    python -m grounded_sam2.export_formats outputs/parade.jsonl                          # all of them, beside the file
    python -m grounded_sam2.export_formats outputs/parade.jsonl --formats coco mot --output-dir exports
    python -m grounded_sam2.export_formats outputs/parade.jsonl --formats yolo --video-path moved/parade.mp4

| format | what is written |
|---|---|
| `coco` | `coco.json`: COCO instances, one image per frame, `track_id` added |
| `youtube_vis` | `youtube_vis.json`: YouTube-VIS ("COCO video"), one annotation per object with a mask per frame |
| `mot` | `mot.txt`: MOTChallenge boxes, frames counted from 1 |
| `mots` | `mots.txt`: MOTS run-length encoded masks, without overlaps |
| `yolo` | `yolo/`: a data set that trains as it is: labels with a polygon per object, images, `data.yaml` |
| `davis` | `davis/`: one palette PNG per frame, whose pixels are ids |

Classes are the phrases of the run in their order, also those that were never found. A frame is called as its image file
is, or after the video that it is of: `parade/00012.jpg`. Files without a header (of older versions) say neither: then
classes are those that were found, and a frame is called by its number.

The images of `yolo` are read from what was tracked, where that is still at hand (not for live streams).

What an earlier export left in the folder is replaced, and files that it alone wrote go. Other files stay: a name that
something else has is an error.

The annotations are read frame by frame and never held together, but for `youtube_vis`, whose format needs all of an
object's masks at once; it keeps them run-length encoded.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage
from pycocotools import mask as coco_mask

from grounded_sam2.export.annotations import ImageAnnotations, read_frame_annotations, read_header
from grounded_sam2.export.coco_yolo import FIRST_CATEGORY, YoloFolder, box_xywh, coco_annotation, coco_categories
from grounded_sam2.export.id_maps import id_map
from grounded_sam2.files import Inputs, replacing
from grounded_sam2.masks import encode_rle
from grounded_sam2.owned import OwnedFolder, source_ids
from grounded_sam2.script import script_errors
from sam2.frames import IndexedFrameSource, open_path
from sam2.frames.still_image import check_regular_file

__all__ = ["FORMATS", "write_coco", "write_davis", "write_mot", "write_mots", "write_yolo", "write_youtube_vis"]

logger = logging.getLogger(__name__)

_MOST_GAPS = 100_000  # frames that YouTube-VIS lists and that are not in the file
StrPath = str | os.PathLike[str]

_LARGEST_PALETTE_ID = 255


@dataclass(frozen=True)
class _Object:
    """One object on one frame."""

    obj_id: int
    class_id: int
    class_name: str
    xyxy: npt.NDArray[np.floating]  # (4,) pixels
    mask: npt.NDArray[np.bool_]  # (H, W)
    confidence: float | None


class _Video:
    """A file of annotations: its frames, one after another, and what things are called.

    Attributes:
        class_names: class id → name; the phrases of the header, and what was found beside them so far.
        size: (width, height) in pixels as the header has it; (0, 0) without one.
        about: "description" and "fps", as far as the header has them.
        header: of the file; None where it has none.
    """

    def __init__(self, annotations_path: StrPath) -> None:
        if Path(annotations_path).exists():
            check_regular_file(Path(annotations_path), "the annotations of a video")
        self._path = annotations_path
        self._inputs = Inputs(annotations_path)
        self.header = header = read_header(annotations_path)
        if header is None and os.path.getsize(annotations_path) == 0:
            raise ValueError(f"{annotations_path} is empty, expected the annotations of a video")
        source = None if header is None else header.source
        self.class_names: dict[int, str] = {} if header is None else dict(enumerate(header.phrases))
        self.size = (0, 0) if header is None else header.size
        self.about: dict[str, Any] = {} if source is None else {"description": source}
        if header is not None and header.fps is not None:
            self.about["fps"] = float(header.fps)
        self._folder = "" if source is None else f"{PurePath(_plain_name(source)).stem or 'video'}/"
        self._used_stems: set[str] = set()

    def frames(self) -> Iterator[tuple[int, ImageAnnotations]]:
        """Frame index and frame."""
        for position, frame in enumerate(read_frame_annotations(self._path)):
            yield position if frame.frame_idx is None else frame.frame_idx, frame

    def objects(self, frame: ImageAnnotations) -> list[_Object]:
        """The objects of a frame, whose classes are noted.

        Raises:
            ValueError: objects without ids, classes or masks.
        """
        objects = _objects(frame)
        for obj in objects:
            self.class_names.setdefault(obj.class_id, obj.class_name)
        return objects

    def pictures(self, video_path: StrPath | None) -> IndexedFrameSource | None:
        """The frames themselves; None, which is logged, where they are not at hand.

        Args:
            video_path: the video file or folder of frames; None: what the header names.

        Raises:
            ValueError: `video_path` has frames of another size, or cannot be read.
        """
        if video_path is not None:
            return self._opened(video_path)
        header = self.header
        is_live = header is not None and "LATENCY" in header.settings  # its frames are not counted as the file's are
        source = None if header is None or is_live else header.source
        try:
            if source is not None and Path(source).exists():
                return self._opened(source)
            reason = "they are not at hand"
        except ValueError as error:
            reason = str(error)
        logger.warning("yolo has labels and no images (%s): name the frames with --video-path", reason)
        return None

    def _opened(self, video_path: StrPath) -> IndexedFrameSource:
        pictures = open_path(video_path)
        if self.header is not None and pictures.size != self.header.size:
            raise ValueError(f"{video_path}: expected frames of {self.size}, as were tracked, got {pictures.size}")
        return pictures

    def image_name(self, frame_idx: int, frame: ImageAnnotations | None) -> str:
        """What a frame is called as an image, with "/"; None stands for a frame that is not in the file."""
        name = "" if frame is None or frame.image_path is None else _plain_name(frame.image_path)
        return name or f"{self._folder}{frame_idx:05d}.jpg"

    def stem(self, frame_idx: int, frame: ImageAnnotations) -> str:
        """What a file about the frame is called: the image without its suffix, or with it where that is taken."""
        name = self.image_name(frame_idx, frame)
        stem = name.removesuffix(PurePath(name).suffix)
        stem = name if stem in self._used_stems else stem
        self._used_stems.add(stem)
        return stem


def _plain_name(path: str) -> str:
    """The last part of a path, as a name that every system takes and that leads nowhere else; "" for none."""
    name = re.sub(r'[<>:"|?*\\]', "_", PurePath(path).name)
    return "" if name == ".." else name


def _objects(frame: ImageAnnotations) -> list[_Object]:
    """The objects of a frame.

    Raises:
        ValueError: objects without ids, classes or masks.
    """
    detections = frame.detections
    if len(detections) == 0:
        return []
    class_names = detections.data.get("class_name")
    mask, obj_ids, class_ids = detections.mask, detections.tracker_id, detections.class_id
    if mask is None or obj_ids is None or class_ids is None or class_names is None:
        fields = {"mask": mask, "tracker_id": obj_ids, "class_id": class_ids, "class_name": class_names}
        missing = ", ".join(name for name, field in fields.items() if field is None)
        raise ValueError(f"expected tracked objects with masks; frame {frame.frame_idx} has no {missing}")
    confidence = detections.confidence
    return [
        _Object(
            int(obj_ids[row]),
            int(class_ids[row]),
            str(class_names[row]),
            detections.xyxy[row],
            np.asarray(mask[row], dtype=bool),
            None if confidence is None else float(confidence[row]),
        )
        for row in range(len(detections))
    ]


def write_coco(annotations_path: StrPath, path: StrPath) -> None:
    """COCO instances: an image per frame, boxes xywh, masks run-length encoded, `track_id` and `score` added.

    Args:
        annotations_path: lines that `FrameAnnotationWriter` wrote.
        path: of the JSON file.

    Raises:
        FileNotFoundError: there are no annotations.
        ValueError: they are in another format, or objects have no id, class or mask.
    """
    video = _Video(annotations_path)
    images: list[dict[str, Any]] = []
    num_annotations = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"annotations": [')
        for frame_idx, frame in video.frames():
            size = {"width": frame.width, "height": frame.height}
            name = video.image_name(frame_idx, frame)
            images.append({"id": frame_idx + 1, "file_name": name, **size, "frame_id": frame_idx})
            for obj in video.objects(frame):
                [segmentation] = encode_rle(obj.mask[None])
                annotation = coco_annotation(
                    num_annotations + 1, frame_idx + 1, obj.class_id, obj.xyxy, segmentation, obj.confidence
                )
                annotation["track_id"] = obj.obj_id
                file.write((", " if num_annotations else "") + json.dumps(annotation))
                num_annotations += 1
        rest = {"info": video.about, "images": images, "categories": coco_categories(video.class_names)}
        file.write("], " + json.dumps(rest)[1:] + "\n")


def write_youtube_vis(annotations_path: StrPath, path: StrPath) -> None:
    """YouTube-VIS: one video, one annotation per object; arguments and errors as in `write_coco`."""
    video = _Video(annotations_path)
    tracks: dict[int, dict[str, Any]] = {}
    class_of: dict[int, int] = {}
    scores: dict[int, list[float]] = {}
    names: dict[int, str] = {}
    size = video.size
    for frame_idx, frame in video.frames():
        names[frame_idx], size = video.image_name(frame_idx, frame), (frame.width, frame.height)
        for obj in video.objects(frame):
            class_of[obj.obj_id] = obj.class_id  # what it was taken for last
            if obj.confidence is not None:
                scores.setdefault(obj.obj_id, []).append(obj.confidence)
            track = tracks.setdefault(obj.obj_id, {"segmentations": {}, "bboxes": {}, "areas": {}})
            [segmentation] = encode_rle(obj.mask[None])
            track["segmentations"][frame_idx] = segmentation
            track["bboxes"][frame_idx] = box_xywh(obj.xyxy)
            track["areas"][frame_idx] = float(coco_mask.area(segmentation))
    num_frames = max(names, default=-1) + 1
    if num_frames > _MOST_GAPS + 100 * len(names):
        raise ValueError(f"{annotations_path}: {len(names)} frames, the last of which has frame_idx {num_frames - 1}")
    file_names = [names.get(frame_idx) or video.image_name(frame_idx, None) for frame_idx in range(num_frames)]
    length = {"width": size[0], "height": size[1], "length": num_frames}
    entry = {
        "info": video.about,
        "videos": [{"id": 1, **length, "file_names": file_names}],
        "annotations": [
            {
                "id": obj_id,
                "video_id": 1,
                "category_id": class_of[obj_id] + FIRST_CATEGORY,
                "iscrowd": 0,
                **length,
                "score": float(np.mean(scores[obj_id])) if obj_id in scores else None,
                **{key: [by_frame.get(t) for t in range(num_frames)] for key, by_frame in track.items()},
            }
            for obj_id, track in sorted(tracks.items())
        ],
        "categories": coco_categories(video.class_names),
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(entry) + "\n", encoding="utf-8")


def write_mot(annotations_path: StrPath, path: StrPath) -> None:
    """MOTChallenge boxes: frame (from 1), id, left, top, width, height, confidence, -1, -1, -1; see `write_coco`."""
    video = _Video(annotations_path)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for frame_idx, frame in video.frames():
            for obj in video.objects(frame):
                box = ",".join(f"{side:.2f}" for side in box_xywh(obj.xyxy))
                confidence = 1.0 if obj.confidence is None else obj.confidence
                file.write(f"{frame_idx + 1},{obj.obj_id},{box},{confidence:.4f},-1,-1,-1\n")


def write_mots(annotations_path: StrPath, path: StrPath) -> None:
    """MOTS masks: frame (from 0), id, category, height, width, run-length encoding; see `write_coco`.

    The format forbids overlaps: where masks meet, the smaller object has the pixel.
    """
    video = _Video(annotations_path)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for frame_idx, frame in video.frames():
            objects = video.objects(frame)
            ids = id_map(frame.detections, (frame.width, frame.height))
            for obj in objects:
                [segmentation] = encode_rle((ids == obj.obj_id)[None])
                place = f"{frame_idx} {obj.obj_id} {obj.class_id + FIRST_CATEGORY} {frame.height} {frame.width}"
                file.write(f"{place} {segmentation['counts']}\n")


def write_yolo(annotations_path: StrPath, folder: StrPath, video_path: StrPath | None = None) -> None:
    """A data set for YOLO segmentation, see `YoloFolder`, in which files are called as frames are; see `write_coco`.

    Args:
        folder: gets `data.yaml`, `labels/` and `images/`.
        video_path: where the frames are; None: as the annotations say. Without frames there are labels only.

    Raises:
        ValueError: also for a video of other frames.
    """
    video = _Video(annotations_path)
    pictures = video.pictures(video_path)
    data_set = YoloFolder(folder)
    for frame_idx, frame in video.frames():
        if pictures is not None and frame_idx >= len(pictures):
            raise ValueError(f"{pictures.name} has {len(pictures)} frames, the annotations have frame {frame_idx}")
        objects = ((obj.class_id, obj.mask) for obj in video.objects(frame))
        data_set.add(video.stem(frame_idx, frame), objects, None if pictures is None else pictures[frame_idx])
    data_set.finish(video.class_names)


def write_davis(annotations_path: StrPath, folder: StrPath) -> None:
    """DAVIS: palette images whose pixels are object ids, 0 for none, called as the frames are; see `write_coco`.

    Raises:
        ValueError: also for an id above 255, which a palette image cannot hold.
    """
    palette = davis_palette()
    video = _Video(annotations_path)
    owned = OwnedFolder(folder)
    for frame_idx, frame in video.frames():
        largest = max((obj.obj_id for obj in video.objects(frame)), default=0)
        if largest > _LARGEST_PALETTE_ID:
            raise ValueError(f"a DAVIS image holds ids up to {_LARGEST_PALETTE_ID}, frame {frame_idx} has {largest}")
        picture = PILImage.fromarray(id_map(frame.detections, (frame.width, frame.height)).astype(np.uint8), mode="P")
        picture.putpalette(palette)
        with replacing(owned.claim(f"{PurePath(video.stem(frame_idx, frame)).name}.png")) as temporary:
            picture.save(temporary, format="PNG")
    owned.remove_others()


def davis_palette() -> bytes:
    """256 RGB colours, those of PASCAL VOC and DAVIS: the bits of an id, dealt out to the channels from the top."""
    ids = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((ids >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours.tobytes()


FORMATS: dict[str, tuple[Callable[..., None], str]] = {
    "coco": (write_coco, "coco.json"),
    "youtube_vis": (write_youtube_vis, "youtube_vis.json"),
    "mot": (write_mot, "mot.txt"),
    "mots": (write_mots, "mots.txt"),
    "yolo": (write_yolo, "yolo"),
    "davis": (write_davis, "davis"),
}


def main() -> None:
    """Convert a file of annotations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path, help="*.jsonl that a tracking script wrote")
    parser.add_argument("--formats", nargs="+", choices=list(FORMATS), default=list(FORMATS), help="default: all")
    parser.add_argument("--output-dir", type=Path, help="default: a folder named like the annotations, beside them")
    parser.add_argument("--video-path", type=Path, help="frames, for images of yolo; default: as the annotations say")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with script_errors("grounded_sam2.export_formats"):
        annotations = options.annotations.expanduser()
        if not annotations.exists():
            raise FileNotFoundError(f"no such annotations: {annotations}")
        owned = OwnedFolder((options.output_dir or annotations.with_suffix("")).expanduser(), annotations)
        paths = [owned.claim(FORMATS[name][1], source_ids(annotations)) for name in options.formats]
        for name, path in zip(options.formats, paths, strict=True):
            more = (options.video_path,) if name == "yolo" else ()
            FORMATS[name][0](annotations, path, *more)
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
