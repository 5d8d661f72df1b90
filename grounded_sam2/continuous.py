"""A short path to `grounded_sam2.track.continuous`."""

from grounded_sam2.track.continuous import ContinuousTracker

__all__ = ["ContinuousTracker"]
