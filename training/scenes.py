"""Procedural scenes with exact ground truth: named sprites over photo-like backgrounds, as single images and as clips.

Everything is a function of its seed. The held-out split draws from other seeds and from other ranges of the
background's parameters, so nothing in it was ever trained on.

    scene = make_scene(7)                                        # one image
    for scene in make_clip(7, num_frames=40, kind="crossing"):   # frames of a clip, ids persistent
        ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import cv2
import numpy as np

from training.artwork import NOUNS, STYLES, TRAIN_STYLES, UNSEEN_STYLE, load_sprites

__all__ = [
    "CLIP_KINDS",
    "NOUNS",
    "SPLITS",
    "TRAIN_STYLES",
    "UNSEEN_STYLE",
    "Footage",
    "Props",
    "Scene",
    "as_scene",
    "camera_look",
    "make_clip",
    "make_scene",
    "photograph",
    "premultiply",
    "tint",
]

SPLITS: tuple[str, ...] = ("train", "heldout")
CLIP_KINDS: tuple[str, ...] = ("drift", "crossing", "twins", "occlusion", "reentry", "mixed")

COLOUR_WORDS = {"red", "green", "blue"}  # in nouns that are told apart by colour
MIN_VISIBLE_PIXELS = 24  # an object with fewer is too small to be worth naming
MIN_VISIBLE_FRACTION = 0.3  # of its drawing, for an object in a single image


@dataclass
class Scene:
    """One image and everything that is true about it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        masks: (N, H, W) bool, the visible part of each object; in a clip it is empty while the object is hidden or
            outside.
        boxes_xyxy: (N, 4) float32 in pixels, tight around the mask (right and bottom edges exclusive); zeros for an
            empty mask.
        phrases: N nouns, each of `NOUNS`.
        ids: (N,) int64, at least 1, the same object's throughout a clip.
    """

    image: np.ndarray
    masks: np.ndarray
    boxes_xyxy: np.ndarray
    phrases: list[str]
    ids: np.ndarray


@dataclass
class Footage:
    """Frames of a real video with the objects on them, over which a clip's sprites move.

    Attributes:
        images: T frames, (H, W, 3) uint8 RGB, of the clip's size.
        masks: T times (K, H, W) bool, the same K objects in each.
        phrases: K nouns.
    """

    images: list[np.ndarray]
    masks: list[np.ndarray]
    phrases: list[str]


class Props(Protocol):
    """Where sprites and backgrounds come from.

    Attributes:
        phrases: nouns that `drawing` knows.
        lively: whether sprites also bend, are blurred by their motion, and meet near twins: what real things do.
    """

    phrases: Sequence[str]
    lively: bool

    def drawing(self, rng: np.random.Generator, phrase: str, longest: float) -> np.ndarray:
        """(h, w, 4) float32 in 0..255, colours premultiplied by alpha, its longer side at most about `longest`."""

    def background(self, rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
        """(H, W, 3) float32 in 0..255."""

    def footage(self, rng: np.random.Generator, num_frames: int, size: tuple[int, int]) -> Footage | None:
        """A real video that takes the background's place, or None."""


@dataclass(frozen=True)
class _Drawn:
    """Emoji artwork over procedural backgrounds."""

    split: str
    styles: tuple[str, ...]
    lively = False

    @property
    def phrases(self) -> Sequence[str]:
        return _drawn_nouns(self.styles)

    def drawing(self, rng: np.random.Generator, phrase: str, longest: float) -> np.ndarray:
        style = str(rng.choice([style for style in self.styles if phrase in load_sprites(style)]))
        sprite = load_sprites(style)[phrase]
        wild = self.split == "train"  # more variety than the styles have, for the sake of styles never seen
        if wild and rng.random() < 0.15:
            sprite = _outlined(style, phrase)
        recoloured = wild and rng.random() < 0.15 and not COLOUR_WORDS & set(phrase.split())
        return tint(premultiply(sprite, longest), rng, hue_spread=40 if recoloured else 5)

    def background(self, rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
        return _background(rng, size, self.split)

    def footage(self, rng: np.random.Generator, num_frames: int, size: tuple[int, int]) -> Footage | None:
        return None


@dataclass
class _Actor:
    """A sprite and its path. Positions and sizes are fractions of the frame's shorter side, angles degrees."""

    phrase: str | None  # None: an occluder, drawn but never named
    drawing: np.ndarray  # (h, w, 4) float32 in 0..255, colours premultiplied by alpha, about as large as it will appear
    positions: np.ndarray  # (T, 2) x, y of the centre
    sizes: np.ndarray  # (T,) longer side of the drawing
    angles: np.ndarray  # (T,)
    flip: bool
    depth: float  # larger is nearer
    sway: np.ndarray | None = None  # (T, 2) how far it leans and bends, fractions of its width
    shutter: float = 0.0  # part of the way to the next frame over which its motion blurs it


def make_scene(
    seed: int,
    size: tuple[int, int] = (192, 192),
    split: str = "train",
    styles: Sequence[str] = TRAIN_STYLES,
    num_objects: tuple[int, int] = (1, 12),
    stretch: float | None = None,
    extents: tuple[float, float] | None = None,
    nouns: Sequence[str] | None = None,
    props: Props | None = None,
) -> Scene:
    """Compose one image.

    Args:
        seed: any non-negative integer; the same arguments give the same scene.
        size: (height, width) in pixels.
        split: "train" or "heldout".
        styles: the art styles that sprites are drawn from.
        num_objects: fewest and most objects; one that ends up mostly hidden is not drawn, so there may be fewer. (0,
            0) gives an empty scene with arrays of length 0.
        stretch: horizontal scale of the drawings, as when a wide photograph is squeezed into a square; None draws it
            at random.
        extents: smallest and largest drawing, as fractions of the shorter side of the image; None: 0.09 up to what
            leaves room for all.
        nouns: what is drawn; those that the props do not have are left out. None: all that they have.
        props: where sprites and background come from; None: emoji artwork of the styles.

    Raises:
        ValueError: an unknown split or style, or `num_objects` not an ascending pair of non-negative numbers.
    """
    rng = _generator(seed, split, styles, num_objects, stream=0)
    count = int(rng.integers(num_objects[0], num_objects[1] + 1))
    stretch = _random_stretch(rng) if stretch is None else stretch
    smallest, largest = extents or (0.09, min(0.95, 1.5 / np.sqrt(max(count, 1))))
    props = props or _Drawn(split, tuple(styles))
    drawn_nouns = [noun for noun in props.phrases if nouns is None or noun in nouns]
    actors: list[_Actor] = []
    for _ in range(count):
        extent = _random_extent(rng, smallest, largest)
        position = _free_position(rng, actors, extent, _bounds(size))
        repeated = actors[-1].phrase if actors and rng.random() < 0.12 else None
        phrase = repeated or str(rng.choice(drawn_nouns))
        actors.append(
            _make_actor(rng, phrase, props, position[None], np.array([extent]), _random_angle(rng), min(size))
        )
    if rng.random() < 0.15:
        actors.append(_make_occluder(rng, props, 1))
    canvas = props.background(rng, size)
    placed = [_place(actor, 0, size, stretch) for actor in actors]
    actors, placed = _drop_hidden(actors, placed, size, stretch)
    image, masks = _compose(canvas, actors, placed, _random_shadow(rng))
    image = photograph(image, camera_look(rng), rng)
    return as_scene(image, masks, [actor.phrase for actor in actors])


def make_clip(
    seed: int,
    num_frames: int,
    size: tuple[int, int] = (192, 192),
    split: str = "train",
    styles: Sequence[str] = TRAIN_STYLES,
    kind: str = "drift",
    num_objects: tuple[int, int] = (2, 5),
    stretch: float | None = None,
    props: Props | None = None,
) -> Iterator[Scene]:
    """Yield the frames of one clip. All objects are in every frame's arrays; one that is hidden or outside has an
    empty mask.

    Args:
        seed: any non-negative integer; the same arguments give the same clip.
        num_frames: at least 1. Paths are laid out over the whole clip, so a short one moves faster.
        size: (height, width) in pixels.
        split: "train" or "heldout".
        styles: the art styles that sprites are drawn from.
        kind: "drift", objects wander and bounce; "crossing", the first two have different looks and pass over each
            other; "twins", the same with equal looks; "occlusion", a panel hides the first for a while; "reentry",
            the first leaves the frame and comes back; "mixed", some of everything.
        num_objects: fewest and most objects; "crossing" and "twins" have at least two.
        stretch: horizontal scale of the drawings; None draws it at random.
        props: where sprites, background and footage come from; None: emoji artwork of the styles.

    Raises:
        ValueError: an unknown split, style or kind, or a number of frames below 1.
    """
    if kind not in CLIP_KINDS:
        raise ValueError(f"kind must be one of {', '.join(CLIP_KINDS)}, got {kind!r}")
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}")
    rng = _generator(seed, split, styles, num_objects, stream=1 + CLIP_KINDS.index(kind))
    return _clip_frames(rng, num_frames, size, props or _Drawn(split, tuple(styles)), kind, num_objects, stretch)


def _clip_frames(
    rng: np.random.Generator,
    num_frames: int,
    size: tuple[int, int],
    props: Props,
    kind: str,
    num_objects: tuple[int, int],
    stretch: float | None,
) -> Iterator[Scene]:
    height, width = size
    stretch = _random_stretch(rng) if stretch is None else stretch
    actors = _cast(rng, num_frames, size, props, kind, num_objects)
    margin = 1.0 + float(rng.uniform(0, 0.25))
    footage = props.footage(rng, num_frames, size)
    backdrop = props.background(rng, (round(height * margin), round(width * margin)))
    pan = _smooth_path(rng, num_frames, 0.5, 0.5 * rng.random()) * np.array(
        [backdrop.shape[1] - width, backdrop.shape[0] - height]
    )
    look, shadow = camera_look(rng), _random_shadow(rng)
    flicker = 1 + 0.03 * rng.standard_normal(num_frames) * (rng.random() < 0.3)
    for frame_idx in range(num_frames):
        left, top = np.clip(pan[frame_idx], 0, [backdrop.shape[1] - width, backdrop.shape[0] - height])
        canvas = cv2.warpAffine(
            backdrop, np.float32([[1, 0, -left], [0, 1, -top]]), (width, height), borderMode=cv2.BORDER_REFLECT
        )
        if footage is not None:
            canvas = footage.images[frame_idx].astype(np.float32)
        placed = [_place(actor, frame_idx, size, stretch) for actor in actors]
        image, masks = _compose(canvas, actors, placed, shadow)
        image = photograph(image * flicker[frame_idx], look, rng)
        phrases = [actor.phrase for actor in actors]
        if footage is not None:
            masks = np.concatenate([masks, footage.masks[frame_idx] & ~masks.any(0)])
            phrases += footage.phrases
        yield as_scene(image, masks, phrases)


def _generator(
    seed: int, split: str, styles: Sequence[str], num_objects: tuple[int, int], stream: int
) -> np.random.Generator:
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if not styles or any(style not in STYLES for style in styles):
        raise ValueError(f"styles must be some of {', '.join(STYLES)}, got {tuple(styles)!r}")
    if not 0 <= num_objects[0] <= num_objects[1]:
        raise ValueError(f"num_objects must be (fewest, most), both at least 0, got {num_objects}")
    return np.random.default_rng([SPLITS.index(split), stream, seed])


# ---- actors and their paths ----


def _bounds(size: tuple[int, int]) -> np.ndarray:
    """(2,) width and height of the frame in shorter sides."""
    return np.array([size[1], size[0]]) / min(size)


@cache
def _drawn_nouns(styles: tuple[str, ...]) -> tuple[str, ...]:
    """The nouns that at least one of the styles draws."""
    return tuple(noun for noun in NOUNS if any(noun in load_sprites(style) for style in styles))


def _make_actor(
    rng: np.random.Generator,
    phrase: str,
    props: Props,
    positions: np.ndarray,
    sizes: np.ndarray,
    angles: np.ndarray,
    unit: int,
) -> _Actor:
    drawing = props.drawing(rng, phrase, float(sizes.max()) * unit)
    actor = _Actor(phrase, drawing, positions, sizes, angles, flip=bool(rng.random() < 0.5), depth=float(rng.random()))
    if props.lively:
        actor.sway = _smooth_path(rng, len(positions), 0, float(rng.uniform(0, 0.35)))
        actor.shutter = float(rng.uniform(0, 0.8)) if rng.random() < 0.5 else 0.0
    return actor


def _make_occluder(rng: np.random.Generator, props: Props, num_frames: int) -> _Actor:
    """A textured panel, pole or blob in front of everything."""
    aspect = float(rng.uniform(0.12, 0.7))
    side = 96
    narrow = max(8, round(side * aspect))
    texture = props.background(rng, (side, narrow)).clip(0, 255).astype(np.uint8)
    alpha = np.full((side, narrow), 255, np.uint8)
    if rng.random() < 0.4:
        alpha = np.zeros((side, narrow), np.uint8)
        cv2.ellipse(alpha, (narrow // 2, side // 2), (narrow // 2 - 1, side // 2 - 1), 0, 0, 360, 255, -1, cv2.LINE_AA)
    extent = float(rng.uniform(0.35, 1.1))
    positions = np.repeat(rng.uniform(0.1, 0.9, (1, 2)), num_frames, 0)
    angle = float(rng.choice([0, 90]) + rng.normal(0, 8))
    return _Actor(
        None,
        premultiply(np.dstack([texture, alpha]), longest=side),
        positions,
        np.full(num_frames, extent),
        np.full(num_frames, angle),
        flip=False,
        depth=2.0,
    )


def _cast(
    rng: np.random.Generator,
    num_frames: int,
    size: tuple[int, int],
    props: Props,
    kind: str,
    num_objects: tuple[int, int],
) -> list[_Actor]:
    """Choose a clip's sprites and lay out their paths."""
    bounds, unit = _bounds(size), min(size)
    count = int(rng.integers(num_objects[0], num_objects[1] + 1))
    if kind in ("crossing", "twins"):
        count = max(count, 2)
    elif kind in ("occlusion", "reentry"):
        count = max(count, 1)
    largest = min(0.75, 1.1 / np.sqrt(max(count, 1)))
    actors: list[_Actor] = []
    for _ in range(count):
        extent = _random_extent(rng, 0.12, largest)
        start = _free_position(rng, actors, extent, bounds)
        taken = {actor.phrase for actor in actors}
        phrase = str(rng.choice([noun for noun in props.phrases if noun not in taken] or list(props.phrases)))
        positions = _drift_path(rng, num_frames, start, bounds)
        if kind == "mixed" and rng.random() < 0.3:
            positions = _leave_and_return(rng, positions, extent, bounds)
        sizes = extent * np.exp(_smooth_path(rng, num_frames, 0, 0.25 * rng.random())[:, 0])
        angles = _random_angle(rng)[0] + 40 * rng.random() * _smooth_path(rng, num_frames, 0, 1)[:, 0]
        actors.append(_make_actor(rng, phrase, props, positions, sizes, angles, unit))
    if kind in ("crossing", "twins") or (kind == "mixed" and count >= 2 and rng.random() < 0.6):
        _cross(rng, actors[0], actors[1], bounds)
        if kind == "twins" or (kind == "mixed" and rng.random() < 0.3):
            actors[1].phrase, actors[1].drawing = actors[0].phrase, actors[0].drawing
            if props.lively and rng.random() < 0.5:  # a near twin: of the same kind, not the same
                longest = float(actors[1].sizes.max()) * unit
                actors[1].drawing = props.drawing(rng, str(actors[0].phrase), longest)
            actors[1].sizes = actors[0].sizes * float(rng.uniform(0.85, 1.15))
    if kind == "reentry":
        actors[0].positions = _leave_and_return(rng, actors[0].positions, float(actors[0].sizes.max()), bounds)
    if kind == "occlusion" or (kind == "mixed" and count and rng.random() < 0.5):
        occluder = _make_occluder(rng, props, num_frames)
        _pass_behind(rng, actors[0], occluder)
        actors.append(occluder)
    return actors


def _drift_path(rng: np.random.Generator, num_frames: int, start: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """(T, 2) wandering path that is reflected at the frame's edges."""
    speed = np.exp(rng.uniform(np.log(0.002), np.log(0.03)))
    heading = rng.uniform(0, 2 * np.pi)
    steps = np.arange(num_frames)[:, None] * speed * np.array([np.cos(heading), np.sin(heading)])
    path = start + steps + _smooth_path(rng, num_frames, 0, min(0.15, 8 * speed))
    path -= path[0] - start
    low, high = np.array([0.02, 0.02]), bounds - 0.02
    span = high - low
    folded = np.abs((path - low) % (2 * span))
    return low + np.where(folded > span, 2 * span - folded, folded)


def _smooth_path(rng: np.random.Generator, num_frames: int, centre: float, amplitude: float) -> np.ndarray:
    """(T, 2) sum of two slow sine waves per coordinate, within `centre` ± `amplitude`."""
    time = np.linspace(0, 1, num_frames)[:, None, None]
    phases, rates = rng.uniform(0, 2 * np.pi, (2, 2)), rng.uniform(0.2, 1.5, (2, 2))
    return centre + amplitude * np.sin(2 * np.pi * rates * time + phases).mean(-1)


def _cross(rng: np.random.Generator, one: _Actor, other: _Actor, bounds: np.ndarray) -> None:
    """Lead two actors of similar size along straight lines that meet around the middle of the clip."""
    num_frames = len(one.positions)
    time = np.linspace(0, 1, num_frames)[:, None] - rng.uniform(0.4, 0.6)
    meeting = bounds * rng.uniform(0.4, 0.6, 2)
    heading = rng.uniform(0, 2 * np.pi)
    turn = heading + np.pi + rng.normal(0, 0.5)
    scale = float(np.clip(other.sizes.mean() / one.sizes.mean(), 0.6, 1.6)) * one.sizes.mean() / other.sizes.mean()
    other.sizes = other.sizes * scale
    reach = max(float(rng.uniform(0.6, 1.2)), 1.6 * float(one.sizes.mean()))
    for actor, angle in ((one, heading), (other, turn)):
        direction = np.array([np.cos(angle), np.sin(angle)])
        wobble = _smooth_path(rng, num_frames, 0, 0.03)
        actor.positions = meeting + time * reach * direction + wobble
    if rng.random() < 0.5:
        one.depth, other.depth = other.depth, one.depth


def _leave_and_return(rng: np.random.Generator, path: np.ndarray, extent: float, bounds: np.ndarray) -> np.ndarray:
    """Push a path out over an edge of the frame for a part of the clip and bring it back over that or another edge."""
    time = np.linspace(0, 1, len(path))
    ramp = rng.uniform(0.12, 0.25)
    leave = rng.uniform(0.1, 0.4)
    back = rng.uniform(leave + ramp + 0.05, max(leave + ramp + 0.06, 0.95 - ramp))
    outside = np.where(time < back, (time - leave) / ramp, 1 - (time - back) / ramp).clip(0, 1)
    outside = outside * outside * (3 - 2 * outside)
    exits = np.array([[-extent, np.nan], [bounds[0] + extent, np.nan], [np.nan, -extent], [np.nan, bounds[1] + extent]])
    first, second = exits[rng.integers(4, size=2)]
    if rng.random() < 0.6:
        second = first
    edge = np.where((time < (leave + ramp + back) / 2)[:, None], first, second)
    target = np.where(np.isnan(edge), path, edge)
    return path + outside[:, None] * (target - path)


def _pass_behind(rng: np.random.Generator, actor: _Actor, occluder: _Actor) -> None:
    """Stand the occluder on the actor's path, or move it across, to hide the actor around the middle of the clip."""
    num_frames = len(actor.positions)
    meeting = actor.positions[int(num_frames * rng.uniform(0.35, 0.65))]
    heading = rng.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(heading), np.sin(heading)])
    time = np.linspace(-0.5, 0.5, num_frames)[:, None]
    needed = 1.5 * float(actor.sizes.mean())
    if rng.random() < 0.6:  # wide enough to hide the actor altogether
        height, width = occluder.drawing.shape[:2]
        needed = min(needed * height / width * 0.75, 1.6)
    occluder.sizes = np.full(num_frames, max(float(occluder.sizes[0]), needed))
    if rng.random() < 0.5:
        occluder.positions = meeting + time * rng.uniform(1.2, 2.2) * direction
    else:
        occluder.positions = np.repeat(meeting[None], num_frames, 0)
        actor.positions = meeting + time * rng.uniform(0.9, 1.6) * direction + _smooth_path(rng, num_frames, 0, 0.02)
        occluder.angles = np.full(
            num_frames, np.degrees(np.arctan2(direction[0], direction[1])) + 90 + rng.normal(0, 15)
        )


def _random_extent(rng: np.random.Generator, smallest: float, largest: float) -> float:
    """Half log-uniform, half uniform: small objects are common, large ones not rare."""
    if rng.random() < 0.5:
        return float(np.exp(rng.uniform(np.log(smallest), np.log(largest))))
    return float(rng.uniform(smallest, largest))


def _random_angle(rng: np.random.Generator) -> np.ndarray:
    """(1,) mostly upright, sometimes any angle."""
    return np.array([rng.uniform(-180, 180) if rng.random() < 0.15 else rng.normal(0, 18)])


def _random_stretch(rng: np.random.Generator) -> float:
    return 1.0 if rng.random() < 0.4 else float(np.exp(rng.uniform(np.log(0.55), np.log(1.05))))


def _free_position(rng: np.random.Generator, actors: Sequence[_Actor], extent: float, bounds: np.ndarray) -> np.ndarray:
    """(2,) the candidate that overlaps least with those already placed; now and then simply the first."""
    border = -0.15 * extent if rng.random() < 0.2 else min(0.45 * extent, 0.4)
    candidates = rng.uniform([border, border], bounds - border, (1 if rng.random() < 0.15 else 10, 2))
    if not actors:
        return candidates[0]
    centres = np.stack([actor.positions[0] for actor in actors])
    reaches = 0.45 * (np.array([actor.sizes[0] for actor in actors]) + extent)
    gaps = np.linalg.norm(candidates[:, None] - centres, axis=-1) - reaches
    return candidates[gaps.min(1).argmax()]


# ---- drawing ----


def premultiply(rgba: np.ndarray, longest: float) -> np.ndarray:
    """Colours times alpha, (h, w, 4) float32 in 0..255, shrunk so that the longer side is at most about `longest`
    pixels.

    Shrinking averages areas: sampling a large sprite at few points would alias.
    """
    opacity = rgba[..., 3:].astype(np.float32) / 255
    premultiplied = np.concatenate([rgba[..., :3] * opacity, rgba[..., 3:].astype(np.float32)], -1)
    ratio = longest / max(rgba.shape[:2])
    if ratio >= 1:
        return premultiplied
    height, width = (max(2, round(side * ratio)) for side in rgba.shape[:2])
    return cv2.resize(premultiplied, (width, height), interpolation=cv2.INTER_AREA)


@cache
def _outlined(style: str, phrase: str) -> np.ndarray:
    """A style's (h, w, 4) uint8 drawing with its contours traced in a dark line."""
    sprite = load_sprites(style)[phrase]
    padded = cv2.copyMakeBorder(sprite, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    opacity = padded[..., 3:].astype(np.float32) / 255
    flattened = np.dstack([padded[..., :3] * opacity, padded[..., 3:]]).astype(np.uint8)
    steps = cv2.morphologyEx(flattened, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)).max(-1)[1:-1, 1:-1]
    ink = cv2.dilate(((steps.astype(np.float32) - 40) / 80).clip(0, 1), np.ones((2, 2), np.uint8))[..., None]
    colours = sprite[..., :3] * (1 - ink) + 35 * ink
    return np.dstack([colours.astype(np.uint8), sprite[..., 3]])


def tint(drawing: np.ndarray, rng: np.random.Generator, hue_spread: float) -> np.ndarray:
    """Vary hue (a little, by `hue_spread` degrees, where colours are part of names), saturation and brightness."""
    hue = np.radians(rng.normal(0, hue_spread))
    saturation, brightness = rng.uniform(0.7, 1.1), rng.uniform(0.75, 1.1)
    # rotate and scale around the grey axis (Rodrigues' formula)
    axis = np.full(3, 1 / np.sqrt(3))
    grey = np.outer(axis, axis)
    turn = np.cross(np.eye(3), axis) * np.sin(hue) + np.cos(hue) * (np.eye(3) - grey)
    matrix = np.eye(4)
    matrix[:3, :3] = brightness * (grey + saturation * turn)
    tinted = cv2.transform(drawing, matrix.astype(np.float32))
    return np.clip(tinted, 0, np.maximum(drawing[..., 3:], 0))


@dataclass
class _Placed:
    """An actor as it appears on one frame."""

    rows: slice
    columns: slice
    colour: np.ndarray  # (h, w, 3) float32, premultiplied
    opacity: np.ndarray  # (h, w) float32 in 0..1
    covered: np.ndarray  # (h, w) bool


def _place(actor: _Actor, frame_idx: int, size: tuple[int, int], stretch: float) -> _Placed | None:
    """Turn, scale and move an actor's drawing; None when no part of it is inside the frame."""
    height, width = size
    unit = min(height, width)
    drawing = actor.drawing if actor.sway is None else _bent(actor.drawing, *actor.sway[frame_idx])
    drawn_size = np.array(drawing.shape[1::-1])
    scale = actor.sizes[frame_idx] * unit / drawn_size.max()
    angle = np.radians(actor.angles[frame_idx])
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    linear = np.array([[cos * stretch, -sin * stretch], [sin, cos]])
    if actor.flip:
        linear[:, 0] *= -1
    centre = actor.positions[frame_idx] * unit
    reach = np.abs(linear) @ drawn_size / 2
    left, top = np.maximum(np.floor(centre - reach - 1), 0).astype(int)
    right, bottom = np.minimum(np.ceil(centre + reach + 1), [width, height]).astype(int)
    if right <= left or bottom <= top:
        return None
    offset = centre - [left, top] - linear @ ((drawn_size - 1) / 2)
    drawn = cv2.warpAffine(drawing, np.column_stack([linear, offset]), (int(right - left), int(bottom - top)))
    if actor.shutter:
        before, after = max(frame_idx - 1, 0), min(frame_idx + 1, len(actor.positions) - 1)
        way = (actor.positions[after] - actor.positions[before]) / max(after - before, 1)
        drawn = _smeared(drawn, actor.shutter * unit * way)
    opacity = drawn[..., 3] / 255
    return _Placed(slice(top, bottom), slice(left, right), drawn[..., :3], opacity, opacity > 0.5)


def _bent(drawing: np.ndarray, lean: float, bend: float) -> np.ndarray:
    """Shift a drawing's rows sideways, in proportion to their height (`lean`) and along half a wave (`bend`)."""
    height, width = drawing.shape[:2]
    rows = np.linspace(-0.5, 0.5, height, dtype=np.float32)
    shift = width * (lean * rows + bend * (np.cos(np.pi * rows) - 0.6))
    columns = np.arange(width, dtype=np.float32) + shift[:, None].astype(np.float32)
    return cv2.remap(
        drawing, columns, np.repeat(np.arange(height, dtype=np.float32)[:, None], width, 1), cv2.INTER_LINEAR
    )


def _smeared(drawn: np.ndarray, way: np.ndarray) -> np.ndarray:
    """Blur a drawing along (2,) `way` x, y in pixels."""
    reach = int(np.ceil(np.abs(way).max() / 2))
    if reach < 1:
        return drawn
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for position in np.linspace(-0.5, 0.5, 4 * reach + 1):
        column, row = np.round(reach + position * way).astype(int)
        kernel[row, column] = 1
    return cv2.filter2D(drawn, -1, kernel / kernel.sum(), borderType=cv2.BORDER_CONSTANT)


def _compose(
    canvas: np.ndarray, actors: Sequence[_Actor], placed: Sequence[_Placed | None], shadow: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the actors back to front.

    Returns:
        (H, W, 3) float32 image and (len(actors), H, W) bool visible masks, in the actors' order.
    """
    size = canvas.shape[:2]
    image = canvas.copy()
    owner = np.full(size, -1, np.int16)
    strength, shift, blur = shadow
    for actor_idx in sorted(range(len(actors)), key=lambda index: actors[index].depth):
        sprite = placed[actor_idx]
        if sprite is None:
            continue
        window = (sprite.rows, sprite.columns)
        if strength:
            _cast_shadow(image, sprite, strength, round(shift * min(size)), blur)
        image[window] = image[window] * (1 - sprite.opacity[..., None]) + sprite.colour
        owner[window][sprite.covered] = actor_idx
    return image, owner == np.arange(len(actors), dtype=np.int16)[:, None, None]


def _cast_shadow(image: np.ndarray, sprite: _Placed, strength: float, shift: int, blur: float) -> None:
    height, width = image.shape[:2]
    top, left = sprite.rows.start + shift, sprite.columns.start + shift
    bottom, right = min(sprite.rows.stop + shift, height), min(sprite.columns.stop + shift, width)
    if bottom <= top or right <= left:
        return
    shade = cv2.GaussianBlur(sprite.opacity, (0, 0), blur)[: bottom - top, : right - left, None]
    image[top:bottom, left:right] *= 1 - strength * shade


def _random_shadow(rng: np.random.Generator) -> tuple[float, float, float]:
    """Strength (0 for none), shift as a fraction of the shorter side, blur in pixels."""
    strength = float(rng.uniform(0.15, 0.6)) if rng.random() < 0.4 else 0.0
    return strength, float(rng.uniform(0.005, 0.03)), float(rng.uniform(1, 4))


def _drop_hidden(
    actors: list[_Actor], placed: list[_Placed | None], size: tuple[int, int], stretch: float
) -> tuple[list[_Actor], list[_Placed | None]]:
    """Leave out named actors of which too little is visible, the rearmost first, until all that remain can be seen."""
    kept = sorted((index for index, sprite in enumerate(placed) if sprite is not None), key=lambda i: actors[i].depth)
    needed = {}
    for index in kept:
        actor = actors[index]
        scale = actor.sizes[0] * min(size) / max(actor.drawing.shape[:2])
        whole = (actor.drawing[..., 3] > 127).sum() * scale * scale * stretch
        needed[index] = 0 if actor.phrase is None else max(MIN_VISIBLE_PIXELS, MIN_VISIBLE_FRACTION * whole)
    while True:
        owner = np.full(size, -1, np.int16)
        for index in kept:
            sprite = placed[index]
            if sprite is not None:
                owner[sprite.rows, sprite.columns][sprite.covered] = index
        visible = np.bincount(owner.ravel() + 1, minlength=len(actors) + 1)[1:]
        hidden = [index for index in kept if visible[index] < needed[index]]
        if not hidden:
            break
        kept.remove(hidden[0])
    kept.sort()
    return [actors[index] for index in kept], [placed[index] for index in kept]


def as_scene(image: np.ndarray, masks: np.ndarray, nouns: Sequence[str | None]) -> Scene:
    """The scene of an image and its visible masks, of which those without a noun are left out."""
    named = [index for index, noun in enumerate(nouns) if noun is not None]
    masks = masks[named]
    boxes = np.zeros((len(named), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    phrases = [noun for noun in nouns if noun is not None]
    return Scene(image, masks, boxes, phrases, np.arange(1, len(named) + 1))


# ---- backgrounds and the camera ----


def _background(rng: np.random.Generator, size: tuple[int, int], split: str) -> np.ndarray:
    """(H, W, 3) float32 in 0..255: a base of one kind, then unnamed shapes, bokeh or texture over it."""
    heldout = split == "heldout"
    palette = _palette(rng, heldout)
    height, width = size
    base = rng.choice(["noise", "horizon", "stripes", "tiles", "gradient"])
    gain = float(rng.uniform(0.55, 0.75) if heldout else rng.uniform(0.35, 0.6))
    noise = _fractal_noise(rng, size, gain)
    if base == "horizon":
        rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
        edge = rng.uniform(0.35, 0.7) + 0.12 * (_fractal_noise(rng, (1, width), gain) - 0.5)
        ground = 0.5 + 0.5 * np.tanh((rows - edge) / rng.uniform(0.008, 0.1))
        value = np.clip(0.35 * rows + 0.4 * ground + 0.35 * (noise - 0.5), 0, 1)
    elif base in ("stripes", "tiles"):
        value = _pattern(rng, size, tiles=base == "tiles", warp=noise, heldout=heldout)
        value = np.clip(0.75 * value + 0.35 * noise, 0, 1)
    elif base == "gradient":
        direction = rng.normal(size=2)
        rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
        value = 0.5 + 0.4 * (direction[0] * (rows - 0.5) + direction[1] * (columns - 0.5)) + 0.25 * (noise - 0.5)
    else:
        value = np.clip(0.5 + (noise - 0.5) * rng.uniform(0.8, 2.0), 0, 1)
    canvas = _colourise(value.clip(0, 1).astype(np.float32), palette)
    if rng.random() < 0.5:
        _scatter_shapes(rng, canvas, palette, heldout)
    if rng.random() < 0.3:
        _scatter_bokeh(rng, canvas, palette)
    if rng.random() < 0.5:
        canvas += rng.uniform(4, 28) * (_fractal_noise(rng, size, 0.9) - 0.5)[..., None]
    if rng.random() < 0.35:
        canvas = cv2.GaussianBlur(canvas, (0, 0), float(rng.uniform(0.6, 4)))
    return canvas.clip(0, 255)


def _palette(rng: np.random.Generator, heldout: bool) -> np.ndarray:
    """(K, 3) float32 RGB, dark to light, of neighbouring or opposite hues; hue spread differs between the splits."""
    count = int(rng.integers(3, 6))
    spread = rng.uniform(25, 55) if heldout else rng.choice([8.0, 20.0, 70.0])
    hues = (rng.uniform(0, 180) + rng.normal(0, spread, count)) % 180
    saturations = np.clip(rng.normal(rng.uniform(20, 150), 25, count), 0, 230)
    values = np.sort(rng.uniform(20, 250, count))
    hsv = np.stack([hues, saturations, values], -1).astype(np.uint8)[None]
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0].astype(np.float32)


def _colourise(value: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Map (H, W) in 0..1 through a palette by linear interpolation."""
    knots = np.linspace(0, 255, len(palette))
    table = np.stack([np.interp(np.arange(256), knots, palette[:, channel]) for channel in range(3)], -1)
    return table.astype(np.float32)[(value * 255).astype(np.uint8)]


def _fractal_noise(rng: np.random.Generator, size: tuple[int, int], gain: float) -> np.ndarray:
    """(H, W) float32 in 0..1: octaves of smooth noise, each `gain` times as strong as the coarser one."""
    height, width = size
    total = np.zeros(size, np.float32)
    amplitude, cells = 1.0, int(rng.integers(2, 5))
    while cells < 2 * max(size) and amplitude > 0.02:
        grid = rng.random((min(cells, height) + 1, min(cells, width) + 1), dtype=np.float32)
        total += amplitude * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        amplitude, cells = amplitude * gain, cells * 2
    low, high = total.min(), total.max()
    return (total - low) / max(float(high - low), 1e-6)


def _pattern(
    rng: np.random.Generator, size: tuple[int, int], tiles: bool, warp: np.ndarray, heldout: bool
) -> np.ndarray:
    """(H, W) stripes (planks, fabric) or tiles (bricks, checks), bent by a noise field."""
    height, width = size
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32) / max(size)
    angle = rng.uniform(0, np.pi)
    across = np.cos(angle) * columns + np.sin(angle) * rows + rng.uniform(0, 0.12) * warp
    along = -np.sin(angle) * columns + np.cos(angle) * rows
    frequency = rng.uniform(9, 26) if heldout else rng.uniform(2, 18)
    if tiles:
        row_index = np.floor(across * frequency)
        shifted = along * frequency * rng.uniform(0.4, 1.0) + 0.5 * (row_index % 2)
        shade = np.modf(np.sin(row_index * 12.9898 + np.floor(shifted) * 78.233) * 43758.547)[0]
        joint = (np.abs(across * frequency % 1 - 0.5) > 0.45) | (np.abs(shifted % 1 - 0.5) > 0.46)
        return np.where(joint, 0.1, 0.5 + 0.4 * shade).astype(np.float32)
    wave = np.sin(2 * np.pi * frequency * across)
    return (0.5 + 0.5 * np.tanh(wave * rng.uniform(0.7, 6))).astype(np.float32)


def _scatter_shapes(rng: np.random.Generator, canvas: np.ndarray, palette: np.ndarray, heldout: bool) -> None:
    """Draw unnamed ellipses and polygons, sharp or blurred: things that a prompt does not mean."""
    height, width = canvas.shape[:2]
    layer, cover = canvas.copy(), np.zeros((height, width), np.float32)
    for _ in range(int(rng.integers(2, 9))):
        colour = (
            (palette[rng.integers(len(palette))] * rng.uniform(0.6, 1.3) + rng.normal(0, 15, 3)).clip(0, 255).tolist()
        )
        centre = rng.uniform(0, 1, 2) * [width, height]
        reach = rng.uniform(0.03, 0.3) * min(height, width)
        corners = int(rng.integers(5, 10) if heldout else rng.integers(3, 8))
        if rng.random() < 0.4:
            axes = (int(reach) + 1, int(reach * rng.uniform(0.3, 1)) + 1)
            tilt = float(rng.uniform(0, 180))
            cv2.ellipse(layer, tuple(int(c) for c in centre), axes, tilt, 0, 360, colour, -1, cv2.LINE_AA)
            cv2.ellipse(cover, tuple(int(c) for c in centre), axes, tilt, 0, 360, 1.0, -1)
        else:
            turns = np.sort(rng.uniform(0, 2 * np.pi, corners))
            points = centre + reach * rng.uniform(0.5, 1.2, (corners, 1)) * np.stack([np.cos(turns), np.sin(turns)], -1)
            cv2.fillPoly(layer, [points.astype(np.int32)], colour, cv2.LINE_AA)
            cv2.fillPoly(cover, [points.astype(np.int32)], 1.0)
    if rng.random() < 0.6:
        blur = float(rng.uniform(0.5, 6))
        layer, cover = cv2.GaussianBlur(layer, (0, 0), blur), cv2.GaussianBlur(cover, (0, 0), blur)
    weight = (cover * rng.uniform(0.5, 1))[..., None]
    canvas += weight * (layer - canvas)


def _scatter_bokeh(rng: np.random.Generator, canvas: np.ndarray, palette: np.ndarray) -> None:
    """Add soft discs of light."""
    height, width = canvas.shape[:2]
    light = np.zeros_like(canvas)
    for _ in range(int(rng.integers(4, 16))):
        colour = (palette[-1] * rng.uniform(0.1, 0.5)).tolist()
        centre = tuple(int(c) for c in rng.uniform(0, 1, 2) * [width, height])
        cv2.circle(light, centre, int(rng.uniform(0.02, 0.1) * min(height, width)) + 1, colour, -1, cv2.LINE_AA)
    canvas += cv2.GaussianBlur(light, (0, 0), float(rng.uniform(1, 3)))


@dataclass(frozen=True)
class Look:
    """What the camera does to every frame of a scene."""

    gain: np.ndarray  # (3,) colour cast and exposure
    gamma: float
    blur: float  # pixels, 0 for none
    noise: float  # standard deviation, in grey levels
    jpeg_quality: int | None


def camera_look(rng: np.random.Generator) -> Look:
    return Look(
        gain=rng.uniform(0.75, 1.15) * (1 + 0.06 * rng.standard_normal(3)),
        gamma=float(np.exp(rng.normal(0, 0.15))),
        blur=float(rng.uniform(0.3, 1.1)) if rng.random() < 0.4 else 0.0,
        noise=float(rng.uniform(1, 8)) if rng.random() < 0.5 else 0.0,
        jpeg_quality=int(rng.integers(35, 95)) if rng.random() < 0.3 else None,
    )


def photograph(image: np.ndarray, look: Look, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8 of a float32 0..255 image: exposure, gamma, focus, sensor noise, compression."""
    if look.blur:
        image = cv2.GaussianBlur(image, (0, 0), look.blur)
    image = image * look.gain.astype(np.float32)
    if look.noise:
        image = image + look.noise * rng.standard_normal(image.shape, dtype=np.float32)
    levels = image.clip(0, 255).astype(np.uint8)
    table = (255 * (np.arange(256) / 255) ** look.gamma).round().astype(np.uint8)
    levels = table[levels]
    if look.jpeg_quality is not None:
        encoded = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, look.jpeg_quality])[1]
        levels = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    return levels
