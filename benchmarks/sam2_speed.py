"""Seconds per frame and peak memory of video tracking, beside the reference package `sam2==1.1.0`.

    make references
    python benchmarks/sam2_speed.py                                               # SAM 2.1 tiny at 512 pixels
    python benchmarks/sam2_speed.py --config sam2.1_hiera_l --image-size 1024 --num-objects 1 4 16 --num-frames 12

Both packages read the same random weights and the same clip and track the same boxes from frame 0, in processes of
their own that take turns, so that whatever else the machine does hits both. Figures are the median over the tracked
frames of all rounds: seconds on the clock, and seconds of processor time, which other programs disturb less. Hole
filling is off: the reference does it only with its CUDA extension. Peak memory is the resident set, Python and weights
included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from process_memory import peak_resident_mb
from tqdm import tqdm

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.append(str(REPOSITORY / "tests"))

from reference.clip import write_clip  # noqa: E402  (the harness lives beside the tests)
from reference.run import OFFICIAL_CONFIGS, build, random_checkpoint  # noqa: E402

FRAME_SIZE = (640, 360)  # width, height in pixels
WARM_UP_FRAMES = 2  # the prompted frame and the first tracked one
PACKAGES = ("reference", "ours")


def grid_of_boxes(num_boxes: int) -> np.ndarray:
    """(N, 4) float32 xyxy boxes in pixels, side by side in rows of four."""
    width, height = FRAME_SIZE
    corners = [((i % 4) * width / 4, (i // 4 % 4) * height / 4) for i in range(num_boxes)]
    return np.array([(x + 8, y + 6, x + width / 4 - 8, y + height / 4 - 6) for x, y in corners], dtype=np.float32)


def track(config: str, image_size: int, num_objects: int, work: Path) -> dict[str, Any]:
    """Track with whichever `sam2` is importable: seconds of every frame by both clocks, peak resident memory in MB."""
    predictor = build(config, image_size, work / "weights.pt", video=True, postprocessing=True)
    state = predictor.init_state(str(work / "clip"))
    for obj_id, box in enumerate(grid_of_boxes(num_objects), start=1):
        predictor.add_new_points_or_box(state, 0, obj_id, box=box)
    ticks = [(time.perf_counter(), time.process_time())]
    for _ in predictor.propagate_in_video(state):
        ticks.append((time.perf_counter(), time.process_time()))
    wall, cpu = np.diff(np.array(ticks), axis=0)[WARM_UP_FRAMES:].T
    return {"wall": wall.tolist(), "cpu": cpu.tolist(), "peak_mb": peak_resident_mb()}


def track_apart(package: str, arguments: argparse.Namespace, num_objects: int, work: Path) -> dict[str, Any]:
    """`track` in a process of its own that imports one of the two packages."""
    sources = REPOSITORY / ".references" / "sam2" if package == "reference" else REPOSITORY
    environment = os.environ | {"PYTHONPATH": str(sources), "OMP_NUM_THREADS": str(arguments.threads)}
    command = [sys.executable, "-W", "ignore", __file__, "--worker", str(work), "--config", arguments.config]
    command += ["--image-size", str(arguments.image_size), "--num-objects", str(num_objects)]
    run = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(f"{package} failed:\n{run.stderr[-3000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    """Take turns, print a row for each number of objects."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="sam2.1_hiera_t", choices=OFFICIAL_CONFIGS, metavar="CONFIG")
    parser.add_argument("--image-size", type=int, default=512, help="side of the model's input, a multiple of 32")
    parser.add_argument("--num-objects", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--num-frames", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2, help="how often the two packages take turns")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        warnings.filterwarnings("ignore")
        print(json.dumps(track(arguments.config, arguments.image_size, arguments.num_objects[0], arguments.worker)))
        return
    if not (REPOSITORY / ".references" / "sam2").is_dir():
        parser.error("the reference package is not installed; run: make references")

    print(
        f"{arguments.config} at {arguments.image_size} px, {arguments.num_frames} frames, {arguments.threads} threads"
    )
    print("objects  package    s/frame  CPU s/frame  peak MB")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_clip(work / "clip", arguments.num_frames, FRAME_SIZE)
        random_checkpoint(arguments.config, work / "weights.pt")
        for num_objects in tqdm(arguments.num_objects, desc="numbers of objects"):
            runs: dict[str, list[dict[str, Any]]] = {package: [] for package in PACKAGES}
            for _ in range(arguments.rounds):
                for package in PACKAGES:
                    runs[package].append(track_apart(package, arguments, num_objects, work))
            figures = np.array([summarise(runs[package]) for package in PACKAGES])
            for package, row in zip(PACKAGES, figures, strict=True):
                tqdm.write(f"{num_objects:7}  {package:9} {row[0]:8.3f} {row[1]:12.3f} {row[2]:8.0f}")
            ratio = figures[0] / figures[1]
            tqdm.write(f"{num_objects:7}  {'ratio':9} {ratio[0]:8.2f} {ratio[1]:12.2f} {ratio[2]:8.2f}")


def summarise(runs: list[dict[str, Any]]) -> list[float]:
    """Median seconds per frame by the wall clock and by the processor's, and the highest peak memory in MB."""
    medians = [float(np.median(np.concatenate([run[clock] for run in runs]))) for clock in ("wall", "cpu")]
    return [*medians, max(run["peak_mb"] for run in runs)]


if __name__ == "__main__":
    main()
