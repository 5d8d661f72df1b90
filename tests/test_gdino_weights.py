"""Grounding DINO weights and configs: every layout that is published, and what is wrong with a file in words."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from tiny_gdino import PROMPTS, hugging_face_model, random_images, run, save

from grounding_dino.groundingdino.configuration import CONFIG_FILES, CONFIG_ROOT, GroundingDINOConfig, load_config
from grounding_dino.groundingdino.models.grounding_dino import GroundingDINO
from grounding_dino.groundingdino.weight_names import with_official_names
from grounding_dino.groundingdino.weights import build_model, config_for, config_of, load_into, load_state_dict

NANO_FOLDER = Path(__file__).parents[1] / "gdino_checkpoints" / "nano"

# What official files hold beside the weights that the model reads.
UNREAD = {
    "label_enc.weight": torch.zeros(3, 4),
    "bert.embeddings.position_ids": torch.arange(40)[None],
    "bert.pooler.dense.weight": torch.zeros(64, 64),
    "bert.pooler.dense.bias": torch.zeros(64),
    "backbone.0.layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16, dtype=torch.int64),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder of a tiny random Swin model."""
    return save(hugging_face_model(), tmp_path_factory.mktemp("folder"))


@pytest.fixture(scope="module")
def official_file(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights as an official file."""
    path = tmp_path_factory.mktemp("official") / "tiny.pth"
    tensors = {f"module.{name}": tensor for name, tensor in (load_state_dict(folder) | UNREAD).items()}
    torch.save({"model": tensors}, path)
    return path


def official_names(config: GroundingDINOConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in GroundingDINO(config).state_dict().items()}


# ---- layouts ----


def test_official_file_and_hugging_face_folder_give_the_same_numbers(folder, official_file):
    config = config_for(folder)
    from_folder = build_model(folder, device="cpu")
    from_file = build_model(official_file, config, device="cpu")
    images = random_images((64, 96), (75, 60))
    outputs = [run(model, images, PROMPTS["one word"], PROMPTS["many phrases"]) for model in (from_folder, from_file)]
    assert torch.equal(outputs[0].logits, outputs[1].logits)
    assert torch.equal(outputs[0].boxes_cxcywh, outputs[1].boxes_cxcywh)


@pytest.mark.parametrize(
    "layout", ["plain", "no prefix", "args beside it", "state_dict", "one name per head", "safetensors"]
)
def test_variants_of_the_official_file(official_file, tmp_path, layout):
    prefixed = torch.load(official_file)["model"]
    tensors = {name.removeprefix("module."): tensor for name, tensor in prefixed.items()}
    path = tmp_path / "variant.pth"
    if layout == "safetensors":
        from safetensors.torch import save_file

        path = path.with_suffix(".safetensors")
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)
    else:
        heads = ("transformer.decoder.bbox_embed.", "bbox_embed.1.", "bbox_embed.2.")
        torch.save(
            {
                "plain": prefixed,
                "no prefix": {"model": tensors},
                "args beside it": {"model": tensors, "args": argparse.Namespace(lr=1e-4), "epoch": 3},
                "state_dict": {"state_dict": tensors},
                "one name per head": {name: x for name, x in tensors.items() if not name.startswith(heads)},
            }[layout],
            path,
        )
    expected, found = load_state_dict(official_file), load_state_dict(path)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_hugging_face_folder_of_several_files_and_of_the_old_format(folder, tmp_path):
    model = hugging_face_model()
    model.save_pretrained(tmp_path / "shards", max_shard_size="200KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    (tmp_path / "old").mkdir()
    torch.save(model.state_dict(), tmp_path / "old" / "pytorch_model.bin")
    shutil.copy(folder / "config.json", tmp_path / "old")
    expected = load_state_dict(folder)
    for name in ("shards", "old"):
        found = load_state_dict(tmp_path / name)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
        assert build_model(tmp_path / name, device="cpu").config == config_for(folder)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_feature_levels": 5, "encoder_attention_heads": 8},
        {"backbone": "resnet", "num_feature_levels": 3},
        {"backbone": "efficientnet_lite", "num_feature_levels": 3},
        {"kind": "MMGroundingDino"},
        {"embedding_init_target": False},
    ],
    ids=str,
)
def test_the_architecture_is_worked_out_from_weights_alone(settings, tmp_path):
    folder = save(hugging_face_model(**settings), tmp_path)
    described = config_for(folder)
    (folder / "config.json").unlink()
    not_in_the_weights = {"max_text_len", "bert_num_attention_heads"}
    if not described.embed_init_tgt:
        not_in_the_weights.add("num_queries")
    for found in (config_for(folder), config_of(load_state_dict(folder))):
        differing = {
            field.name for field in fields(found) if getattr(found, field.name) != getattr(described, field.name)
        }
        assert differing <= not_in_the_weights | {"inverse_sigmoid_eps"}
    assert config_for(folder).inverse_sigmoid_eps == described.inverse_sigmoid_eps
    assert build_model(folder, device="cpu").config == config_for(folder)


def test_a_head_for_each_layer_stays_its_own(tmp_path):
    folder = save(hugging_face_model(decoder_bbox_embed_share=False), tmp_path)
    tensors = load_state_dict(folder)
    first, second = (tensors[f"bbox_embed.{layer}.layers.0.weight"] for layer in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(second, tensors["transformer.decoder.bbox_embed.1.layers.0.weight"])


def test_bundled_nano_is_described_by_its_folder_and_by_its_file():
    config = config_for(NANO_FOLDER)
    assert (config.backbone, config.hidden_dim, config.num_feature_levels) == ("efficientnet_lite", 64, 3)
    assert config_for(NANO_FOLDER / "model.safetensors") == config


@pytest.mark.parametrize("name", ["GroundingDINO_SwinT_OGC", "GroundingDINO_SwinB_cfg"])
def test_full_size_models_have_exactly_the_weights_of_the_reference(name):
    import transformers

    ours = replace(load_config(name), inverse_sigmoid_eps=1e-5)
    backbone = transformers.SwinConfig(
        embed_dim=ours.embed_dim,
        depths=list(ours.depths),
        num_heads=list(ours.num_heads),
        window_size=ours.window_size,
        out_indices=[2, 3, 4],
    )
    with torch.device("meta"):
        reference = transformers.GroundingDinoForObjectDetection(
            transformers.GroundingDinoConfig(backbone_config=backbone)
        )
    tensors = with_official_names(reference.state_dict())
    assert {name: tensor.shape for name, tensor in tensors.items()} == official_names(ours)
    assert replace(config_of(tensors), inverse_sigmoid_eps=1e-5) == ours
    assert load_config_from_tree(reference.config.to_dict()) == ours


def load_config_from_tree(tree: dict) -> GroundingDINOConfig:
    from grounding_dino.groundingdino.configuration import config_from_hugging_face

    return config_from_hugging_face(json.loads(json.dumps(tree, default=str)))


# ---- what does not fit ----


def test_every_key_that_does_not_fit_is_named(official_file, tmp_path):
    model = build_model(official_file, device="cpu")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors = load_state_dict(official_file)
    del tensors["feat_map.bias"], tensors["transformer.encoder.layers.1.norm2.weight"]
    tensors["transformer.extra"] = torch.zeros(1)
    tensors["transformer.level_embed"] = torch.zeros(2, 64)
    path = tmp_path / "broken.pth"
    torch.save({"model": tensors}, path)
    with pytest.raises(ValueError) as caught:
        load_into(model, path)
    lines = str(caught.value).splitlines()
    assert "2 keys missing, 1 unexpected, 1 of another shape" in lines[0]
    assert lines[1:] == [
        "  missing: feat_map.bias",
        "  missing: transformer.encoder.layers.1.norm2.weight",
        "  unexpected: transformer.extra",
        "  other shape: transformer.level_embed: file (2, 64), model (4, 64)",
    ]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_part_of_a_hugging_face_attention_that_is_missing_is_named(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.decoder.layers.0.self_attn.key.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    shutil.copy(folder / "config.json", tmp_path)
    with pytest.raises(ValueError, match=r"missing: transformer\.decoder\.layers\.0\.self_attn\.in_proj_weight"):
        build_model(tmp_path)


@pytest.mark.parametrize(
    ("keys", "description"),
    [
        (["image_encoder.trunk.patch_embed.proj.weight", "memory_attention.norm.weight"], "SAM 2 weights"),
        (["image_encoder.blocks.0.norm1.weight"], "SAM 1 weights"),
        (["bert.encoder.layer.0.output.dense.weight"], "the weights of a BERT model"),
        (["patch_embed.proj.weight"], "the weights of an image backbone"),
        (["module.transformer.decoder.norm.weight"], "part of a Grounding DINO"),
        (["language_model.language_backbone.body.weight"], "MM-Grounding-DINO weights of mmdetection"),
        (["fc.weight"], "weights of another model (fc.weight, …)"),
        ([], "no weights"),
    ],
)
def test_a_checkpoint_of_another_model_is_called_what_it_is(keys, description, official_file, tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"model": {key: torch.zeros(1) for key in keys}}, path)
    model = build_model(official_file, device="cpu")
    for load in (lambda: build_model(path), lambda: config_for(path), lambda: load_into(model, path)):
        with pytest.raises(ValueError) as caught:
            load()
        assert f"seems to hold {description}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "to_download"),
    [
        ("groundingdino_swint_ogc.pth", "groundingdino-swint"),
        ("groundingdino_swinb_cogcoor.pth", "groundingdino-swinb"),
        ("grounding-dino-base", "IDEA-Research/grounding-dino-base"),
        ("somewhere", "IDEA-Research/grounding-dino-tiny"),
    ],
)
def test_missing_weights_name_the_command_to_run(tmp_path, name, to_download):
    with pytest.raises(FileNotFoundError, match=rf"gdino_checkpoints/download_ckpts.sh {to_download}$"):
        build_model(tmp_path / name, "GroundingDINO_SwinT_OGC")


def test_files_that_hold_no_weights(official_file, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no model\.safetensors"):
        load_state_dict(tmp_path)
    for suffix in (".pth", ".safetensors"):
        path = tmp_path / f"cut{suffix}"
        path.write_bytes(official_file.read_bytes()[:1000])
        with pytest.raises(ValueError, match="may be cut off"):
            load_state_dict(path)
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    with pytest.raises(ValueError, match="holds no weights"):
        load_state_dict(tmp_path / "epoch.pth")


# ---- configs ----


@pytest.mark.parametrize("file", CONFIG_FILES.values())
@pytest.mark.parametrize("spelling", ["{stem}", "{stem}.py", "groundingdino/config/{stem}.py", "{root}/{stem}.py"])
def test_upstream_names_of_configs(file, spelling):
    config = load_config(spelling.format(stem=file.removesuffix(".py"), root=CONFIG_ROOT))
    expected = (128, 12) if "SwinB" in file else (96, 7)
    assert (config.embed_dim, config.window_size) == expected
    assert (config.hidden_dim, config.dec_nheads, config.num_queries) == (256, 8, 900)


def test_the_defaults_are_the_official_swin_t():
    assert load_config("GroundingDINO_SwinT_OGC") == GroundingDINOConfig()


def test_a_config_file_is_read_and_never_executed(tmp_path):
    path = tmp_path / "mine.py"
    marker = tmp_path / "executed"
    path.write_text(
        f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nbackbone = 'swin_B_384_22k'\nnum_queries = 300\n"
        "lr = 10 ** -4\nnheads = 4\nreturn_interm_indices = [1, 2, 3]\ntext_encoder_type = 'models/bert'\n"
    )
    config = load_config(path)
    assert not marker.exists()
    assert (config.num_queries, config.nheads, config.dec_nheads, config.embed_dim) == (300, 4, 4, 128)
    assert config.own_tokenizer == "models/bert" and load_config("GroundingDINO_SwinT_OGC").own_tokenizer is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_queries = 900", "names no backbone"),
        ("backbone = 'resnet50'", "the backbone 'resnet50' is not supported"),
        ("backbone = 'swin_T_224_1k'\ntwo_stage_type = 'no'", "two_stage_type='no' is not supported"),
        ("backbone = 'swin_T", "is not a Grounding DINO config"),
    ],
)
def test_configs_that_are_not_built(tmp_path, text, message):
    path = tmp_path / "config.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_config(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bert"}, "model_type 'bert', expected 'grounding-dino'"),
        ({"two_stage": False}, "two_stage=False is not supported"),
        ({"position_embedding_type": "learned"}, "position_embedding_type='learned' is not supported"),
        ({"backbone_config": {"model_type": "convnext"}}, "the backbone 'convnext' is not supported"),
        ({"backbone_config": {"model_type": "resnet"}}, "layer_type='bottleneck' is not supported"),
        ({"backbone_config": {"model_type": "swin", "mlp_ratio": 2.0}}, "mlp_ratio=2.0 is not supported"),
    ],
)
def test_hugging_face_configs_that_are_not_built(folder, tmp_path, changes, message):
    tree = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(tree | changes))
    with pytest.raises(ValueError, match=message):
        load_config(tmp_path)


def test_an_unknown_config_name_lists_the_known_ones():
    with pytest.raises(FileNotFoundError, match="GroundingDINO_SwinT_OGC, GroundingDINO_SwinB_cfg"):
        load_config("GroundingDINO_SwinX")
