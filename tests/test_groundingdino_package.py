"""Scripts written for the published `groundingdino` package, by what they import and call."""

import importlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from PIL import Image

import groundingdino.datasets.transforms as T
from grounding_dino.groundingdino.captions import caption_passes
from grounding_dino.groundingdino.image import ImageTransform
from grounding_dino.groundingdino.models.captioned import CaptionedGroundingDINO
from grounding_dino.groundingdino.weights import load_state_dict
from groundingdino.models import build_model
from groundingdino.util import box_ops
from groundingdino.util.inference import Model, annotate, load_image, load_model, predict, predict_with_classes
from groundingdino.util.slconfig import SLConfig
from groundingdino.util.utils import clean_state_dict, get_phrases_from_posmap
from groundingdino.util.vl_utils import build_captions_and_token_span, create_positive_map_from_span

NANO = REPOSITORY / "gdino_checkpoints/nano"
SCENE = REPOSITORY / "assets/scene.jpg"
CAPTION = "owl . pizza . motorcycle ."


@pytest.fixture(scope="module")
def nano() -> CaptionedGroundingDINO:
    return load_model(NANO, NANO, device="cpu")


@pytest.mark.parametrize("name", ["util.misc", "util.get_tokenlizer", "util.inference", "util.utils", "config"])
def test_modules_are_there(name: str) -> None:
    ours = importlib.import_module(f"groundingdino.{name}")
    origin = importlib.import_module(f"grounding_dino.groundingdino.{name}")
    public = {key for key, value in vars(origin).items() if getattr(value, "__module__", None) == origin.__name__}
    assert all(getattr(ours, key) is getattr(origin, key) for key in public if not key.startswith("_"))


def test_images_for_the_official_models_suit_the_nano(nano: CaptionedGroundingDINO) -> None:
    image_source, image = load_image(str(SCENE))
    assert image.shape[1:] == ImageTransform().size_of(*image_source.shape[:2])
    boxes, logits, phrases = predict(nano, image, CAPTION, 0.5, 0.25, device="cpu")
    exact = predict(nano, load_image(SCENE, nano.image_transform)[1], CAPTION, 0.5, 0.25)
    assert phrases == exact[2] == ["owl", "pizza"]
    torch.testing.assert_close(boxes, exact[0], atol=0.02, rtol=0)
    assert annotate(image_source, boxes, logits, phrases).shape == image_source.shape


@pytest.mark.parametrize("size", [(288, 384), (100, 576), (96, 575), (288, 288)])
def test_an_image_of_the_right_size_stays(nano: CaptionedGroundingDINO, size: tuple[int, int]) -> None:
    image = torch.zeros(3, *size)
    assert nano.image_transform.shrink(image) is image


def test_the_model_is_built_and_called_as_segment_anything_scripts_do(
    tmp_path: Path, tiny_detector: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gdino_checkpoints/bert-base-uncased").mkdir(parents=True)
    shutil.copy(tiny_detector / "tokenizer.json", tmp_path / "gdino_checkpoints/bert-base-uncased")
    monkeypatch.chdir(tmp_path)
    checkpoint = {"model": {f"module.{name}": value for name, value in load_state_dict(tiny_detector).items()}}
    args = SLConfig.fromfile(str(tiny_detector / "config.json"))
    args.device = "cpu"
    model = build_model(args)
    result = model.load_state_dict(clean_state_dict(checkpoint["model"]), strict=False)
    assert not result.missing_keys and not result.unexpected_keys
    model.eval()

    transform = T.Compose(
        [T.RandomResize([128], max_size=192), T.ToTensor(), T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    )
    image, _ = transform(Image.open(SCENE).convert("RGB"), None)
    caption = "red apple . dog ."
    with torch.no_grad():
        outputs = model(image[None], captions=[caption])
    logits = outputs["pred_logits"].cpu().sigmoid()[0]
    boxes = outputs["pred_boxes"].cpu()[0]
    kept = logits.max(dim=1)[0] > 0.3
    tokenizer = model.tokenizer
    tokenized = tokenizer(caption)
    phrases = [get_phrases_from_posmap(logit > 0.25, tokenized, tokenizer) for logit in logits[kept]]
    expected = predict(load_model(tiny_detector, tiny_detector, device="cpu"), image, caption, 0.3, 0.25)
    torch.testing.assert_close(boxes[kept], expected[0])
    assert [phrase.replace(".", "") for phrase in phrases] == expected[2] and len(phrases) > 0
    torch.testing.assert_close(model(image[None], [{"caption": caption}])["pred_boxes"], outputs["pred_boxes"])


def test_configs_of_the_official_models() -> None:
    args = SLConfig.fromfile("GroundingDINO/groundingdino/config/GroundingDINO_SwinT_OGC.py")
    assert args.backbone == args["backbone"] == "swin_T_224_1k" and args.num_queries == 900
    args.merge_from_dict({"model.depth": 3, "num_queries": 5})
    assert args.model.depth == 3 and args.num_queries == 5
    with pytest.raises(AttributeError, match="no setting 'no_such'"):
        _ = args.no_such


# ---- captions ----


def test_passes_of_a_caption() -> None:
    ids = [101, 7, 8, 1012, 9, 1012, 5, 6, 1012, 4, 102]
    (whole,) = caption_passes(ids, 11, (1012,))
    assert whole.input_ids == ids and whole.positions == list(range(11))
    parts = caption_passes(ids, 7, (1012,))
    assert [part.input_ids for part in parts] == [[101, 7, 8, 1012, 9, 1012, 102], [101, 5, 6, 1012, 4, 102]]
    assert [part.positions for part in parts] == [[0, 1, 2, 3, 4, 5, 10], [0, 6, 7, 8, 9, 10]]
    assert [len(part.input_ids) for part in caption_passes(ids, 4, (1012,))] == [5, 4, 5, 3]  # too long a phrase


def test_a_caption_of_more_tokens_than_the_model_reads(nano: CaptionedGroundingDINO) -> None:
    _, image = load_image(SCENE, nano.image_transform)
    names = ["owl", *(f"red apple tree {number}" for number in range(70)), "pizza"]
    caption = " . ".join(names) + " ."
    assert len(nano.tokenizer(caption)["input_ids"]) > 256
    _, _, phrases = predict(nano, image, caption, 0.5, 0.25)
    assert sorted(phrases) == ["owl", "pizza"]
    _, _, class_ids = predict_with_classes(nano, image, names, 0.5, 0.5)
    assert sorted(class_ids.tolist()) == [0, 71]
    small = image[:, ::4, ::4]
    with torch.no_grad():
        outputs = nano(small[None], captions=[caption])
        both = nano([small, small], captions=["pizza .", caption])
    length = len(nano.tokenizer(caption)["input_ids"])
    assert outputs["pred_logits"].shape == (1, 2 * nano.config.num_queries, length)
    torch.testing.assert_close(both["pred_logits"][1], outputs["pred_logits"][0], atol=1e-4, rtol=1e-4)
    assert (both["pred_logits"][0, nano.config.num_queries :] == -torch.inf).all()


def test_tokens_of_words(nano: CaptionedGroundingDINO) -> None:
    caption, spans = build_captions_and_token_span(["Dog", "red apple"], force_lowercase=True)
    assert caption == "dog . red apple ." and spans == {"dog": [[0, 3]], "red apple": [[6, 9], [10, 15]]}
    tokenized = nano.tokenizer(caption)
    positive = create_positive_map_from_span(tokenized, list(spans.values()))
    pieces = [nano.tokenizer.decode([tokenized["input_ids"][i] for i in row.nonzero()[:, 0]]) for row in positive]
    assert pieces == ["dog", "red apple"] and positive.shape == (2, 256)
    torch.testing.assert_close(positive.sum(dim=1), torch.ones(2), atol=1e-4, rtol=0)
    tensors = nano.tokenizer(["dog .", "red apple ."], padding="longest", return_tensors="pt").to("cpu")
    assert tensors.input_ids.shape == tensors["attention_mask"].shape and (tensors["attention_mask"][0] == 0).any()
    first, last = nano.tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]"])
    assert tokenized["input_ids"][0] == first and tokenized["input_ids"][-1] == last


@pytest.mark.parametrize(("phrase", "expected"), [("Lake river", 1), ("owl", 2), ("no such", -1), ("", -1), ("red", 0)])
def test_find_index(phrase: str, expected: int) -> None:
    assert Model.find_index(phrase, ["Red apple", "big lake", "owl"]) == expected


# ---- boxes and targets ----


def test_boxes() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 5, 15, 15]])
    torch.testing.assert_close(box_ops.box_cxcywh_to_xyxy(box_ops.box_xyxy_to_cxcywh(boxes)), boxes)
    iou, union = box_ops.box_iou(boxes, boxes)
    torch.testing.assert_close(iou, torch.tensor([[1, 25 / 175], [25 / 175, 1]]))
    assert union[0, 1] == 175 and box_ops.generalized_box_iou(boxes, boxes).shape == (2, 2)


def test_targets_follow_the_image() -> None:
    image = Image.fromarray(np.zeros((60, 80, 3), np.uint8))
    target = {"boxes": torch.tensor([[8.0, 6, 40, 30]]), "area": torch.tensor([768.0])}
    transform = T.Compose([T.RandomHorizontalFlip(1.0), T.RandomResize([30], max_size=400), T.ToTensor()])
    tensor, moved = transform(image, target)
    assert tensor.shape == (3, 30, 40) and moved["size"].tolist() == [30, 40]
    assert moved["boxes"].tolist() == [[20, 3, 36, 15]] and moved["area"].tolist() == [192]
    _, normal = T.Normalize([0.5] * 3, [0.2] * 3)(tensor, moved)
    torch.testing.assert_close(normal["boxes"], torch.tensor([[0.7, 0.3, 0.4, 0.4]]))
    assert target["boxes"].tolist() == [[8, 6, 40, 30]]


def test_the_nano_loads_in_float32_and_its_file_is_half_as_large() -> None:
    import transformers
    from safetensors import safe_open

    model = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(NANO)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with safe_open(NANO / "model.safetensors", "pt") as file:
        assert all(file.get_tensor(name).dtype == torch.float16 for name in list(file.keys())[:5])
