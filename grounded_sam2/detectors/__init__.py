"""Detectors: images and a text prompt in, one `supervision.Detections` per image out.

    detector = build_detector("gdino_checkpoints/nano")
    (detections,) = detector.detect(image, "dog. red apple@0.5. not a toy dog.")

Each detector is a module of its own that is imported only when it is used, so that one of them never needs the others'
packages.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from checkpoint_files.configs import read_json_object
from grounded_sam2.detectors.base import Detector
from grounded_sam2.detectors.tiled import DEFAULT_OVERLAP_RATIO, in_tiles

if TYPE_CHECKING:
    import torch

__all__ = ["Detector", "build_detector"]

_FORMS = {
    "hf": "hf:FOLDER-OR-ID",
    "local": "local:FILE-OR-FOLDER",
    "dds": "dds:MODEL",
    "florence2": "florence2:FOLDER-OR-ID",
}
_WEIGHT_SUFFIXES = (".pth", ".safetensors")


def build_detector(
    name: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    nms_threshold: float | None = 0.7,
    class_agnostic_nms: bool = True,
    batch_size: int = 4,
    slice_wh: tuple[int, int] | None = None,
    overlap_ratio: tuple[float, float] = DEFAULT_OVERLAP_RATIO,
    **settings: Any,
) -> Detector:
    """Build the detector of a name.

    | name | detector |
    |---|---|
    | `hf:FOLDER-OR-ID`, or a hub id or another folder alone | `huggingface.HuggingFaceDetector` |
    | `local:FILE-OR-FOLDER`, or such a file, or a folder of Grounding DINO alone | `local.LocalDetector` |
    | `dds:MODEL`, as `dds:DINO-X-1.0` | `dds.DDSCloudDetector` |
    | `florence2:FOLDER-OR-ID` | `florence2.Florence2Detector` |

    Args:
        name: in one of these forms.
        device: where a model runs that is not in the cloud.
        dtype: the precision that such a model is built with; None is float32.
        nms_threshold: of two boxes that overlap by a higher IoU only the more confident is kept; None keeps all.
        class_agnostic_nms: let boxes of different phrases suppress each other too.
        batch_size: how many images go through such a model together.
        slice_wh: also look at tiles of this width and height, see `tiled.TiledDetector`; None does not.
        overlap_ratio: how far tiles overlap, as shares of their width and height.
        settings: what else the detector of this kind takes: `config` and `tokenizer` (local), `token`, `masks`,
            `cache_dir`, `max_requests`, `endpoint` (dds), `task`, `masks`, `num_beams` (florence2).

    Raises:
        ValueError: a name of no kind of detector, or what the detector does not accept.
        FileNotFoundError: the weights are not there; names the command that brings them.
        OSError: the SDK of the cloud is not installed.
        TypeError: a setting that the kind of detector does not have.
    """
    kind, rest = _kind_and_rest(os.fspath(name))
    suppression: dict[str, Any] = {"nms_threshold": nms_threshold, "class_agnostic_nms": class_agnostic_nms}
    model: dict[str, Any] = {"device": device, "batch_size": batch_size}
    if dtype is not None:
        model["dtype"] = dtype
    return in_tiles(_build(kind, rest, model, suppression, settings), slice_wh, overlap_ratio)


def _kind_and_rest(name: str) -> tuple[str, str]:
    kind, mark, rest = name.partition(":")
    if not mark or Path(name).exists() or len(kind) == 1:  # a drive's letter is no kind
        # the same boxes either way, without transformers sooner and faster
        is_local = name.lower().endswith(_WEIGHT_SUFFIXES) or _is_grounding_dino(Path(name))
        kind, rest = "local" if is_local else "hf", name
    if kind not in _FORMS or not rest.strip():
        raise ValueError(
            f"expected a detector such as {', '.join(_FORMS.values())}, or a folder, hub id or .pth file; got {name!r}"
        )
    return kind, rest


def _is_grounding_dino(folder: Path) -> bool:
    try:
        return read_json_object(folder / "config.json").get("model_type") in ("grounding-dino", "mm-grounding-dino")
    except (OSError, ValueError):
        return False


def _build(
    kind: str, rest: str, model: dict[str, Any], suppression: dict[str, Any], settings: dict[str, Any]
) -> Detector:
    if kind == "hf":
        from grounded_sam2.detectors.huggingface import HuggingFaceDetector

        return HuggingFaceDetector(rest, **model, **suppression, **settings)
    if kind == "local":
        from grounded_sam2.detectors.local import LocalDetector

        return LocalDetector(rest, **model, **suppression, **settings)
    if kind == "dds":
        from grounded_sam2.detectors.dds import DDSCloudDetector, DDSModel

        return DDSCloudDetector(cast(DDSModel, rest), **suppression, **settings)
    from grounded_sam2.detectors.florence2 import Florence2, Florence2Detector

    of_model = {setting: settings.pop(setting) for setting in ("num_beams", "max_new_tokens") if setting in settings}
    return Florence2Detector(Florence2(rest, **model, **of_model), **suppression, **settings)
