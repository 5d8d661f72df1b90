"""How well a detector finds what a prompt names in procedural scenes, and how rarely it finds what is absent.

Seeds below `FIRST_TEST_SEED` of the held-out split are for choices (thresholds, resolution); reported figures use
those from it on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import supervision as sv

from grounded_sam2.detectors.base import Detector
from training.detector_prompts import absent_phrases
from training.scenes import NOUNS, TRAIN_STYLES, Scene, make_scene

FIRST_TEST_SEED = 500_000
SCORED_SIZES = ((240, 240), (240, 426))  # (height, width) in pixels: square, and the shape of most footage
MATCH_IOU = 0.5
LEAST_CONFIDENCE = 0.05  # of the boxes that average precision ranks

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


def best_threshold(images: Sequence[ScoredImage]) -> float:
    """The box threshold at which the lower one of recall and precision is highest."""
    candidates = np.arange(LEAST_CONFIDENCE, 0.96, 0.01)

    def worth(threshold: float) -> float:
        scores = score(images, threshold)
        return min(scores.recall, scores.precision)

    return float(max(candidates, key=worth))
