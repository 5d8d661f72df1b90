"""Score the bundled nano models on held-out scenes: seeds, layouts and backgrounds that were never trained on.

python benchmarks/nano_scores.py
python benchmarks/nano_scores.py --num-scenes 1000 --detector path/to/folder
python benchmarks/nano_scores.py --only detector --dtype bfloat16      # what half precision costs
python benchmarks/nano_scores.py --only segmenter --num-clips 40 --segmenter path/to/checkpoint.pt
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from grounded_sam2.detectors.local import LocalDetector
from sam2.build_sam import build_sam2, build_sam2_video_predictor
from sam2.sam2_image_predictor import SAM2ImagePredictor
from training import segmenter_scores
from training.detector_scores import FIRST_TEST_SEED, detect_scenes, low_threshold_detect, score
from training.scenes import CLIP_KINDS, TRAIN_STYLES, UNSEEN_STYLE

BOX_THRESHOLD = 0.35  # the scripts' default


def print_detector_scores(folder: str, num_scenes: int, dtype: str) -> None:
    """Print AP50, recall, precision and false boxes for the trained styles and for the one never trained on."""
    detect = low_threshold_detect(LocalDetector(folder, dtype=getattr(torch, dtype)))
    seeds = range(FIRST_TEST_SEED, FIRST_TEST_SEED + num_scenes)
    print(f"detector {folder} in {dtype}: {num_scenes} held-out scenes per line, box threshold {BOX_THRESHOLD}")
    for name, styles in (("trained styles", TRAIN_STYLES), (f"unseen style ({UNSEEN_STYLE})", (UNSEEN_STYLE,))):
        print(f"  {name:24s} {score(detect_scenes(detect, seeds, styles), BOX_THRESHOLD)}", flush=True)


def print_segmenter_scores(checkpoint: str, num_scenes: int, num_clips: int) -> None:
    """Print the IoU of prompted masks, and how well objects are followed over 8 and 40 frames of each kind of clip."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    image_predictor = SAM2ImagePredictor(build_sam2("sam2.1-nano", checkpoint, device=device))
    first = segmenter_scores.FIRST_TEST_SEED
    scene_seeds, clip_seeds = range(first, first + num_scenes), range(first, first + num_clips)
    print(f"segmenter {checkpoint}: {num_scenes} held-out scenes, {num_clips} held-out clips per line, 192x192 pixels")
    for name, styles in (("trained styles", TRAIN_STYLES), (f"unseen style ({UNSEEN_STYLE})", (UNSEEN_STYLE,))):
        for prompt in ("box", "point"):
            ious = segmenter_scores.prompted_ious(image_predictor, scene_seeds, styles, prompt)
            print(f"  {name:24s} {prompt:5s} mean IoU {ious.mean():.3f}  ({len(ious)} objects)", flush=True)
    video_predictor = build_sam2_video_predictor("sam2.1-nano", checkpoint, device=device)
    for num_frames in (8, 40):
        every_kind = []
        for kind in CLIP_KINDS:
            tracked = segmenter_scores.tracking_scores(video_predictor, clip_seeds, num_frames, kind, TRAIN_STYLES)
            every_kind.append(tracked.region)
            print(f"  {num_frames:2d} frames {kind:9s} {tracked}", flush=True)
        print(f"  {num_frames:2d} frames, mean of all kinds: J {sum(every_kind) / len(every_kind):.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-scenes", type=int, default=300)
    parser.add_argument("--detector", default="gdino_checkpoints/nano", help="folder of the detector")
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16", "float16"), help="of the detector"
    )
    parser.add_argument(
        "--segmenter", default="checkpoints/sam2.1_hiera_nano.pt", help="checkpoint of the SAM 2.1 nano"
    )
    parser.add_argument("--num-clips", type=int, default=20, help="of each kind and length")
    parser.add_argument("--only", choices=("detector", "segmenter"), help="score one of the two")
    arguments = parser.parse_args()
    if arguments.only != "segmenter":
        print_detector_scores(arguments.detector, arguments.num_scenes, arguments.dtype)
    if arguments.only != "detector":
        print_segmenter_scores(arguments.segmenter, arguments.num_scenes, arguments.num_clips)


if __name__ == "__main__":
    main()
