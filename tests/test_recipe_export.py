"""Recipe: another export. This one writes the centre of every box as a CSV, by what a run's header and lines say."""

import csv
from fractions import Fraction
from pathlib import Path

import numpy as np
import supervision as sv

from grounded_sam2.export import FrameAnnotationWriter, VideoHeader, read_frame_annotations, read_header
from grounded_sam2.files import replacing


def write_centres(annotations_path: Path, path: Path) -> None:
    """One row for each object on each frame: seconds from the start, id, phrase, and x and y as shares of the frame."""
    header = read_header(annotations_path)
    if header is None or header.fps is None:
        raise ValueError(f"{annotations_path} has no header with a frame rate: expected a file of this version")
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["seconds", "tracker_id", "phrase", "x", "y"])
        for frame in read_frame_annotations(annotations_path):
            objects = frame.detections
            centres = objects.get_anchors_coordinates(sv.Position.CENTER) / header.size
            for row, (x, y) in enumerate(centres):
                phrase = header.phrases[objects.class_id[row]]
                seconds = float(frame.frame_idx / header.fps)
                rows.writerow([f"{seconds:.3f}", objects.tracker_id[row], phrase, f"{x:.3f}", f"{y:.3f}"])


def test_centres(tmp_path: Path) -> None:
    header = VideoHeader((200, 100), "clip.mp4", Fraction(30000, 1001), ("dog", "red car"))
    car = sv.Detections(
        xyxy=np.array([[10, 20, 30, 40]], np.float32),
        class_id=np.array([1]),
        tracker_id=np.array([7]),
        data={"class_name": np.array(["red car"])},
    )
    with FrameAnnotationWriter(tmp_path / "clip.jsonl", header) as writer:
        for frame_idx, objects in enumerate([sv.Detections.empty(), car, car]):
            writer.write(frame_idx, objects)
    write_centres(tmp_path / "clip.jsonl", tmp_path / "centres.csv")
    assert (tmp_path / "centres.csv").read_text(encoding="utf-8").splitlines() == [
        "seconds,tracker_id,phrase,x,y",
        "0.033,7,red car,0.100,0.300",
        "0.067,7,red car,0.100,0.300",
    ]
