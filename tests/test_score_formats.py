"""A run scores the same in every format, formats are told by their content, and what does not fit is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from score_data import (
    SIZE,
    Frame,
    make_pair,
    write_davis,
    write_jsonl,
    write_mot,
    write_mots,
    write_youtube_vis,
)

from grounded_sam2.export.formats import write_davis as export_davis
from grounded_sam2.export.formats import write_mot as export_mot
from grounded_sam2.export.formats import write_mots as export_mots
from grounded_sam2.export.formats import write_youtube_vis as export_youtube_vis
from grounded_sam2.score import compare, open_videos
from grounded_sam2.score.pairing import compare_all, paired

TRUTH, RUN = make_pair(7, 16)
RANKED = ("AP", "AP50", "AP75", "track AP", "track AP50", "track AP75")  # hang on scores, which not every format has
WRITERS: dict[str, Callable[[Path, list[Frame]], Path]] = {
    "jsonl": lambda folder, frames: write_jsonl(folder / "clip.jsonl", frames),
    "mots": lambda folder, frames: write_mots(folder / "clip.txt", frames),
    "davis": lambda folder, frames: write_davis(folder / "clip", frames),
    "youtube_vis": lambda folder, frames: write_youtube_vis(folder / "clip.json", {"clip": frames}),
    "mot": lambda folder, frames: write_mot(folder / "mot.txt", frames),
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """(side, format) → file or folder."""
    folder = tmp_path_factory.mktemp("formats")
    return {
        (side, name): write(folder / side / name, frames)
        for side, frames in (("truth", TRUTH), ("run", RUN))
        for name, write in WRITERS.items()
    }


def score(run: Path, truth: Path, **options: object) -> dict:
    compared, _ = compare_all(paired(open_videos(run), open_videos(truth, is_truth=True)), **options)  # type: ignore[arg-type]
    [of_video] = compared.values()
    return {name: part.scores() for name, part in of_video.items()}


def without_ranks(scores: dict) -> dict:
    return {name: value for name, value in scores.items() if name not in RANKED}


@pytest.mark.parametrize("name", WRITERS)
def test_formats_are_told_by_their_content(paths: dict[tuple[str, str], Path], name: str) -> None:
    assert open_videos(paths["run", name]).format == name


@pytest.mark.parametrize("run_format", ["jsonl", "mots", "davis", "youtube_vis"])
@pytest.mark.parametrize("truth_format", ["jsonl", "mots", "davis", "youtube_vis"])
def test_masks_score_the_same_in_all_formats(
    paths: dict[tuple[str, str], Path], run_format: str, truth_format: str
) -> None:
    expected = score(paths["run", "jsonl"], paths["truth", "jsonl"])[""]
    found = score(paths["run", run_format], paths["truth", truth_format])[""]
    assert without_ranks(found) == pytest.approx(without_ranks(expected))
    assert 0.3 < found["HOTA"] < 0.95 and 0.3 < found["J&F"] < 0.95


@pytest.mark.parametrize("name", WRITERS)
def test_boxes_score_the_same_in_all_formats(paths: dict[tuple[str, str], Path], name: str) -> None:
    expected = score(paths["run", "jsonl"], paths["truth", "jsonl"], by_mask=False)[""]
    assert expected["J&F"] is None and expected["HOTA"] > 0.3
    for found in (
        score(paths["run", name], paths["truth", "mot"], by_mask=False)[""],
        score(paths["run", "mot"], paths["truth", name])[""],
    ):
        assert without_ranks(found) == pytest.approx(without_ranks(expected))
    ranked = score(paths["run", "mot"], paths["truth", name])[""]
    assert [ranked[key] for key in RANKED] == pytest.approx([expected[key] for key in RANKED])


def test_what_the_exporters_write_scores_as_what_they_read(paths: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    lines, truth = paths["run", "jsonl"], paths["truth", "davis"]
    expected = score(lines, truth)[""]
    for export, target in (
        (export_davis, tmp_path / "davis"),
        (export_mots, tmp_path / "mots.txt"),
        (export_youtube_vis, tmp_path / "youtube_vis.json"),
    ):
        export(lines, target)
        assert without_ranks(score(target, truth)[""]) == pytest.approx(without_ranks(expected)), export.__name__
    export_mot(lines, tmp_path / "mot.txt")
    boxes = without_ranks(score(lines, truth, by_mask=False)[""])
    assert without_ranks(score(tmp_path / "mot.txt", truth)[""]) == pytest.approx(boxes)


@pytest.mark.parametrize(("run_format", "truth_format"), [("jsonl", "youtube_vis"), ("mots", "jsonl")])
def test_classes_are_named_or_numbered(paths: dict[tuple[str, str], Path], run_format: str, truth_format: str) -> None:
    found = score(paths["run", run_format], paths["truth", truth_format], by_class=True)
    assert sorted(found) == (["cat", "dog"] if run_format == "jsonl" else ["1", "2"])
    assert sum(scores["matches"] + scores["missed"] for scores in found.values()) == sum(len(f.ids) for f in TRUTH)
    with pytest.raises(ValueError, match="no classes in common"):
        score(paths["run", run_format], paths["truth", "davis"], by_class=True)


def test_void_pixels_count_for_nobody(tmp_path: Path) -> None:
    frame = TRUTH[0]
    everywhere = np.s_[:, :]
    truth = write_davis(tmp_path / "truth", [frame], void=everywhere)
    run = write_davis(tmp_path / "run", [frame])
    assert score(run, truth)[""]["false"] == 0
    assert score(truth, run)[""]["false"] == 1  # of a run, 255 is an id


def test_the_first_frame_may_be_called_anything(tmp_path: Path) -> None:
    for start in (0, 1, 7):
        path = write_mots(tmp_path / f"{start}.txt", TRUTH, first_frame=start)
        [open_video] = open_videos(path, first_frame=start).openers.values()
        assert open_video().frame_indices == tuple(range(16))
    with pytest.raises(ValueError, match=r"1\.txt, line 1: expected a frame from 5 on, got '1'"):
        open_videos(tmp_path / "1.txt", first_frame=5).openers["1"]()


def test_a_run_that_found_nothing(tmp_path: Path, paths: dict[tuple[str, str], Path]) -> None:
    (tmp_path / "nothing.txt").touch()
    found = score(tmp_path / "nothing.txt", paths["truth", "mots"])[""]
    assert found["HOTA"] == found["IDF1"] == found["matches"] == 0 and found["frames"] == 16
    (tmp_path / "nothing.json").write_text("[]")
    assert score(tmp_path / "nothing.json", paths["truth", "youtube_vis"])[""]["IDF1"] == 0


def test_several_videos_go_by_name(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_jsonl(tmp_path / f"run/{name}.jsonl", RUN)
        write_davis(tmp_path / f"truth/{name}", TRUTH)
    (tmp_path / "run/events.jsonl").write_text('{"frame_idx": 0, "obj_id": 1, "kind": "born", "reason": ""}\n')
    run, truth = open_videos(tmp_path / "run"), open_videos(tmp_path / "truth", is_truth=True)
    compared, by_mask = compare_all(paired(run, truth))
    assert sorted(compared) == ["one", "two"] and by_mask
    assert list(paired(run, truth, ["two"])) == ["two"]
    write_davis(tmp_path / "truth/three", TRUTH)
    truth = open_videos(tmp_path / "truth", is_truth=True)
    with pytest.raises(ValueError, match="run has no video 'three' of its truth, it has one, two"):
        paired(run, truth)
    with pytest.raises(ValueError, match="run has video 'two', its truth has not"):
        paired(run, open_videos(tmp_path / "truth/one"))
    with pytest.raises(ValueError, match="truth has no video 'four'"):
        paired(run, truth, ["four"])


# ---- what is refused ----


def test_frames_that_do_not_fit(tmp_path: Path) -> None:
    truth = write_davis(tmp_path / "truth", TRUTH)
    short, long = write_jsonl(tmp_path / "short.jsonl", RUN[:-3]), write_jsonl(tmp_path / "long.jsonl", RUN + RUN[:1])
    with pytest.raises(ValueError, match=r"short\.jsonl lacks frame 13, 14, 15 of its truth .*truth"):
        score(short, truth)
    with pytest.raises(ValueError, match=r"long\.jsonl has frame 16, its truth .* has not \(--sparse-truth"):
        score(long, truth)
    for path in sorted(truth.iterdir())[1::2]:
        path.unlink()
    with pytest.raises(ValueError, match=r"has frame 1, 3, 5 and 5 more"):
        score(write_jsonl(tmp_path / "run.jsonl", RUN), truth)
    assert score(tmp_path / "run.jsonl", truth, is_sparse=True)[""]["frames"] == 8
    rows = write_mots(tmp_path / "rows.txt", TRUTH)
    with pytest.raises(ValueError, match=r"short\.jsonl lacks frame 13, 14, 15"):
        score(short, rows)


def test_sizes_that_do_not_fit(tmp_path: Path) -> None:
    run, truth = write_jsonl(tmp_path / "run.jsonl", RUN), tmp_path / "truth"
    truth.mkdir()
    Image.new("L", (40, 30)).save(truth / "0.png")
    with pytest.raises(ValueError, match=r"run\.jsonl is 80x60 pixels, and its truth .*truth 40x30"):
        score(run, truth)
    Image.new("L", (41, 30)).save(truth / "1.png")
    [open_video] = open_videos(truth).openers.values()
    with pytest.raises(ValueError, match=r"1\.png is no image of ids: it is 41x30, expected 40x30"):
        list(open_video().frames([0, 1]))
    Image.new("RGB", (40, 30)).save(truth / "1.png")
    with pytest.raises(ValueError, match=r"expected a palette or grey, got RGB"):
        list(open_video().frames([1]))
    (truth / "1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"1\.png is no image of ids"):
        list(open_video().frames([1]))


MASK = f"{SIZE[1]} {SIZE[0]} "


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "1,1,0,0,5,5,1\n1,2,x,0,5,5,1\n", "a.txt, line 2: expected frame,id,left"),
        ("a.txt", "1,1,0,0,5,5,1\n1,1,0,0,5,5,1\n", r"a.txt, frame 1: expected each id once on a frame, got \[1, 1\]"),
        ("a.txt", "1,1,0,0,5,5,1\n0,1,0,0,5,5,1\n", "line 2: expected a frame from 1 on, got '0'"),
        ("a.txt", "1,1.5,0,0,5,5,1\n", "line 1: expected frame,id"),
        ("a.txt", "1,1,0,0,5,inf,1\n", "line 1: expected frame,id"),
        ("a.txt", f"0 1 1 {MASK} 11\n", "line 1: .*counts: expected runs of 4800 pixels"),
        ("a.txt", "0 1 1 2 2 4\n0 2 1 3 2 6\n", "line 2: the mask is 2x3, expected 2x2 as before"),
        ("a.txt", "hello there\n", "a.txt: expected one format, but its contents have none of jsonl, mot"),
        ("a.json", '{"videos": [], "annotations": [{"video_id": 1}]}', "a.json is no JSON of YouTube-VIS"),
        ("a.json", '{"videos": [{"id": 1, "width": 4, "height": 4, "length": 2}], "annotations": '
         '[{"video_id": 1, "id": 1, "category_id": 1, "segmentations": [null]}]}', "as many segmentations as frames"),
        ("a.json", '[{"video_id": 1, "category_id": 1, "segmentations": [{"size": [2, 2], "counts": [1, 2]}]}]',
         "expected runs of 4 pixels, got 3"),
        ("a.jsonl", '{"box_format": "xyxy"}\n', "a.jsonl, line 1 is no frame's annotations"),
        ("a.jsonl", '{"frame_idx": 0, "box_format": "xyxy", "img_width": 9, "img_height": 9, "annotations": '
         '[{"class_name": "a", "bbox": [0, 0, 1, 1], "segmentation": null}]}\n', "frame 0: expected objects with a"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        for open_video in open_videos(tmp_path / name).openers.values():
            video = open_video()
            list(video.frames(video.frame_indices))


def test_no_such_file_and_mixed_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        open_videos(tmp_path / "missing")
    write_jsonl(tmp_path / "mixed/a.jsonl", RUN)
    write_mot(tmp_path / "mixed/b.txt", RUN)
    with pytest.raises(ValueError, match="mixed: expected one format, but its contents are of jsonl and mot"):
        open_videos(tmp_path / "mixed")
    assert list(open_videos(tmp_path / "mixed", "mot").openers) == ["b"]


def test_masks_beside_boxes_in_one_file_are_compared_as_boxes(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "run.jsonl", TRUTH)
    lines = path.read_text().splitlines()
    entry = json.loads(lines[5])
    entry["annotations"][0]["segmentation"] = None
    lines[5] = json.dumps(entry)
    path.write_text("\n".join(lines) + "\n")
    [open_video] = open_videos(path).openers.values()
    with pytest.raises(ValueError, match=r"run\.jsonl: frame 4 has objects without masks.*--boxes"):
        compare(open_video(), open_video())
    assert compare(open_video(), open_video(), by_mask=False)[""].scores()["HOTA"] == 1
