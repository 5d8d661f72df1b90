"""Florence-2 asked, on a tiny random model of the real class; reference: transformers' own way through it."""

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_florence2 import MAX_POSITIONS, NUM_IMAGE_TOKENS, say

from grounded_sam2.detectors.florence2 import Florence2
from grounded_sam2.detectors.florence2.answer import Answer
from grounded_sam2.detectors.florence2.tasks import (
    CAPTIONS,
    OBJECT_DETECTION,
    OPEN_VOCABULARY,
    PHRASE_GROUNDING,
    PIPELINES,
    REFERRING_EXPRESSION,
    REGION_PROPOSAL,
    Task,
)

TASKS = [*dict.fromkeys(PIPELINES.values()), *CAPTIONS.values()]
MAX_NEW_TOKENS = 40
DOG = "dog<loc_100><loc_200><loc_300><loc_400>"


@pytest.fixture(scope="module")
def florence2(tiny_florence2: Path) -> Florence2:
    """A model whose answers are random; not to be changed."""
    return Florence2(tiny_florence2, max_new_tokens=MAX_NEW_TOKENS, batch_size=2)


@pytest.fixture
def parrot(tiny_florence2: Path) -> Florence2:
    """A model for `say`."""
    return Florence2(tiny_florence2)


def assert_same(actual: Answer, expected: Answer) -> None:
    assert actual.text == expected.text
    np.testing.assert_allclose(actual.confidence, expected.confidence, rtol=1e-4)


def reference(florence2: Florence2, image: np.ndarray, question: str) -> tuple[torch.Tensor, torch.Tensor]:
    """What transformers' own example does: tokens written, and the logarithms of all probabilities at each."""
    inputs = florence2.processor(images=image, text=question, return_tensors="pt", input_data_format="channels_last")
    with torch.inference_mode():
        written = florence2.model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, num_beams=3, do_sample=False)
        logits = florence2.model(**inputs, decoder_input_ids=written[:, :-1]).logits
    return written[0, 1:], logits[0].log_softmax(dim=-1)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_answer_is_that_of_transformers(florence2: Florence2, images: list[np.ndarray], task: Task) -> None:
    answer = florence2.ask(images[0], task, task.example)
    written, _ = reference(florence2, images[0], task.token + (task.example or ""))
    assert len(answer.text) > 100
    assert f"<s>{answer.text}</s>" == florence2.processor.decode(written).replace("<pad>", "")


def test_confidence_is_what_the_model_says(florence2: Florence2, images: list[np.ndarray]) -> None:
    """A proposal has no label: the geometric mean over four bins, each with those up to ten away."""
    answer = florence2.ask(images[0], REGION_PROPOSAL)
    written, log_p = reference(florence2, images[0], REGION_PROPOSAL.token)
    bin_ids = florence2.processor.tokenizer.convert_tokens_to_ids([f"<loc_{number}>" for number in range(1000)])
    bins = [bin_ids.index(token) if token in bin_ids else None for token in written.tolist()]
    start = next(step for step in range(len(bins) - 3) if None not in bins[step : step + 4])
    near = [
        sum(float(log_p[step, bin_ids[b]].exp()) for b in range(max(bins[step] - 10, 0), min(bins[step] + 11, 1000)))
        for step in range(start, start + 4)
    ]
    np.testing.assert_allclose(answer.regions[0].box, (np.array(bins[start : start + 4]) + 0.5) / 1000, rtol=1e-6)
    assert answer.confidence[0] == pytest.approx(np.prod(near) ** 0.25, rel=1e-3)
    assert ((answer.confidence > 0) & (answer.confidence <= 1)).all()


@pytest.mark.parametrize(("twin", "confidence"), [(105, 1.0), (111, 0.5**0.25), (700, 0.5**0.25)])
def test_bins_nearby_are_no_doubt(parrot: Florence2, images: list[np.ndarray], twin: int, confidence: float) -> None:
    """A bin with the embedding of another has its probability: half each. Ten bins apart they are one place."""
    ids = parrot.processor.tokenizer.convert_tokens_to_ids(["<loc_100>", f"<loc_{twin}>"])
    weight = parrot.model.get_input_embeddings().weight
    with torch.no_grad():
        weight[ids[1]] = weight[ids[0]]
    say(parrot, f"{DOG}")
    answer = parrot.ask(images[0], OBJECT_DETECTION)
    assert answer.confidence[0] == pytest.approx(confidence, abs=1e-3)


def test_doubt_about_a_label_and_about_a_place_multiply(parrot: Florence2, images: list[np.ndarray]) -> None:
    tokenizer = parrot.processor.tokenizer
    weight = parrot.model.get_input_embeddings().weight
    with torch.no_grad():
        for one, other in (("d", "z"), ("<loc_100>", "<loc_700>")):
            ids = tokenizer.convert_tokens_to_ids([one, other])
            weight[ids[1]] = weight[ids[0]]
    say(parrot, DOG)
    answer = parrot.ask(images[0], OBJECT_DETECTION)
    assert answer.confidence[0] == pytest.approx(0.5 ** (1 / 3) * 0.5 ** (1 / 4), abs=1e-3)  # 1 of 3 letters, of 4 bins


@pytest.mark.parametrize("text", ["", DOG, f"ein großer 犬<loc_1><loc_2><loc_3><loc_4>{DOG}", "A dog, on a street."])
def test_text_is_read_as_written(parrot: Florence2, images: list[np.ndarray], text: str) -> None:
    """One letter of the tiny tokenizer is one to three tokens."""
    say(parrot, text)
    answer = parrot.ask(images[0], OBJECT_DETECTION)
    assert answer.text == text
    assert [region.label for region in answer.regions] == [
        label for label in ("ein großer 犬", "dog") if label + "<" in text
    ]
    np.testing.assert_allclose(answer.confidence, 1, atol=1e-3)


def test_all_questions_about_all_images_equal_one_by_one(florence2: Florence2, images: list[np.ndarray]) -> None:
    texts = ["car", "dog", "a red apple"]
    together = florence2.ask_all(images, OPEN_VOCABULARY, texts)
    assert [len(answers) for answers in together] == [3, 3, 3]
    assert len({answer.text for answers in together for answer in answers}) == 9
    for image, answers in zip(images, together, strict=True):
        for text, answer in zip(texts, answers, strict=True):
            assert_same(answer, florence2.ask(image, OPEN_VOCABULARY, text))


def test_no_images(florence2: Florence2) -> None:
    assert florence2.ask_all([], OBJECT_DETECTION) == []


@pytest.mark.parametrize("size", [(1, 1), (3, 90), (3, 3), (200, 7)])
def test_images_of_any_size(florence2: Florence2, size: tuple[int, int]) -> None:
    assert florence2.ask(np.full((*size, 3), 7, np.uint8), OBJECT_DETECTION).text


def test_half_precision(tiny_florence2: Path, images: list[np.ndarray]) -> None:
    half = Florence2(tiny_florence2, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.bfloat16}
    say(half, DOG)
    answer = half.ask(images[0], OBJECT_DETECTION)
    assert answer.text == DOG
    assert answer.confidence.dtype == np.float32 and answer.confidence[0] == pytest.approx(1, abs=1e-2)


def test_a_grey_image(florence2: Florence2) -> None:
    with pytest.raises(ValueError, match=r"image 0: expected an \(H, W, 3\) uint8 RGB array, got shape \(8, 8\)"):
        florence2.ask_all([np.zeros((8, 8), np.uint8)], OBJECT_DETECTION)


def test_an_answer_that_is_cut_off_counts_until_there(tiny_florence2: Path, images: list[np.ndarray]) -> None:
    parrot = Florence2(tiny_florence2, max_new_tokens=14, num_beams=1)  # <s>, 3 letters and 4 bins, 3 letters, 3 bins
    say(parrot, DOG + "cat<loc_5><loc_6><loc_7><loc_8>")
    answer = parrot.ask(images[0], OBJECT_DETECTION)
    assert answer.text == DOG + "cat<loc_5><loc_6>"  # the last place is kept for the end
    assert [region.label for region in answer.regions] == ["dog"]


def test_longest_answer_is_what_the_decoder_holds(parrot: Florence2) -> None:
    assert parrot.max_new_tokens == MAX_POSITIONS - 1


def test_words_that_name_nothing_are_only_left_out_of_grounding(parrot: Florence2, images: list[np.ndarray]) -> None:
    """The tiny checkpoint bans "it" and "the image"."""
    say(parrot, f"The image<loc_1><loc_2><loc_3><loc_4>{DOG}")
    assert [region.label for region in parrot.ask(images[0], PHRASE_GROUNDING, "a dog").regions] == ["dog"]
    assert [region.label for region in parrot.ask(images[0], OBJECT_DETECTION).regions] == ["The image", "dog"]


def test_a_caption_and_what_it_names(parrot: Florence2, images: list[np.ndarray]) -> None:
    say(parrot, DOG)
    asked = []
    ask = parrot.ask

    def spy(image: np.ndarray, task: Task, text: str | None = None) -> Answer:
        asked.append((task, text))
        return ask(image, task, text)

    parrot.ask = spy
    caption, answer = parrot.describe(images[0], CAPTIONS["detailed_caption"])
    assert asked == [(CAPTIONS["detailed_caption"], None), (PHRASE_GROUNDING, "dog")]
    assert caption == "dog" and [region.label for region in answer.regions] == ["dog"]


def test_a_caption_without_words_names_nothing(parrot: Florence2, images: list[np.ndarray]) -> None:
    say(parrot, "<loc_5>")
    caption, answer = parrot.describe(images[0], CAPTIONS["caption"])
    assert caption == "" and answer.regions == []


@pytest.mark.parametrize(("task", "text", "message"), [
    (OBJECT_DETECTION, "dog", "object detection takes no text, got 'dog'"),
    (REFERRING_EXPRESSION, None, "referring expression segmentation needs a text"),
    (PHRASE_GROUNDING, "x" * 200, rf"takes \d+ tokens, the model reads {MAX_POSITIONS - NUM_IMAGE_TOKENS} beside"),
])  # fmt: skip
def test_bad_questions(
    florence2: Florence2, images: list[np.ndarray], task: Task, text: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        florence2.ask(images[0], task, text)


@pytest.mark.parametrize("name", ["num_beams", "max_new_tokens", "batch_size"])
def test_bad_numbers(tiny_florence2: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"expected {name} of at least 1, got 0"):
        Florence2(tiny_florence2, **{name: 0})


# ---- what a checkpoint can lack ----


def copy_with(source: Path, target: Path, file_name: str, **changes: object) -> Path:
    shutil.copytree(source, target)
    settings = json.loads((target / file_name).read_text(encoding="utf-8"))
    (target / file_name).write_text(json.dumps(settings | changes), encoding="utf-8")
    return target


def test_a_folder_needs_no_network(tiny_florence2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    Florence2(tiny_florence2)


@pytest.mark.parametrize(("name", "command"), [
    ("./nowhere/my-florence", "florence-2-large"),
    ("gdino_checkpoints/Florence-2-base", "florence-2-base"),
    ("florence-community/Florence-2-large", "florence-2-large"),
    ("florence-community/Florence-2-base-ft", "florence-2-base-ft"),
    ("someone/else", "florence-2-large"),
])  # fmt: skip
def test_a_missing_model_names_the_download(name: str, command: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"python -m grounded_sam2\.download {command} ") as caught:
        Florence2(name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        Florence2(tmp_path)


def test_no_weights(tiny_florence2: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_florence2, tmp_path / "copy")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="is not a complete Florence-2 folder"):
        Florence2(folder)


def test_another_model(tiny_detector: Path) -> None:
    with pytest.raises(ValueError, match="holds a model of type 'grounding-dino', expected 'florence2'"):
        Florence2(tiny_detector)


def test_a_checkpoint_with_code_of_its_own(tiny_florence2: Path, tmp_path: Path) -> None:
    folder = copy_with(
        tiny_florence2, tmp_path / "Florence-2-base", "config.json", text_config={"model_type": "florence2_language"}
    )
    with pytest.raises(ValueError, match=r"needs code of its own.*florence-community/Florence-2-base"):
        Florence2(folder)


def test_weights_that_lack_a_tensor(tiny_florence2: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_florence2, tmp_path / "copy")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "image_projection" in name)
    save_file(
        {key: tensor for key, tensor in tensors.items() if key != name}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ValueError, match=r"lack 1 tensors of the model: .*image_projection"):
        Florence2(folder)


def test_a_tokenizer_without_places(tiny_florence2: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_florence2, tmp_path / "copy")
    for path in (folder / "tokenizer.json", folder / "tokenizer_config.json"):
        path.write_text(path.read_text(encoding="utf-8").replace("<loc_7>", "<place_7>"), encoding="utf-8")
    with pytest.raises(ValueError, match="lacks the 1000 marks of places"):
        Florence2(folder)
