"""Score the bundled nano models on held-out scenes: seeds, layouts and backgrounds that were never trained on.

python benchmarks/nano_scores.py
python benchmarks/nano_scores.py --num-scenes 1000 --detector path/to/folder
python benchmarks/nano_scores.py --only detector --dtype bfloat16      # what half precision costs
python benchmarks/nano_scores.py --only segmenter --num-clips 40 --segmenter path/to/checkpoint.pt
python benchmarks/nano_scores.py --real ../shared/real                 # on photographs and clips instead of drawings
python benchmarks/nano_scores.py --real ../shared/real --only clips --memory-policy samurai --three-masks
python benchmarks/nano_scores.py --only clips --num-clips 3 --track-every 2    # what a faster setting costs
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from grounded_sam2.detectors.local import LocalDetector
from grounded_sam2.masks import mask_iou
from grounded_sam2.track.continuous import ContinuousTracker
from sam2.build_sam import build_sam2, build_sam2_video_predictor
from sam2.memory_policies import POLICIES, PolicyName
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from training import segmenter_scores
from training.detector_scores import FIRST_TEST_SEED, detect_scenes, low_threshold_detect, photo_scores, score
from training.photos import Clip, frequent_names, load_clips, load_photos
from training.scenes import CLIP_KINDS, TRAIN_STYLES, UNSEEN_STYLE

BOX_THRESHOLD = 0.35  # the scripts' default
NUM_NAMES = 12  # the most frequent ones, that photographs are searched for


def build_video_predictor(checkpoint: str, three_masks: bool, **options: Any) -> SAM2VideoPredictor:
    """The nano model for videos.

    Args:
        options: `memory_policy`, `image_size`, `track_every` and `sparse_memories`, see `build_sam2_video_predictor`.
        three_masks: offer three masks on every frame, as the published models do; the nano was trained to offer one.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    overrides = ["++model.multimask_output_for_tracking=true"] if three_masks else []
    return build_sam2_video_predictor(
        "sam2.1-nano", checkpoint, device=device, hydra_overrides_extra=overrides, **options
    )


BuildVideo = Callable[[str], SAM2VideoPredictor]


def print_detector_scores(folder: str, num_scenes: int, dtype: str) -> None:
    """Print AP50, recall, precision and false boxes for the trained styles and for the one never trained on."""
    detect = low_threshold_detect(LocalDetector(folder, dtype=getattr(torch, dtype)))
    seeds = range(FIRST_TEST_SEED, FIRST_TEST_SEED + num_scenes)
    print(f"detector {folder} in {dtype}: {num_scenes} held-out scenes per line, box threshold {BOX_THRESHOLD}")
    for name, styles in (("trained styles", TRAIN_STYLES), (f"unseen style ({UNSEEN_STYLE})", (UNSEEN_STYLE,))):
        print(f"  {name:24s} {score(detect_scenes(detect, seeds, styles), BOX_THRESHOLD)}", flush=True)


def print_segmenter_scores(checkpoint: str, num_scenes: int) -> None:
    """Print the IoU of prompted masks."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    image_predictor = SAM2ImagePredictor(build_sam2("sam2.1-nano", checkpoint, device=device))
    first = segmenter_scores.FIRST_TEST_SEED
    scene_seeds = range(first, first + num_scenes)
    print(f"segmenter {checkpoint}: {num_scenes} held-out scenes, 192x192 pixels")
    for name, styles in (("trained styles", TRAIN_STYLES), (f"unseen style ({UNSEEN_STYLE})", (UNSEEN_STYLE,))):
        for prompt in ("box", "point"):
            ious = segmenter_scores.prompted_ious(image_predictor, scene_seeds, styles, prompt)
            print(f"  {name:24s} {prompt:5s} mean IoU {ious.mean():.3f}  ({len(ious)} objects)", flush=True)


def print_tracking_scores(checkpoint: str, num_clips: int, build_video: BuildVideo) -> None:
    """Print how well objects are followed over 8 and 40 frames of each kind of clip."""
    first = segmenter_scores.FIRST_TEST_SEED
    clip_seeds = range(first, first + num_clips)
    video_predictor = build_video(checkpoint)
    print(f"segmenter {checkpoint}: {num_clips} held-out clips per line, 192x192 pixels")
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
    """Print the IoU of prompted masks on the test split of the photographs."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    image_predictor = SAM2ImagePredictor(build_sam2("sam2.1-nano", checkpoint, device=device))
    test = [photo for photo in load_photos(real) if photo.split == "test"]
    print(f"segmenter {checkpoint}: {len(test)} photographs")
    for prompt in ("box", "point"):
        ious = segmenter_scores.photo_ious(image_predictor, test, prompt)
        print(f"  photographs, {prompt:5s} mean IoU {ious.mean():.3f}  ({len(ious)} objects)", flush=True)


def print_real_tracking_scores(checkpoint: str, real: Path, split: str, build_video: BuildVideo) -> None:
    """Print J and F on the clips of a split, and what a frame took, all that SAM 2 does with it."""
    video_predictor = build_video(checkpoint)
    for prompt in ("mask", "box"):
        both, seconds, num_frames = [], 0.0, 0
        for clip in load_clips(real, split):
            start = time.perf_counter()
            masks = segmenter_scores.track_clip(video_predictor, clip, prompt)
            seconds, num_frames = seconds + time.perf_counter() - start, num_frames + len(masks)
            both.append(segmenter_scores.region_and_boundary(masks, clip))
            print(f"    {clip.name:16s} from a {prompt:4s}: J {both[-1][0]:.3f}  F {both[-1][1]:.3f}", flush=True)
        region, boundary = np.mean(both, axis=0)
        print(
            f"  {split} clips from a {prompt}: J&F {(region + boundary) / 2:.3f}  J {region:.3f}  F {boundary:.3f}  "
            f"{1000 * seconds / num_frames:.1f} ms a frame",
            flush=True,
        )


def print_real_text_scores(folder: str, checkpoint: str, real: Path, build_video: BuildVideo) -> None:
    """Print how well the pair follows what a noun names through the val clips that show one thing.

    J is that of the id which covers the object best over all frames; a frame on which that id is not shown counts as
    an empty mask.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    detector = LocalDetector(folder, device=device)
    predictor = build_video(checkpoint)
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
            ious[int(obj_id)] = ious.get(int(obj_id), 0.0) + mask_iou(mask, true)
    return max(ious.values(), default=0.0) / len(clip), len(ious)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-scenes", type=int, default=300)
    parser.add_argument("--detector", default="gdino_checkpoints/nano", help="folder of the detector")
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16", "float16"), help="of the detector"
    )
    parser.add_argument("--segmenter", default="checkpoints/sam2.1_nano.pt", help="checkpoint of the SAM 2.1 nano")
    parser.add_argument("--num-clips", type=int, default=20, help="of each kind and length")
    parser.add_argument("--only", choices=("detector", "segmenter", "clips"), help="score one; clips: the segmenter's")
    parser.add_argument("--memory-policy", default="default", choices=POLICIES, help="of the segmenter in clips")
    parser.add_argument(
        "--three-masks", action="store_true", help="three masks on each frame of a clip, as published models have"
    )
    parser.add_argument("--image-size", type=int, help="side of what the segmenter sees of clips")
    parser.add_argument(
        "--track-every", type=int, default=1, help="frames from one tracked by the segmenter to the next"
    )
    parser.add_argument("--sparse-memories", type=float, default=1.0, help="share of the cells read of older memories")
    parser.add_argument("--split", default="val", choices=("train", "val"), help="of the clips under --real")
    parser.add_argument("--real", type=Path, help="score on this folder (or pack) of photographs and clips instead")
    arguments = parser.parse_args()
    if arguments.real is not None and not arguments.only and arguments.memory_policy not in get_args(PolicyName):
        parser.error(f"{arguments.memory_policy} follows no streams, as the scores from a noun need: add --only clips")
    build_video = partial(
        build_video_predictor,
        three_masks=arguments.three_masks,
        memory_policy=arguments.memory_policy,
        image_size=arguments.image_size,
        track_every=arguments.track_every,
        sparse_memories=arguments.sparse_memories,
    )
    detector, segmenter, only = arguments.detector, arguments.segmenter, arguments.only
    if arguments.real is not None and not arguments.real.exists():
        print(f"{arguments.real} is not there: nothing is scored on photographs and clips")
    elif arguments.real is not None:
        if only in (None, "detector"):
            print_real_detector_scores(detector, arguments.real, arguments.dtype)
        if only in (None, "segmenter"):
            print_real_segmenter_scores(segmenter, arguments.real)
        if only in (None, "segmenter", "clips"):
            print_real_tracking_scores(segmenter, arguments.real, arguments.split, build_video)
        if only is None:
            print_real_text_scores(detector, segmenter, arguments.real, build_video)
    else:
        if only in (None, "detector"):
            print_detector_scores(detector, arguments.num_scenes, arguments.dtype)
        if only in (None, "segmenter"):
            print_segmenter_scores(segmenter, arguments.num_scenes)
        if only in (None, "segmenter", "clips"):
            print_tracking_scores(segmenter, arguments.num_clips, build_video)


if __name__ == "__main__":
    main()
