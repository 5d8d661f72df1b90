"""Reading weights: both layouts, the architecture worked out, and errors that say what is wrong."""

import json
from pathlib import Path

import pytest
import torch
from reference.hugging_face import hugging_face_config, hugging_face_model
from reference.random_weights import random_state_dict
from torch import Tensor

from sam2.build_sam import build_sam2
from sam2.config import CONFIG_FILES, SAM2Config, load_config
from sam2.modeling.sam2_base import SAM2Base
from sam2.weights import config_for, config_of, describe, load_into, load_state_dict

SMALL = SAM2Config(
    image_size=64,
    embed_dim=8,
    stages=(1, 2, 3, 1),
    global_att_blocks=(3, 5),
    d_model=128,
    mem_dim=64,  # the one width that transformers can read
    decoder_mlp_dim=64,
    memory_attention_layers=2,
    memory_attention_mlp_dim=64,
)
FAMILY_20 = {
    "no_obj_embed_spatial": False,
    "proj_tpos_enc_in_obj_ptrs": False,
    "add_tpos_enc_to_obj_ptrs": False,
    "use_signed_tpos_enc_to_obj_ptrs": False,
}


@pytest.fixture
def model() -> SAM2Base:
    return SAM2Base(SMALL)


@pytest.fixture
def weights(model: SAM2Base) -> dict[str, Tensor]:
    return random_state_dict({name: tensor.shape for name, tensor in model.state_dict().items()})


def shapes_of(config: SAM2Config) -> dict[str, Tensor]:
    with torch.device("meta"):
        return SAM2Base(config).state_dict()


@pytest.mark.parametrize("wrapped", [True, False], ids=["under 'model'", "bare"])
def test_official_file(model: SAM2Base, weights: dict[str, Tensor], tmp_path: Path, wrapped: bool) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"model": weights} if wrapped else weights, file)
    load_into(model, file)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


@pytest.mark.parametrize("in_file", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("in_model", [torch.float32, torch.bfloat16])
def test_precision_is_the_models(
    model: SAM2Base, weights: dict[str, Tensor], tmp_path: Path, in_file: torch.dtype, in_model: torch.dtype
) -> None:
    torch.save({"model": {name: tensor.to(in_file) for name, tensor in weights.items()}}, tmp_path / "weights.pt")
    load_into(model.to(in_model), tmp_path / "weights.pt")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name].to(in_file).to(in_model)), name


@pytest.mark.parametrize("name", CONFIG_FILES)
def test_architecture_from_weights(name: str) -> None:
    config = load_config(name)
    assert config_of(shapes_of(config)) == config


def test_architecture_from_a_file(tmp_path: Path) -> None:
    config = load_config("sam2.1-nano")
    torch.save({"model": SAM2Base(config).state_dict()}, tmp_path / "weights.pt")
    assert config_for(tmp_path / "weights.pt") == config


@pytest.mark.parametrize("family", [{}, FAMILY_20], ids=["2.1", "2.0"])
@pytest.mark.parametrize("shard_size", ["5GB", "1MB"])
def test_hugging_face_folder(tmp_path: Path, family: dict[str, bool], shard_size: str) -> None:
    config = SAM2Config(**{**vars(SMALL), **family})
    model = SAM2Base(config)
    weights = random_state_dict({name: tensor.shape for name, tensor in model.state_dict().items()})
    folder = tmp_path / "folder"
    hugging_face_model(config, weights, tmp_path / "numbers").save_pretrained(folder, max_shard_size=shard_size)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (shard_size == "1MB")
    assert config_for(folder) == config
    load_into(model, folder)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


@pytest.mark.parametrize("name", [name for name in CONFIG_FILES if name not in ("sam2.1-nano", "edgetam")])
def test_hugging_face_names_of_every_size(name: str, tmp_path: Path) -> None:
    from transformers import Sam2VideoModel

    from sam2.weights import _with_official_names

    config = load_config(name)
    hf_config = hugging_face_config(config)
    with torch.device("meta"):
        renamed = _with_official_names(Sam2VideoModel(hf_config).state_dict())
    expected = shapes_of(config)
    assert {key: tensor.shape for key, tensor in renamed.items()} == {k: t.shape for k, t in expected.items()}
    hf_config.save_pretrained(tmp_path)
    assert config_for(tmp_path) == config


def test_every_wrong_key_is_named(model: SAM2Base, weights: dict[str, Tensor], tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    del weights["no_obj_ptr"], weights["memory_attention.norm.bias"]
    weights["surplus.weight"] = torch.zeros(3)
    weights["obj_ptr_proj.layers.0.bias"] = torch.zeros(5)
    torch.save({"model": weights}, tmp_path / "weights.pt")
    with pytest.raises(ValueError) as error:
        load_into(model, tmp_path / "weights.pt")
    headline, *lines = str(error.value).splitlines()
    assert headline.endswith("2 keys missing, 1 unexpected, 1 of another shape")
    assert lines == [
        "  missing: memory_attention.norm.bias",
        "  missing: no_obj_ptr",
        "  unexpected: surplus.weight",
        "  other shape: obj_ptr_proj.layers.0.bias: file (5,), model (128,)",
    ]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("names", "description"),
    [
        (["module.bert.encoder.layer.0.output.dense.weight", "module.bbox_embed.0.layers.0.weight"], "Grounding DINO"),
        (["model.text_backbone.encoder.layer.0.output.dense.weight"], "Grounding DINO"),
        (["image_encoder.blocks.0.attn.rel_pos_h", "mask_decoder.iou_token.weight"], "SAM 1"),
        (["vision_encoder.layers.0.attn.qkv.weight", "mask_decoder.iou_token.weight"], "SAM 1"),
        (["detector.backbone.vision_backbone.trunk.pos_embed"], "SAM 3"),
        (["image_encoder.trunk.pos_embed", "sam_mask_decoder.iou_token.weight"], "image model of SAM 2 alone"),
        (["memory_attention.norm.weight"], "part of a SAM 2 model"),
        (["features.0.weight"], "weights of another model (features.0.weight"),
        ([], "no weights"),
    ],
)
def test_weights_of_something_else(model: SAM2Base, tmp_path: Path, names: list[str], description: str) -> None:
    tensors = {name: torch.zeros(2) for name in names}
    assert description in describe(tensors)
    torch.save({"model": tensors}, tmp_path / "weights.pt")
    for call in (lambda: load_into(model, tmp_path / "weights.pt"), lambda: config_for(tmp_path / "weights.pt")):
        with pytest.raises(ValueError) as error:
            call()
        assert f"it seems to hold {describe(tensors)}" in str(error.value).splitlines()[0]


def test_other_family(model: SAM2Base, tmp_path: Path) -> None:
    torch.save({"model": SAM2Base(SAM2Config(**{**vars(SMALL), **FAMILY_20})).state_dict()}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"this model \(SAM 2.1, trunk 8 wide.*seems to hold SAM 2, trunk 8 wide"):
        load_into(model, tmp_path / "weights.pt")


def test_unknown_architecture(weights: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"no known config describes \(embed_dim=8, stages=\(1, 2, 3, 1\)"):
        config_of(weights)


@pytest.mark.parametrize(
    ("file", "download_name"),
    [
        ("checkpoints/sam2.1_hiera_large.pt", "sam2.1-large"),
        ("sam2_hiera_base_plus.pt", "sam2-base-plus"),
        ("sam2.1_hiera_b+.pt", "sam2.1-tiny"),
        ("sam2-hiera-small", "sam2-small"),
        ("mine.pt", "sam2.1-tiny"),
    ],
)
def test_missing_file_names_the_download(tmp_path: Path, file: str, download_name: str) -> None:
    for call in (load_state_dict, config_for):
        with pytest.raises(FileNotFoundError, match=rf"python -m grounded_sam2.download {download_name}$"):
            call(tmp_path / file)


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04cut off"], ids=["empty", "text", "cut off"])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_unreadable_file(tmp_path: Path, content: bytes, suffix: str) -> None:
    file = tmp_path / f"weights.{suffix}"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.\w+ cannot be read as a"):
        load_state_dict(file)


def test_cut_off_official_file(weights: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"model": weights}, file)
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(ValueError, match="cut off"):
        load_state_dict(file)


@pytest.mark.parametrize("content", [[1, 2], {"model": [1]}, {"epoch": 3}], ids=["list", "list in model", "no tensors"])
def test_file_without_tensors(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="holds no weights"):
        load_state_dict(tmp_path / "weights.pt")


def test_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no model\.safetensors and no single \.pt file"):
        load_state_dict(tmp_path)


def test_folder_of_another_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "grounding-dino"}))
    with pytest.raises(ValueError, match="model_type 'grounding-dino', expected 'sam2_video'"):
        config_for(tmp_path)


def test_missing_weights_are_reported_before_a_model_is_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(SAM2Base, "__init__", lambda *_arguments: pytest.fail("a model was built"))
    with pytest.raises(FileNotFoundError, match=r"download: python -m grounded_sam2\.download sam2\.1-large"):
        build_sam2("sam2.1-large", tmp_path / "sam2.1_hiera_large.pt")
