"""The command: a table, a file for programs, the list of doubts, and one sentence for what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from score_data import make_pair, write_davis, write_jsonl, write_mot

from grounded_sam2.score.__main__ import main
from grounded_sam2.score.table import mean_scores
from grounded_sam2.track.events import EventLogWriter, IdentityEvent

TRUTH, RUN = make_pair(2, 10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """run/ and truth/ with the videos one and two, and one.jsonl, one.txt by themselves."""
    for name in ("one", "two"):
        write_jsonl(tmp_path / f"run/{name}.jsonl", RUN if name == "one" else TRUTH)
        write_jsonl(tmp_path / f"truth/{name}.jsonl", TRUTH)
    write_davis(tmp_path / "masks", TRUTH)
    write_mot(tmp_path / "one.txt", RUN)
    return tmp_path


def test_a_table_of_videos_and_their_sum(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(folder / "run"), str(folder / "truth"), "--json", str(folder / "scores.json")])
    head, names, *rows, written = capsys.readouterr().out.splitlines()
    assert head == f"{folder}/run (jsonl) by {folder}/truth (jsonl): masks are compared"
    columns = "video HOTA DetA AssA LocA MOTA IDF1 IDP IDR IDSW Frag J&F J F AP track AP"
    assert " ".join(names.split()) == columns
    assert [row.split("  ")[0] for row in rows] == ["one", "two", "all videos"] and "wrote" in written
    assert rows[1].split()[1:10] == ["1.000"] * 8 + ["0"]
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["videos"]["one"][""]["HOTA"] < scores["overall"]["HOTA"] < scores["videos"]["two"][""]["HOTA"] == 1
    assert scores["overall"]["frames"] == 20 and scores["compared"] == "masks"
    assert f"{scores['overall']['HOTA']:.3f}" == rows[2].split()[2]
    main([str(folder / "run"), str(folder / "truth"), "--json", str(folder / "scores.json"), "--boxes"])  # once more
    assert json.loads((folder / "scores.json").read_text())["compared"] == "boxes"


def test_a_table_of_classes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(folder / "run"), str(folder / "truth"), "--classes", "--json", str(folder / "scores.json")])
    rows = [row.split()[:3] for row in capsys.readouterr().out.splitlines()[1:-1]]
    assert [" ".join(row[:2]) for row in rows[:5]] == ["video class", "one cat", "one dog", "two cat", "two dog"]
    assert [row[2] for row in rows[5:]] == ["cat", "dog", "mean", "all"]
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["overall"]["AP"] == pytest.approx(sum(scores["classes"][name]["AP"] for name in ("dog", "cat")) / 2)


def test_means_of_classes() -> None:
    means = mean_scores([{"HOTA": 1.0, "IDSW": 2, "J": None}, {"HOTA": 0.5, "IDSW": 1, "J": None}])
    assert means == {"HOTA": 0.75, "IDSW": 3, "J": None}


def test_boxes_have_no_outlines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(folder / "one.txt"), str(folder / "masks")])
    out = capsys.readouterr().out
    assert "boxes are compared" in out and out.splitlines()[2].split()[11:14] == ["-", "-", "-"]


def test_doubts_are_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with EventLogWriter(folder / "events.jsonl") as log:
        log.write([IdentityEvent(3, 1, "merged", "with 2")])
    run = str(folder / "run/one.jsonl")
    main([run, "--events", str(folder / "events.jsonl"), "--limit", "2", "--json", str(folder / "doubts.json")])
    head, *lines, written = capsys.readouterr().out.splitlines()
    assert head.startswith("one: ") and head.endswith(" doubts, the most doubtful first")
    assert len(lines) == 2 and all(line.startswith("  frame ") for line in lines) and "wrote" in written
    listed = json.loads((folder / "doubts.json").read_text())["doubts"]["one"]
    assert head == f"one: {len(listed)} doubts, the most doubtful first"
    assert "merged: with 2" in {doubt["reason"] for doubt in listed}
    main([str(folder / "truth/one.jsonl"), "--limit", "0"])
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing", "masks"], "no such file or folder: missing"),
        (["run", "masks"], "run has no video 'masks' of its truth, it has one, two"),
        (["run/one.jsonl", "masks", "--json", "run/one.jsonl"], "run/one.jsonl is there and holds no scores"),
        (["run/one.jsonl", "masks", "--json", "masks"], "cannot write masks: it is a folder"),
        (["run/one.jsonl", "masks", "--iou-threshold", "0"], "--iou-threshold: expected a number above 0"),
        (["run/one.jsonl", "masks", "--classes"], "have no classes in common"),
        (["run", "--events", "masks"], "--events is the log of one video, run holds 2"),
        (["run/one.jsonl", "masks", "--run-format", "mot"], "run/one.jsonl, line 1: expected a frame from 1 on"),
    ],
)
def test_one_sentence_and_status_2(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    before = (folder / "run/one.jsonl").read_bytes()
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    printed = capsys.readouterr()
    assert ended.value.code == 2 and len(printed.err.splitlines()) == 1
    assert printed.err.startswith("grounded_sam2.score: ") and message in printed.err
    assert (folder / "run/one.jsonl").read_bytes() == before
