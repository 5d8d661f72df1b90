"""Names of weights: from the layouts in which Grounding DINO is published to the official one, which the model has."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

# Tensors of files that the model has no use for: BERT's pooler, the labels of denoising training, what is computed
# from the architecture, and a norm of the Hugging Face backbone that nothing reads.
_IGNORED = re.compile(
    r"^bert\.pooler\.|^bert\.embeddings\.(position|token_type)_ids$|^label_enc\.|\.relative_position_index$"
    r"|\.num_batches_tracked$|^backbone\.0\.layernorm\.|^transformer\.decoder\.class_embed\."
)

_Renames = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]

# Query, key and value: one matrix in the official files, whose parts are numbered here until they are put together.
_HF_ATTENTION: _Renames = (
    (r"\.query\.", ".in_proj.0."),
    (r"\.key\.", ".in_proj.1."),
    (r"\.value\.", ".in_proj.2."),
)
_HF_SWIN: _Renames = (
    (r"^swin\.", ""),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^hidden_states_norms\.stage(\d+)\.", lambda match: f"norm{int(match[1]) - 1}."),
    (r"^encoder\.layers\.", "layers."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.(self\.query|q_proj)\.", ".attn.qkv.0."),
    (r"\.attention\.(self\.key|k_proj)\.", ".attn.qkv.1."),
    (r"\.attention\.(self\.value|v_proj)\.", ".attn.qkv.2."),
    (r"\.attention\.(self|relative_position_bias)\.relative_position_", ".attn.relative_position_"),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)
_HF_RESNET: _Renames = (
    (r"^embedder\.embedder\.convolution\.", "conv1."),
    (r"^embedder\.embedder\.normalization\.", "bn1."),
    (r"^encoder\.stages\.(\d+)\.layers\.", lambda match: f"layer{int(match[1]) + 1}."),
    (r"\.layer\.(\d)\.convolution\.", lambda match: f".conv{int(match[1]) + 1}."),
    (r"\.layer\.(\d)\.normalization\.", lambda match: f".bn{int(match[1]) + 1}."),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
)
_HF_EFFICIENTNET_LITE: _Renames = ((r"^trunk\.", ""),)
_HF_ENCODER: _Renames = (
    (r"^(\d+)\.text_enhancer_layer\.", r"text_layers.\1."),
    (r"^(\d+)\.fusion_layer\.", r"fusion_layers.\1."),
    (r"^(\d+)\.deformable_layer\.", r"layers.\1."),
    (r"\.(self_attn_layer_norm|layer_norm_before)\.", ".norm1."),
    (r"\.(final_layer_norm|layer_norm_after)\.", ".norm2."),
    (r"\.layer_norm_vision\.", ".layer_norm_v."),
    (r"\.layer_norm_text\.", ".layer_norm_l."),
    (r"([._])vision_proj\.", r"\1v_proj."),
    (r"([._])text_proj\.", r"\1l_proj."),
    (r"\.vision_param$", ".gamma_v"),
    (r"\.text_param$", ".gamma_l"),
    (r"\.fc(\d)\.", r".linear\1."),
    *_HF_ATTENTION,
)
_HF_DECODER: _Renames = (
    (r"\.encoder_attn_text\.", ".ca_text."),
    (r"\.encoder_attn_text_layer_norm\.", ".catext_norm."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.encoder_attn_layer_norm\.", ".norm1."),
    (r"\.self_attn_layer_norm\.", ".norm2."),
    (r"\.final_layer_norm\.", ".norm3."),
    (r"\.fc(\d)\.", r".linear\1."),
    *_HF_ATTENTION,
)
# Start of a Hugging Face name, start of the official one, what changes behind it.
_HF_PARTS: tuple[tuple[str, str, _Renames], ...] = (
    ("model.backbone.conv_encoder.model.", "backbone.0.", _HF_SWIN + _HF_RESNET + _HF_EFFICIENTNET_LITE),
    ("model.text_backbone.", "bert.", ()),
    ("model.text_projection.", "feat_map.", ()),
    ("model.input_proj_vision.", "input_proj.", ()),
    ("model.query_position_embeddings.", "transformer.tgt_embed.", ()),
    ("model.encoder.layers.", "transformer.encoder.", _HF_ENCODER),
    ("model.decoder.layers.", "transformer.decoder.layers.", _HF_DECODER),
    ("model.decoder.layer_norm.", "transformer.decoder.norm.", ()),
    ("model.decoder.reference_points_head.", "transformer.decoder.ref_point_head.", ()),
    ("model.encoder_output_bbox_embed.", "transformer.enc_out_bbox_embed.", ()),
    ("model.encoder_output_class_embed.", "transformer.enc_out_class_embed.", ()),
    ("model.", "transformer.", ()),
)
_MERGED_PART = re.compile(r"^(.*\.(?:qkv|in_proj))\.([012])\.(weight|bias)$")
_HEADS = ("bbox_embed.", "transformer.decoder.bbox_embed.")


def is_hugging_face(names: Iterable[str]) -> bool:
    """Whether names are those of a Hugging Face file."""
    return any(name.startswith("model.text_backbone.") for name in names)


def with_official_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of any file of weights under official names, without those that no model needs."""
    if is_hugging_face(tensors):
        official = _merge_parts({_official_name(name): tensor for name, tensor in tensors.items()})
    else:
        official = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    official = {name: tensor for name, tensor in official.items() if not _IGNORED.search(name)}
    return _with_all_heads(official)


def _official_name(name: str) -> str:
    for start, official_start, renames in _HF_PARTS:
        if name.startswith(start):
            rest = name[len(start) :]
            for pattern, replacement in renames:
                rest = re.sub(pattern, replacement, rest)
            return official_start + rest
    return name


def _merge_parts(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    merged: dict[str, Tensor] = {}
    parts: dict[tuple[str, str], dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        match = _MERGED_PART.match(name)
        if match is None:
            merged[name] = tensor
        else:
            parts[match[1], match[3]][match[2]] = tensor
    for (stem, suffix), by_number in parts.items():
        if len(by_number) == 3:
            joint = "_" if stem.endswith("in_proj") else "."
            merged[f"{stem}{joint}{suffix}"] = torch.cat([by_number[number] for number in "012"])
        else:  # left as they are, to be named among the unexpected keys
            merged.update({f"{stem}.{number}.{suffix}": tensor for number, tensor in by_number.items()})
    return merged


def _with_all_heads(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Files may hold a head that all layers share, or that goes by two names, once; here every layer has its own."""
    num_layers = count_layers(tensors, r"^transformer\.decoder\.layers\.(\d+)\.")
    for prefix, other in (_HEADS, _HEADS[::-1], ("class_embed.", "class_embed.")):
        source = prefix if any(name.startswith(prefix) for name in tensors) else other
        heads = {name[len(source) :]: tensor for name, tensor in tensors.items() if name.startswith(source)}
        is_shared = bool(heads) and all(name.startswith("0.") for name in heads)
        for layer in range(num_layers):
            own = {name: tensor for name, tensor in heads.items() if is_shared or name.startswith(f"{layer}.")}
            for name, tensor in own.items():
                full_name = f"{prefix}{layer}.{name.partition('.')[2]}"
                if full_name not in tensors:
                    tensors[full_name] = tensor.clone()
    return tensors


def indices(names: Iterable[str], pattern: str) -> tuple[int, ...]:
    """The numbers that `pattern` finds in names, ascending."""
    matches = (re.match(pattern, name) for name in names)
    return tuple(sorted({int(match[1]) for match in matches if match}))


def count_layers(names: Iterable[str], pattern: str) -> int:
    """How many different numbers `pattern` finds in names."""
    return len(indices(names, pattern))
