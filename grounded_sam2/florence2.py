"""A short path to `grounded_sam2.detectors.florence2`."""

from grounded_sam2.detectors.florence2 import Florence2

__all__ = ["Florence2"]
