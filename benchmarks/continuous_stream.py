"""Do memory and time per frame stay flat on a long stream? Follow what comes and goes through 10,000 frames and look.

    python benchmarks/continuous_stream.py                       # the bundled pair; an hour on a small CPU
    python benchmarks/continuous_stream.py --num-frames 2000 --num-objects 1 3

The stream is made of generated clips, one after the other, in which objects leave and come back; between two clips is
a cut, after which others are there. Everything the tracking scripts do on a frame is done, drawing included. Resident
memory after frame 500 is compared with that at the end, and the median time of the thousand frames after frame 500
with that of the last thousand, by the clock and in processor seconds, which other programs disturb less (with
OMP_NUM_THREADS=1 these are seconds of work alone). The exit status is 1 if memory has grown by 100 MB or more.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from process_memory import resident_mb
from tqdm import tqdm

from grounded_sam2.detectors.huggingface import HuggingFaceDetector
from grounded_sam2.render import annotate
from grounded_sam2.track.continuous import ContinuousTracker
from sam2.build_sam import build_sam2_video_predictor
from training.scenes import NOUNS, Scene, make_clip

FIRST_SEED = 40_000
CLIP_FRAMES = 125
KINDS = ("reentry", "mixed", "occlusion", "drift")
SIZE = (240, 320)  # (height, width) in pixels
SETTLED_FRAME = 500
ALLOWED_GROWTH_MB = 100.0


def endless_scenes(num_objects: tuple[int, int]) -> Iterator[Scene]:
    """Frames of held-out clips, one clip after the other."""
    for number in itertools.count():
        kind = KINDS[number % len(KINDS)]
        yield from make_clip(FIRST_SEED + number, CLIP_FRAMES, SIZE, "heldout", kind=kind, num_objects=num_objects)


def main() -> None:
    """Run the stream and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-frames", type=int, default=10_000)
    parser.add_argument("--num-objects", type=int, nargs=2, default=(1, 4), help="fewest and most in view")
    parser.add_argument("--detect-every", type=int, default=10, help="frames from one look of the detector to the next")
    parser.add_argument("--detector", default="gdino_checkpoints/nano")
    parser.add_argument("--segmenter", default="checkpoints/sam2.1_nano.pt")
    arguments = parser.parse_args()
    if arguments.num_frames <= SETTLED_FRAME:
        parser.error(f"--num-frames must be above {SETTLED_FRAME}, got {arguments.num_frames}")

    tracker = ContinuousTracker(
        HuggingFaceDetector(arguments.detector, device="cpu"),
        build_sam2_video_predictor("sam2.1-nano", arguments.segmenter, device="cpu"),
        list(NOUNS),
        detect_every=arguments.detect_every,
    )
    memory, seconds, cpu_seconds, num_shown = [], [], [], []
    scenes = itertools.islice(endless_scenes(tuple(arguments.num_objects)), arguments.num_frames)
    for scene in tqdm(scenes, total=arguments.num_frames, unit="frame"):
        start = time.perf_counter(), time.process_time()
        objects = tracker.step(scene.image)
        annotate(scene.image, objects)
        tracker.take_events()
        seconds.append(time.perf_counter() - start[0])
        cpu_seconds.append(time.process_time() - start[1])
        memory.append(resident_mb())
        num_shown.append(len(objects))
    growth = memory[-1] - memory[SETTLED_FRAME]
    num_ids = tracker.keeper.next_obj_id - 1
    print(f"{len(seconds)} frames, {num_ids} ids, {np.mean(num_shown):.1f} shown on a frame")
    print(f"resident after frame {SETTLED_FRAME}: {memory[SETTLED_FRAME]:.1f} MB, at the end: {memory[-1]:.1f} MB")
    print(f"growth {growth:+.1f} MB (allowed: {ALLOWED_GROWTH_MB:.0f}), peak {max(memory):.1f} MB")
    for clock, times in (("seconds", seconds), ("processor seconds", cpu_seconds)):
        early, late = np.median(times[SETTLED_FRAME : SETTLED_FRAME + 1000]), np.median(times[-1000:])
        print(f"median {clock} of a frame: {early:.3f} after frame {SETTLED_FRAME}, {late:.3f} at the end")
    print(f"{len(seconds) / sum(seconds):.1f} frames per second, with detection every {arguments.detect_every} frames")
    sys.exit(int(growth >= ALLOWED_GROWTH_MB))


if __name__ == "__main__":
    main()
