"""Id maps and event logs: written, read back, never half there."""

import json
from pathlib import Path

import numpy as np
import pytest
import supervision as sv

from grounded_sam2.export import IdMapWriter, id_map, read_id_map

SIZE = (12, 8)  # width, height


def objects(count: int) -> sv.Detections:
    """Bars that do not overlap, with ids 5, 6, …"""
    masks = np.zeros((count, SIZE[1], SIZE[0]), bool)
    for row in range(count):
        masks[row, 1:7, 3 * row : 3 * row + 2] = True
    return sv.Detections(
        xyxy=sv.mask_to_xyxy(masks).astype(np.float32).reshape(-1, 4),
        mask=masks,
        confidence=np.linspace(0.5, 0.9, count, dtype=np.float32),
        class_id=np.arange(count)[::-1].astype(np.int64),
        tracker_id=np.arange(5, 5 + count),
        data={
            "class_name": np.array(["déjà vu", "dog", "cat"][:count], dtype=np.str_),
            "mask_score": np.linspace(0.1, 0.3, count, dtype=np.float32),
        },
    )


@pytest.mark.parametrize("count", [0, 1, 3])
def test_what_is_written_is_read_back(tmp_path: Path, count: int) -> None:
    with IdMapWriter(tmp_path, SIZE) as writer:
        writer.write(0, objects(count))
    read = read_id_map(tmp_path, 0)
    expected = objects(count)
    assert len(read) == count
    assert np.array_equal(read.mask, expected.mask) and read.mask.shape == (count, *SIZE[::-1])
    for name in ("xyxy", "confidence", "class_id", "tracker_id"):
        assert np.array_equal(getattr(read, name), getattr(expected, name)), name
    assert read.data["class_name"].tolist() == expected.data["class_name"].tolist()
    if count:
        assert np.array_equal(read.data["mask_score"], expected.data["mask_score"])


def test_the_files_are_in_the_known_format(tmp_path: Path) -> None:
    with IdMapWriter(tmp_path, SIZE) as writer:
        writer.write(7, objects(2))
    ids = np.load(tmp_path / "mask_data/mask_00007.npy")
    assert ids.dtype == np.uint16 and ids.shape == (8, 12) and set(np.unique(ids)) == {0, 5, 6}
    entry = json.loads((tmp_path / "json_data/mask_00007.json").read_text(encoding="utf-8"))
    assert entry["mask_name"] == "mask_00007.npy" and (entry["mask_height"], entry["mask_width"]) == (8, 12)
    assert entry["promote_type"] == "mask" and list(entry["labels"]) == ["5", "6"]
    label = entry["labels"]["6"]
    assert (label["instance_id"], label["class_name"], label["x1"]) == (6, "dog", 3.0)
    assert label["logit"] == pytest.approx(0.9)


def test_the_smaller_object_is_on_top() -> None:
    masks = np.zeros((2, SIZE[1], SIZE[0]), bool)
    masks[0, 2:4, 2:4] = True
    masks[1] = True
    both = sv.Detections(xyxy=np.zeros((2, 4)), mask=masks, tracker_id=np.array([1, 2]))
    assert (id_map(both, SIZE) == np.where(masks[0], 1, 2)).all()


def test_frames_of_an_earlier_longer_run_go(tmp_path: Path) -> None:
    for num_frames in (5, 2):
        with IdMapWriter(tmp_path, SIZE) as writer:
            for frame_idx in range(num_frames):
                writer.write(frame_idx, objects(1))
        (tmp_path / "mask_data/notes.txt").write_text("mine")
    assert sorted(path.name for path in (tmp_path / "json_data").iterdir()) == ["mask_00000.json", "mask_00001.json"]
    assert (tmp_path / "mask_data/notes.txt").exists() and len(list((tmp_path / "mask_data").iterdir())) == 3


def test_an_interrupted_run_leaves_the_earlier_one_as_it_was(tmp_path: Path) -> None:
    with IdMapWriter(tmp_path, SIZE) as writer:
        for frame_idx in range(3):
            writer.write(frame_idx, objects(1))
    with pytest.raises(KeyboardInterrupt), IdMapWriter(tmp_path, SIZE) as writer:
        for frame_idx in range(2):
            writer.write(frame_idx, objects(2))
        raise KeyboardInterrupt
    assert [len(read_id_map(tmp_path, frame_idx)) for frame_idx in range(3)] == [1, 1, 1]
    assert len(read_id_map(tmp_path / "partial", 1)) == 2
    (tmp_path / "partial/mask_data/.mask_00001.0123abcd.npy").write_text("half a file")  # a crash leaves these
    with IdMapWriter(tmp_path, SIZE) as writer:
        writer.write(0, objects(3))
    assert len(read_id_map(tmp_path, 0)) == 3
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "json_data", "mask_00000.json", "mask_00000.npy", "mask_data",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tracker_id": None}, "mask and tracker_id"),
        ({"tracker_id": np.array([70000])}, "ids from 1 to 65535"),
        ({"mask": np.ones((1, 4, 4), bool)}, r"masks of \(8, 12\), got \(4, 4\)"),
    ],
)
def test_bad_objects_are_refused(change: dict[str, object], message: str) -> None:
    detections = objects(1)
    for name, value in change.items():
        setattr(detections, name, value)
    with pytest.raises(ValueError, match=message):
        id_map(detections, SIZE)
