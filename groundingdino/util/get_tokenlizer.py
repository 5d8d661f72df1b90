"""See `grounding_dino.groundingdino.util.get_tokenlizer`."""

from grounding_dino.groundingdino.util.get_tokenlizer import *  # noqa: F403
