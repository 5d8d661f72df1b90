"""Deformable attention: plain PyTorch, the C++ kernel and the CUDA kernel against loops in float64, and how they are
chosen and built."""

import importlib.util
import logging
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.cache import kept_folder
from torch import Tensor

from grounding_dino.groundingdino.ops import MSDeformAttn, deformable_attention, extension, functional
from grounding_dino.groundingdino.ops.kernel import Kernel

REPOSITORY = Path(__file__).resolve().parent.parent
Shapes = list[tuple[int, int]]
FOUR_LEVELS: Shapes = [(7, 5), (4, 3), (1, 2), (1, 1)]


def random_case(
    shapes: Shapes, batch: int = 2, queries: int = 5, heads: int = 2, width: int = 4, points: int = 4
) -> tuple[Tensor, Shapes, Tensor, Tensor]:
    """Arguments in float64, with about a third of the samples beyond an edge."""
    generator = torch.Generator().manual_seed(0)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator, dtype=torch.float64)

    samples = (batch, queries, heads, len(shapes), points)
    area = sum(height * width for height, width in shapes)
    return uniform(batch, area, heads, width) - 0.5, shapes, uniform(*samples, 2) * 1.4 - 0.2, uniform(*samples)


def by_loops(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """What the operator is defined as, sample by sample and cell by cell, in float64."""
    batch, queries, heads, levels, points = weights.shape
    attended = torch.zeros(batch, queries, heads, value.shape[3], dtype=torch.float64)
    starts = [sum(height * width for height, width in shapes[:level]) for level in range(levels)]
    for image, query, head, level, point in torch.cartesian_prod(
        *(torch.arange(size) for size in (batch, queries, heads, levels, points))
    ).tolist():
        height, width = shapes[level]
        x, y = (locations[image, query, head, level, point].double() * torch.tensor([width, height]) - 0.5).tolist()
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < height and 0 <= column < width:
                    share = (1 - abs(x - column)) * (1 - abs(y - row)) * weights[image, query, head, level, point]
                    cell = starts[level] + row * width + column
                    attended[image, query, head] += share.double() * value[image, cell, head].double()
    return attended.flatten(2)


@pytest.fixture(scope="session")
def cpu_kernel() -> Kernel:
    """Compiled when the sources or what compiles them changed, and kept with the references' answers."""
    if shutil.which(os.environ.get("CXX", "c++")) is None or shutil.which("ninja") is None:
        pytest.skip("no C++ compiler or no ninja")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_EXTENSIONS_DIR", str(kept_folder("extensions", Path(extension.__file__))))
        return extension.build("cpu")


@pytest.fixture(params=["plain", "cpu kernel"])
def on_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The operator on the CPU, by each of the two that can do the work."""
    kernel = request.getfixturevalue("cpu_kernel") if request.param == "cpu kernel" else None
    monkeypatch.setitem(extension._kernels, "cpu", kernel)
    return request.param


CASES = {
    "four levels, four points": {"shapes": FOUR_LEVELS},
    "one level": {"shapes": [(6, 4)], "batch": 1, "heads": 1},
    "one cell": {"shapes": [(1, 1)], "points": 1},
    "one query, odd width": {"shapes": FOUR_LEVELS, "queries": 1, "heads": 3, "width": 5, "points": 3},
    "wide heads": {"shapes": [(3, 9), (2, 2)], "width": 43, "queries": 3},
    "no queries": {"shapes": FOUR_LEVELS, "queries": 0},
    "no images": {"shapes": FOUR_LEVELS, "batch": 0},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)],
    ids=str,
)
def test_equals_loops(on_cpu: str, case: dict[str, Any], dtype: torch.dtype, tolerance: float) -> None:
    value, shapes, locations, weights = random_case(**case)
    value = value.to(dtype)
    wide = torch.promote_types(dtype, torch.float32)
    attended = deformable_attention(value, shapes, locations.to(wide), weights.to(wide))
    assert attended.dtype == dtype
    expected = by_loops(value, shapes, locations, weights)
    torch.testing.assert_close(attended.double(), expected, rtol=tolerance, atol=tolerance)


def test_blocks_of_queries_equal_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extension._kernels, "cpu", None)
    arguments = random_case(FOUR_LEVELS, queries=7)
    whole = deformable_attention(*arguments)
    monkeypatch.setattr(functional.plain, "SAMPLES_AT_ONCE", 1)
    torch.testing.assert_close(deformable_attention(*arguments), whole)


@pytest.mark.parametrize("far", [1e30, -1e30, math.inf, -math.inf, 1.5, -0.5])
def test_what_lies_outside_reads_zeros(on_cpu: str, far: float) -> None:
    value, shapes, locations, weights = random_case(FOUR_LEVELS)
    locations[..., 0] = far
    assert deformable_attention(value, shapes, locations, weights).count_nonzero() == 0


def test_what_is_not_a_number_is_no_address(on_cpu: str) -> None:
    value, shapes, locations, weights = random_case(FOUR_LEVELS)
    expected = deformable_attention(value, shapes, locations, weights)
    locations[0, 0] = math.nan
    attended = deformable_attention(value, shapes, locations, weights)
    torch.testing.assert_close(attended[:, 1:], expected[:, 1:])


def test_tensors_need_not_be_contiguous(on_cpu: str) -> None:
    value, shapes, locations, weights = random_case(FOUR_LEVELS)
    expected = deformable_attention(value, shapes, locations, weights)
    spread = [tensor.transpose(0, 1).contiguous().transpose(0, 1) for tensor in (value, locations, weights)]
    torch.testing.assert_close(deformable_attention(spread[0], shapes, *spread[1:]), expected)


@pytest.mark.parametrize("case", [CASES["one query, odd width"], CASES["one cell"]], ids=["levels", "one cell"])
def test_gradients(on_cpu: str, case: dict[str, Any]) -> None:
    value, shapes, locations, weights = random_case(**case)
    inputs = [tensor.requires_grad_() for tensor in (value, locations, weights)]
    assert torch.autograd.gradcheck(lambda v, x, w: deformable_attention(v, shapes, x, w), inputs)


def test_gradient_at_a_cells_centre_is_that_to_the_right(on_cpu: str) -> None:
    value = torch.tensor([1.0, 3.0, 10.0]).view(1, 3, 1, 1)
    locations = torch.tensor([0.5, 0.5]).view(1, 1, 1, 1, 1, 2).requires_grad_()  # the middle of three cells
    deformable_attention(value, [(1, 3)], locations, torch.ones(1, 1, 1, 1, 1)).sum().backward()
    torch.testing.assert_close(locations.grad.flatten(), torch.tensor([(10.0 - 3.0) * 3, -3.0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_gradients_in_lower_precision(on_cpu: str, dtype: torch.dtype) -> None:
    value, shapes, locations, weights = random_case(FOUR_LEVELS)
    exact = gradients(value, shapes, locations, weights)
    found = gradients(value.to(dtype), shapes, locations.float(), weights.float())
    assert [grad.dtype for grad in found] == [dtype, torch.float32, torch.float32]
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    for grad, expected in zip(found, exact, strict=True):
        torch.testing.assert_close(
            grad.double(), expected, rtol=tolerance, atol=tolerance * float(expected.abs().max())
        )


def gradients(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> list[Tensor]:
    inputs = [tensor.detach().clone().requires_grad_() for tensor in (value, locations, weights)]
    attended = deformable_attention(inputs[0], shapes, *inputs[1:])
    (attended * torch.linspace(-1, 1, attended.numel()).view_as(attended).to(attended)).sum().backward()
    return [tensor.grad for tensor in inputs]


def test_operator_keeps_its_promises(on_cpu: str) -> None:
    value, shapes, locations, weights = random_case([(4, 5), (1, 3)], queries=3)
    inputs = [tensor.requires_grad_() for tensor in (value, locations, weights)]
    flat_shapes = [size for shape in shapes for size in shape]
    torch.library.opcheck(functional._operator, (inputs[0], flat_shapes, *inputs[1:]))
    grad_output = torch.ones(2, 3, 8, dtype=torch.float64)
    plain_inputs = [tensor.detach() for tensor in inputs]
    torch.library.opcheck(functional._backward_operator, (grad_output, plain_inputs[0], flat_shapes, *plain_inputs[1:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, s, x, w: (v[:, 1:], s, x, w), "value has 48 cells, but spatial_shapes .* have 49"),
        (lambda v, s, x, w: (v[0], s, x, w), r"value must be \(B, S, H, D\)"),
        (lambda v, s, x, w: (v, s, x[:1], w), "sampling_locations must be"),
        (lambda v, s, x, w: (v, s, x[..., :1], w), "sampling_locations must be"),
        (lambda v, s, x, w: (v, s, x, w[:, 1:]), r"attention_weights must be \(2, 5, 2, 3, 4\)"),
    ],
)
def test_shapes_that_do_not_fit(on_cpu: str, change: Callable[..., Any], message: str) -> None:
    arguments = random_case([(7, 5), (4, 3), (1, 2)])
    with pytest.raises(ValueError, match=message):
        deformable_attention(*change(*arguments))


# ---- the layer ----


def layer_inputs(coordinates: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    area = sum(height * width for height, width in FOUR_LEVELS)
    query, value = (torch.randn(2, length, 32, generator=generator) for length in (6, area))
    reference_points = torch.rand(2, 6, 4, coordinates, generator=generator)
    return query, reference_points, value, torch.rand(2, area, generator=generator) > 0.7


def random_layer() -> MSDeformAttn:
    torch.manual_seed(2)
    layer = MSDeformAttn(embed_dim=32, num_levels=4, num_heads=4, num_points=3)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return layer


@pytest.mark.parametrize("coordinates", [2, 4], ids=["points", "boxes"])
@pytest.mark.parametrize("is_padded", [False, True])
def test_layer_equals_transformers(on_cpu: str, coordinates: int, is_padded: bool) -> None:
    from transformers import GroundingDinoConfig
    from transformers.models.grounding_dino import modeling_grounding_dino as reference

    layer = random_layer()
    config = GroundingDinoConfig(d_model=32)
    their_layer = reference.GroundingDinoMultiscaleDeformableAttention(config, num_heads=4, n_points=3)
    their_layer.load_state_dict(layer.state_dict())
    query, reference_points, value, padding = layer_inputs(coordinates)
    with torch.inference_mode():
        ours = layer(query, reference_points, value, FOUR_LEVELS, padding if is_padded else None)
        theirs, _ = their_layer(
            query,
            attention_mask=~padding if is_padded else None,
            encoder_hidden_states=value,
            reference_points=reference_points,
            spatial_shapes=torch.tensor(FOUR_LEVELS),
            spatial_shapes_list=FOUR_LEVELS,
        )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_layer_trains(on_cpu: str) -> None:
    layer = random_layer()
    query, reference_points, value, padding = layer_inputs(2)
    layer(query, reference_points, value, FOUR_LEVELS, padding).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in layer.parameters())


def test_layer_in_bfloat16_keeps_locations_exact(on_cpu: str) -> None:
    layer = random_layer()
    query, reference_points, value, padding = layer_inputs(2)
    with torch.inference_mode():
        exact = layer(query, reference_points, value, FOUR_LEVELS, padding)
        layer.bfloat16()
        rounded = layer(query.bfloat16(), reference_points, value.bfloat16(), FOUR_LEVELS, padding)
    assert rounded.dtype == torch.bfloat16
    assert float((rounded - exact).abs().mean() / exact.abs().mean()) < 0.03


def test_new_layer_looks_around_the_point() -> None:
    layer = MSDeformAttn(embed_dim=32, num_levels=2, num_heads=4, num_points=2)
    offsets = layer.sampling_offsets.bias.view(4, 2, 2, 2)
    assert offsets[0, 0].tolist() == [[1, 0], [2, 0]]
    assert offsets.abs().amax(-1).unique().tolist() == [1, 2]
    assert layer.attention_weights.bias.count_nonzero() == 0


def test_layer_says_what_reference_points_it_takes() -> None:
    query, reference_points, value, _ = layer_inputs(2)
    with pytest.raises(ValueError, match=r"reference_points must be \(B, Q, 4, 2 or 4\), got \(2, 6, 3, 2\)"):
        random_layer()(query, reference_points[:, :, :3], value, FOUR_LEVELS)


def test_export_and_compile_see_one_operator() -> None:
    layer = random_layer().requires_grad_(False)
    query, reference_points, value, padding = layer_inputs(2)
    expected = layer(query, reference_points, value, FOUR_LEVELS, padding)
    exported = torch.export.export(layer, (query, reference_points, value, FOUR_LEVELS, padding))
    assert "grounding_dino.deformable_attention.default" in str(exported.graph)
    torch.testing.assert_close(exported.module()(query, reference_points, value, FOUR_LEVELS, padding), expected)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(query, reference_points, value, FOUR_LEVELS, padding), expected)


# ---- which of them does the work ----


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A process that has not yet looked for a kernel, an empty cache, and no wish from outside."""
    monkeypatch.setattr(extension, "_kernels", {})
    monkeypatch.setattr(extension, "_installed", lambda device_type: None)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    for variable in (extension.BUILD_VARIABLE, extension.FORBID_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    with caplog.at_level(logging.INFO, logger=extension.__name__):
        yield


def lines_of_two_calls(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    arguments = random_case(FOUR_LEVELS)
    for _ in range(2):
        torch.testing.assert_close(deformable_attention(*arguments), by_loops(*arguments))
    return [(record.levelno, record.message) for record in caplog.records if record.name == extension.__name__]


def test_default_is_plain_and_says_how_to_build(undecided: None, caplog: pytest.LogCaptureFixture) -> None:
    ((level, message),) = lines_of_two_calls(caplog)
    assert level == logging.INFO
    assert message.endswith("python -m grounding_dino.groundingdino.ops.build cpu")


def test_a_kernel_can_be_forbidden(
    undecided: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GROUNDED_SAM2_NO_EXT", "1")
    monkeypatch.setenv("GROUNDED_SAM2_BUILD_EXT", "1")
    expected = "Deformable attention on cpu runs in plain PyTorch: GROUNDED_SAM2_NO_EXT is set"
    assert lines_of_two_calls(caplog) == [(logging.INFO, expected)]


def test_a_compiler_that_fails_costs_one_line(
    undecided: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GROUNDED_SAM2_BUILD_EXT", "1")
    monkeypatch.setenv("CXX", "false")
    ((level, message),) = lines_of_two_calls(caplog)
    assert level == logging.WARNING
    assert "runs in plain PyTorch: the kernel cannot be used" in message and "\n" not in message


def test_a_broken_library_costs_one_line(undecided: None, caplog: pytest.LogCaptureFixture) -> None:
    library = extension.library_path("cpu")
    library.parent.mkdir()
    library.write_bytes(b"not a library")
    ((level, _),) = lines_of_two_calls(caplog)
    assert level == logging.WARNING


def test_a_kernel_in_the_cache_is_used(
    undecided: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened: list[Path] = []
    monkeypatch.setattr(extension, "Kernel", lambda library: opened.append(library) or functional.plain)
    library = extension.library_path("cpu")
    library.parent.mkdir()
    library.touch()
    assert lines_of_two_calls(caplog) == []
    assert opened == [library]


def test_builds_at_the_same_time_compile_once(undecided: None, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []

    def compile_slowly(device_type: str, folder: str) -> None:
        compiled.append(folder)
        time.sleep(0.2)
        (Path(folder) / extension.library_path("cpu").name).touch()

    monkeypatch.setattr(extension, "_compile", compile_slowly)
    monkeypatch.setattr(extension, "Kernel", lambda library: library)
    threads = [threading.Thread(target=extension.build, args=("cpu",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(compiled) == 1
    assert extension.library_path("cpu").exists() and not Path(compiled[0]).exists()


def test_import_builds_nothing() -> None:
    program = "import sys, grounding_dino.groundingdino.ops; print('torch.utils.cpp_extension' in sys.modules)"
    environment = os.environ | {"GROUNDED_SAM2_BUILD_EXT": "1"}
    printed = subprocess.check_output([sys.executable, "-c", program], cwd=REPOSITORY, env=environment, text=True)
    assert printed.strip() == "False"


def test_setup_builds_the_kernel_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[dict[str, Any]] = []
    setuptools = pytest.importorskip("setuptools")
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: handed.append(arguments))
    for wish in ("0", "1"):
        monkeypatch.setenv("GROUNDED_SAM2_BUILD_EXT", wish)
        spec = importlib.util.spec_from_file_location("setup_of_this_repository", REPOSITORY / "setup.py")
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    without, with_kernel = (arguments["ext_modules"] for arguments in handed)
    assert without == []
    (kernel,) = with_kernel
    assert kernel.name == "grounding_dino.groundingdino." + extension.library_name("cpu")
    assert all((REPOSITORY / source).exists() for source in kernel.sources + kernel.depends)


# ---- CUDA ----


@pytest.mark.slow
def test_cuda_source_compiles(undecided: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the oldest and for a recent architecture; PyTorch's guess of the toolkit's folder is not relied on."""
    if extension.cuda_home() is None:
        pytest.skip("no CUDA toolkit: no folder with bin/nvcc and include/cuda_runtime.h")
    if torch.version.cuda is None:
        pytest.skip("this PyTorch is built without CUDA")
    monkeypatch.setenv("CUDA_HOME", str(extension.cuda_home()))  # put back afterwards, `build` sets it
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "7.5;9.0+PTX")
    monkeypatch.setenv("MAX_JOBS", "1")
    assert isinstance(extension.build("cuda"), Kernel)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("is_plain", [True, False], ids=["plain", "CUDA kernel"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 5e-3)],
    ids=str,
)
def test_cuda_equals_loops_and_its_gradients_those_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, is_plain: bool, case: dict[str, Any], dtype: torch.dtype, tolerance: float
) -> None:
    monkeypatch.setitem(extension._kernels, "cpu", None)
    monkeypatch.setitem(extension._kernels, "cuda", None if is_plain else extension.build("cuda"))
    value, shapes, locations, weights = random_case(**case)
    value, wide = value.to(dtype), torch.promote_types(dtype, torch.float32)
    on_gpu = (value.cuda(), shapes, locations.to(wide).cuda(), weights.to(wide).cuda())
    attended = deformable_attention(*on_gpu)
    expected = by_loops(value, shapes, locations, weights)
    torch.testing.assert_close(attended.cpu().double(), expected, rtol=tolerance, atol=tolerance)
    for grad, exact in zip(gradients(*on_gpu), gradients(value.double(), shapes, locations, weights), strict=True):
        scale = float(exact.abs().max()) if exact.numel() else 0.0
        torch.testing.assert_close(grad.cpu().double(), exact, rtol=10 * tolerance, atol=10 * tolerance * scale)
