"""The scripts' models that tests share: built once, and not changed by what one test sets."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from conftest import BUNDLED_WEIGHTS, REPOSITORY, built_once

Calls = list[tuple[Any, ...]]


@pytest.fixture
def calls() -> Calls:
    return []


@pytest.fixture
def build(calls: Calls) -> Callable[..., Any]:
    def build_model(*args: Any, **kwargs: Any) -> SimpleNamespace:
        calls.append((*args, kwargs))
        return SimpleNamespace(threshold=0.5)

    return built_once(build_model, {})


@pytest.mark.parametrize("weights", BUNDLED_WEIGHTS, ids=lambda path: path.name)
def test_bundled_models_are_built_once(
    build: Callable[..., Any], calls: Calls, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    name = str(weights.relative_to(REPOSITORY))
    build(None, name, device="cpu").threshold = 0.9
    assert build(None, name, device="cpu").threshold == 0.5 and len(calls) == 1
    build(None, name, device="meta"), build(f"hf:{name}", device="cpu")
    assert len(calls) == 3


def test_other_models_are_built_each_time(
    build: Callable[..., Any], calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("checkpoints/sam2.1_nano.pt", str(tmp_path), "someone/some-detector"):
        build(name), build(name)
    assert len(calls) == 6


def test_scripts_share_their_models(load_script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    first, second = (load_script("grounded_sam2_hf_model_demo.py") for _ in range(2))
    one, other = (script.build_sam2(None, script.SAM2_CHECKPOINT, device="cpu") for script in (first, second))
    assert one is not other and one.no_mem_embed is other.no_mem_embed
