"""What do tiles find that a look at the whole image misses, and what do they cost? Generated 4K scenes.

    python benchmarks/tiled.py
    python benchmarks/tiled.py --num-scenes 5 --slice-wh 480 480 --merge nmm --picture outputs/tiled.png

Two kinds of scenes: 100 small objects, of 2 to 6 percent of the image's height, and a few large ones, larger than a
tile, which must survive. An object is found when a box of its phrase has an IoU of at least 0.5 with it. The exit
status is 1 if tiles do not find more small objects, or find fewer large ones.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from grounded_sam2.detectors.base import Detector
from grounded_sam2.detectors.huggingface import HuggingFaceDetector
from grounded_sam2.detectors.tiled import Merge, TiledDetector
from grounded_sam2.images import write_image
from grounded_sam2.render import annotate
from training.detector_scores import FIRST_TEST_SEED, DetectionScores, ScoredImage, score
from training.scenes import Scene, make_scene

BOX_THRESHOLD = 0.35  # the scripts' default
SMALL = {"extents": (0.02, 0.06)}  # of the image's height: 43 to 130 pixels in 4K
LARGE = {"extents": (0.4, 0.7), "num_objects": (4, 4)}
NOUNS = ("dog", "penguin", "flamingo", "pizza", "owl", "backpack", "red car", "tiger", "camera", "crown")


def measure(detector: Detector, scenes: list[Scene]) -> tuple[DetectionScores, float, ScoredImage]:
    """Scores over scenes, seconds per scene, and what was found in the first scene."""
    start = time.perf_counter()
    scored = [
        ScoredImage(scene, list(NOUNS), detector.detect(scene.image, NOUNS, box_threshold=BOX_THRESHOLD)[0])
        for scene in scenes
    ]
    seconds = (time.perf_counter() - start) / len(scenes)
    return score(scored, BOX_THRESHOLD), seconds, scored[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="gdino_checkpoints/nano", help="folder or hub id of the detector")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--num-scenes", type=int, default=1, help="of each kind")
    parser.add_argument("--num-objects", type=int, default=100, help="small ones")
    parser.add_argument("--size", type=int, nargs=2, default=(3840, 2160), help="width and height of the scenes")
    parser.add_argument("--slice-wh", type=int, nargs=2, default=(640, 640))
    parser.add_argument("--overlap-ratio", type=float, nargs=2, default=(0.2, 0.2))
    parser.add_argument("--merge", choices=get_args(Merge), default="nms")
    parser.add_argument("--batch-size", type=int, default=8, help="tiles at a time")
    parser.add_argument("--picture", type=Path, help="where to draw what the tiles found in the first scene")
    arguments = parser.parse_args()

    plain = HuggingFaceDetector(arguments.detector, device=arguments.device, batch_size=arguments.batch_size)
    tiled = TiledDetector(
        plain,
        tuple(arguments.slice_wh),
        overlap_ratio=tuple(arguments.overlap_ratio),
        merge=arguments.merge,
        batch_size=arguments.batch_size,
    )
    width, height = arguments.size
    print(f"{arguments.detector} on {arguments.device}, {width}x{height} pixels, {arguments.num_scenes} scenes each")
    recalls = {}
    for kind, options in (("small", {"num_objects": (arguments.num_objects,) * 2, **SMALL}), ("large", LARGE)):
        scenes = [
            make_scene(FIRST_TEST_SEED + index, (height, width), "heldout", nouns=NOUNS, stretch=1.0, **options)
            for index in range(arguments.num_scenes)
        ]
        for name, detector in (("whole image", plain), ("tiles", tiled)):
            scores, seconds, first = measure(detector, scenes)
            recalls[kind, name] = scores.recall
            print(
                f"  {kind} objects, {name:11s}  recall {scores.recall:.3f}  precision {scores.precision:.3f}  "
                f"({scores.num_objects} objects)  {seconds:.2f} s per image",
                flush=True,
            )
        if arguments.picture and kind == "small":
            write_image(arguments.picture, annotate(first.scene.image, first.detections))
    has_gained = recalls["small", "tiles"] > recalls["small", "whole image"]
    sys.exit(int(not has_gained or recalls["large", "tiles"] < recalls["large", "whole image"]))


if __name__ == "__main__":
    main()
