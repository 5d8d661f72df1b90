"""Architecture and behaviour of one SAM 2 model, read from a name, one of our YAML files or an upstream hydra YAML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from checkpoint_files.configs import brief, check_fields

CONFIG_ROOT = Path(__file__).parent

CONFIG_FILES = {
    "sam2.1-tiny": "configs/sam2.1/sam2.1_hiera_t.yaml",
    "sam2.1-small": "configs/sam2.1/sam2.1_hiera_s.yaml",
    "sam2.1-base-plus": "configs/sam2.1/sam2.1_hiera_b+.yaml",
    "sam2.1-large": "configs/sam2.1/sam2.1_hiera_l.yaml",
    "sam2.1-nano": "configs/sam2.1/sam2.1_nano.yaml",
    "sam2-tiny": "configs/sam2/sam2_hiera_t.yaml",
    "sam2-small": "configs/sam2/sam2_hiera_s.yaml",
    "sam2-base-plus": "configs/sam2/sam2_hiera_b+.yaml",
    "sam2-large": "configs/sam2/sam2_hiera_l.yaml",
    "edgetam": "configs/edgetam.yaml",
}


@dataclass(frozen=True)
class SAM2Config:
    """Every number and switch that tells one SAM 2 model from another; the defaults are SAM 2.1 tiny.

    The first three groups fix the shapes of the weights, the rest how the model is run. Names are those of
    the official configuration files; `dynamic_multimask_*` are their `sam_mask_decoder_extra_args`.
    """

    image_size: int = 1024  # side of the square the model sees, pixels

    # image encoder: trunk and FPN neck
    backbone: str = "hiera"  # which trunk; see `build_trunk` in modeling/image_encoder.py
    embed_dim: int = 96
    num_heads: int = 1
    stages: tuple[int, ...] = (1, 2, 7, 2)
    global_att_blocks: tuple[int, ...] = (5, 7, 9)
    window_spec: tuple[int, ...] = (8, 4, 14, 7)
    window_pos_embed_bkg_spatial_size: tuple[int, int] = (7, 7)
    fpn_top_down_levels: tuple[int, ...] = (2, 3)
    scalp: int = 1  # coarsest levels of the neck that nothing reads

    # widths behind the image encoder
    d_model: int = 256
    mem_dim: int = 64
    decoder_mlp_dim: int = 2048
    memory_attention_layers: int = 4
    memory_attention_mlp_dim: int = 2048
    rope_theta: float = 10000.0
    num_maskmem: int = 7
    memory_compressor: str = "none"  # what makes memories smaller; see `build_memory_compressor`
    perceiver_latents: int = 256  # tokens of a perceiver that each look at a whole memory
    perceiver_latents_2d: int = 256  # … and at one window of it; a square number
    perceiver_layers: int = 2

    # parts that a family has or lacks
    use_high_res_features_in_sam: bool = True
    pred_obj_scores: bool = True
    pred_obj_scores_mlp: bool = True
    use_obj_ptrs_in_encoder: bool = True
    use_mlp_for_obj_ptr_proj: bool = True
    proj_tpos_enc_in_obj_ptrs: bool = True
    no_obj_embed_spatial: bool = True
    prompt_map: bool = False  # the decoder sees points and boxes drawn as maps; see `PromptMap`

    # behaviour
    sigmoid_scale_for_mem_enc: float = 20.0
    sigmoid_bias_for_mem_enc: float = -10.0
    directly_add_no_mem_embed: bool = True
    use_mask_input_as_output_without_sam: bool = True
    multimask_output_in_sam: bool = True
    multimask_output_for_tracking: bool = True
    multimask_min_pt_num: int = 0
    multimask_max_pt_num: int = 1
    use_multimask_token_for_obj_ptr: bool = True
    iou_prediction_use_sigmoid: bool = True
    fixed_no_obj_ptr: bool = True
    soft_no_obj_ptr: bool = False
    max_obj_ptrs_in_encoder: int = 16
    only_obj_ptrs_in_the_past_for_eval: bool = True
    add_tpos_enc_to_obj_ptrs: bool = True
    use_signed_tpos_enc_to_obj_ptrs: bool = True
    max_cond_frames_in_attn: int = -1  # -1: all conditioning frames are read
    memory_temporal_stride_for_eval: int = 1
    track_every: int = 1  # frames from one on which the model runs to the next; see `build_sam2_video_predictor`
    sparse_memories: float = 1.0  # share of the cells read of older memories; see `build_sam2_video_predictor`
    non_overlap_masks_for_mem_enc: bool = False
    binarize_mask_from_pts_for_mem_enc: bool = False

    # post-processing
    dynamic_multimask_via_stability: bool = False
    dynamic_multimask_stability_delta: float = 0.05
    dynamic_multimask_stability_thresh: float = 0.98
    fill_hole_area: int = 0  # pixels of the model's low-resolution mask
    non_overlap_masks: bool = False
    clear_non_cond_mem_around_input: bool = False
    add_all_frames_to_correct_as_cond: bool = False

    # SAMURAI's memory; all but the first are read by `sam2.memory_policies.samurai`
    samurai_mode: bool = False  # the memory policy is SAMURAI's where none is named
    stable_frames_threshold: int = 15
    stable_ious_threshold: float = 0.3
    min_obj_score_logits: float = -1.0
    kf_score_weight: float = -1.0  # below 0: as published, 0.15 for the large image encoder, 0.25 for the others
    memory_bank_iou_threshold: float = 0.5
    memory_bank_obj_score_threshold: float = 0.0
    memory_bank_kf_score_threshold: float = 0.0


# Where the official files (hydra trees of constructor arguments) hold what SAM2Config holds flat.
_UPSTREAM_FIELDS = {
    "image_encoder.scalp": "scalp",
    "image_encoder.neck.d_model": "d_model",
    "image_encoder.neck.fpn_top_down_levels": "fpn_top_down_levels",
    "memory_attention.layer.dim_feedforward": "memory_attention_mlp_dim",
    "memory_attention.layer.self_attention.rope_theta": "rope_theta",
    "memory_attention.num_layers": "memory_attention_layers",
    "memory_encoder.out_dim": "mem_dim",
    "spatial_perceiver.num_latents": "perceiver_latents",
    "spatial_perceiver.num_latents_2d": "perceiver_latents_2d",
    "spatial_perceiver.depth": "perceiver_layers",
}
# Official settings that say, by being there or by what they name, which part a model has.
_UPSTREAM_PARTS: dict[str, dict[str, Any]] = {
    "image_encoder.trunk.name=repvit_m1.dist_in1k": {"backbone": "repvit", "embed_dim": 48, "stages": (2, 2, 14, 2)},
    "spatial_perceiver._target_=sam2.modeling.perceiver.PerceiverResampler": {"memory_compressor": "perceiver"},
}
_UPSTREAM_PREFIXES = ("image_encoder.trunk.", "sam_mask_decoder_extra_args.", "")

# What the official files leave out has the value that upstream's constructors give it, where that is not ours.
_UPSTREAM_DEFAULTS: dict[str, Any] = {
    "image_size": 512,
    "stages": (2, 3, 16, 3),
    "global_att_blocks": (12, 16, 20),
    "window_pos_embed_bkg_spatial_size": (14, 14),
    "scalp": 0,
    "fpn_top_down_levels": (0, 1, 2, 3),
    "use_high_res_features_in_sam": False,
    "pred_obj_scores": False,
    "pred_obj_scores_mlp": False,
    "use_obj_ptrs_in_encoder": False,
    "use_mlp_for_obj_ptr_proj": False,
    "proj_tpos_enc_in_obj_ptrs": False,
    "no_obj_embed_spatial": False,
    "sigmoid_scale_for_mem_enc": 1.0,
    "sigmoid_bias_for_mem_enc": 0.0,
    "directly_add_no_mem_embed": False,
    "use_mask_input_as_output_without_sam": False,
    "multimask_output_in_sam": False,
    "multimask_output_for_tracking": False,
    "multimask_min_pt_num": 1,
    "use_multimask_token_for_obj_ptr": False,
    "iou_prediction_use_sigmoid": False,
    "fixed_no_obj_ptr": False,
    "only_obj_ptrs_in_the_past_for_eval": False,
    "use_signed_tpos_enc_to_obj_ptrs": False,
}

# Arguments of the official files that no official file varies, or that follow from the fields above.
_UPSTREAM_FIXED: dict[str, Any] = {
    "backbone_stride": 16,
    "image_encoder.trunk.drop_path_rate": 0.0,
    "image_encoder.neck.fpn_interp_model": "nearest",
    "image_encoder.neck.fuse_type": "sum",
    "memory_attention.pos_enc_at_input": True,
    "memory_attention.layer.activation": "relu",
    "memory_attention.layer.pos_enc_at_attn": False,
    "memory_attention.layer.pos_enc_at_cross_attn_keys": True,
    "memory_attention.layer.pos_enc_at_cross_attn_queries": False,
    "memory_attention.layer.cross_attention.rope_k_repeat": True,
    "memory_encoder.mask_downsampler.kernel_size": 3,
    "memory_encoder.mask_downsampler.stride": 2,
    "memory_encoder.mask_downsampler.padding": 1,
    "memory_encoder.fuser.layer.kernel_size": 7,
    "memory_encoder.fuser.layer.padding": 3,
    "memory_encoder.fuser.layer.use_dwconv": True,
    "memory_encoder.fuser.num_layers": 2,
    "image_encoder.trunk.features": ["layer0", "layer1", "layer2", "layer3"],
    "spatial_perceiver.dim": 64,
    "spatial_perceiver.dim_head": 64,
    "spatial_perceiver.heads": 1,
    "spatial_perceiver.ff_mult": 4,
    "spatial_perceiver.concat_kv_latents": False,
    "spatial_perceiver.pos_enc_at_key_value": True,
    "spatial_perceiver.use_self_attn": True,
}
_UPSTREAM_IGNORED = (
    "_target_",
    "compile_image_encoder",
    "backbone_channel_list",
    "feat_sizes",
    "q_sizes",
    "k_sizes",
    "dropout",
    "hidden_dropout_p",
    "attention_dropout_p",
    "embedding_dim",
    "downsample_rate",
    "kv_in_dim",
    "layer_scale_init_value",
    "num_pos_feats",
    "normalize",
    "scale",
    "temperature",
    "memory_attention.d_model",
    "memory_attention.layer.d_model",
    "memory_attention.layer.self_attention.num_heads",
    "memory_attention.layer.cross_attention.num_heads",
    "memory_attention.layer.cross_attention.rope_theta",
    "memory_encoder.fuser.layer.dim",
)


def find_config(name_or_path: str | Path) -> Path:
    """Path of a configuration file, from a short name, an upstream spelling or a path.

    Args:
        name_or_path: `"sam2.1-large"`, `"configs/sam2.1/sam2.1_hiera_l.yaml"`, `"sam2_hiera_l.yaml"`, both also without
            the ending or with a slash in front, or any file.

    Raises:
        FileNotFoundError: no such file, with the names that exist.
    """
    name = str(name_or_path)
    # hydra takes names without an ending, or with a slash in front
    relative = CONFIG_FILES.get(name, f"{name.lstrip('/').removesuffix('.yaml')}.yaml")
    candidates = [Path(name), CONFIG_ROOT / relative]
    candidates += [CONFIG_ROOT / file for file in CONFIG_FILES.values() if Path(file).name == relative]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"no SAM 2 config {name!r}; give a YAML file or one of: {', '.join(CONFIG_FILES)}")


def load_config(name_or_path: str | Path, overrides: Sequence[str] = ()) -> SAM2Config:
    """Read a configuration and apply overrides.

    Args:
        name_or_path: see `find_config`. The file holds, under `model:` or not, our flat fields or upstream's tree.
        overrides: hydra-style assignments, `"++model.fill_hole_area=8"` or `"fill_hole_area=8"`, and
            `"~model.fill_hole_area"`, after which a setting has the value that upstream's constructors give it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a key that is not a field of `SAM2Config`, or an upstream argument this package does not vary.
    """
    path = find_config(name_or_path)
    tree = _read_yaml(path.read_bytes(), str(path))
    tree = tree.get("model", tree) if isinstance(tree, Mapping) else tree
    if not isinstance(tree, Mapping):
        raise ValueError(f"{path} is not a SAM 2 config: expected a mapping, found {type(tree).__name__}")
    return apply_overrides(config_of_settings(tree, str(path), "image_encoder" in tree), overrides)


def config_of_settings(settings: Mapping[str, Any], source: str, is_upstream: bool) -> SAM2Config:
    """The configuration that settings, flat or in upstream's tree, describe.

    Args:
        settings: see `load_config`.
        source: what errors call them.
        is_upstream: what is left out has the value that upstream's constructors give it, not that of `SAM2Config`.

    Raises:
        ValueError: see `load_config`.
    """
    values = dict(_UPSTREAM_DEFAULTS) if is_upstream else {}
    for key, value in _flatten(settings):
        values.update(_field_of(key, value, source))
    return replace(SAM2Config(), **values)


def apply_overrides(config: SAM2Config, overrides: Sequence[str]) -> SAM2Config:
    """`config` with hydra-style assignments applied; see `load_config`."""
    values: dict[str, Any] = {}
    for override in overrides:
        key, separator, text = override.lstrip("+~").partition("=")
        key, source = key.removeprefix("model."), f"override {override!r}"
        if override.startswith("~"):
            if (name := _field_name(key)) is not None:
                values[name] = _UPSTREAM_DEFAULTS.get(name, getattr(SAM2Config(), name))
        elif not separator:
            raise ValueError(f"{source} is not of the form key=value")
        else:
            values.update(_field_of(key, _read_yaml(text, source), source))
    return replace(config, **values)


def _read_yaml(text: str | bytes, source: str) -> Any:
    """Plain values only, whatever tags a file has."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # the last ones: of single values
        raise ValueError(f"{source} is not YAML of plain values: {' '.join(str(error).split())[:300]}") from error


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _field_name(key: str) -> str | None:
    """The field a key of ours or of upstream's tree sets, or None."""
    names = [_UPSTREAM_FIELDS.get(key, "")] + [key.removeprefix(prefix) for prefix in _UPSTREAM_PREFIXES]
    known = {field.name for field in fields(SAM2Config)}
    return next((name for name in names if name in known), None)


def _plain(value: Any) -> Any:
    """YAML's lists as tuples, and numbers such as 1e4, which YAML 1.1 takes for text, as numbers."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return tuple(value) if isinstance(value, Sequence) else value  # hydra's lists are none of Python's


def _field_of(key: str, value: Any, source: str) -> dict[str, Any]:
    """The fields that a key sets: one, none, or those of a part that an official setting names."""
    if isinstance(value, str) and (part := _UPSTREAM_PARTS.get(f"{key}={value}")) is not None:
        return part
    name = _field_name(key)
    if name is not None:
        value = _plain(value)
        check_fields(SAM2Config(), {name: value}, source)
        return {name: value}
    if key in _UPSTREAM_FIXED:
        if value != _UPSTREAM_FIXED[key]:
            raise ValueError(f"{source}: {key}={brief(value)} is not supported, only {_UPSTREAM_FIXED[key]!r}")
        return {}
    if key in _UPSTREAM_IGNORED or key.rpartition(".")[2] in _UPSTREAM_IGNORED:
        return {}
    raise ValueError(f"{source}: unknown SAM 2 setting {key!r}")
