"""The JSON files of many images as one data set."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import supervision as sv
import yaml
from listed_images import PHRASES
from pycocotools.coco import COCO

from grounded_sam2.detectors.base import make_detections
from grounded_sam2.export import write_json
from grounded_sam2.export.images import ExportedImage, write_image_coco, write_image_yolo
from grounded_sam2.images import read_image, write_image


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
    assert len(coco.loadRes(coco.loadAnns(coco.getAnnIds())).getAnnIds()) == 3
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
        "names": {0: "dog", 1: "car", 2: "tree"},  # and no "train", since the images are not at hand
    }
    labels = {path.stem: path.read_text(encoding="utf-8").splitlines() for path in tmp_path.glob("yolo/labels/sub/*")}
    assert labels.keys() == {"1", "2", "5"}
    assert [line.split()[0] for line in labels["1"]] == ["2", "0"] and labels["2"] == []
    corners = np.array(labels["1"][0].split()[1:], float).reshape(-1, 2)
    # within the pixels of the edge, not on their corners: a reader that cuts 1.99999 off would take the pixel before
    assert corners.min(axis=0) == pytest.approx([2.4 / 40, 4.4 / 24], abs=1e-6)
    assert corners.max(axis=0) == pytest.approx([17.4 / 40, 19.4 / 24], abs=1e-6)  # of the last pixels


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


# ---- a data set that trains ----


def exported(folder: Path, *names: str) -> list[ExportedImage]:
    """Images in a folder with a dog on each."""
    images = []
    for image_id, name in enumerate(names, start=1):
        pixels = np.full((24, 40, 3), 10 * image_id, np.uint8)
        path = folder / "in" / name
        write_image(path, pixels)
        mask = bar(2, 4, 18, 20)[None]
        dog = sv.Detections(sv.mask_to_xyxy(mask).astype(np.float32), mask=mask, data={"class_name": np.array(["dog"])})
        stem = name.rpartition(".")[0]
        write_json(folder / f"{stem}.json", path, dog, (40, 24))
        images.append(ExportedImage(image_id, name, stem, folder / f"{stem}.json", path))
    return images


def files_in(folder: Path) -> set[str]:
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in files if not name.startswith(".")}


def test_yolo_trains_as_it_is(tmp_path: Path) -> None:
    """A trainer finds labels by the last "/images/" of a path, and reads no .ppm."""
    names = ["a.jpg", "images/b.png", "images_/b.png", "c.ppm"]
    write_image_yolo(exported(tmp_path, *names), ["dog", "cat"], tmp_path / "yolo")
    stems = ["a", "images_/b", "images_/b-2", "c"]
    suffixes = [".jpg", ".png", ".png", ".png"]
    images = {f"images/{stem}{suffix}" for stem, suffix in zip(stems, suffixes, strict=True)}
    assert files_in(tmp_path / "yolo") == images | {f"labels/{stem}.txt" for stem in stems} | {"data.yaml"}
    data = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text(encoding="utf-8"))
    assert data == {"train": "images", "val": "images", "names": {0: "dog", 1: "cat"}}
    for name, stem, suffix in zip(names, stems, suffixes, strict=True):
        copied = tmp_path / "yolo" / "images" / f"{stem}{suffix}"
        np.testing.assert_array_equal(read_image(copied), read_image(tmp_path / "in" / name))
        label = Path("/labels/".join(str(copied).rsplit("/images/", 1))).with_suffix(".txt")
        assert len(label.read_text().splitlines()) == 1
        assert not copied.samefile(tmp_path / "in" / name)


def test_what_an_earlier_data_set_left_goes_and_what_others_put_there_stays(tmp_path: Path) -> None:
    images = exported(tmp_path, "a.jpg", "b.jpg")
    write_image_yolo(images, ["dog"], tmp_path / "yolo")
    mine = tmp_path / "yolo" / "labels" / "mine.txt"
    mine.write_text("0 0.5 0.5 0.1 0.1")
    before = (tmp_path / "yolo" / "images" / "b.jpg").stat()
    write_image_yolo(images[1:], ["tree", "dog"], tmp_path / "yolo")
    expected = {"images/b.jpg", "labels/b.txt", "labels/mine.txt", "data.yaml"}
    assert files_in(tmp_path / "yolo") == expected
    assert (tmp_path / "yolo" / "labels" / "b.txt").read_text().startswith("1 ")
    assert (tmp_path / "yolo" / "images" / "b.jpg").stat().st_ino == before.st_ino  # not copied once more
    (tmp_path / "yolo" / "labels" / "a.txt").write_text("mine too")
    with pytest.raises(ValueError, match=r"labels/a\.txt is there already and was not written by this program"):
        write_image_yolo(images, ["dog"], tmp_path / "yolo")
