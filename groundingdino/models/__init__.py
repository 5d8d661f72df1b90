"""See `grounding_dino.groundingdino.models`."""

from grounding_dino.groundingdino.models import build_model

__all__ = ["build_model"]
