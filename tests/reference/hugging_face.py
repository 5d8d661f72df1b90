"""transformers' SAM 2 as a second reference: models of a given architecture, holding given official weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sam2.config import SAM2Config
from sam2.weights import _with_official_names, load_state_dict


def own_names(shapes: Mapping[str, Sequence[int]]) -> dict[str, list[str]]:
    """Official name → transformers' names, one or several, of the tensors that this repository reads as it.

    Args:
        shapes: of transformers' tensors by name. Tensors of these shapes, filled with their own number, are read.
    """
    names = list(shapes)
    numbered = {name: torch.tensor(float(number)).expand(shapes[name]) for number, name in enumerate(names)}
    read = _with_official_names(numbered).items()
    return {official: [names[int(number)] for number in tensor.flatten().unique()] for official, tensor in read}


def hugging_face_config(config: SAM2Config) -> Any:
    """The `Sam2VideoConfig` of the architecture that `config` describes."""
    from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VisionConfig

    num_stages, width, side = len(config.stages), config.d_model, config.image_size
    channels = [config.embed_dim * 2**stage for stage in range(num_stages)]
    backbone = Sam2HieraDetConfig(
        hidden_size=config.embed_dim,
        num_attention_heads=config.num_heads,
        image_size=[side, side],
        blocks_per_stage=list(config.stages),
        embed_dim_per_stage=channels,
        num_attention_heads_per_stage=[config.num_heads * 2**stage for stage in range(num_stages)],
        window_size_per_stage=list(config.window_spec),
        window_positional_embedding_background_size=list(config.window_pos_embed_bkg_spatial_size),
        global_attention_blocks=list(config.global_att_blocks),
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=channels[::-1],
        backbone_feature_sizes=[[side // stride] * 2 for stride in (4, 8, 16)],
        fpn_hidden_size=width,
        fpn_top_down_levels=list(config.fpn_top_down_levels),
    )
    return Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": width, "image_size": side},
        mask_decoder_config={"hidden_size": width, "mlp_dim": config.decoder_mlp_dim},
        image_size=side,
        num_maskmem=config.num_maskmem,
        enable_occlusion_spatial_embedding=config.no_obj_embed_spatial,
        enable_temporal_pos_encoding_for_object_pointers=config.proj_tpos_enc_in_obj_ptrs,
        memory_attention_hidden_size=width,
        memory_attention_num_layers=config.memory_attention_layers,
        memory_attention_feed_forward_hidden_size=config.memory_attention_mlp_dim,
        memory_attention_rope_feat_sizes=[side // 16, side // 16],
        memory_encoder_hidden_size=width,
        memory_encoder_output_channels=config.mem_dim,
        mask_downsampler_embed_dim=width,
        memory_fuser_embed_dim=width,
        memory_fuser_intermediate_dim=4 * width,
    )


def hugging_face_model(config: SAM2Config, official: Mapping[str, Tensor], folder: Path) -> Any:
    """A `Sam2VideoModel` that holds official weights.

    Args:
        config: The architecture.
        official: Tensors under their official names.
        folder: An empty folder for the file by which the names are paired: tensors filled with their own number are
            saved by transformers and read back by this repository.
    """
    from transformers import Sam2VideoModel

    model = Sam2VideoModel(hugging_face_config(config)).eval()
    own = model.state_dict()
    names = list(own)
    numbered = {name: torch.full_like(tensor, float(number)) for number, (name, tensor) in enumerate(own.items())}
    model.load_state_dict(numbered)
    model.save_pretrained(folder)
    filled = {name: torch.full_like(tensor, float("nan")) for name, tensor in own.items()}
    for official_name, numbers in load_state_dict(folder).items():
        name = names[int(numbers.flatten()[0])]
        value = official[official_name]
        if "point_embeddings" in official_name:  # four tensors there, the rows of one here
            filled[name][int(official_name.split(".")[2])] = value[0]
        else:
            filled[name].copy_(value)
    missing = [name for name, tensor in filled.items() if tensor.isnan().any()]
    for name in missing:  # the point frequencies are held twice and saved once
        filled[name].copy_(official["sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"])
    model.load_state_dict(filled)
    return model
