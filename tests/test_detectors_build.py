"""Detectors by name: the right kind, with all that was asked for, and one clear line when there is none."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grounded_sam2.detectors import build_detector
from grounded_sam2.detectors.dds import DDSCloudDetector
from grounded_sam2.detectors.florence2 import Florence2Detector
from grounded_sam2.detectors.huggingface import HuggingFaceDetector
from grounded_sam2.detectors.local import LocalDetector
from grounded_sam2.detectors.tiled import TiledDetector

SUPPRESSION = {"nms_threshold": 0.6, "class_agnostic_nms": False}


def test_folder_of_transformers(tiny_detector: Path) -> None:
    detector = build_detector(f"hf:{tiny_detector}", dtype=torch.bfloat16, batch_size=3, **SUPPRESSION)
    assert isinstance(detector, HuggingFaceDetector)
    assert (detector.dtype, detector.batch_size, detector.device.type) == (torch.bfloat16, 3, "cpu")
    assert (detector.nms_threshold, detector.class_agnostic_nms) == (0.6, False)


def test_a_path_is_a_name_too(tiny_detector: Path) -> None:
    assert isinstance(build_detector(tiny_detector), LocalDetector)


def test_a_folder_of_another_model_is_left_to_transformers(tiny_detector: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_detector, tmp_path / "other")
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="bert"):
        build_detector(tmp_path / "other")


def test_local_folder_and_file(tiny_detector: Path, tmp_path: Path) -> None:
    detector = build_detector(f"local:{tiny_detector}", batch_size=2, text_cache_size=5, **SUPPRESSION)
    assert isinstance(detector, LocalDetector)
    assert (detector.batch_size, detector.text_cache_size) == (2, 5)
    assert (detector.nms_threshold, detector.class_agnostic_nms) == (0.6, False)
    shutil.copytree(tiny_detector, tmp_path / "a:b")
    assert isinstance(build_detector(tmp_path / "a:b" / "model.safetensors"), LocalDetector)


def test_cloud(tmp_path: Path) -> None:
    settings = {"token": "t0ken", "masks": True, "cache_dir": tmp_path, "max_requests": 7}
    detector = build_detector("dds:DINO-X-1.0", device="cpu", **SUPPRESSION, **settings)
    assert isinstance(detector, DDSCloudDetector)
    assert (detector.model, detector.masks, detector.service.max_requests) == ("DINO-X-1.0", True, 7)
    assert (detector.nms_threshold, detector.class_agnostic_nms) == (0.6, False)


def test_florence2(tiny_florence2: Path) -> None:
    detector = build_detector(f"florence2:{tiny_florence2}", num_beams=1, masks=True, batch_size=2, **SUPPRESSION)
    assert isinstance(detector, Florence2Detector)
    assert (detector.florence2.num_beams, detector.florence2.batch_size, detector.masks) == (1, 2, True)
    assert (detector.nms_threshold, detector.class_agnostic_nms) == (0.6, False)


def test_tiles(tiny_detector: Path) -> None:
    detector = build_detector(tiny_detector, slice_wh=(64, 48), overlap_ratio=(0.5, 0.25), nms_threshold=None)
    assert isinstance(detector, TiledDetector) and isinstance(detector.detector, LocalDetector)
    assert (detector.slice_wh, detector.overlap_wh) == ((64, 48), (32, 12))
    assert detector.detector.nms_threshold is None
    (detections,) = detector.detect(np.zeros((60, 80, 3), np.uint8), "dog", box_threshold=0.3)
    assert detections.xyxy.shape[1] == 4


@pytest.mark.parametrize("name", ["yolo:v8", "https://example.org/a.pth", "hf:", "local: ", "", "HF:nano"])
def test_other_names_are_value_errors(name: str) -> None:
    with pytest.raises(ValueError, match="expected a detector such as hf:FOLDER-OR-ID, local:FILE-OR-FOLDER") as error:
        build_detector(name)
    assert repr(name) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("./nowhere", "hf download IDEA-Research/grounding-dino-tiny --local-dir ./nowhere"),
        ("hf:gdino_checkpoints/nowhere/", "hf download IDEA-Research/grounding-dino-tiny"),
        ("nobody/no-such-model", "hf download nobody/no-such-model --local-dir"),
        ("weights/groundingdino_swint_ogc.pth", "gdino_checkpoints/download_ckpts.sh"),
        ("local:nowhere", "gdino_checkpoints/download_ckpts.sh"),
        ("florence2:./Florence-2-large", "python -m grounded_sam2.download florence-2-large"),
    ],
)
def test_missing_weights_name_the_command(name: str, says: str) -> None:
    with pytest.raises(FileNotFoundError) as error:
        build_detector(name)
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "settings", "kind", "says"),
    [
        ("dds:DINO-Y", {"token": "t"}, ValueError, "expected a model of GroundingDino-1.5-Pro, .*, got 'DINO-Y'"),
        ("dds:GroundingDino-1.5-Pro", {"token": "t", "masks": True}, ValueError, "finds boxes only"),
        ("dds:DINO-X-1.0", {"token": "t", "nms_threshold": 2}, ValueError, "nms_threshold in"),
        ("dds:DINO-X-1.0", {"token": "t", "num_beams": 2}, TypeError, "num_beams"),
    ],
)
def test_wrong_settings(name: str, settings: dict[str, Any], kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        build_detector(name, **settings)


def test_names_of_detectors_need_no_package_of_theirs() -> None:
    code = (
        "import sys; from grounded_sam2.detectors import build_detector\n"
        "assert not {'torch', 'transformers', 'dds_cloudapi_sdk'} & sys.modules.keys(), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parent.parent)
