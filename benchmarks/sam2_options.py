"""What the settings that trade exactness for speed gain: processor time of a frame, over that of the exact model.

    python benchmarks/sam2_options.py                                  # SAM 2.1 tiny, 8 objects, one thread
    python benchmarks/sam2_options.py --config sam2.1-nano --num-objects 6 --rounds 10
    python benchmarks/nano_scores.py --real ../shared/real --only clips --track-every 2     # and what one costs

Random weights; a stream in its steady state, with as many memories as the model reads. So that nobody waits for it, the
state is made: one object is followed for a few frames, and the last of its memories stands for all earlier ones, and
the object for all others.
"""

from __future__ import annotations

import argparse
import sys
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from sam2.build_sam import build_sam2_video_predictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.video_state import InferenceState

STEADY = 24  # frames behind the first one that is timed; every `track_every` offered here divides it
# sides are shares of the model's own
OPTIONS: dict[str, dict[str, Any]] = {
    "exact": {},
    "image_size x 3/4": {"image_size": 3 / 4},
    "image_size x 1/2": {"image_size": 1 / 2},
    "sparse_memories 0.05": {"sparse_memories": 0.05},
    "track_every 2": {"track_every": 2},
    "track_every 3": {"track_every": 3},
    "track_every 2, sparse 0.05": {"track_every": 2, "sparse_memories": 0.05},
    "track_every 2, size x 3/4": {"track_every": 2, "image_size": 3 / 4},
}


def make_frames(num_frames: int) -> list[np.ndarray]:
    """A coarse pattern that moves by two pixels a frame, 640x360."""
    coarse = np.random.default_rng(0).integers(0, 256, (45, 80, 3), dtype=np.uint8)
    pattern = coarse.repeat(8, axis=0).repeat(8, axis=1)
    return [np.roll(pattern, 2 * i, axis=1) for i in range(num_frames)]


def steady_state(predictor: SAM2VideoPredictor, frames: list[np.ndarray], num_objects: int) -> InferenceState:
    """A stream whose newest frame is `STEADY`, with the memories of so many frames; see above."""
    every = predictor.config.track_every
    state = predictor.init_stream()
    for frame_idx in range(2 * every + 1):
        predictor.append_frame(state, frames[frame_idx])
        if frame_idx == 0:
            predictor.add_new_points_or_box(state, 0, 1, box=[200, 100, 400, 260])
        predictor.step(state)
    obj = state.objects[1]
    remembered, newest = obj.non_cond[every], obj.non_cond[2 * every]
    obj.non_cond = {t: deepcopy(remembered) for t in range(every, STEADY, every)} | {STEADY: newest}
    obj.carried.clear()
    state.newest_frame_idx = STEADY
    if state.last_grey is not None:
        state.last_grey = (STEADY, state.last_grey[1])
    state.objects = {obj_id: deepcopy(obj) for obj_id in range(1, num_objects + 1)}
    return state


def seconds_per_frame(predictor: SAM2VideoPredictor, num_objects: int, rounds: int) -> float:
    """Processor seconds of a frame, mean over `rounds` times `track_every` frames."""
    num_timed = rounds * predictor.config.track_every
    frames = make_frames(STEADY + 1 + num_timed)
    with torch.inference_mode():
        state = steady_state(predictor, frames, num_objects)
    start = time.process_time()
    for image in frames[STEADY + 1 :]:
        predictor.append_frame(state, image)
        predictor.step(state)
    return (time.process_time() - start) / num_timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="sam2.1-tiny", help="name of a configuration")
    parser.add_argument("--num-objects", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=OPTIONS, default=list(OPTIONS), metavar="OPTION")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    own_side = build_sam2_video_predictor(arguments.config, device="cpu").image_size
    print(f"{arguments.config} at {own_side} px, {arguments.num_objects} objects, {arguments.threads} threads")
    exact = None
    for name in arguments.only:
        options = dict(OPTIONS[name])
        if "image_size" in options:
            options["image_size"] = round(own_side * options["image_size"] / 32) * 32
        torch.manual_seed(0)
        predictor = build_sam2_video_predictor(arguments.config, device="cpu", **options)
        seconds = seconds_per_frame(predictor, arguments.num_objects, arguments.rounds)
        exact = seconds if exact is None else exact
        print(f"{name:28s} {seconds:8.3f} s a frame  {exact / seconds:6.2f} times {arguments.only[0]}", flush=True)


if __name__ == "__main__":
    main()
