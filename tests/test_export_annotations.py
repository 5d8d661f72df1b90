"""Annotations: what is written reads back equal, in the format of the field, and survives a crash."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import supervision as sv

from grounded_sam2.export import (
    FrameAnnotations,
    FrameAnnotationWriter,
    VideoHeader,
    read_frame_annotations,
    read_header,
    read_json,
    write_json,
)
from grounded_sam2.masks import decode_rle

SIZE = (31, 17)  # width, height


def some_detections(count: int, seed: int = 0, with_masks: bool = True, with_ids: bool = False) -> sv.Detections:
    """N detections with coordinates and scores that have no short decimal form; class ids out of order."""
    generator = np.random.default_rng(seed)
    if count == 0:
        return sv.Detections.empty()
    return sv.Detections(
        xyxy=generator.uniform(0, 17, (count, 4)).astype(np.float32),
        mask=generator.random((count, SIZE[1], SIZE[0])) > 0.5 if with_masks else None,
        confidence=generator.random(count, dtype=np.float32),
        class_id=np.arange(count)[::-1].copy(),
        tracker_id=np.arange(count) + 3 if with_ids else None,
        data={
            "class_name": np.array([f"größe {count - 1 - position}" for position in range(count)]),
            "mask_score": generator.random(count, dtype=np.float32),
        }
        | ({"object_score": generator.normal(0, 9, count).astype(np.float32)} if with_ids else {}),
    )


def assert_equal(actual: sv.Detections, expected: sv.Detections, with_class_id: bool = True) -> None:
    assert len(actual) == len(expected)
    if len(expected) == 0:
        return
    fields = ["xyxy", "mask", "confidence", "tracker_id"] + ["class_id"] * with_class_id
    pairs = [(getattr(actual, field), getattr(expected, field)) for field in fields]
    pairs += [(actual.data.get(key), expected.data.get(key)) for key in ("class_name", "mask_score", "object_score")]
    for read, written in pairs:
        assert (read is None) == (written is None)
        if written is not None:
            np.testing.assert_array_equal(read, written)


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("with_masks", [True, False])
@pytest.mark.parametrize("with_ids", [True, False])
def test_json_round_trip(tmp_path: Path, count: int, with_masks: bool, with_ids: bool) -> None:
    detections = some_detections(count, with_masks=with_masks, with_ids=with_ids)
    write_json(tmp_path / "new" / "a.json", "images/a.jpg", detections, SIZE)
    read = read_json(tmp_path / "new" / "a.json")
    assert (read.image_path, read.width, read.height, read.frame_idx) == ("images/a.jpg", *SIZE, None)
    assert_equal(read.detections, detections, with_class_id=False)
    if count:
        assert read.detections.class_id.tolist() == list(range(count))


def test_json_is_the_format_of_the_field(tmp_path: Path) -> None:
    detections = some_detections(2)
    write_json(tmp_path / "a.json", Path("a.jpg"), detections, SIZE)
    content = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert list(content) == ["image_path", "annotations", "box_format", "img_width", "img_height"]
    assert (content["box_format"], content["img_width"], content["img_height"]) == ("xyxy", *SIZE)
    assert len(content["annotations"]) == 2
    for annotation in content["annotations"]:
        assert list(annotation) == ["class_name", "bbox", "segmentation", "score", "mask_score"]
        assert isinstance(annotation["segmentation"]["counts"], str)
        assert annotation["segmentation"]["size"] == [SIZE[1], SIZE[0]]
        assert len(annotation["bbox"]) == 4

    write_json(tmp_path / "empty.json", "a.jpg", sv.Detections.empty(), SIZE)
    assert json.loads((tmp_path / "empty.json").read_text())["annotations"] == []


def test_boxes_alone(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", "a.jpg", sv.Detections(xyxy=np.ones((2, 4), np.float32)), SIZE)
    read = read_json(tmp_path / "a.json").detections
    assert len(read) == 2
    assert read.mask is read.confidence is read.class_id is read.tracker_id is None and read.data == {}


def test_a_missing_score_is_nan(tmp_path: Path) -> None:
    detections = some_detections(2)
    detections.confidence[1] = np.nan
    write_json(tmp_path / "a.json", "a.jpg", detections, SIZE)
    assert "NaN" not in (tmp_path / "a.json").read_text(encoding="utf-8")
    np.testing.assert_array_equal(read_json(tmp_path / "a.json").detections.confidence, detections.confidence)


def test_masks_of_another_size_leave_the_older_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("older")
    with pytest.raises(ValueError, match=r"masks: expected \(1, 10, 10\), got \(1, 17, 31\)"):
        write_json(tmp_path / "a.json", "a.jpg", some_detections(1), (10, 10))
    assert (tmp_path / "a.json").read_text() == "older" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "content",
    ["", "not json", "[]", "{}", '{"annotations": [{}], "box_format": "xyxy", "img_width": 3, "img_height": 3}'],
)
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=r"a\.json (is not JSON|holds no annotations)"):
        read_json(tmp_path / "a.json")


# ---- a video's frames ----


@pytest.mark.parametrize("counts", [[], [0], [1, 0, 3], [3, 3, 3]])
@pytest.mark.parametrize("with_masks", [True, False])
def test_frames_round_trip(tmp_path: Path, counts: list[int], with_masks: bool) -> None:
    frames = [some_detections(count, seed, with_masks=with_masks, with_ids=True) for seed, count in enumerate(counts)]
    with FrameAnnotationWriter(tmp_path / "new" / "a.jsonl", SIZE) as writer:
        for position, detections in enumerate(frames):
            writer.write(10 + position, detections)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.jsonl"]
    assert len((tmp_path / "new" / "a.jsonl").read_text(encoding="utf-8").splitlines()) == len(frames)
    read = list(read_frame_annotations(tmp_path / "new" / "a.jsonl"))
    assert [frame.frame_idx for frame in read] == [10 + position for position in range(len(frames))]
    for frame, detections in zip(read, frames, strict=True):
        assert (frame.width, frame.height) == SIZE
        assert_equal(frame.detections, detections)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_frames_until_an_error_can_be_read(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "a.jsonl").write_text("older")
    with pytest.raises(error), FrameAnnotationWriter(tmp_path / "a.jsonl", SIZE) as writer:
        writer.write(0, some_detections(2))
        assert len(list(read_frame_annotations(writer.partial_path))) == 1  # on disk at once
        writer.write(1, some_detections(0))
        raise error
    assert (tmp_path / "a.jsonl").read_text() == "older"
    assert [frame.frame_idx for frame in read_frame_annotations(tmp_path / "a.partial.jsonl")] == [0, 1]


def test_a_torn_last_line_is_left_out_but_a_bad_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with FrameAnnotationWriter(path, SIZE) as writer:
        for frame_idx in range(3):
            writer.write(frame_idx, some_detections(1))
    content = path.read_text(encoding="utf-8")
    path.write_text(content[:-30], encoding="utf-8")
    assert [frame.frame_idx for frame in read_frame_annotations(path)] == [0, 1]
    path.write_text("rubbish\n" + content, encoding="utf-8")
    with pytest.raises(ValueError, match="line 1 is not JSON"):
        list(read_frame_annotations(path))


def test_frames_are_read_in_any_order_while_they_are_written(tmp_path: Path) -> None:
    with FrameAnnotationWriter(tmp_path / "a.jsonl", SIZE) as writer:
        with writer.read() as none_yet:
            assert len(none_yet) == 0
        frames = {4: some_detections(3, 1, with_ids=True), 2: some_detections(0), 7: some_detections(1, 2)}
        for frame_idx, detections in frames.items():
            writer.write(frame_idx, detections)
        with writer.read() as so_far:
            assert list(so_far) == [4, 2, 7] and [so_far.obj_ids(t) for t in so_far] == [(3, 4, 5), (), ()]
            for frame_idx in (7, 4, 2, 4):
                assert_equal(so_far[frame_idx].detections, frames[frame_idx])
            for read in (so_far.__getitem__, so_far.obj_ids):
                with pytest.raises(KeyError):
                    read(5)


def test_masks_stay_encoded_where_they_are_asked_for_so(tmp_path: Path) -> None:
    path = tmp_path / "frames.jsonl"
    with FrameAnnotationWriter(path, SIZE) as writer:
        for frame_idx, (count, with_masks) in enumerate([(3, True), (0, True), (2, False)]):
            writer.write(frame_idx, some_detections(count, with_masks=with_masks))
    with FrameAnnotations(path) as lines:
        encoded, whole = lines.encoded(0).detections, lines[0].detections
        assert encoded.mask is None and whole.mask is not None
        np.testing.assert_array_equal(decode_rle(list(encoded.data["segmentation"])), whole.mask)
        np.testing.assert_array_equal(encoded.xyxy, whole.xyxy)
        assert len(lines.encoded(1).detections) == 0
        assert "segmentation" not in lines.encoded(2).detections.data
    entry = json.loads(path.read_text().splitlines()[0])
    entry["annotations"][1]["segmentation"]["counts"] = "11"
    path.write_text(json.dumps(entry) + "\n")
    with FrameAnnotations(path) as lines, pytest.raises(ValueError, match="frame 0 holds no annotations"):
        lines.encoded(0)


def test_wrong_calls(tmp_path: Path) -> None:
    writer = FrameAnnotationWriter(tmp_path / "a.jsonl", SIZE)
    writer.close()
    writer.close()
    with pytest.raises(RuntimeError, match="is closed"):
        writer.write(0, sv.Detections.empty())
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        FrameAnnotationWriter(tmp_path, SIZE)
    with pytest.raises(FileNotFoundError):
        list(read_frame_annotations(tmp_path / "no.jsonl"))


# ---- the header of a video ----

HEADERS = [
    VideoHeader(SIZE, "assets/größe.mp4", Fraction(30000, 1001), ("dog", "red car"), {"BOX": 0.35, "A": None}),
    VideoHeader(SIZE, "camera 0", Fraction(25)),
    VideoHeader(SIZE),
]


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("counts", [[], [0], [1, 0, 3]])
def test_the_header_is_read_back_and_frames_are_as_without_one(
    tmp_path: Path, header: VideoHeader, counts: list[int]
) -> None:
    paths = {"with": tmp_path / "with.jsonl", "without": tmp_path / "without.jsonl"}
    for name, video in (("with", header), ("without", SIZE)):
        with FrameAnnotationWriter(paths[name], video) as writer:
            for frame_idx, count in enumerate(counts):
                writer.write(frame_idx, some_detections(count, frame_idx, with_ids=True))
    lines = {name: path.read_text(encoding="ascii").splitlines() for name, path in paths.items()}
    assert lines["with"][1:] == lines["without"] and len(lines["without"]) == len(counts)
    assert read_header(paths["with"]) == header and read_header(paths["without"]) is None
    with FrameAnnotations(paths["with"]) as indexed, FrameAnnotations(paths["without"]) as old:
        assert indexed.header == header and old.header is None
        assert list(indexed) == list(old) == list(range(len(counts)))
        for frame_idx in indexed:
            assert_equal(indexed[frame_idx].detections, old[frame_idx].detections)
            assert indexed.obj_ids(frame_idx) == old.obj_ids(frame_idx)
    for number, frame in enumerate(read_frame_annotations(paths["with"])):
        assert frame.frame_idx == number
        assert_equal(frame.detections, some_detections(counts[number], number, with_ids=True))


def test_the_header_is_plain_json(tmp_path: Path) -> None:
    with FrameAnnotationWriter(tmp_path / "a.jsonl", HEADERS[0]) as writer:
        with writer.read() as none_yet:
            assert len(none_yet) == 0 and none_yet.header == HEADERS[0]
        writer.write(0, sv.Detections.empty(), image_path="frames/a.png")
    header, frame = (json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines())
    assert header == {
        "format_version": 1,
        "source": "assets/größe.mp4",
        "fps": 30000 / 1001,
        "img_width": SIZE[0],
        "img_height": SIZE[1],
        "phrases": ["dog", "red car"],
        "settings": {"BOX": 0.35, "A": None},
    }
    assert (frame["frame_idx"], frame["image_path"]) == (0, "frames/a.png")
    assert next(read_frame_annotations(tmp_path / "a.jsonl")).image_path == "frames/a.png"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"format_version": 2}', "format_version: expected at most 1, got 2"),
        (
            '{"format_version": 1, "source": null, "fps": Infinity, "img_width": 1, "img_height": 1}',
            "line 1 .*Infinity is no number of JSON",
        ),
        (
            '{"format_version": 1, "source": null, "fps": "1/0", "img_width": 1, "img_height": 1}',
            "line 1 holds no header",
        ),
        ('{"format_version": 1, "source": null}', "line 1 holds no header in the expected format: KeyError"),
        (
            '{"format_version": 1, "source": null, "fps": "x", "img_width": 1, "img_height": 1}',
            "line 1 holds no header",
        ),
    ],
)
def test_a_header_that_cannot_be_read_is_named(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    for read in (read_header, FrameAnnotations, lambda path: list(read_frame_annotations(path))):
        with pytest.raises(ValueError, match=says):
            read(path)


def test_a_second_header_is_no_frame(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(2 * HEADERS[1].to_line(), encoding="utf-8")
    with pytest.raises(ValueError, match="line 2"):
        list(read_frame_annotations(tmp_path / "a.jsonl"))
    with pytest.raises(ValueError, match="line 2"):
        FrameAnnotations(tmp_path / "a.jsonl")


def test_a_header_that_a_crash_cut_off_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(HEADERS[1].to_line()[:-9], encoding="utf-8")
    assert read_header(tmp_path / "a.jsonl") is None and list(read_frame_annotations(tmp_path / "a.jsonl")) == []


def test_a_file_name_that_is_no_utf8_reads_back(tmp_path: Path) -> None:
    image_path = os.fsdecode(b"in/stra\xdfe \xe7\x8c\xab.jpg")
    write_json(tmp_path / "a.json", image_path, some_detections(1), SIZE, caption="猫")
    content = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "猫" in content and read_json(tmp_path / "a.json").image_path == image_path
