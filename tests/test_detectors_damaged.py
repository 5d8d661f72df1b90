"""Detector folders that are damaged or hostile, and weights that are no numbers: one line, never silence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from grounded_sam2.detectors.base import keep_queries, make_detections, read_search
from grounded_sam2.detectors.florence2.model import Florence2
from grounded_sam2.detectors.huggingface import HuggingFaceDetector
from grounded_sam2.detectors.local import LocalDetector
from grounded_sam2.runtime import choose_device
from grounded_sam2.weights import hub
from sam2.build_sam import build_sam2

PROMPT = "red apple. Green apple. dog"


@pytest.fixture
def folder(tiny_detector: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_detector, tmp_path / "model")


def cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def cut_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")


def other_shapes(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("fc1.weight"))
    tensors[name] = torch.zeros(3, 3)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def bad_bin(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02cposix\nsystem\nX\x08\0\0\0touch ranq\0\x85R.")


def bad_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": 3}')


def html_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("<html>login</html>")


def no_marks(folder: Path) -> None:
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        (folder / file).unlink(missing_ok=True)
    vocabulary = {"[UNK]": 0, "a": 1}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))


def config_of(changes: dict[str, Any]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return change


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def deep_config(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 10**5)


def preprocessor(folder: Path) -> None:
    for file in ("preprocessor_config.json", "processor_config.json"):
        (folder / file).write_text('{"image_processor_type": "NoSuch", "processor_class": 3}')


DAMAGES = [
    cut_weights, cut_header, other_shapes, bad_bin, bad_tokenizer, html_tokenizer, no_marks, broken_config, deep_config,
    preprocessor, config_of({"d_model": "a"}), config_of({"encoder_layers": -1}), config_of({"d_model": 63}),
    config_of({"backbone_config": 3}), config_of({"text_config": []}),
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_line_with_the_folder(
    damage: Callable[[Path], None], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    damage(folder)
    with pytest.raises((ValueError, OSError)) as caught:
        HuggingFaceDetector(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    assert not (folder.parent / "ran").exists()


@pytest.mark.parametrize("file", ["config.json", "processor_config.json", "tokenizer_config.json"])
def test_code_of_a_folder_is_not_run_and_nobody_is_asked(
    file: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt that waits for an answer is an EOFError here, as pytest gives no input."""
    names = ("AutoConfig", "AutoModelForZeroShotObjectDetection", "AutoProcessor", "AutoTokenizer")
    mapping = dict.fromkeys(names, "evil.Evil")
    tree = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps(tree | {"auto_map": mapping, "model_type": tree.get("model_type", "evil")}))
    ran = folder.parent / "ran"
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    try:
        HuggingFaceDetector(folder)
    except ValueError as problem:
        assert str(folder) in str(problem)
    assert not ran.exists()


def test_florence_2_folders(tmp_path: Path) -> None:
    mapping = {"AutoConfig": "evil.Evil"}
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "florence2", "auto_map": mapping, "text_config": 3})
    )
    with pytest.raises((ValueError, OSError), match=tmp_path.name):
        Florence2(tmp_path)


@pytest.mark.parametrize(
    ("own", "endpoint", "may_know"),
    [
        ("https://huggingface.co", None, True),
        ("https://hub.company.example", None, True),
        ("http://hub.company.example", None, False),
        ("https://huggingface.co", "https://huggingface.co", True),
        ("https://huggingface.co", "http://huggingface.co", False),
        ("https://huggingface.co", "https://mirror.example", False),
        ("https://huggingface.co", "https://huggingface.co.evil.example", False),
        ("https://huggingface.co", "https://user:pw@mirror.example", False),
    ],
)
def test_who_may_know_the_token(
    own: str, endpoint: str | None, may_know: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub.constants, "ENDPOINT", own)
    assert hub.hub_token(endpoint) is (None if may_know else False)


# ---- numbers that are none ----


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_finds_what_float32_does(
    tiny_detector: Path, images: list[np.ndarray], dtype: torch.dtype
) -> None:
    found = [
        HuggingFaceDetector(tiny_detector, dtype=each, nms_threshold=None).detect(
            images[0], PROMPT, box_threshold=0.0, text_threshold=0.0, top_k=5
        )[0]
        for each in (torch.float32, dtype)
    ]
    assert min(map(len, found)) > 10
    confidence = [detections.confidence for detections in found]
    np.testing.assert_allclose(confidence[1][:5], confidence[0][:5], atol=0.05)


def test_weights_that_are_no_numbers(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("fc1.weight"))
    tensors[name][0, 0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for build in (HuggingFaceDetector, LocalDetector):
        with pytest.raises(ValueError, match=rf"{folder} holds weights that are no numbers .*: \S*fc1|linear1"):
            build(folder)
    weights = torch.load("checkpoints/sam2.1_nano.pt", weights_only=True)["model"]
    weights["no_mem_embed"][:] = float("inf")
    torch.save(weights, tmp_path / "nan.pt")
    with pytest.raises(ValueError, match=r"nan\.pt holds weights that are no numbers .*: no_mem_embed$"):
        build_sam2(None, tmp_path / "nan.pt", device="cpu")


def test_nan_is_never_dropped_without_a_word() -> None:
    search = read_search("dog. cat.")
    scores, boxes = np.full((3, 5), 0.5, np.float32), np.full((3, 4), 0.5, np.float32)
    keep_queries(scores, boxes, [(1, 2), (3, 4)], range(2), search, (10, 10))
    for array in (scores, boxes):
        array[1, 1] = np.nan
        with pytest.raises(ValueError, match="computes NaN"):
            keep_queries(scores, boxes, [(1, 2), (3, 4)], range(2), search, (10, 10))
        array[1, 1] = 0.5
    with pytest.raises(ValueError, match="computes NaN"):
        make_detections(boxes[:1], np.array([np.nan]), np.array([0]), ["dog"], (10, 10))


@pytest.mark.parametrize("name", ["meta", "hpu", "xla", "fpga", "no such"])
def test_devices_that_do_not_compute(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}"):
        choose_device(name)
