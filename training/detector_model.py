"""The nano detector's network: a Grounding DINO of a few million parameters that learns from random weights.

The network is transformers' `GroundingDinoForObjectDetection` with a ResNet backbone, which trains faster on a CPU than
Swin at this size. Its batch normalisation learns here and is frozen in the exported folder.

One channel of the text features is held at 1, so that the same channel of the image features is a bias of the logits:
it starts at the prior that most pairs do not match, and the export shifts it so that the default thresholds are the
best ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection, ResNetConfig
from transformers.models.grounding_dino.modeling_grounding_dino import (
    generate_masks_with_special_tokens_and_transfer_map,
)

LOGIT_PRIOR = -3.5
FEATURE_GAIN = 0.4  # of the last layer norms at the start: keeps the first logits near the prior
BIAS_CHANNEL = 0
STRIDES = (8, 16, 32)  # pixels, of the feature levels
DRAWN_DEPTHS = (1, 2, 2, 1)  # residual blocks of the backbone's stages, enough for drawn scenes
PHOTO_DEPTHS = (1, 2, 3, 3)  # for photographs, whose things look more varied and are larger in the image


def model_config(vocabulary_size: int, depths: Sequence[int] = DRAWN_DEPTHS) -> GroundingDinoConfig:
    """The nano architecture: stride 8, 16 and 32 features, one encoder layer, two decoder layers.

    Args:
        vocabulary_size: rows of the word embedding.
        depths: residual blocks of the backbone's four stages.
    """
    backbone = ResNetConfig(
        embedding_size=24,
        hidden_sizes=[32, 64, 128, 192],
        depths=list(depths),
        layer_type="basic",
        out_indices=[2, 3, 4],
    )
    text = BertConfig(
        vocab_size=vocabulary_size,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=256,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        d_model=64,
        num_feature_levels=3,
        num_queries=80,
        encoder_layers=1,
        encoder_ffn_dim=256,
        encoder_attention_heads=4,
        decoder_layers=2,
        decoder_ffn_dim=256,
        decoder_attention_heads=4,
        dropout=0.0,
        fusion_droppath=0.0,
        decoder_bbox_embed_share=False,
    )


def build_training_model(config: GroundingDinoConfig) -> GroundingDinoForObjectDetection:
    """A model with random weights whose batch normalisation learns (the transformers class freezes it)."""
    model = GroundingDinoForObjectDetection(config)
    thaw_batch_norm(model)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    initialise(model)
    return model


def thaw_batch_norm(module: nn.Module) -> None:
    """Replace frozen batch normalisation by `nn.BatchNorm2d`; the names of its tensors stay the same."""
    for name, child in module.named_children():
        if type(child).__name__ == "GroundingDinoFrozenBatchNorm2d":
            setattr(module, name, nn.BatchNorm2d(len(child.weight)))
        else:
            thaw_batch_norm(child)


def freeze_stem(model: GroundingDinoForObjectDetection) -> None:
    """Stop learning the backbone's first convolution and first stage."""
    backbone = model.model.backbone.conv_encoder.model
    for part in (backbone.embedder, backbone.encoder.stages[0]):
        part.requires_grad_(False)


def hold_batch_norm(model: nn.Module) -> None:
    """Let batch normalisation use its running averages without changing them."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


@torch.no_grad()
def initialise(model: GroundingDinoForObjectDetection) -> None:
    """Xavier weights, the logit prior, and a weak encoder layer, because the dense stage skips it."""
    for name, module in model.named_modules():
        kept = "sampling_offsets" in name or "attention_weights" in name or name.endswith("layers.2")
        if isinstance(module, nn.Linear) and not kept:
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    core = model.model
    embeddings = core.text_backbone.embeddings
    nn.init.normal_(embeddings.word_embeddings.weight, std=0.5)
    nn.init.normal_(embeddings.position_embeddings.weight, std=0.1)
    nn.init.zeros_(embeddings.token_type_embeddings.weight)
    nn.init.normal_(core.query_position_embeddings.weight, std=0.5)
    for layer in core.encoder.layers:
        layer.fusion_layer.vision_param.fill_(0.1)
        layer.fusion_layer.text_param.fill_(0.1)
        layer.deformable_layer.self_attn.output_proj.weight.mul_(0.1)
        layer.deformable_layer.fc2.weight.mul_(0.1)
    for norm in (
        core.encoder.layers[-1].text_enhancer_layer.layer_norm_after,
        core.enc_output_norm,
        core.decoder.layer_norm,
    ):
        norm.weight.fill_(FEATURE_GAIN)
    core.enc_output_norm.bias[BIAS_CHANNEL] = LOGIT_PRIOR
    core.decoder.layer_norm.bias[BIAS_CHANNEL] = LOGIT_PRIOR
    pin_bias_channel(model)


@torch.no_grad()
def pin_bias_channel(model: GroundingDinoForObjectDetection) -> None:
    """Keep the text's bias channel at 1, the image's free of content, and the boxes independent of it."""
    core = model.model
    text_norm = core.encoder.layers[-1].text_enhancer_layer.layer_norm_after
    text_norm.bias[BIAS_CHANNEL] = 1.0
    for norm in (text_norm, core.enc_output_norm, core.decoder.layer_norm):
        norm.weight[BIAS_CHANNEL] = 0.0
    for head in (core.encoder_output_bbox_embed, *model.bbox_embed):
        head.layers[0].weight[:, BIAS_CHANNEL] = 0.0


@torch.no_grad()
def grow_from(model: GroundingDinoForObjectDetection, weights: Mapping[str, Tensor]) -> None:
    """Load the weights of a model with fewer words or fewer blocks in its backbone, so that the new one computes the
    same.

    New residual blocks start as the identity; the rows of new words keep the values they have.

    Raises:
        ValueError: the weights are of another architecture; names the first that does not fit.
    """
    state = model.state_dict()
    words = "text_backbone.embeddings.word_embeddings.weight"
    for name, tensor in weights.items():
        if name not in state or (state[name].shape != tensor.shape and not name.endswith(words)):
            raise ValueError(f"expected weights of a smaller nano detector, got {name} of shape {tuple(tensor.shape)}")
        if tensor.ndim:  # the others count batches
            state[name][: len(tensor)] = tensor
    for name, tensor in state.items():
        if name not in weights and name.endswith("layer.1.normalization.weight"):
            tensor.zero_()  # the last norm of a new block


@torch.no_grad()
def start_decoder_from_proposals(model: GroundingDinoForObjectDetection) -> None:
    """Start the decoder's image attention as the proposal head's projection, which already knows names."""
    core = model.model
    core.decoder.layer_norm.load_state_dict(core.enc_output_norm.state_dict())
    for layer in core.decoder.layers:
        layer.encoder_attn.value_proj.load_state_dict(core.enc_output.state_dict())
        layer.encoder_attn.output_proj.weight.copy_(torch.eye(len(core.enc_output.weight)))


def dense_forward(
    model: GroundingDinoForObjectDetection, pixel_values: Tensor, input_ids: Tensor, word_tokens: Tensor
) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
    """Score every position against one prompt, past the encoder's attention.

    Args:
        pixel_values: (B, 3, H, W) normalised.
        input_ids: (1, L).
        word_tokens: (T,) indices of the tokens that are scored.

    Returns:
        (B, S, T) logits, (B, S, 4) cxcywh boxes in 0..1, and the (height, width) of the feature levels.
    """
    core = model.model
    attention, position_ids = generate_masks_with_special_tokens_and_transfer_map(input_ids, core.special_tokens)
    text = core.text_backbone(
        input_ids, attention[:, None], token_type_ids=torch.zeros_like(input_ids), position_ids=position_ids
    ).last_hidden_state
    layer = core.encoder.layers[0]
    text = layer.fusion_layer.layer_norm_text(core.text_projection(text))
    positions = layer.get_text_position_embeddings(text, None, position_ids)
    text = layer.text_enhancer_layer(hidden_states=text, attention_masks=attention, position_embeddings=positions)[0]

    feature_maps = core.backbone.conv_encoder.model(pixel_values).feature_maps
    sources = [project(features) for project, features in zip(core.input_proj_vision, feature_maps, strict=True)]
    shapes = [(source.shape[-2], source.shape[-1]) for source in sources]
    memory = torch.cat([source.flatten(2).transpose(1, 2) for source in sources], 1)  # (B, S, C)
    memory = layer.fusion_layer.layer_norm_vision(memory)
    memory = layer.deformable_layer.final_layer_norm(layer.deformable_layer.self_attn_layer_norm(memory))
    padding = torch.zeros(memory.shape[:2], dtype=torch.bool, device=memory.device)
    regions, proposals = core.generate_encoder_output_proposals(memory, padding, shapes)
    boxes = (core.encoder_output_bbox_embed(regions) + proposals).sigmoid()
    return regions @ text[0, word_tokens].T, boxes, shapes
