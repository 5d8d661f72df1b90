"""An effect on chosen objects, or on everything else, carried through a video one frame at a time."""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import supervision as sv
from PIL import ImageColor

from grounded_sam2.effects.pixels import blurred, covered, cut_out, grown, longest_side, pixelated
from grounded_sam2.effects.tracks import TrackedVideo
from grounded_sam2.images import RGBImage
from grounded_sam2.masks import Masks

__all__ = ["Effect", "Picture", "annotated_frames", "changed_frames", "changed_image", "rgb_of"]

Kind = Literal["blur", "pixelate", "cover", "cutout"]
OBJECT_STRENGTH, REST_STRENGTH = 0.2, 0.05
MARGIN = 0.05
LEAST_CELL, LEAST_MARGIN = 4, 2  # pixels


@dataclass(frozen=True)
class Effect:
    """What is done to which pixels.

    Attributes:
        kind: "blur" or "pixelate" to coarse cells, "cover" by a colour, or "cutout", which makes pixels transparent.
        obj_ids: the chosen objects.
        keeps_objects: False changes the chosen objects, True keeps them and changes everything else.
        strength: side of a cell as a share of the object's longer side, or of the picture's where everything else
            changes; above 0, up to 1. None: 0.2, or 0.05. The smaller, the more can be recognised.
        margin: how far around an object its surroundings belong to it, as a share of its longer side. None: 0.05,
            and at least 2 pixels, where objects change; 0 where they are kept.
        color: RGB of a cover.
        bridge: the longest gap in frames that is bridged: where a chosen object has no mask on some frames, but has
            one before and after them, both of these count. None: of any length where objects change, 0 where they are
            kept.

    Raises:
        ValueError: a setting outside its range.
    """

    kind: Kind
    obj_ids: Sequence[int]
    keeps_objects: bool = False
    strength: float | None = None
    margin: float | None = None
    color: tuple[int, int, int] = (0, 0, 0)
    bridge: int | None = None

    def __post_init__(self) -> None:
        if self.strength is not None and not 0 < self.strength <= 1:
            raise ValueError(f"strength: expected more than 0 and at most 1, got {self.strength}")
        if self.margin is not None and not 0 <= self.margin <= 1:
            raise ValueError(f"margin: expected 0 to 1, got {self.margin}")
        if self.bridge is not None and self.bridge < 0:
            raise ValueError(f"bridge: expected at least 0 frames, got {self.bridge}")

    def cell(self, side: int) -> float:
        """Side in pixels of the cells into which what has a longer side of `side` pixels is blurred."""
        return max(LEAST_CELL, self._strength * side)

    @property
    def _strength(self) -> float:
        return self.strength or (REST_STRENGTH if self.keeps_objects else OBJECT_STRENGTH)

    def margin_pixels(self, side: int) -> float:
        """How far around an object of `side` pixels its surroundings belong to it."""
        if self.margin is not None:
            return self.margin * side
        return 0 if self.keeps_objects else max(LEAST_MARGIN, MARGIN * side)

    def bridges(self, gap: tuple[int, int]) -> bool:
        """Whether a gap, its first and last frame, is bridged."""
        length = gap[1] - gap[0] + 1
        return not self.keeps_objects if self.bridge is None else length <= self.bridge

    def settings(self) -> dict[str, Any]:
        """What a log says of it: all fields that matter to its kind, with the values that they stand for."""
        settings = dataclasses.asdict(self)
        settings["obj_ids"] = list(self.obj_ids)
        settings["strength"] = self._strength
        if self.margin is None:
            settings["margin"] = 0 if self.keeps_objects else MARGIN
        if self.bridge is None:
            settings["bridge"] = 0 if self.keeps_objects else "any length"
        settings["color"] = "#{:02x}{:02x}{:02x}".format(*self.color)
        unused = {"cover": ("strength",), "cutout": ("strength", "color")}.get(self.kind, ("color",))
        return {name: value for name, value in settings.items() if name not in unused}


@dataclass(frozen=True)
class Picture:
    """One frame of a result.

    Attributes:
        frame_idx: 0-based, of the video.
        image: (H, W, 3) RGB, or (H, W, 4) RGBA, uint8.
        num_changed: pixels that the effect fell on.
        num_pixels: id → pixels of each chosen object that is on the frame, with its margin.
        bridged: ids of those whose masks come from the frames beside a gap.
    """

    frame_idx: int
    image: npt.NDArray[np.uint8]
    num_changed: int = 0
    num_pixels: Mapping[int, int] = field(default_factory=dict)
    bridged: Sequence[int] = ()


def rgb_of(color: str) -> tuple[int, int, int]:
    """The RGB of a colour that is given as "#rrggbb" or by its name in CSS.

    Raises:
        ValueError: it is neither.
    """
    try:
        red, green, blue = ImageColor.getrgb(color)[:3]
    except ValueError:
        raise ValueError(f'color: expected a name or "#rrggbb", got {color!r}') from None
    return red, green, blue


def changed_frames(video: TrackedVideo, effect: Effect, wanted: Container[int] | None = None) -> Iterator[Picture]:
    """The frames of a video under an effect, in order; each is read once, and no more than a few are held.

    Args:
        wanted: indices of the frames to give; None: all.

    Raises:
        ValueError: from the iterator, for an object that is not in the video or a line of another format.
    """
    bridges = _Bridges(video, effect)
    for frame_idx, image in enumerate(video.frames):
        if wanted is not None and frame_idx not in wanted:
            continue
        bridged = bridges.masks(frame_idx)
        masks = {**video.masks(frame_idx, effect.obj_ids), **bridged}
        yield _picture(frame_idx, image, masks, effect, sorted(bridged))


def _picture(
    frame_idx: int, image: RGBImage, masks: Mapping[int, Masks], effect: Effect, bridged: Sequence[int]
) -> Picture:
    areas = {obj_id: grown(mask, effect.margin_pixels(longest_side(mask))) for obj_id, mask in masks.items()}
    cells = {obj_id: effect.cell(longest_side(mask)) for obj_id, mask in masks.items()}
    num_pixels = {obj_id: int(area.sum()) for obj_id, area in areas.items()}
    objects = _union(areas.values(), image.shape[:2])
    changed = ~objects if effect.keeps_objects else objects
    if effect.keeps_objects:
        areas, cells = {0: changed}, {0: effect.cell(max(image.shape[:2]))}
    changed_by_it = changed_image(image, [(areas[key], cells[key]) for key in areas], effect)
    return Picture(frame_idx, changed_by_it, int(changed.sum()), num_pixels, bridged)


def changed_image(image: RGBImage, areas: Sequence[tuple[Masks, float]], effect: Effect) -> npt.NDArray[np.uint8]:
    """An image (H, W, 3) RGB with the areas changed, each a mask (H, W) and the side of its cells in pixels.

    Pixels outside of all areas are equal to those of `image`. Where areas meet, the last one has the pixel; each is
    made of the pixels of `image`, not of what another one has left there.

    Returns:
        (H, W, 3) RGB; for a cut-out (H, W, 4), in which the areas are transparent.
    """
    everywhere = _union([mask for mask, _ in areas], image.shape[:2])
    if effect.kind == "cutout":
        return cut_out(image, ~everywhere)
    if effect.kind == "cover":
        return covered(image, everywhere, effect.color)
    coarse = blurred if effect.kind == "blur" else pixelated
    changed = image.copy()
    for mask, cell in areas:
        changed[mask] = coarse(image, mask, cell)[mask]
    return changed


def _union(masks: Any, size: tuple[int, ...]) -> Masks:
    union = np.zeros(size, bool)
    for mask in masks:
        union |= mask
    return union


class _Bridges:
    """The masks of chosen objects on the frames of gaps: those before and after the gap, together.

    Held is one mask for each object that is in a gap.
    """

    def __init__(self, video: TrackedVideo, effect: Effect) -> None:
        self._video = video
        video.check_ids(effect.obj_ids)
        self._gaps = {
            obj_id: [gap for gap in video.objects[obj_id].gaps if effect.bridges(gap)] for obj_id in effect.obj_ids
        }
        self._held: dict[int, tuple[tuple[int, int], Masks]] = {}

    def masks(self, frame_idx: int) -> dict[int, Masks]:
        """By id, of the objects that are in a gap on this frame."""
        held: dict[int, tuple[tuple[int, int], Masks]] = {}
        for obj_id, gaps in self._gaps.items():
            position = bisect_right(gaps, frame_idx, key=lambda gap: gap[0]) - 1
            if position < 0 or frame_idx > gaps[position][1]:
                continue
            gap, mask = self._held.get(obj_id, (None, None))
            if mask is None or gap != gaps[position]:
                mask = self._across(obj_id, gaps[position])
            held[obj_id] = (gaps[position], mask)
        self._held = held
        return {obj_id: mask for obj_id, (_, mask) in held.items()}

    def _across(self, obj_id: int, gap: tuple[int, int]) -> Masks:
        before, after = (self._video.masks(frame_idx, [obj_id])[obj_id] for frame_idx in (gap[0] - 1, gap[1] + 1))
        return before | after


def annotated_frames(
    video: TrackedVideo,
    obj_ids: Sequence[int],
    draw: Callable[[RGBImage, sv.Detections], RGBImage],
    wanted: Container[int] | None = None,
) -> Iterator[Picture]:
    """The frames of a video with objects drawn in, in order; as `changed_frames`.

    Args:
        draw: draws N ≥ 0 objects on a copy of an image, see `grounded_sam2.render.annotate`.
    """
    for frame_idx, image in enumerate(video.frames):
        if wanted is None or frame_idx in wanted:
            yield Picture(frame_idx, draw(image, video.detections(frame_idx, obj_ids)))
