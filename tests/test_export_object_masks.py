"""Mask images of each object: complete in its folder or not there, and nothing of others touched."""

from pathlib import Path

import numpy as np
import pytest
import supervision as sv
from PIL import Image

from grounded_sam2.export.object_masks import ObjectMaskWriter

SIZE = (12, 8)


def objects(*names: str, first_id: int = 1) -> sv.Detections:
    """Bars side by side, with ids from `first_id` on."""
    masks = np.zeros((len(names), SIZE[1], SIZE[0]), bool)
    for row in range(len(names)):
        masks[row, 1:7, 3 * row : 3 * row + 2] = True
    return sv.Detections(
        xyxy=np.zeros((len(names), 4), np.float32),
        mask=masks,
        tracker_id=np.arange(first_id, first_id + len(names)),
        data={"class_name": np.array(names, np.str_)},
    )


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_each_object_has_a_folder_of_its_name(tmp_path: Path) -> None:
    with ObjectMaskWriter(tmp_path / "out") as writer:
        writer.write(0, objects())
        writer.write(3, objects("red car", "../Eule: ä?"))
        writer.write(12, objects("truck"))  # another name for object 1
    assert files_in(tmp_path / "out") == ["1_red_car/00003.png", "1_red_car/00012.png", "2_Eule_ä/00003.png"]
    image = Image.open(tmp_path / "out/2_Eule_ä/00003.png")
    assert image.mode == "L" and np.array_equal(np.asarray(image), np.uint8(255) * objects("a", "b").mask[1])
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_names_without_a_letter_and_very_long_ones(tmp_path: Path) -> None:
    with ObjectMaskWriter(tmp_path / "out") as writer:
        writer.write(0, objects("???", "x" * 300))
    assert files_in(tmp_path / "out") == ["1_object/00000.png", f"2_{'x' * 60}/00000.png"]


def test_a_later_run_replaces_an_earlier_one_and_nothing_else(tmp_path: Path) -> None:
    with ObjectMaskWriter(tmp_path / "out") as writer:
        for frame_idx in range(3):
            writer.write(frame_idx, objects("owl", "car"))
    (tmp_path / "out/2_car/notes.txt").write_text("mine")
    (tmp_path / "out/mine").mkdir()
    (tmp_path / "out/mine/00000.png").write_text("mine")
    with ObjectMaskWriter(tmp_path / "out") as writer:
        writer.write(1, objects("cat"))
    assert files_in(tmp_path / "out") == ["1_cat/00001.png", "2_car/notes.txt", "mine/00000.png"]
    with ObjectMaskWriter(tmp_path / "out") as writer:
        writer.write(0, objects())  # nothing was found
    assert files_in(tmp_path / "out") == ["2_car/notes.txt", "mine/00000.png"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_run_leaves_the_earlier_one_as_it_was(tmp_path: Path, error: type[BaseException]) -> None:
    with ObjectMaskWriter(tmp_path / "out") as writer:
        writer.write(0, objects("owl"))
    with pytest.raises(error), ObjectMaskWriter(tmp_path / "out") as writer:
        writer.write(0, objects("cat"))
        writer.write(1, objects("cat"))
        raise error
    assert files_in(tmp_path / "out") == ["1_owl/00000.png"]
    assert files_in(tmp_path / "out.partial") == ["1_cat/00000.png", "1_cat/00001.png"]
    (tmp_path / "out.partial/1_cat/.00001.0123abcd.png").write_text("half a file")  # a crash leaves these
    with ObjectMaskWriter(tmp_path / "out") as writer:
        writer.write(0, objects("dog"))
    assert files_in(tmp_path) == ["out/1_dog/00000.png"]


@pytest.mark.parametrize("missing", ["mask", "tracker_id", "data"])
def test_what_is_no_tracked_object_is_refused(tmp_path: Path, missing: str) -> None:
    detections = objects("owl")
    setattr(detections, missing, {} if missing == "data" else None)
    with (
        ObjectMaskWriter(tmp_path / "out") as writer,
        pytest.raises(ValueError, match="mask, tracker_id and class_name"),
    ):
        writer.write(0, detections)
    assert list(tmp_path.iterdir()) == []
