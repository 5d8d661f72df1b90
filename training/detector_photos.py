"""Training images of real things: crops of photographs, mosaics of them, and cut-outs pasted over both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from pycocotools import mask as rle_codec

from training.detector_names import NAMES
from training.detector_prompts import absent_names, labelled_names, name_index
from training.photos import Clip, CutOut, Photo, cut_outs

OFTEN = 400  # photographs: a name that fewer show is drawn more often
LEAST_OFTEN, MOST_OFTEN = 0.7, 1.5  # times: a larger range learns rare names, and the frequent ones more slowly
FRAMES_PER_CLIP = 6
SPRITE_SIDE = 192  # pixels, the longer side of a kept cut-out
LEAST_VISIBLE = 0.35  # of an object's box, for it to stay labelled in a crop
MOST_COVERED = 0.6  # of an object's box by something pasted over it
SMALLEST_BOX = 7.0  # pixels, the longer side of a box worth learning


@dataclass
class Sample:
    """One training image.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes_xyxy: (N, 4) float32 in pixels.
        nouns: (N,) int64 indices into `NAMES`.
        labelled: (len(NAMES),) bool, names of which all objects are in `boxes_xyxy`, as far as is known.
        absent: (len(NAMES),) bool, names that the image surely does not show; None for a drawn scene, about which all
            is known.
    """

    image: np.ndarray
    boxes_xyxy: np.ndarray
    nouns: np.ndarray
    labelled: np.ndarray
    absent: np.ndarray | None


def clip_photos(clips: Sequence[Clip], per_clip: int = FRAMES_PER_CLIP) -> list[Photo]:
    """Frames of the training clips in which one thing is masked, as photographs of which only that is known."""
    photos = []
    for clip in clips:
        if clip.split != "train" or not clip.single_noun:
            continue
        for frame_idx in np.linspace(0, len(clip) - 1, per_clip).astype(int):
            mask = clip.mask(frame_idx)
            if not mask.any():
                continue
            rle = rle_codec.encode(np.asfortranarray(mask.astype(np.uint8)))
            x, y, width, height = rle_codec.toBbox(rle)
            photos.append(
                Photo(
                    name=f"clip_{clip.name}_{frame_idx}",
                    jpeg=clip.frame_files[frame_idx],
                    size=mask.shape,
                    names=[clip.noun],
                    boxes_xyxy=np.array([[x, y, x + width, y + height]], np.float32),
                    rles=[rle],
                    kinds=[None],
                    crowd=np.zeros(1, bool),
                    complete=False,
                    licence=clip.licence,
                )
            )
    return photos


class PhotoSource:
    """Draws training samples from photographs.

    Args:
        photos: those to learn from.
    """

    def __init__(self, photos: Sequence[Photo]) -> None:
        self.photos = [photo for photo in photos if photo.names]
        self._labelled = [labelled_names(photo) for photo in self.photos]
        self._absent = [absent_names(photo) for photo in self.photos]
        self._objects = [_usable_objects(photo) for photo in self.photos]
        shown = np.array(self._labelled).sum(0)
        repeats = np.clip(np.sqrt(OFTEN / np.maximum(shown, 1)), LEAST_OFTEN, MOST_OFTEN)
        weights = np.array(
            [float(repeats[nouns].max()) if len(nouns) else 0.3 for _, nouns in self._objects], np.float64
        )
        self._cumulative = np.cumsum(weights / weights.sum())
        sprites: dict[int, list[CutOut]] = {}
        for cut_out in cut_outs(self.photos):
            index = name_index(cut_out.name)
            if index is not None:
                sprites.setdefault(index, []).append(cut_out)
        self._sprites = sprites
        self._sprite_names = np.array(sorted(sprites))
        counts = np.array([len(sprites[index]) for index in self._sprite_names], np.float64)
        chances = np.minimum(counts, 300) ** 0.7
        self._sprite_chances = chances / chances.sum()
        self._drawings: dict[tuple[str, int], np.ndarray] = {}

    def sample(self, rng: np.random.Generator, size: tuple[int, int], mosaic: bool) -> Sample:
        """One image of `size` (height, width): a crop, or with `mosaic` often several crops; cut-outs over it."""
        height, width = size
        tiles = _tiles(rng, height, width) if mosaic else [(0, 0, height, width)]
        image = np.empty((height, width, 3), np.uint8)
        boxes, nouns = [], []
        labelled, absent = np.zeros(len(NAMES), bool), np.ones(len(NAMES), bool)
        for top, left, bottom, right in tiles:
            index = min(int(np.searchsorted(self._cumulative, rng.random())), len(self.photos) - 1)
            tile, tile_boxes, tile_nouns = self._view(rng, index, (bottom - top, right - left))
            image[top:bottom, left:right] = tile
            boxes.append(tile_boxes + np.array([left, top, left, top], np.float32))
            nouns.append(tile_nouns)
            labelled |= self._labelled[index]
            absent &= self._absent[index] | self._labelled[index]
        all_boxes, all_nouns = np.concatenate(boxes), np.concatenate(nouns)
        for _ in range(int(rng.choice(4, p=(0.45, 0.3, 0.15, 0.1)))):
            all_boxes, all_nouns = self._paste(rng, image, all_boxes, all_nouns)
        labelled[all_nouns] = True
        image = change_colours(rng, image)
        large = (all_boxes[:, 2:] - all_boxes[:, :2]).max(-1, initial=0.0) >= SMALLEST_BOX
        return Sample(image, all_boxes[large], all_nouns[large], labelled, absent & ~labelled)

    def _view(
        self, rng: np.random.Generator, index: int, size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A random crop of a photograph, scaled, stretched a little, mirrored half the time."""
        photo = self.photos[index]
        boxes, nouns = self._objects[index]
        height, width = size
        cover = max(height / photo.size[0], width / photo.size[1])
        fit = min(height / photo.size[0], width / photo.size[1])
        scale = float(np.exp(rng.uniform(np.log(fit * 0.9), np.log(cover * 1.7))))
        stretch = float(np.exp(rng.uniform(-0.2, 0.2)))
        scale_xy = np.array([scale * stretch**0.5, scale / stretch**0.5])
        whole = np.array([photo.size[1], photo.size[0]]) * scale_xy
        room = whole - np.array([width, height])  # negative: padded
        shift = -room * rng.uniform(0, 1, 2)
        if len(boxes) and rng.random() < 0.7:  # keep an object in sight
            corners = boxes[int(rng.integers(len(boxes)))]
            centre = rng.uniform(corners[:2], corners[2:]) * scale_xy
            wanted = np.array([width, height]) * rng.uniform(0.25, 0.75, 2) - centre
            shift = np.clip(wanted, np.minimum(-room, 0), np.maximum(-room, 0))
        matrix = np.array([[scale_xy[0], 0, shift[0]], [0, scale_xy[1], shift[1]]])
        moved = boxes * np.tile(scale_xy, 2) + np.tile(shift, 2)
        if rng.random() < 0.5:
            matrix[0] = -matrix[0, 0], 0, width - 1 - matrix[0, 2]
            moved[:, [0, 2]] = width - moved[:, [2, 0]]
        picture = photo.half_image if scale < 0.5 else photo.image
        matrix[:, :2] *= photo.size[1] / picture.shape[1]
        if (left := scale * photo.size[1] / picture.shape[1]) < 0.65:  # warping alone would alias
            width_height = max(int(picture.shape[1] * left), 8), max(int(picture.shape[0] * left), 8)
            smaller = cv2.resize(picture, width_height, interpolation=cv2.INTER_AREA)
            matrix[:, :2] *= picture.shape[1] / smaller.shape[1]
            picture = smaller
        grey = tuple(int(value) for value in rng.integers(60, 190, 3))
        view = cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=grey)
        visible = moved.clip(0, np.array([width, height, width, height])).astype(np.float32)
        area, full = (np.prod(corners[:, 2:] - corners[:, :2], -1) for corners in (visible, moved))
        kept = area > LEAST_VISIBLE * full
        return view, visible[kept], nouns[kept]

    def _paste(
        self, rng: np.random.Generator, image: np.ndarray, boxes: np.ndarray, nouns: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Put a cut-out over the image, in place; objects that it hides lose their boxes."""
        name = int(rng.choice(self._sprite_names, p=self._sprite_chances))
        sprite = self._drawing(self._sprites[name][int(rng.integers(len(self._sprites[name])))])
        height, width = image.shape[:2]
        extent = min(height, width) * float(np.exp(rng.uniform(np.log(0.18), np.log(0.8))))
        scale = extent / max(sprite.shape[:2])
        if scale < 0.7:
            sprite = cv2.resize(sprite, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            scale = 1.0
        angle = float(rng.normal(0, 10))
        matrix = cv2.getRotationMatrix2D((sprite.shape[1] / 2, sprite.shape[0] / 2), angle, scale)
        centre = rng.uniform(0.1, 0.9, 2) * (width, height)
        matrix[:, 2] += centre - np.array([sprite.shape[1] / 2, sprite.shape[0] / 2])
        if rng.random() < 0.5:
            sprite = np.ascontiguousarray(sprite[:, ::-1])
        placed = cv2.warpAffine(sprite, matrix, (width, height), flags=cv2.INTER_LINEAR)
        solid = placed[..., 3] > 127
        rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
        if len(rows) < 4 or len(columns) < 4:
            return boxes, nouns
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        part = slice(top, bottom), slice(left, right)
        colours = change_colours(rng, np.ascontiguousarray(placed[part][..., :3]), chance_of_blur=0.0)
        alpha = placed[part][..., 3:].astype(np.float32) / 255
        image[part] = (image[part] * (1 - alpha) + colours * alpha).astype(np.uint8)
        covered = np.array(
            [solid[y1:y2, x1:x2].mean() if y2 > y1 and x2 > x1 else 1.0 for x1, y1, x2, y2 in boxes.astype(int)]
        )
        kept = covered <= MOST_COVERED if len(boxes) else np.zeros(0, bool)
        box = np.array([[left, top, right, bottom]], np.float32)
        return np.concatenate([boxes[kept], box]), np.concatenate([nouns[kept], [name]])

    def _drawing(self, cut_out: CutOut) -> np.ndarray:
        """A cut-out's RGBA, made smaller and kept."""
        key = cut_out.photo.name, cut_out.index
        if key not in self._drawings:
            drawing = cut_out.rgba()
            scale = SPRITE_SIDE / max(drawing.shape[:2])
            if scale < 1:
                drawing = cv2.resize(drawing, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            self._drawings[key] = drawing
        return self._drawings[key]


def _usable_objects(photo: Photo) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 4) and names (N,) of a photograph's single objects with a name that the detector learns."""
    indices = [name_index(name) for name in photo.names]
    kept = [
        position
        for position, index in enumerate(indices)
        if index is not None and photo.kinds[position] != "region" and not photo.crowd[position]
    ]
    nouns = np.array([indices[position] for position in kept], np.int64)
    return photo.boxes_xyxy[kept].reshape(-1, 4), nouns


def _tiles(rng: np.random.Generator, height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Split an image into one, two or four tiles (top, left, bottom, right)."""
    kind = rng.random()
    middle_y, middle_x = int(height * rng.uniform(0.35, 0.65)), int(width * rng.uniform(0.35, 0.65))
    if kind < 0.35:
        return [(0, 0, height, width)]
    if kind < 0.5:
        return [(0, 0, height, middle_x), (0, middle_x, height, width)]
    if kind < 0.6:
        return [(0, 0, middle_y, width), (middle_y, 0, height, width)]
    rows, columns = ((0, middle_y), (middle_y, height)), ((0, middle_x), (middle_x, width))
    return [(top, left, bottom, right) for top, bottom in rows for left, right in columns]


def change_colours(rng: np.random.Generator, image: np.ndarray, chance_of_blur: float = 0.15) -> np.ndarray:
    """Change brightness, contrast, saturation and hue, sometimes take all colour away, sometimes blur."""
    if rng.random() < 0.8:
        gain = rng.uniform(0.7, 1.3) * rng.uniform(0.92, 1.08, 3)
        offset = rng.uniform(-25, 25) + 128 * (1 - gain.mean()) * rng.random()
        ramp = np.arange(256)[:, None] * gain + offset
        image = cv2.LUT(image, ramp.clip(0, 255).astype(np.uint8)[:, None, :])
        saturation = float(rng.uniform(0.5, 1.4)) if rng.random() > 0.06 else 0.0
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        image = cv2.addWeighted(image, saturation, grey, 1 - saturation, 0)
    if rng.random() < chance_of_blur:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.3)))
    return image
