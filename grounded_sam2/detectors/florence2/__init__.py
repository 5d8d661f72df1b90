"""Florence-2: the model with its tasks, and the detector made of it."""

from grounded_sam2.detectors.florence2.detector import Florence2Detector
from grounded_sam2.detectors.florence2.model import Florence2

__all__ = ["Florence2", "Florence2Detector"]
