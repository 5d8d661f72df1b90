"""The parts of SAM 2 that a configuration chooses: the trunk of the image encoder and the memory compressor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_sam2_video_predictor import HEIGHT, WIDTH, make_predictor, prompt
from tiny_sam2 import TINY, make_tiny_model
from torch import Tensor

from sam2.config import apply_overrides
from sam2.modeling import hiera
from sam2.modeling.hiera import Hiera
from sam2.modeling.image_encoder import build_trunk
from sam2.modeling.layers import LayerNorm2d
from sam2.modeling.memory_encoder import WholeMemory
from sam2.modeling.perceiver import build_memory_compressor
from sam2.modeling.position_encoding import rope_rotations


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "vgg"}, "expected the backbone 'hiera', 'repvit' or 'efficientnet_lite', got 'vgg'"),
        ({"memory_compressor": "zip"}, "expected the memory_compressor 'none' or 'perceiver', got 'zip'"),
    ],
)
def test_an_unknown_part_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_tiny_model(**changes)


def test_parts_can_be_named_by_an_override() -> None:
    config = apply_overrides(TINY, ["++model.backbone=hiera", "memory_compressor=none"])
    assert config == TINY
    assert type(build_memory_compressor(config)) is WholeMemory


def test_a_trunk_says_what_its_levels_are() -> None:
    trunk = build_trunk(TINY)
    levels = trunk(torch.zeros(1, 3, 64, 64))
    assert tuple(level.shape[1] for level in levels) == trunk.level_channels
    assert [level.shape[-1] for level in levels] == [64 // stride for stride in (4, 8, 16, 32)]


class Halved(WholeMemory):
    """Every second row and column, averaged."""

    def forward(self, memory: Tensor) -> Tensor:
        return F.avg_pool2d(memory, 2)

    def rotations(self, channels: int, theta: float, device: torch.device) -> Tensor:
        return rope_rotations(channels, 2, 2, theta, device)


class SameSize(WholeMemory):
    """The whole memory, with its rotations spelled out."""

    def rotations(self, channels: int, theta: float, device: torch.device) -> Tensor:
        return rope_rotations(channels, 4, 4, theta, device)


def test_a_memory_compressor_makes_what_is_stored_and_read_smaller() -> None:
    clip = [np.random.default_rng(i).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8) for i in range(4)]
    runs, stored = [], []
    for compressor in (WholeMemory(), SameSize(), Halved()):
        predictor = make_predictor()
        predictor.spatial_perceiver = compressor
        state = predictor.init_state(clip)
        prompt(predictor, state, 0, 1, 2)
        runs.append(torch.cat([masks for _, _, masks in predictor.propagate_in_video(state)]))
        memory = state.objects[1].non_cond[1].maskmem
        assert memory is not None
        stored.append(tuple(memory.shape))
    assert stored == [(1, 32, 4, 4), (1, 32, 4, 4), (1, 32, 2, 2)]
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[0][:2], runs[2][:2]) and not torch.equal(runs[0], runs[2]) and runs[2].isfinite().all()


@pytest.mark.parametrize("channels", [1, 4, 16, 17])
def test_few_channels_are_normalised_as_many_are(channels: int) -> None:
    torch.manual_seed(0)
    norm = LayerNorm2d(channels)
    norm.weight.data.uniform_(-2, 2)
    norm.bias.data.uniform_(-2, 2)
    x = 100 + torch.randn(2, channels, 5, 3)
    cells = x.permute(0, 2, 3, 1).double()
    expected = F.layer_norm(cells, (channels,), norm.weight.double(), norm.bias.double(), norm.eps).permute(0, 3, 1, 2)
    with torch.inference_mode():
        torch.testing.assert_close(norm(x).double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"backbone": "repvit"}, {"fpn_top_down_levels": (0, 1, 2, 3)}], ids=str)
@pytest.mark.parametrize("size", [1, 3])
def test_inference_on_a_cpu_gives_what_training_gives(changes: dict[str, object], size: int) -> None:
    if "backbone" in changes:
        changes = {**changes, "stages": (1, 1, 1, 1)}
    model = make_tiny_model(**changes)
    model.sam_mask_decoder.conv_s0.bias.data.uniform_(-1, 1)
    images, cells = torch.randn(size, 3, 64, 64), torch.randn(size, 64, 4, 4)

    def features_and_masks() -> list[Tensor]:
        features = model.forward_image(images)
        found = model.mask_candidates(cells, features.high_res, multimask_output=True)
        return [features.vision, *features.high_res, found.mask_logits, found.ious, found.object_score_logits]

    expected = [tensor.detach() for tensor in features_and_masks()]
    with torch.inference_mode():
        torch.testing.assert_close(features_and_masks(), expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (72, 104)], ids=["square", "wide", "windows that do not fit"])
def test_windows_pass_a_block_in_groups(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hiera, "TOKENS_AT_ONCE", 100)
    trunk = build_trunk(TINY)
    images = torch.randn(2, 3, *size)
    expected = [level.detach() for level in trunk(images)]
    with torch.inference_mode():
        torch.testing.assert_close(trunk(images), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(14, 11), (16, 8)])
def test_the_position_embedding_is_resized_bicubically(size: tuple[int, int]) -> None:
    trunk = build_trunk(TINY)
    assert isinstance(trunk, Hiera)
    trunk.pos_embed_window.data.normal_()
    tiled = trunk.pos_embed_window.tile(1, 1, 4, 4)[:, :, : size[0], : size[1]]
    expected = F.interpolate(trunk.pos_embed, size=size, mode="bicubic") + tiled
    torch.testing.assert_close(trunk.position_embedding(*size), expected.permute(0, 2, 3, 1))
