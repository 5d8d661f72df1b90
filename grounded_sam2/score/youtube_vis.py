"""YouTube-VIS JSON as videos to be scored: what is annotated, or the bare list of what was found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from grounded_sam2 import plain_json
from grounded_sam2.export.annotations import LARGEST_FRAME_IDX
from grounded_sam2.masks import check_rle
from grounded_sam2.plain_json import check_box, check_number, check_text, check_whole
from grounded_sam2.score.video import FrameObjects, Rle, Video, compressed, held_video

__all__ = ["read_youtube_vis"]

Entry = dict[str, Any]


def read_youtube_vis(path: Path) -> tuple[dict[int, Video], dict[int, str]]:
    """The videos of a file by their ids, and what they are called: the folder of their frames, or "video 1".

    A list of results says neither frames nor names: its videos are those that something was found in.

    Raises:
        ValueError: another format.
        OSError: the file cannot be read.
    """
    try:
        content = plain_json.loads(path.read_text(encoding="utf-8"))
        found = content if isinstance(content, list) else content["annotations"]
        entries = [] if isinstance(content, list) else content["videos"]
        categories = [] if isinstance(content, list) else content.get("categories", [])
        names = {check_whole(each["id"], "id"): check_text(each["name"], "name") for each in categories}
        tracks: dict[int, list[Entry]] = {check_whole(entry["id"], "id"): [] for entry in entries}
        for track in found:
            video_id = check_whole(track["video_id"], "video_id")
            if entries and video_id not in tracks:
                raise ValueError(f"there is no video {video_id}, of which something is annotated")
            tracks.setdefault(video_id, []).append(track)
        by_id: dict[int, Entry | None] = dict.fromkeys(tracks) | {entry["id"]: entry for entry in entries}
        videos = {
            video_id: _video(by_id[video_id], of_video, names, f"{path}, video {video_id}")
            for video_id, of_video in tracks.items()
        }
        return videos, {video_id: _called(video_id, entry) for video_id, entry in by_id.items()}
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise ValueError(f"{path} is no JSON of YouTube-VIS: {error!r}") from error


def _called(video_id: int, entry: Entry | None) -> str:
    files = [] if entry is None else entry.get("file_names") or []
    folder = PurePath(check_text(files[0], "file_names")).parent.name if files else ""
    return folder or f"video {video_id}"


def _video(entry: Entry | None, tracks: list[Entry], names: Mapping[int, str], origin: str) -> Video:
    key = "segmentations" if all("segmentations" in track for track in tracks) else "bboxes"
    lengths = {len(track[key]) for track in tracks}
    size = None
    if entry is not None:
        size = check_whole(entry["width"], "width", 1), check_whole(entry["height"], "height", 1)
        length = len(entry["file_names"]) if "file_names" in entry else check_whole(entry["length"], "length")
        lengths.add(length)
    if len(lengths) > 1 or max(lengths, default=0) > LARGEST_FRAME_IDX:
        raise ValueError(f"{origin}: expected as many {key} as frames, got {sorted(lengths)}")
    shape = None if size is None else (size[1], size[0])
    if entry is None:  # results have no ids: they are told apart by their order
        tracks = [{**track, "id": position + 1} for position, track in enumerate(tracks)]
    objects: dict[int, FrameObjects] = {}
    for frame_idx in range(max(lengths, default=0)):
        seen = [track for track in tracks if track[key][frame_idx]]
        masks = [_mask(track[key][frame_idx], shape) for track in seen] if key == "segmentations" else None
        if masks and shape is None:
            shape = masks[0]["size"][0], masks[0]["size"][1]
        objects[frame_idx] = _objects(seen, frame_idx, masks, names)
    return held_video(origin, None if shape is None else (shape[1], shape[0]), objects, lists_frames=entry is not None)


def _objects(seen: list[Entry], frame_idx: int, masks: list[Rle] | None, names: Mapping[int, str]) -> FrameObjects:
    numbers = [check_whole(track["category_id"], "category_id") for track in seen]
    boxes = None
    if all("bboxes" in track and track["bboxes"][frame_idx] for track in seen):
        xywh = np.array([check_box(track["bboxes"][frame_idx]) for track in seen]).reshape(-1, 4)
        boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    scores = [track.get("score") for track in seen]
    return FrameObjects.of(
        [check_whole(track["id"], "id") for track in seen],
        boxes=boxes,
        masks=masks,
        scores=[1.0 if score is None else check_number(score, "score") for score in scores],
        names=[names[number] for number in numbers] if all(number in names for number in numbers) else None,
        numbers=numbers,
        is_crowd=[bool(track.get("iscrowd")) for track in seen],
    )


def _mask(segmentation: Any, shape: tuple[int, int] | None) -> Rle:
    """A mask as it is compared, from compressed or plain run lengths."""
    height, width = shape or (check_whole(side, "size", 1) for side in segmentation["size"])
    counts = segmentation["counts"]
    if isinstance(counts, list):
        runs = [check_whole(run, "counts") for run in counts]
        if segmentation["size"] != [height, width] or sum(runs) != height * width:
            raise ValueError(f"expected runs of {height * width} pixels, got {sum(runs)} of {segmentation['size']}")
        return compressed(runs, height, width)
    check_rle(segmentation, (height, width))
    return {"size": [height, width], "counts": counts}
