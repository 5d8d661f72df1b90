"""Score a tracking run by a truth, or list its doubtful frames.

    python -m grounded_sam2.score outputs/dog.jsonl DAVIS/Annotations/480p/dog
    python -m grounded_sam2.score results/ MOT17/train --mot-benchmark MOT17       # a folder: several videos
    python -m grounded_sam2.score results.json valid.json --classes --json scores.json
    python -m grounded_sam2.score outputs/dog.jsonl                                # no truth: where to look

| format | one video | several |
|---|---|---|
| `jsonl` | the file that a tracking script wrote | a folder of them |
| `mot` | MOTChallenge boxes, frames from 1 | a folder of them, or of folders `<name>/gt/gt.txt` |
| `mots` | MOTS masks, frames from 0 | a folder of them, or of folders `<name>/gt/gt.txt` |
| `davis` | a folder of palette images, called by their frames; in a truth 255 is void | a folder of such folders |
| `youtube_vis` | | JSON with videos and annotations, or of a run the list of annotations |

Both sides may be of any of these. Frames are compared by their indices, videos by their names, or alone with alone;
ids may be any. Masks are compared where both sides have them, else boxes. HOTA, MOTA, IDF1, J and F are those of the
benchmarks, from 0 to 1: J&F is DAVIS's for several objects that nobody prompted, over all frames. AP is COCO's, frame
by frame, "track AP" YouTube-VIS's; where a run has no scores, they take all of it as equally sure. Counts over several
videos add up.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from grounded_sam2.doubts import Doubt
from grounded_sam2.score.doubtful import doubtful_frames
from grounded_sam2.score.formats import FORMATS, Videos, open_videos
from grounded_sam2.score.mot import BENCHMARKS
from grounded_sam2.score.pairing import compare_all, paired
from grounded_sam2.score.table import check_own, table, write_json_of, write_scores
from grounded_sam2.script import script_errors
from grounded_sam2.track.events import read_events
from sam2.shown import shown

MOST_LISTED = 30


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; errors end the program with status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m grounded_sam2.score", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="what was tracked")
    parser.add_argument("truth", type=Path, metavar="TRUTH", nargs="?", help="what is there; without: doubtful frames")
    parser.add_argument("--run-format", choices=FORMATS, help="default: told by the content")
    parser.add_argument("--truth-format", choices=FORMATS, help="default: told by the content")
    parser.add_argument("--run-first-frame", type=int, metavar="N", help="what MOT or MOTS call the first frame")
    parser.add_argument("--truth-first-frame", type=int, metavar="N", help="the same of TRUTH")
    parser.add_argument("--classes", action="store_true", help="match within a class only, and score each class")
    parser.add_argument("--boxes", action="store_true", help="compare boxes also where there are masks")
    parser.add_argument("--iou-threshold", type=float, default=0.5, metavar="T", help="of a match, for MOTA and IDF1")
    parser.add_argument("--sparse-truth", action="store_true", help="leave out frames of RUN that TRUTH does not have")
    parser.add_argument("--mot-benchmark", choices=list(BENCHMARKS), help="pedestrians only, by the benchmark's rules")
    parser.add_argument("--videos", nargs="+", metavar="NAME", help="of TRUTH that are scored; default: all")
    parser.add_argument("--events", type=Path, metavar="FILE", help="without TRUTH: the event log of the run")
    parser.add_argument("--limit", type=int, default=MOST_LISTED, metavar="N", help="without TRUTH: how many to print")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all there is as JSON")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Score a run, or list its doubtful frames."""
    options = parse(arguments)
    with script_errors("grounded_sam2.score"):
        if options.json is not None:
            check_own(options.json.expanduser())
        if not 0 < options.iou_threshold <= 1:
            raise ValueError(f"--iou-threshold: expected a number above 0, up to 1, got {options.iou_threshold:g}")
        run = open_videos(options.run.expanduser(), options.run_format, first_frame=options.run_first_frame)
        if options.truth is None:
            list_doubts(run, options)
        else:
            score(run, options)


def score(run: Videos, options: argparse.Namespace) -> None:
    """Print the scores of a run by a truth, and write them."""
    truth = open_videos(
        options.truth.expanduser(), options.truth_format, True, options.truth_first_frame, options.mot_benchmark
    )
    pairs = paired(run, truth, options.videos)
    by_mask = False if options.boxes else None
    compared, by_mask = compare_all(pairs, options.classes, by_mask, options.iou_threshold, options.sparse_truth)
    about: dict[str, Any] = {
        "run": shown(options.run),
        "run_format": run.format,
        "truth": shown(options.truth),
        "truth_format": truth.format,
        "compared": "masks" if by_mask else "boxes",
        "iou_threshold": options.iou_threshold,
    }
    print(f"{about['run']} ({run.format}) by {about['truth']} ({truth.format}): {about['compared']} are compared")
    print(table(compared))
    if options.json is not None:
        write_scores(options.json.expanduser(), about, compared)
        print(f"wrote {shown(options.json)}")


def list_doubts(run: Videos, options: argparse.Namespace) -> None:
    """Print the doubtful frames of a run, and write them."""
    if options.events is not None and len(run.openers) != 1:
        raise ValueError(f"--events is the log of one video, {run.path} holds {len(run.openers)}")
    events = [] if options.events is None else read_events(options.events.expanduser())
    by_mask = False if options.boxes else None
    doubts = {name: doubtful_frames(opener(), events, by_mask) for name, opener in run.openers.items()}
    for name, of_video in doubts.items():
        print(f"{shown(name)}: {len(of_video)} doubts" + (", the most doubtful first" if of_video else ""))
        for doubt in of_video[: max(options.limit, 0)]:
            print(doubt_line(doubt))
    if options.json is not None:
        videos = {name: [asdict(doubt) for doubt in of_video] for name, of_video in doubts.items()}
        write_json_of(
            options.json.expanduser(), {"run": shown(options.run), "run_format": run.format, "doubts": videos}
        )
        print(f"wrote {shown(options.json)}")


def doubt_line(doubt: Doubt) -> str:
    """A doubt for people: "  frame 12 (10 to 14)  id 3  0.67  area jump"."""
    frames = f"frame {doubt.frame_idx}" + ("" if doubt.first == doubt.last else f" ({doubt.first} to {doubt.last})")
    return f"  {frames:24} id {doubt.obj_id:<4} {doubt.doubt:.2f}  {shown(doubt.reason)}"


if __name__ == "__main__":
    main()
