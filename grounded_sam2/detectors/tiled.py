"""Any detector on the tiles of an image, for objects that are too small to be seen when all of it is looked at.

Slicing aided hyper inference (Akyon et al. 2022, arXiv:2202.06934): a detector shrinks a large image to the size it was
made for, and with it the objects. Here it looks at overlapping tiles, and once at the whole image for the large ones.

    detector = in_tiles(HuggingFaceDetector("gdino_checkpoints/nano"), (640, 640))
    (detections,) = detector.detect(image, "bird. boat.")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, get_args

import numpy as np
import numpy.typing as npt
import supervision as sv
from scipy.sparse.csgraph import connected_components

from grounded_sam2.detectors.base import (
    DEFAULT_BOX_THRESHOLD,
    DEFAULT_TEXT_THRESHOLD,
    Aliases,
    Detector,
    Image,
    Threshold,
    as_image_list,
    check_threshold,
    check_top_k,
    given_options,
    make_detections,
)
from grounded_sam2.prompts import TextPrompt, read_prompt

Merge: TypeAlias = Literal["nms", "nmm"]

DEFAULT_OVERLAP_RATIO = (0.2, 0.2)
SMALLEST_TILE = 32  # pixels a side; less shows no object
_BORDER = 0.02  # of the tile's side: a box that ends this near to an inner border of the tile may be cut by it
_HELD = 0.7  # share of a piece that lies in a box of its phrase when it is taken for a part of that
_SAME_EXTENT = 0.5  # IoU, along the border, of two pieces that continue each other across it

_Find: TypeAlias = Callable[[Sequence[Image]], list[sv.Detections]]
_Flags: TypeAlias = npt.NDArray[np.bool_]


def in_tiles(
    detector: Detector,
    slice_wh: tuple[int, int] | None,
    overlap_ratio: tuple[float, float] = DEFAULT_OVERLAP_RATIO,
) -> Detector:
    """Let a detector look at tiles: a `TiledDetector` over it, or for a `slice_wh` of None the detector itself."""
    return detector if slice_wh is None else TiledDetector(detector, slice_wh, overlap_ratio=overlap_ratio)


class TiledDetector:
    """A `Detector` that lets another one look at overlapping tiles of each image, and at the whole of it.

    `supervision.InferenceSlicer` lays out the tiles, hands them on in batches and moves the boxes back; what it would
    merge by overlap alone is merged here with regard to the borders. A box cut by a border is dropped when a whole box
    of the same phrase holds it: an object smaller than the overlap is whole in some tile, a large one in the whole
    image. Pieces of an object that is whole nowhere are joined. A piece that nothing completes is kept, but not within
    a whole box: there it is most often a part, taken for something else. What is left is merged as `merge` says.

    Unwanted phrases count as any other until then, so that what is unwanted as a whole is not wanted in pieces.

    An image that fits in one tile is looked at once, as without tiles. At any time only `batch_size` tiles of one image
    are with the detector. Masks that a detector makes are kept, those of joined pieces together.

    Args:
        detector: what looks at each tile.
        slice_wh: width and height of a tile in pixels, 32 at least.
        overlap_ratio: horizontal and vertical overlap of neighbouring tiles as shares of a tile's sides, in [0, 1);
            objects smaller than it are whole in some tile.
        merge: what becomes of boxes that overlap by an IoU above `merge_threshold`: "nms" keeps the most confident one,
            "nmm" makes one box around them.
        merge_threshold: in [0, 1].
        class_agnostic: merge boxes of different phrases too, and let whole ones hold pieces of any.
        batch_size: how many tiles go to the detector together.

    Raises:
        ValueError: for a value outside what is said above.
    """

    def __init__(
        self,
        detector: Detector,
        slice_wh: tuple[int, int],
        *,
        overlap_ratio: tuple[float, float] = DEFAULT_OVERLAP_RATIO,
        merge: Merge = "nms",
        merge_threshold: float = 0.5,
        class_agnostic: bool = True,
        batch_size: int = 8,
    ) -> None:
        if len(slice_wh) != 2 or min(slice_wh) < SMALLEST_TILE:
            raise ValueError(f"expected a slice_wh of two numbers, {SMALLEST_TILE} or more, got {slice_wh}")
        if len(overlap_ratio) != 2 or not all(0 <= ratio < 1 for ratio in overlap_ratio):
            raise ValueError(f"expected an overlap_ratio of two numbers in [0, 1), got {overlap_ratio}")
        if merge not in get_args(Merge):
            raise ValueError(f"expected a merge of {' or '.join(get_args(Merge))}, got {merge!r}")
        check_threshold("merge_threshold", merge_threshold)
        if batch_size < 1:
            raise ValueError(f"expected a batch_size of at least 1, got {batch_size}")
        self.detector = detector
        self.slice_wh = slice_wh
        self.overlap_wh = (int(slice_wh[0] * overlap_ratio[0]), int(slice_wh[1] * overlap_ratio[1]))
        self.merge = merge
        self.merge_threshold = merge_threshold
        self.class_agnostic = class_agnostic
        self.batch_size = batch_size

    def detect(
        self,
        images: Image | Sequence[Image],
        text_prompt: TextPrompt,
        *,
        box_threshold: Threshold = DEFAULT_BOX_THRESHOLD,
        text_threshold: Threshold = DEFAULT_TEXT_THRESHOLD,
        aliases: Aliases | None = None,
        top_k: int | None = None,
    ) -> list[sv.Detections]:
        """Find the prompt's phrases in each image and its tiles; see `Detector.detect`.

        Options that are not given are not asked of the detector, which so need not take them.
        """
        check_top_k(top_k)
        prompt = read_prompt(text_prompt)
        image_list = as_image_list(images)
        # among the best in a view may be what is not wanted
        options = given_options(box_threshold, text_threshold, aliases, None if prompt.unwanted else top_k)

        def find(views: Sequence[Image]) -> list[sv.Detections]:
            return self.detector.detect(views, prompt.with_unwanted_found(), **options)

        found = []
        for image, whole in zip(image_list, find(image_list), strict=True):
            if self._needs_tiles(image):
                found.append(self._merge(image, find, whole, prompt.phrases, top_k))
            elif prompt.unwanted:
                found.append(_made(_Boxes.of(whole), image, prompt.phrases, whole.mask is not None, top_k=top_k))
            else:
                found.append(whole)
        return found

    def _needs_tiles(self, image: Image) -> bool:
        return image.shape[1] > self.slice_wh[0] or image.shape[0] > self.slice_wh[1]

    def _merge(
        self, image: Image, find: _Find, of_image: sv.Detections, phrases: Sequence[str], top_k: int | None
    ) -> sv.Detections:
        """Put together what was found in the whole of an image and what is found in its tiles."""
        height, width = image.shape[:2]
        border = np.maximum(2, _BORDER * np.array(self.slice_wh, np.float32))  # (2,) pixels across and down
        of_tiles = _Boxes.of(self._find_in_tiles(image, find, border))
        of_tiles.cuts[:, :2] &= of_tiles.xyxy[:, :2] > border  # where the image itself ends, nothing is cut
        of_tiles.cuts[:, 2:] &= of_tiles.xyxy[:, 2:] < np.array([width, height]) - border
        boxes = _settle_pieces(_Boxes.joined([of_tiles, _Boxes.of(of_image)]), border, self.class_agnostic)
        if self.merge == "nmm":
            boxes = _merge_overlapping(boxes, self.merge_threshold, self.class_agnostic)
        nms_threshold = self.merge_threshold if self.merge == "nms" else None
        return _made(boxes, image, phrases, of_image.mask is not None, nms_threshold, self.class_agnostic, top_k)

    def _find_in_tiles(self, image: Image, find: _Find, border: npt.NDArray[np.float32]) -> sv.Detections:
        """Boxes of all tiles in pixels of the image, with the `data` of `_of_tile`."""

        def look(tiles: list[Image]) -> list[sv.Detections]:
            return [_of_tile(boxes, tile, border) for tile, boxes in zip(tiles, find(tiles), strict=True)]

        slicer = sv.InferenceSlicer(
            look if self.batch_size > 1 else lambda tile: look([tile])[0],
            slice_wh=self.slice_wh,
            overlap_wh=self.overlap_wh,
            overlap_filter=sv.OverlapFilter.NONE,
            batch_size=self.batch_size,
        )
        return slicer(image)


def _of_tile(boxes: sv.Detections, tile: Image, border: npt.NDArray[np.float32]) -> sv.Detections:
    """What is found in a tile, with `data` that `_Boxes.of` reads when the boxes have been moved.

    `data["cuts"]` is (N, 4) bool, which sides (left, top, right, bottom) lie at the tile's borders, `data["corners"]`
    (N, 2) the left and top of the boxes in the tile, `data["outlines"]` (N,) what `_outlines_of` makes of the masks.
    """
    if len(boxes) == 0:
        return sv.Detections.empty()
    height, width = tile.shape[:2]
    cuts = np.concatenate(
        [boxes.xyxy[:, :2] <= border, boxes.xyxy[:, 2:] >= np.array([width, height]) - border], axis=1
    )
    return sv.Detections(
        boxes.xyxy,
        confidence=boxes.confidence,
        class_id=boxes.class_id,
        data={"cuts": cuts, "corners": boxes.xyxy[:, :2].copy(), "outlines": _outlines_of(boxes)},
    )


@dataclass(frozen=True)
class _Outline:
    """A mask without the empty space around it: its left and top in pixels of the image, and (h, w) bool."""

    left: int
    top: int
    pixels: _Flags

    @classmethod
    def of(cls, mask: _Flags) -> _Outline:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows) == 0:
            return cls(0, 0, np.zeros((0, 0), bool))
        return cls(int(columns[0]), int(rows[0]), mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy())

    def moved(self, offset: npt.NDArray[np.float32]) -> _Outline:
        across, down = np.rint(offset).astype(int)
        return _Outline(self.left + int(across), self.top + int(down), self.pixels)

    def draw(self, mask: _Flags) -> None:
        """Add it to an (H, W) mask of the image."""
        height, width = self.pixels.shape
        mask[self.top : self.top + height, self.left : self.left + width] |= self.pixels


def _outlines_of(detections: sv.Detections) -> npt.NDArray[np.object_]:
    """(N,) for each box the outlines, a tuple, that make its mask: none for a detector that finds no masks."""
    outlines = np.empty(len(detections), dtype=object)
    for index in range(len(outlines)):
        outlines[index] = () if detections.mask is None else (_Outline.of(np.asarray(detections.mask[index])),)
    return outlines


@dataclass(frozen=True)
class _Boxes:
    """Boxes of one image: xyxy (N, 4) pixels, confidence (N,), class_id (N,), cut sides, outlines of their masks."""

    xyxy: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]
    class_id: npt.NDArray[np.int64]
    cuts: _Flags  # (N, 4) left, top, right, bottom
    outlines: npt.NDArray[np.object_]  # (N,), see `_outlines_of`

    @classmethod
    def of(cls, detections: sv.Detections) -> _Boxes:
        """Those of detections, none of them cut if these do not say which are; with N = 0 they have no fields."""
        count = len(detections)
        confidence, class_id = (
            np.zeros(0) if count == 0 else column for column in (detections.confidence, detections.class_id)
        )
        cuts = detections.data.get("cuts", np.zeros((count, 4), bool))
        xyxy = detections.xyxy.astype(np.float32).reshape(-1, 4)
        outlines = np.array(detections.data.get("outlines", _outlines_of(detections)), dtype=object)
        if "corners" in detections.data:
            offsets = xyxy[:, :2] - np.asarray(detections.data["corners"], np.float32).reshape(-1, 2)
            for index, offset in enumerate(offsets):
                outlines[index] = tuple(outline.moved(offset) for outline in outlines[index])
        return cls(
            xyxy,
            np.asarray(confidence, np.float32),
            np.asarray(class_id, np.int64),
            np.array(cuts, bool).reshape(-1, 4),
            outlines,
        )

    @classmethod
    def joined(cls, parts: Sequence[_Boxes]) -> _Boxes:
        """All boxes of one or more parts, in order."""
        columns = zip(
            *((part.xyxy, part.confidence, part.class_id, part.cuts, part.outlines) for part in parts), strict=True
        )
        return cls(*map(np.concatenate, columns))

    def rows(self, kept: _Flags) -> _Boxes:
        return _Boxes(self.xyxy[kept], self.confidence[kept], self.class_id[kept], self.cuts[kept], self.outlines[kept])

    def parted(self) -> tuple[_Boxes, _Boxes]:
        """The whole ones and the cut ones."""
        is_cut = np.logical_or.reduce(self.cuts, axis=1)
        return self.rows(~is_cut), self.rows(is_cut)

    @property
    def area(self) -> npt.NDArray[np.float32]:
        """(N,) square pixels."""
        return cast(npt.NDArray[np.float32], (self.xyxy[:, 2:] - self.xyxy[:, :2]).prod(axis=1))

    def merged(self) -> _Boxes:
        """One box around the N > 0 boxes, the most confident of which speaks for them; its mask is all of theirs."""
        outermost = np.concatenate([self.xyxy[:, :2].argmin(axis=0), self.xyxy[:, 2:].argmax(axis=0)])
        best = self.rows(np.arange(len(self.xyxy)) == self.confidence.argmax())
        sides = (outermost, np.arange(4))
        outlines = np.empty(1, dtype=object)
        outlines[0] = tuple(outline for of_box in self.outlines for outline in of_box)
        return _Boxes(self.xyxy[sides][None], best.confidence, best.class_id, self.cuts[sides][None], outlines)


def _made(
    boxes: _Boxes,
    image: Image,
    phrases: Sequence[str],
    has_masks: bool,
    nms_threshold: float | None = None,
    class_agnostic: bool = True,
    top_k: int | None = None,
) -> sv.Detections:
    """Boxes in the form of the contract; see `make_detections`."""
    height, width = image.shape[:2]
    masks = None
    if has_masks or boxes.outlines.astype(bool).any():
        masks = np.zeros((len(boxes.outlines), height, width), bool)
        for mask, outlines in zip(masks, boxes.outlines, strict=True):
            for outline in outlines:
                outline.draw(mask)
    return make_detections(
        boxes.xyxy,
        boxes.confidence,
        boxes.class_id,
        phrases,
        (width, height),
        nms_threshold=nms_threshold,
        class_agnostic=class_agnostic,
        top_k=top_k,
        masks=masks,
    )


def _settle_pieces(boxes: _Boxes, border: npt.NDArray[np.float32], class_agnostic: bool) -> _Boxes:
    """Drop pieces that a whole box holds, join those that continue each other, keep what nothing completes.

    A piece of another phrase may be part of what holds it, taken for something else, or a thing of its own: it is
    dropped last, if no other piece completes it.
    """
    whole, pieces = boxes.parted()
    pieces = pieces.rows(~np.logical_or.reduce(_held_by(pieces, whole), axis=1))
    completed, pieces = _join(pieces, border).parted()
    whole = _Boxes.joined([whole, completed])
    pieces = pieces.rows(~np.logical_or.reduce(_held_by(pieces, whole, of_any_class=class_agnostic), axis=1))
    area = pieces.area
    is_larger = (area > area[:, None]) | ((area == area[:, None]) & np.tri(len(area), k=-1, dtype=bool))
    pieces = pieces.rows(~np.logical_or.reduce(_held_by(pieces, pieces) & is_larger, axis=1))
    return _Boxes.joined([whole, pieces])


def _held_by(pieces: _Boxes, boxes: _Boxes, of_any_class: bool = False) -> _Flags:
    """(P, N) bool: whether most of a piece lies in a box, of its own phrase if not told otherwise."""
    low = np.maximum(pieces.xyxy[:, None, :2], boxes.xyxy[:, :2])
    high = np.minimum(pieces.xyxy[:, None, 2:], boxes.xyxy[:, 2:])
    shared = (high - low).clip(0).prod(axis=-1)  # (P, N) square pixels
    is_held = shared >= _HELD * pieces.area[:, None]
    return cast(_Flags, is_held & (of_any_class | (pieces.class_id[:, None] == boxes.class_id)))


def _join(pieces: _Boxes, border: npt.NDArray[np.float32]) -> _Boxes:
    """Make one box of the pieces that continue each other across borders."""
    low, high = pieces.xyxy[:, :2], pieces.xyxy[:, 2:]
    shared = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)  # (P, P, 2) pixels, below 0: a gap
    spanned = np.maximum(high[:, None], high) - np.minimum(low[:, None], low)
    goes_on = np.zeros((len(low), len(low)), bool)  # [a, b]: b goes on where a is cut at its right or bottom
    for axis in (0, 1):
        goes_on |= (
            (pieces.cuts[:, None, axis + 2] & pieces.cuts[:, axis])
            & ((low[:, None, axis] < low[:, axis]) & (high[:, None, axis] < high[:, axis]))
            & (shared[..., axis] >= -border[axis])
            & (shared[..., 1 - axis] >= _SAME_EXTENT * spanned[..., 1 - axis])
        )
    goes_on &= pieces.class_id[:, None] == pieces.class_id
    if not goes_on.any():
        return pieces
    count, group = connected_components(goes_on, directed=False)
    return _Boxes.joined([pieces.rows(group == index).merged() for index in range(count)])


def _merge_overlapping(boxes: _Boxes, threshold: float, class_agnostic: bool) -> _Boxes:
    """Make one box of those that overlap: non-maximum merging."""
    columns = [boxes.xyxy, boxes.confidence[:, None]] + ([] if class_agnostic else [boxes.class_id[:, None]])
    groups = sv.box_non_max_merge(np.concatenate(columns, axis=1), iou_threshold=threshold)
    return _Boxes.joined(
        [boxes.rows(np.isin(np.arange(len(boxes.xyxy)), group)).merged() for group in groups] or [boxes]
    )
