"""The former place of `grounded_sam2.track.continuous`, for code that imports it from here."""

from grounded_sam2.track.continuous import ContinuousTracker

__all__ = ["ContinuousTracker"]
