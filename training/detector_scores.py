"""How well a detector finds what a prompt names in procedural scenes and in photographs, and how rarely what is absent.

Seeds below `FIRST_TEST_SEED` of the held-out split are for choices (thresholds, resolution); reported figures use
those from it on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import supervision as sv

from grounded_sam2.detectors.base import Detector
from training.detector_names import UNSEEN_PHRASES
from training.detector_prompts import absent_phrases
from training.photos import Photo
from training.scenes import NOUNS, TRAIN_STYLES, Scene, make_scene

FIRST_TEST_SEED = 500_000
SCORED_SIZES = ((240, 240), (240, 426))  # (height, width) in pixels: square, and the shape of most footage
MATCH_IOU = 0.5
LEAST_CONFIDENCE = 0.05  # of the boxes that average precision ranks
MOST_FALSE = 0.06  # boxes per absent phrase on photographs, where a threshold with fewer exists

Detect = Callable[[np.ndarray, str], sv.Detections]


@dataclass(frozen=True)
class ScoredImage:
    """One scene, the phrases it was asked for, and what was found."""

    scene: Scene
    phrases: list[str]
    detections: sv.Detections


@dataclass(frozen=True)
class DetectionScores:
    """Figures over a set of scenes; a box is right when it has an IoU of at least 0.5 with an object of its phrase.

    Attributes:
        ap50: area under the interpolated precision-recall curve, averaged over nouns; needs no threshold.
        recall: share of the named objects that are found, at the threshold.
        precision: share of the boxes that are right, at the threshold.
        false_per_absent_phrase: boxes labelled with a phrase that the scene does not show, per such phrase.
        num_objects: named objects in the scenes.
    """

    ap50: float
    recall: float
    precision: float
    false_per_absent_phrase: float
    num_objects: int

    def __str__(self) -> str:
        return (
            f"AP50 {self.ap50:.3f}  recall {self.recall:.3f}  precision {self.precision:.3f}  "
            f"false boxes per absent phrase {self.false_per_absent_phrase:.4f}  ({self.num_objects} objects)"
        )


def low_threshold_detect(detector: Detector) -> Detect:
    """A function that detects in one image and keeps boxes far below the shipped threshold, which the AP ranks."""

    def detect(image: np.ndarray, text_prompt: str) -> sv.Detections:
        threshold = {"box_threshold": LEAST_CONFIDENCE, "text_threshold": LEAST_CONFIDENCE}
        return detector.detect(image, text_prompt, **threshold)[0]

    return detect


def scoring_prompt(seed: int, scene: Scene) -> list[str]:
    """Every noun the scene shows, as many that it does not, and three phrases that no scene shows; in random order."""
    rng = np.random.default_rng([11, seed])
    shown = list(dict.fromkeys(scene.phrases))
    others = [noun for noun in NOUNS if noun not in shown]
    absent = [str(noun) for noun in rng.choice(others, max(3, len(shown)), replace=False)]
    absent += [str(phrase) for phrase in rng.choice(absent_phrases(), 3, replace=False)]
    return [str(phrase) for phrase in rng.permutation([*shown, *absent])]


def detect_scenes(detect: Detect, seeds: Iterable[int], styles: Sequence[str] = TRAIN_STYLES) -> list[ScoredImage]:
    """Run a detector over held-out scenes; `detect` takes an (H, W, 3) uint8 RGB image and a prompt."""
    scored = []
    for seed in seeds:
        scene = make_scene(seed, size=SCORED_SIZES[seed % len(SCORED_SIZES)], split="heldout", styles=styles)
        phrases = scoring_prompt(seed, scene)
        scored.append(ScoredImage(scene, phrases, detect(scene.image, ". ".join(phrases) + ".")))
    return scored


def score(images: Sequence[ScoredImage], box_threshold: float) -> DetectionScores:
    """Count matches; within a phrase the most confident box takes the best free object."""
    confidences: dict[str, list[np.ndarray]] = {noun: [] for noun in NOUNS}
    rights: dict[str, list[np.ndarray]] = {noun: [] for noun in NOUNS}
    totals = dict.fromkeys(NOUNS, 0)
    num_kept = num_right = num_false = num_absent = 0
    for image in images:
        class_id = np.zeros(0, int) if image.detections.class_id is None else image.detections.class_id
        for index, phrase in enumerate(image.phrases):
            found = image.detections[class_id == index]
            confidence = np.zeros(0) if found.confidence is None else found.confidence
            kept = confidence >= box_threshold
            num_kept += int(kept.sum())
            named = np.array([name == phrase for name in image.scene.phrases], bool)
            if not named.any():
                num_absent += 1
                num_false += int(kept.sum())
            right = match_boxes(found.xyxy, confidence, image.scene.boxes_xyxy[named])
            num_right += int((right & kept).sum())
            if phrase in totals:
                totals[phrase] += int(named.sum())
                confidences[phrase].append(confidence)
                rights[phrase].append(right)
    precisions = [
        average_precision(np.concatenate(confidences[noun]), np.concatenate(rights[noun]), total)
        for noun, total in totals.items()
        if total
    ]
    num_objects = sum(totals.values())
    return DetectionScores(
        ap50=float(np.mean(precisions)),
        recall=num_right / max(num_objects, 1),
        precision=num_right / max(num_kept, 1),
        false_per_absent_phrase=num_false / max(num_absent, 1),
        num_objects=num_objects,
    )


def match_boxes(xyxy: np.ndarray, confidence: np.ndarray, true_xyxy: np.ndarray) -> np.ndarray:
    """(N,) bool: which boxes are right, each true box once, the most confident box first."""
    right = np.zeros(len(xyxy), bool)
    if not len(xyxy) or not len(true_xyxy):
        return right
    overlap = sv.box_iou_batch(np.asarray(true_xyxy), np.asarray(xyxy)).T  # (N, M)
    for index in np.argsort(-confidence, kind="stable"):
        best = int(overlap[index].argmax())
        if overlap[index, best] >= MATCH_IOU:
            right[index] = True
            overlap[:, best] = -1.0
    return right


def average_precision(confidence: np.ndarray, right: np.ndarray, num_objects: int) -> float:
    """Area under the precision-recall curve, precision made non-increasing from the right."""
    order = np.argsort(-confidence, kind="stable")
    hits = np.cumsum(right[order])
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((envelope * right[order]).sum() / num_objects)


# ---- photographs ----


@dataclass(frozen=True)
class NameScores:
    """Figures of one name over photographs; see `PhotoScores`."""

    name: str
    ap50: float
    recall: float
    precision: float
    num_objects: int


@dataclass(frozen=True)
class PhotoScores:
    """How well named things are found in photographs, and how rarely what is not there.

    A box is right when it has an IoU of at least 0.5 with an object of its phrase. A name is only looked for where its
    labels are complete: in photographs whose vocabulary has it, or that have it among their labels.

    Attributes:
        by_name: the figures of each name.
        false_per_absent_phrase: boxes at the threshold labelled with a phrase that the photograph surely does not
            show, per such phrase: three names of its complete vocabulary, and two things nothing was trained on.
        false_per_absent_name: the same over the names only.
        num_photos: photographs looked at.
        box_threshold: that recall, precision and false boxes are counted at.
    """

    by_name: list[NameScores]
    false_per_absent_phrase: float
    false_per_absent_name: float
    num_photos: int
    box_threshold: float

    @property
    def ap50(self) -> float:
        """Mean over the names of the area under the precision-recall curve; needs no threshold."""
        return float(np.mean([scores.ap50 for scores in self.by_name])) if self.by_name else 0.0

    @property
    def recall(self) -> float:
        """Mean over the names of the share of objects found at the threshold."""
        return float(np.mean([scores.recall for scores in self.by_name])) if self.by_name else 0.0

    @property
    def precision(self) -> float:
        """Mean over the names of the share of boxes that are right at the threshold."""
        return float(np.mean([scores.precision for scores in self.by_name])) if self.by_name else 0.0

    @property
    def f1(self) -> float:
        """Mean over the names of the harmonic mean of recall and precision at the threshold."""
        pairs = [(scores.recall, scores.precision) for scores in self.by_name]
        return float(np.mean([2 * r * p / max(r + p, 1e-9) for r, p in pairs])) if pairs else 0.0

    def __str__(self) -> str:
        lines = [
            f"AP50 {self.ap50:.3f}  recall {self.recall:.3f}  precision {self.precision:.3f}  false boxes per absent "
            f"phrase {self.false_per_absent_phrase:.4f} (names {self.false_per_absent_name:.4f})  "
            f"({self.num_photos} photographs, box threshold {self.box_threshold})"
        ]
        lines += [
            f"  {scores.name:14s} AP50 {scores.ap50:.3f}  recall {scores.recall:.3f}  precision {scores.precision:.3f}"
            f"  ({scores.num_objects} objects)"
            for scores in self.by_name
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class ScoredPhoto:
    """One photograph, what was asked, and what was found.

    Attributes:
        photo: the photograph.
        phrases: the prompt; the first ones are names whose labels are complete, `absent` of them are not shown.
        absent: the phrases that the photograph surely does not show and that the false boxes are counted over.
        detections: boxes far below the threshold, too.
    """

    photo: Photo
    phrases: list[str]
    absent: list[str]
    detections: sv.Detections


def photo_prompt(photo: Photo, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The phrases a photograph is asked for, and those of them that count as absent; by its name, always the same.

    The prompt holds the names of `names` that are labelled or belong to the photograph's vocabulary, three other names
    of the vocabulary that it does not show, and two things that nothing was trained on; in random order.
    """
    rng = np.random.default_rng(np.frombuffer(photo.name.encode(), np.uint8))
    asked = [name for name in names if name in photo.names or name in photo.vocabulary]
    missing = sorted(photo.vocabulary - set(photo.names) - set(asked))
    absent = [str(name) for name in rng.choice(missing, min(3, len(missing)), replace=False)] if missing else []
    absent += [str(phrase) for phrase in rng.choice(UNSEEN_PHRASES, 2, replace=False)]
    absent += [name for name in asked if name not in photo.names]
    phrases = [str(phrase) for phrase in rng.permutation([*dict.fromkeys([*asked, *absent])])]
    return phrases, absent


def detect_photos(detect: Detect, photos: Iterable[Photo], names: Sequence[str]) -> list[ScoredPhoto]:
    """Run a detector over photographs; `detect` takes an (H, W, 3) uint8 RGB image and a prompt."""
    scored = []
    for photo in photos:
        phrases, absent = photo_prompt(photo, names)
        scored.append(ScoredPhoto(photo, phrases, absent, detect(photo.image, ". ".join(phrases) + ".")))
    return scored


def score_photos(scored: Sequence[ScoredPhoto], names: Sequence[str], box_threshold: float) -> PhotoScores:
    """Count matches in what `detect_photos` found; boxes inside a crowd of their phrase are neither right nor wrong."""
    by_name = [_score_name(scored, name, box_threshold) for name in names]
    num_absent, num_false = dict.fromkeys((True, False), 0), dict.fromkeys((True, False), 0)
    for one in scored:
        for phrase in one.absent:
            is_name = phrase in one.photo.vocabulary
            num_absent[is_name] += 1
            num_false[is_name] += int((_confidence(_of_phrase(one, phrase)) >= box_threshold).sum())
    return PhotoScores(
        by_name=[scores for scores in by_name if scores.num_objects],
        false_per_absent_phrase=sum(num_false.values()) / max(sum(num_absent.values()), 1),
        false_per_absent_name=num_false[True] / max(num_absent[True], 1),
        num_photos=len(scored),
        box_threshold=box_threshold,
    )


def photo_scores(
    detector: Detector, photos: Sequence[Photo], names: Sequence[str], box_threshold: float
) -> PhotoScores:
    """Look for names in photographs and score what is found.

    Args:
        detector: any detector.
        photos: photographs that the detector was not trained on: `[p for p in load_photos(path) if p.split == "test"]`.
        names: what is looked for: `frequent_names(load_photos(path), 12)`.
        box_threshold: the shipped one; AP50 needs none.
    """
    return score_photos(detect_photos(low_threshold_detect(detector), photos, names), names, box_threshold)


def best_threshold(
    images: Sequence[ScoredImage], photos: Sequence[ScoredPhoto] = (), names: Sequence[str] = ()
) -> float:
    """The box threshold to ship, from images that are neither trained on nor reported.

    Photographs come first: the one with the best mean of recall and precision (F1, over the names) among those with few
    enough false boxes, or the highest if all have too many. Without photographs, the one at which the lower one of
    recall and precision on drawn scenes is best.
    """
    candidates = np.arange(LEAST_CONFIDENCE, 0.96, 0.01)
    if not photos:
        drawn = [score(images, threshold) for threshold in candidates]
        return float(candidates[np.argmax([min(scores.recall, scores.precision) for scores in drawn])])
    of_photos = {threshold: score_photos(photos, names, threshold) for threshold in candidates}
    sound = [one for one in candidates if of_photos[one].false_per_absent_phrase <= MOST_FALSE]
    return float(max(sound, key=lambda threshold: of_photos[threshold].f1) if sound else candidates[-1])


def _of_phrase(one: ScoredPhoto, phrase: str) -> sv.Detections:
    class_id = one.detections.class_id
    chosen = np.zeros(0, int) if class_id is None else np.flatnonzero(class_id == one.phrases.index(phrase))
    found = one.detections[chosen]
    if not isinstance(found, sv.Detections):
        raise TypeError(f"expected detections, got {type(found).__name__}")
    return found


def _confidence(found: sv.Detections) -> np.ndarray:
    return np.zeros(0) if found.confidence is None else found.confidence


def _score_name(scored: Sequence[ScoredPhoto], name: str, box_threshold: float) -> NameScores:
    confidences, rights = [np.zeros(0)], [np.zeros(0, bool)]
    num_objects = 0
    for one in scored:
        if name not in one.phrases:
            continue
        found = _of_phrase(one, name)
        named = np.array([other == name for other in one.photo.names], bool)
        single, crowds = one.photo.boxes_xyxy[named & ~one.photo.crowd], one.photo.boxes_xyxy[named & one.photo.crowd]
        right = match_boxes(found.xyxy, _confidence(found), single)
        counted = right | ~_inside_any(found.xyxy, crowds)
        confidences.append(_confidence(found)[counted])
        rights.append(right[counted])
        num_objects += len(single)
    confidence, right = np.concatenate(confidences), np.concatenate(rights)
    kept = confidence >= box_threshold
    return NameScores(
        name=name,
        ap50=average_precision(confidence, right, num_objects) if num_objects else 0.0,
        recall=float((right & kept).sum() / max(num_objects, 1)),
        precision=float((right & kept).sum() / max(kept.sum(), 1)),
        num_objects=num_objects,
    )


def _inside_any(xyxy: np.ndarray, regions_xyxy: np.ndarray) -> np.ndarray:
    """(N,) bool: boxes that lie in one of the regions with at least half of their area."""
    inside = np.zeros(len(xyxy), bool)
    for x1, y1, x2, y2 in regions_xyxy:
        width = (np.minimum(xyxy[:, 2], x2) - np.maximum(xyxy[:, 0], x1)).clip(0)
        height = (np.minimum(xyxy[:, 3], y2) - np.maximum(xyxy[:, 1], y1)).clip(0)
        area = (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])
        inside |= width * height >= 0.5 * area
    return inside
