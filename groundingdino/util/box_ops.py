"""See `grounding_dino.groundingdino.util.box_ops`."""

from grounding_dino.groundingdino.util.box_ops import *  # noqa: F403
