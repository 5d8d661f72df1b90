"""The script for many images, from its settings to its files, also after an interruption."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from listed_images import write_bad_images
from PIL import Image
from pycocotools.coco import COCO

from grounded_sam2.images import read_image, write_image
from grounded_sam2.owned import RECORD_NAME
from grounded_sam2.prompts import parse_prompt

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPT = "grounded_sam2_batch_images_demo.py"

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
    """What was written, but for the progress and the records of names, which tell in which order."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("progress.jsonl", RECORD_NAME)
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
        *(f"yolo/images/{stem}.{'jpg' if stem == 'scene' else 'png'}" for stem in GOOD),
    }
    coco = COCO(uninterrupted / "coco.json")
    prompt = "owl. pizza. sailboat. green book. teddy bear."
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
