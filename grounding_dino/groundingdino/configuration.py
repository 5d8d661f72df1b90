"""Architecture of one Grounding DINO, read from a name, an upstream configuration file or a Hugging Face folder."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from checkpoint_files.configs import brief, check_fields, read_json_object

CONFIG_ROOT = Path(__file__).parent / "config"

# The files of upstream, by the name of the backbone they hold.
CONFIG_FILES = {"swin_T_224_1k": "GroundingDINO_SwinT_OGC.py", "swin_B_384_22k": "GroundingDINO_SwinB_cfg.py"}

# Backbones as upstream's files name them.
BACKBONES: dict[str, dict[str, Any]] = {
    "swin_T_224_1k": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "window_size": 7},
    "swin_B_224_22k": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32), "window_size": 7},
    "swin_B_384_22k": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32), "window_size": 12},
    "swin_L_224_22k": {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48), "window_size": 7},
    "swin_L_384_22k": {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48), "window_size": 12},
}


DEFAULT_TEXT_ENCODER = "bert-base-uncased"


@dataclass(frozen=True)
class GroundingDINOConfig:
    """Every number that tells one Grounding DINO from another; the defaults are the official Swin-T model.

    Names are those of upstream's configuration files where they have one.
    """

    # image encoder
    backbone: str = "swin"  # "swin", "resnet" of basic blocks, or "efficientnet_lite"
    depths: tuple[int, ...] = (2, 2, 6, 2)  # blocks of each stage
    embed_dim: int = 96  # swin: channels of the first stage
    num_heads: tuple[int, ...] = (3, 6, 12, 24)  # swin: of each stage
    window_size: int = 7  # swin: side of a window in tokens
    embedding_size: int = 64  # resnet: channels of the first convolution
    hidden_sizes: tuple[int, ...] = (64, 128, 256, 512)  # resnet: channels of each stage
    return_interm_indices: tuple[int, ...] = (1, 2, 3)  # stages that are read, 0-based
    pe_temperatureH: float = 20.0
    pe_temperatureW: float = 20.0

    # text encoder
    bert_vocab_size: int = 30522
    bert_hidden_size: int = 768
    bert_num_hidden_layers: int = 12
    bert_num_attention_heads: int = 12
    bert_intermediate_size: int = 3072
    bert_max_position_embeddings: int = 512
    bert_layer_norm_eps: float = 1e-12
    max_text_len: int = 256  # tokens of one text, [CLS] and [SEP] included
    text_encoder_type: str = DEFAULT_TEXT_ENCODER  # hub name or folder of the tokenizer

    # feature enhancer and decoder; attention between text and image, and within text, has half of `nheads` heads
    hidden_dim: int = 256
    nheads: int = 8
    dec_nheads: int = 8
    dim_feedforward: int = 2048
    dec_dim_feedforward: int = 2048
    enc_layers: int = 6
    dec_layers: int = 6
    num_feature_levels: int = 4  # those of the backbone, then one more by each convolution of stride 2
    enc_n_points: int = 4
    dec_n_points: int = 4
    layer_norm_eps: float = 1e-5

    # queries and boxes
    num_queries: int = 900
    embed_init_tgt: bool = True  # queries start from learned embeddings, not from the features they were chosen by
    scaled_class_embed: bool = False  # MM-Grounding-DINO: logits are scaled by √hidden_dim and have a learned bias
    inverse_sigmoid_eps: float = 1e-3  # box coordinates are kept this far from 0 and 1 where they become logits

    @property
    def own_tokenizer(self) -> str | None:
        """The tokenizer that the config names, or None for the usual one, which is first looked for beside weights."""
        return None if self.text_encoder_type == DEFAULT_TEXT_ENCODER else self.text_encoder_type


# Settings of upstream's files that no official file varies.
_UPSTREAM_FIXED: dict[str, Any] = {
    "position_embedding": "sine",
    "sub_sentence_present": True,
    "transformer_activation": "relu",
    "use_text_enhancer": True,
    "use_fusion_layer": True,
    "use_text_cross_attention": True,
    "query_dim": 4,
    "two_stage_type": "standard",
    "num_patterns": 0,
    "pre_norm": False,
}

# Hugging Face `config.json`: path of keys → fields. Files leave out what has its default value, which is below.
_HF_FIELDS: dict[str, tuple[str, ...]] = {
    "text_config.vocab_size": ("bert_vocab_size",),
    "text_config.hidden_size": ("bert_hidden_size",),
    "text_config.num_hidden_layers": ("bert_num_hidden_layers",),
    "text_config.num_attention_heads": ("bert_num_attention_heads",),
    "text_config.intermediate_size": ("bert_intermediate_size",),
    "text_config.max_position_embeddings": ("bert_max_position_embeddings",),
    "text_config.layer_norm_eps": ("bert_layer_norm_eps",),
    "max_text_len": ("max_text_len",),
    "positional_embedding_temperature": ("pe_temperatureH", "pe_temperatureW"),
    "d_model": ("hidden_dim",),
    "encoder_attention_heads": ("nheads",),
    "decoder_attention_heads": ("dec_nheads",),
    "encoder_ffn_dim": ("dim_feedforward",),
    "decoder_ffn_dim": ("dec_dim_feedforward",),
    "encoder_layers": ("enc_layers",),
    "decoder_layers": ("dec_layers",),
    "num_feature_levels": ("num_feature_levels",),
    "encoder_n_points": ("enc_n_points",),
    "decoder_n_points": ("dec_n_points",),
    "layer_norm_eps": ("layer_norm_eps",),
    "num_queries": ("num_queries",),
    "embedding_init_target": ("embed_init_tgt",),
}
_HF_BACKBONE_FIELDS = {
    "swin": ("depths", "embed_dim", "num_heads", "window_size"),
    "resnet": ("depths", "embedding_size", "hidden_sizes"),
    "efficientnet_lite": (),
}
_HF_FIXED: dict[str, Any] = {
    "two_stage": True,
    "position_embedding_type": "sine",
    "activation_function": "relu",
    "query_dim": 4,
    "text_config.model_type": "bert",
    "text_config.hidden_act": "gelu",
}
_HF_BACKBONE_FIXED: dict[str, dict[str, Any]] = {
    "swin": {
        "patch_size": 4,
        "mlp_ratio": 4.0,
        "qkv_bias": True,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "use_absolute_embeddings": False,
    },
    "resnet": {"layer_type": "basic", "hidden_act": "relu", "downsample_in_first_stage": False},
    "efficientnet_lite": {},
}
# transformers' own defaults where they differ from those of this package.
_HF_RESNET_DEFAULTS: dict[str, Any] = {
    "depths": (3, 4, 6, 3),
    "hidden_sizes": (256, 512, 1024, 2048),
    "layer_type": "bottleneck",
}
_HF_INVERSE_SIGMOID_EPS = 1e-5


def find_config(name_or_path: str | Path) -> Path:
    """Path of a configuration file, from an upstream name or a path.

    Args:
        name_or_path: `"GroundingDINO_SwinT_OGC"`, the same with `.py` or any folders before it, a file, or a folder
            that holds `config.json`.

    Raises:
        FileNotFoundError: no such file, with the names that exist.
    """
    path = Path(name_or_path)
    for candidate in (path, path / "config.json", CONFIG_ROOT / f"{path.name.removesuffix('.py')}.py"):
        if candidate.is_file():
            return candidate
    names = ", ".join(file.removesuffix(".py") for file in CONFIG_FILES.values())
    raise FileNotFoundError(
        f"no Grounding DINO config {str(name_or_path)!r}; give a file, a Hugging Face folder or one of: {names}"
    )


def load_config(name_or_path: str | Path) -> GroundingDINOConfig:
    """Read a configuration.

    Args:
        name_or_path: see `find_config`. Upstream's files are Python: their assignments are read, never executed, and
            names that say nothing about the architecture (training settings) are passed over.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a configuration of Grounding DINO, or of one that this package does not build.
    """
    path = find_config(name_or_path)
    if path.suffix == ".json":
        return config_from_hugging_face(read_json_object(path), str(path))
    return _config_from_upstream(_assignments(path), str(path))


def config_from_hugging_face(tree: Mapping[str, Any], source: str = "the config") -> GroundingDINOConfig:
    """Translate the content of a Hugging Face `config.json`, of Grounding DINO or MM-Grounding-DINO.

    Raises:
        ValueError: of another model, or of an architecture that this package does not build.
    """
    model_type = tree.get("model_type") if isinstance(tree, Mapping) else None
    if model_type not in ("grounding-dino", "mm-grounding-dino"):
        raise ValueError(f"{source} describes model_type {brief(model_type)}, expected 'grounding-dino'")
    _check_fixed(tree, _HF_FIXED, source)
    values: dict[str, Any] = {"scaled_class_embed": model_type == "mm-grounding-dino"}
    values["inverse_sigmoid_eps"] = _HF_INVERSE_SIGMOID_EPS
    for key, names in _HF_FIELDS.items():
        value = _lookup(tree, key)
        if value is not None:
            values.update(dict.fromkeys(names, value))
    values.update(_hugging_face_backbone(tree.get("backbone_config") or {}, source))
    check_fields(GroundingDINOConfig(), values, source)
    return replace(GroundingDINOConfig(), **values)


def _hugging_face_backbone(tree: Mapping[str, Any], source: str) -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        raise ValueError(f"{source}: backbone_config: expected an object, found {type(tree).__name__}")
    kind = tree.get("model_type", "swin")
    if not isinstance(kind, str) or kind not in _HF_BACKBONE_FIELDS:
        raise ValueError(
            f"{source}: the backbone {brief(kind)} is not supported, only {', '.join(_HF_BACKBONE_FIELDS)}"
        )
    if kind == "resnet":
        tree = {**_HF_RESNET_DEFAULTS, **tree}
    _check_fixed(tree, _HF_BACKBONE_FIXED[kind], f"{source}: backbone_config")
    values: dict[str, Any] = {"backbone": kind}
    for name in _HF_BACKBONE_FIELDS[kind]:
        if tree.get(name) is not None:
            values[name] = _as_field(tree[name])
    try:
        if stages := tree.get("out_features"):
            values["return_interm_indices"] = tuple(int(stage.removeprefix("stage")) - 1 for stage in stages)
        elif numbers := tree.get("out_indices"):
            values["return_interm_indices"] = tuple(index - 1 for index in numbers)  # 0 is the stem
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{source}: backbone_config: the stages that are read are no list of stages") from error
    return values


def config_of_settings(settings: Mapping[str, Any], source: str = "the config") -> GroundingDINOConfig:
    """The configuration of settings that are read already: upstream's names, or a Hugging Face `config.json`.

    Raises:
        ValueError: of another model, or of an architecture that this package does not build.
    """
    if "model_type" in settings:
        return config_from_hugging_face(settings, source)
    return _config_from_upstream(settings, source)


def read_settings(name_or_path: str | Path) -> dict[str, Any]:
    """What a configuration file gives values to, as it stands there; see `load_config`."""
    path = find_config(name_or_path)
    if path.suffix == ".json":
        return read_json_object(path)
    return _assignments(path)


def _config_from_upstream(settings: Mapping[str, Any], source: str) -> GroundingDINOConfig:
    if "backbone" not in settings:
        raise ValueError(f"{source} is not a Grounding DINO config: it names no backbone")
    name = settings["backbone"]
    if not isinstance(name, str) or name not in BACKBONES:
        raise ValueError(f"{source}: the backbone {brief(name)} is not supported, only {', '.join(BACKBONES)}")
    _check_fixed(settings, _UPSTREAM_FIXED, source)
    known = {field.name for field in fields(GroundingDINOConfig)} - {"backbone"}
    values = {key: _as_field(value) for key, value in settings.items() if key in known}
    for ours, upstreams in (("dec_nheads", "nheads"), ("dec_dim_feedforward", "dim_feedforward")):
        if upstreams in values:
            values.setdefault(ours, values[upstreams])
    values = {**BACKBONES[name], **values}
    check_fields(GroundingDINOConfig(), values, source)
    return replace(GroundingDINOConfig(), **values)


def _assignments(path: Path) -> dict[str, Any]:
    """The names a Python file gives literal values at its top level."""
    try:
        statements = ast.parse(path.read_text(encoding="utf-8")).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:  # the last two: deeply nested
        raise ValueError(f"{path} is not a Grounding DINO config: {problem}") from problem
    values: dict[str, Any] = {}
    for statement in statements:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            try:
                values[statement.targets[0].id] = ast.literal_eval(statement.value)
            except (ValueError, TypeError, RecursionError, MemoryError):
                continue  # computed, as some training settings are
    return values


def _check_fixed(tree: Mapping[str, Any], fixed: Mapping[str, Any], source: str) -> None:
    for key, expected in fixed.items():
        value = _lookup(tree, key)
        if value is not None and value != expected:
            raise ValueError(f"{source}: {key}={brief(value)} is not supported, only {expected!r}")


def _lookup(tree: Mapping[str, Any], path: str) -> Any:
    value: Any = tree
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _as_field(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
