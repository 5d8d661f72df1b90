"""The detectors that a server offers, by name; each is imported and built when somebody asks it first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from grounded_sam2.detectors.base import Detector
from grounded_sam2.detectors.tiled import in_tiles

if TYPE_CHECKING:
    import torch

    from grounded_sam2.detectors.dds import DDSModel

__all__ = ["named_detectors"]


def named_detectors(
    gdino_model_id: str,
    device: torch.device,
    *,
    florence2_model_id: str | None = None,
    cloud_model: DDSModel | None = None,
    api_token: str | None = None,
    dds_endpoint: str | None = None,
    cache_dir: Path | None = None,
    max_requests: int | None = None,
    nms_threshold: float | None = 0.7,
    slice_wh: tuple[int, int] | None = None,
    overlap_ratio: tuple[float, float] = (0.2, 0.2),
) -> dict[str, Callable[[], Detector]]:
    """Name → what builds the detector; the first is the default.

    Args:
        gdino_model_id: folder or hub id of a Grounding DINO in Hugging Face's format; its last part is the name.
        device: for the models.
        florence2_model_id: folder or hub id of a Florence-2; None: there is none.
        cloud_model: of the DDS cloud, for which `api_token` or DDS_API_TOKEN pays; None: there is none.
        api_token: see `grounded_sam2.detectors.dds.DDSCloudDetector`, and so `dds_endpoint`, `cache_dir` and
            `max_requests`.
        nms_threshold: see `grounded_sam2.detectors.base.PhraseDetector`.
        slice_wh: see `grounded_sam2.detectors.tiled.in_tiles`, and so `overlap_ratio`.
    """

    def gdino() -> Detector:
        from grounded_sam2.detectors.huggingface import HuggingFaceDetector

        return HuggingFaceDetector(gdino_model_id, device=device, nms_threshold=nms_threshold)

    def florence2() -> Detector:
        from grounded_sam2.detectors.florence2 import Florence2, Florence2Detector

        assert florence2_model_id is not None
        return Florence2Detector(Florence2(florence2_model_id, device=device), nms_threshold=nms_threshold)

    def cloud() -> Detector:
        from grounded_sam2.detectors.dds import DDSCloudDetector

        assert cloud_model is not None
        return DDSCloudDetector(
            cloud_model,
            token=api_token,
            nms_threshold=nms_threshold,
            cache_dir=cache_dir,
            max_requests=max_requests,
            endpoint=dds_endpoint,
        )

    builders = {Path(gdino_model_id).name: gdino}
    if florence2_model_id is not None:
        builders["florence2"] = florence2
    if cloud_model is not None:
        builders["cloud"] = cloud
    return {name: _tiled(build, slice_wh, overlap_ratio) for name, build in builders.items()}


def _tiled(
    build: Callable[[], Detector], slice_wh: tuple[int, int] | None, overlap_ratio: tuple[float, float]
) -> Callable[[], Detector]:
    return lambda: in_tiles(build(), slice_wh, overlap_ratio)
