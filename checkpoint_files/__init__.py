"""Files of weights, read without running anything that is in them; what `sam2` and `grounding_dino` share."""

from checkpoint_files.reading import read_tensors

__all__ = ["read_tensors"]
