"""`sam2.transforms` where facebookresearch/sam2 has it."""

from sam2.transforms import SAM2Transforms

__all__ = ["SAM2Transforms"]
