"""What the bundled demo costs here and at another commit: processor time, clock, two at once, and the first mask.

    python benchmarks/nano_script.py 52198bdf                                # the state of 2026-11-22
    python benchmarks/nano_script.py 52198bdf --max-frames 60 --rounds 3     # shorter
    python benchmarks/nano_script.py HEAD~5 --threads 1                      # work alone, no threads beside each other

Runs `grounded_sam2_tracking_demo_with_continuous_id.py` on the demo clip, all outputs written, in processes of their
own: this checkout and a worktree of the other commit take turns, with the same environment. Both use the nano weights
that lie beside their code; `--same-weights` gives both those of this checkout, which commits before 08a1a53 cannot
build.

A run's processor time is that of the process and all its threads. Time until the first mask is that of a run of one
frame, from the start of Python to its end, so with what is imported, the models' weights and all outputs of the frame;
time for a frame is what a longer run takes beyond that. Medians of all rounds; other programs on the machine disturb
the clock more than the processor time.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPT = "grounded_sam2_tracking_demo_with_continuous_id.py"
WEIGHTS = ("checkpoints/sam2.1_nano.pt", "gdino_checkpoints/nano")


class Seconds(NamedTuple):
    """What runs that went on beside each other took: all their processor time, and the clock."""

    processor: float
    clock: float


def run(checkouts: list[Path], num_frames: int, options: list[str], environment: dict[str, str]) -> Seconds:
    """Run the script of some checkouts at once, on the first frames of the clip."""
    with tempfile.TemporaryDirectory() as folder:
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        processes = [
            subprocess.Popen(
                [sys.executable, SCRIPT, "--max-frames", str(num_frames), "--output-dir", f"{folder}/{i}", *options],
                cwd=checkout,
                env=environment | {"PYTHONPATH": str(checkout)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for i, checkout in enumerate(checkouts)
        ]
        errors = [process.communicate()[1] for process in processes]
        clock, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    for process, error in zip(processes, errors, strict=True):
        if process.returncode != 0:
            raise RuntimeError(f"{SCRIPT} failed:\n{error[-3000:]}")
    return Seconds(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, clock)


def median(runs: list[Seconds]) -> Seconds:
    return Seconds(*(statistics.median(values) for values in zip(*runs, strict=True)))


def main() -> None:
    """Take turns, print both and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", help="what this checkout is compared with")
    parser.add_argument("--max-frames", type=int, default=192, help="of the clip, which has 192")
    parser.add_argument("--rounds", type=int, default=2, help="how often the two take turns")
    parser.add_argument("--threads", type=int, help="sets OMP_NUM_THREADS; by default it is left as it is")
    parser.add_argument("--same-weights", action="store_true", help="the other commit runs with our weights")
    arguments = parser.parse_args()
    if arguments.max_frames < 2:
        parser.error(f"--max-frames must be at least 2, got {arguments.max_frames}")
    environment = dict(os.environ)
    if arguments.threads is not None:
        environment["OMP_NUM_THREADS"] = str(arguments.threads)
    ours = [
        f"--{name}={REPOSITORY / path}"
        for name, path in zip(("sam2-checkpoint", "gdino-model-id"), WEIGHTS, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "other"
        git = ["git", "-C", str(REPOSITORY), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(other), arguments.commit], check=True)
        try:
            print_comparison(arguments, {"other": other, "here": REPOSITORY}, ours, environment)
        finally:
            subprocess.run([*git, "remove", "--force", str(other)], check=True)


def print_comparison(
    arguments: argparse.Namespace, checkouts: dict[str, Path], ours: list[str], environment: dict[str, str]
) -> None:
    """Measure, and print a row for each kind of run."""
    num_frames = arguments.max_frames
    options = {"other": ours if arguments.same_weights else [], "here": []}
    firsts: dict[str, list[Seconds]] = {name: [] for name in checkouts}
    alone: dict[str, list[Seconds]] = {name: [] for name in checkouts}
    pairs: dict[str, list[Seconds]] = {name: [] for name in checkouts}
    for name, checkout in checkouts.items():  # compiled, and in the file cache
        run([checkout], 1, options[name], environment)
    for _ in range(arguments.rounds):
        for name, checkout in checkouts.items():
            firsts[name].append(run([checkout], 1, options[name], environment))
        for name, checkout in checkouts.items():
            alone[name].append(run([checkout], num_frames, options[name], environment))
        for name, checkout in checkouts.items():
            pairs[name].append(run([checkout, checkout], num_frames, options[name], environment))

    first, one, two = ({name: median(runs[name]) for name in checkouts} for runs in (firsts, alone, pairs))
    frames = num_frames - 1
    rows: list[tuple[str, float, float]] = []
    for clock in Seconds._fields:
        of = {name: (getattr(first[name], clock), getattr(one[name], clock)) for name in checkouts}
        rows.append((f"{clock}, first mask, s", of["other"][0], of["here"][0]))
        per_frame = [(whole - start) / frames for start, whole in (of["other"], of["here"])]
        rows.append((f"{clock}, frame, s", *per_frame))
        rows.append((f"{clock}, whole run, s", of["other"][1], of["here"][1]))
    print(f"{num_frames} frames, other: {arguments.commit}, rounds: {arguments.rounds}, threads: {arguments.threads}")
    print(f"{'':26}{'other':>9}{'here':>9}{'other / here':>14}")
    for name, there, here in rows:
        print(f"{name:26}{there:9.3f}{here:9.3f}{there / here:14.2f}")
    ratios = [two[name].clock / one[name].clock for name in ("other", "here")]
    print(f"{'two at once over one alone, clock':33}{ratios[0]:>5.2f}{ratios[1]:9.2f}")


if __name__ == "__main__":
    main()
