"""Grounding DINO (arXiv:2303.05499): boxes in images for what a text names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from grounding_dino.groundingdino.configuration import GroundingDINOConfig
from grounding_dino.groundingdino.models.bert import BertEncoder
from grounding_dino.groundingdino.models.features import ImageFeatures, TextFeatures
from grounding_dino.groundingdino.models.layers import MLP, ContrastiveEmbed
from grounding_dino.groundingdino.models.position_encoding import encode_cells
from grounding_dino.groundingdino.models.resnet import ResNet
from grounding_dino.groundingdino.models.swin import SwinTransformer
from grounding_dino.groundingdino.models.transformer import Transformer
from grounding_dino.groundingdino.text import TextInputs
from trunks.efficientnet_lite import EfficientNetLite


@dataclass(frozen=True)
class DetectorOutput:
    """Q queries for each of B pairs of an image and a text, in no order that means anything.

    Attributes:
        logits: (B, Q, T) float32; sigmoid gives how well a query goes with a token. -inf on padding tokens, and in all
            of a row where an image is so small that it has fewer cells than others of its batch.
        boxes_cxcywh: (B, Q, 4) float32 in 0..1 of each image.
    """

    logits: Tensor
    boxes_cxcywh: Tensor


class GroundingDINO(nn.Module):
    """The whole detector; names of parameters are those of the official files.

    Batches change nothing: each image and each text gives what it gives alone. For that the backbone runs once for
    each size of image, and only its maps are padded, with masks.

    Args:
        config: the architecture.
    """

    def __init__(self, config: GroundingDINOConfig) -> None:
        super().__init__()
        self.config = config
        backbone = _build_backbone(config)
        dim = config.hidden_dim
        self.backbone = nn.ModuleList([backbone])
        self.bert = BertEncoder(
            config.bert_vocab_size,
            config.bert_hidden_size,
            config.bert_num_hidden_layers,
            config.bert_num_attention_heads,
            config.bert_intermediate_size,
            config.bert_max_position_embeddings,
            config.bert_layer_norm_eps,
        )
        self.feat_map = nn.Linear(config.bert_hidden_size, dim)
        self.input_proj = nn.ModuleList(_build_input_projections(backbone.num_channels, config))
        self.transformer = Transformer(config)
        scaled_channels = dim if config.scaled_class_embed else None
        self.class_embed = nn.ModuleList(ContrastiveEmbed(scaled_channels) for _ in range(config.dec_layers))
        self.bbox_embed = nn.ModuleList(MLP(dim, dim, 4, num_layers=3) for _ in range(config.dec_layers))
        self.transformer.decoder.bbox_embed = self.bbox_embed  # official files hold them under both names

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.feat_map.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of weights and computation; boxes, and where the image is sampled, are float32 in any case."""
        return self.feat_map.weight.dtype

    def encode_images(self, images: Sequence[Tensor]) -> ImageFeatures:
        """Run the image backbone.

        Args:
            images: (3, H, W) each, or one tensor (B, 3, H, W); normalised RGB, of any sizes and any dtype.

        Raises:
            ValueError: there is no image, or one of another shape.
        """
        if len(images) == 0:
            raise ValueError("expected at least one image, got none")
        sizes: dict[tuple[int, ...], list[int]] = {}
        for i, image in enumerate(images):
            if image.ndim != 3 or image.shape[0] != 3:
                raise ValueError(f"expected images of shape (3, H, W), got {tuple(image.shape)}")
            sizes.setdefault(tuple(image.shape), []).append(i)
        levels_of: list[list[Tensor]] = [[] for _ in images]
        for same_size in sizes.values():
            batch = torch.stack([images[i].to(self.device, self.dtype) for i in same_size])
            levels = self._project(self.backbone[0](batch))
            for row, i in enumerate(same_size):
                levels_of[i] = [level[row] for level in levels]
        return self._pad(levels_of)

    def _project(self, maps: list[Tensor]) -> list[Tensor]:
        """Bring the backbone's maps (B, C_l, h, w) to C channels, and make the coarser levels that it does not have."""
        levels = [projection(level) for projection, level in zip(self.input_proj, maps, strict=False)]
        coarsest = maps[-1]
        for projection in list(self.input_proj)[len(maps) :]:
            coarsest = projection(coarsest)
            levels.append(coarsest)
        return levels

    def _pad(self, levels_of: list[list[Tensor]]) -> ImageFeatures:
        """Put the levels (C, h, w) of each image into one batch."""
        num_levels = len(levels_of[0])
        own_shapes = [[tuple(level.shape[1:]) for level in levels] for levels in levels_of]
        shapes = [
            (max(own[level][0] for own in own_shapes), max(own[level][1] for own in own_shapes))
            for level in range(num_levels)
        ]
        level_sizes = torch.tensor(
            [[(width, height) for height, width in own] for own in own_shapes], dtype=torch.float32, device=self.device
        )
        if all(own == own_shapes[0] for own in own_shapes):
            cells = torch.stack([torch.cat([x.flatten(1) for x in levels], dim=1).t() for levels in levels_of])
            position = torch.cat([self._position(level, *shape).flatten(0, 1) for level, shape in enumerate(shapes)])
            return ImageFeatures(cells, position[None], tuple(shapes), level_sizes, None)
        padded_levels = [self._pad_level(level, [levels[level] for levels in levels_of]) for level in range(num_levels)]
        cells, position, padding_mask = (torch.cat(parts, dim=1) for parts in zip(*padded_levels, strict=True))
        return ImageFeatures(cells, position, tuple(shapes), level_sizes, padding_mask)

    def _pad_level(self, level: int, maps: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Maps (C, h, w) of a level → cells (B, S_l, C), their positions (B, S_l, C), where padding is (B, S_l)."""
        height, width = (max(x.shape[axis] for x in maps) for axis in (1, 2))
        cells = maps[0].new_zeros(len(maps), height, width, len(maps[0]))
        position = torch.zeros_like(cells)
        padding_mask = torch.ones(cells.shape[:3], dtype=torch.bool, device=cells.device)
        for i, own in enumerate(maps):
            _, own_height, own_width = own.shape
            cells[i, :own_height, :own_width] = own.permute(1, 2, 0)
            position[i, :own_height, :own_width] = self._position(level, own_height, own_width)
            padding_mask[i, :own_height, :own_width] = False
        return cells.flatten(1, 2), position.flatten(1, 2), padding_mask.flatten(1)

    def _position(self, level: int, height: int, width: int) -> Tensor:
        """(height, width, C): where a cell is, and on which level."""
        temperatures = (self.config.pe_temperatureH, self.config.pe_temperatureW)
        encoded = encode_cells(height, width, self.config.hidden_dim, temperatures, self.device)
        return encoded.to(self.dtype) + self.transformer.level_embed[level]

    def encode_text(self, text: TextInputs) -> TextFeatures:
        """Run the text encoder.

        Raises:
            ValueError: a text is longer than the model reads.
        """
        length, limit = text.input_ids.shape[1], self.config.max_text_len
        if length > limit:
            raise ValueError(f"expected at most {limit} tokens in a text, got {length}; split the prompt")
        text = text.to(self.device)
        encoded = self.bert(text.input_ids, text.self_attention_mask, text.position_ids)
        return TextFeatures(self.feat_map(encoded), text.token_mask, text.self_attention_mask, text.position_ids)

    def detect(self, images: ImageFeatures, text: TextFeatures) -> DetectorOutput:
        """Find in each image what the text of the same row names; `rows` repeats an image for several texts.

        Raises:
            ValueError: as many images as texts were expected.
        """
        if len(images) != len(text):
            raise ValueError(f"expected as many images as texts, got {len(images)} and {len(text)}; repeat with .rows")
        queries, text = self.transformer(images, text)
        logits = self.class_embed[-1](queries.features, text.tokens, text.token_mask).float()
        delta = self.bbox_embed[-1](queries.features)
        boxes_cxcywh = self.transformer.decoder.correct_boxes(queries.boxes_cxcywh, delta)
        if queries.query_mask is not None:
            logits = logits.masked_fill(~queries.query_mask[..., None], -torch.inf)
        return DetectorOutput(logits, boxes_cxcywh)

    def forward(self, images: Sequence[Tensor], text: TextInputs) -> DetectorOutput:
        """`detect` on what `encode_images` and `encode_text` make of as many images as texts; errors as theirs."""
        return self.detect(self.encode_images(images), self.encode_text(text))


def _build_backbone(config: GroundingDINOConfig) -> SwinTransformer | ResNet | EfficientNetLite:
    if config.backbone == "swin":
        return SwinTransformer(
            config.embed_dim, config.depths, config.num_heads, config.window_size, config.return_interm_indices
        )
    if config.backbone == "resnet":
        return ResNet(config.embedding_size, config.hidden_sizes, config.depths, config.return_interm_indices)
    if config.backbone == "efficientnet_lite":
        return EfficientNetLite(config.return_interm_indices)
    raise ValueError(f"expected the backbone 'swin', 'resnet' or 'efficientnet_lite', got {config.backbone!r}")


def _build_input_projections(num_channels: Sequence[int], config: GroundingDINOConfig) -> list[nn.Sequential]:
    dim, num_extra = config.hidden_dim, config.num_feature_levels - len(num_channels)
    if num_extra < 0:
        raise ValueError(f"{config.num_feature_levels} feature levels cannot hold {len(num_channels)} backbone stages")
    convolutions = [nn.Conv2d(channels, dim, kernel_size=1) for channels in num_channels]
    extra_channels = [num_channels[-1], *[dim] * num_extra][:num_extra]
    convolutions += [nn.Conv2d(channels, dim, 3, stride=2, padding=1) for channels in extra_channels]
    return [nn.Sequential(convolution, nn.GroupNorm(32, dim)) for convolution in convolutions]
