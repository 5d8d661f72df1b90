"""Checkpoints as trainings leave them, damaged ones and hostile ones: weights, or one line that says what was found."""

import argparse
import collections
import json
import os
import pathlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from checkpoint_files.configs import check_fields
from checkpoint_files.reading import read_index, read_tensors
from grounding_dino.groundingdino.configuration import load_config as load_gdino_config
from grounding_dino.groundingdino.image import image_transform_for
from sam2.config import SAM2Config, load_config

ANCHORS = ("trunk.patch.weight",)
WEIGHTS = {"trunk.patch.weight": torch.arange(3.0), "head.bias": torch.ones(2)}


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.function = nn.functional.relu


class Runs:
    def __init__(self, function: Any, argument: str) -> None:
        self.function, self.argument = function, argument

    def __reduce__(self) -> Any:
        return self.function, (self.argument,)


def named(prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in WEIGHTS.items()}


FINE_TUNED = {
    "bare": WEIGHTS,
    "data parallel": {"model": named("module.")},
    "compiled": {"model": named("_orig_mod.")},
    "compiled inside": {"model": {"_orig_mod.trunk._orig_mod.patch.weight": WEIGHTS["trunk.patch.weight"],
                                  "_orig_mod.head.bias": WEIGHTS["head.bias"]}},
    "state_dict": {"state_dict": WEIGHTS, "epoch": 3},
    "Lightning": {"state_dict": {**named("model."), "loss.weight": torch.ones(1)}, "hyper_parameters":
                  collections.defaultdict(list, {"root": [pathlib.PurePosixPath("data")]})},
    "NumPy numbers": {"model": WEIGHTS, "best": np.float64(0.5), "scores": np.ones(3)},
    "a whole module beside": {"model": WEIGHTS, "ema": Whole(), "args": argparse.Namespace(lr=1e-4)},
    "beside other tensors": {"model": WEIGHTS, "optimizer": {"state": {0: {"exp_avg": torch.ones(1)}}}},
    "with plain values": {"model": {**WEIGHTS, "version": 3}},
}  # fmt: skip


@pytest.mark.parametrize("content", FINE_TUNED.values(), ids=FINE_TUNED)
def test_weights_are_found(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    before = torch.serialization.get_safe_globals()
    found = read_tensors(tmp_path / "weights.pt", ANCHORS)
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)
    assert set(torch.serialization.get_safe_globals()) == set(before)


def test_a_file_of_before_pytorch_1_6(tmp_path: Path) -> None:
    torch.save({"model": WEIGHTS, "best": np.float64(1)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert read_tensors(tmp_path / "old.pt", ANCHORS).keys() == WEIGHTS.keys()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (Whole(), r"a pickled \S*Whole: save its state_dict\(\)"),
        ({"model": Whole()}, r"'model' \(a pickled \S*Whole\)"),
        ({"epoch": 3}, r"found 'epoch' \(int\)"),
        ([1, 2], "found a list"),
        ({"state_dict": {**named("model."), **named("ema.")}}, r"holds 2 models, under 'ema\.', 'model\.'"),
        ({"model": WEIGHTS, "x": Runs(os.system, "touch ran")}, r"is whole, but not read.*asks for posix\.system"),
    ],
)
def test_what_was_found_is_named(content: Any, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=rf"weights\.pt .*{says}") as caught:
        read_tensors(tmp_path / "weights.pt", ANCHORS)
    assert "cut off" not in str(caught.value) and "\n" not in str(caught.value)
    assert not Path("ran").exists()


def test_names_in_a_file_steer_no_terminal(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "weights.pt", "w") as archive:
        archive.writestr("weights/data.pkl", b"\x80\x02cos\n\x1b[2Jsystem\nq\x00)R.")
        archive.writestr("weights/version", b"3\n")
    with pytest.raises(ValueError, match="is whole, but not read as weights") as caught:
        read_tensors(tmp_path / "weights.pt", ANCHORS)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("function", [eval, exec, __import__], ids=str)
def test_nothing_in_a_file_is_run(function: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": WEIGHTS, "x": Runs(function, "open('ran', 'w')")}, tmp_path / "weights.pt")
    assert read_tensors(tmp_path / "weights.pt", ANCHORS).keys() == WEIGHTS.keys()
    assert not Path("ran").exists()


def test_damage_is_told_from_a_cut(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save(WEIGHTS, file)
    content = file.read_bytes()
    place = content.find(b"trunk.patch.weight") - 3
    for changed, says in (
        (content[: len(content) // 2], "may be cut off"),
        (b"", "may be cut off"),
        (content[:place] + b"\xff\xff" + content[place + 2 :], "is damaged: weights/data.pkl"),
        (b"<html>no such file</html>", "begins with b'<html>no such fi'"),
    ):
        file.write_bytes(changed)
        with pytest.raises(ValueError, match=says):
            read_tensors(file, ANCHORS)


def test_a_torchscript_program_is_not_loaded(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "program.pt", "w") as archive:
        for name in ("program/data.pkl", "program/constants.pkl"):
            archive.writestr(name, b"\x80\x02}q\x00.")
    with pytest.raises(ValueError, match="a TorchScript program"):
        read_tensors(tmp_path / "program.pt", ANCHORS)
    assert not recwarn


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": "../../secret"}}', "[" * 10**5]
)
def test_broken_indices(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match=r"index\.json is not an index of weights"):
        read_index(tmp_path / "model.safetensors.index.json")


# ---- configurations ----

BROKEN_YAML = [
    "", "3", "- a", "model: 3", "model: [1]", "a: b: c", "{", "\t", "&a [*a]", "!!python/object:os.system {}",
    "image_size: big", "image_size: 1.5", "image_size: [1]", "image_size: true", "image_size: " + "9" * 30,
    "image_size: 0x" + "f" * 5000, "rope_theta: .nan", "rope_theta: x", "stages: 3", "stages: [a]", "stages: []",
    "stages: {a: 1}", "d_model: null", "backbone: 3", "scalp: 2024-99-99", "unknown: 1", "? [a]\n: 1",
    "model:\n  image_encoder: {trunk: {embed_dim: x}}", "\x00", "a: " + "[" * 3000,
]  # fmt: skip


@pytest.mark.parametrize("text", BROKEN_YAML, ids=lambda text: repr(text)[:30])
def test_broken_yaml_is_one_line_with_the_file(text: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"broken\.yaml") as caught:
        load_config(file)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 800


BROKEN_PYTHON = [
    "", "backbone = 3", "backbone = ['a']", "backbone = 'vgg'", "def", "\x00",
    "backbone = 'swin_T_224_1k'\nnheads = 'a'",
    "backbone = 'swin_T_224_1k'\nhidden_dim = 10**9", "backbone = 'swin_T_224_1k'\nhidden_dim = 1.5",
    "backbone = 'swin_T_224_1k'\nreturn_interm_indices = 3", "a = " + "(" * 5000, "backbone = {1: [], []: 2}",
    "backbone = 'swin_T_224_1k'\nenc_layers = True", "backbone = 'swin_T_224_1k'\nhidden_dim = 99999999999",
]  # fmt: skip


@pytest.mark.parametrize("text", BROKEN_PYTHON, ids=lambda text: repr(text)[:30])
def test_broken_python_configs(text: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text(text)
    if "10**9" in text:  # computed, so passed over
        assert load_gdino_config(file).hidden_dim == 256
        return
    with pytest.raises(ValueError, match=r"broken\.py"):
        load_gdino_config(file)


@pytest.mark.parametrize(
    "text",
    ["", "3", "[]", "{}", "{", "[" * 10**5, '{"model_type": ["a"]}']
    + [
        f'{{"model_type": "grounding-dino", {more}}}'
        for more in (
            '"d_model": "a"', '"d_model": 1e400', '"d_model": -1.5',
            '"encoder_layers": [1]', '"text_config": 3',
            '"backbone_config": 3', '"backbone_config": {"model_type": []}', '"backbone_config": {"depths": "ab"}',
            '"backbone_config": {"out_features": [3]}', '"backbone_config": {"out_indices": ["a"]}',
        )
    ],
    ids=lambda text: text[:60],
)  # fmt: skip
def test_broken_json_configs(text: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    if '"text_config": 3' in text:  # says nothing about the architecture
        assert load_gdino_config(file).bert_vocab_size == 30522
        return
    with pytest.raises(ValueError, match=r"config\.json"):
        load_gdino_config(file)


@pytest.mark.parametrize(
    "changes",
    [{"size": {"shortest_edge": 10**9, "longest_edge": 1}}, {"size": {"shortest_edge": "a", "longest_edge": 1}},
     {"size": 3}, {"image_mean": [1, 2]}, {"image_mean": [[1], 2, 3]}, {"image_std": [0, 0, 0]}, {"image_std": 3}],
)  # fmt: skip
def test_broken_image_settings(changes: dict[str, Any], tmp_path: Path) -> None:
    settings = {"size": {"shortest_edge": 800, "longest_edge": 1333}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings | changes))
    with pytest.raises(ValueError, match=r"preprocessor_config\.json is not read"):
        image_transform_for(tmp_path)


def test_numbers_of_yaml_1_1(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("rope_theta: 1e4\nstages: [1, 2, 7, 2]\nsigmoid_bias_for_mem_enc: -10")
    assert load_config(tmp_path / "config.yaml") == SAM2Config()


def test_fields() -> None:
    check_fields(SAM2Config(), {"image_size": 512, "rope_theta": 3, "stages": (1, 2), "backbone": "hiera"}, "file")
    with pytest.raises(ValueError, match=r"file: stages: expected a list of whole numbers, found \(1, 'a'\)"):
        check_fields(SAM2Config(), {"stages": (1, "a")}, "file")
