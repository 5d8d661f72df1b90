"""Read SAM 2 weights: official `.pt` files of SAM 2, SAM 2.1 and EdgeTAM, and Hugging Face folders.

The folders are those of transformers' `Sam2VideoModel` and `EdgeTamVideoModel`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from checkpoint_files.configs import brief, check_fields, read_json_object
from checkpoint_files.reading import check_numbers, read_index, read_tensors
from sam2 import edgetam_weights
from sam2.config import CONFIG_FILES, CONFIG_ROOT, SAM2Config, load_config

_NANO_ANCHOR = "image_encoder.trunk.stem.weight"
_PROMPT_MAP = "sam_prompt_encoder.prompt_map.embed.weight"
# a tensor that every model of a family has, in the official layout and that of Hugging Face
_ANCHORS = (
    "image_encoder.trunk.patch_embed.proj.weight",
    "vision_encoder.backbone.patch_embed.projection.weight",
    *edgetam_weights.ANCHORS,
    _NANO_ANCHOR,
)
_POINT_FREQUENCIES = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"

# Hugging Face name → official name, applied in this order. The layers of MLPs are numbered afterwards.
_HF_RENAMES = edgetam_weights.HF_RENAMES + [
    (re.compile(pattern), official)
    for pattern, official in (
        (r"^(shared_image|prompt_encoder\.shared)_embedding\.positional_embedding$", _POINT_FREQUENCIES),
        (r"^vision_encoder\.backbone\.", "image_encoder.trunk."),
        (r"^image_encoder\.trunk\.patch_embed\.projection\.", "image_encoder.trunk.patch_embed.proj."),
        (r"^vision_encoder\.neck\.convs\.(\d+)\.", r"image_encoder.neck.convs.\1.conv."),
        (r"^prompt_encoder\.mask_embed\.conv1\.", "sam_prompt_encoder.mask_downscaling.0."),
        (r"^prompt_encoder\.mask_embed\.layer_norm1\.", "sam_prompt_encoder.mask_downscaling.1."),
        (r"^prompt_encoder\.mask_embed\.conv2\.", "sam_prompt_encoder.mask_downscaling.3."),
        (r"^prompt_encoder\.mask_embed\.layer_norm2\.", "sam_prompt_encoder.mask_downscaling.4."),
        (r"^prompt_encoder\.mask_embed\.conv3\.", "sam_prompt_encoder.mask_downscaling.6."),
        (r"^prompt_encoder\.", "sam_prompt_encoder."),
        (r"^mask_decoder\.upscale_conv1\.", "sam_mask_decoder.output_upscaling.0."),
        (r"^mask_decoder\.upscale_layer_norm\.", "sam_mask_decoder.output_upscaling.1."),
        (r"^mask_decoder\.upscale_conv2\.", "sam_mask_decoder.output_upscaling.3."),
        (r"^mask_decoder\.", "sam_mask_decoder."),
        (r"\.layer_norm_final_attn\.", ".norm_final_attn."),
        (r"^memory_encoder\.mask_downsampler\.final_conv\.", "memory_encoder.mask_downsampler.encoder.12."),
        (r"^memory_encoder\.feature_projection\.", "memory_encoder.pix_feat_proj."),
        (r"^memory_encoder\.projection\.", "memory_encoder.out_proj."),
        (r"^memory_encoder\.memory_fuser\.", "memory_encoder.fuser."),
        (r"\.depthwise_conv\.", ".dwconv."),
        (r"\.pointwise_conv(\d)\.", r".pwconv\1."),
        (r"(fuser\.layers\.\d+)\.scale$", r"\1.gamma"),
        (r"\.layer_norm(\d?)\.", r".norm\1."),
        (r"\.o_proj\.", ".out_proj."),
        (r"^object_pointer_proj\.", "obj_ptr_proj."),
        (r"^temporal_positional_encoding_projection_layer\.", "obj_ptr_tpos_proj."),
        (r"^memory_temporal_positional_encoding$", "maskmem_tpos_enc"),
        (r"^no_memory_embedding$", "no_mem_embed"),
        (r"^no_memory_positional_encoding$", "no_mem_pos_enc"),
        (r"^no_object_pointer$", "no_obj_ptr"),
        (r"^occlusion_spatial_embedding_parameter$", "no_obj_embed_spatial"),
    )
]  # fmt: skip
_HF_DOWNSAMPLER = re.compile(r"^memory_encoder\.mask_downsampler\.layers\.(\d+)\.(conv|norm)\.")
_HF_MLP_IN = re.compile(r"^(.*)\.proj_in\.(weight|bias)$")
_HF_MLP_INNER = re.compile(r"^(.*(?:mlps\.\d+|_head|obj_ptr_proj))\.layers\.(\d+)\.(weight|bias)$")
_HF_MLP_OUT = re.compile(r"^(.*)\.proj_out\.(weight|bias)$")
_HF_POINT_EMBEDDINGS = "sam_prompt_encoder.point_embed.weight"

# Hugging Face `config.json`, path of keys → field of SAM2Config.
_HF_CONFIG_FIELDS = {
    "image_size": "image_size",
    "prompt_encoder_config.image_size": "image_size",
    "vision_config.backbone_config.hidden_size": "embed_dim",
    "vision_config.backbone_config.num_attention_heads": "num_heads",
    "vision_config.backbone_config.blocks_per_stage": "stages",
    "vision_config.backbone_config.global_attention_blocks": "global_att_blocks",
    "vision_config.backbone_config.window_size_per_stage": "window_spec",
    "vision_config.backbone_config.window_positional_embedding_background_size": "window_pos_embed_bkg_spatial_size",
    "vision_config.fpn_hidden_size": "d_model",
    "vision_config.fpn_top_down_levels": "fpn_top_down_levels",
    "mask_decoder_config.mlp_dim": "decoder_mlp_dim",
    "mask_decoder_config.dynamic_multimask_stability_delta": "dynamic_multimask_stability_delta",
    "mask_decoder_config.dynamic_multimask_stability_thresh": "dynamic_multimask_stability_thresh",
    "memory_encoder_output_channels": "mem_dim",
    "memory_attention_num_layers": "memory_attention_layers",
    "memory_attention_feed_forward_hidden_size": "memory_attention_mlp_dim",
    "memory_attention_rope_theta": "rope_theta",
    "rope_parameters.rope_theta": "rope_theta",
    "num_maskmem": "num_maskmem",
    "sigmoid_scale_for_mem_enc": "sigmoid_scale_for_mem_enc",
    "sigmoid_bias_for_mem_enc": "sigmoid_bias_for_mem_enc",
    "enable_occlusion_spatial_embedding": "no_obj_embed_spatial",
    "multimask_output_in_sam": "multimask_output_in_sam",
    "multimask_output_for_tracking": "multimask_output_for_tracking",
    "multimask_min_pt_num": "multimask_min_pt_num",
    "multimask_max_pt_num": "multimask_max_pt_num",
    "max_object_pointers_in_encoder": "max_obj_ptrs_in_encoder",
    "max_cond_frame_num": "max_cond_frames_in_attn",
    **edgetam_weights.HF_CONFIG_FIELDS,
}


def find_weights(path: str | Path) -> list[Path]:
    """The files, one or more shards, that hold the weights at `path`; see `load_state_dict`.

    Raises:
        FileNotFoundError: no such file, or a folder without weights; says what to run.
    """
    path = Path(path)
    if not path.exists():
        name = _download_name(path)
        raise FileNotFoundError(f"no SAM 2 weights at {path}; download: python -m grounded_sam2.download {name}")
    if path.is_file():
        return [path]
    index = path / "model.safetensors.index.json"
    if index.is_file():
        return read_index(index)
    for pattern in ("model.safetensors", "*.safetensors", "*.pt"):
        files = sorted(path.glob(pattern))
        if len(files) == 1:
            return files
    raise FileNotFoundError(f"the folder {path} holds no model.safetensors and no single .pt file")


def load_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read weights under their official names.

    Args:
        path: a `.pt` file that holds `{"model": tensors}`, `{"state_dict": tensors}` or the tensors themselves, with
            or without what a training puts before their names; a `.safetensors` file; or a folder as `save_pretrained`
            and the Hugging Face hub lay it out.

    Returns:
        CPU tensors in the precision of the file.

    Raises:
        FileNotFoundError: no such file, or a folder without weights; says what to run.
        ValueError: not a file of tensors.
    """
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    for file in find_weights(path):
        tensors.update(read_tensors(file, _ANCHORS))
    return _with_official_names(tensors)


def config_for(path: str | Path) -> SAM2Config:
    """Work out which model a file of weights, or a Hugging Face folder, is.

    Args:
        path: as in `load_state_dict`. In a folder `config.json` decides.

    Raises:
        FileNotFoundError: no such file, or a folder without weights.
        ValueError: weights of something else, or of an architecture that no config of this package has.
    """
    path = Path(path)
    config_file = path / "config.json"
    if config_file.is_file():
        return _config_from_hugging_face(config_file)
    return config_of(load_state_dict(path), str(path))


def config_and_weights(path: str | Path) -> tuple[SAM2Config, dict[str, Tensor]]:
    """`config_for` and `load_state_dict` of a file or folder that is read once."""
    tensors = load_state_dict(path)
    is_described = (Path(path) / "config.json").is_file()
    return config_for(path) if is_described else config_of(tensors, str(path)), tensors


def config_of(state_dict: Mapping[str, Tensor], source: str = "the state dict") -> SAM2Config:
    """Work out which of the known configs weights belong to.

    Args:
        state_dict: tensors under their official names.
        source: what errors call them.

    Raises:
        ValueError: weights of something else, or of an architecture that no config of this package has.
    """
    shapes = _architecture_of(state_dict)
    if shapes is None:
        raise ValueError(f"{source} does not fit SAM 2: it seems to hold {describe(state_dict)}")
    for file in CONFIG_FILES.values():
        if (CONFIG_ROOT / file).is_file():
            config = load_config(file)
            if all(getattr(config, field) == value for field, value in shapes.items()):
                return replace(config, prompt_map=_PROMPT_MAP in state_dict)  # the first nano models have none
    found = ", ".join(f"{field}={value}" for field, value in shapes.items())
    raise ValueError(f"{source} holds a SAM 2 that no known config describes ({found}); give its config file")


def load_into(model: nn.Module, path: str | Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
    """Load weights into a model, all of them or none; values are converted to the precision of the model.

    Args:
        model: a `SAM2Base`.
        path: as in `load_state_dict`.
        state_dict: what `load_state_dict` gave for it, if it was read already.

    Raises:
        FileNotFoundError: no such file, or a folder without weights.
        ValueError: keys are missing, unexpected or of another shape. The first line says what the file seems to be,
            the lines after it name every such key. Or they are not all numbers.
    """
    state_dict = load_state_dict(path) if state_dict is None else state_dict
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
            f"{path} does not fit this model ({_model_name(expected)}): it seems to hold {describe(state_dict)}; "
            f"{len(missing)} keys missing, {len(unexpected)} unexpected, {len(misshapen)} of another shape"
        )
        sections = (("missing", missing), ("unexpected", unexpected), ("other shape", misshapen))
        lines = [f"  {kind}: {key}" for kind, keys in sections for key in keys]
        raise ValueError("\n".join([headline, *lines]))
    check_numbers(state_dict, str(path))
    model.load_state_dict(state_dict)


def describe(tensors: Mapping[str, Tensor]) -> str:
    """What a file of weights seems to be, in a few words."""
    if _architecture_of(tensors) is not None:
        return f"{_model_name(tensors)} weights"
    keys = [name.removeprefix("module.") for name in tensors]
    telling_parts = (
        (("bert.", "text_backbone.", "bbox_embed."), "Grounding DINO weights"),
        (("detector.", "tracker.", "detector_model.", "tracker_model."), "SAM 3 weights"),
        (("image_encoder.blocks.", "vision_encoder.layers.", "image_encoder.neck.0."), "SAM 1 weights"),
        (("memory_attention.", "memory_encoder."), "part of a SAM 2 model"),
        (("image_encoder.trunk.",), "the image model of SAM 2 alone, without the memory that this package needs"),
        (("optimizer", "param_groups"), "the state of an optimizer"),
    )
    for parts, description in telling_parts:
        if any(key.startswith(parts) or any(f".{part}" in key for part in parts) for key in keys):
            return description
    return f"weights of another model ({', '.join(keys[:3])}, …)" if keys else "no weights"


def _download_name(path: Path) -> str:
    """The name under which the download command knows a checkpoint, guessed from the path that was asked for."""
    text = re.sub(r"[^a-z0-9.]+", "-", path.name.lower().replace("+", "-plus"))
    if "edgetam" in text:
        return "edgetam"
    family = "sam2" if re.search(r"sam2(?!\.1)", text) else "sam2.1"
    sizes = (("large", "large"), ("base", "base-plus"), ("small", "small"))
    return f"{family}-{next((size for part, size in sizes if part in text), 'tiny')}"


def _with_official_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a Hugging Face file; those of an official file are returned as they are."""
    if not any(name.startswith("vision_encoder.backbone.") for name in tensors):
        return tensors
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for pattern, official in _HF_RENAMES:
            name = pattern.sub(official, name)
        renamed[name] = tensor
    inner_layers = {match[1] for match in map(_HF_MLP_INNER.match, renamed) if match}
    num_inner = {
        prefix: sum(name.startswith(f"{prefix}.layers.") and name.endswith(".weight") for name in renamed)
        for prefix in inner_layers
    }
    official_tensors = {_number_layers(name, num_inner): tensor for name, tensor in renamed.items()}
    points = official_tensors.pop(_HF_POINT_EMBEDDINGS, None)
    for i, embedding in enumerate(points if points is not None else ()):
        official_tensors[f"sam_prompt_encoder.point_embeddings.{i}.weight"] = embedding[None]
    edgetam_weights.join_keys_and_values(official_tensors)
    return official_tensors


def _number_layers(name: str, num_inner: Mapping[str, int]) -> str:
    """Official files number the layers of a stack through; Hugging Face names first, inner and last ones apart."""
    if match := _HF_DOWNSAMPLER.match(name):
        layer = 3 * int(match[1]) + (0 if match[2] == "conv" else 1)
        return f"memory_encoder.mask_downsampler.encoder.{layer}.{name[match.end() :]}"
    if match := _HF_MLP_IN.match(name):
        return f"{match[1]}.layers.0.{match[2]}"
    if match := _HF_MLP_OUT.match(name):
        return f"{match[1]}.layers.{1 + num_inner.get(match[1], 0)}.{match[2]}"
    if match := _HF_MLP_INNER.match(name):
        return f"{match[1]}.layers.{1 + int(match[2])}.{match[3]}"
    return name


def _config_from_hugging_face(config_file: Path) -> SAM2Config:
    tree = read_json_object(config_file)
    values: dict[str, Any] = {}
    if tree.get("model_type") in ("edgetam", "edgetam_video"):
        edgetam_weights.check_hugging_face_parts(tree, str(config_file))
        values.update(vars(load_config("edgetam")))
    elif tree.get("model_type") not in ("sam2", "sam2_video"):
        raise ValueError(
            f"{config_file} describes model_type {brief(tree.get('model_type'))}, "
            "expected 'sam2_video' or 'edgetam_video'"
        )
    for path, field in _HF_CONFIG_FIELDS.items():
        value: Any = tree
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if field == "image_size" and isinstance(value, list) and value:
            value = value[0]
        if value is not None:
            values[field] = tuple(value) if isinstance(value, list) else value
    if tree.get("enable_temporal_pos_encoding_for_object_pointers") is False:
        values["add_tpos_enc_to_obj_ptrs"] = False
        values["proj_tpos_enc_in_obj_ptrs"] = False
        values["use_signed_tpos_enc_to_obj_ptrs"] = False
    check_fields(SAM2Config(), values, str(config_file))
    return replace(SAM2Config(), **values)


def _architecture_of(tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The fields of `SAM2Config` that the shapes of official tensors fix, or None when they are not a whole SAM 2."""
    telling = {
        "tpos": "maskmem_tpos_enc",
        "no_mem": "no_mem_embed",
        "decoder_mlp": "sam_mask_decoder.transformer.layers.0.mlp.layers.0.weight",
        "memory_mlp": "memory_attention.layers.0.linear1.weight",
    }
    if any(name not in tensors for name in telling.values()):
        return None
    parts = _hiera_of(tensors) or edgetam_weights.architecture_of(tensors) or _nano_of(tensors)
    if parts is None:
        return None
    shape = {fact: tuple(tensors[name].shape) for fact, name in telling.items()}
    return {
        **parts,
        "d_model": shape["no_mem"][-1],
        "mem_dim": shape["tpos"][-1],
        "num_maskmem": shape["tpos"][0],
        "decoder_mlp_dim": shape["decoder_mlp"][0],
        "memory_attention_mlp_dim": shape["memory_mlp"][0],
        "memory_attention_layers": _count_layers(tensors, "memory_attention.layers."),
        "no_obj_embed_spatial": "no_obj_embed_spatial" in tensors,
        "proj_tpos_enc_in_obj_ptrs": "obj_ptr_tpos_proj.weight" in tensors,
    }


def _hiera_of(tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The fields of `SAM2Config` that the trunk of official tensors fixes; None where it is no Hiera."""
    patch, pos_embed = (f"image_encoder.trunk.{name}" for name in ("patch_embed.proj.weight", "pos_embed"))
    if patch not in tensors or pos_embed not in tensors:
        return None
    blocks = _count_layers(tensors, "image_encoder.trunk.blocks.")
    openings = [i for i in range(blocks) if f"image_encoder.trunk.blocks.{i}.proj.weight" in tensors]
    return {
        "embed_dim": tensors[patch].shape[0],
        "stages": tuple(end - start for start, end in pairwise([0, *openings, blocks])),
        "window_pos_embed_bkg_spatial_size": tuple(tensors[pos_embed].shape[2:]),
        "backbone": "hiera",
    }


def _nano_of(tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """What the trunk of the bundled model fixes: that it is one; None where it is another."""
    return {"backbone": "efficientnet_lite"} if _NANO_ANCHOR in tensors else None


def _count_layers(tensors: Mapping[str, Tensor], prefix: str) -> int:
    indices = (name[len(prefix) :].partition(".")[0] for name in tensors if name.startswith(prefix))
    return len(set(indices))


def _model_name(tensors: Mapping[str, Tensor]) -> str:
    """`"SAM 2.1, trunk 96 wide with stages (1, 2, 7, 2)"`."""
    shapes = _architecture_of(tensors)
    if shapes is None:
        return "SAM 2"
    family = "SAM 2.1" if shapes["no_obj_embed_spatial"] else "SAM 2"
    if shapes["backbone"] == "efficientnet_lite":
        return f"{family} nano, {shapes['d_model']} wide"
    family = "EdgeTAM" if shapes["backbone"] == "repvit" else family
    return f"{family}, trunk {shapes['embed_dim']} wide with stages {shapes['stages']}"
