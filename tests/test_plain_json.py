"""Files that others may have written: everything is checked before there is room made for it."""

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grounded_sam2.batch import BatchFolder, list_images
from grounded_sam2.export import read_frame_annotations, read_header, read_json
from grounded_sam2.export.annotations import FrameAnnotations, read_caption
from grounded_sam2.export.formats import FORMATS
from grounded_sam2.export.id_maps import read_id_map
from grounded_sam2.export.images import ExportedImage, write_image_coco, write_image_yolo
from grounded_sam2.masks import check_rle, decode_rle, encode_rle
from grounded_sam2.plain_json import check_number, check_text, check_whole, loads
from grounded_sam2.track.events import read_events

SIZE = (20, 30)  # height, width
HUGE = 10**400


@pytest.fixture(autouse=True)
def _little_room() -> Iterator[None]:
    """No test here may take more than two GB beyond what the process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    former = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2 * 2**30, former[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, former)


def a_mask() -> dict[str, Any]:
    mask = np.zeros(SIZE, bool)
    mask[3:9, 4:20] = True
    return encode_rle(mask[None])[0]


def entry_with(path: str = "", value: Any = None) -> dict[str, Any]:
    """A frame's annotations, one value of which is another."""
    entry: dict[str, Any] = {
        "frame_idx": 0,
        "annotations": [
            {"class_name": "dog", "bbox": [4, 3, 20, 9], "segmentation": a_mask(), "score": 0.9, "tracker_id": 1,
             "class_id": 0}
        ],
        "box_format": "xyxy",
        "img_width": SIZE[1],
        "img_height": SIZE[0],
    }  # fmt: skip
    place: Any = entry
    *keys, last = path.split(".") if path else [None]
    for key in keys:
        place = place[int(key)] if isinstance(place, list) else place[key]
    if last is not None:
        place[int(last) if isinstance(place, list) else last] = value
    return entry


BAD_VALUES: list[tuple[str, Any]] = [
    *(("annotations.0.segmentation.counts", counts) for counts in ("", "0", "o", "o" * 9, "\x00", "é", 3, None, [600])),
    ("annotations.0.segmentation.counts", a_mask()["counts"][:-1]),
    ("annotations.0.segmentation.counts", a_mask()["counts"] + "1"),
    *(("annotations.0.segmentation.size", size) for size in ([100000, 100000], [-20, -30], [20, HUGE], [20], 3)),
    *(("annotations.0.segmentation.size", size) for size in (["a", "b"], [20, 31], [20.0, 30])),
    *(("annotations.0.bbox", box) for box in ([1, 2, 3], [1, 2, 3, HUGE], [1, 2, 3, "4"], "abcd", [1, 2, 3, None], 3)),
    *(("annotations.0.class_id", value) for value in (10**8, HUGE, -2, 0.5, "0", True, [0])),
    *(("annotations.0.tracker_id", value) for value in (HUGE, 2**40, 0.5, "1")),
    *(("annotations.0.score", value) for value in (HUGE, "0.9", [0.9], {})),
    *(("annotations.0.class_name", value) for value in (3, ["dog"], {})),
    *(("frame_idx", value) for value in (10**12, -1, HUGE, 0.5, "0", [0])),
    *(("img_width", value) for value in (0, -30, 10**9, HUGE, "30", None, 30.5)),
    *(("annotations", value) for value in (3, "abc", {"a": 1}, [3], [[1]], ["a"])),
    ("image_path", 3),
    ("box_format", "xywh"),
]  # fmt: skip
BAD_TEXTS = [
    json.dumps(entry_with()).replace("0.9", constant)
    for constant in ("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000)
] + ["[" * 10**5, '{"a":' * 10**5, "3", "[]", "null", '"text"', "{}"]  # fmt: skip


def lines() -> list[str]:
    return [json.dumps(entry_with(path, value)) for path, value in BAD_VALUES] + BAD_TEXTS


def test_what_is_good_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(entry_with()) + "\n")
    (frame,) = read_frame_annotations(tmp_path / "a.jsonl")
    assert frame.detections.mask is not None and frame.detections.mask.sum() == 96


@pytest.mark.parametrize("line", lines(), ids=lambda line: line[:40] + "…" + str(len(line)))
def test_bad_annotations_are_refused_with_the_line(line: str, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(entry_with()) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2 ") as caught:
        list(read_frame_annotations(file))
    assert len(str(caught.value)) < 600
    if "frame_idx" not in line or "annotations" not in line:
        with pytest.raises(ValueError, match=r"a\.jsonl, line 2 "):
            FrameAnnotations(file)
    (tmp_path / "a.json").write_text(line)
    with pytest.raises(ValueError, match=r"a\.json "):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("write", [write_image_coco, write_image_yolo])
def test_data_sets_of_bad_annotations(write: Callable[..., None], tmp_path: Path) -> None:
    for path, value in BAD_VALUES:
        if "segmentation" in path or "bbox" in path or path.startswith("img"):
            (tmp_path / "a.json").write_text(json.dumps(entry_with(path, value)))
            with pytest.raises(ValueError, match=r"a\.json"):
                write([ExportedImage(1, "a.jpg", "a", tmp_path / "a.json")], ["dog"], tmp_path / "out")


def test_frames_that_lie_far_apart_are_no_video(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(entry_with("frame_idx", 10**7)) + "\n")
    write, name = FORMATS["youtube_vis"]
    with pytest.raises(ValueError, match="1 frames, the last of which has frame_idx 10000000"):
        write(file, tmp_path / name)


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": HUGE}, {"format_version": "1"}, {"fps": HUGE}, {"fps": 0}, {"fps": -1}, {"fps": "25/0"},
        {"fps": [1]}, {"img_width": 10**9}, {"img_height": -1}, {"phrases": 3}, {"phrases": [3]}, {"phrases": "abc"},
        {"settings": 3}, {"source": 3},
    ],
)  # fmt: skip
def test_bad_headers(changes: dict[str, Any], tmp_path: Path) -> None:
    header = {"format_version": 1, "source": None, "fps": 25, "img_width": 30, "img_height": 20, "phrases": ["dog"]}
    (tmp_path / "a.jsonl").write_text(json.dumps(header | {"settings": {}} | changes) + "\n")
    with pytest.raises(ValueError, match=r"a\.jsonl, line 1 "):
        read_header(tmp_path / "a.jsonl")


@pytest.mark.parametrize("text", ["{", "[" * 10**5, "3", '{"a": 3}', "{\x00", '{"a.jpg": {"b": 1}}', "NaN", '["a", 3]'])
def test_bad_lists_progress_events_and_captions(text: str, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(ValueError, match=r"list\.json"):
        list_images(tmp_path / "list.json", "dog.")
    (tmp_path / "progress.jsonl").write_text('{"settings": {}}\n' + text + "\n")
    with pytest.raises(ValueError, match=r"progress\.jsonl, line 2 is damaged"):
        BatchFolder(tmp_path, {})
    (tmp_path / "events.jsonl").write_text(text + "\n")
    with pytest.raises(ValueError, match=r"events\.jsonl, line 1 is no event"):
        read_events(tmp_path / "events.jsonl")
    if text[0] != "{" or text == "{":
        with pytest.raises(ValueError, match=r"list\.json is not the JSON of an image"):
            read_caption(tmp_path / "list.json")


@pytest.mark.parametrize("labels", ["{", "[" * 10**5, "3", "{}", '{"mask_height": 2, "mask_width": 2, "labels": 3}'])
def test_bad_maps_of_ids(labels: str, tmp_path: Path) -> None:
    for folder in ("mask_data", "json_data"):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
        (tmp_path / folder).mkdir()
    np.save(tmp_path / "mask_data/mask_00000.npy", np.zeros((2, 2), np.uint16))
    (tmp_path / "json_data/mask_00000.json").write_text(labels)
    with pytest.raises(ValueError, match="mask_00000"):
        read_id_map(tmp_path, 0)
    (tmp_path / "mask_data/mask_00000.npy").write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(ValueError, match="mask_00000"):
        read_id_map(tmp_path, 0)


@pytest.mark.parametrize("density", [0.0, 0.01, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (200, 300), (1, 5000)])
def test_runs_of_real_masks_are_read(density: float, size: tuple[int, int]) -> None:
    masks = np.random.default_rng(0).random((2, *size)) < density
    np.testing.assert_array_equal(decode_rle(encode_rle(masks)), masks)
    for segmentation in encode_rle(masks):
        check_rle(segmentation, size)


def test_large_masks_are_refused_before_there_is_room() -> None:
    with pytest.raises(ValueError, match="too many"):
        decode_rle([{"size": [100000, 100000], "counts": "0"}])
    with pytest.raises(ValueError, match="too many"):
        decode_rle([{"size": [10000, 10000], "counts": "0"}] * 1000)


def test_checks() -> None:
    assert loads('{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}
    assert check_whole(3, "n") == 3 and check_number(2, "n") == 2.0 and check_text("a", "n") == "a"
    with pytest.raises(
        ValueError, match="n: expected a whole number from 0 to 2147483647, got a int too large to show"
    ):
        check_whole(10**5000, "n")
    with pytest.raises(ValueError, match="NaN is no number of JSON"):
        loads("[NaN]")
