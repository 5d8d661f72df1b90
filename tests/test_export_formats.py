"""Annotations in other programs' formats, read back by those programs' readers where there are any."""

import json
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import supervision as sv
import yaml
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from grounded_sam2.export import FrameAnnotationWriter, VideoHeader
from grounded_sam2.export.formats import (
    FORMATS,
    davis_palette,
    main,
    write_coco,
    write_davis,
    write_mot,
    write_mots,
    write_yolo,
    write_youtube_vis,
)
from grounded_sam2.images import read_image, write_image
from grounded_sam2.owned import RECORD_NAME

SIZE = (40, 24)  # width, height
NUM_FRAMES = 4
NAMES = {0: "dog", 2: "red car"}


def bar(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros(SIZE[::-1], bool)
    mask[top:bottom, left:right] = True
    return mask


def objects_on(frame_idx: int) -> sv.Detections:
    """Object 3, a dog, moves right; object 9, a red car, is there on odd frames, on top of it; frame 2 is empty."""
    if frame_idx == 2:
        return sv.Detections.empty()
    masks = [bar(2 + frame_idx, 4, 18 + frame_idx, 20)]
    if frame_idx % 2:
        masks.append(bar(10, 10, 14, 14))
    count = len(masks)
    xyxy = sv.mask_to_xyxy(np.stack(masks)).astype(np.float32)
    xyxy[:, 2:] += 1
    return sv.Detections(
        xyxy=xyxy,
        mask=np.stack(masks),
        confidence=np.array([0.5, 0.75][:count], np.float32),
        class_id=np.array([0, 2][:count]),
        tracker_id=np.array([3, 9][:count]),
        data={"class_name": np.array(["dog", "red car"][:count])},
    )


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    with FrameAnnotationWriter(tmp_path / "clip.jsonl", SIZE) as writer:
        for frame_idx in range(NUM_FRAMES):
            writer.write(frame_idx, objects_on(frame_idx))
    return tmp_path / "clip.jsonl"


def test_coco_loads_with_pycocotools(annotations: Path, tmp_path: Path) -> None:
    write_coco(annotations, tmp_path / "coco.json")
    coco = COCO(tmp_path / "coco.json")
    coco.info()
    assert len(coco.loadRes(coco.loadAnns(coco.getAnnIds())).getAnnIds()) == 5
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["dog", "red car"]
    assert len(coco.getImgIds()) == NUM_FRAMES
    for frame_idx in range(NUM_FRAMES):
        truth = objects_on(frame_idx)
        found = coco.loadAnns(coco.getAnnIds(imgIds=frame_idx + 1))
        assert [annotation["track_id"] for annotation in found] == list(truth.tracker_id if len(truth) else [])
        for row, annotation in enumerate(found):
            assert np.array_equal(coco.annToMask(annotation).astype(bool), truth.mask[row])
            left, top, width, height = annotation["bbox"]
            assert [left, top, left + width, top + height] == truth.xyxy[row].tolist()
            assert annotation["area"] == truth.mask[row].sum() and annotation["score"] == truth.confidence[row]
            assert NAMES[annotation["category_id"] - 1] == truth.data["class_name"][row]


def test_youtube_vis_has_a_mask_or_none_for_every_frame(annotations: Path, tmp_path: Path) -> None:
    write_youtube_vis(annotations, tmp_path / "vis.json")
    entry = json.loads((tmp_path / "vis.json").read_text(encoding="utf-8"))
    [video] = entry["videos"]
    assert (video["width"], video["height"], video["length"], len(video["file_names"])) == (*SIZE, 4, 4)
    dog, car = entry["annotations"]
    assert (dog["id"], car["id"], car["category_id"], car["score"]) == (3, 9, 3, 0.75)
    for annotation, row in ((dog, 0), (car, 1)):
        for key in ("segmentations", "bboxes", "areas"):
            assert len(annotation[key]) == NUM_FRAMES
        for frame_idx, segmentation in enumerate(annotation["segmentations"]):
            truth = objects_on(frame_idx)
            if row < len(truth):
                assert np.array_equal(coco_mask.decode(segmentation).astype(bool), truth.mask[row])
            else:
                assert segmentation is None and annotation["bboxes"][frame_idx] is None


def test_mot_has_a_line_per_object_and_frame(annotations: Path, tmp_path: Path) -> None:
    write_mot(annotations, tmp_path / "mot.txt")
    table = np.loadtxt(tmp_path / "mot.txt", delimiter=",")
    assert table[:, :2].tolist() == [[1, 3], [2, 3], [2, 9], [4, 3], [4, 9]]
    assert table[2].tolist() == [2, 9, 10, 10, 4, 4, 0.75, -1, -1, -1]


def test_mots_masks_do_not_overlap(annotations: Path, tmp_path: Path) -> None:
    write_mots(annotations, tmp_path / "mots.txt")
    covered: dict[int, np.ndarray] = {}
    for line in (tmp_path / "mots.txt").read_text(encoding="utf-8").splitlines():
        frame_idx, obj_id, category, height, width, counts = line.split(" ")
        mask = coco_mask.decode({"size": [int(height), int(width)], "counts": counts.encode()}).astype(bool)
        assert NAMES[int(category) - 1] == {"3": "dog", "9": "red car"}[obj_id]
        assert not (covered.get(int(frame_idx), np.zeros_like(mask)) & mask).any()
        covered[int(frame_idx)] = covered.get(int(frame_idx), np.zeros_like(mask)) | mask
    assert sorted(covered) == [0, 1, 3]
    for frame_idx, mask in covered.items():
        assert np.array_equal(mask, objects_on(frame_idx).mask.any(axis=0))


def test_yolo_polygons_cover_the_masks(annotations: Path, tmp_path: Path) -> None:
    write_yolo(annotations, tmp_path / "yolo")
    names = yaml.safe_load((tmp_path / "yolo/data.yaml").read_text(encoding="utf-8"))["names"]
    assert names == {0: "dog", 1: "class 1", 2: "red car"}
    assert sorted(path.name for path in (tmp_path / "yolo/labels").iterdir()) == [f"{i:05d}.txt" for i in range(4)]
    assert (tmp_path / "yolo/labels/00002.txt").read_text() == ""
    for line, row in zip((tmp_path / "yolo/labels/00001.txt").read_text().splitlines(), (0, 1), strict=True):
        class_id, *corners = line.split(" ")
        assert int(class_id) == objects_on(1).class_id[row]
        polygon = np.array(corners, float).reshape(-1, 2) * SIZE
        assert polygon.min() >= 0 and (polygon <= SIZE).all()
        drawn = sv.polygon_to_mask(polygon.round().astype(int), SIZE).astype(bool)
        truth = objects_on(1).mask[row]
        assert (drawn & truth).sum() / (drawn | truth).sum() > 0.9


def test_davis_pixels_are_ids(annotations: Path, tmp_path: Path) -> None:
    write_davis(annotations, tmp_path / "davis")
    for frame_idx in range(NUM_FRAMES):
        with Image.open(tmp_path / f"davis/{frame_idx:05d}.png") as picture:
            assert picture.mode == "P" and picture.size == SIZE
            assert picture.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
            ids = np.asarray(picture)
        truth = objects_on(frame_idx)
        expected = np.zeros(SIZE[::-1], int)
        for row in range(len(truth)):  # the car, which is smaller, on top
            expected[truth.mask[row]] = truth.tracker_id[row]
        assert np.array_equal(ids, expected)
    assert len({davis_palette()[i : i + 3] for i in range(0, 768, 3)}) == 256


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_video_without_objects(tmp_path: Path, name: str) -> None:
    with FrameAnnotationWriter(tmp_path / "empty.jsonl", SIZE) as writer:
        writer.write(0, sv.Detections.empty())
    write, file_name = FORMATS[name]
    write(tmp_path / "empty.jsonl", tmp_path / file_name)
    assert (tmp_path / file_name).exists()


@pytest.mark.parametrize("name", list(FORMATS))
def test_objects_without_masks_are_refused_and_nothing_is_left(tmp_path: Path, name: str) -> None:
    boxes = objects_on(0)
    boxes.mask = None
    with FrameAnnotationWriter(tmp_path / "boxes.jsonl", SIZE) as writer:
        writer.write(0, boxes)
    write, file_name = FORMATS[name]
    with pytest.raises(ValueError, match="expected tracked objects with masks; frame 0 has no mask"):
        write(tmp_path / "boxes.jsonl", tmp_path / file_name)
    assert not (tmp_path / file_name).is_file()


def test_davis_refuses_ids_that_a_palette_cannot_hold(tmp_path: Path) -> None:
    many = objects_on(0)
    many.tracker_id = np.array([256])
    with FrameAnnotationWriter(tmp_path / "many.jsonl", SIZE) as writer:
        writer.write(0, many)
    with pytest.raises(ValueError, match="ids up to 255, frame 0 has 256"):
        write_davis(tmp_path / "many.jsonl", tmp_path / "davis")


def test_the_command_writes_all_formats(
    annotations: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["export_formats", str(annotations)])
    main()
    written = {path.name for path in annotations.with_suffix("").iterdir() if path.name != RECORD_NAME}
    assert written == {file_name for _, file_name in FORMATS.values()}
    monkeypatch.setattr("sys.argv", ["export_formats", "nowhere.jsonl"])
    with pytest.raises(SystemExit) as ending:
        main()
    assert ending.value.code == 2 and "nowhere.jsonl" in capsys.readouterr().err


# ---- names that the header knows ----

PHRASES = ("dog", "purple cow", "red car", "unicorn")


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """The same video with a header."""
    header = VideoHeader(SIZE, "videos/my clip.mp4", Fraction(24), PHRASES)
    with FrameAnnotationWriter(tmp_path / "named.jsonl", header) as writer:
        for frame_idx in range(NUM_FRAMES):
            writer.write(frame_idx, objects_on(frame_idx))
    return tmp_path / "named.jsonl"


def test_classes_are_the_phrases_also_those_never_found(named: Path, tmp_path: Path) -> None:
    expected = [{"id": class_id + 1, "name": phrase} for class_id, phrase in enumerate(PHRASES)]
    for write in (write_coco, write_youtube_vis):
        write(named, tmp_path / "out.json")
        entry = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
        assert entry["categories"] == expected
        assert entry["info"] == {"description": "videos/my clip.mp4", "fps": 24.0}
    write_yolo(named, tmp_path / "yolo")
    names = yaml.safe_load((tmp_path / "yolo/data.yaml").read_text(encoding="utf-8"))["names"]
    assert names == dict(enumerate(PHRASES))


def test_frames_are_called_after_their_video(named: Path, tmp_path: Path) -> None:
    names = [f"my clip/{frame_idx:05d}.jpg" for frame_idx in range(NUM_FRAMES)]
    write_coco(named, tmp_path / "coco.json")
    assert [image["file_name"] for image in COCO(tmp_path / "coco.json").dataset["images"]] == names
    write_youtube_vis(named, tmp_path / "vis.json")
    assert json.loads((tmp_path / "vis.json").read_text(encoding="utf-8"))["videos"][0]["file_names"] == names
    write_yolo(named, tmp_path / "yolo")
    labels = sorted(path.relative_to(tmp_path / "yolo/labels") for path in (tmp_path / "yolo/labels").rglob("*.txt"))
    assert [path.as_posix() for path in labels] == [name.replace(".jpg", ".txt") for name in names]
    write_davis(named, tmp_path / "davis")
    assert sorted(path.name for path in (tmp_path / "davis").glob("*.png")) == [f"{i:05d}.png" for i in range(4)]


def test_frames_that_are_files_are_called_as_those(tmp_path: Path) -> None:
    """Two of them differ in their suffix only, and one leads out of the folder."""
    paths = ["in/a 1.png", "in/a 1.jpg", "in/b.jpg", "../.."]
    with FrameAnnotationWriter(tmp_path / "images.jsonl", VideoHeader(SIZE, "in", Fraction(24), PHRASES)) as writer:
        for frame_idx, image_path in enumerate(paths):
            writer.write(frame_idx, objects_on(frame_idx), image_path)
    write_coco(tmp_path / "images.jsonl", tmp_path / "coco.json")
    names = [image["file_name"] for image in COCO(tmp_path / "coco.json").dataset["images"]]
    assert names == ["a 1.png", "a 1.jpg", "b.jpg", "in/00003.jpg"]
    for write, suffix, last in ((write_yolo, ".txt", "in/00003.txt"), (write_davis, ".png", "00003.png")):
        write(tmp_path / "images.jsonl", tmp_path / "out" / suffix)
        folder = tmp_path / "out" / suffix / ("labels" if suffix == ".txt" else "")
        written = {path.relative_to(folder).as_posix() for path in folder.rglob(f"*{suffix}") if path.is_file()}
        assert written == {f"a 1{suffix}", f"a 1.jpg{suffix}", f"b{suffix}", last}


@pytest.mark.parametrize("source", ["rtsp://host:554/live?channel=1", "camera 0", "..", "list of frames"])
def test_any_source_gives_a_name_that_stays_in_the_folder(tmp_path: Path, source: str) -> None:
    with FrameAnnotationWriter(tmp_path / "a.jsonl", VideoHeader(SIZE, source)) as writer:
        writer.write(0, objects_on(0))
    write_yolo(tmp_path / "a.jsonl", tmp_path / "yolo")
    [label] = (tmp_path / "yolo" / "labels").rglob("*.txt")
    folder = label.relative_to(tmp_path / "yolo" / "labels").parent.name
    assert folder == {"rtsp://host:554/live?channel=1": "live_channel=1", "..": "video"}.get(source, source)


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_run_that_ended_before_its_first_frame(tmp_path: Path, name: str) -> None:
    with FrameAnnotationWriter(tmp_path / "empty.jsonl", VideoHeader(SIZE, "a.mp4", Fraction(24), PHRASES)):
        pass
    write, file_name = FORMATS[name]
    write(tmp_path / "empty.jsonl", tmp_path / file_name)
    if file_name.endswith(".json"):
        entry = json.loads((tmp_path / file_name).read_text(encoding="utf-8"))
        assert [category["name"] for category in entry["categories"]] == list(PHRASES) and entry["annotations"] == []


# ---- whose files they are ----


def run_main(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr("sys.argv", ["export_formats", *map(str, words)])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture
def tracked(tmp_path: Path) -> Path:
    """The annotations of a folder of frames that is there."""
    for frame_idx in range(NUM_FRAMES):
        write_image(tmp_path / "frames" / f"{frame_idx}.png", np.full((*SIZE[::-1], 3), 50 * frame_idx, np.uint8))
    header = VideoHeader(SIZE, str(tmp_path / "frames"), Fraction(24), PHRASES)
    with FrameAnnotationWriter(tmp_path / "tracked.jsonl", header) as writer:
        for frame_idx in range(NUM_FRAMES):
            writer.write(frame_idx, objects_on(frame_idx))
    return tmp_path / "tracked.jsonl"


def test_yolo_has_the_frames_beside_the_labels(
    tracked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_yolo(tracked, tmp_path / "yolo")
    assert yaml.safe_load((tmp_path / "yolo/data.yaml").read_text())["train"] == "images"
    for frame_idx in range(NUM_FRAMES):
        pixels = read_image(tmp_path / "yolo" / "images" / "frames" / f"{frame_idx:05d}.jpg")
        assert pixels.shape == (*SIZE[::-1], 3) and abs(int(pixels[0, 0, 0]) - 50 * frame_idx) <= 2
    (tmp_path / "frames").rename(tmp_path / "moved")
    assert run_main(monkeypatch, tracked, "--formats", "yolo") == 0
    assert "train" not in yaml.safe_load((tmp_path / "tracked/yolo/data.yaml").read_text())
    assert run_main(monkeypatch, tracked, "--formats", "yolo", "--video-path", tmp_path / "moved") == 0
    assert len(list((tmp_path / "tracked/yolo/images").rglob("*.jpg"))) == NUM_FRAMES
    write_image(tmp_path / "other.png", np.zeros((5, 7, 3), np.uint8))
    assert run_main(monkeypatch, tracked, "--formats", "yolo", "--video-path", tmp_path / "other.png") == 2
    assert "expected frames of (40, 24), as were tracked, got (7, 5)" in capsys.readouterr().err


def test_frames_of_a_live_stream_are_not_counted_as_those_of_its_file(tracked: Path, tmp_path: Path) -> None:
    header = VideoHeader(SIZE, str(tmp_path / "frames"), Fraction(24), PHRASES, {"LATENCY": "drop"})
    with FrameAnnotationWriter(tmp_path / "live.jsonl", header) as writer:
        writer.write(0, objects_on(0))
    write_yolo(tmp_path / "live.jsonl", tmp_path / "yolo")
    assert not (tmp_path / "yolo" / "images").exists()


@pytest.mark.parametrize(("write", "last"), [(write_yolo, "labels/00003.txt"), (write_davis, "00003.png")])
def test_a_set_of_fewer_frames_keeps_nothing_of_the_longer_one(
    annotations: Path, tmp_path: Path, write: Callable[..., None], last: str
) -> None:
    write(annotations, tmp_path / "set")
    (tmp_path / "set" / "mine.txt").write_text("mine")
    annotations.write_text("".join(annotations.read_text().splitlines(keepends=True)[:-1]))
    assert (tmp_path / "set" / last).exists()
    write(annotations, tmp_path / "set")
    assert not (tmp_path / "set" / last).exists() and (tmp_path / "set" / "mine.txt").exists()


def test_the_command_leaves_alone_what_is_not_its_own(
    annotations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "coco.json").write_text("the user's own")
    assert run_main(monkeypatch, annotations, "--output-dir", out) == 2
    assert "coco.json is there already and was not written by this program" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["coco.json"] and (out / "coco.json").read_text() != ""
    source = annotations.rename(tmp_path / "mot.txt")
    content = source.read_bytes()
    assert run_main(monkeypatch, source, "--formats", "mot", "--output-dir", tmp_path) == 2
    assert "mot.txt: it is read as an input" in capsys.readouterr().err and source.read_bytes() == content
    with pytest.raises(ValueError, match="it is read as an input"):
        write_coco(source, source)
    other = tmp_path / "other.jsonl"
    other.write_bytes(content + content[:-1])
    assert run_main(monkeypatch, source, "--formats", "mot", "--output-dir", tmp_path / "both") == 0
    assert run_main(monkeypatch, other, "--formats", "mot", "--output-dir", tmp_path / "both") == 2
    assert "mot.txt is there already and is about another source" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", bytes(4096)])
def test_a_file_of_nothing_is_no_empty_video(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk that lost power leaves such files."""
    (tmp_path / "nul.jsonl").write_bytes(content)
    assert run_main(monkeypatch, tmp_path / "nul.jsonl", "--formats", "coco") == 2
    assert capsys.readouterr().err.count("nul.jsonl") == 1


def test_a_pipe_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert run_main(monkeypatch, tmp_path / "pipe.jsonl") == 2
    assert "pipe.jsonl is a pipe" in capsys.readouterr().err
