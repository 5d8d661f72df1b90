"""Score identity on generated clips with ground truth, beside the plain rule that the field uses.

    python benchmarks/identity.py
    python benchmarks/identity.py --detector gdino_checkpoints/nano      # instead of true boxes dropped at random
    python benchmarks/identity.py --num-clips 10 --num-frames 720 --kinds reentry     # 30 s
    python benchmarks/identity.py --memory-policy samurai --three-masks
    python benchmarks/identity.py --looks pointers           # what objects that come back are known by
    python benchmarks/identity.py --real ../shared/real      # cut-outs of photographs instead of drawings
    python benchmarks/identity.py --peers --every 1          # BoT-SORT and McByte on the same boxes (`make references`)

All methods get the same detections on the same frames and the same SAM 2. The plain rule: every time the detector has
looked, SAM 2 starts anew on what it found; a mask whose IoU with a mask of the frame before is above 0.8 takes over
that id, greedily, every other one gets a new id.

HOTA, IDF1, identity switches, fragments and J&F are those of `grounded_sam2.score`, over masks and all frames. Who
follows little, errs little: "followed" is the share of all objects on all frames that a track covers, "/1000" the
switches and fragments together for a thousand of those. "Returns kept" counts objects that left or hid and came back:
whether most of their frames have the id that most had before. "ms" is the processor time of a frame.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import supervision as sv
import torch

from benchmarks.identity_peers import Tracked, track_boxes
from grounded_sam2.detectors.base import Detector, make_detections
from grounded_sam2.detectors.huggingface import HuggingFaceDetector
from grounded_sam2.masks import boxes_around, mask_overlaps
from grounded_sam2.prompts import TextPrompt, parse_prompt
from grounded_sam2.score import compare, video_of
from grounded_sam2.track.continuous import ContinuousTracker
from grounded_sam2.track.looks import COLOURS, Descriptor, make_descriptor
from sam2.build_sam import build_sam2_video_predictor
from sam2.memory_policies import PolicyName
from sam2.sam2_video_predictor import SAM2VideoPredictor
from training.photos import load_photos
from training.real_scenes import RealScenes
from training.scenes import Props, Scene, make_clip

REPOSITORY = Path(__file__).resolve().parents[1]
KINDS = ("crossing", "twins", "occlusion", "reentry", "mixed", "cut", "zoom")
FIRST_SEED = 9_000
SIZE = (192, 256)  # (height, width) in pixels
LARGEST_ZOOM = 3.0  # of a "zoom" clip, half-way through it
TAKEN_OVER_IOU = 0.8  # of the plain rule
SAME_IOU = 0.5  # of a track and an object that it is counted as following


def make_scenes(kind: str, seed: int, num_frames: int, props: Props | None = None) -> list[Scene]:
    """One held-out clip; "cut" is two clips one after the other, whose objects have nothing in common, and in "zoom"
    the camera draws near and away again.

    Args:
        props: what moves over what; None: drawings over drawn backgrounds.
    """
    if kind == "zoom":
        size = round(SIZE[0] * LARGEST_ZOOM), round(SIZE[1] * LARGEST_ZOOM)
        clip = make_clip(seed, num_frames, size, "heldout", kind="drift", props=props)
        nearness = np.sin(np.linspace(0, np.pi, num_frames)) ** 2
        return [zoom_in(scene, LARGEST_ZOOM**near) for scene, near in zip(clip, nearness, strict=True)]
    if kind != "cut":
        return list(make_clip(seed, num_frames, SIZE, "heldout", kind=kind, props=props))
    first = list(make_clip(seed, num_frames // 2, SIZE, "heldout", kind="drift", props=props))
    second = list(make_clip(seed + 500_000, num_frames - num_frames // 2, SIZE, "heldout", kind="mixed", props=props))
    return first + [Scene(s.image, s.masks, s.boxes_xyxy, s.phrases, s.ids + 1000) for s in second]


def zoom_in(scene: Scene, zoom: float) -> Scene:
    """The middle of a scene, 1 / `zoom` of its height and width, at `SIZE`."""
    height, width = scene.image.shape[:2]
    rows, columns = (
        slice(round((side - side / zoom) / 2), round((side + side / zoom) / 2)) for side in (height, width)
    )
    image = cv2.resize(scene.image[rows, columns], SIZE[::-1], interpolation=cv2.INTER_AREA)
    masks = np.zeros((len(scene.ids), *SIZE), bool)
    boxes = np.zeros((len(scene.ids), 4), np.float32)
    for row, mask in enumerate(scene.masks):
        cover = cv2.resize(mask[rows, columns].astype(np.float32), SIZE[::-1], interpolation=cv2.INTER_AREA)
        masks[row] = cover >= 0.5
    seen = masks.any((1, 2))
    if seen.any():
        boxes[seen] = boxes_around(masks[seen])
    return Scene(image, masks, boxes, scene.phrases, scene.ids)


class TrueBoxes:
    """A detector that knows the boxes of the clip, but misses each with some chance."""

    def __init__(self, scenes: list[Scene], missed: float, seed: int) -> None:
        rng = np.random.default_rng([seed, round(100 * missed)])
        self.missed = [rng.random(len(scene.ids)) < missed for scene in scenes]
        self.scenes = scenes
        self.frame_idx = 0

    def detect(
        self,
        images: np.ndarray | Sequence[np.ndarray],
        text_prompt: TextPrompt,
        **options: Any,
    ) -> list[sv.Detections]:
        scene, phrases = self.scenes[self.frame_idx], parse_prompt(text_prompt)
        visible = scene.masks.sum((1, 2)) >= 24
        rows = np.flatnonzero(visible & ~self.missed[self.frame_idx])
        class_id = np.array([phrases.index(scene.phrases[row]) for row in rows], dtype=np.int64)
        size = (scene.image.shape[1], scene.image.shape[0])
        return [make_detections(scene.boxes_xyxy[rows], np.full(len(rows), 0.9), class_id, phrases, size)]


def track_ours(
    predictor: SAM2VideoPredictor,
    detector: Detector,
    scenes: list[Scene],
    phrases: list[str],
    every: int,
    descriptor: Descriptor | None = COLOURS,
) -> Iterator[Tracked]:
    tracker = ContinuousTracker(detector, predictor, phrases, detect_every=every, descriptor=descriptor)
    for frame_idx, scene in enumerate(scenes):
        if isinstance(detector, TrueBoxes):
            detector.frame_idx = frame_idx
        objects = tracker.step(scene.image)
        yield np.asarray(objects.tracker_id), np.asarray(objects.mask)


def track_plainly(
    predictor: SAM2VideoPredictor, detector: Detector, scenes: list[Scene], phrases: list[str], every: int
) -> Iterator[Tracked]:
    state, next_id = predictor.init_stream(), 1
    ids, masks = np.zeros(0, np.int64), np.zeros((0, *SIZE), bool)
    for frame_idx, scene in enumerate(scenes):
        if isinstance(detector, TrueBoxes):
            detector.frame_idx = frame_idx
        if frame_idx % every == 0:
            state = predictor.init_stream()
            stream_idx = predictor.append_frame(state, scene.image)
            [detections] = detector.detect(scene.image, phrases)
            logits, _, _ = predictor.segment_boxes(state, stream_idx, detections.xyxy)
            found = (logits[:, 0] > 0).cpu().numpy()
            overlap = mask_overlaps(list(found), list(masks))[0]
            former, taken = ids.tolist(), set[int]()
            for row, mask in enumerate(found):
                heirs = [
                    former[column] for column in np.argsort(-overlap[row]) if overlap[row, column] > TAKEN_OVER_IOU
                ]
                obj_id = next((heir for heir in heirs if heir not in taken), next_id)
                next_id += obj_id == next_id
                taken.add(obj_id)
                predictor.add_new_mask(state, stream_idx, obj_id, mask)
        else:
            predictor.append_frame(state, scene.image)
        followed, logits = predictor.step(state)
        masks = (logits[:, 0] > 0).cpu().numpy()
        seen = np.flatnonzero(masks.any((1, 2)))
        ids, masks = np.array(followed, np.int64)[seen], masks[seen]
        yield ids, masks


def track_as(
    name: str,
    predictor: SAM2VideoPredictor,
    detector: Detector,
    scenes: list[Scene],
    phrases: list[str],
    every: int,
) -> Iterator[Tracked]:
    """As a tracker of others does it, see `identity_peers`."""

    def looks() -> Iterator[sv.Detections]:
        for frame_idx, scene in enumerate(scenes):
            if isinstance(detector, TrueBoxes):
                detector.frame_idx = frame_idx
            yield detector.detect(scene.image, phrases)[0] if frame_idx % every == 0 else sv.Detections.empty()

    return track_boxes(name, predictor, [scene.image for scene in scenes], looks())


@dataclass
class IdentityScores:
    """Figures of one clip; sums over clips add up, means are taken over clips."""

    hota: float
    idf1: float
    switches: int
    fragments: int
    followed: int  # objects on frames, summed over frames, that a track covers
    present: int  # objects on frames in all
    jf: float
    returns_kept: int
    returns: int
    milliseconds: float  # of processor time, per frame


def score(scenes: list[Scene], frames: Iterator[Tracked]) -> IdentityScores:
    """Compare what is tracked with the truth; objects count on the frames where they can be seen."""
    start = time.process_time()
    tracked = list(frames)
    seconds = time.process_time() - start
    truth = video_of((scene.ids, scene.masks) for scene in scenes)
    scores: dict[str, Any] = compare(truth, video_of(tracked))[""].scores()
    kept, returns = returning_ids(scenes, tracked)
    return IdentityScores(
        hota=scores["HOTA"],
        idf1=scores["IDF1"],
        switches=scores["IDSW"],
        fragments=scores["Frag"],
        followed=scores["matches"],
        present=scores["matches"] + scores["missed"],
        jf=scores["J&F"],
        returns_kept=kept,
        returns=returns,
        milliseconds=1000 * seconds / len(scenes),
    )


def returning_ids(scenes: list[Scene], tracked: list[Tracked], least_gap: int = 5) -> tuple[int, int]:
    """How many absences of at least `least_gap` frames end with the id that the object had before, and all of them.

    An absence parts an object's frames into a stretch before and one after it. The id of a stretch is the one that
    follows the object on most of its frames; stretches in which nothing follows it do not count.
    """
    kept = returns = 0
    for obj_id in sorted({int(obj_id) for scene in scenes for obj_id in scene.ids}):
        stretches, gap = [Counter[int]()], 0
        for scene, (ids, masks) in zip(scenes, tracked, strict=True):
            row = np.flatnonzero(scene.ids == obj_id)
            if not len(row) or not scene.masks[row[0]].any():
                gap += 1
                continue
            if gap >= least_gap:
                stretches.append(Counter())
            gap = 0
            overlap = mask_overlaps([scene.masks[row[0]]], list(masks))[0][0]
            if len(overlap) and overlap.max() >= SAME_IOU:
                stretches[-1][int(ids[overlap.argmax()])] += 1
        followers = [stretch.most_common(1)[0][0] for stretch in stretches if stretch]
        returns += max(0, len(followers) - 1)
        kept += sum(before == after for before, after in pairwise(followers))
    return kept, returns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-clips", type=int, default=4, help="per kind")
    parser.add_argument("--num-frames", type=int, default=120)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--missed", type=float, nargs="+", default=[0.0, 0.25, 0.5], help="chances of a missed box")
    parser.add_argument("--every", type=int, default=20, help="frames from one look of the detector to the next")
    parser.add_argument("--detector", help="folder of a detector to use instead of true boxes")
    parser.add_argument("--segmenter", default="checkpoints/sam2.1_nano.pt")
    parser.add_argument("--real", type=Path, help="folder (or pack) of photographs, whose test split is cut out")
    parser.add_argument(
        "--memory-policy", default="default", choices=get_args(PolicyName), help="of SAM 2, for our methods"
    )
    parser.add_argument("--peers", action="store_true", help="BoT-SORT and McByte too")
    parser.add_argument(
        "--three-masks", action="store_true", help="have SAM 2 offer three masks on each frame, as published models do"
    )
    parser.add_argument("--looks", default="colours", help="see LOOKS of the scripts, for ours alone; none: off")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    predictor = build_sam2_video_predictor(
        None,
        str(REPOSITORY / options.segmenter),
        device="cuda" if torch.cuda.is_available() else "cpu",
        hydra_overrides_extra=["++model.multimask_output_for_tracking=true"] if options.three_masks else [],
        memory_policy=options.memory_policy,
    )
    real = HuggingFaceDetector(str(REPOSITORY / options.detector)) if options.detector else None
    props = None
    if options.real is not None:
        props = RealScenes([photo for photo in load_photos(options.real) if photo.split == "test"], [])
    looks = None if options.looks == "none" else options.looks
    descriptor = make_descriptor(looks, REPOSITORY / options.segmenter, str(predictor.device))
    methods: dict[str, Any] = {"ours": partial(track_ours, descriptor=descriptor), "plain": track_plainly}
    if options.peers:
        methods |= {name: partial(track_as, name) for name in ("botsort", "mcbyte")}
    print(f"{options.num_clips} clips of {options.num_frames} frames per kind, a look every {options.every} frames")
    print(
        f"{'missed':>7} {'kind':9} {'method':7} {'HOTA':>6} {'IDF1':>6} {'IDSW':>5} {'frag':>5} {'followed':>8} "
        f"{'/1000':>6} {'J&F':>6} {'ms':>5} returns kept"
    )
    for missed in [0.0] if real else options.missed:
        every_kind: dict[str, list[IdentityScores]] = {name: [] for name in methods}
        for kind in options.kinds:
            of_kind: dict[str, list[IdentityScores]] = {name: [] for name in methods}
            for seed in range(FIRST_SEED, FIRST_SEED + options.num_clips):
                scenes = make_scenes(kind, seed, options.num_frames, props)
                phrases = list(dict.fromkeys(phrase for scene in scenes for phrase in scene.phrases))
                for name, method in methods.items():
                    detector = real or TrueBoxes(scenes, missed, seed)
                    of_kind[name].append(score(scenes, method(predictor, detector, scenes, phrases, options.every)))
            for name, scores in of_kind.items():
                print_line(missed, kind, name, scores)
                every_kind[name] += scores
        for name, scores in every_kind.items():
            print_line(missed, "all", name, scores)


def print_line(missed: float, kind: str, method: str, scores: list[IdentityScores]) -> None:
    """Means of the measures and sums of the counts."""
    means = ("hota", "idf1", "jf", "milliseconds")
    hota, idf1, jf, milliseconds = (np.mean([getattr(each, name) for each in scores]) for name in means)
    names = ("switches", "fragments", "followed", "present", "returns_kept", "returns")
    switches, fragments, followed, present, kept, returns = (
        sum(getattr(each, name) for each in scores) for name in names
    )
    rate = 1000 * (switches + fragments) / max(followed, 1)
    print(
        f"{missed:7.0%} {kind:9} {method:7} {hota:6.3f} {idf1:6.3f} {switches:5d} {fragments:5d} "
        f"{followed / present:8.1%} {rate:6.1f} {jf:6.3f} {milliseconds:5.0f} {kept}/{returns}",
        flush=True,
    )


if __name__ == "__main__":
    main()
