"""Seconds per image and peak memory of Grounding DINO, beside transformers' class, on the same random weights.

    python benchmarks/gdino_speed.py                                        # Swin-T, 800x1333, float32: some minutes
    python benchmarks/gdino_speed.py --threads 1 --dtypes float32 bfloat16 --ext
    python benchmarks/gdino_speed.py --size 192x256 --rounds 1              # to see that it runs
    python benchmarks/gdino_speed.py --device cuda --dtypes float32 float16 --ext

transformers runs in float32; ours runs in each of the dtypes asked for, in plain PyTorch and, with `--ext`, also with
the compiled deformable attention, which is built on first use. Each runs in processes of its own that take turns, so
that whatever else the machine does hits all of them; a process warms up on one image. Figures are medians over all
images: seconds on the clock and seconds of processor time, which other programs disturb less. Peak memory is the
resident set, Python and weights included, or on a GPU what PyTorch holds there. The last column is the largest
difference from transformers between the queries' best scores, sorted: what the dtype costs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from process_memory import peak_resident_mb
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "benchmarks")]

CLS, SEP, STOP, QUESTION = 101, 102, 1012, 1029
DTYPES = ("float32", "bfloat16", "float16")


def transformers_detector(folder: Path, device: str, dtype: torch.dtype) -> Callable[[Tensor, list[int]], Tensor]:
    """A function of an image (3, H, W) and token ids that gives the queries' logits (Q, T)."""
    import transformers

    model = transformers.GroundingDinoForObjectDetection.from_pretrained(folder, dtype=dtype).eval().to(device)

    def detect(image: Tensor, input_ids: list[int]) -> Tensor:
        tokens = torch.tensor([input_ids], device=device)
        return model(pixel_values=image[None].to(device, dtype), input_ids=tokens).logits[0, :, : len(input_ids)]

    return detect


def our_detector(folder: Path, device: str, dtype: torch.dtype) -> Callable[[Tensor, list[int]], Tensor]:
    """As `transformers_detector`, of this repository's model."""
    from grounding_dino.groundingdino.text import text_inputs
    from grounding_dino.groundingdino.weights import build_model

    model = build_model(folder, device=device, dtype=dtype)

    def detect(image: Tensor, input_ids: list[int]) -> Tensor:
        text = text_inputs([input_ids], (CLS, SEP, STOP, QUESTION)).to(device)
        return model([image.to(device, dtype)], text).logits[0]

    return detect


@torch.inference_mode()
def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one of the two in this process: seconds of each image by both clocks, peak memory in MB, sorted scores."""
    build = transformers_detector if arguments.worker == "transformers" else our_detector
    detect = build(arguments.folder, arguments.device, getattr(torch, arguments.dtypes[0]))
    input_ids = json.loads((arguments.folder / "prompt.json").read_text())
    image = torch.randn(3, *arguments.size, generator=torch.Generator().manual_seed(0))
    wall, cpu = [], []
    for _ in range(1 + arguments.images):
        started = time.perf_counter(), time.process_time()
        scores = detect(image, input_ids).float().sigmoid().amax(-1).sort().values.cpu()
        wall.append(time.perf_counter() - started[0])
        cpu.append(time.process_time() - started[1])
    on_gpu = arguments.device != "cpu"
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_resident_mb()
    return {"wall": wall[1:], "cpu": cpu[1:], "peak_mb": peak, "scores": scores.tolist()}


def measure_apart(package: str, dtype: str, has_kernel: bool, arguments: argparse.Namespace, folder: Path) -> Any:
    """`measure` in a process of its own."""
    wish = {"GROUNDED_SAM2_BUILD_EXT": str(int(has_kernel)), "GROUNDED_SAM2_NO_EXT": str(int(not has_kernel))}
    environment = os.environ | wish | {"OMP_NUM_THREADS": str(arguments.threads)}
    command = [sys.executable, "-W", "ignore", __file__, "--worker", package, "--folder", str(folder)]
    command += ["--dtypes", dtype, "--device", arguments.device, "--images", str(arguments.images)]
    command += ["--size", "x".join(map(str, arguments.size))]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(f"{package} failed:\n{run.stderr[-3000:]}")
    if has_kernel and "runs in plain PyTorch" in run.stderr:
        raise RuntimeError(f"there is no kernel to measure: {run.stderr[-3000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def write_model(arguments: argparse.Namespace, folder: Path) -> None:
    """Random weights in transformers' layout and the prompt's token ids."""
    from gdino_parity import random_prompt, random_reference

    random_reference(arguments.backbone, seed=0).save_pretrained(folder)
    (folder / "prompt.json").write_text(json.dumps(random_prompt(arguments.phrases, seed=0)))


def size_of(text: str) -> tuple[int, int]:
    """`"800x1333"` → (800, 1333), height first."""
    height, _, width = text.partition("x")
    return int(height), int(width)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="swin_T_224_1k", choices=["swin_T_224_1k", "swin_B_384_22k"])
    parser.add_argument("--size", type=size_of, default=(800, 1333), metavar="HxW")
    parser.add_argument("--phrases", type=int, default=8, help="number of phrases in the prompt")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=DTYPES, help="of our model")
    parser.add_argument("--ext", action="store_true", help="measure the compiled deformable attention too")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--images", type=int, default=1, help="that a process times after the one it warms up on")
    parser.add_argument("--rounds", type=int, default=2, help="how often the processes take turns")
    parser.add_argument("--worker", choices=["transformers", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Take turns, then print a row for each and its ratio to transformers."""
    arguments = parse_arguments()
    if arguments.worker is not None:
        print(json.dumps(measure(arguments)))
        return
    variants = [("transformers", "float32", False)]
    kernels = (False, True) if arguments.ext else (False,)
    variants += [("ours", dtype, has_kernel) for dtype in arguments.dtypes for has_kernel in kernels]
    runs: dict[tuple[str, str, bool], list[Any]] = {variant: [] for variant in variants}
    with tempfile.TemporaryDirectory() as folder:
        write_model(arguments, Path(folder))
        for _ in range(arguments.rounds):
            for variant in variants:
                runs[variant].append(measure_apart(*variant, arguments, Path(folder)))

    height, width = arguments.size
    print(f"{arguments.backbone}, {height}x{width}, {arguments.device}, {arguments.threads} threads")
    header = ("", "attention", "s/image", "ratio", "CPU s/image", "ratio", "peak MB", "ratio", "scores")
    print("{:22}{:>10}{:>10}{:>7}{:>13}{:>7}{:>10}{:>7}{:>10}".format(*header))
    expected = runs[variants[0]][0]["scores"]
    reference = summarise(runs[variants[0]])
    for variant in variants:
        package, dtype, has_kernel = variant
        figures = summarise(runs[variant])
        ratios = reference / figures
        attention = "kernel" if has_kernel else "PyTorch"
        error = np.abs(np.subtract(runs[variant][0]["scores"], expected)).max()
        print(
            f"{f'{package} {dtype}':22}{attention:>10}{figures[0]:10.2f}{ratios[0]:7.2f}{figures[1]:13.2f}"
            f"{ratios[1]:7.2f}{figures[2]:10.0f}{ratios[2]:7.2f}{error:10.1e}"
        )


def summarise(runs: list[Any]) -> np.ndarray:
    """Median seconds per image by the wall clock and by the processor's, and the highest peak memory in MB."""
    medians = [float(np.median(np.concatenate([run[clock] for run in runs]))) for clock in ("wall", "cpu")]
    return np.array([*medians, max(run["peak_mb"] for run in runs)])


if __name__ == "__main__":
    main()
