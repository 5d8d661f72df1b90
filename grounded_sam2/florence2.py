"""The former place of `grounded_sam2.detectors.florence2.model`, for code that imports it from here."""

from grounded_sam2.detectors.florence2 import Florence2

__all__ = ["Florence2"]
