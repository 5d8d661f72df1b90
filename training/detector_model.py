"""The nano detector's network: a Grounding DINO of a few million parameters whose trunk alone begins
with published weights.

The network is transformers' `GroundingDinoForObjectDetection` on an EfficientNet-Lite0 that knows ImageNet.

One channel of the text features is held at 1, so that the same channel of the image features is a bias of the logits:
it starts at the prior that most pairs do not match, and the export shifts it so that the default thresholds are the
best ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection
from transformers.models.grounding_dino.modeling_grounding_dino import (
    generate_masks_with_special_tokens_and_transfer_map,
)

from grounded_sam2.detectors.efficientnet_lite import EfficientNetLiteConfig
from training.take_over import Fit

LOGIT_PRIOR = -3.5
FEATURE_GAIN = 0.4  # of the last layer norms at the start: keeps the first logits near the prior
BIAS_CHANNEL = 0
STRIDES = (8, 16, 32)  # pixels, of the feature levels


def model_config(vocabulary_size: int) -> GroundingDinoConfig:
    """The nano architecture: stride 8, 16 and 32 features, one encoder layer, two decoder layers.

    Args:
        vocabulary_size: rows of the word embedding.
    """
    backbone = EfficientNetLiteConfig(out_indices=[2, 3, 4])
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
    """A model with random weights. The trunk's first level never learns: published weights know edges and colours, and
    its gradients cost a quarter of a step."""
    model = GroundingDinoForObjectDetection(config)
    initialise(model)
    trunk = model.model.backbone.conv_encoder.model.trunk
    for part in (trunk.stem, trunk.levels[0]):
        part.requires_grad_(False)
    return model


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
    """Load weights of a model with fewer words; the rows of new words keep the values they have.

    Raises:
        ValueError: the weights are of another architecture; names the first that does not fit.
    """
    state = model.state_dict()
    words = "text_backbone.embeddings.word_embeddings.weight"
    for name, tensor in weights.items():
        if name not in state or (state[name].shape != tensor.shape and not name.endswith(words)):
            raise ValueError(f"expected weights of a nano detector, got {name} of shape {tuple(tensor.shape)}")
        if tensor.ndim:  # the others count batches
            state[name][: len(tensor)] = tensor


@torch.no_grad()
def take_over(
    model: GroundingDinoForObjectDetection, earlier: GroundingDinoForObjectDetection, batches: Iterable[Tensor]
) -> list[float]:
    """Copy all weights of a nano detector with another trunk but the trunk's, and fit the projections behind it, so
    that they make of the new trunk's maps what they made of the earlier one's.

    Args:
        model: changed in place.
        earlier: of the same widths behind the trunk.
        batches: images (B, 3, H, W), normalised, to fit the projections on.

    Returns:
        What share of the earlier projections' variance the new ones explain, finest level first.
    """
    weights = {name: tensor for name, tensor in earlier.state_dict().items() if ".conv_encoder." not in name}
    projections = [f"model.input_proj_vision.{level}.0." for level in range(len(STRIDES))]
    grow_from(model, {name: tensor for name, tensor in weights.items() if not name.startswith(tuple(projections))})
    fits = [Fit() for _ in STRIDES]
    for images in batches:
        maps = model.model.backbone.conv_encoder.model(images).feature_maps
        earlier_maps = earlier.model.backbone.conv_encoder.model(images).feature_maps
        for level, fit in enumerate(fits):
            fit.add(maps[level], earlier.model.input_proj_vision[level][0](earlier_maps[level]))
    solved = [fit.solve() for fit in fits]
    for level, (weight, bias, _) in enumerate(solved):
        convolution = model.model.input_proj_vision[level][0]
        convolution.weight.copy_(weight)
        convolution.bias.copy_(bias)
    return [explained for _, _, explained in solved]


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
