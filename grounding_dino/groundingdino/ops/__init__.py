"""Multi-scale deformable attention: the operator and the layer around it."""

from grounding_dino.groundingdino.ops.functional import deformable_attention
from grounding_dino.groundingdino.ops.module import MSDeformAttn

__all__ = ["MSDeformAttn", "deformable_attention"]
