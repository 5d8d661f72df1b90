"""Many images: in which batches, what is found, and what an interruption leaves."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import supervision as sv
from listed_images import PROMPT, listed_as, write_bad_images, write_images

from grounded_sam2.batch import BatchFolder, ImageBatch, ListedImage, detect_batch, list_images, read_batches
from grounded_sam2.batch import batch as batch_module
from grounded_sam2.detectors.base import make_detections
from grounded_sam2.export import read_json, write_json
from grounded_sam2.export.images import write_image_coco, write_image_yolo
from grounded_sam2.images import read_image, write_image
from grounded_sam2.owned import RECORD_NAME
from grounded_sam2.prompts import Prompt, parse_prompt

# ---- reading ----


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
    listed = [
        ListedImage(Path(f"{row}.jpg"), f"{row}.jpg", f"{row}", Prompt(phrases)) for row, phrases in enumerate(prompts)
    ]
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
    detect_batch(detector, ImageBatch(listed[1:2], batch.images[1:2]), aliases={"car": "auto"}, top_k=2)
    options = detector.calls[-1][2]
    assert options == {"box_threshold": 0.35, "text_threshold": 0.25, "aliases": {"car": "auto"}, "top_k": 2}


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


@pytest.mark.parametrize("other", ["dog. tree@0.5", "dog=puppy. tree", "dog. tree. not a bush", "tree. dog"])
def test_another_prompt_is_done_again(tmp_path: Path, images: list[ListedImage], other: str) -> None:
    with BatchFolder(tmp_path / "out", {}) as folder:
        finish(folder, *images)
        assert unfinished(folder, list_images(tmp_path / "in", other)) == "abc"
        finish(folder, *list_images(tmp_path / "in", other))
    with BatchFolder(tmp_path / "out", {}) as folder:
        assert unfinished(folder, list_images(tmp_path / "in", other)) == ""
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


# ---- whose results they are ----


def test_images_of_one_name_are_not_mixed(tmp_path: Path) -> None:
    """The second folder's image has other results, also when only their names agree."""
    write_images(tmp_path / "one", "a.png")
    write_images(tmp_path / "two", "b.png", "a.png")
    first, second = (list_images(tmp_path / name / "a.png", PROMPT) for name in ("one", "two"))
    with BatchFolder(tmp_path / "out", {}, first) as folder:
        finish(folder, *first)
    with pytest.raises(ValueError, match=r"a\.json is about another image than .*two/a\.png: choose another"):
        BatchFolder(tmp_path / "out", {}, second)
    with BatchFolder(tmp_path / "out", {}, first) as folder:
        assert unfinished(folder, first) == ""
    with BatchFolder(tmp_path / "out", {}, second, overwrite=True) as folder:
        assert unfinished(folder, second) == "a"


def test_an_image_that_is_called_otherwise_now_is_not_taken_for_another(tmp_path: Path) -> None:
    """While a.jpg and a.png are both listed, neither is called "a"; alone, a.png must not get what a.jpg had as "a"."""
    write_images(tmp_path / "in", "a.jpg")
    out = tmp_path / "out"
    with BatchFolder(out, {}, list_images(tmp_path / "in", PROMPT)) as folder:
        finish(folder, *list_images(tmp_path / "in", PROMPT))
    write_images(tmp_path / "in", "b.png", "a.png")
    both = list_images(tmp_path / "in" / "a.*", PROMPT)
    with BatchFolder(out, {}, both) as folder:
        assert unfinished(folder, both) == "a.jpga.png"
        finish(folder, *both)
    alone = list_images(tmp_path / "in" / "a.png", PROMPT)
    with BatchFolder(out, {}, alone) as folder:
        assert unfinished(folder, alone) == "a"


def test_results_of_an_older_version_are_gone_on_with(tmp_path: Path, images: list[ListedImage]) -> None:
    """It noted neither the places of images nor whose files are."""
    with BatchFolder(tmp_path / "out", {}, images) as folder:
        finish(folder, *images[:2])
    path = tmp_path / "out" / "progress.jsonl"
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    entries = [{key: entry[key] for key in entry if key not in ("stem", "place")} for entry in entries]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (tmp_path / "out" / RECORD_NAME).unlink()
    with BatchFolder(tmp_path / "out", {}, images) as folder:
        assert unfinished(folder, images) == "c"


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, images: list[ListedImage]) -> None:
    for place in ("progress.jsonl", "json/b.json", "coco.json", "yolo/labels/c.txt", "yolo/data.yaml"):
        foreign = tmp_path / place.replace("/", "_") / place
        foreign.parent.mkdir(parents=True)
        foreign.write_text("the user's own")
        with pytest.raises(ValueError, match="is there already and was not written by this program"):
            BatchFolder(tmp_path / place.replace("/", "_"), {}, images, overwrite=True)
        assert foreign.read_text() == "the user's own"


def test_outputs_are_no_inputs(tmp_path: Path, images: list[ListedImage]) -> None:
    with BatchFolder(tmp_path / "in", {}, images) as folder:
        write_image(folder.picture_path(images[0]), np.zeros((20, 30, 3), np.uint8))
    again = list_images(str(tmp_path / "in" / "**" / "*"), PROMPT)
    with pytest.raises(ValueError, match=r"annotated/a\.jpg is an output of a run into .*in: choose another --output"):
        BatchFolder(tmp_path / "in", {}, again)
    listed = tmp_path / "out" / "coco.json"
    listed.parent.mkdir()
    listed.write_text(json.dumps([str(images[0].path)]))
    with pytest.raises(ValueError, match=r"coco\.json: it is read as an input"):
        BatchFolder(tmp_path / "out", {}, list_images(listed, PROMPT), source=listed)


@pytest.mark.parametrize("problem", [OSError(), OSError("no more"), ValueError("")])
def test_what_is_skipped_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: Exception) -> None:
    def fail(_: Path) -> np.ndarray:
        raise problem

    monkeypatch.setattr(batch_module, "read_image", fail)
    [batch] = read_batches(listed_as("a.png", folder=tmp_path), 3)
    assert batch.skipped[0][1] == f"{tmp_path / 'a.png'}: {str(problem) or type(problem).__name__}"


@pytest.mark.skipif(sys.platform == "darwin", reason="names are UTF-8 there")
def test_a_name_that_is_no_utf8_is_finished_like_any_other(tmp_path: Path) -> None:
    [path] = write_images(tmp_path / "in", os.fsdecode(b"stra\xdfe.png"))
    listed = list_images(tmp_path / "in", PROMPT)
    with BatchFolder(tmp_path / "out", {}, listed) as folder:
        finish(folder, *listed)
    with BatchFolder(tmp_path / "out", {}, listed) as folder:
        assert unfinished(folder, listed) == ""
        read = read_json(folder.json_path(listed[0]))
        assert read.image_path == str(path) and os.fsencode(read.image_path).endswith(b"stra\xdfe.png")
        write_image_coco(folder.exported(listed), ["dog"], tmp_path / "coco.json")
        write_image_yolo(folder.exported(listed), ["dog"], tmp_path / "yolo")
    assert json.loads((tmp_path / "coco.json").read_bytes())["images"][0]["file_name"] == path.name
    assert os.listdir(os.fsencode(tmp_path / "yolo" / "images")) == [b"stra\xdfe.png"]
