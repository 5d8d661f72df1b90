"""The nano detector: its tokenizer, its training pieces, and the bundled weights on held-out scenes."""

from pathlib import Path

import numpy as np
import pytest
import supervision as sv
import torch
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from grounded_sam2.detectors.huggingface import HuggingFaceDetector
from training.detector import FULL_LEARNING_RATE, dense_loss, full_loss
from training.detector_batches import BATCH_SIZE, Sample, SceneBatches, crop_and_mirror
from training.detector_losses import assign_positions, grounding_loss, match_queries, paired_giou
from training.detector_model import build_training_model, model_config
from training.detector_prompts import ALIASES, MEANINGS, absent_phrases, assemble_prompt, random_phrases
from training.detector_scores import (
    FIRST_TEST_SEED,
    ScoredImage,
    average_precision,
    detect_scenes,
    low_threshold_detect,
    match_boxes,
    score,
)
from training.scenes import NOUNS, UNSEEN_STYLE, Scene, make_scene
from training.tokenizer import FIXED_IDS, build_tokenizer

NANO_FOLDER = Path(__file__).parents[1] / "gdino_checkpoints" / "nano"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return build_tokenizer(tuple(MEANINGS), tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def nano_detector():
    return HuggingFaceDetector(NANO_FOLDER)


# ---- tokenizer and prompts ----


def test_fixed_token_ids(tokenizer):
    for piece, token_id in FIXED_IDS.items():
        assert tokenizer.convert_tokens_to_ids(piece) == token_id


@pytest.mark.parametrize("phrase", [*NOUNS[:3], *ALIASES, "qwertyuiop", "café-van", "3 dogs", "zebra crossing's"])
def test_every_phrase_splits_into_known_pieces(tokenizer, phrase):
    token_ids = tokenizer(phrase, add_special_tokens=False)["input_ids"]
    assert token_ids and tokenizer.unk_token_id not in token_ids


@pytest.mark.parametrize("phrases", [["dog"], ["red apple", "green apple", "qwerty"], []])
def test_assembled_prompt_equals_the_tokenizer(tokenizer, phrases):
    token_ids = {phrase: tokenizer(phrase, add_special_tokens=False)["input_ids"] for phrase in phrases}
    prompt = assemble_prompt(phrases, token_ids)
    assert prompt.input_ids.tolist() == tokenizer(" ".join(f"{phrase}." for phrase in phrases))["input_ids"]
    for phrase, (first, last) in zip(phrases, prompt.spans, strict=True):
        assert tokenizer.decode(prompt.input_ids[first:last]) == phrase


def test_bundled_vocabulary_is_the_recipe_s(tokenizer):
    bundled = AutoProcessor.from_pretrained(NANO_FOLDER, local_files_only=True).tokenizer
    assert bundled.get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize("present", [[], ["dog"], ["red apple", "green apple", "dog"]])
def test_random_phrases_are_distinct_and_have_no_alias_beside_its_noun(present):
    for seed in range(50):
        phrases = random_phrases(np.random.default_rng(seed), present)
        assert 1 <= len(phrases) <= 18 and len(set(phrases)) == len(phrases)
        for phrase in phrases:
            assert not set(ALIASES.get(phrase, ())) & set(phrases)


def test_absent_phrases_mean_no_noun():
    assert not set(absent_phrases()) & set(MEANINGS)
    assert "purple heart" in absent_phrases()


# ---- losses ----


def test_giou_of_known_boxes():
    first = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.25, 0.5, 0.5, 1.0]])
    second = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.75, 0.5, 0.5, 1.0]])
    torch.testing.assert_close(paired_giou(first, second), torch.tensor([1.0, 0.0]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("num_objects", [0, 1, 3])
def test_matching_finds_the_right_queries(num_objects):
    boxes = torch.tensor([[0.2, 0.2, 0.1, 0.1], [0.5, 0.5, 0.3, 0.3], [0.8, 0.2, 0.2, 0.1]])[None]
    valid = torch.arange(3)[None] < num_objects
    object_tokens = torch.eye(3)[None]
    pred_boxes = boxes.flip(1)
    logits = 8 * torch.eye(3)[None].flip(1) - 4
    image_idx, query_idx, object_idx = match_queries(logits, pred_boxes, object_tokens, boxes, valid)
    assert sorted(object_idx.tolist()) == list(range(num_objects))
    assert all(query + obj == 2 for query, obj in zip(query_idx.tolist(), object_idx.tolist(), strict=True))
    mask = torch.ones(1, 3, dtype=torch.bool)
    right = grounding_loss(logits, pred_boxes, mask, object_tokens, boxes, (image_idx, query_idx, object_idx))
    assert torch.isfinite(right)


def test_assignment_gives_each_position_to_one_object():
    centres = torch.stack(torch.meshgrid(torch.arange(8), torch.arange(8), indexing="xy"), -1).view(-1, 2) / 8 + 1 / 16
    boxes = torch.tensor([[[0.26, 0.22, 0.3, 0.3], [0.68, 0.71, 0.4, 0.4], [0.5, 0.5, 0.1, 0.1]]])
    valid = torch.tensor([[True, True, False]])
    pred_boxes = torch.cat([centres, torch.full_like(centres, 0.3)], -1)[None]
    sizes = torch.full_like(centres, 0.3)
    image_idx, position_idx, object_idx = assign_positions(
        centres, sizes, pred_boxes, torch.zeros(1, 3, 64), boxes, valid, per_object=4
    )
    assert torch.bincount(object_idx, minlength=3).tolist() == [4, 4, 0]
    assert len(set(position_idx.tolist())) == len(position_idx) and not image_idx.any()


# ---- batches and training steps ----


@pytest.mark.parametrize("num_objects", [0, 1, 3])
def test_crops_keep_boxes_on_their_objects(num_objects):
    scene = make_scene(3, size=(96, 128), num_objects=(num_objects, num_objects))
    nouns = np.arange(len(scene.phrases))
    num_boxes = 0
    for seed in range(20):
        image = np.zeros((96, 128, 3), np.uint8)
        for x1, y1, x2, y2 in scene.boxes_xyxy.astype(int):
            image[y1:y2, x1:x2] = 255
        crop = crop_and_mirror(np.random.default_rng(seed), Sample(image, scene.boxes_xyxy, nouns))
        assert crop.image.shape == image.shape and len(crop.boxes_xyxy) == len(crop.nouns) <= len(nouns)
        num_boxes += len(crop.boxes_xyxy)
        for x1, y1, x2, y2 in crop.boxes_xyxy.round().astype(int):
            assert crop.image[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].mean() > 240
    assert num_boxes > 10 * len(nouns) or num_objects == 0


@pytest.mark.parametrize("dense", [True, False])
def test_a_training_step_lowers_the_loss(tokenizer, dense):
    torch.manual_seed(0)
    batch = SceneBatches(tokenizer, dense=dense, first_step=0, num_steps=1)[0]
    assert batch["image"].shape[0] == BATCH_SIZE and batch["image"].dtype == np.uint8
    tensors = {name: torch.as_tensor(array) for name, array in batch.items()}
    model = build_training_model(model_config(len(tokenizer)))
    # far below the rate of training, which a random model only stands after a warm-up
    optimizer = torch.optim.AdamW(model.parameters(), lr=FULL_LEARNING_RATE / 10)
    totals = []
    for _ in range(4):
        loss = torch.stack(list((dense_loss if dense else full_loss)(model, tensors).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(loss.item())
    assert totals[-1] < totals[0]


# ---- scoring ----


def _scored(xyxy, confidence, class_id, phrases=("dog", "cat")) -> ScoredImage:
    scene = Scene(
        np.zeros((40, 40, 3), np.uint8),
        np.zeros((2, 40, 40), bool),
        np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32),
        ["dog", "dog"],
        np.array([1, 2]),
    )
    detections = sv.Detections(
        xyxy=np.array(xyxy, np.float32).reshape(-1, 4),
        confidence=np.array(confidence, np.float32),
        class_id=np.array(class_id, int),
    )
    return ScoredImage(scene, list(phrases), detections)


def test_scores_of_known_detections():
    scores = score([_scored([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]], [0.9, 0.8, 0.6], [0, 0, 1])], 0.5)
    assert (scores.recall, scores.precision, scores.false_per_absent_phrase) == (0.5, pytest.approx(1 / 3), 1.0)
    assert scores.ap50 == 0.5
    nothing = score([_scored([], [], [])], 0.5)
    assert (nothing.recall, nothing.precision, nothing.ap50, nothing.num_objects) == (0.0, 0.0, 0.0, 2)


def test_matching_and_average_precision_of_nothing():
    assert match_boxes(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 4))).shape == (0,)
    assert match_boxes(np.ones((2, 4)), np.ones(2), np.zeros((0, 4))).tolist() == [False, False]
    assert average_precision(np.zeros(0), np.zeros(0, bool), 3) == 0.0


# ---- the bundled weights ----


def test_bundled_folder_loads_completely():
    model, loading = AutoModelForZeroShotObjectDetection.from_pretrained(
        NANO_FOLDER, local_files_only=True, output_loading_info=True
    )
    assert not loading["missing_keys"] and not loading["unexpected_keys"] and not loading["mismatched_keys"]
    assert sum(parameter.numel() for parameter in model.parameters()) < 5e6
    assert (NANO_FOLDER / "model.safetensors").stat().st_size < 10e6


def test_bundled_detector_on_an_empty_scene_and_an_unknown_word(nano_detector):
    scene = make_scene(FIRST_TEST_SEED + 1, size=(160, 240), split="heldout", num_objects=(0, 0))
    (detections,) = nano_detector.detect(scene.image, "xylophone quartet. dog.")
    assert detections.xyxy.shape == (0, 4)


@pytest.mark.slow
def test_bundled_detector_keeps_its_level(nano_detector):
    detect = low_threshold_detect(nano_detector)
    seeds = range(FIRST_TEST_SEED, FIRST_TEST_SEED + 60)
    trained = score(detect_scenes(detect, seeds), 0.35)
    assert trained.ap50 >= 0.6 and trained.recall >= 0.55 and trained.precision >= 0.6
    assert trained.false_per_absent_phrase <= 0.1
    assert score(detect_scenes(detect, seeds, (UNSEEN_STYLE,)), 0.35).ap50 >= 0.15
