"""The nano detector: its tokenizer, its training pieces, and the bundled weights on held-out scenes."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import supervision as sv
import torch
from pycocotools import mask as rle_codec
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from grounded_sam2.detectors.huggingface import HuggingFaceDetector
from training.detector import FULL_LEARNING_RATE, SHARES_AT, StepKind, Trainer, dense_loss, full_loss
from training.detector_batches import BATCH_SIZE, Sample, SceneBatches, crop_and_mirror
from training.detector_losses import assign_positions, grounding_loss, match_queries, naming_loss, paired_giou
from training.detector_model import STRIDES, build_training_model, grow_from, model_config, take_over
from training.detector_names import (
    ALIASES,
    COMMON_NAMES,
    DRAWN_PHRASES,
    LATER_PHRASES,
    MAY_ALSO_BE,
    MEANINGS,
    NAME_INDEX,
    NAMES,
    UNSEEN_PHRASES,
    WORDS_SELDOM_SEEN,
)
from training.detector_photos import PhotoSource, clip_photos
from training.detector_prompts import (
    absent_names,
    absent_phrases,
    answerable,
    assemble_prompt,
    labelled_names,
    random_phrases,
)
from training.detector_scores import (
    FIRST_TEST_SEED,
    ScoredImage,
    ScoredPhoto,
    average_precision,
    best_threshold,
    detect_scenes,
    low_threshold_detect,
    match_boxes,
    photo_prompt,
    score,
    score_photos,
)
from training.photos import Clip, Photo
from training.scenes import NOUNS, UNSEEN_STYLE, Scene, make_scene
from training.tokenizer import FIXED_IDS, OBJECT_WORDS, build_tokenizer

NANO_FOLDER = Path(__file__).parents[1] / "gdino_checkpoints" / "nano"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return build_tokenizer(DRAWN_PHRASES, tmp_path_factory.mktemp("tokenizer"), LATER_PHRASES)


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
    assert bundled.get_vocab().items() <= tokenizer.get_vocab().items()  # words are only ever appended


def test_every_word_of_a_name_is_one_piece(tokenizer):
    for phrase in (*NAMES, *ALIASES):
        assert len(tokenizer(phrase, add_special_tokens=False)["input_ids"]) == len(phrase.split("-")[0].split())


def test_names_are_consistent():
    assert NAMES[: len(NOUNS)] == tuple(NOUNS) and len(NAME_INDEX) == len(NAMES)
    for names in (*MEANINGS.values(), *MAY_ALSO_BE.values(), MAY_ALSO_BE, COMMON_NAMES):
        assert set(names) <= set(NAMES)
    assert not set(WORDS_SELDOM_SEEN) & set(MEANINGS)
    trained_words = {word for phrase in (*MEANINGS, *WORDS_SELDOM_SEEN, *OBJECT_WORDS) for word in phrase.split()}
    assert not {word for phrase in UNSEEN_PHRASES for word in phrase.split()} & (trained_words - {"machine"})


# ---- what photographs tell about phrases ----


def photo(name="voc_1", names=(), boxes=(), complete=True, crowd=(), image=None, rles=None) -> Photo:
    image = np.full((90, 120, 3), 128, np.uint8) if image is None else image
    return Photo(
        name=name,
        jpeg=cv2.imencode(".jpg", image[..., ::-1])[1].tobytes(),
        size=image.shape[:2],
        names=list(names),
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        rles=list(rles or [None] * len(names)),
        kinds=[None] * len(names),
        crowd=np.array(crowd or [False] * len(names), bool),
        complete=complete,
        licence="",
    )


@pytest.mark.parametrize(
    ("one", "phrase", "expected"),
    [
        (photo(names=["dog"], boxes=[[0, 0, 9, 9]]), "dog", True),
        (photo(), "dog", True),  # complete: surely no dog
        (photo(name="wild_1", complete=False), "dog", False),  # there may be one
        (photo(name="wild_1", complete=False), "elephant", True),  # it would be what the photograph is of
        (photo(), "cup", False),  # not in that set's vocabulary
        (photo(), "red car", True),  # no car at all
        (photo(), "car", True),
        (photo(names=["car"], boxes=[[0, 0, 9, 9]]), "red car", False),
        (photo(names=["car"], boxes=[[0, 0, 9, 9]]), "car", True),
        (photo(names=["car"], boxes=[[0, 0, 9, 9]]), "automobile", True),
        (photo(name="coco_1", names=["handbag"], boxes=[[0, 0, 9, 9]]), "bag", False),
        (photo(), "ghost", True),
        (photo(), "dragon", True),
        (photo(), "umbrella stand", False),  # neither a name nor seldom seen
        (None, "umbrella stand", True),  # a drawn scene shows what it was told to
    ],
)
def test_answerable(one, phrase, expected):
    labelled = np.zeros(len(NAMES), bool) if one is None else labelled_names(one)
    absent = None if one is None else absent_names(one)
    assert answerable((phrase,), labelled, absent).tolist() == [expected]


def test_prompts_for_photographs_ask_only_what_is_known():
    one = photo(names=["person", "car"], boxes=[[0, 0, 9, 9], [20, 20, 50, 40]])
    for seed in range(100):
        phrases = random_phrases(np.random.default_rng(seed), one.names, absent=absent_names(one))
        assert phrases and answerable(tuple(phrases), labelled_names(one), absent_names(one)).all()


# ---- samples of photographs ----


@pytest.fixture(scope="module")
def photo_source():
    """A red square named "dog", masked, and a blue one named "cat", on grey."""
    image = np.full((90, 120, 3), 128, np.uint8)
    image[20:70, 10:60], image[10:30, 80:110] = (255, 0, 0), (0, 0, 255)
    mask = np.zeros((90, 120), np.uint8)
    mask[20:70, 10:60] = 1
    rle = rle_codec.encode(np.asfortranarray(mask))
    boxes = [[10, 20, 60, 70], [80, 10, 110, 30]]
    photos = [photo(f"voc_{index}", ["dog", "cat"], boxes, image=image, rles=[rle, None]) for index in range(3)]
    return PhotoSource(photos)


@pytest.mark.parametrize("mosaic", [True, False])
def test_photo_samples_keep_boxes_on_their_objects(photo_source, mosaic):
    for seed in range(30):
        sample = photo_source.sample(np.random.default_rng(seed), (96, 128), mosaic)
        assert sample.image.shape == (96, 128, 3) and sample.image.dtype == np.uint8
        assert len(sample.boxes_xyxy) == len(sample.nouns) and sample.absent is not None
        assert sample.boxes_xyxy.min(initial=0) >= 0 and (sample.boxes_xyxy <= (128, 96, 128, 96)).all()
        assert sample.labelled[sample.nouns].all() and not (sample.labelled & sample.absent).any()
        assert not sample.absent[NAME_INDEX["cup"]] and sample.absent[NAME_INDEX["sheep"]]


@pytest.mark.parametrize("dense", [True, False])
def test_batches_of_photographs_can_be_learnt_from(tokenizer, photo_source, dense):
    batch = SceneBatches(tokenizer, dense, 0, 1, photo_source, 2, 3, ((112, 144),))[0]
    assert len(batch["image"]) == len(batch["boxes"]) == len(batch["token_mask"]) == 3
    tensors = {name: torch.as_tensor(array) for name, array in batch.items()}
    torch.manual_seed(0)
    model = build_training_model(model_config(len(tokenizer)))
    losses = (dense_loss if dense else full_loss)(model, tensors)
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    if dense:
        sheep = batch["spans"][0, NAME_INDEX["cup"]]
        assert batch["token_mask"][0, slice(*sheep)].all()  # of the drawn scene, all is known
        assert not batch["token_mask"][1:, slice(*sheep)].any()


def test_frames_of_training_clips_are_photographs():
    encode = lambda image: cv2.imencode(".png", image)[1].tobytes()  # noqa: E731
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:50] = 1
    frames, masks = [encode(np.zeros((40, 60, 3), np.uint8))] * 5, [encode(mask)] * 4 + [encode(mask * 0)]
    clips = [Clip("a", "dog", True, split, frames, masks, "") for split in ("train", "val")]
    frames_of_a = clip_photos(clips, per_clip=3)
    assert [one.name for one in frames_of_a] == ["clip_a_0", "clip_a_2"]
    assert frames_of_a[0].boxes_xyxy.tolist() == [[20, 10, 50, 30]] and not frames_of_a[0].vocabulary


# ---- growing ----


@pytest.fixture
def no_published_weights(monkeypatch):
    """Trunks start from random weights: the published ones are a package that only training needs."""
    monkeypatch.setattr("training.detector.load_trunk", lambda trunk: None)


@pytest.fixture
def inputs():
    return {
        "pixel_values": torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0)),
        "input_ids": torch.tensor([[101, 500, 1012, 600, 1012, 102]]),
        "attention_mask": torch.ones(1, 6, dtype=torch.long),
    }


def test_a_model_with_more_words_computes_the_same(tokenizer, inputs):
    torch.manual_seed(0)
    small = build_training_model(model_config(len(tokenizer) - 5)).eval()
    grown = build_training_model(model_config(len(tokenizer))).eval()
    grow_from(grown, small.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(grown(**inputs).pred_boxes, small(**inputs).pred_boxes, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="expected weights of a nano detector, got elsewhere"):
        grow_from(small, {"elsewhere": torch.zeros(1)})


def test_what_is_taken_over_from_a_model_with_another_trunk(tokenizer):
    """Here the trunks are alike, so that the projections can become what they were."""
    torch.manual_seed(0)
    earlier, model = (build_training_model(model_config(len(tokenizer))).eval() for _ in range(2))
    before, after = (each.model.backbone.conv_encoder.model for each in (earlier, model))
    for convolution in before.modules():
        if isinstance(convolution, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(
                convolution.weight
            )  # with weaker ones nothing of the image is left at the end
    after.load_state_dict(before.state_dict())
    images = torch.randn(3, 2, 3, 192, 256, generator=torch.Generator().manual_seed(1))
    explained = take_over(model, earlier, images)
    assert len(explained) == len(STRIDES) and min(explained) > 0.95 and max(explained) <= 1
    fitted = {f"model.input_proj_vision.{level}.0.{kind}" for level in range(3) for kind in ("weight", "bias")}
    for name, tensor in earlier.state_dict().items():
        assert name in fitted or torch.equal(model.state_dict()[name], tensor), name
    with torch.no_grad():
        for level, features in enumerate(before(images[0]).feature_maps):
            expected = earlier.model.input_proj_vision[level][0](features)
            found = model.model.input_proj_vision[level][0](features)
            assert (found - expected).square().mean() < 0.05 * expected.var()


def test_edges_and_colours_are_not_learnt_again(tokenizer):
    model = build_training_model(model_config(len(tokenizer)))
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert frozen and all("trunk.stem" in name or "trunk.levels.0." in name for name in frozen)


@pytest.mark.usefixtures("no_published_weights")
def test_training_on_photographs_survives_an_interruption(tokenizer, photo_source, tmp_path, monkeypatch):
    kinds = tuple(StepKind(is_dense, 1, 1, ((96, 128),), (0.5,) * len(SHARES_AT)) for is_dense in (True, False))
    monkeypatch.setattr("training.detector.STEP_KINDS", kinds)
    trainer = Trainer(tokenizer, tmp_path, torch.device("cpu"))
    trainer.train_on_photos(photo_source, 0.02, num_workers=0, batch_scale=1)
    assert trainer.step > 0 and (tmp_path / "detector.pt").exists()
    resumed = Trainer(tokenizer, tmp_path, torch.device("cpu"))
    assert (resumed.step, resumed.stage, resumed.seconds) == (trainer.step, "photos", trainer.seconds)
    resumed.train_on_photos(photo_source, 0.02, num_workers=0, batch_scale=1)  # has had its time
    assert resumed.step == trainer.step


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


def test_naming_has_several_right_answers_and_leaves_doubtful_ones_out():
    logits = torch.tensor([[[2.0, 2.0, 5.0]]])
    spans = torch.tensor([[[0, 1], [1, 2], [2, 3]]])
    object_tokens = torch.tensor([[[True, True, False]]])
    assigned = (torch.tensor([0]), torch.tensor([0]), torch.tensor([0]))
    doubtful = torch.tensor([[[False, False, True]]])
    assert naming_loss(logits, spans, object_tokens, assigned, doubtful).item() == pytest.approx(0, abs=1e-5)
    assert naming_loss(logits, spans, object_tokens, assigned).item() > 2


def test_tokens_that_do_not_count_add_nothing_to_the_loss():
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.2]]])
    mask = torch.tensor([[True, False]])
    tokens = torch.tensor([[[True, True]]])
    assigned = (torch.tensor([0]), torch.tensor([0]), torch.tensor([0]))
    losses = [
        grounding_loss(torch.tensor([[[1.0, other]]]), boxes, mask, tokens, boxes, assigned) for other in (-5.0, 5.0)
    ]
    torch.testing.assert_close(losses[0], losses[1])


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
        sample = Sample(image, scene.boxes_xyxy, nouns, np.zeros(len(NAMES), bool), None)
        crop = crop_and_mirror(np.random.default_rng(seed), sample)
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


def test_photo_scores_of_known_detections():
    one = photo(names=["dog", "dog", "person"], boxes=[[0, 0, 10, 10], [20, 20, 30, 30], [40, 0, 80, 40]])
    one.crowd[2] = True
    phrases, absent = ["dog", "person", "cat"], ["cat"]
    found = sv.Detections(
        xyxy=np.array([[0, 0, 10, 10], [50, 50, 60, 60], [45, 5, 60, 20], [0, 0, 5, 5]], np.float32),
        confidence=np.array([0.9, 0.8, 0.7, 0.6], np.float32),
        class_id=np.array([0, 0, 1, 2]),
    )
    scores = score_photos([ScoredPhoto(one, phrases, absent, found)], ["dog", "person", "cat"], 0.5)
    (dog,) = scores.by_name  # the crowd is no object, and what is found in it no mistake
    assert (dog.ap50, dog.recall, dog.precision, dog.num_objects) == (0.5, 0.5, 0.5, 2)
    assert scores.false_per_absent_phrase == scores.false_per_absent_name == 1.0
    nothing = score_photos([ScoredPhoto(one, phrases, absent, sv.Detections.empty())], ["dog"], 0.5)
    assert (nothing.ap50, nothing.recall, nothing.false_per_absent_phrase) == (0.0, 0.0, 0.0)
    assert "dog" in str(scores)


def test_the_shipped_threshold_heeds_photographs_first():
    boxes, sure = [[0, 0, 10, 10], [20, 20, 30, 30], [35, 35, 39, 39]], [0.9, 0.6, 0.25]
    images = [_scored(boxes, sure, [0, 0, 0])]  # both dogs and nothing else between 0.25 and 0.6
    assert 0.25 <= best_threshold(images) <= 0.6
    one = photo(names=["dog"], boxes=[[0, 0, 10, 10]])
    found = sv.Detections(
        xyxy=np.array([[0, 0, 10, 10], [0, 0, 5, 5]], np.float32),
        confidence=np.array([0.55, 0.45], np.float32),
        class_id=np.array([0, 1]),
    )
    photos = [ScoredPhoto(one, ["dog", "cat"], ["cat"], found)]  # the cat is absent
    assert 0.45 <= best_threshold(images, photos, ["dog"]) <= 0.56


def test_photo_prompts_hold_what_is_known():
    one = photo(names=["dog", "person"], boxes=[[0, 0, 10, 10], [20, 20, 30, 30]])
    phrases, absent = photo_prompt(one, ["person", "dog", "cat", "shoe"])
    assert {"person", "dog", "cat"} <= set(phrases) and "shoe" not in phrases  # shoes are not labelled there
    assert not {"person", "dog"} & set(absent) and "cat" in absent and len(set(absent) & set(UNSEEN_PHRASES)) == 2
    assert photo_prompt(one, ["person", "dog", "cat", "shoe"]) == (phrases, absent)


# ---- the bundled weights ----


def test_bundled_folder_loads_completely():
    model, loading = AutoModelForZeroShotObjectDetection.from_pretrained(
        NANO_FOLDER, local_files_only=True, output_loading_info=True
    )
    assert not loading["missing_keys"] and not loading["unexpected_keys"] and not loading["mismatched_keys"]
    assert sum(parameter.numel() for parameter in model.parameters()) < 5e6
    assert (NANO_FOLDER / "model.safetensors").stat().st_size < 20e6


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
