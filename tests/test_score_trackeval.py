"""Scores equal those of the `trackeval` package, which `make references` installs, on random runs in its formats."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from score_data import make_pair, write_davis, write_mot, write_mots, write_youtube_vis, youtube_vis_tracks

from grounded_sam2.score.formats import open_videos
from grounded_sam2.score.pairing import compare_all, paired
from grounded_sam2.score.table import class_scores, mean_scores, overall_scores

PACKAGE = Path(__file__).resolve().parent.parent / ".references/trackeval"
pytestmark = pytest.mark.skipif(not PACKAGE.is_dir(), reason="needs the reference package: make references")

NUM_FRAMES = {"a": 24, "b": 40, "c": 31}
CORNER = np.s_[30:60, 40:80]
# of MOT17: object 2 is a distractor, 4 is marked as not counting, 5 is a car
MARKS = {2: (1, 8), 4: (0, 1), 5: (1, 3)}
TRACKING = {
    "HOTA": ("HOTA", "HOTA"), "DetA": ("HOTA", "DetA"), "AssA": ("HOTA", "AssA"), "LocA": ("HOTA", "LocA"),
    "DetRe": ("HOTA", "DetRe"), "DetPr": ("HOTA", "DetPr"), "AssRe": ("HOTA", "AssRe"), "AssPr": ("HOTA", "AssPr"),
    "MOTA": ("CLEAR", "MOTA"), "MOTP": ("CLEAR", "MOTP"), "IDSW": ("CLEAR", "IDSW"), "Frag": ("CLEAR", "Frag"),
    "MT": ("CLEAR", "MT"), "PT": ("CLEAR", "PT"), "ML": ("CLEAR", "ML"), "matches": ("CLEAR", "CLR_TP"),
    "missed": ("CLEAR", "CLR_FN"), "false": ("CLEAR", "CLR_FP"),
    "IDF1": ("Identity", "IDF1"), "IDP": ("Identity", "IDP"), "IDR": ("Identity", "IDR"),
}  # fmt: skip
REGIONS = {"J": ("JAndF", "J-Mean"), "F": ("JAndF", "F-Mean"), "J&F": ("JAndF", "J&F")}
PRECISION = {"track AP": ("TrackMAP", "AP_all")}


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder with all files, and what the package scores."""
    folder = tmp_path_factory.mktemp("trackeval")
    pairs = {name: make_pair(seed, length) for seed, (name, length) in enumerate(NUM_FRAMES.items())}
    for name, (truth, run) in pairs.items():
        for kind, marks in (("mot", {4: (0, 1)}), ("mot17", MARKS)):
            write_mot(folder / kind / f"truth/{name}/gt/gt.txt", truth, marks)
            write_mot(folder / kind / f"runs/ours/data/{name}.txt", run)
        write_mots(folder / f"mots/truth/{name}/gt/gt.txt", truth, 1, 2, region=CORNER)
        write_mots(folder / f"mots/runs/ours/data/{name}.txt", run, 1, 2)
        write_davis(folder / f"davis/truth/{name}", truth, void=CORNER if name == "b" else None)
        write_davis(folder / f"davis/runs/ours/{name}", run)
    write_youtube_vis(folder / "truth/youtube_vis_all/truth.json", {name: pair[0] for name, pair in pairs.items()})
    found = [track for i, (_, run) in enumerate(pairs.values()) for track in youtube_vis_tracks(i + 1, run)]
    results = folder / "runs/youtube_vis_all/ours/data/results.json"
    results.parent.mkdir(parents=True)
    results.write_text(json.dumps(found))
    (folder / "lengths.json").write_text(json.dumps(NUM_FRAMES))
    script = Path(__file__).with_name("trackeval_oracle.py")
    environment = os.environ | {"PYTHONPATH": str(PACKAGE)}
    command = [sys.executable, str(script), str(folder)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return folder, json.loads((folder / "scores.json").read_text())


def check(ours: dict[str, Any], theirs: dict[str, Any], measures: dict[str, tuple[str, str]]) -> None:
    expected = {name: theirs[metric][field] for name, (metric, field) in measures.items()}
    assert {name: ours[name] for name in measures} == pytest.approx(expected, abs=1e-6, rel=0)


@pytest.mark.parametrize(
    ("kind", "run", "options", "class_name", "measures"),
    [
        ("mot", "runs/ours/data", {}, "pedestrian", TRACKING),
        ("mot17", "runs/ours/data", {"benchmark": "MOT17"}, "pedestrian", TRACKING),
        ("mots", "runs/ours/data", {"first_frame": 1}, "pedestrian", TRACKING),
        ("davis", "runs/ours", {}, "general", REGIONS),
    ],
)
def test_videos_and_their_sum_score_as_there(
    oracle: tuple[Path, dict[str, Any]], kind: str, run: str, options: dict, class_name: str, measures: dict
) -> None:
    folder, scores = oracle
    truth = open_videos(folder / kind / "truth", is_truth=True, **options)
    found = open_videos(folder / kind / run, first_frame=options.get("first_frame"))
    compared, by_mask = compare_all(paired(found, truth))
    assert by_mask == (kind in ("mots", "davis")) and list(compared) == list(NUM_FRAMES)
    for name, of_video in compared.items():
        check(of_video[""].scores(), scores[kind][name][class_name], measures)
    check(overall_scores(compared), scores[kind]["COMBINED_SEQ"][class_name], measures)


def test_classes_score_as_there(oracle: tuple[Path, dict[str, Any]]) -> None:
    folder, scores = oracle
    truth = open_videos(folder / "truth/youtube_vis_all/truth.json", is_truth=True)
    found = open_videos(folder / "runs/youtube_vis_all/ours/data/results.json")
    compared, _ = compare_all(paired(found, truth), by_class=True)
    combined, classes = scores["youtube_vis"]["COMBINED_SEQ"], class_scores(compared)
    for number, name in (("1", "dog"), ("2", "cat")):  # a list of results has numbers only
        for video, of_video in compared.items():
            check(of_video[number].scores(), scores["youtube_vis"][video][name], TRACKING | REGIONS)
        check(classes[number], combined[name], TRACKING | REGIONS | PRECISION)
    check(overall_scores(compared), combined["cls_comb_det_av"], TRACKING | PRECISION)
    check(mean_scores(list(classes.values())), combined["cls_comb_cls_av"], TRACKING | REGIONS | PRECISION)
