"""Score how objects of one phrase keep their ids while they leave and come back, by what tells their looks apart.

    python benchmarks/looks.py                                # drawn clips
    python benchmarks/looks.py --real ../shared/real          # and cut-outs of photographs, and real clips spliced
    python benchmarks/looks.py --real ../shared/real --split choose        # on what thresholds are chosen on
    python benchmarks/looks.py --real ../shared/real --cosines             # how alike sightings are, nothing tracked

A "visits" clip: four objects of one phrase, each with its own looks, cross the frame one after another and at once, in
another size, direction and light on each visit. A "spliced" clip: stretches of real clips, four objects, each twice, as
far apart in its clip as can be, all called "thing". All methods get the same boxes and the same SAM 2.

"Kept" counts the visits of known objects whose id is the one that the object had before, "taken" the visits whose id
was another object's before. Other measures are those of `identity.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import torch

from benchmarks.identity import SAME_IOU, Tracked, TrueBoxes, score
from grounded_sam2.masks import mask_overlaps
from grounded_sam2.track.continuous import ContinuousTracker
from grounded_sam2.track.looks import Descriptor, make_descriptor
from grounded_sam2.track.object_track import unit
from grounded_sam2.track.rules import IdentityRules
from grounded_sam2.track.sam2_follower import Sam2Follower
from sam2.build_sam import build_sam2_video_predictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from training.photos import Clip, load_clips, load_photos
from training.real_scenes import RealScenes, fitted
from training.scenes import TRAIN_STYLES, Props, Scene, _Drawn, as_scene, camera_look, photograph

REPOSITORY = Path(__file__).resolve().parents[1]
SIZE = (192, 256)  # (height, width) in pixels
NUM_OBJECTS = 4
VISIT = (30, 60)  # fewest and most frames of one visit
ABSENCE = (20, 110)  # and from one visit to the next
NOUNS = ("person", "dog", "cat", "cow", "horse")  # of which there are enough cut-outs


def make_visits(seed: int, num_frames: int, props: Props, phrase: str) -> list[Scene]:
    """A clip in which objects of one phrase, each with its own looks, cross the frame, leave it, and come back.

    On each visit an object has another size, goes the other way or the same, and stands in other light.
    """
    rng = np.random.default_rng([77, seed])
    height, width = SIZE
    canvas = props.background(rng, SIZE).astype(np.float32)
    look = camera_look(rng)
    drawings = [props.drawing(rng, phrase, 0.5 * height) for _ in range(NUM_OBJECTS)]
    visits = [_visits(rng, num_frames) for _ in drawings]
    scenes = []
    for frame_idx in range(num_frames):
        image, masks = canvas.copy(), np.zeros((NUM_OBJECTS, height, width), bool)
        for row, drawing in enumerate(drawings):
            visit = next((visit for visit in visits[row] if visit["start"] <= frame_idx < visit["end"]), None)
            if visit is None:
                continue
            drawn = _place(drawing, visit, frame_idx)
            opacity = drawn[..., 3:] / 255
            image = image * (1 - opacity) + drawn[..., :3] * visit["light"]
            masks[:row] &= opacity[..., 0] <= 0.5
            masks[row] = opacity[..., 0] > 0.5
        scenes.append(as_scene(photograph(image, look, rng), masks, [phrase] * NUM_OBJECTS))
    return scenes


def _visits(rng: np.random.Generator, num_frames: int) -> list[dict]:
    """When an object is there, and how it crosses the frame then."""
    visits, start = [], int(rng.integers(0, 60))
    while start < num_frames - 10:
        end = start + int(rng.integers(*VISIT))
        visits.append(
            {
                "start": start,
                "end": end,
                "forwards": rng.random() < 0.5,
                "height": float(rng.uniform(0.3, 0.7)),
                "scale": float(rng.uniform(0.6, 1.0)),
                "flip": rng.random() < 0.5,
                "light": rng.uniform(0.75, 1.1) * rng.uniform(0.95, 1.05, 3),
            }
        )
        start = end + int(rng.integers(*ABSENCE))
    return visits


def _place(drawing: np.ndarray, visit: dict, frame_idx: int) -> np.ndarray:
    """(H, W, 4) float32, a drawing where it is on a frame."""
    height, width = SIZE
    done = (frame_idx - visit["start"]) / (visit["end"] - visit["start"])
    done = done if visit["forwards"] else 1 - done
    half = drawing.shape[1] * visit["scale"] / 2
    x, y = -half + done * (width + 2 * half), height * (visit["height"] + 0.05 * np.sin(9 * done))
    sign = -1 if visit["flip"] else 1
    linear = np.array([[sign * visit["scale"], 0], [0, visit["scale"]]])
    offset = np.array([x, y]) - linear @ ((np.array(drawing.shape[1::-1]) - 1) / 2)
    return cv2.warpAffine(drawing.astype(np.float32), np.column_stack([linear, offset]), (width, height))


def make_spliced(seed: int, clips: list[Clip], stretch: int = 15) -> list[Scene]:
    """Stretches of the starts of four clips, then of their ends in another order; one object each."""
    rng = np.random.default_rng([78, seed])
    chosen = [clips[index] for index in rng.permutation(len(clips))[:NUM_OBJECTS]]
    scenes = []
    for is_late in (False, True):
        for row in rng.permutation(len(chosen)):
            clip = chosen[row]
            first = len(clip) - stretch if is_late else 0
            for frame_idx in range(first, first + stretch):
                masks = np.zeros((NUM_OBJECTS, *SIZE), bool)
                masks[row] = fitted(clip.mask(frame_idx).astype(np.uint8), SIZE, False)
                scenes.append(as_scene(fitted(clip.frame(frame_idx), SIZE, False), masks, ["thing"] * NUM_OBJECTS))
    return scenes


def track(
    predictor: SAM2VideoPredictor,
    descriptor: Descriptor | None,
    scenes: list[Scene],
    missed: float,
    seed: int,
    options: argparse.Namespace,
) -> Iterator[Tracked]:
    detector = TrueBoxes(scenes, missed, seed)
    rules = IdentityRules(similarity_threshold=options.threshold, similarity_margin=options.margin)
    tracker = ContinuousTracker(
        detector, predictor, scenes[0].phrases[:1], detect_every=options.every, rules=rules, descriptor=descriptor
    )
    for frame_idx, scene in enumerate(scenes):
        detector.frame_idx = frame_idx
        objects = tracker.step(scene.image)
        yield np.asarray(objects.tracker_id), np.asarray(objects.mask)


def visit_ids(scenes: list[Scene], tracked: Iterable[Tracked], least_gap: int = 5) -> list[tuple[int, int]]:
    """Object and id of each visit, in the order of their starts; visits that nothing follows are left out."""
    visits: list[tuple[int, Counter[int]]] = []
    newest: dict[int, tuple[int, int]] = {}  # object → its last frame, and its visit
    for frame_idx, (scene, (ids, masks)) in enumerate(zip(scenes, tracked, strict=True)):
        for obj_id, mask in zip(scene.ids.tolist(), scene.masks, strict=True):
            if not mask.any():
                continue
            last, visit = newest.get(obj_id, (-1000, -1))
            if frame_idx - last > least_gap:
                visit = len(visits)
                visits.append((obj_id, Counter()))
            newest[obj_id] = frame_idx, visit
            overlap = mask_overlaps([mask], list(masks))[0][0]
            if len(overlap) and overlap.max() >= SAME_IOU:
                visits[visit][1][int(ids[overlap.argmax()])] += 1
    return [(obj_id, ids.most_common(1)[0][0]) for obj_id, ids in visits if ids]


def kept_and_taken(visits: list[tuple[int, int]]) -> tuple[int, int, int, int]:
    """Visits that keep an id, of how many of objects that had one; visits that take another's, of how many in all."""
    owners: dict[int, int] = {}
    known: set[int] = set()
    kept = returns = taken = 0
    for obj_id, follower in visits:
        returns += obj_id in known
        kept += obj_id in known and owners.get(follower) == obj_id
        taken += owners.setdefault(follower, obj_id) != obj_id
        known.add(obj_id)
    return kept, returns, taken, len(visits)


def print_cosines(
    kind: str,
    clips: Iterable[list[Scene]],
    predictor: SAM2VideoPredictor,
    methods: dict[str, Descriptor | None],
    options: argparse.Namespace,
) -> None:
    """How alike two sightings are, at least two looks of the detector apart, of one object and of two of a clip."""
    same: dict[str, list[float]] = {name: [] for name in methods}
    other: dict[str, list[float]] = {name: [] for name in methods}
    for scenes in clips:
        stream = Sam2Follower(predictor).open_stream()
        frames, owners = [], []
        looks: dict[str, list[np.ndarray]] = {name: [] for name in methods}
        for scene in scenes[:: options.every]:
            frame_idx = stream.append(scene.image)
            rows = np.flatnonzero(scene.masks.sum((1, 2)) >= 150)
            proposed = stream.propose(frame_idx, scene.boxes_xyxy[rows])
            seen = np.flatnonzero(proposed.masks.any((1, 2)))
            frames += [frame_idx] * len(seen)
            owners += rows[seen].tolist()
            for name, descriptor in methods.items():
                if descriptor is not None and len(seen):
                    looks[name] += list(unit(np.asarray(descriptor.describe(scene.image, proposed.only(seen)))))
        pairs = np.triu(np.abs(np.subtract.outer(frames, frames)) >= 2)
        is_same = np.equal.outer(owners, owners)
        for name, found in looks.items():
            if found:
                cosines = np.stack(found) @ np.stack(found).T
                same[name] += cosines[pairs & is_same].tolist()
                other[name] += cosines[pairs & ~is_same].tolist()
    for name in methods:
        if same[name] and other[name]:
            ranks = np.searchsorted(np.sort(other[name]), same[name]) / len(other[name])
            print(
                f"{kind:9} {name:9} one object {np.percentile(same[name], [5, 50, 95]).round(2)}, "
                f"two {np.percentile(other[name], [5, 50, 95]).round(2)}, one more alike than two {ranks.mean():.3f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-clips", type=int, default=8, help="per kind")
    parser.add_argument("--num-frames", type=int, default=300, help="of drawn and composed clips")
    parser.add_argument("--every", type=int, default=10, help="frames from one look of the detector to the next")
    parser.add_argument("--missed", type=float, nargs="+", default=[0.0, 0.25], help="chances of a missed box")
    parser.add_argument("--looks", nargs="+", default=["none", "pointers", "colours"], help="see LOOKS of the scripts")
    parser.add_argument("--threshold", type=float, help="instead of the descriptor's")
    parser.add_argument("--margin", type=float, help="instead of the descriptor's")
    parser.add_argument("--segmenter", default="checkpoints/sam2.1_nano.pt")
    parser.add_argument("--real", type=Path, help="folder (or pack) of photographs and clips")
    parser.add_argument("--split", default="test", choices=("choose", "test"))
    parser.add_argument("--kinds", nargs="+", default=["drawn", "visits", "spliced"])
    parser.add_argument("--cosines", action="store_true", help="only compare sightings, 5th, 50th, 95th percentile")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    predictor = build_sam2_video_predictor(None, str(REPOSITORY / options.segmenter), device="cpu")
    checkpoint = REPOSITORY / options.segmenter
    methods = {name: make_descriptor(None if name == "none" else name, checkpoint) for name in options.looks}
    if options.cosines:
        for kind in options.kinds:
            print_cosines(kind, make_clips(kind, options), predictor, methods, options)
        return
    print(
        f"{'missed':>7} {'kind':9} {'looks':9} {'HOTA':>6} {'IDF1':>6} {'IDSW':>5} {'frag':>5} {'J&F':>6}  kept taken"
    )
    for missed in options.missed:
        for kind in options.kinds:
            found: dict[str, list] = {name: [] for name in options.looks}
            for seed, scenes in enumerate(make_clips(kind, options)):
                for name in options.looks:
                    tracked = list(track(predictor, methods[name], scenes, missed, seed, options))
                    found[name].append((score(scenes, tracked), kept_and_taken(visit_ids(scenes, tracked))))
            for name, clips in found.items():
                hota, idf1, jf = (np.mean([getattr(each, key) for each, _ in clips]) for key in ("hota", "idf1", "jf"))
                switches, fragments = (
                    sum(getattr(each, key) for each, _ in clips) for key in ("switches", "fragments")
                )
                kept, returns, taken, visits = np.sum([counts for _, counts in clips], axis=0) if clips else [0] * 4
                print(
                    f"{missed:7.0%} {kind:9} {name:9} {hota:6.3f} {idf1:6.3f} {switches:5d} {fragments:5d} {jf:6.3f}  "
                    f"{kept}/{returns}  {taken}/{visits}",
                    flush=True,
                )


def make_clips(kind: str, options: argparse.Namespace) -> Iterator[list[Scene]]:
    """The clips of a kind: those of the split "choose" have nothing in common with those of "test"."""
    first_seed = 0 if options.split == "choose" else 5_000
    if kind == "drawn":
        drawn = _Drawn("train" if options.split == "choose" else "heldout", TRAIN_STYLES)
        phrases = [drawn.phrases[index] for index in np.random.default_rng(first_seed).permutation(len(drawn.phrases))]
        for seed in range(options.num_clips):
            yield make_visits(first_seed + seed, options.num_frames, drawn, phrases[seed])
    elif options.real is not None and kind == "visits":
        photos = [photo for photo in load_photos(options.real) if photo.split == options.split]
        props = RealScenes(photos, [])
        for seed in range(options.num_clips):
            yield make_visits(first_seed + seed, options.num_frames, props, NOUNS[seed % len(NOUNS)])
    elif options.real is not None:
        clips = load_clips(options.real, "train" if options.split == "choose" else "val")
        for seed in range(options.num_clips):
            yield make_spliced(first_seed + seed, clips)


if __name__ == "__main__":
    main()
