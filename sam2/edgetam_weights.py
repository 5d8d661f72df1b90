"""What EdgeTAM's weights have that SAM 2's lack, in the official layout and in that of transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from checkpoint_files.configs import brief

# a tensor that every EdgeTAM has, in the official layout and that of Hugging Face
ANCHORS = (
    "image_encoder.trunk.body.stem.conv1.c.weight",
    "vision_encoder.backbone.timm_model.stem.conv1.c.weight",
)

_LAYER = r"^(spatial_perceiver\.layers\.\d+)\."
# Hugging Face name → official name, applied in this order and before the names that SAM 2 has as well.
HF_RENAMES = [
    (re.compile(pattern), official)
    for pattern, official in (
        (r"^vision_encoder\.backbone\.timm_model\.", "image_encoder.trunk.body."),
        (r"^(memory_attention\.layers\.\d+)\.mlp\.up_proj\.", r"\1.linear1."),
        (r"^(memory_attention\.layers\.\d+)\.mlp\.down_proj\.", r"\1.linear2."),
        (r"^spatial_perceiver\.latents_1d$", "spatial_perceiver.latents"),
        (_LAYER + r"(self_)?mlp\.layer_norm\.", r"\1.\2ff.0."),
        (_LAYER + r"(self_)?mlp\.up_proj\.", r"\1.\2ff.1."),
        (_LAYER + r"(self_)?mlp\.down_proj\.", r"\1.\2ff.3."),
        (_LAYER + r"cross_attention\.", r"\1.attn."),
        (_LAYER + r"self_attention\.", r"\1.self_attn."),
        (_LAYER + r"layer_norm_input\.", r"\1.attn.norm_x."),
        (_LAYER + r"layer_norm_latents\.", r"\1.attn.norm_latents."),
        (_LAYER + r"layer_norm_self\.", r"\1.self_attn.norm."),
        (_LAYER + r"((?:self_)?attn)\.([qkv])_proj\.", r"\1.\2.to_\3."),
        (_LAYER + r"((?:self_)?attn)\.o_proj\.", r"\1.\2.to_out."),
    )
]

# Hugging Face `config.json`, path of keys → field of SAM2Config.
HF_CONFIG_FIELDS = {
    "memory_attention_mlp_hidden_size": "memory_attention_mlp_dim",
    "perceiver_resampler_num_latents": "perceiver_latents",
    "perceiver_resampler_num_latents_2d": "perceiver_latents_2d",
    "perceiver_resampler_num_layers": "perceiver_layers",
}


def join_keys_and_values(tensors: dict[str, Tensor]) -> None:
    """Put the projections of a perceiver's keys and values, two tensors of Hugging Face, into one, in place."""
    for keys in [name for name in tensors if name.endswith(".to_k.weight")]:
        values = keys.replace(".to_k.", ".to_v.")
        if values in tensors:
            both = tensors.pop(keys), tensors.pop(values)
            tensors[keys.replace(".to_k.", ".to_kv.")] = torch.cat(both)


def check_hugging_face_parts(tree: Mapping[str, Any], source: str) -> None:
    """Make sure that a `config.json` describes an EdgeTAM whose parts this package has.

    Raises:
        ValueError: another trunk, or a perceiver with several heads.
    """
    vision = tree.get("vision_config")
    backbone = vision.get("backbone_config") if isinstance(vision, Mapping) else None
    trunk = backbone.get("architecture") if isinstance(backbone, Mapping) else None
    if trunk not in ("repvit_m1", "repvit_m1.dist_in1k"):
        raise ValueError(f"{source}: expected the trunk 'repvit_m1', found {brief(trunk)}")
    heads = tree.get("perceiver_resampler_num_attention_heads", 1)
    if heads != 1:
        raise ValueError(f"{source}: expected perceiver_resampler_num_attention_heads 1, found {brief(heads)}")


def architecture_of(tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The fields of `SAM2Config` that trunk and perceiver of official tensors fix; None where one is not there."""
    telling = (ANCHORS[0], "spatial_perceiver.latents", "spatial_perceiver.latents_2d")
    if any(name not in tensors for name in telling):
        return None
    blocks = re.compile(r"^image_encoder\.trunk\.body\.stages_(\d+)\.blocks\.(\d+)\.")
    found = {(int(match[1]), int(match[2])) for match in map(blocks.match, tensors) if match}
    num_stages = 1 + max((stage for stage, _ in found), default=-1)
    layers = {name.split(".")[2] for name in tensors if name.startswith("spatial_perceiver.layers.")}
    return {
        "embed_dim": 2 * tensors[ANCHORS[0]].shape[0],  # the first convolution is half as wide as the first stage
        "stages": tuple(sum(of == stage for of, _ in found) for stage in range(num_stages)),
        "backbone": "repvit",
        "memory_compressor": "perceiver",
        "perceiver_latents": tensors[telling[1]].shape[0],
        "perceiver_latents_2d": tensors[telling[2]].shape[0],
        "perceiver_layers": len(layers),
    }
