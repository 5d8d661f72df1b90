"""Does memory grow with the length of a stream? Track two objects through 2,000 frames and look.

    python benchmarks/stream_memory.py
    python benchmarks/stream_memory.py --config sam2.1-tiny --num-frames 500 --num-objects 4
    python benchmarks/stream_memory.py --memory-policy samurai --num-frames 10000 --image-size 96

A hundred frames that were drawn before go by, forwards and backwards; they are appended one by one, tracked, and let
go. Resident memory after frame 200, when everything that is ever kept has been allocated, is compared with resident
memory at the end; the exit status is 1 if they differ by 50 MB or more.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import get_args

from process_memory import resident_mb
from tqdm import trange

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from reference.clip import SHAPES, box_of, make_frame, shape_mask  # noqa: E402  (the harness lives beside the tests)

from sam2.build_sam import build_sam2_video_predictor  # noqa: E402
from sam2.config import CONFIG_FILES, find_config  # noqa: E402
from sam2.memory_policies import PolicyName  # noqa: E402

FRAME_SIZE = (320, 240)  # width, height in pixels
DRAWN_FRAMES = 100
SETTLED_FRAME = 200
ALLOWED_GROWTH_MB = 50.0


def main() -> None:
    """Run the stream and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="sam2.1-nano", help="weights are random if its checkpoint is not there")
    parser.add_argument("--num-frames", type=int, default=2000)
    parser.add_argument("--num-objects", type=int, default=2, choices=range(1, len(SHAPES) + 1))
    parser.add_argument("--memory-policy", default="default", choices=get_args(PolicyName))
    parser.add_argument("--image-size", type=int, help="side of what the model sees; default its own")
    arguments = parser.parse_args()
    if arguments.num_frames <= SETTLED_FRAME:
        parser.error(f"--num-frames must be above {SETTLED_FRAME}, got {arguments.num_frames}")

    checkpoint = REPOSITORY / "checkpoints" / f"{find_config(arguments.config).stem}.pt"
    predictor = build_sam2_video_predictor(
        CONFIG_FILES.get(arguments.config, arguments.config),
        checkpoint if checkpoint.exists() else None,
        device="cpu",
        memory_policy=arguments.memory_policy,
        image_size=arguments.image_size,
    )
    drawn = [make_frame(index, FRAME_SIZE) for index in range(DRAWN_FRAMES)]
    there_and_back = [*drawn, *drawn[-2:0:-1]]
    state = predictor.init_stream()
    settled = peak = 0.0
    start = time.perf_counter()
    for frame_idx in trange(arguments.num_frames, unit="frame"):
        predictor.append_frame(state, there_and_back[frame_idx % len(there_and_back)])
        if frame_idx == 0:
            for shape_idx in range(arguments.num_objects):
                box = box_of(shape_mask(SHAPES[shape_idx], 0, FRAME_SIZE))
                predictor.add_new_points_or_box(state, 0, 1 + shape_idx, box=box)
        predictor.step(state)
        peak = max(peak, resident_mb())
        if frame_idx == SETTLED_FRAME:
            settled = resident_mb()
    seconds = time.perf_counter() - start
    growth = resident_mb() - settled
    weights = checkpoint.name if checkpoint.exists() else "random weights"
    print(f"{arguments.config} ({weights}), memory policy {arguments.memory_policy}")
    print(f"{arguments.num_objects} objects, {arguments.num_frames} frames")
    print(f"resident after frame {SETTLED_FRAME}: {settled:.1f} MB, at the end: {settled + growth:.1f} MB")
    print(f"growth {growth:+.1f} MB (allowed: {ALLOWED_GROWTH_MB:.0f}), peak {peak:.1f} MB")
    print(f"{seconds / arguments.num_frames:.3f} s per frame")
    sys.exit(int(growth >= ALLOWED_GROWTH_MB))


if __name__ == "__main__":
    main()
