"""The image backbones of Grounding DINO: equal to transformers' with the same weights, for every size and batch."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from grounding_dino.groundingdino.models import swin
from grounding_dino.groundingdino.models.resnet import ResNet
from grounding_dino.groundingdino.models.swin import SwinTransformer
from trunks.efficientnet_lite import EfficientNetLite

SWIN = {"embed_dim": 8, "depths": (2, 1, 2, 2), "num_heads": (1, 2, 2, 4)}
RESNET = {"embedding_size": 8, "hidden_sizes": (8, 16, 24, 32), "depths": (1, 2, 1, 2)}
SIZES = [(64, 64), (65, 43), (130, 30), (9, 5), (1, 1), (3, 200)]

SWIN_NAMES = {
    r"^swin\.embeddings\.patch_embeddings\.projection": "patch_embed.proj",
    r"^swin\.embeddings\.norm": "patch_embed.norm",
    r"^swin\.encoder\.": "",
    r"layernorm_before": "norm1",
    r"layernorm_after": "norm2",
    r"attention\.o_proj": "attn.proj",
    r"attention\.relative_position_bias\.": "attn.",
    r"^hidden_states_norms\.stage(\d)": lambda match: f"norm{int(match[1]) - 1}",
}
RESNET_NAMES = {
    r"^embedder\.embedder": "0",
    r"^encoder\.stages\.(\d)\.layers": lambda match: f"layer{int(match[1]) + 1}",
    r"shortcut\.convolution": "downsample.0",
    r"shortcut\.normalization": "downsample.1",
    r"layer\.(\d)\.": lambda match: f"{match[1]}.",
    r"(\d)\.convolution": lambda match: f"conv{int(match[1]) + 1}",
    r"(\d)\.normalization": lambda match: f"bn{int(match[1]) + 1}",
}


def renamed(state: dict[str, Tensor], names: dict[str, str | Callable[[re.Match[str]], str]]) -> dict[str, Tensor]:
    for pattern, name in names.items():
        state = {re.sub(pattern, name, key): tensor for key, tensor in state.items()}
    return state


def randomize(model: nn.Module) -> None:
    """Move weights and running statistics away from their initial constants."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                noise = 0.1 * torch.randn(tensor.shape, generator=generator)
                tensor += noise.abs() if name.endswith("running_var") else noise


def make_swin(window_size: int = 4, **changes: object) -> SwinTransformer:
    torch.manual_seed(0)
    model = SwinTransformer(**(SWIN | {"window_size": window_size} | changes)).eval()  # type: ignore[arg-type]
    randomize(model)
    return model


def make_efficientnet_lite(**changes: object) -> EfficientNetLite:
    torch.manual_seed(0)
    return EfficientNetLite(**({"out_indices": (1, 2, 3)} | changes)).eval()  # type: ignore[arg-type]


def make_resnet(**changes: object) -> ResNet:
    torch.manual_seed(0)
    model = ResNet(**(RESNET | changes)).eval()  # type: ignore[arg-type]
    randomize(model)
    return model


def make_images(batch: int, height: int, width: int) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(height + width))


def assert_equal_maps(ours: list[Tensor], theirs: list[Tensor], tolerance: float = 1e-5) -> None:
    assert [tuple(level.shape) for level in ours] == [tuple(level.shape) for level in theirs]
    for level, expected in zip(ours, theirs, strict=True):
        assert (level - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.fixture(scope="module", params=[4, 7])
def swin_pair(request: pytest.FixtureRequest) -> tuple[SwinTransformer, nn.Module]:
    """Our Swin and transformers' with the same weights."""
    import transformers

    config = transformers.SwinConfig(
        **SWIN, window_size=request.param, image_size=64, out_indices=[2, 3, 4], drop_path_rate=0.0
    )
    theirs = transformers.SwinBackbone(config).eval()
    randomize(theirs)
    state = renamed({key: x for key, x in theirs.state_dict().items() if "swin.layernorm" not in key}, SWIN_NAMES)
    for key in [key for key in state if ".attention.q_proj." in key]:
        parts = [state.pop(key.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        state[key.replace("attention.q_proj", "attn.qkv")] = torch.cat(parts)
    ours = make_swin(request.param)
    ours.load_state_dict(state)
    return ours, theirs


@pytest.fixture(scope="module")
def resnet_pair() -> tuple[ResNet, nn.Module]:
    """Our ResNet and transformers' with the same weights."""
    import transformers

    config = transformers.ResNetConfig(**RESNET, layer_type="basic", out_indices=[2, 3, 4])
    theirs = transformers.ResNetBackbone(config).eval()
    randomize(theirs)
    state = {key: x for key, x in theirs.state_dict().items() if "num_batches_tracked" not in key}
    ours = make_resnet()
    ours.load_state_dict(renamed(state, RESNET_NAMES))
    return ours, theirs


@pytest.mark.parametrize("size", SIZES)
def test_swin_equals_transformers(swin_pair: tuple[SwinTransformer, nn.Module], size: tuple[int, int]) -> None:
    ours, theirs = swin_pair
    images = make_images(2, *size)
    with torch.no_grad():
        assert_equal_maps(ours(images), theirs(images).feature_maps)


@pytest.mark.parametrize("size", SIZES)
def test_resnet_equals_transformers(resnet_pair: tuple[ResNet, nn.Module], size: tuple[int, int]) -> None:
    ours, theirs = resnet_pair
    images = make_images(2, *size)
    with torch.no_grad():
        assert_equal_maps(ours(images), theirs(images).feature_maps)


def test_resnet_loads_torchvision_names() -> None:
    import torchvision

    official = torchvision.models.resnet18()
    model = ResNet(embedding_size=64, hidden_sizes=(64, 128, 256, 512), depths=(2, 2, 2, 2))
    state = {key: x for key, x in official.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert model.load_state_dict(state, strict=False).missing_keys == []
    assert set(model.load_state_dict(state, strict=False).unexpected_keys) == {"fc.weight", "fc.bias"}


def test_swin_has_the_official_names() -> None:
    keys = set(
        SwinTransformer(embed_dim=8, depths=(1, 2), num_heads=(1, 2), window_size=4, out_indices=(1,)).state_dict()
    )
    norms_and_layers = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    expected = {"layers.0.downsample.reduction.weight"}
    for module in ("patch_embed.proj", "patch_embed.norm", "layers.0.downsample.norm", "norm1"):
        expected |= {f"{module}.weight", f"{module}.bias"}
    for block in ("layers.0.blocks.0", "layers.1.blocks.0", "layers.1.blocks.1"):
        expected |= {f"{block}.{name}.{kind}" for name in norms_and_layers for kind in ("weight", "bias")}
        expected.add(f"{block}.attn.relative_position_bias_table")
    assert keys == expected


@pytest.mark.parametrize("make_model", [make_swin, make_resnet, make_efficientnet_lite])
@pytest.mark.parametrize("out_indices", [(0,), (1, 3), (0, 1, 2, 3)])
def test_maps_of_chosen_stages(
    make_model: Callable[..., SwinTransformer | ResNet | EfficientNetLite], out_indices: tuple[int, ...]
) -> None:
    every_stage, chosen = make_model(out_indices=(0, 1, 2, 3)), make_model(out_indices=out_indices)
    chosen.load_state_dict(every_stage.state_dict(), strict=False)
    images = make_images(1, 40, 33)
    with torch.no_grad():
        maps = chosen(images)
        assert_equal_maps(maps, [every_stage(images)[i] for i in out_indices], tolerance=0.0)
    assert chosen.num_channels == tuple(level.shape[1] for level in maps)
    strides = [4 * 2**i for i in out_indices]
    assert [level.shape[2:] for level in maps] == [(-(-40 // stride), -(-33 // stride)) for stride in strides]


@pytest.mark.parametrize("make_model", [make_swin, make_resnet, make_efficientnet_lite])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_batched_equals_single(
    make_model: Callable[..., SwinTransformer | ResNet | EfficientNetLite], batch: int
) -> None:
    model = make_model()
    images = make_images(batch, 45, 70)
    with torch.inference_mode():
        batched = model(images)
        assert [len(level) for level in batched] == [batch] * 3
        for i in range(batch):
            assert_equal_maps([level[i : i + 1] for level in batched], model(images[i : i + 1]))


@pytest.mark.parametrize("make_model", [make_swin, make_resnet, make_efficientnet_lite])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_close(
    make_model: Callable[..., SwinTransformer | ResNet | EfficientNetLite], dtype: torch.dtype
) -> None:
    model = make_model()
    images = make_images(1, 45, 70)
    with torch.inference_mode():
        exact = model(images)
        rounded = model.to(dtype)(images.to(dtype))
    assert {level.dtype for level in rounded} == {dtype}
    assert_equal_maps([level.float() for level in rounded], exact, tolerance=0.05)


@pytest.mark.parametrize("make_model", [make_swin, make_resnet, make_efficientnet_lite])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 3, 0, 32), (2, 32, 32, 3)])
def test_other_shapes_are_refused(
    make_model: Callable[..., SwinTransformer | ResNet | EfficientNetLite], shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=re.escape(f"got {shape}")):
        make_model()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": (1, 2)}, "as many num_heads"),
        ({"num_heads": (3, 2, 2, 4)}, "do not split"),
        ({"out_indices": (2, 1)}, "ascending out_indices from 0 to 3"),
        ({"out_indices": (3, 4)}, "ascending out_indices from 0 to 3"),
        ({"out_indices": ()}, "ascending out_indices from 0 to 3"),
    ],
)
def test_swin_refuses_what_does_not_fit(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_swin(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"depths": (1, 1)}, "as many depths"), ({"out_indices": (4,)}, "ascending out_indices from 0 to 3")],
)
def test_resnet_refuses_what_does_not_fit(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_resnet(**changes)


def test_swin_inference_in_groups_equals_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gradients MLPs work in place, group by group; what inference has cached serves training too."""
    monkeypatch.setattr(swin, "tokens_at_a_time", lambda device: 70)
    swin.window_layout.cache_clear()
    model, images = make_swin(), make_images(2, 45, 70)
    with torch.inference_mode():
        inferred = model(images)
    trained = model(images)
    assert_equal_maps(inferred, [level.detach() for level in trained], tolerance=1e-6)
    sum(level.square().mean() for level in trained).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert all(module.attn.relative_position_bias_table.grad.any() for module in model.layers[0].blocks)


def test_swin_works_its_layouts_out_once_per_size_and_keeps_few() -> None:
    swin.window_layout.cache_clear()
    model = make_swin()
    with torch.inference_mode():
        model(make_images(1, 45, 70))
        layouts = swin.window_layout.cache_info().misses
        assert layouts == 7  # two in each stage, but one in that of one block
        model(make_images(1, 45, 70))
        assert swin.window_layout.cache_info().misses == layouts
        for height in range(8, 400, 32):
            model(make_images(1, height, 8))
    assert swin.window_layout.cache_info().currsize <= 32


@pytest.mark.parametrize("group_size", [1, 100, 10**6])
@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("size", [(1, 1), (3, 9), (8, 8), (14, 13)])
@pytest.mark.parametrize("window", [4, 7])
def test_window_layout_is_a_shift_a_cut_and_its_inverse(
    window: int, size: tuple[int, int], batch: int, group_size: int
) -> None:
    height, width = size
    pad_h, pad_w = -height % window, -width % window
    for shift in (0, window // 2):
        layout = swin.window_layout(batch, height, width, window, shift, group_size, torch.device("cpu"))
        tokens = torch.arange(batch * height * width)
        cells = torch.cat([tokens[group.source].index_fill_(0, group.padding, -1) for group in layout.groups])
        assert torch.equal(cells[layout.cell], tokens)
        assert max(len(group.source) for group in layout.groups) <= max(group_size, window**2)

        padded = nn.functional.pad(tokens.view(batch, height, width), (0, pad_w, 0, pad_h), value=-1)
        shifted = padded.roll((-shift, -shift), dims=(1, 2))
        windows = shifted.unfold(1, window, window).unfold(2, window, window).flatten(3).reshape(-1, window**2)
        assert sorted(cells.view(-1, window**2).tolist()) == sorted(windows.tolist())
