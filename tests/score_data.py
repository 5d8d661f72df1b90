"""Truths and runs to score: objects that wander, and what a poor tracker makes of them; and both as files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import supervision as sv
from PIL import Image

from grounded_sam2.export import FrameAnnotationWriter, VideoHeader, id_map
from grounded_sam2.export.formats import davis_palette
from grounded_sam2.masks import boxes_around, encode_rle

SIZE = (80, 60)  # (width, height) in pixels
NAMES = ("dog", "cat")
FIRST_ALIAS = 119  # the id that a run has for the first object; that of others is lower


@dataclass
class Frame:
    """Objects of one frame: ids (N,), masks (N, H, W) that do not overlap, class ids and scores (N,)."""

    ids: np.ndarray
    masks: np.ndarray
    class_ids: np.ndarray
    scores: np.ndarray

    @property
    def boxes(self) -> np.ndarray:
        return boxes_around(self.masks) if len(self.ids) else np.zeros((0, 4), np.float32)


def make_pair(seed: int, num_frames: int = 24, num_objects: int = 5) -> tuple[list[Frame], list[Frame]]:
    """A truth of at least 4 objects, and a run that misses, invents, switches ids within a class and draws sloppily."""
    rng = np.random.default_rng(seed)
    starts, steps = rng.uniform(10, 50, (num_objects, 2)), rng.normal(0, 1.2, (num_objects, 2))
    radii, class_ids = rng.uniform(5, 12, num_objects), np.arange(num_objects) % 2
    truth, run = [], []
    alias = FIRST_ALIAS - np.arange(num_objects)
    for t in range(num_frames):
        centers = starts + t * steps
        there = rng.random(num_objects) > 0.15
        truth.append(
            _frame(np.flatnonzero(there) + 1, centers[there], radii[there], class_ids[there], np.ones(there.sum()))
        )
        if rng.random() < 0.1:
            of_class = np.flatnonzero(class_ids == rng.integers(2))
            one, other = rng.choice(of_class, 2, replace=False)
            alias[[one, other]] = alias[[other, one]]
        seen = there & (rng.random(num_objects) > 0.2)
        ids, at = alias[seen], centers[seen] + rng.normal(0, 1.5, (seen.sum(), 2))
        sizes, kinds = radii[seen] * rng.uniform(0.8, 1.2, seen.sum()), class_ids[FIRST_ALIAS - ids]
        if rng.random() < 0.3:  # something that is not there
            ids, kinds = np.append(ids, 120 + rng.integers(3)), np.append(kinds, 0)
            at, sizes = np.vstack([at, rng.uniform(5, 55, 2)]), np.append(sizes, rng.uniform(4, 9))
        run.append(_frame(ids, at, sizes, kinds, rng.uniform(0.3, 1, len(ids))))
    return truth, run


def _frame(ids: np.ndarray, centers: np.ndarray, radii: np.ndarray, class_ids: np.ndarray, scores: np.ndarray) -> Frame:
    width, height = SIZE
    rows, columns = np.mgrid[:height, :width]
    nearest = np.full((height, width), -1)
    for row in range(len(ids)):  # later ones lie on top
        nearest[(columns - centers[row, 0]) ** 2 + (rows - centers[row, 1]) ** 2 <= radii[row] ** 2] = row
    masks = nearest[None] == np.arange(len(ids))[:, None, None]
    seen = masks.any((1, 2))
    return Frame(ids[seen].astype(int), masks[seen], class_ids[seen].astype(int), scores[seen])


# ---- as files ----


def write_jsonl(path: Path, frames: list[Frame]) -> Path:
    with FrameAnnotationWriter(path, VideoHeader(SIZE, phrases=NAMES)) as writer:
        for frame_idx, frame in enumerate(frames):
            detections = sv.Detections(
                xyxy=frame.boxes,
                mask=frame.masks,
                tracker_id=frame.ids,
                class_id=frame.class_ids,
                confidence=frame.scores.astype(np.float32),
                data={"class_name": np.array([NAMES[class_id] for class_id in frame.class_ids], dtype=np.str_)},
            )
            writer.write(frame_idx, detections if len(frame.ids) else sv.Detections.empty())
    return path


def write_mot(path: Path, frames: list[Frame], marks: dict[int, tuple[int, int]] | None = None) -> Path:
    """`marks`: of a truth, mark and class of some objects by id, 1 and 1 for the others; None: it is a run."""
    lines = []
    for frame_idx, frame in enumerate(frames):
        for obj_id, (left, top, right, bottom), score in zip(frame.ids, frame.boxes, frame.scores, strict=True):
            mark, kind = (marks or {}).get(int(obj_id), (1, 1))
            end = f"{score:.6f},-1,-1,-1" if marks is None else f"{mark},{kind},1"
            lines.append(f"{frame_idx + 1},{obj_id},{left:.2f},{top:.2f},{right - left:.2f},{bottom - top:.2f},{end}\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))
    return path


def write_mots(
    path: Path,
    frames: list[Frame],
    first_frame: int = 0,
    category: int | None = None,
    region: tuple[slice, slice] | None = None,
) -> Path:
    """`category`: of all objects; None: by their classes. `region`: of a truth, where nothing is annotated."""
    lines = []
    for frame_idx, frame in enumerate(frames):
        rows = [*zip(frame.ids.tolist(), (frame.class_ids + 1).tolist(), encode_rle(frame.masks), strict=True)]
        rows = [(obj_id, category or number, mask) for obj_id, number, mask in rows]
        if region is not None:
            mask = np.zeros((1, SIZE[1], SIZE[0]), bool)
            mask[0][region] = True
            rows.append((10_000, 10, encode_rle(mask & ~frame.masks.any(axis=0))[0]))
        for obj_id, number, mask in rows:
            lines.append(f"{frame_idx + first_frame} {obj_id} {number} {SIZE[1]} {SIZE[0]} {mask['counts']}\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))
    return path


def write_davis(folder: Path, frames: list[Frame], void: tuple[slice, slice] | None = None) -> Path:
    """`void`: rows and columns of pixels that belong to nobody."""
    folder.mkdir(parents=True)
    for frame_idx, frame in enumerate(frames):
        objects = (
            sv.Detections(frame.boxes, frame.masks, tracker_id=frame.ids) if len(frame.ids) else sv.Detections.empty()
        )
        pixels = id_map(objects, SIZE).astype(np.uint8)
        if void is not None:
            pixels[void] = 255
        image = Image.fromarray(pixels, mode="P")
        image.putpalette(davis_palette())
        image.save(folder / f"{frame_idx:05d}.png")
    return folder


def youtube_vis_tracks(video_id: int, frames: list[Frame], is_plain: bool = False) -> list[dict]:
    """The annotations of a video; `is_plain`: with run lengths as numbers, as truths have them."""
    tracks: dict[int, dict] = {}
    for frame_idx, frame in enumerate(frames):
        for row, (obj_id, mask) in enumerate(zip(frame.ids.tolist(), encode_rle(frame.masks), strict=True)):
            track = tracks.setdefault(
                obj_id,
                {
                    "id": 1000 * video_id + obj_id, "video_id": video_id, "category_id": int(frame.class_ids[row]) + 1,
                    "iscrowd": 0, "width": SIZE[0], "height": SIZE[1], "score": 0.05 + (obj_id * 37 % 90) / 100,
                    "segmentations": [None] * len(frames), "areas": [None] * len(frames),
                },
            )  # fmt: skip
            track["segmentations"][frame_idx] = _plain(frame.masks[row]) if is_plain else mask
            track["areas"][frame_idx] = int(frame.masks[row].sum())
    return list(tracks.values())


def _plain(mask: np.ndarray) -> dict:
    flat = mask.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], edges, [len(flat)]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def youtube_vis(videos: dict[str, list[Frame]], is_plain: bool = True) -> dict:
    """The JSON of a truth of several videos."""
    return {
        "videos": [
            {
                "id": position + 1, "width": SIZE[0], "height": SIZE[1], "length": len(frames),
                "file_names": [f"{name}/{frame_idx:05d}.jpg" for frame_idx in range(len(frames))],
            }
            for position, (name, frames) in enumerate(videos.items())
        ],
        "annotations": [
            track
            for position, frames in enumerate(videos.values())
            for track in youtube_vis_tracks(position + 1, frames, is_plain)
        ],
        "categories": [{"id": position + 1, "name": name} for position, name in enumerate(NAMES)],
    }  # fmt: skip


def write_youtube_vis(path: Path, videos: dict[str, list[Frame]], is_plain: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(youtube_vis(videos, is_plain)))
    return path
