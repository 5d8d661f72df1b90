"""The nano detector's training stream: composed scenes, crops of earlier ones, photographs, and their prompts."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from training.detector_names import ALIASES, MAY_ALSO_BE_MATRIX, MEANINGS, NAME_INDEX, NAMES, WORDS_SELDOM_SEEN
from training.detector_photos import PhotoSource, Sample
from training.detector_prompts import absent_phrases, answerable, assemble_prompt, meaning_matrix, random_phrases
from training.scenes import make_scene

BATCH_SIZE = 8
DENSE_SIZES = ((144, 144), (128, 128), (160, 160), (128, 176), (128, 208))  # (height, width) in pixels: small is fast
FULL_SIZES = ((224, 224), (240, 240), (256, 256), (216, 304), (216, 384))
FULL_SCALE = 1.2  # the full stage's images are enlarged by, as the exported image processor enlarges scored scenes
FRESH_PER_BATCH = 2  # composed for a batch; the others are mirrored crops of earlier ones, as composing is slow
POOL_SIZE = 500  # earlier scenes kept of each size
LARGEST_ZOOM = 1.3  # more of it hides how small objects are in a whole scene
ABSENT_PER_STEP = 8  # absent phrases beside all nouns in a dense step
ALIASES_PER_STEP = 14  # of all aliases in a dense step


def crop_and_mirror(rng: np.random.Generator, sample: Sample) -> Sample:
    """Zoom into a random part of an image, mirror it half the time; objects that are mostly cut away are dropped."""
    height, width = sample.image.shape[:2]
    zoom = float(rng.uniform(1, LARGEST_ZOOM))
    shift = rng.uniform(0, 1, 2) * np.array([width, height]) * (1 - zoom)
    matrix = np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]])
    boxes = sample.boxes_xyxy * zoom + np.tile(shift, 2)
    if rng.random() < 0.5:
        matrix[0] = -zoom, 0, width - 1 - shift[0]
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    image = cv2.warpAffine(
        sample.image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    visible = boxes.clip(0, np.array([width, height, width, height])).astype(np.float32)
    area, whole = (np.prod(corners[:, 2:] - corners[:, :2], -1) for corners in (visible, boxes))
    kept = area > 0.3 * whole
    return Sample(image, visible[kept], sample.nouns[kept], sample.labelled, sample.absent)


def drawn_sample(seed: int, size: tuple[int, int], num_objects: tuple[int, int]) -> Sample:
    """A composed scene, about which all is known."""
    scene = make_scene(seed, size=size, num_objects=num_objects)
    nouns = np.array([NAME_INDEX[phrase] for phrase in scene.phrases], np.int64)
    labelled = np.zeros(len(NAMES), bool)
    labelled[nouns] = True
    return Sample(scene.image, scene.boxes_xyxy, nouns, labelled, None)


class SceneBatches(Dataset):
    """The endless training stream: item `index` is the batch of step `first_step + index`.

    A batch holds "image" (B, H, W, 3) uint8 RGB, "boxes" (B, G, 4) float32 cxcywh in 0..1, "valid" (B, G) bool,
    "nouns" (B, G) int64 indices into `NAMES`, "input_ids", "token_mask" (B, T) (the tokens that count) and
    "object_tokens" (B, G, T) bool. In the dense stage the prompt is one for all images, ids (1, L), and T counts only
    its "word_tokens" (T,), not the separators; phrases that an image gives no certain answer about do not count.

    "spans" (B or 1, P, 2) are the token ranges of the phrases that an object is told apart from: all names in the dense
    stage, the prompt's phrases in the full stage, padded with (0, 0); "not_rivals" (B, G, P) bool marks those that an
    object may be called too.

    Args:
        tokenizer: of the model.
        dense: prompts of the dense stage or of the full one.
        first_step: the step of item 0.
        num_steps: the length of the stream.
        photos: mix crops and collages of these photographs in.
        photos_per_batch: images of a batch that are photographs.
        batch_size: images of a batch.
        sizes: (height, width) of the images, one drawn for each batch; full ones are enlarged by `FULL_SCALE`; None
            takes those of the stage.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        dense: bool,
        first_step: int,
        num_steps: int,
        photos: PhotoSource | None = None,
        photos_per_batch: int = 0,
        batch_size: int = BATCH_SIZE,
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self.dense = dense
        self.first_step = first_step
        self.num_steps = num_steps
        self.photos = photos
        self.photos_per_batch = photos_per_batch if photos else 0
        self.batch_size = batch_size
        self.sizes = sizes or (DENSE_SIZES if dense else FULL_SIZES)
        self.pools: dict[tuple[int, int], list[Sample]] = {size: [] for size in self.sizes}
        phrases = list(dict.fromkeys([*MEANINGS, *absent_phrases(), *WORDS_SELDOM_SEEN]))
        self.token_ids = dict(zip(phrases, tokenizer(phrases, add_special_tokens=False)["input_ids"], strict=True))

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        step = self.first_step + index
        rng = np.random.default_rng([7, step])
        size = self.sizes[int(rng.integers(len(self.sizes)))]
        samples = self._samples(rng, step, size)
        if self.photos is not None:
            of_photos = [self.photos.sample(rng, size, mosaic=self.dense) for _ in range(self.photos_per_batch)]
            samples = samples[: self.batch_size - self.photos_per_batch] + of_photos
        most = max(1, *(len(sample.nouns) for sample in samples))
        boxes = np.full((len(samples), most, 4), 0.5, np.float32)
        valid = np.zeros((len(samples), most), bool)
        nouns = np.zeros((len(samples), most), np.int64)
        for image_idx, sample in enumerate(samples):
            count = len(sample.nouns)
            corners = sample.boxes_xyxy / np.array([size[1], size[0], size[1], size[0]], np.float32)
            boxes[image_idx, :count, :2] = (corners[:, :2] + corners[:, 2:]) / 2
            boxes[image_idx, :count, 2:] = corners[:, 2:] - corners[:, :2]
            valid[image_idx, :count] = True
            nouns[image_idx, :count] = sample.nouns
        images = [sample.image for sample in samples]
        if not self.dense:
            images = [cv2.resize(image, None, fx=FULL_SCALE, fy=FULL_SCALE) for image in images]
        batch = {
            "image": np.stack(images),
            "boxes": boxes,
            "valid": valid,
            "nouns": nouns,
        }
        batch.update(
            self._dense_prompt(rng, samples, nouns) if self.dense else self._prompts(rng, samples, nouns, valid)
        )
        return batch

    def _samples(self, rng: np.random.Generator, step: int, size: tuple[int, int]) -> list[Sample]:
        """Drawn scenes, as many as a batch needs."""
        count = self.batch_size - self.photos_per_batch
        pool = self.pools[size]
        share = FRESH_PER_BATCH / BATCH_SIZE
        num_fresh = max(1, round(count * share)) if len(pool) >= 8 * count else count
        num_fresh = min(num_fresh, count)
        fresh = []
        for image_idx in range(num_fresh):
            kind = rng.random()
            num_objects = (7, 13) if kind < 0.72 else (1, 6) if kind < 0.97 else (0, 0)
            fresh.append(drawn_sample(step * BATCH_SIZE + image_idx, size, num_objects))
        repeated = [
            crop_and_mirror(rng, pool[index]) for index in rng.integers(0, max(len(pool), 1), count - num_fresh)
        ]
        pool.extend(fresh)
        del pool[:-POOL_SIZE]
        return fresh + repeated

    def _dense_prompt(
        self, rng: np.random.Generator, samples: Sequence[Sample], nouns: np.ndarray
    ) -> dict[str, np.ndarray]:
        words = absent_phrases() if self.photos is None else WORDS_SELDOM_SEEN
        chosen = [words[index] for index in rng.choice(len(words), ABSENT_PER_STEP, replace=False)]
        only_aliases = [alias for alias in ALIASES if alias not in NAME_INDEX]
        aliases = [
            only_aliases[index]
            for index in rng.choice(len(only_aliases), min(ALIASES_PER_STEP, len(only_aliases)), replace=False)
        ]
        phrases = (*NAMES, *aliases, *chosen)
        prompt = assemble_prompt(phrases, self.token_ids)
        word_tokens = np.flatnonzero(word_mask(prompt.spans, len(prompt.input_ids)))
        spans, length = [(0, 0)] * len(phrases), 0
        for index, (first, last) in enumerate(prompt.spans):
            spans[index] = (length, length + last - first)
            length += last - first
        token_mask = np.zeros((len(samples), length), bool)
        for image_idx, sample in enumerate(samples):
            certain = answerable(phrases, sample.labelled, sample.absent)
            token_mask[image_idx] = word_mask([spans[index] for index in np.flatnonzero(certain)], length)
        return {
            "input_ids": prompt.input_ids[None],
            "word_tokens": word_tokens,
            "token_mask": token_mask,
            "object_tokens": phrase_tokens(phrases, spans, length)[nouns],
            "spans": np.array([spans[: len(NAMES)]], np.int64),
            "not_rivals": MAY_ALSO_BE_MATRIX[nouns],
        }

    def _prompts(
        self, rng: np.random.Generator, samples: Sequence[Sample], nouns: np.ndarray, valid: np.ndarray
    ) -> dict[str, np.ndarray]:
        prompts = []
        for sample in samples:
            phrases = random_phrases(rng, [NAMES[noun] for noun in sample.nouns], absent=sample.absent)
            prompts.append(assemble_prompt(phrases, self.token_ids))
        length = max(len(prompt.input_ids) for prompt in prompts)
        input_ids = np.zeros((len(prompts), length), np.int64)
        token_mask = np.zeros((len(prompts), length), bool)
        object_tokens = np.zeros((*nouns.shape, length), bool)
        spans = np.zeros((len(prompts), max(len(prompt.spans) for prompt in prompts), 2), np.int64)
        not_rivals = np.zeros((*nouns.shape, spans.shape[1]), bool)
        for image_idx, prompt in enumerate(prompts):
            input_ids[image_idx, : len(prompt.input_ids)] = prompt.input_ids
            token_mask[image_idx, : len(prompt.input_ids)] = True
            noun_tokens = phrase_tokens(prompt.phrases, prompt.spans, length)
            object_tokens[image_idx] = noun_tokens[nouns[image_idx]] & valid[image_idx, :, None]
            spans[image_idx, : len(prompt.spans)] = prompt.spans
        return {
            "input_ids": input_ids,
            "token_mask": token_mask,
            "object_tokens": object_tokens,
            "spans": spans,
            "not_rivals": not_rivals,
        }


def phrase_tokens(phrases: Sequence[str], spans: Sequence[tuple[int, int]], length: int) -> np.ndarray:
    """(len(NAMES), length) bool: the tokens of all phrases that mean each name."""
    tokens = np.zeros((len(NAMES), length), bool)
    for means, (first, last) in zip(meaning_matrix(tuple(phrases)), spans, strict=True):
        tokens[means, first:last] = True
    return tokens


def word_mask(spans: Sequence[tuple[int, int]], length: int) -> np.ndarray:
    """(length,) bool: tokens of phrases, not the separators."""
    mask = np.zeros(length, bool)
    for first, last in spans:
        mask[first:last] = True
    return mask
