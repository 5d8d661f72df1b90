"""Device, precision, and the note about the nano models."""

import logging
from pathlib import Path

import pytest
import torch

from grounded_sam2.runtime import choose_device, choose_dtype, note_nano_models

REPOSITORY = Path(__file__).resolve().parent.parent


def test_choose_device() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device().type == ("cuda" if torch.cuda.is_available() else choose_device().type)
    with pytest.raises(ValueError, match="expected a device such as"):
        choose_device("gpu?")
    with pytest.raises(ValueError, match="torch sees"):
        choose_device("cuda:99")


@pytest.mark.parametrize(
    ("name", "dtype"), [("float32", torch.float32), ("float16", torch.float16), ("bfloat16", torch.bfloat16)]
)
def test_choose_dtype_on_a_cpu(name: str, dtype: torch.dtype) -> None:
    assert choose_dtype(torch.device("cpu"), name) == dtype


@pytest.mark.parametrize(
    ("able", "dtype"),
    [
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
        ({"architecture": "aarch64"}, torch.float32),
    ],
)
def test_auto_on_a_cpu(monkeypatch: pytest.MonkeyPatch, able: dict[str, bool], dtype: torch.dtype) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: able, raising=False)
    assert choose_dtype(torch.device("cpu")) == dtype


def test_auto_on_a_cpu_that_says_what_it_has() -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split()) if Path("/proc/cpuinfo").exists() else set()
    expected = torch.bfloat16 if flags & {"avx512_bf16", "amx_bf16"} else torch.float32
    assert choose_dtype(torch.device("cpu")) == expected


def test_wrong_dtype_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="expected a dtype of auto, float32, float16, bfloat16, got 'int8'"):
        choose_dtype(torch.device("cpu"), "int8")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_auto_on_a_gpu() -> None:
    device = choose_device()
    assert device.type == "cuda"
    in_bfloat16 = torch.cuda.get_device_capability(device) >= (8, 0)
    assert choose_dtype(device) == (torch.bfloat16 if in_bfloat16 else torch.float32)


NANO = ("gdino_checkpoints/nano", "checkpoints/sam2.1_nano.pt")


@pytest.mark.parametrize(
    ("source", "weights", "is_noted"),
    [
        (REPOSITORY / "assets" / "scene.jpg", NANO, False),
        ("my.mp4", NANO, True),
        ("0", NANO, True),
        ("my.mp4", ("IDEA-Research/grounding-dino-tiny", "checkpoints/sam2.1_hiera_large.pt"), False),
        ("my.mp4", ("IDEA-Research/grounding-dino-tiny", "checkpoints/sam2.1_nano.pt"), True),
        ("nano.mp4", ("owner/banano", "nanometres.pt"), False),
    ],
)
def test_note_about_nano_models(
    caplog: pytest.LogCaptureFixture, source: str | Path, weights: tuple[str, str], is_noted: bool
) -> None:
    with caplog.at_level(logging.WARNING):
        note_nano_models(source, *weights)
    assert len(caplog.records) == is_noted
    if is_noted:
        assert "python -m grounded_sam2.download sam2.1-large" in caplog.text
        assert "--sam2-checkpoint" in caplog.text and "--gdino-model-id" in caplog.text
        assert ("the detector finds people, cats, dogs" in caplog.text) == (weights[0] == NANO[0])


def test_the_note_names_the_detector_of_the_script(caplog: pytest.LogCaptureFixture) -> None:
    note_nano_models("my.mp4", *NANO, detector_setting="GDINO_CHECKPOINT")
    assert "download sam2.1-large groundingdino-swint bert-tokenizer, " in caplog.text
    assert "--gdino-checkpoint gdino_checkpoints/groundingdino_swint_ogc.pth" in caplog.text


def test_the_note_names_no_detector_where_none_is_nano(caplog: pytest.LogCaptureFixture) -> None:
    note_nano_models("my.jpg", NANO[1], detector_setting=None)
    assert "download sam2.1-large, then pass --sam2-checkpoint checkpoints/sam2.1_hiera_large.pt" in caplog.text
    assert "gdino" not in caplog.text.replace(NANO[1], "")
