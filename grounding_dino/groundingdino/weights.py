"""Read Grounding DINO weights: official `.pth` files, Hugging Face folders, and fine-tuned files of either layout."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

from checkpoint_files.reading import check_numbers, read_index, read_tensors
from grounding_dino.groundingdino.configuration import GroundingDINOConfig, load_config
from grounding_dino.groundingdino.models.grounding_dino import GroundingDINO
from grounding_dino.groundingdino.weight_names import count_layers, indices, is_hugging_face, with_official_names
from trunks.efficientnet_lite import EfficientNetLite

# a tensor that every Grounding DINO has, in the official layout and that of Hugging Face
_ANCHORS = ("feat_map.weight", "model.text_projection.weight")
# What weights alone do not tell, since only its product with something else shows in them.
_POINTS = 4  # samples per head and level
_BERT_HEAD_DIM = 64
_HF_EPS, _OFFICIAL_EPS = 1e-5, 1e-3  # of the inverse sigmoid; each layout as its own implementation computes


def find_weights(path: str | Path) -> list[Path]:
    """The files, one or more shards, that hold the weights at `path`; see `load_state_dict`.

    Raises:
        FileNotFoundError: no such file, or a folder without weights; says what to run.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"no Grounding DINO weights at {path}; download: gdino_checkpoints/download_ckpts.sh {_download_name(path)}"
        )
    if path.is_file():
        return [path]
    for index in (path / "model.safetensors.index.json", path / "pytorch_model.bin.index.json"):
        if index.is_file():
            return read_index(index)
    for pattern in ("model.safetensors", "pytorch_model.bin", "*.safetensors", "*.pth"):
        files = sorted(path.glob(pattern))
        if len(files) == 1:
            return files
    raise FileNotFoundError(f"the folder {path} holds no model.safetensors and no single .pth file")


def load_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read weights under their official names; those that no model here needs are left out.

    Args:
        path: a `.pth` file that holds `{"model": tensors}`, `{"state_dict": tensors}` or the tensors themselves, with
            or without what a training puts before their names; a `.safetensors` file; or a folder as `save_pretrained`
            and the Hugging Face hub lay it out.

    Returns:
        CPU tensors in the precision of the file.

    Raises:
        FileNotFoundError: no such file, or a folder without weights; says what to run.
        ValueError: not a file of tensors.
    """
    return with_official_names(_read(path))


def config_for(path: str | Path) -> GroundingDINOConfig:
    """Work out which model a file of weights, or a Hugging Face folder, is.

    Args:
        path: as in `load_state_dict`. A `config.json` in the folder, or beside a `.safetensors` file, decides.

    Raises:
        FileNotFoundError: no such file, or a folder without weights.
        ValueError: weights of something else, or of an architecture that this package does not build.
    """
    find_weights(path)
    return _config_beside(Path(path)) or _config_of_tensors(_read(path), str(path))


def config_of(state_dict: Mapping[str, Tensor], source: str = "the state dict") -> GroundingDINOConfig:
    """Work out the architecture from weights alone.

    What their shapes do not tell is taken to be as in the official models: 4 points per head and level, 64 channels
    per head of BERT, temperature 20.

    Args:
        state_dict: tensors under their official names.
        source: what errors call them.

    Raises:
        ValueError: weights of something else, or of an architecture that this package does not build.
    """
    values = _architecture_of(state_dict)
    if values is None:
        raise ValueError(f"{source} does not fit Grounding DINO: it seems to hold {describe(state_dict)}")
    return replace(GroundingDINOConfig(), **values)


def build_model(
    path: str | Path,
    config: GroundingDINOConfig | str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> GroundingDINO:
    """Build the model that weights belong to, in evaluation mode.

    Args:
        path: as in `load_state_dict`.
        config: the architecture, or what `load_config` reads it from; None works it out.
        device: where the model goes; None takes a GPU if there is one.
        dtype: precision of weights and computation.

    Raises:
        FileNotFoundError: no such weights or config; found out before anything is built.
        ValueError: weights of something else, or that do not fit the config; see `load_into`.
    """
    find_weights(path)
    if config is not None and not isinstance(config, GroundingDINOConfig):
        config = load_config(config)
    config = config or _config_beside(Path(path))
    tensors = _read(path)
    if config is None:
        config = _config_of_tensors(tensors, str(path))
    model = _built_empty(config, path)
    _fill(model, with_official_names(tensors), path, assign=True)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device, dtype).eval()


_RANDOM_FILLS = (Tensor.normal_, Tensor.uniform_, init.normal_, init.uniform_, init.kaiming_uniform_)


class _Unfilled(TorchFunctionMode):
    """Leaves tensors without the random numbers that they are to be filled with.

    Their memory is never touched, so that they take none. The device "meta" would do the same, but the first number
    that PyTorch computes on it loads its compiler, which takes longer than all the rest of the bundled model.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        return (args[0] if args else given["tensor"]) if func in _RANDOM_FILLS else func(*args, **given)


def _built_empty(config: GroundingDINOConfig, path: str | Path) -> GroundingDINO:
    """The model without weights: random ones are never made."""
    try:
        with _Unfilled(), torch.device("cpu"):
            return GroundingDINO(config)
    except (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError, AssertionError) as error:
        raise ValueError(f"the config for {path} describes a model that cannot be built: {error}") from error


def load_into(model: GroundingDINO, path: str | Path) -> None:
    """Load weights into a model, all of them or none; values are converted to the precision of the model.

    Args:
        model: any, of the architecture of the weights.
        path: as in `load_state_dict`.

    Raises:
        FileNotFoundError: no such file, or a folder without weights.
        ValueError: keys are missing, unexpected or of another shape. The first line says what the file seems to be,
            the lines after it name every such key.
    """
    _fill(model, load_state_dict(path), path, assign=model.device.type == "meta")


def describe(tensors: Mapping[str, Tensor]) -> str:
    """What a file of weights seems to be, in a few words."""
    values = _architecture_of(tensors)
    if values is not None:
        return f"{_model_name(replace(GroundingDINOConfig(), **values))} weights"
    keys = [name.removeprefix("module.") for name in tensors]
    telling_parts = (
        (("memory_attention.", "memory_encoder.", "sam_mask_decoder.", "image_encoder.trunk."), "SAM 2 weights"),
        (("language_model.language_backbone.", "bbox_head.cls_branches."), "MM-Grounding-DINO weights of mmdetection"),
        (("transformer.encoder.fusion_layers.", "transformer.decoder.", "feat_map."), "part of a Grounding DINO"),
        (("detector.", "tracker.", "detector_model.", "tracker_model."), "SAM 3 weights"),
        (("image_encoder.blocks.", "vision_encoder.layers.", "mask_decoder."), "SAM 1 weights"),
        (("layers.0.blocks.0.attn.", "patch_embed."), "the weights of an image backbone"),
        (("bert.", "embeddings.word_embeddings."), "the weights of a BERT model"),
        (("optimizer", "param_groups"), "the state of an optimizer"),
    )
    for parts, description in telling_parts:
        if any(key.startswith(parts) for key in keys):
            return description
    return f"weights of another model ({', '.join(keys[:3])}, …)" if keys else "no weights"


def _fill(model: GroundingDINO, state_dict: Mapping[str, Tensor], path: str | Path, assign: bool) -> None:
    expected = model.state_dict()
    missing = sorted(expected.keys() - state_dict.keys())
    unexpected = sorted(state_dict.keys() - expected.keys())
    misshapen = [
        f"{name}: file {tuple(state_dict[name].shape)}, model {tuple(tensor.shape)}"
        for name, tensor in sorted(expected.items())
        if name in state_dict and state_dict[name].shape != tensor.shape
    ]
    if missing or unexpected or misshapen:
        headline = (
            f"{path} does not fit this model ({_model_name(model.config)}): it seems to hold {describe(state_dict)}; "
            f"{len(missing)} keys missing, {len(unexpected)} unexpected, {len(misshapen)} of another shape"
        )
        sections = (("missing", missing), ("unexpected", unexpected), ("other shape", misshapen))
        lines = [f"  {kind}: {key}" for kind, keys in sections for key in keys]
        raise ValueError("\n".join([headline, *lines]))
    check_numbers(state_dict, str(path))
    model.load_state_dict(state_dict, assign=assign)


def _model_name(config: GroundingDINOConfig) -> str:
    """`"Grounding DINO with a swin of stages (2, 2, 6, 2) and 256 channels"`."""
    return f"Grounding DINO with a {config.backbone} of stages {config.depths} and {config.hidden_dim} channels"


def _download_name(path: Path) -> str:
    """The name under which the download command knows a checkpoint, guessed from the path that was asked for."""
    name = path.name.lower()
    if path.suffix:
        return "groundingdino-swinb" if re.search(r"swin-?_?b|cogcoor", name) else "groundingdino-swint"
    return f"IDEA-Research/grounding-dino-{'base' if 'base' in name else 'tiny'}"


def _read(path: str | Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in find_weights(path):
        tensors.update(read_tensors(file, _ANCHORS))
    return tensors


def _config_beside(path: Path) -> GroundingDINOConfig | None:
    """What `config.json` says, in a folder or beside a file of the layout that it describes."""
    config_file = path / "config.json" if path.is_dir() else path.with_name("config.json")
    is_described = path.is_dir() or path.suffix in (".safetensors", ".bin")
    return load_config(config_file) if is_described and config_file.is_file() else None


def _config_of_tensors(tensors: Mapping[str, Tensor], source: str) -> GroundingDINOConfig:
    eps = _HF_EPS if is_hugging_face(tensors) else _OFFICIAL_EPS
    return replace(config_of(with_official_names(tensors), source), inverse_sigmoid_eps=eps)


def _architecture_of(tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The fields of `GroundingDINOConfig` that official tensors fix, or None when they are not a whole model of it."""
    telling = {
        "words": "bert.embeddings.word_embeddings.weight",
        "positions": "bert.embeddings.position_embeddings.weight",
        "bert_mlp": "bert.encoder.layer.0.intermediate.dense.weight",
        "feat_map": "feat_map.weight",
        "levels": "transformer.level_embed",
        "enc_samples": "transformer.encoder.layers.0.self_attn.attention_weights.weight",
        "enc_mlp": "transformer.encoder.layers.0.linear1.weight",
        "dec_samples": "transformer.decoder.layers.0.cross_attn.attention_weights.weight",
        "dec_mlp": "transformer.decoder.layers.0.linear1.weight",
    }
    if any(name not in tensors for name in telling.values()):
        return None
    shape = {fact: tuple(tensors[name].shape) for fact, name in telling.items()}
    backbone = _swin_of(tensors) or _resnet_of(tensors) or _efficientnet_lite_of(tensors)
    if backbone is None:
        return None
    num_levels, hidden_dim = shape["levels"]
    samples_per_head = num_levels * _POINTS
    bert_hidden_size = shape["words"][1]
    values = {
        **backbone,
        "bert_vocab_size": shape["words"][0],
        "bert_hidden_size": bert_hidden_size,
        "bert_num_hidden_layers": count_layers(tensors, r"^bert\.encoder\.layer\.(\d+)\."),
        "bert_num_attention_heads": max(1, bert_hidden_size // _BERT_HEAD_DIM),
        "bert_intermediate_size": shape["bert_mlp"][0],
        "bert_max_position_embeddings": shape["positions"][0],
        "hidden_dim": hidden_dim,
        "nheads": shape["enc_samples"][0] // samples_per_head,
        "dec_nheads": shape["dec_samples"][0] // samples_per_head,
        "dim_feedforward": shape["enc_mlp"][0],
        "dec_dim_feedforward": shape["dec_mlp"][0],
        "enc_layers": count_layers(tensors, r"^transformer\.encoder\.layers\.(\d+)\."),
        "dec_layers": count_layers(tensors, r"^transformer\.decoder\.layers\.(\d+)\."),
        "num_feature_levels": num_levels,
        "scaled_class_embed": "transformer.enc_out_class_embed.bias" in tensors,
        "embed_init_tgt": "transformer.tgt_embed.weight" in tensors,
    }
    if values["embed_init_tgt"]:
        values["num_queries"] = len(tensors["transformer.tgt_embed.weight"])
    return values


def _swin_of(tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
    start = "backbone.0.layers"
    num_stages = count_layers(tensors, rf"^{start}\.(\d+)\.blocks\.")
    tables = [tensors.get(f"{start}.{stage}.blocks.0.attn.relative_position_bias_table") for stage in range(num_stages)]
    patches = tensors.get("backbone.0.patch_embed.proj.weight")
    if patches is None or not tables or any(table is None for table in tables):
        return None
    shapes = [tuple(table.shape) for table in tables if table is not None]
    return {
        "backbone": "swin",
        "embed_dim": len(patches),
        "depths": tuple(count_layers(tensors, rf"^{start}\.{stage}\.blocks\.(\d+)\.") for stage in range(num_stages)),
        "num_heads": tuple(heads for _, heads in shapes),
        "window_size": (math.isqrt(shapes[0][0]) + 1) // 2,
        "return_interm_indices": indices(tensors, r"^backbone\.0\.norm(\d+)\."),
    }


def _efficientnet_lite_of(tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
    if "backbone.0.stem.weight" not in tensors:
        return None
    num_levels = len(tensors["transformer.level_embed"])
    projections = [tensors.get(f"input_proj.{level}.0.weight") for level in range(num_levels)]
    read = [len(weight[0]) for weight in projections if weight is not None and weight.shape[-1] == 1]
    channels = EfficientNetLite.level_channels
    return {
        "backbone": "efficientnet_lite",
        "return_interm_indices": tuple(channels.index(width) for width in read if width in channels),
    }


def _resnet_of(tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
    stages = [index for index in indices(tensors, r"^backbone\.0\.layer(\d+)\.") if index > 0]
    first = tensors.get("backbone.0.conv1.weight")
    convolutions = [tensors.get(f"backbone.0.layer{stage}.0.conv2.weight") for stage in stages]
    if first is None or not stages or any(convolution is None for convolution in convolutions):
        return None
    hidden_sizes = tuple(len(convolution) for convolution in convolutions if convolution is not None)
    num_levels = len(tensors["transformer.level_embed"])
    projections = [tensors.get(f"input_proj.{level}.0.weight") for level in range(num_levels)]
    read = [len(weight[0]) for weight in projections if weight is not None and weight.shape[-1] == 1]
    return {
        "backbone": "resnet",
        "embedding_size": len(first),
        "hidden_sizes": hidden_sizes,
        "depths": tuple(count_layers(tensors, rf"^backbone\.0\.layer{stage}\.(\d+)\.") for stage in stages),
        # of stages as wide as each other the later one
        "return_interm_indices": tuple(
            max(i for i, size in enumerate(hidden_sizes) if size == channels)
            for channels in read
            if channels in hidden_sizes
        ),
    }
