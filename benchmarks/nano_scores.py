"""Score the bundled nano models on held-out scenes: seeds, layouts and backgrounds that were never trained on.

python benchmarks/nano_scores.py
python benchmarks/nano_scores.py --num-scenes 1000 --detector path/to/folder
python benchmarks/nano_scores.py --only detector --dtype bfloat16      # what half precision costs
python benchmarks/nano_scores.py --only segmenter --num-clips 40 --segmenter path/to/checkpoint.pt
python benchmarks/nano_scores.py --real ../shared/real                 # on photographs and clips instead of drawings
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from grounded_sam2.detectors.local import LocalDetector
from grounded_sam2.score.boundary import region_iou
from grounded_sam2.track.continuous import ContinuousTracker
from sam2.build_sam import build_sam2, build_sam2_video_predictor
from sam2.sam2_image_predictor import SAM2ImagePredictor
from training import segmenter_scores
from training.detector_scores import FIRST_TEST_SEED, detect_scenes, low_threshold_detect, photo_scores, score
from training.photos import Clip, frequent_names, load_clips, load_photos
from training.scenes import CLIP_KINDS, TRAIN_STYLES, UNSEEN_STYLE

BOX_THRESHOLD = 0.35  # the scripts' default
NUM_NAMES = 12  # the most frequent ones, that photographs are searched for


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


def print_real_detector_scores(folder: str, real: Path, dtype: str) -> None:
    """Print what the detector finds on the test split of the photographs, by name."""
    detector = LocalDetector(folder, dtype=getattr(torch, dtype))
    photos = load_photos(real)
    test = [photo for photo in photos if photo.split == "test"]
    print(f"detector {folder} in {dtype}: {len(test)} photographs, box threshold {BOX_THRESHOLD}")
    print(photo_scores(detector, test, frequent_names(photos, NUM_NAMES), BOX_THRESHOLD), flush=True)


def print_real_segmenter_scores(checkpoint: str, real: Path) -> None:
    """Print the IoU of prompted masks on the test split of the photographs, and J and F on the val clips."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    image_predictor = SAM2ImagePredictor(build_sam2("sam2.1-nano", checkpoint, device=device))
    test = [photo for photo in load_photos(real) if photo.split == "test"]
    print(f"segmenter {checkpoint}: {len(test)} photographs")
    for prompt in ("box", "point"):
        ious = segmenter_scores.photo_ious(image_predictor, test, prompt)
        print(f"  photographs, {prompt:5s} mean IoU {ious.mean():.3f}  ({len(ious)} objects)", flush=True)
    video_predictor = build_sam2_video_predictor("sam2.1-nano", checkpoint, device=device)
    for prompt in ("mask", "box"):
        both = []
        for clip in load_clips(real, "val"):
            both.append(segmenter_scores.clip_region_and_boundary(video_predictor, clip, prompt))
            print(f"    {clip.name:16s} from a {prompt:4s}: J {both[-1][0]:.3f}  F {both[-1][1]:.3f}", flush=True)
        region, boundary = np.mean(both, axis=0)
        print(f"  val clips from a {prompt}: J&F {(region + boundary) / 2:.3f}  J {region:.3f}  F {boundary:.3f}")


def print_real_text_scores(folder: str, checkpoint: str, real: Path) -> None:
    """Print how well the pair follows what a noun names through the val clips that show one thing.

    J is that of the id which covers the object best over all frames; a frame on which that id is not shown counts as
    an empty mask.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    detector = LocalDetector(folder, device=device)
    predictor = build_sam2_video_predictor("sam2.1-nano", checkpoint, device=device)
    regions = []
    for clip in load_clips(real, "val"):
        if not clip.single_noun:
            continue
        region, num_ids = follow_noun(ContinuousTracker(detector, predictor, clip.noun), clip)
        regions.append(region)
        print(f"    {clip.name:16s} {clip.noun!r}: J {region:.3f} of the best of {num_ids} ids", flush=True)
    print(f"  val clips from a noun: J {np.mean(regions):.3f}")


def follow_noun(tracker: ContinuousTracker, clip: Clip) -> tuple[float, int]:
    """Mean IoU of the best id over a clip's frames, and how many ids were shown."""
    ious: dict[int, float] = {}
    for frame_idx in range(len(clip)):
        objects, true = tracker.step(clip.frame(frame_idx)), clip.mask(frame_idx)
        if len(objects) == 0:
            continue
        for obj_id, mask in zip(objects.tracker_id, objects.mask, strict=True):
            ious[int(obj_id)] = ious.get(int(obj_id), 0.0) + region_iou(mask, true)
    return max(ious.values(), default=0.0) / len(clip), len(ious)


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
    parser.add_argument("--real", type=Path, help="score on this folder (or pack) of photographs and clips instead")
    arguments = parser.parse_args()
    if arguments.real is not None:
        if not arguments.real.exists():
            print(f"{arguments.real} is not there: nothing is scored on photographs and clips")
            return
        if arguments.only != "segmenter":
            print_real_detector_scores(arguments.detector, arguments.real, arguments.dtype)
        if arguments.only != "detector":
            print_real_segmenter_scores(arguments.segmenter, arguments.real)
        if arguments.only is None:
            print_real_text_scores(arguments.detector, arguments.segmenter, arguments.real)
        return
    if arguments.only != "segmenter":
        print_detector_scores(arguments.detector, arguments.num_scenes, arguments.dtype)
    if arguments.only != "detector":
        print_segmenter_scores(arguments.segmenter, arguments.num_scenes, arguments.num_clips)


if __name__ == "__main__":
    main()
