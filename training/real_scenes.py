"""Scenes with ground truth from real photographs: crops of them, collages of their cut-outs, and clips in which
cut-outs move over photographs or over real footage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from training.photos import Clip, CutOut, Photo, cut_outs
from training.scenes import Footage, Scene, as_scene, camera_look, make_clip, make_scene, photograph, premultiply, tint

MIN_PIXELS = 60  # of an object, after cropping
SPRITE_MARGIN = 0.3  # of a sprite's sides, so that it can bend
FOOTAGE_CHANCE = 0.45  # of a clip to have real footage as its background


class RealScenes:
    """Photographs and clips as a source of scenes; also the `Props` of collages and made clips.

    Args:
        photos: what may be trained on.
        clips: footage that may be trained on.
    """

    lively = True

    def __init__(self, photos: Sequence[Photo], clips: Sequence[Clip]) -> None:
        self.photos = [photo for photo in photos if any(rle is not None for rle in photo.rles)]
        self.backgrounds = list(photos)
        self.clips = list(clips)
        self.cut_outs: dict[str, list[CutOut]] = {}
        for cut_out in cut_outs(photos):
            self.cut_outs.setdefault(cut_out.name, []).append(cut_out)
        # a name's chance grows with the square root of its cut-outs: common things lead, rare ones are not lost
        self.phrases = [name for name, found in self.cut_outs.items() for _ in range(round(len(found) ** 0.5))]
        self.footage_chance = 0.0

    def photo_scene(self, rng: np.random.Generator, size: tuple[int, int]) -> Scene:
        """A random crop of a photograph with an object on it, flipped and recoloured at random, squeezed into (height,
        width)."""
        while True:
            photo = self.photos[int(rng.integers(len(self.photos)))]
            rows, columns = random_crop(rng, photo.size)
            flip = bool(rng.random() < 0.5)
            masks, phrases = [], []
            for index, noun in enumerate(photo.names):
                mask = None if photo.crowd[index] else photo.mask(index)
                if mask is not None and mask[rows, columns].sum() >= MIN_PIXELS:
                    masks.append(fitted(mask[rows, columns].astype(np.uint8), size, flip).astype(bool))
                    phrases.append(noun)
            if masks:
                break
        image = fitted(photo.image[rows, columns], size, flip).astype(np.float32)
        return as_scene(photograph(image, camera_look(rng), rng), np.stack(masks), phrases)

    def collage(self, seed: int, size: tuple[int, int]) -> Scene:
        """Cut-outs over a photograph, or more rarely over a procedural background."""
        self.footage_chance = 0.0
        return make_scene(seed, size, num_objects=(1, 7), extents=(0.12, 0.9), props=self)

    def clip(self, seed: int, num_frames: int, size: tuple[int, int], kind: str, with_footage: bool) -> Iterator[Scene]:
        """Frames of a clip: cut-outs that move over a photograph, or over footage whose object is one of the clip's."""
        self.footage_chance = float(with_footage)
        num_objects = (0, 2) if with_footage and kind not in ("crossing", "twins") else (2, 4)
        return make_clip(seed, num_frames, size, kind=kind, num_objects=num_objects, props=self)

    # ---- props ----

    def drawing(self, rng: np.random.Generator, phrase: str, longest: float) -> np.ndarray:
        """See `Props`."""
        candidates = self.cut_outs[phrase]
        sprite = candidates[int(rng.integers(len(candidates)))].rgba()
        drawing = tint(premultiply(sprite, longest), rng, hue_spread=12)
        margins = [round(SPRITE_MARGIN / 2 * side) for side in drawing.shape[:2]]
        return cv2.copyMakeBorder(
            drawing, margins[0], margins[0], margins[1], margins[1], cv2.BORDER_CONSTANT, value=(0, 0, 0, 0)
        )

    def background(self, rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
        """See `Props`."""
        photo = self.backgrounds[int(rng.integers(len(self.backgrounds)))]
        rows, columns = random_crop(rng, photo.size)
        return fitted(photo.image[rows, columns], size, bool(rng.random() < 0.5)).astype(np.float32)

    def footage(self, rng: np.random.Generator, num_frames: int, size: tuple[int, int]) -> Footage | None:
        """See `Props`: consecutive frames, or every second or third, forwards or backwards, cropped and flipped alike;
        a clip that is too short goes back and forth."""
        if not self.clips or rng.random() >= self.footage_chance:
            return None
        clip = self.clips[int(rng.integers(len(self.clips)))]
        stride = int(rng.choice([1, 1, 2, 3]))
        start = int(rng.integers(len(clip)))
        steps = (start + stride * np.arange(num_frames)) % (2 * len(clip) - 2)
        frame_indices = np.where(steps < len(clip), steps, 2 * len(clip) - 2 - steps)
        rows, columns = random_crop(rng, clip.frame(0).shape[:2], smallest=0.5)
        flip = bool(rng.random() < 0.5)
        images = [fitted(clip.frame(index)[rows, columns], size, flip) for index in frame_indices]
        masks = [fitted(clip.mask(index)[rows, columns].astype(np.uint8), size, flip) for index in frame_indices]
        return Footage(images, [mask[None].astype(bool) for mask in masks], [clip.noun])


def random_crop(rng: np.random.Generator, size: tuple[int, int], smallest: float = 0.35) -> tuple[slice, slice]:
    """Rows and columns of a random part of (height, width), at least `smallest` of the area, of about its shape; of
    all of it with the chance of one half, so that what is small is seen small."""
    if rng.random() < 0.5:
        return slice(0, size[0]), slice(0, size[1])
    area, shape = rng.uniform(smallest, 1.0), np.exp(rng.uniform(-0.35, 0.35))
    height, width = (min(1.0, np.sqrt(area * ratio)) for ratio in (shape, 1 / shape))
    top, left = rng.random() * (1 - height), rng.random() * (1 - width)
    return (
        slice(int(top * size[0]), max(int((top + height) * size[0]), int(top * size[0]) + 8)),
        slice(int(left * size[1]), max(int((left + width) * size[1]), int(left * size[1]) + 8)),
    )


def fitted(image: np.ndarray, size: tuple[int, int], flip: bool) -> np.ndarray:
    """An image resized to (height, width) and perhaps mirrored; a uint8 mask of zeros and ones stays one."""
    height, width = size
    if image.ndim == 2:
        resized = (cv2.resize(image * 255, (width, height), interpolation=cv2.INTER_LINEAR) > 127).astype(np.uint8)
    else:
        shrinks = image.shape[0] * image.shape[1] > height * width
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.ascontiguousarray(resized[:, ::-1]) if flip else resized
