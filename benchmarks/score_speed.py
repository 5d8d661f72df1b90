"""How long `python -m grounded_sam2.score` takes for a long clip with many objects, and what memory.

    python benchmarks/score_speed.py                               # 1,000 frames of 20 objects, 854 by 480 pixels
    python benchmarks/score_speed.py --num-frames 200 --num-objects 60

Truth and run are MOTS files of discs that move; in the run they lie three pixels off, a tenth of them is missing, and
every 100 frames two trade their ids. The command runs in a process of its own, start and reading included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as rle_codec

REPOSITORY = Path(__file__).resolve().parent.parent
WIDTH, HEIGHT = 854, 480
RADIUS = 30  # pixels


def write_mots(path: Path, num_frames: int, num_objects: int, is_run: bool) -> None:
    """One file in MOTS's layout: frame, id, class, height, width, run-length encoding."""
    rng = np.random.default_rng(int(is_run))
    phases = np.random.default_rng(7).uniform(0, 2 * np.pi, (num_objects, 2))
    rows = (np.arange(num_objects) // 5 + 0.5) * HEIGHT / -(-num_objects // 5)
    columns = (np.arange(num_objects) % 5 + 0.5) * WIDTH / 5
    with path.open("w") as file:
        for frame_idx in range(num_frames):
            for obj in range(num_objects):
                if is_run and rng.random() < 0.1:
                    continue
                x, y = np.sin(frame_idx / 40 + phases[obj]) * (50, 20) + (columns[obj], rows[obj]) + 3 * is_run
                mask = np.zeros((HEIGHT, WIDTH), np.uint8)
                cv2.circle(mask, (round(x), round(y)), RADIUS, 1, -1)
                mask[:, round(x) :] &= obj % 2 == 0 or frame_idx % 50 > 10  # half of it is hidden now and then
                rle = rle_codec.encode(np.asfortranarray(mask))["counts"].decode()
                obj_id = obj ^ 1 if is_run and obj < 2 and frame_idx // 100 % 2 else obj
                file.write(f"{frame_idx} {2001 + obj_id} 2 {HEIGHT} {WIDTH} {rle}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-frames", type=int, default=1000)
    parser.add_argument("--num-objects", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run, truth = Path(folder, "run.txt"), Path(folder, "truth.txt")
        for path in (run, truth):
            write_mots(path, arguments.num_frames, arguments.num_objects, path == run)
        command = [sys.executable, "-m", "grounded_sam2.score", str(run), str(truth)]
        start = time.perf_counter()
        child = subprocess.Popen(command, cwd=REPOSITORY)
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            raise SystemExit(f"the command failed, exit status {os.waitstatus_to_exitcode(status)}")
    print(
        f"{arguments.num_frames} frames of {arguments.num_objects} objects: {time.perf_counter() - start:.1f} s on the "
        f"clock, {usage.ru_utime + usage.ru_stime:.1f} s of processor time, peak {usage.ru_maxrss / 1024:.0f} MB"
    )


if __name__ == "__main__":
    main()
