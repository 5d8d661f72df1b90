"""Around the Grounding DINO model: prompts in, boxes and phrases out as scripts written for upstream expect them."""

import bisect
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, write_tokenizer
from PIL import Image
from torchvision.transforms import functional

from grounding_dino.groundingdino.image import ImageTransform, image_transform_for
from grounding_dino.groundingdino.text import PromptTokenizer, load_tokenizer, text_inputs
from grounding_dino.groundingdino.util.inference import (
    CaptionedGroundingDINO,
    Model,
    annotate,
    load_image,
    load_model,
    predict,
    predict_with_classes,
    preprocess_caption,
)
from grounding_dino.groundingdino.weights import load_state_dict

NANO = REPOSITORY / "gdino_checkpoints/nano"
REFERENCE = REPOSITORY / ".references/groundingdino"
MARKS = (101, 102, 1012, 1029)


@pytest.fixture(scope="module")
def tokenizer() -> PromptTokenizer:
    return load_tokenizer(NANO)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(f"network access: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize(
    "rows",
    [
        [[101, 7, 8, 1012, 9, 1012, 102]],
        [[101, 7, 1012, 102], [101, 7, 8, 9, 1029, 5, 1012, 6, 6, 1012, 102]],
        [[101, 1012, 1012, 7, 1012, 102]],
        [[101, 102]],
        [[101, 7, 8, 102]],  # nothing closes the phrase before [SEP]
        [[101, 7, 8]],
        [[7, 8, 1012, 9, 102]],
        [[7]],
    ],
)
def test_masks_and_positions_are_those_of_the_reference(rows: list[list[int]]) -> None:
    from transformers.models.grounding_dino.modeling_grounding_dino import (
        generate_masks_with_special_tokens_and_transfer_map as reference,
    )

    inputs = text_inputs(rows, MARKS)
    mask, positions = reference(inputs.input_ids, torch.tensor(MARKS))
    torch.testing.assert_close(inputs.self_attention_mask, mask)
    torch.testing.assert_close(inputs.position_ids, positions)
    assert inputs.token_mask.sum(dim=1).tolist() == [len(row) for row in rows]


def test_masks_and_positions_of_two_phrases() -> None:
    inputs = text_inputs([[101, 7, 8, 1012, 9, 1012, 102]], MARKS)
    assert inputs.position_ids.tolist() == [[0, 0, 1, 2, 0, 1, 0]]
    assert [row.nonzero().flatten().tolist() for row in inputs.self_attention_mask[0]] == [
        [0], [1, 2, 3], [1, 2, 3], [1, 2, 3], [4, 5], [4, 5], [6],
    ]  # fmt: skip


def test_a_row_does_not_depend_on_the_others() -> None:
    rows = [[101, 7, 8, 102], [101, 7, 1012, 8, 1012, 102], [101, 102]]
    together = text_inputs(rows, MARKS)
    for index, row in enumerate(rows):
        alone, length = text_inputs([row], MARKS), len(row)
        torch.testing.assert_close(together.self_attention_mask[index, :length, :length], alone.self_attention_mask[0])
        torch.testing.assert_close(together.position_ids[index, :length], alone.position_ids[0])
        assert not together.self_attention_mask[index, :length, length:].any()
        assert together.input_ids[index, length:].tolist() == [0] * (together.input_ids.shape[1] - length)


def test_no_rows_and_empty_rows() -> None:
    assert text_inputs([], MARKS).self_attention_mask.shape == (0, 0, 0)
    with pytest.raises(ValueError, match=r"at least one token in each row, got rows of \[2, 0\]"):
        text_inputs([[101, 102], []], MARKS)


def test_layout_spans_are_the_phrases_tokens(tokenizer: PromptTokenizer) -> None:
    words = [tokenizer.phrase_ids(phrase) for phrase in ("red apple", "dog", "xyzzy")]
    input_ids, spans = tokenizer.layout(words)
    assert [input_ids[start:stop] for start, stop in spans] == words
    assert input_ids == tokenizer.caption_ids("red apple. dog. xyzzy.")
    assert (input_ids[0], input_ids[-1]) == (101, 102)
    assert [input_ids[stop] for _, stop in spans] == [1012] * 3
    assert tokenizer.layout([]) == ([101, 102], [])


@pytest.mark.parametrize(
    "phrase", ["dog", "St. Bernard", "what? a dog", "[SEP] dog", "straße", "犬", "x" * 300, "3.5 inch", "🍎 apple"]
)
def test_a_phrase_never_splits_in_two(tokenizer: PromptTokenizer, phrase: str) -> None:
    ids = tokenizer.phrase_ids(phrase)
    assert ids
    assert not set(ids) & set(tokenizer.special_ids)


@pytest.mark.parametrize("phrase", ["", "?", "[SEP]", " . "])
def test_a_phrase_of_nothing_is_a_value_error(tokenizer: PromptTokenizer, phrase: str) -> None:
    with pytest.raises(ValueError, match="nothing a text encoder could read"):
        tokenizer.phrase_ids(phrase)


TEXTS = ["a red apple. dog.", "St. Bernard? Yes, it's!", "Straße É 犬", "x" * 120 + " dog", "don't [SEP] a-b"]


@pytest.mark.parametrize("source", ["tokenizer.json", "vocab.txt"])
def test_tokens_are_those_of_transformers(tmp_path: Path, source: str, no_network: None) -> None:
    from transformers import AutoTokenizer

    if source == "vocab.txt":
        write_tokenizer(tmp_path)
    else:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(NANO / name, tmp_path)
    ours, theirs = load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    for text in TEXTS:
        assert ours.caption_ids(text) == theirs(text)["input_ids"]
        assert ours.decode(ours.caption_ids(text)) == theirs.decode(theirs(text)["input_ids"], skip_special_tokens=True)


def test_missing_tokenizer_names_the_cure(tmp_path: Path, no_network: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for folder in (None, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=r"run: gdino_checkpoints/download_ckpts\.sh bert-tokenizer"):
            load_tokenizer(folder)
    with pytest.raises(FileNotFoundError, match=r"run: hf download nobody/bert tokenizer\.json --local-dir .*/bert"):
        load_tokenizer("nobody/bert")


@pytest.mark.parametrize("content", ["{}", "no json"])
def test_another_file_is_a_value_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer\.json: not a tokenizer file"):
        load_tokenizer(tmp_path)


def test_tokenizer_of_another_model_is_a_value_error(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[UNK]\na\n.\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"expected a BERT tokenizer, got one without the tokens .*\?"):
        load_tokenizer(tmp_path)


@pytest.fixture(scope="module")
def tiny_model(tiny_detector: Path) -> CaptionedGroundingDINO:
    return load_model(None, tiny_detector, device="cpu")


@pytest.fixture
def photo(images: list[np.ndarray], tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(images[0]).save(path)
    return path


def prepared(image: np.ndarray, model: CaptionedGroundingDINO) -> torch.Tensor:
    return model.image_transform.from_pillow(Image.fromarray(image))


@pytest.mark.parametrize("size", [(60, 80), (176, 200), (400, 300), (91, 500), (333, 97), (1, 1)])
def test_image_is_that_of_the_image_processor(size: tuple[int, int]) -> None:
    from transformers import GroundingDinoImageProcessor

    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    processor = GroundingDinoImageProcessor(size={"shortest_edge": 176, "longest_edge": 352})
    expected = processor(images=image, input_data_format="channels_last", return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(ImageTransform(176, 352)(image), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("size", "expected"),  # of upstream's transform, which rounds the short side before it takes the long one from it
    [
        ((480, 640), (800, 1066)),
        ((640, 480), (1066, 800)),
        ((800, 900), (800, 900)),
        ((500, 500), (800, 800)),
        ((110, 500), (293, 1331)),
        ((2738, 110), (1344, 54)),
    ],
)
def test_image_is_that_of_upstreams_transform(size: tuple[int, int], expected: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    transform = ImageTransform()
    tensor = functional.to_tensor(functional.resize(image, list(expected)))
    expected_tensor = functional.normalize(tensor, transform.mean, transform.std)
    torch.testing.assert_close(transform.from_pillow(image), expected_tensor, rtol=0, atol=1e-6)


def test_image_transform_of_a_checkpoint(tmp_path: Path, tiny_detector: Path) -> None:
    assert image_transform_for(NANO) == image_transform_for(NANO / "model.safetensors")
    assert (
        image_transform_for(NANO).longest_edge
        == json.loads((NANO / "preprocessor_config.json").read_text(encoding="utf-8"))["size"]["longest_edge"]
    )
    assert image_transform_for(tiny_detector) == ImageTransform(128, 192)
    assert image_transform_for(tmp_path / "groundingdino_swint_ogc.pth") == ImageTransform(800, 1333)


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"size": {"height": 8, "width": 8}}', '{"do_resize": false}', '{"rescale_factor": 1}']
)
def test_image_processor_of_another_kind_is_a_value_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"preprocessor_config\.json is not read: expected an image processor of"):
        image_transform_for(tmp_path)


def test_load_image(photo: Path, images: list[np.ndarray]) -> None:
    image_source, image = load_image(str(photo))
    np.testing.assert_array_equal(image_source, images[0])
    assert image_source.flags.writeable
    assert (image.dtype, image.shape) == (torch.float32, (3, 800, 1066))
    assert load_image(photo, ImageTransform(128, 192))[1].shape == (3, 128, 170)
    with pytest.raises(FileNotFoundError):
        load_image(photo.with_name("nowhere.png"))


def upstream_phrases(
    model: CaptionedGroundingDINO, image: torch.Tensor, caption: str, threshold: float, remove_combined: bool
) -> list[str]:
    """The labels upstream's post-processing gives all queries: decoded tokens above a threshold, special ones apart."""
    with torch.no_grad():
        scores = model(image[None], captions=[caption])["pred_logits"].sigmoid()[0]
    ids = model.tokenizer.caption_ids(caption)
    ends = [position for position, token_id in enumerate(ids) if token_id in (101, 102, 1012)]
    labels = []
    for token_scores in scores:
        best = int(token_scores.argmax())
        after = bisect.bisect_left(ends, best)
        left, right = (ends[after - 1], ends[after]) if remove_combined else (0, len(ids) - 1)
        above = [i for i in range(len(ids)) if left < i < right and token_scores[i] > threshold]
        labels.append(model.tokenizer.decode([ids[i] for i in above]).replace(".", ""))
    return labels


@pytest.mark.parametrize("remove_combined", [False, True])
@pytest.mark.parametrize("caption", ["red apple. dog.", "Dog", " a cat . what? the dog "])
def test_predict_returns_what_upstream_does(
    tiny_model: CaptionedGroundingDINO, images: list[np.ndarray], caption: str, remove_combined: bool
) -> None:
    image = prepared(images[0], tiny_model)
    boxes, logits, phrases = predict(tiny_model, image, caption, 0.0, 0.5, remove_combined=remove_combined)
    assert boxes.dtype == logits.dtype == torch.float32
    assert boxes.shape == (20, 4) and logits.shape == (20,)
    assert phrases == upstream_phrases(tiny_model, image, preprocess_caption(caption), 0.5, remove_combined)
    assert len(set(phrases)) > 1
    with torch.no_grad():
        output = tiny_model(image[None], captions=[preprocess_caption(caption)])
    assert output["pred_logits"].shape == (1, 20, tiny_model.config.max_text_len)
    torch.testing.assert_close(boxes, output["pred_boxes"][0])
    torch.testing.assert_close(logits, output["pred_logits"][0].sigmoid().amax(dim=1))

    middle = float(logits.median())
    boxes, logits, phrases = predict(tiny_model, image, caption, middle, 0.5, device="cpu")
    assert len(boxes) == len(logits) == len(phrases) == 10
    assert (logits > middle).all()


def test_predict_finds_nothing(tiny_model: CaptionedGroundingDINO, images: list[np.ndarray]) -> None:
    image = prepared(images[0], tiny_model)
    boxes, logits, phrases = predict(tiny_model, image, "dog", 1.0, 0.25)
    assert (boxes.shape, logits.shape, phrases) == ((0, 4), (0,), [])
    boxes, logits, class_id = predict_with_classes(tiny_model, image, ["dog"], 1.0, 0.25)
    assert (boxes.shape, logits.shape, class_id.shape) == ((0, 4), (0,), (0,))


def test_captions_of_a_batch_do_not_change_each_other(
    tiny_model: CaptionedGroundingDINO, images: list[np.ndarray]
) -> None:
    tensors = [prepared(image, tiny_model) for image in images]
    captions = ["dog.", "red apple. a green apple. cat.", "a."]
    with torch.no_grad():
        together = tiny_model(tensors, captions=captions)
        for row, (tensor, caption) in enumerate(zip(tensors, captions, strict=True)):
            alone = tiny_model(tensor[None], captions=[caption])
            for name in ("pred_logits", "pred_boxes"):
                torch.testing.assert_close(together[name][row], alone[name][0], rtol=0, atol=1e-4)


def test_classes_are_integers_and_whole(tiny_model: CaptionedGroundingDINO, images: list[np.ndarray]) -> None:
    image = prepared(images[0], tiny_model)
    classes = ["Red apple", "dog", "DOG", "green apple"]
    boxes, logits, class_id = predict_with_classes(tiny_model, image, classes, 0.0, 0.0)
    assert class_id.dtype == torch.int64 and len(boxes) == 20
    assert set(class_id.tolist()) <= {0, 1, 3} and len(set(class_id.tolist())) > 1
    expected_boxes, expected_logits, _ = predict(tiny_model, image, "red apple. dog. green apple", 0.0, 0.0)
    torch.testing.assert_close(boxes, expected_boxes)
    torch.testing.assert_close(logits, expected_logits)
    with torch.no_grad():
        scores = tiny_model(image[None], captions=["red apple. dog. green apple."])["pred_logits"][0].sigmoid()
    by_class = torch.stack([scores[:, 1:3].amax(1), scores[:, 4], scores[:, 4] * 0, scores[:, 6:8].amax(1)], dim=1)
    assert class_id.tolist() == by_class.argmax(dim=1).tolist()
    above = predict_with_classes(tiny_model, image, classes, 0.0, float(by_class.amax(dim=1).median()))
    assert len(above[0]) == 10


def test_no_class_is_a_value_error(tiny_model: CaptionedGroundingDINO, images: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="at least one class"):
        predict_with_classes(tiny_model, prepared(images[0], tiny_model), [], 0.0, 0.0)


def test_a_text_too_long_is_read_in_parts_and_a_phrase_too_long_is_a_value_error(
    tiny_model: CaptionedGroundingDINO, images: list[np.ndarray]
) -> None:
    image = prepared(images[0], tiny_model)
    _, logits, phrases = predict(tiny_model, image, "dog. " * 60, 0.3, 0.3)
    assert len(phrases) == len(logits) > tiny_model.config.num_queries  # of several parts
    classes = [f"dog {letter}" for letter in "abcdefghijklmnopqrs"]
    _, _, class_id = predict_with_classes(tiny_model, image, classes, 0.3, 0.3)
    assert class_id.min() < 10 and class_id.max() > 16
    with pytest.raises(ValueError, match="at most 48 tokens in a text, got 63"):
        predict(tiny_model, image, "dog " * 60, 0.3, 0.3)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_annotate(count: int) -> None:
    image_source = np.full((60, 80, 3), (10, 20, 30), np.uint8)
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.2, 0.2, 0.1, 0.1], [0.9, 0.9, 0.4, 0.4]])[:count]
    annotated = annotate(image_source, boxes, torch.tensor([0.9, 0.8, 0.7])[:count], ["dog", "cat", ""][:count])
    assert annotated.shape == image_source.shape and annotated.dtype == np.uint8
    assert annotated[59, 0].tolist() == [30, 20, 10]  # BGR
    assert (annotated != (30, 20, 10)).any() == (count > 0)
    assert (image_source == (10, 20, 30)).all()


def test_model_takes_images_of_opencv(tiny_detector: Path, images: list[np.ndarray]) -> None:
    model = Model(model_config_path=None, model_checkpoint_path=str(tiny_detector))
    bgr = images[1][..., ::-1].copy()
    image = prepared(images[1], model.model)
    detections, labels = model.predict_with_caption(bgr, "red apple. dog", 0.5, 0.5)
    boxes, logits, phrases = predict(model.model, image, "red apple. dog", 0.5, 0.5, remove_combined=True)
    assert labels == phrases and len(detections) == len(boxes) > 0
    np.testing.assert_allclose(detections.confidence, logits)
    center, half = boxes[:, :2], boxes[:, 2:] / 2
    expected = torch.cat([center - half, center + half], dim=1) * torch.tensor([60, 80, 60, 80])
    np.testing.assert_allclose(detections.xyxy, expected, rtol=1e-5, atol=1e-4)
    assert detections.class_id is None

    detections = model.predict_with_classes(bgr, ["red apple", "dog"], box_threshold=0.5, text_threshold=0.5)
    *_, class_id = predict_with_classes(model.model, image, ["red apple", "dog"], 0.5, 0.5)
    assert detections.class_id.dtype == np.int64 and len(detections) > 0
    assert detections.class_id.tolist() == class_id.tolist()
    assert Model.preprocess_image(bgr).shape == (3, 1066, 800)


@pytest.mark.parametrize(
    ("phrases", "expected"),
    [
        ([], []),
        (["dog"], [1]),
        (["dog", "red apple tree", "cat"], [1, 0, None]),
        (["hot dog"], [2]),  # the class itself comes before one that is part of it
    ],
)
def test_phrases2classes(phrases: list[str], expected: list[int | None]) -> None:
    assert Model.phrases2classes(phrases, ["red apple", "dog", "hot dog"]).tolist() == expected


def test_script_written_for_upstream_runs(tmp_path: Path, tiny_detector: Path, photo: Path) -> None:
    """With the official file format, upstream's positional arguments, and the tokenizer beside the checkpoint."""
    checkpoint = tmp_path / "tiny.pth"
    torch.save({"model": {f"module.{k}": v for k, v in load_state_dict(tiny_detector).items()}}, checkpoint)
    (tmp_path / "bert-base-uncased").mkdir()
    shutil.copy(tiny_detector / "tokenizer.json", tmp_path / "bert-base-uncased")

    model = load_model(str(tiny_detector), str(checkpoint), device="cpu")
    from_folder = load_model(None, tiny_detector, device="cpu")
    image_source, image = load_image(str(photo), from_folder.image_transform)  # which the file alone does not tell
    boxes, logits, phrases = predict(
        model=model, image=image, caption="dog", box_threshold=0.3, text_threshold=0.3, device="cpu"
    )
    assert annotate(image_source=image_source, boxes=boxes, logits=logits, phrases=phrases).shape == (60, 80, 3)
    torch.testing.assert_close(predict(from_folder, image, "dog", 0.3, 0.3)[0], boxes)


def test_settings_and_precision(tiny_detector: Path, images: list[np.ndarray]) -> None:
    model = load_model(None, tiny_detector, "cpu", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    boxes, logits, _ = predict(model, prepared(images[0], model), "dog", 0.0, 0.0)
    assert boxes.dtype == logits.dtype == torch.float32
    with pytest.raises(ValueError, match=r"unknown setting of a Grounding DINO config: .*num_querys"):
        load_model(None, tiny_detector, num_querys=7)


def test_missing_and_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="download"):
        load_model("GroundingDINO_SwinT_OGC", tmp_path / "groundingdino_swint_ogc.pth")
    with pytest.raises(FileNotFoundError, match="no Grounding DINO config 'nowhere'"):
        load_model("nowhere", NANO)
    torch.save({"model": {"memory_attention.norm.weight": torch.zeros(3)}}, tmp_path / "sam2.pth")
    shutil.copy(NANO / "tokenizer.json", tmp_path)
    with pytest.raises(ValueError, match="SAM 2 weights"):
        load_model("GroundingDINO_SwinT_OGC", tmp_path / "sam2.pth")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_device_that_is_not_there_is_a_value_error(tiny_detector: Path) -> None:
    assert load_model(None, tiny_detector).device.type == "cpu"
    with pytest.raises(ValueError, match="'cuda' was asked for, but torch sees no CUDA device"):
        load_model(None, tiny_detector, device="cuda")


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="needs the reference package: make references")
def test_the_published_functions_give_the_same(tmp_path: Path) -> None:
    """Boxes, scores and labels around one model, from thresholds that keep few queries to such that keep most."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (REFERENCE, REPOSITORY, REPOSITORY / "tests")))}
    command = [sys.executable, "-m", "reference.official_inference", str(NANO), str(REPOSITORY / "assets/scene.jpg")]
    # not in the repository, whose package of the same name would hide the published one
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    cases = json.loads(run.stdout.splitlines()[-1])
    assert sum(len(expected["labels"]) for _, expected, _ in cases) > 100
    for name, expected, actual in cases:
        # the published one leaves "[SEP]" in a label; a mark above the threshold leaves a space in both
        without_sep = [str(label).removesuffix("[SEP]").strip() for label in expected["labels"]]
        assert [str(label).strip() for label in actual["labels"]] == without_sep, name
        np.testing.assert_allclose(actual["boxes"], expected["boxes"], rtol=1e-5, atol=1e-3, err_msg=name)
        np.testing.assert_allclose(actual["scores"], expected["scores"], atol=1e-6, err_msg=name)
