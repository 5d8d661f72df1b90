"""RepViT, the convolutional trunk of EdgeTAM (Wang et al., 2024; Zhou et al., 2025).

Its convolutions are each followed by a batch normalisation, and some have branches beside them. Once training is over
all of that is one convolution: parameters stay those of the official checkpoints, and in evaluation the modules run
the convolution that they amount to, worked out when a parameter changed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MLP_ROWS = 2048  # on a CPU, cells that go through a channel mixer together: its wide middle then stays in the caches


class Foldable(nn.Module):
    """A part that in evaluation is one convolution of its input."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: tuple[list[tuple[Tensor, int, int]], tuple[Tensor, Tensor]] | None = None

    def sources(self) -> tuple[Tensor, ...]:
        """The tensors that the convolution is worked out from."""
        raise NotImplementedError

    def fold(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the convolution, in float32 or better, differentiable."""
        raise NotImplementedError

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the convolution in the precision of the parameters; kept until one of them changes."""
        sources = self.sources()
        precision = sources[0].dtype
        is_kept = not (torch.is_grad_enabled() or torch.compiler.is_compiling()) and not sources[0].is_inference()
        if not is_kept:
            weight, bias = self.fold()
            return weight.to(precision), bias.to(precision)
        now = [(tensor, tensor.data_ptr(), tensor._version) for tensor in sources]
        if self._kept is None or not all(
            was[0] is new[0] and was[1:] == new[1:] for was, new in zip(self._kept[0], now, strict=True)
        ):
            with torch.inference_mode(False), torch.no_grad():
                weight, bias = self.fold()
                self._kept = now, (weight.to(precision), bias.to(precision))
        return self._kept[1]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Foldable:
        self._kept = None  # the parameters are moved or converted in place
        return super()._apply(fn, recurse)


class ConvNorm(Foldable):
    """A convolution without a bias and a batch normalisation."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel_size: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.c = nn.Conv2d(channels_in, channels_out, kernel_size, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(channels_out)

    def sources(self) -> tuple[Tensor, ...]:
        bn = self.bn
        # the counter tells that the statistics changed, which PyTorch writes without a trace
        return self.c.weight, bn.weight, bn.bias, bn.running_mean, bn.running_var, bn.num_batches_tracked  # type: ignore[return-value]

    def fold(self) -> tuple[Tensor, Tensor]:
        precision = torch.promote_types(self.c.weight.dtype, torch.float32)
        weight, scale, shift, mean, variance = (tensor.to(precision) for tensor in self.sources()[:5])
        scale = scale * (variance + self.bn.eps).rsqrt()
        return weight * scale[:, None, None, None], shift - mean * scale

    def forward(self, x: Tensor) -> Tensor:
        if self.bn.training:
            return self.bn(self.c(x))
        return F.conv2d(x, *self.folded(), stride=self.c.stride, padding=self.c.padding, groups=self.c.groups)


class TokenMixer(Foldable):
    """Mixes neighbouring cells: depthwise convolutions of 3×3 and 1×1 cells, both normalised, and the cell itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvNorm(channels, channels, kernel_size=3, groups=channels)
        self.conv1 = ConvNorm(channels, channels, groups=channels)

    def sources(self) -> tuple[Tensor, ...]:
        return self.conv.sources() + self.conv1.sources()

    def fold(self) -> tuple[Tensor, Tensor]:
        (around, bias), (centre, centre_bias) = self.conv.fold(), self.conv1.fold()
        return around + F.pad(centre + 1, (1, 1, 1, 1)), bias + centre_bias

    def forward(self, x: Tensor) -> Tensor:
        if self.conv.bn.training or self.conv1.bn.training:
            return self.conv(x) + self.conv1(x) + x
        weight, bias = self.folded()
        return F.conv2d(x, weight, bias, padding=1, groups=len(weight))


class SqueezeExcite(nn.Module):
    """Scales each channel by what the means of all channels say (Hu et al., 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(8, (channels // 4 + 4) // 8 * 8)
        self.fc1 = nn.Conv2d(channels, narrow, kernel_size=1)
        self.fc2 = nn.Conv2d(narrow, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(2, 3), keepdim=True)
        return x * self.fc2(F.relu(self.fc1(mean))).sigmoid()


class ChannelMixer(nn.Module):
    """Mixes the channels of each cell: an MLP of 1×1 convolutions, twice as wide in its middle, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, 2 * channels)
        self.conv2 = ConvNorm(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        is_fixed = not (self.conv1.bn.training or self.conv2.bn.training)
        is_plain_inference = not (torch.is_grad_enabled() or torch.compiler.is_compiling())
        if is_fixed and is_plain_inference and x.device.type == "cpu":
            return self._in_blocks(x)
        return x + self.conv2(F.gelu(self.conv1(x)))

    def _in_blocks(self, x: Tensor) -> Tensor:
        """The same a few cells at a time; `x` has its channels last in memory."""
        (widen, wide_bias), (narrow, narrow_bias) = self.conv1.folded(), self.conv2.folded()
        widen, narrow = widen.flatten(1), narrow.flatten(1)
        cells = x.permute(0, 2, 3, 1)
        rows = cells.flatten(0, 2)
        out = torch.empty_like(rows)
        for part, mixed in zip(rows.split(MLP_ROWS), out.split(MLP_ROWS), strict=True):
            wide = F.gelu(F.linear(part, widen, wide_bias))
            torch.add(part, F.linear(wide, narrow, narrow_bias), out=mixed)
        return out.view(cells.shape).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Token mixer, squeeze and excitation in every second block, channel mixer."""

    def __init__(self, channels: int, use_se: bool) -> None:
        super().__init__()
        self.token_mixer = TokenMixer(channels)
        self.se = SqueezeExcite(channels) if use_se else nn.Identity()
        self.channel_mixer = ChannelMixer(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.channel_mixer(self.se(self.token_mixer(x)))


class Downsample(nn.Module):
    """Half the resolution, other channels; a block before that and a channel mixer after it."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.pre_block = Block(channels_in, use_se=False)
        self.spatial_downsample = ConvNorm(channels_in, channels_in, kernel_size=3, stride=2, groups=channels_in)
        self.channel_downsample = ConvNorm(channels_in, channels_out)
        self.ffn = ChannelMixer(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.ffn(self.channel_downsample(self.spatial_downsample(self.pre_block(x))))


class Stem(nn.Module):
    """Image → map at stride 4, by two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, channels // 2, kernel_size=3, stride=2)
        self.conv2 = ConvNorm(channels // 2, channels, kernel_size=3, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv2(F.gelu(self.conv1(images)))


class Stage(nn.Module):
    """Blocks at one resolution, after the step down to it; the first stage has none."""

    def __init__(self, channels_in: int, channels: int, depth: int) -> None:
        super().__init__()
        self.downsample = Downsample(channels_in, channels) if channels_in != channels else nn.Identity()
        self.blocks = nn.Sequential(*(Block(channels, use_se=i % 2 == 0) for i in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class RepViT(nn.Module):
    """The trunk: stages at strides 4, 8, 16 and 32, each twice as wide as the one before.

    Args:
        embed_dim: channels of the first stage; 48 in RepViT-M1.
        stages: blocks in each.
    """

    def __init__(self, embed_dim: int, stages: tuple[int, ...]) -> None:
        super().__init__()
        self.level_channels = tuple(embed_dim * 2**level for level in range(len(stages)))  # finest level first
        self.body = nn.ModuleDict({"stem": Stem(embed_dim)})
        channels_in = embed_dim
        for level, (channels, depth) in enumerate(zip(self.level_channels, stages, strict=True)):
            self.body[f"stages_{level}"] = Stage(channels_in, channels, depth)
            channels_in = channels

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, S, S) normalised → maps (B, C, H, W), finest first."""
        x = images.contiguous(memory_format=torch.channels_last)
        stem, *stages = self.body.values()
        x = stem(x)
        levels = []
        for stage in stages:
            x = stage(x)
            levels.append(x)
        return levels
