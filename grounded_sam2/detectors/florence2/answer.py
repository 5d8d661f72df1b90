"""What Florence-2 writes, read: labels, boxes and outlines.

The model answers in one text. A label is followed by the places it is at, in numbered bins that cut each side of the
image in 1000; marks structure what has several outlines:

    car<loc_54><loc_375><loc_906><loc_707>wheel<loc_708><loc_531><loc_906><loc_704><loc_147><loc_546><loc_306><loc_706>
    a green car<poly><loc_54><loc_375><loc_906>…<sep><loc_10><loc_20>…</poly>

What does not follow this form, as when an answer is cut off at its longest, is left out; the rest counts.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import supervision as sv
from pycocotools import mask as coco_mask

from grounded_sam2.detectors.florence2.tasks import Task

NUM_BINS = 1000
_MARK = re.compile(r"<loc_(\d{1,3})>|</?[a-z_]+(?:_\d+)?>")
_POLYGON_MARKS = ("<sep>", "<poly>", "</poly>")


class Span(NamedTuple):
    """Characters of an answer's text, from `start` to before `stop`."""

    start: int
    stop: int


@dataclass(frozen=True)
class Region:
    """One place in an answer.

    Attributes:
        label: what the model says is there; "" where it says nothing.
        box: (4,) float32 xyxy, fractions of the image's width and height; of an outline, the box around it.
        polygons: the parts of the outline, (K, 2) float32 xy each, K ≥ 3, fractions too; none for a box.
        label_span: the characters of the label.
        place_span: the characters of the bins.
    """

    label: str
    box: npt.NDArray[np.float32]
    polygons: tuple[npt.NDArray[np.float32], ...]
    label_span: Span
    place_span: Span


@dataclass(frozen=True)
class Answer:
    """What the model wrote about one image.

    Attributes:
        text: the answer, with its marks.
        regions: R ≥ 0 places in it.
        confidence: (R,) float32 in [0, 1], how sure the model was of each, see `Florence2`.
    """

    text: str
    regions: list[Region]
    confidence: npt.NDArray[np.float32]

    @property
    def caption(self) -> str:
        """The words of the text."""
        return " ".join(_MARK.sub(" ", self.text).split())

    def detections(self, image_size: tuple[int, int], unlabelled: str = "region") -> sv.Detections:
        """The regions as detections, most confident first.

        Args:
            image_size: width and height in pixels.
            unlabelled: the name of what the model gave no label.

        Returns:
            N ≤ R boxes in pixels, those without area left out, with `confidence`, `data["class_name"]`, and `class_id`
            counting the distinct names in the order of the answer. Where every one is an outline, `mask` (N, H, W) bool
            holds what is inside.
        """
        fractions = np.array([region.box for region in self.regions], np.float32).reshape(-1, 4)
        distinct = list(dict.fromkeys(region.label or unlabelled for region in self.regions))
        order = np.argsort(-self.confidence, kind="stable")
        order = order[(fractions[order, 2] > fractions[order, 0]) & (fractions[order, 3] > fractions[order, 1])]
        found = [self.regions[index] for index in order]
        names = [region.label or unlabelled for region in found]
        masks = None
        if found and all(region.polygons for region in found):
            masks = np.stack([mask_of_polygons(region.polygons, image_size) for region in found])
        return sv.Detections(
            xyxy=fractions[order] * np.array(image_size * 2, np.float32),
            mask=masks,
            confidence=self.confidence[order],
            class_id=np.array([distinct.index(name) for name in names], np.int64),
            data={"class_name": np.array(names, dtype=np.str_)},
        )


def parse_regions(text: str, task: Task, ignored: Collection[str] = ()) -> list[Region]:
    """Read the places in an answer, in its order.

    A place of a box has four bins, a part of an outline at least three pairs of bins; what is left over is dropped. A
    label is the words right before a place and holds for all that follow it without words or another mark in between.

    Args:
        text: the answer, with its marks.
        task: what was asked.
        ignored: labels, in lower case, that name nothing ("it", "the image"); their places are left out.

    Returns:
        R ≥ 0 regions; without a label only where the task gives none.
    """
    regions = []
    for label, label_span, places in _labelled_runs(text):
        if not (label or not task.is_labelled) or label.lower() in ignored:
            continue
        has_outline = any(mark in _POLYGON_MARKS for mark, _ in places)
        as_polygons = task.places == "polygons" or (task.places == "boxes or polygons" and has_outline)
        for box, polygons, place_span in _outlines(places) if as_polygons else _boxes(places):
            regions.append(Region(label, box, polygons, label_span, place_span))
    return regions


def mask_of_polygons(
    polygons: Collection[npt.NDArray[np.float32]], image_size: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Fill outlines, all parts together, by COCO's rule.

    Args:
        polygons: (K, 2) xy each, K ≥ 3, fractions of the image's width and height.
        image_size: width and height in pixels.

    Returns:
        (H, W) bool; empty for no polygons.
    """
    width, height = image_size
    if not polygons:
        return np.zeros((height, width), dtype=bool)
    flat = [(polygon.astype(np.float64) * (width, height)).ravel().tolist() for polygon in polygons]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, height, width))).astype(bool)


# A bin's number or a mark, and the characters it is written in.
_Place = tuple[int | str, Span]


def _labelled_runs(text: str) -> Iterator[tuple[str, Span, list[_Place]]]:
    """Cut a text in runs of bins and the marks of outlines, each with the words right before it."""
    label, label_span, places = "", Span(0, 0), list[_Place]()
    position = 0
    for found in [*_MARK.finditer(text), None]:
        words = text[position : found.start() if found else len(text)]
        is_place = found is not None and (found[1] is not None or found[0] in _POLYGON_MARKS)
        if words.strip() or not is_place:
            if places:
                yield label, label_span, places
            places = []
            label, label_span = words.strip(), Span(position, position + len(words))
        if found is None:
            return
        position = found.end()
        if is_place:
            places.append((int(found[1]) if found[1] is not None else found[0], Span(*found.span())))
        else:
            label, label_span = "", Span(position, position)


def _bins(places: list[_Place], breaks: Collection[str]) -> Iterator[list[tuple[int, Span]]]:
    """The bins of a run, cut at the marks in `breaks`; other marks are passed over."""
    bins: list[tuple[int, Span]] = []
    for place, span in places:
        if isinstance(place, int):
            bins.append((place, span))
        elif place in breaks:
            yield bins
            bins = []
    yield bins


def _fractions(bins: list[tuple[int, Span]]) -> npt.NDArray[np.float32]:
    """(K, 2) the middles of K pairs of bins."""
    return ((np.array([number for number, _ in bins], np.float64).reshape(-1, 2) + 0.5) / NUM_BINS).astype(np.float32)


_Outline = tuple[npt.NDArray[np.float32], tuple[npt.NDArray[np.float32], ...], Span]


def _boxes(places: list[_Place]) -> Iterator[_Outline]:
    for bins in _bins(places, _POLYGON_MARKS):
        for start in range(0, len(bins) - 3, 4):
            corners = bins[start : start + 4]
            yield _fractions(corners).ravel(), (), Span(corners[0][1].start, corners[-1][1].stop)


def _outlines(places: list[_Place]) -> Iterator[_Outline]:
    """One outline for each <poly>…</poly>, or one in all without these marks; its parts are between <sep> marks."""
    instance: list[_Place] = []
    for place in [*places, ("</poly>", Span(0, 0))]:
        if place[0] not in ("<poly>", "</poly>"):
            instance.append(place)
            continue
        parts = [part[: len(part) // 2 * 2] for part in _bins(instance, ("<sep>",)) if len(part) >= 6]
        instance = []
        if parts:
            polygons = tuple(_fractions(part) for part in parts)
            points = np.concatenate(polygons)
            box = np.concatenate([points.min(axis=0), points.max(axis=0)])
            yield box, polygons, Span(parts[0][0][1].start, parts[-1][-1][1].stop)
