"""What a script builds its models with: a device, a precision, and a word about the bundled nano models."""

import logging
from pathlib import Path
from typing import Literal

import torch

__all__ = ["choose_device", "choose_dtype", "nano_note", "note_nano_models"]

logger = logging.getLogger(__name__)

_NANO_NAME = "nano"
_NANO_FINDS = "people, cats, dogs, horses, cows and sheep"  # see the table in training/README.md
# setting that names the detector → the real models to download, and what to give the setting
_REAL_DETECTORS = {
    "GDINO_MODEL_ID": ("sam2.1-large", "IDEA-Research/grounding-dino-tiny"),
    "GDINO_CHECKPOINT": (
        "sam2.1-large groundingdino-swint bert-tokenizer",
        "gdino_checkpoints/groundingdino_swint_ogc.pth",
    ),
}
_BUNDLED_FOOTAGE = Path(__file__).resolve().parent.parent / "assets"
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_device(name: str = "auto") -> torch.device:
    """Choose the device that models run on.

    Args:
        name: "auto" takes the first of CUDA, Apple's MPS and the CPU that is there; otherwise a torch device name.

    Raises:
        ValueError: when `name` is no device name, or names a device this machine does not have.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f'expected a device such as "auto", "cpu", "cuda" or "cuda:1", got {name!r}') from None
    if device.type == "meta":
        raise ValueError(f"expected a device that computes, got {name!r}, which holds shapes only")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name!r} was asked for, but torch sees {torch.cuda.device_count()} CUDA devices")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device {name!r} was asked for, but MPS is not available")
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, NotImplementedError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise ValueError(f"device {name!r} was asked for, but cannot be used: {reason}") from error
    return device


def choose_dtype(device: torch.device, name: str = "auto") -> torch.dtype:
    """Choose the precision models are built with.

    Args:
        device: where they will run.
        name: "float32", "float16" or "bfloat16"; "auto" is bfloat16 on a CUDA device or a CPU (AVX-512 bf16, AMX) that
            computes in it in hardware, else float32.

    Raises:
        ValueError: for another name.
    """
    if name == "auto":
        return torch.bfloat16 if _computes_in_bfloat16(device) else torch.float32
    if name not in _DTYPES:
        raise ValueError(f"expected a dtype of auto, {', '.join(_DTYPES)}, got {name!r}")
    return _DTYPES[name]


def _computes_in_bfloat16(device: torch.device) -> bool:
    """Whether a device has bfloat16 in hardware; where it has not, it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # older PyTorch cannot say
        return False
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def note_nano_models(
    source: object,
    *weights: str | Path,
    detector_setting: Literal["GDINO_MODEL_ID", "GDINO_CHECKPOINT"] | None = "GDINO_MODEL_ID",
) -> None:
    """Say once, as a warning, what to expect of the bundled nano models on footage that is not bundled.

    The nano detector finds a few common things on photographs, and misses many of them; the nano segmenter is no match
    for the real one. The user should know which flags and which download bring the real models.

    Args:
        source: the image, video or folder that is read, as the script's setting names it.
        weights: checkpoint paths and model folders the script uses.
        detector_setting: the script's setting that names its detector; None: there is no nano model of its kind.
    """
    note = nano_note(*weights, detector_setting=detector_setting)
    if note is None:
        return
    if isinstance(source, (str, Path)) and _BUNDLED_FOOTAGE in Path(source).resolve().parents:
        return
    logger.warning("%s", note)


def nano_note(
    *weights: str | Path,
    detector_setting: Literal["GDINO_MODEL_ID", "GDINO_CHECKPOINT"] | None = "GDINO_MODEL_ID",
) -> str | None:
    """What `note_nano_models` says of footage that is not bundled; None where no nano model is used."""
    nano = [str(path) for path in weights if _NANO_NAME in Path(path).stem.split("_") + [Path(path).name]]
    if not nano:
        return None
    downloads, flags = "sam2.1-large", "--sam2-checkpoint checkpoints/sam2.1_hiera_large.pt"
    if detector_setting is not None:
        downloads, detector = _REAL_DETECTORS[detector_setting]
        flags += f" --{detector_setting.lower().replace('_', '-')} {detector}"
    named = f"{' and '.join(nano)} {'is' if len(nano) == 1 else 'are each'} a nano model"
    is_detector = any(Path(path).name == _NANO_NAME for path in nano)
    finds = f", the detector finds {_NANO_FINDS} now and then and little else" if is_detector else ""
    return (
        f"Note: {named}: masks are rough{finds}. For footage of your own get the real models: "
        f"python -m grounded_sam2.download {downloads}, then pass {flags}"
    )
