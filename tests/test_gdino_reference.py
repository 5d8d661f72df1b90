"""This repository's Grounding DINO against the published package, with the same random weights in its own file format.

`make references` installs that package; without it these tests are skipped. It runs in a process of its own (see
`reference/official_grounding_dino.py`), on a model with a full-size Swin-T and a short transformer, and again only when
something changed (see `reference/cache.py`).
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_tokenizer
from reference.cache import PRINTED, REFERENCES, answers_of
from reference.clip import make_frame
from reference.compare import relative_error
from reference.official_grounding_dino import BERT, CASES, OFFICIAL_CONFIGS, PREDICTED, PREDICTED_SIZE
from reference.stages import normalise

from grounding_dino.groundingdino.configuration import load_config
from grounding_dino.groundingdino.models.grounding_dino import GroundingDINO
from grounding_dino.groundingdino.ops import extension
from grounding_dino.groundingdino.text import load_tokenizer, text_inputs
from grounding_dino.groundingdino.util.inference import load_image, load_model, predict
from grounding_dino.groundingdino.weights import build_model

TOLERANCE = 1e-4
# of the reference's tensors: made anew from the window size, or read by nothing
CLEAR_MARGIN = 3e-5  # between the scores of cells, relative to the best: ten times what the order of additions changes
NOT_IN_OURS = ("relative_position_index", "pooler.dense.weight", "pooler.dense.bias", "position_ids")

pytestmark = pytest.mark.skipif(
    not (REFERENCES / "groundingdino").is_dir(), reason="needs the reference package: make references"
)


def run_reference(what: str, folder: Path) -> Path:
    """What the harness wrote and printed in its work folder, beside a tokenizer that `folder` serves to write."""
    write_tokenizer(folder)
    files = {f"text_encoder/{path.name}": path.read_bytes() for path in folder.iterdir()}
    return answers_of("groundingdino", "official_grounding_dino", [what, "--work", "."], files)


@pytest.fixture(scope="module", autouse=True)
def _plain_attention():
    """The default path, also where a kernel happens to be built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(extension._kernels, "cpu", None)
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights, config, tokenizer and what the reference made of them."""
    return run_reference("run", tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def answers(work: Path) -> dict[str, np.ndarray]:
    return dict(np.load(work / "outputs.npz"))


@pytest.fixture(scope="module")
def model(work: Path) -> GroundingDINO:
    return build_model(work / "weights.pth")


def find(model: GroundingDINO, names: list[str], work: Path) -> list[tuple[np.ndarray, np.ndarray, list[int]]]:
    """Logits (Q, T), boxes (Q, 4) and token ids of cases, run as one batch."""
    tokenizer = load_tokenizer(work / "text_encoder")
    input_ids = [tokenizer.caption_ids(CASES[name][1]) for name in names]
    images = [normalise(make_frame(0, CASES[name][0]))[0] for name in names]
    with torch.inference_mode():
        output = model(images, text_inputs(input_ids, tokenizer.special_ids))
    return [
        (logits[:, : len(ids)].numpy(), boxes.numpy(), ids)
        for logits, boxes, ids in zip(output.logits, output.boxes_cxcywh, input_ids, strict=True)
    ]


@pytest.mark.parametrize("names", [*([name] for name in CASES), list(CASES)], ids=lambda names: "+".join(names))
def test_same_numbers(model: GroundingDINO, work: Path, answers: dict[str, np.ndarray], names: list[str]) -> None:
    """Also in one batch of images and prompts of different sizes, which the reference cannot do."""
    for name, (logits, boxes, input_ids) in zip(names, find(model, names, work), strict=True):
        assert input_ids == answers[f"{name}.input_ids"].tolist()
        assert relative_error(logits, answers[f"{name}.logits"]) <= TOLERANCE
        assert relative_error(boxes, answers[f"{name}.boxes"]) <= TOLERANCE


@pytest.mark.parametrize("name", CASES)
def test_the_weights_tell_something(answers: dict[str, np.ndarray], name: str) -> None:
    """Queries and tokens that differ, boxes away from the edges: agreement on constants would prove nothing.

    And no ties among the cells that queries start from: their order decides the answer, on another processor too.
    """
    logits, boxes = answers[f"{name}.logits"], answers[f"{name}.boxes"]
    assert logits.std(axis=0).min() > 0.2 and logits.std(axis=1).min() > 0.1
    assert boxes.std(axis=0).min() > 0.01
    assert boxes.min() > 0 and boxes.max() < 1
    assert answers[f"{name}.margin"] > CLEAR_MARGIN


def settings_of_bert(vocab_size: int, num_layers: int) -> dict[str, int]:
    """Fields of the config that say how the reference's BERT differs from the published models'."""
    sizes = {**BERT, "vocab_size": vocab_size, "num_hidden_layers": num_layers}
    return {f"bert_{name}": value for name, value in sizes.items()}


def test_architecture_is_worked_out(model: GroundingDINO, work: Path) -> None:
    bert = settings_of_bert(model.config.bert_vocab_size, num_layers=2)
    assert model.config == replace(load_config(work / "config.py"), **bert)


@pytest.mark.parametrize("remove_combined", [False, True])
def test_predict_returns_the_same(
    model: GroundingDINO, work: Path, answers: dict[str, np.ndarray], remove_combined: bool
) -> None:
    """All of it, but for the special tokens that the reference leaves in its phrases."""
    bert = settings_of_bert(model.config.bert_vocab_size, num_layers=2)
    captioned = load_model(
        work / "config.py", work / "weights.pth", "cpu", text_encoder_type=work / "text_encoder", **bert
    )
    image = normalise(make_frame(0, PREDICTED_SIZE))[0]
    boxes, scores, phrases = predict(captioned, image, *PREDICTED, remove_combined=remove_combined)
    expected = {kind: answers[f"predict.{remove_combined}.{kind}"] for kind in ("boxes", "scores", "phrases")}
    assert len(expected["phrases"]) > 3 and len(set(expected["phrases"].tolist())) > 1
    assert relative_error(boxes.numpy(), expected["boxes"]) <= TOLERANCE
    assert relative_error(scores.numpy(), expected["scores"]) <= TOLERANCE
    assert phrases == [" ".join(phrase.replace("[SEP]", "").split()) for phrase in expected["phrases"].tolist()]


def test_image_files_are_read_alike(work: Path, answers: dict[str, np.ndarray]) -> None:
    image, tensor = load_image(str(work / "picture.png"))
    assert np.array_equal(image, answers["file.image"])
    assert relative_error(tensor.numpy(), answers["file.tensor"]) <= TOLERANCE


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[int]]]:
    """Shapes of what the reference builds from each published config, with a small BERT of 12 layers."""
    folder = run_reference("describe", tmp_path_factory.mktemp("tokenizer"))
    return json.loads((folder / PRINTED).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", OFFICIAL_CONFIGS)
def test_same_architecture(described: dict[str, dict[str, list[int]]], name: str) -> None:
    shapes = {key: tuple(shape) for key, shape in described[name].items() if not key.endswith(NOT_IN_OURS)}
    bert = settings_of_bert(shapes["bert.embeddings.word_embeddings.weight"][0], num_layers=12)
    with torch.device("meta"):
        model = GroundingDINO(replace(load_config(name), **bert))
    assert {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()} == shapes
