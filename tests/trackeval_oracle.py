"""What the `trackeval` package scores, as JSON: run in a process of its own, with that package importable.

    python trackeval_oracle.py FOLDER

FOLDER holds what `test_score_trackeval.py` wrote there; the scores of each measure, over all sequences and of each of
them, go to `FOLDER/scores.json`.
"""

import contextlib
import io
import json
import sys
import warnings
from pathlib import Path

import numpy as np

warnings.filterwarnings("ignore")


def scores_of(dataset: object, metrics: list, name: str) -> dict:
    """Sequence → class → measure → fields, "COMBINED_SEQ" among the sequences."""
    import trackeval

    quiet = {
        "USE_PARALLEL": False, "PRINT_RESULTS": False, "PRINT_CONFIG": False, "TIME_PROGRESS": False,
        "OUTPUT_SUMMARY": False, "OUTPUT_DETAILED": False, "PLOT_CURVES": False, "LOG_ON_ERROR": None,
        "BREAK_ON_ERROR": True,
    }  # fmt: skip
    results, _ = trackeval.Evaluator(quiet).evaluate([dataset], metrics)
    return results[name]["ours"]


def plain(value: object) -> object:
    """What JSON holds; arrays over thresholds become their means."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (np.ndarray, list)):
        return float(np.mean(value)) if len(value) and np.isscalar(value[0]) else None
    return value.item() if isinstance(value, np.generic) else value


def main(folder: Path) -> None:
    import trackeval
    from trackeval.metrics import CLEAR, HOTA, Identity, JAndF, TrackMAP

    quiet = {"PRINT_CONFIG": False}
    tracking = [HOTA(), CLEAR(dict(quiet)), Identity(dict(quiet))]
    lengths = json.loads((folder / "lengths.json").read_text())
    scores = {}
    for name, kind, benchmark in (
        ("mot", trackeval.datasets.MotChallenge2DBox, "MOT15"),
        ("mot17", trackeval.datasets.MotChallenge2DBox, "MOT17"),
        ("mots", trackeval.datasets.MOTSChallenge, "MOTS"),
    ):
        more = {} if name == "mots" else {"BENCHMARK": benchmark}
        dataset = kind({
            "GT_FOLDER": str(folder / name / "truth"), "TRACKERS_FOLDER": str(folder / name / "runs"),
            "SKIP_SPLIT_FOL": True, "SEQ_INFO": lengths, "PRINT_CONFIG": False, **more,
        })  # fmt: skip
        scores[name] = scores_of(dataset, tracking, dataset.get_name())
    dataset = trackeval.datasets.DAVIS({
        "GT_FOLDER": str(folder / "davis/truth"), "TRACKERS_FOLDER": str(folder / "davis/runs"),
        "TRACKER_SUB_FOLDER": "", **quiet,
    })  # fmt: skip
    scores["davis"] = scores_of(dataset, [JAndF()], dataset.get_name())
    dataset = trackeval.datasets.YouTubeVIS({
        "GT_FOLDER": f"{folder}/truth/", "TRACKERS_FOLDER": f"{folder}/runs/",
        "SPLIT_TO_EVAL": "all", **quiet,
    })  # fmt: skip
    dataset.global_tid_counter = 1  # its average precision takes a match with track 0 for none
    settings = {"USE_AREA_RANGES": False, "USE_TIME_RANGES": False, **quiet}
    scores["youtube_vis"] = scores_of(dataset, [*tracking, JAndF(), TrackMAP(settings)], dataset.get_name())
    (folder / "scores.json").write_text(json.dumps(plain(scores)))


if __name__ == "__main__":
    with contextlib.redirect_stdout(io.StringIO()):
        main(Path(sys.argv[1]))
