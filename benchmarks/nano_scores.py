"""Score the bundled nano models on held-out scenes: seeds, layouts and backgrounds that were never trained on.

python benchmarks/nano_scores.py
python benchmarks/nano_scores.py --num-scenes 1000 --detector path/to/folder
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from grounded_sam2.detectors.huggingface import HuggingFaceDetector
from training.detector_scores import FIRST_TEST_SEED, detect_scenes, low_threshold_detect, score
from training.scenes import TRAIN_STYLES, UNSEEN_STYLE

BOX_THRESHOLD = 0.35  # the scripts' default


def print_detector_scores(folder: str, num_scenes: int) -> None:
    """Print AP50, recall, precision and false boxes for the trained styles and for the one never trained on."""
    detect = low_threshold_detect(HuggingFaceDetector(folder, device="cpu"))
    seeds = range(FIRST_TEST_SEED, FIRST_TEST_SEED + num_scenes)
    print(f"detector {folder}: {num_scenes} held-out scenes per line, box threshold {BOX_THRESHOLD}")
    for name, styles in (("trained styles", TRAIN_STYLES), (f"unseen style ({UNSEEN_STYLE})", (UNSEEN_STYLE,))):
        print(f"  {name:24s} {score(detect_scenes(detect, seeds, styles), BOX_THRESHOLD)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-scenes", type=int, default=300)
    parser.add_argument("--detector", default="gdino_checkpoints/nano", help="folder of the detector")
    arguments = parser.parse_args()
    print_detector_scores(arguments.detector, arguments.num_scenes)


if __name__ == "__main__":
    main()
