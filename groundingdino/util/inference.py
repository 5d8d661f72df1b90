"""See `grounding_dino.groundingdino.util.inference`."""

from grounding_dino.groundingdino.util.inference import *  # noqa: F403
