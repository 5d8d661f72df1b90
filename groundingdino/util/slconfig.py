"""See `grounding_dino.groundingdino.util.slconfig`."""

from grounding_dino.groundingdino.util.slconfig import *  # noqa: F403
