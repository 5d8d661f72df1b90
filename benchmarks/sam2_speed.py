"""Seconds per frame and peak memory of video tracking, beside the packages that have the same model.

These are `sam2==1.1.0`, for SAM 2.1 also transformers' `Sam2VideoModel` and ultralytics' predictor, and for EdgeTAM
`edgetam-dimos==1.0.1`, transformers' `EdgeTamVideoModel` and, for comparison, our own SAM 2.1 tiny.

    make peers
    python benchmarks/sam2_speed.py                                               # SAM 2.1 tiny at 512 pixels
    python benchmarks/sam2_speed.py --config sam2.1_hiera_l --image-size 1024 --num-objects 1 4 16 --num-frames 12
    python benchmarks/sam2_speed.py --config edgetam --image-size 1024 --num-objects 1 8 --threads 1
    python benchmarks/sam2_speed.py --image-size 1024 --num-objects 1 --num-frames 11 --warm-up 8 --peers sam2
    python benchmarks/sam2_speed.py --image-size 1024 --num-objects 8 --peers sam2 --dtypes float32 bfloat16
    python benchmarks/sam2_speed.py --device cuda --image-size 1024 --num-objects 1 4 16 64 --num-frames 40

All read the same random weights and the same clip and track the same boxes from frame 0, in processes of their own that
take turns, so that whatever else the machine does hits all. Figures are the median over the tracked frames of all
rounds: seconds on the clock, and seconds of processor time, which other programs disturb less. Hole filling is off for
SAM 2, whose package does it only with its CUDA extension. Peak memory is the resident set, Python and weights included,
or what PyTorch holds on a GPU. In bfloat16, which a GPU uses and a CPU where `--dtypes` says so, the others run under
autocast; ratios are over the fastest of ours. On a GPU `sam2` is its `vos_optimized` predictor, whose compilation is
not timed. With `--tracked` only the first frames of the clip are tracked, so that what the others cost in memory shows.
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
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from process_memory import peak_resident_mb
from sam2_peers import track_with_transformers, track_with_ultralytics
from tqdm import tqdm

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.append(str(REPOSITORY / "tests"))

from reference.clip import write_clip  # noqa: E402  (the harness lives beside the tests)
from reference.run import EDGETAM, OFFICIAL_CONFIGS, build, random_checkpoint  # noqa: E402

FRAME_SIZE = (640, 360)  # width, height in pixels
WARM_UP_FRAMES = {"cpu": 2, "cuda": 12}  # the prompted frame and the first tracked; until all shapes are compiled
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TINY = "sam2.1_hiera_t"
# who takes part: name → folder of packages, None for this repository, and the model
CONTESTANTS: dict[str, tuple[str | None, str]] = {
    **{f"sam2 {config}": ("sam2", config) for config in OFFICIAL_CONFIGS},
    **{f"transformers {config}": (None, config) for config in OFFICIAL_CONFIGS if config.startswith("sam2.1")},
    **{f"ultralytics {config}": ("ultralytics", config) for config in OFFICIAL_CONFIGS if config.startswith("sam2.1")},
    **{f"ours {config}": (None, config) for config in (*OFFICIAL_CONFIGS, EDGETAM)},
    f"edgetam-dimos {EDGETAM}": ("edgetam", EDGETAM),
    f"transformers {EDGETAM}": ("edgetam", EDGETAM),
}


def grid_of_boxes(num_boxes: int) -> np.ndarray:
    """(N, 4) float32 xyxy boxes in pixels, side by side in rows of four."""
    width, height = FRAME_SIZE
    corners = [((i % 4) * width / 4, (i // 4 % 4) * height / 4) for i in range(num_boxes)]
    return np.array([(x + 8, y + 6, x + width / 4 - 8, y + height / 4 - 6) for x, y in corners], dtype=np.float32)


def track(
    name: str,
    image_size: int,
    num_objects: int,
    work: Path,
    device: str,
    dtype: torch.dtype,
    warm_up: int,
    num_tracked: int,
) -> dict[str, Any]:
    """Track as a contestant does: seconds by both clocks of every frame but the first ones, peak memory in MB."""
    is_lower = is_of_others(name) and dtype != torch.float32
    with torch.autocast(device, dtype) if is_lower else nullcontext():
        ticks = []
        for _ in islice(frames_of(name, image_size, num_objects, work, device, dtype), num_tracked):
            if device == "cuda":
                torch.cuda.synchronize()
            ticks.append((time.perf_counter(), time.process_time()))
    wall, cpu = np.diff(np.array(ticks), axis=0)[warm_up - 1 :].T
    peak = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else peak_resident_mb()
    return {"wall": wall.tolist(), "cpu": cpu.tolist(), "peak_mb": peak}


def is_of_others(name: str) -> bool:
    return not name.startswith("ours")


def frames_of(
    name: str, image_size: int, num_objects: int, work: Path, device: str, dtype: torch.dtype
) -> Iterator[Any]:
    """The clip as a contestant tracks it, frame by frame."""
    config, boxes = CONTESTANTS[name][1], grid_of_boxes(num_objects)
    if name.startswith("ultralytics"):
        return track_with_ultralytics(config, work, image_size, boxes)
    if name.startswith("transformers") and config != EDGETAM:
        return track_with_transformers(config, work, image_size, FRAME_SIZE, boxes)
    if name.startswith("transformers"):
        from reference.edgetam_hugging_face import masks_of_clip

        return masks_of_clip(work, image_size, FRAME_SIZE, boxes)
    of_package: dict[str, Any] = {} if is_of_others(name) else {"dtype": dtype}
    if name.startswith("sam2 ") and device == "cuda":
        of_package["vos_optimized"] = True
    predictor = build(
        config, image_size, work / f"{config}.pt", video=True, postprocessing=True, device=device, **of_package
    )
    state = predictor.init_state(str(work / "clip"))
    for obj_id, box in enumerate(boxes, start=1):
        predictor.add_new_points_or_box(state, 0, obj_id, box=box)
    return predictor.propagate_in_video(state)


def track_apart(name: str, dtype: str, arguments: argparse.Namespace, num_objects: int, work: Path) -> dict[str, Any]:
    """`track` in a process of its own that imports a contestant's packages."""
    command = ["-W", "ignore", __file__, "--worker", str(work), "--contestant", name]
    command += ["--image-size", str(arguments.image_size), "--num-objects", str(num_objects)]
    command += ["--device", arguments.device, "--dtypes", dtype, "--warm-up", str(arguments.warm_up)]
    command += ["--tracked", str(arguments.tracked)]
    printed = run_apart(command, CONTESTANTS[name][0], arguments.threads, work)
    return json.loads(printed.splitlines()[-1])


def run_apart(command: list[str], packages: str | None, threads: int, work: Path) -> str:
    """What Python prints with a folder of `.references`, or this repository, on its path."""
    sources = REPOSITORY if packages is None else REPOSITORY / ".references" / packages
    path = os.pathsep.join((str(sources), str(REPOSITORY / "tests")))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
    run = subprocess.run([sys.executable, *command], cwd=work, env=environment, capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{run.stderr[-3000:]}")
    return run.stdout


def write_video(work: Path) -> None:
    """The frames of `work/clip` as `work/clip.mp4`, for who reads no folders."""
    with av.open(work / "clip.mp4", "w") as container:
        stream = container.add_stream("libx264", 30)
        stream.width, stream.height = FRAME_SIZE
        for file in sorted((work / "clip").iterdir()):
            container.mux(stream.encode(av.VideoFrame.from_image(Image.open(file))))
        container.mux(stream.encode())


def names_of_transformers(image_size: int, work: Path) -> dict[str, list[str]]:
    """Official name → transformers' names of EdgeTAM's tensors."""
    from reference.hugging_face import own_names

    command = ["-m", "reference.edgetam_hugging_face", str(image_size)]
    return own_names(json.loads(run_apart(command, "edgetam", 1, work).splitlines()[-1]))


def main() -> None:
    """Take turns, print a row for each number of objects."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=TINY, choices=(*OFFICIAL_CONFIGS, EDGETAM), metavar="CONFIG")
    parser.add_argument("--image-size", type=int, default=512, help="side of the model's input, a multiple of 32")
    parser.add_argument("--num-objects", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--num-frames", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2, help="how often the contestants take turns")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, help="default float32, on a GPU bfloat16")
    parser.add_argument("--warm-up", type=int, help="first frames that are not timed; default 2, on a GPU 12")
    parser.add_argument("--tracked", type=int, help="first frames that are tracked; default all")
    parser.add_argument("--peers", nargs="+", metavar="PACKAGE", help="compare with these only, such as sam2")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.warm_up is None:
        arguments.warm_up = WARM_UP_FRAMES[arguments.device]
    if arguments.tracked is None:
        arguments.tracked = arguments.num_frames
    if arguments.dtypes is None:
        arguments.dtypes = ["bfloat16" if arguments.device == "cuda" else "float32"]
    if arguments.worker is not None:
        warnings.filterwarnings("ignore")
        figures = track(
            arguments.contestant,
            arguments.image_size,
            arguments.num_objects[0],
            arguments.worker,
            arguments.device,
            DTYPES[arguments.dtypes[0]],
            arguments.warm_up,
            arguments.tracked,
        )
        print(json.dumps(figures))
        return
    if arguments.tracked > arguments.num_frames:
        parser.error(f"the clip has {arguments.num_frames} frames, {arguments.tracked} cannot be tracked")
    if not 1 <= arguments.warm_up < arguments.tracked:
        parser.error(f"of {arguments.tracked} tracked frames 1 to {arguments.tracked - 1} can be left out")
    ours = f"ours {arguments.config}"
    names = [name for name, (_, config) in CONTESTANTS.items() if config == arguments.config and name != ours]
    if arguments.device == "cuda":  # these two are made to run on a CPU here
        names = [name for name in names if not name.startswith(("transformers", "ultralytics"))]
    names += [f"ours {TINY}"] if arguments.config == EDGETAM else []
    if arguments.peers:
        names = [name for name in names if name.split()[0] in arguments.peers]
    if not all((REPOSITORY / ".references" / (CONTESTANTS[name][0] or "")).is_dir() for name in names):
        parser.error("the packages to compare with are not installed; run: make peers")

    print(
        f"{arguments.config} at {arguments.image_size} px, {arguments.num_frames} frames, {arguments.threads} threads"
    )
    print(
        "objects  contestant                             s/frame  CPU s/frame  peak MB  over ours: clock, CPU, memory"
    )
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_clip(work / "clip", arguments.num_frames, FRAME_SIZE)
        write_video(work)
        for config in {CONTESTANTS[name][1] for name in names}:
            random_checkpoint(config, work / f"{config}.pt", arguments.image_size)
        if arguments.config == EDGETAM:
            (work / "names.json").write_text(json.dumps(names_of_transformers(arguments.image_size, work)))
        for num_objects in tqdm(arguments.num_objects, desc="numbers of objects"):
            compare([ours, *names], arguments, num_objects, work)


def compare(names: list[str], arguments: argparse.Namespace, num_objects: int, work: Path) -> None:
    """Have contestants, ours first, take turns in each precision, and print a row for each."""
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {
        (name, dtype): [] for name in names for dtype in arguments.dtypes
    }
    for _ in range(arguments.rounds):
        for name, dtype in runs:
            runs[name, dtype].append(track_apart(name, dtype, arguments, num_objects, work))
    figures = {of: np.array(summarise(runs[of])) for of in runs}
    clock = 0 if arguments.device == "cuda" else 1
    fastest = min((figures[names[0], dtype] for dtype in arguments.dtypes), key=lambda row: float(row[clock]))
    for (name, dtype), row in figures.items():
        ratios = row / fastest
        tqdm.write(
            f"{num_objects:7}  {name:27} {dtype:9} {row[0]:8.3f} {row[1]:12.3f} {row[2]:8.0f}"
            f"  {ratios[0]:8.2f} {ratios[1]:8.2f} {ratios[2]:8.2f}"
        )


def summarise(runs: list[dict[str, Any]]) -> list[float]:
    """Median seconds per frame by the wall clock and by the processor's, and the highest peak memory in MB."""
    medians = [float(np.median(np.concatenate([run[clock] for run in runs]))) for clock in ("wall", "cpu")]
    return [*medians, max(run["peak_mb"] for run in runs)]


if __name__ == "__main__":
    main()
