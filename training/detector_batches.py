"""The nano detector's training stream: composed scenes, mirrored crops of earlier ones, and their prompts."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from training.detector_prompts import ALIASES, MEANINGS, absent_phrases, assemble_prompt, random_phrases
from training.scenes import NOUNS, make_scene

BATCH_SIZE = 8
DENSE_SIZES = ((144, 144), (128, 128), (160, 160), (128, 176), (128, 208))  # (height, width) in pixels: small is fast
FULL_SIZES = ((224, 224), (240, 240), (256, 256), (216, 304), (216, 384))
FULL_SCALE = 1.2  # the full stage's images are enlarged by, as the exported image processor enlarges scored scenes
FRESH_PER_BATCH = 2  # composed for a batch; the others are mirrored crops of earlier ones, as composing is slow
POOL_SIZE = 500  # earlier scenes kept of each size
LARGEST_ZOOM = 1.3  # more of it hides how small objects are in a whole scene
ABSENT_PER_STEP = 10  # absent phrases beside all nouns in a dense step


@dataclass
class Sample:
    """One training image: (H, W, 3) uint8 RGB, (N, 4) float32 xyxy boxes in pixels, (N,) int64 indices into `NOUNS`."""

    image: np.ndarray
    boxes_xyxy: np.ndarray
    nouns: np.ndarray


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
    return Sample(image, visible[kept], sample.nouns[kept])


class SceneBatches(Dataset):
    """The endless training stream: item `index` is the batch of step `first_step + index`.

    A batch holds "image" (B, H, W, 3) uint8 RGB, "boxes" (B, G, 4) float32 cxcywh in 0..1, "valid" (B, G) bool,
    "nouns" (B, G) int64 indices into `NOUNS`, "input_ids", "token_mask" (the tokens that count) and "object_tokens"
    (B, G, T) bool. In the dense stage the prompt is one for all images, ids (1, T). "spans" (B or 1, P, 2) are the
    token ranges of the phrases that an object is told apart from: all nouns in the dense stage, the prompt's phrases in
    the full stage, padded with (0, 0).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, dense: bool, first_step: int, num_steps: int) -> None:
        self.dense = dense
        self.first_step = first_step
        self.num_steps = num_steps
        self.sizes = DENSE_SIZES if dense else FULL_SIZES
        self.pools: dict[tuple[int, int], list[Sample]] = {size: [] for size in self.sizes}
        phrases = [*MEANINGS, *absent_phrases()]
        self.token_ids = dict(zip(phrases, tokenizer(phrases, add_special_tokens=False)["input_ids"], strict=True))

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        step = self.first_step + index
        rng = np.random.default_rng([7, step])
        size = self.sizes[int(rng.integers(len(self.sizes)))]
        samples = self._samples(rng, step, size)
        most = max(1, *(len(sample.nouns) for sample in samples))
        boxes = np.full((BATCH_SIZE, most, 4), 0.5, np.float32)
        valid = np.zeros((BATCH_SIZE, most), bool)
        nouns = np.zeros((BATCH_SIZE, most), np.int64)
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
        batch.update(self._dense_prompt(rng, nouns) if self.dense else self._prompts(rng, nouns, valid))
        return batch

    def _samples(self, rng: np.random.Generator, step: int, size: tuple[int, int]) -> list[Sample]:
        pool = self.pools[size]
        num_fresh = FRESH_PER_BATCH if len(pool) >= 8 * BATCH_SIZE else BATCH_SIZE
        fresh = []
        for image_idx in range(num_fresh):
            kind = rng.random()
            num_objects = (7, 13) if kind < 0.72 else (1, 6) if kind < 0.97 else (0, 0)
            scene = make_scene(step * BATCH_SIZE + image_idx, size=size, num_objects=num_objects)
            nouns = np.array([NOUNS.index(phrase) for phrase in scene.phrases], np.int64)
            fresh.append(Sample(scene.image, scene.boxes_xyxy, nouns))
        repeated = [
            crop_and_mirror(rng, pool[index]) for index in rng.integers(0, max(len(pool), 1), BATCH_SIZE - num_fresh)
        ]
        pool.extend(fresh)
        del pool[:-POOL_SIZE]
        return fresh + repeated

    def _dense_prompt(self, rng: np.random.Generator, nouns: np.ndarray) -> dict[str, np.ndarray]:
        absent = absent_phrases()
        chosen = [absent[index] for index in rng.choice(len(absent), ABSENT_PER_STEP, replace=False)]
        prompt = assemble_prompt([*NOUNS, *ALIASES, *chosen], self.token_ids)
        noun_tokens = phrase_tokens(prompt.phrases, prompt.spans, len(prompt.input_ids))
        return {
            "input_ids": prompt.input_ids[None],
            "token_mask": word_mask(prompt.spans, len(prompt.input_ids))[None],
            "object_tokens": noun_tokens[nouns],
            "spans": np.array([prompt.spans[: len(NOUNS)]], np.int64),
        }

    def _prompts(self, rng: np.random.Generator, nouns: np.ndarray, valid: np.ndarray) -> dict[str, np.ndarray]:
        prompts = []
        for image_nouns, image_valid in zip(nouns, valid, strict=True):
            phrases = random_phrases(rng, [NOUNS[noun] for noun in image_nouns[image_valid]])
            prompts.append(assemble_prompt(phrases, self.token_ids))
        length = max(len(prompt.input_ids) for prompt in prompts)
        input_ids = np.zeros((len(prompts), length), np.int64)
        token_mask = np.zeros((len(prompts), length), bool)
        object_tokens = np.zeros((*nouns.shape, length), bool)
        spans = np.zeros((len(prompts), max(len(prompt.spans) for prompt in prompts), 2), np.int64)
        for image_idx, prompt in enumerate(prompts):
            input_ids[image_idx, : len(prompt.input_ids)] = prompt.input_ids
            token_mask[image_idx, : len(prompt.input_ids)] = True
            noun_tokens = phrase_tokens(prompt.phrases, prompt.spans, length)
            object_tokens[image_idx] = noun_tokens[nouns[image_idx]] & valid[image_idx, :, None]
            spans[image_idx, : len(prompt.spans)] = prompt.spans
        return {"input_ids": input_ids, "token_mask": token_mask, "object_tokens": object_tokens, "spans": spans}


def phrase_tokens(phrases: list[str], spans: list[tuple[int, int]], length: int) -> np.ndarray:
    """(len(NOUNS), length) bool: the tokens of all phrases that mean each noun."""
    tokens = np.zeros((len(NOUNS), length), bool)
    for phrase, (first, last) in zip(phrases, spans, strict=True):
        for noun in MEANINGS.get(phrase, ()):
            tokens[NOUNS.index(noun), first:last] = True
    return tokens


def word_mask(spans: list[tuple[int, int]], length: int) -> np.ndarray:
    """(length,) bool: tokens of phrases, not the separators."""
    mask = np.zeros(length, bool)
    for first, last in spans:
        mask[first:last] = True
    return mask
