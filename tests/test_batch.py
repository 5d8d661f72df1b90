"""Many images: which ones, in which batches, what is found, what is written, and what an interruption leaves."""

import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import supervision as sv
import yaml
from PIL import Image
from pycocotools.coco import COCO

from grounded_sam2.batch import (
    BatchFolder,
    ImageBatch,
    ListedImage,
    all_phrases,
    detect_batch,
    list_images,
    read_batches,
)
from grounded_sam2.batch import batch as batch_module
from grounded_sam2.detectors.base import make_detections
from grounded_sam2.export import write_json
from grounded_sam2.export.images import ExportedImage, write_image_coco, write_image_yolo
from grounded_sam2.images import read_image, write_image
from grounded_sam2.prompts import parse_prompt

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPT = "grounded_sam2_batch_images_demo.py"
PROMPT = "dog. tree."
PHRASES = ("dog", "tree")


def write_images(folder: Path, *names: str) -> list[Path]:
    for index, name in enumerate(names):
        write_image(folder / name, np.full((20 + index, 30, 3), 10 * index, np.uint8))
    return [folder / name for name in names]


def listed_as(*names: str, folder: Path = Path()) -> list[ListedImage]:
    return [ListedImage(folder / name, name, name.rpartition(".")[0], PHRASES) for name in names]


# ---- which images ----


def test_a_folder(tmp_path: Path) -> None:
    write_images(tmp_path, "b.jpg", "a.PNG", "c.webp", ".hidden.jpg", "deeper/d.jpg")
    (tmp_path / "notes.txt").write_text("no image", encoding="utf-8")
    (tmp_path / "e.jpg").mkdir()
    listed = list_images(tmp_path, PROMPT)
    assert [image.path for image in listed] == [tmp_path / name for name in ("a.PNG", "b.jpg", "c.webp")]
    assert [(image.name, image.stem) for image in listed] == [("a.PNG", "a"), ("b.jpg", "b"), ("c.webp", "c")]
    assert {image.phrases for image in listed} == {PHRASES}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.jpg", ["a.jpg", "b.jpg"]),
        ("**/*.jpg", ["a.jpg", "b.jpg", "deeper/a.jpg"]),
        ("deeper/*", ["a.jpg"]),
        ("a.jpg", ["a.jpg"]),
    ],
)
def test_a_pattern(tmp_path: Path, pattern: str, names: list[str]) -> None:
    write_images(tmp_path, "b.jpg", "a.jpg", "deeper/a.jpg", "c.png")
    (tmp_path / "deeper" / "notes.txt").write_text("no image", encoding="utf-8")
    listed = list_images(str(tmp_path / pattern), PROMPT)
    assert [image.name for image in listed] == names
    assert [image.stem for image in listed] == [name.removesuffix(".jpg") for name in names]


@pytest.mark.parametrize(
    ("file_name", "text", "expected"),
    [
        ("list.txt", "b.jpg\n\n# a comment\na.jpg\n", [("b.jpg", PHRASES), ("a.jpg", PHRASES)]),
        ("list.txt", "b.jpg\tred car.\na.jpg\t \n", [("b.jpg", ("red car",)), ("a.jpg", PHRASES)]),
        ("list.txt", "\ufeffa b.jpg\r\nstraße.jpg\tStraße", [("a b.jpg", PHRASES), ("straße.jpg", ("straße",))]),
        ("list.TXT", "a.jpg\tcat\na.jpg\tdog. cat", [("a.jpg", ("cat", "dog"))]),
        ("list.csv", "image\nb.jpg\na.jpg\n", [("b.jpg", PHRASES), ("a.jpg", PHRASES)]),
        (
            "list.csv",
            'prompt, image, other\n"red car, cat", b.jpg, 1\n, a.jpg, 2\n',
            [("b.jpg", ("red car", "cat")), ("a.jpg", PHRASES)],
        ),
        ("list.json", '["b.jpg", "a.jpg"]', [("b.jpg", PHRASES), ("a.jpg", PHRASES)]),
        (
            "list.json",
            '{"b.jpg": "Red Car.", "a.jpg": ["a man, sitting"], "c.jpg": null}',
            [("b.jpg", ("red car",)), ("a.jpg", ("a man, sitting",)), ("c.jpg", PHRASES)],
        ),
    ],
)
def test_a_list(tmp_path: Path, file_name: str, text: str, expected: list[tuple[str, tuple[str, ...]]]) -> None:
    """Paths are relative to the list's folder; the images need not be there yet."""
    (tmp_path / file_name).write_text(text, encoding="utf-8")
    listed = list_images(tmp_path / file_name, PROMPT)
    assert [(image.name, image.phrases) for image in listed] == expected
    assert [image.path for image in listed] == [tmp_path / name for name, _ in expected]


def test_files_about_images_that_differ_in_their_suffix_have_different_names(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg", "a.png", "b.jpg", "B.webp", "c.jpg")
    stems = [image.stem for image in list_images(tmp_path, PROMPT)]
    assert stems == ["B.webp", "a.jpg", "a.png", "b.jpg", "c"]


def test_names_are_relative_to_what_all_paths_of_a_list_share(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "list.txt").write_text(f"../x/a.jpg\n{tmp_path}/x/y/b.jpg\n", encoding="utf-8")
    assert [image.name for image in list_images(tmp_path / "lists" / "list.txt", PROMPT)] == ["a.jpg", "y/b.jpg"]


def test_all_phrases_count_in_the_order_of_the_list(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.jpg\tcat. dog\nb.jpg\nc.jpg\tdog. car", encoding="utf-8")
    assert all_phrases(list_images(tmp_path / "list.txt", PROMPT)) == ["cat", "dog", "tree", "car"]


def test_a_prompt_for_all_is_needed_only_where_an_image_has_none(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.jpg\tcat", encoding="utf-8")
    assert list_images(tmp_path / "list.txt", "")[0].phrases == ("cat",)
    (tmp_path / "list.txt").write_text("a.jpg\tcat\nb.jpg", encoding="utf-8")
    with pytest.raises(ValueError, match=r"list.txt, prompt of .*b.jpg: the text prompt names nothing"):
        list_images(tmp_path / "list.txt", "")


@pytest.mark.parametrize(
    ("file_name", "text", "says"),
    [
        ("list.csv", "file,prompt\na.jpg,dog\n", "list.csv is no list of images"),
        ("list.csv", "prompt,image\ndog\n", "list.csv is no list of images"),
        ("list.json", "{", "list.json is no list of images"),
        ("list.json", "[1, 2]", "expected a list of paths"),
        ("list.json", '"a.jpg"', "expected a list of paths"),
        ("list.json", '{"a.jpg": 5}', "prompt of .*a.jpg"),
        ("list.json", '{"a.jpg": "..."}', "names nothing"),
        ("list.yaml", "a.jpg", r"expected a list of images \(.txt, .csv, .json\) or an image"),
    ],
)
def test_a_bad_list_is_a_value_error(tmp_path: Path, file_name: str, text: str, says: str) -> None:
    (tmp_path / file_name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        list_images(tmp_path / file_name, PROMPT)


def test_a_list_that_is_not_text_is_a_value_error(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ValueError, match="is no list of images"):
        list_images(tmp_path / "list.txt", PROMPT)


@pytest.mark.parametrize("source", ["nowhere", "*.jpg", "empty", "nowhere/list.txt", "empty.txt"])
def test_no_images_is_an_error(tmp_path: Path, source: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"no images in .*expected a folder of images, a pattern"):
        list_images(tmp_path / source, PROMPT)


# ---- reading ----


def write_bad_images(folder: Path) -> dict[str, str]:
    """Files that are no images to work on, and what is said about each."""
    [whole] = write_images(folder, "whole.jpg")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    write_image(whole, noise)
    (folder / "truncated.jpg").write_bytes(whole.read_bytes()[:2000])
    whole.unlink()
    (folder / "text.jpg").write_text("this is no picture", encoding="utf-8")
    (folder / "empty.jpg").touch()
    write_image(folder / "dot.png", np.zeros((1, 1, 3), np.uint8))
    write_image(folder / "strip.png", np.zeros((3, 500, 3), np.uint8))
    return {
        "truncated.jpg": "is a damaged image",
        "text.jpg": "is not an image",
        "empty.jpg": "is not an image that can be read (0 bytes)",
        "dot.png": "has 1x1 pixels, expected 4 a side at least",
        "strip.png": "has 500x3 pixels",
        "gone.jpg": "no such image",
    }


@pytest.mark.parametrize(("count", "batch_size"), [(0, 2), (1, 2), (3, 2), (4, 2), (3, 1), (3, 10)])
def test_batches(tmp_path: Path, count: int, batch_size: int) -> None:
    paths = write_images(tmp_path, *(f"{index}.png" for index in range(count)))
    listed = listed_as(*(path.name for path in paths), folder=tmp_path)
    batches = list(read_batches(listed, batch_size))
    assert [len(batch.listed) for batch in batches] == [
        min(batch_size, count - start) for start in range(0, count, batch_size)
    ]
    assert [image for batch in batches for image in batch.listed] == listed
    for path, pixels in zip(paths, (pixels for batch in batches for pixels in batch.images), strict=True):
        np.testing.assert_array_equal(pixels, read_image(path))


def test_bad_images_are_skipped_with_a_reason(tmp_path: Path) -> None:
    says = write_bad_images(tmp_path)
    write_images(tmp_path, "a.png", "z.png")
    batches = list(read_batches(listed_as("a.png", *says, "z.png", folder=tmp_path), 3))
    assert [[image.name for image in batch.listed] for batch in batches] == [["a.png"], [], ["z.png"]]
    skipped = {image.name: reason for batch in batches for image, reason in batch.skipped}
    assert skipped.keys() == says.keys()
    for name, reason in skipped.items():
        assert says[name] in reason and name in reason


def test_finished_images_are_left_out_and_the_rest_keep_their_batches(tmp_path: Path) -> None:
    names = [f"{index}.png" for index in range(8)]
    write_images(tmp_path, *names)
    finished = {"0.png", "2.png", "3.png", "4.png", "5.png"}
    batches = read_batches(listed_as(*names, folder=tmp_path), 3, lambda image: image.name in finished)
    assert [[image.name for image in batch.listed] for batch in batches] == [["1.png"], ["6.png", "7.png"]]


def test_at_most_one_batch_is_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Path] = []

    def read(path: Path) -> np.ndarray:
        started.append(path)
        return read_image(path)

    monkeypatch.setattr(batch_module, "read_image", read)
    names = [f"{index}.png" for index in range(20)]
    write_images(tmp_path, *names)
    for number, _ in enumerate(read_batches(listed_as(*names, folder=tmp_path), 4), start=1):
        assert 4 * number <= len(started) <= 4 * (number + 1)
    assert len(started) == 20


def test_batch_size_below_one_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="batch_size of at least 1, got 0"):
        next(read_batches(listed_as("a.png"), 0))


# ---- boxes ----


class GreyDetector:
    """Finds one box of the phrase that an image's grey level, counted from 0, points at; none beyond the prompt."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, list[str], dict[str, Any]]] = []

    def detect(self, images: Sequence[np.ndarray], text_prompt: Any, **options: Any) -> list[sv.Detections]:
        phrases = parse_prompt(text_prompt)
        self.calls.append((len(images), phrases, options))
        return [self._find(int(image[0, 0, 0]), image, phrases) for image in images]

    def _find(self, grey: int, image: np.ndarray, phrases: list[str]) -> sv.Detections:
        count = int(grey < len(phrases))
        xyxy = np.array([[1, 2, 11, 12]])[:count]
        return make_detections(xyxy, np.full(count, 0.5), np.full(count, grey), phrases, image.shape[1::-1])


def test_each_image_is_looked_at_for_its_own_prompt() -> None:
    prompts = [("dog", "tree"), ("car",), ("dog", "tree"), ("tree", "dog")]
    greys = [1, 0, 5, 1]
    listed = [ListedImage(Path(f"{row}.jpg"), f"{row}.jpg", f"{row}", phrases) for row, phrases in enumerate(prompts)]
    detector = GreyDetector()
    batch = ImageBatch(listed, [np.full((20, 20, 3), grey, np.uint8) for grey in greys])
    found = detect_batch(detector, batch, 0.4, 0.3)
    assert [detections.data["class_name"].tolist() for detections in found] == [["tree"], ["car"], [], ["dog"]]
    assert [(count, phrases) for count, phrases, _ in detector.calls] == [
        (2, ["dog", "tree"]),
        (1, ["car"]),
        (1, ["tree", "dog"]),
    ]
    assert [options for _, _, options in detector.calls] == [{"box_threshold": 0.4, "text_threshold": 0.3}] * 3
    assert detect_batch(detector, ImageBatch()) == []


# ---- what is finished ----


@pytest.fixture
def images(tmp_path: Path) -> list[ListedImage]:
    write_images(tmp_path / "in", "a.png", "b.png", "c.png")
    return list_images(tmp_path / "in", PROMPT)


def finish(folder: BatchFolder, *images: ListedImage) -> None:
    for image in images:
        write_json(folder.json_path(image), image.path, sv.Detections.empty(), (30, 20))
    folder.finish(images)


def unfinished(folder: BatchFolder, images: list[ListedImage]) -> str:
    return "".join(image.stem for image in images if not folder.is_finished(image))


def test_a_later_run_goes_on(tmp_path: Path, images: list[ListedImage]) -> None:
    settings = {"BOX_THRESHOLD": 0.35, "SLICE_WH": (640, 480), "MODEL": Path("nano")}
    with BatchFolder(tmp_path / "out", settings) as folder:
        assert unfinished(folder, images) == "abc" and folder.exported(images) == []
        finish(folder, images[2], images[0])
        assert unfinished(folder, images) == "b"
    with BatchFolder(tmp_path / "out", settings) as folder:
        assert unfinished(folder, images) == "b"
        assert [(image.image_id, image.file_name) for image in folder.exported(images)] == [(1, "a.png"), (3, "c.png")]
        finish(folder, images[1])
    with BatchFolder(tmp_path / "out", settings) as folder:
        assert unfinished(folder, images) == ""
        assert [image.image_id for image in folder.exported(images)] == [1, 2, 3]
    with BatchFolder(tmp_path / "out", settings, overwrite=True) as folder:
        assert unfinished(folder, images) == "abc"


def test_what_has_changed_is_done_again(tmp_path: Path, images: list[ListedImage]) -> None:
    with BatchFolder(tmp_path / "out", {}) as folder:
        finish(folder, *images)
        write_image(images[0].path, np.full((20, 30, 3), 77, np.uint8))
        assert unfinished(folder, images) == "a"
        folder.json_path(images[1]).unlink()
        assert unfinished(folder, images) == "ab"
        images[2].path.unlink()
        assert unfinished(folder, images) == "abc"
    with BatchFolder(tmp_path / "out", {}) as folder:
        assert unfinished(folder, list_images(tmp_path / "in", "dog")) == "ab"


def test_a_missing_picture_counts_only_where_pictures_are_wanted(tmp_path: Path, images: list[ListedImage]) -> None:
    with BatchFolder(tmp_path / "out", {}) as folder:
        finish(folder, *images)
        write_image(folder.picture_path(images[1]), np.zeros((8, 8, 3), np.uint8))
        assert unfinished(folder, images) == ""
    with BatchFolder(tmp_path / "out", {}, with_pictures=True) as folder:
        assert unfinished(folder, images) == "ac"


def test_another_prompt_makes_an_image_unfinished(tmp_path: Path, images: list[ListedImage]) -> None:
    with BatchFolder(tmp_path / "out", {}) as folder:
        finish(folder, *images)
        assert unfinished(folder, list_images(tmp_path / "in", "tree. dog.")) == "abc"


def test_other_settings_are_a_value_error(tmp_path: Path, images: list[ListedImage]) -> None:
    with BatchFolder(tmp_path / "out", {"BOX_THRESHOLD": 0.35, "MODEL": "nano"}) as folder:
        finish(folder, images[0])
    other = {"BOX_THRESHOLD": 0.5, "MODEL": "nano"}
    with pytest.raises(ValueError, match=r"other settings \(BOX_THRESHOLD was 0.35, is 0.5\): choose another --output"):
        BatchFolder(tmp_path / "out", other)
    with BatchFolder(tmp_path / "out", other, overwrite=True) as folder:
        assert unfinished(folder, images) == "abc"


def test_settings_may_change_as_long_as_nothing_is_finished(tmp_path: Path, images: list[ListedImage]) -> None:
    BatchFolder(tmp_path / "out", {"MODEL": "a wrong name"}).close()
    with BatchFolder(tmp_path / "out", {"MODEL": "nano"}) as folder:
        finish(folder, *images)
    with BatchFolder(tmp_path / "out", {"MODEL": "nano"}) as folder:
        assert unfinished(folder, images) == ""


@pytest.mark.parametrize("lost", range(1, 60, 7))
def test_a_line_that_a_crash_cut_off_is_done_again(tmp_path: Path, images: list[ListedImage], lost: int) -> None:
    with BatchFolder(tmp_path / "out", {}) as folder:
        finish(folder, images[0])
        finish(folder, images[1])
    path = tmp_path / "out" / "progress.jsonl"
    path.write_bytes(path.read_bytes()[:-lost])
    with BatchFolder(tmp_path / "out", {}) as folder:
        assert unfinished(folder, images) == "bc"
        finish(folder, *images[1:])
    with BatchFolder(tmp_path / "out", {}) as folder:
        assert unfinished(folder, images) == ""


@pytest.mark.parametrize("line", ["{", "[]", '"a"', "{}"])
def test_a_damaged_progress_file_is_a_value_error(tmp_path: Path, line: str) -> None:
    BatchFolder(tmp_path / "out", {}).close()
    with (tmp_path / "out" / "progress.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(line + "\n")
    with pytest.raises(ValueError, match=r"progress.jsonl, line 2 is damaged .*--overwrite"):
        BatchFolder(tmp_path / "out", {})


# ---- one data set of all images ----


def bar(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((24, 40), bool)
    mask[top:bottom, left:right] = True
    return mask


def write_three(folder: Path) -> list[ExportedImage]:
    """A tree and a dog on the first image, nothing on the second, a dog on the fifth of a list."""
    masks = [[bar(2, 4, 18, 20), bar(20, 3, 30, 9)], [], [bar(0, 0, 40, 24)]]
    names = [["tree", "dog"], [], ["dog"]]
    exported = []
    for image_id, of_image, class_names in zip((1, 2, 5), masks, names, strict=True):
        detections = sv.Detections.empty()
        if of_image:
            xyxy = sv.mask_to_xyxy(np.stack(of_image)).astype(np.float32)
            xyxy[:, 2:] += 1
            detections = sv.Detections(
                xyxy,
                mask=np.stack(of_image),
                confidence=np.array([0.75, 0.5][: len(of_image)], np.float32),
                data={"class_name": np.array(class_names)},
            )
        path = folder / f"{image_id}.json"
        write_json(path, f"{image_id}.jpg", detections, (40, 24))
        exported.append(ExportedImage(image_id, f"sub/{image_id}.jpg", f"sub/{image_id}", path))
    return exported


def test_coco_loads_with_pycocotools(tmp_path: Path) -> None:
    write_image_coco(iter(write_three(tmp_path)), ["dog", "car", "tree"], tmp_path / "coco.json")
    coco = COCO(tmp_path / "coco.json")
    coco.info()
    assert [(c["id"], c["name"]) for c in coco.loadCats(coco.getCatIds())] == [(1, "dog"), (2, "car"), (3, "tree")]
    images = coco.loadImgs(coco.getImgIds())
    assert [(image["id"], image["file_name"]) for image in images] == [(n, f"sub/{n}.jpg") for n in (1, 2, 5)]
    assert all((image["width"], image["height"]) == (40, 24) for image in images)
    annotations = coco.loadAnns(coco.getAnnIds())
    assert [annotation["id"] for annotation in annotations] == [1, 2, 3]
    assert [(a["image_id"], a["category_id"], a["score"]) for a in annotations] == [
        (1, 3, 0.75),
        (1, 1, 0.5),
        (5, 1, 0.75),
    ]
    assert [a["bbox"] for a in annotations] == [[2, 4, 16, 16], [20, 3, 10, 6], [0, 0, 40, 24]]
    assert [a["area"] for a in annotations] == [256, 60, 960]
    for annotation, mask in zip(annotations, (bar(2, 4, 18, 20), bar(20, 3, 30, 9), bar(0, 0, 40, 24)), strict=True):
        np.testing.assert_array_equal(coco.annToMask(annotation).astype(bool), mask)


def test_coco_of_no_images(tmp_path: Path) -> None:
    write_image_coco([], ["dog"], tmp_path / "coco.json")
    coco = COCO(tmp_path / "coco.json")
    assert coco.getImgIds() == coco.getAnnIds() == [] and coco.getCatIds() == [1]


def test_yolo_labels(tmp_path: Path) -> None:
    write_image_yolo(iter(write_three(tmp_path)), ["dog", "car", "tree"], tmp_path / "yolo")
    assert yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text(encoding="utf-8")) == {
        "path": ".",
        "names": {0: "dog", 1: "car", 2: "tree"},
    }
    labels = {path.stem: path.read_text(encoding="utf-8").splitlines() for path in tmp_path.glob("yolo/labels/sub/*")}
    assert labels.keys() == {"1", "2", "5"}
    assert [line.split()[0] for line in labels["1"]] == ["2", "0"] and labels["2"] == []
    corners = np.array(labels["1"][0].split()[1:], float).reshape(-1, 2)
    assert corners.min(axis=0) == pytest.approx([2 / 40, 4 / 24], abs=1e-6)
    assert corners.max(axis=0) == pytest.approx([17 / 40, 19 / 24], abs=1e-6)  # of the last pixels


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"annotations": [{"class_name": "cat"}]}'])
@pytest.mark.parametrize("write", [write_image_coco, write_image_yolo])
def test_other_json_is_a_value_error(tmp_path: Path, text: str, write: Callable[..., None]) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"a.json holds no annotations with masks of the classes dog, tree"):
        write([ExportedImage(1, "a.jpg", "a", tmp_path / "a.json")], PHRASES, tmp_path / "out")
    assert not (tmp_path / "out").is_file()


def test_objects_without_masks_are_a_value_error(tmp_path: Path) -> None:
    boxes = make_detections(np.array([[0, 0, 4, 4]]), np.array([0.5]), np.array([0]), PHRASES, (8, 8))
    write_json(tmp_path / "a.json", "a.jpg", boxes, (8, 8))
    with pytest.raises(ValueError, match="no annotations with masks"):
        write_image_coco([ExportedImage(1, "a.jpg", "a", tmp_path / "a.json")], PHRASES, tmp_path / "coco.json")


# ---- the script ----

Run = Callable[..., int]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Quarters of the bundled scene, each with an object or two, and files that are no images."""
    folder = tmp_path_factory.mktemp("photos")
    scene = read_image(REPOSITORY / "assets" / "scene.jpg")
    height, width = scene.shape[0] // 2, scene.shape[1] // 2
    for row in (0, 1):
        for column in (0, 1):
            part = scene[row * height : (row + 1) * height, column * width : (column + 1) * width]
            write_image(folder / f"part{row}{column}.png", part)
    Image.fromarray(scene).save(folder / "scene.jpg")
    write_bad_images(folder)
    return folder


@pytest.fixture
def run(load_script: Callable[[str], ModuleType], photos: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the script with settings, or with its names replaced; gives the exit status."""
    monkeypatch.chdir(REPOSITORY)

    def run_with(output_dir: Path, **settings: Any) -> int:
        script = load_script(SCRIPT)
        for name, value in {"IMAGES": str(photos), "OUTPUT_DIR": output_dir, "BATCH_SIZE": 3, **settings}.items():
            assert hasattr(script, name)
            setattr(script, name, value)
        try:
            script.main()
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    return run_with


GOOD = ["part00", "part01", "part10", "part11", "scene"]
BAD = ["dot.png", "empty.jpg", "strip.png", "text.jpg", "truncated.jpg"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uninterrupted")


def files_of(folder: Path) -> dict[str, bytes]:
    """What was written, but for the progress, which tells in which order."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "progress.jsonl"
    }


def test_script(run: Run, uninterrupted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(uninterrupted) == 1
    said = capsys.readouterr()
    assert all(said.err.count(f"/{name} ") == 1 for name in BAD) and said.err.count("skipped: ") == len(BAD)
    assert "finished 5 of 10 images" in said.out
    assert files_of(uninterrupted).keys() == {
        "coco.json",
        "yolo/data.yaml",
        *(f"json/{stem}.json" for stem in GOOD),
        *(f"annotated/{stem}.jpg" for stem in GOOD),
        *(f"yolo/labels/{stem}.txt" for stem in GOOD),
    }
    coco = COCO(uninterrupted / "coco.json")
    prompt = "owl. pizza. sailboat. pig. green book. camera. teddy bear."
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == parse_prompt(prompt)
    assert {image["file_name"].rpartition(".")[0] for image in coco.loadImgs(coco.getImgIds())} == set(GOOD)
    annotations = coco.loadAnns(coco.getAnnIds())
    assert len(annotations) >= 7
    num_found = {
        stem: len(json.loads((uninterrupted / "json" / f"{stem}.json").read_text(encoding="utf-8"))["annotations"])
        for stem in GOOD
    }
    of_image = {Path(image["file_name"]).stem: coco.getAnnIds(imgIds=image["id"]) for image in coco.dataset["images"]}
    assert {stem: len(ids) for stem, ids in of_image.items()} == num_found
    for annotation in annotations:
        assert coco.annToMask(annotation).sum() == annotation["area"] > 0
    entry = json.loads((uninterrupted / "json" / "scene.json").read_text(encoding="utf-8"))
    assert set(entry) == {"image_path", "annotations", "box_format", "img_width", "img_height"}


@pytest.mark.parametrize(
    ("how", "stop_at", "finished"),
    [("SIGTERM", 1, 1), ("SIGINT", 2, 4), ("SIGTERM", 4, 4), ("crash", 1, 0), ("crash", 4, 1), ("crash", 5, 4)],
)
def test_an_interrupted_run_goes_on_to_the_same_files(
    run: Run, uninterrupted: Path, tmp_path: Path, how: str, stop_at: int, finished: int
) -> None:
    """A signal ends the run between batches, a crash at once, before the picture of the n-th image is written."""
    if not (uninterrupted / "coco.json").exists():
        run(uninterrupted)
    written: list[str] = []

    def write_and_stop(path: Path, image: np.ndarray) -> None:
        written.append(path.stem)
        if len(written) == stop_at:
            if how == "crash":
                raise MemoryError
            os.kill(os.getpid(), signal.Signals[how])
        write_image(path, image)

    if how == "crash":
        with pytest.raises(MemoryError):
            run(tmp_path, write_image=write_and_stop)
    else:
        # the batches: dot, empty, part00 | part01, part10, part11 | scene, strip, text | truncated
        status = run(tmp_path, write_image=write_and_stop)
        assert status == 128 + signal.Signals[how]
    assert not (tmp_path / "coco.json").exists()
    before = written.copy()
    written.clear()
    assert run(tmp_path, write_image=lambda path, image: (written.append(path.stem), write_image(path, image))) == 1
    assert written == GOOD[finished:]
    assert before[:finished] == GOOD[:finished]
    assert files_of(tmp_path) == files_of(uninterrupted)


def test_finished_images_stay_as_they_are(run: Run, tmp_path: Path, photos: Path) -> None:
    images = str(photos / "part*.png")
    assert run(tmp_path, IMAGES=images) == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("json/*")}
    assert len(before) == 4
    coco = (tmp_path / "coco.json").read_bytes()
    assert run(tmp_path, IMAGES=images) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("json/*")} == before
    assert (tmp_path / "coco.json").read_bytes() == coco
    assert run(tmp_path, IMAGES=images, OVERWRITE=True) == 0
    assert all(path.stat().st_mtime_ns > modified for path, modified in before.items())


def test_a_prompt_for_each_image_without_pictures(run: Run, tmp_path: Path, photos: Path) -> None:
    prompts = {"scene.jpg": "owl. pizza.", "part00.png": "green book", "part11.png": "pizza. camera. owl"}
    listed = photos / "prompts.json"
    listed.write_text(json.dumps(prompts), encoding="utf-8")
    assert run(tmp_path, IMAGES=str(listed), TEXT_PROMPT="", SAVE_ANNOTATED=False) == 0
    assert not (tmp_path / "annotated").exists()
    coco = COCO(tmp_path / "coco.json")
    names = [category["name"] for category in coco.loadCats(coco.getCatIds())]
    assert names == ["owl", "pizza", "green book", "camera"]
    found = {image["file_name"]: set() for image in coco.loadImgs(coco.getImgIds())}
    for annotation in coco.loadAnns(coco.getAnnIds()):
        file_name = coco.loadImgs(annotation["image_id"])[0]["file_name"]
        found[file_name].add(names[annotation["category_id"] - 1])
    assert found == {"scene.jpg": {"owl", "pizza"}, "part00.png": {"green book"}, "part11.png": {"owl"}}


def test_nothing_found(run: Run, tmp_path: Path, photos: Path) -> None:
    assert run(tmp_path, IMAGES=str(photos / "scene.jpg"), BOX_THRESHOLD=1.0) == 0
    assert json.loads((tmp_path / "json" / "scene.json").read_text(encoding="utf-8"))["annotations"] == []
    assert json.loads((tmp_path / "coco.json").read_text(encoding="utf-8"))["annotations"] == []
    assert (tmp_path / "yolo" / "labels" / "scene.txt").read_text(encoding="utf-8") == ""


def test_only_bad_images(run: Run, tmp_path: Path, photos: Path) -> None:
    assert run(tmp_path, IMAGES=str(photos / "t*.jpg")) == 1
    assert json.loads((tmp_path / "coco.json").read_text(encoding="utf-8"))["images"] == []
